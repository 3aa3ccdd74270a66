"""Holds one thread of a running process, as a debugger does: it is starved, and the other threads go on.

hold_thread.py PID NAME

Says `done` when the thread of that name is held, and lets go of it at the end of standard input.
"""

import ctypes
import os
import sys

DETACH, SEIZE, INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000

C = ctypes.CDLL(None, use_errno=True)
C.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
C.ptrace.restype = ctypes.c_long


def trace(request, thread):
    if C.ptrace(request, thread, None, None) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of {thread}: {os.strerror(error)}")


def name(process, thread):
    with open(f"/proc/{process}/task/{thread}/comm") as file:
        return file.read().strip()


process, wanted = int(sys.argv[1]), sys.argv[2]
(thread,) = [int(thread) for thread in os.listdir(f"/proc/{process}/task") if name(process, thread) == wanted]
trace(SEIZE, thread)
trace(INTERRUPT, thread)
os.waitpid(thread, WALL)
print("done", flush=True)
sys.stdin.read()
trace(DETACH, thread)
