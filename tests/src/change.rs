//! Somebody changes a file: a process that makes the change and then stays alive until the test lets it go, so that what the kernel
//! tells about the doer can still be followed.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Instant,
};

/// The process that made a change; gone when dropped.
#[derive(Debug)]
pub struct Doer {
    child: Child,
    /// Its executable, as the kernel knows it.
    pub exe: PathBuf,
    /// When the change was done.
    pub done: Instant,
}

impl Doer {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Doer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

const BEFORE: &str = "
import ctypes, os, shutil, socket, stat, struct, sys
R = os.fsencode(sys.argv[1])
def at(path): return R + b'/' + path
def write(path, content, flags=os.O_WRONLY | os.O_TRUNC | os.O_CREAT):
    fd = os.open(at(path), flags, 0o644)
    os.write(fd, content)
    os.close(fd)
def again(path, content): write(path, content, os.O_WRONLY)
C = ctypes.CDLL(None, use_errno=True)
def libc(name, *arguments):
    assert C[name.decode()](*arguments) >= 0, (name, os.strerror(ctypes.get_errno()))
";

const AFTER: &str = "
print('done', flush=True)
sys.stdin.read()
";

/// Runs `script` in a process of its own: Python, with `at(b'path')` for a place below `root`, `write` for all of a file, `again` for
/// its first bytes, and `libc` for a call of the C library that must succeed.
#[track_caller]
pub fn change(root: &Path, script: &str) -> Doer {
    by(Command::new(&*INTERPRETER)
        .args(["-I", "-S", "-c", &format!("{BEFORE}{script}{AFTER}")])
        .arg(root))
}

/// Holds the thread of this name in a process until what is given is dropped.
#[track_caller]
pub fn hold(pid: u32, thread: &str) -> Doer {
    let script = crate::program::script("hold_thread.py");
    by(Command::new(&*INTERPRETER)
        .arg(script)
        .args([&pid.to_string(), thread]))
}

/// Runs a program that makes a change, says `done` on a line and then waits for the end of its standard input.
#[track_caller]
pub fn by(command: &mut Command) -> Doer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process that changes something");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut said)
        .expect("a word from it");
    let done = Instant::now();
    if said != "done\n" {
        child.wait().ok();
        panic!("the change failed: {command:?}");
    }
    let exe = fs::read_link(format!("/proc/{}/exe", child.id())).expect("its executable");
    Doer { child, exe, done }
}

/// A real interpreter, not a wrapper script that starts one.
static INTERPRETER: LazyLock<PathBuf> = LazyLock::new(|| {
    let system = PathBuf::from("/usr/bin/python3");
    if system.exists() {
        return system;
    }
    let asked = Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("a python3");
    PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim())
});
