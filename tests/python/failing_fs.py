"""A file system in user space that can fail: failing_fs.py MOUNTPOINT. It speaks to /dev/fuse by itself.

Says `done` when mounted. Each line on standard input is a mode: `well` (as at the start), `fail` (EIO for what is named after it,
EACCES for `denied`), `hang` (no answer for what is named `hang…`), `silent` (no answer to anything). What got no
answer gets it with the next `well`. Ends, and is unmounted, with its standard input.
"""
import ctypes
import errno
import os
import select
import stat
import struct
import sys

HEADER = struct.Struct("<IIQQIIIHH")
ATTRIBUTES = struct.Struct("<6Q10I")
TREE = {
    1: ("", True), 2: ("fine", False), 3: ("failing", False), 4: ("denied", False), 5: ("failing-folder", True),
    6: ("inside", False), 7: ("hang", False), 8: ("hang-folder", True), 9: ("last", False),
}
CHILDREN = {1: [2, 3, 4, 5, 7, 8, 9], 5: [6], 8: []}
CONTENT = b"as it is\n" * 100
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 27, 28, 29, 36, 38, 42


class NoAnswer(Exception):
    pass


def attributes(node):
    _, folder = TREE[node]
    mode = stat.S_IFDIR | 0o755 if folder else stat.S_IFREG | 0o644
    size = 0 if folder else len(CONTENT)
    return ATTRIBUTES.pack(node, size, 8, 1000, 1000, 1000, 0, 0, 0, mode, 2 if folder else 1, 0, 0, 0, 4096, 0)


def listing(node, offset, room):
    out = b""
    for place, child in enumerate(CHILDREN[node]):
        name, folder = TREE[child]
        raw = name.encode()
        entry = struct.pack("<QQII", child, place + 1, len(raw), 4 if folder else 8) + raw
        entry += b"\0" * (-len(entry) % 8)
        if place >= offset and len(out) + len(entry) <= room:
            out += entry
    return out


def answer(mode, opcode, node, body):
    """The reply's body, or an OSError for its error."""
    name, _ = TREE.get(node, ("", False))
    if mode == "fail" and name == "denied" and opcode == OPEN:
        raise OSError(errno.EACCES, "")
    if mode == "fail" and name.startswith("failing") and opcode in (READ, READDIR):
        raise OSError(errno.EIO, "")
    if mode == "silent":
        raise NoAnswer
    if mode == "hang" and name.startswith("hang") and opcode in (READ, READDIR):
        raise NoAnswer
    if opcode == INIT:
        return struct.pack("<IIIIHHIIHH8I", 7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, *[0] * 8)
    if opcode == LOOKUP:
        wanted = body.rstrip(b"\0").decode(errors="replace")
        for child in CHILDREN.get(node, []):
            if TREE[child][0] == wanted:
                return struct.pack("<QQQQII", child, 1, 0, 0, 0, 0) + attributes(child)
        raise OSError(errno.ENOENT, "")
    if opcode == GETATTR:
        return struct.pack("<QII", 0, 0, 0) + attributes(node)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<QII", node, 1 if opcode == OPEN else 0, 0)  # past the page cache
    if opcode in (READ, READDIR):
        _, offset, room = struct.unpack_from("<QQI", body)
        return listing(node, offset, room) if opcode == READDIR else CONTENT[offset:offset + room]
    if opcode == STATFS:
        return struct.pack("<5Q4I6I", 1000, 500, 500, 100, 50, 4096, 255, 4096, 0, *[0] * 6)
    if opcode in (RELEASE, RELEASEDIR, FLUSH, DESTROY):
        return b""
    raise OSError(errno.ENOSYS, "")


def respond(device, mode, request):
    """Whether there was an answer."""
    _, opcode, unique, node, *_ = HEADER.unpack_from(request)
    try:
        body, error = answer(mode, opcode, node, request[HEADER.size:]), 0
    except NoAnswer:
        return False
    except OSError as failure:
        body, error = b"", -failure.errno
    try:
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
    except OSError:
        pass  # whoever asked is gone
    return True


def main():
    mountpoint = os.fsencode(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"failing", mountpoint, b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    mode, told, held = "well", False, []
    poll = select.poll()
    poll.register(device, select.POLLIN)
    poll.register(0, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if 0 in ready:
            line = os.read(0, 100)
            if not line:
                break
            mode = line.decode().strip().rsplit("\n", 1)[-1]
            late, held = (held, []) if mode == "well" else ([], held)
            for request in late:
                respond(device, mode, request)
            print("done", flush=True)
        if device not in ready:
            continue
        try:
            request = os.read(device, 1 << 18)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                continue
            break
        opcode = HEADER.unpack_from(request)[1]
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        if not respond(device, mode, request):
            held.append(request)
        if opcode == INIT and not told:
            told = True
            print("done", flush=True)
    libc.umount2(mountpoint, 2)


main()
