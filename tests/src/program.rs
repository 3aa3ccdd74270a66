//! A program under test as a child process: its lines are kept, it can be killed at any moment, and it never outlives the test.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{SOON, eventually};

/// Lines of one stream, in order.
pub type Lines = Arc<Mutex<Vec<String>>>;

/// The folder of the built programs: the one that this test was built into.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test
        .ancestors()
        .skip(1)
        .take(2)
        .find(|folder| folder.join("pristine").is_file());
    folder
        .unwrap_or_else(|| panic!("no built programs beside {}: run tests/run", test.display()))
        .to_path_buf()
}

/// The build folder that all profiles share, for what is costly to make.
pub fn cache() -> PathBuf {
    built().parent().expect("a target folder").to_path_buf()
}

/// A command for one of the three programs, without colour and without a terminal.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(built().join(name));
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    /// What it wrote to standard output so far.
    pub stdout: Lines,
    /// What it wrote to standard error so far.
    pub stderr: Lines,
}

impl Program {
    /// Starts `command`; `stdout` goes on where an earlier process of the same program ended.
    pub fn start(name: &str, command: &mut Command, stdout: Lines) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stderr = Lines::default();
        keep_lines(child.stdout.take().expect("piped"), Arc::clone(&stdout));
        keep_lines(child.stderr.take().expect("piped"), Arc::clone(&stderr));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child")
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().expect("a killed child");
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("a signal to a child");
    }

    /// Sends `signal` and waits for the end, which must come soon.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let name = self.name.clone();
        eventually(&format!("{name} ends after {signal:?}"), SOON, || {
            self.ended()
        })
    }

    /// The last lines of standard error, for messages.
    pub fn complaint(&self) -> String {
        let lines = self.stderr.lock().expect("lines");
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("-- last words of {}:\n{}", self.name, self.complaint());
        }
    }
}

fn keep_lines(stream: impl Read + Send + 'static, into: Lines) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            into.lock().expect("lines").push(line);
        }
    });
}

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Runs to the end.
    pub fn by(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let code = status.code().unwrap_or(-1);
        Self {
            code,
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Itself, after checking the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code; standard output:\n{}\nstandard error:\n{}",
            self.out, self.err
        );
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("not one JSON document ({error}):\n{}", self.out))
    }
}

/// Runs a tool of the system, which must succeed.
#[track_caller]
pub fn tool<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    Said::by(Command::new(name).args(arguments).env("PATH", path))
        .exits(0)
        .out
}

/// The Python that has the outside checkers, as `tests/run` made it.
pub fn python() -> PathBuf {
    let made = || cache().join("venv/bin/python");
    std::env::var_os("PRISTINE_TEST_PYTHON").map_or_else(made, PathBuf::from)
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

/// A program of `tests/c`, compiled where it is newer than what was compiled before.
#[track_caller]
pub fn compiled(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("c")
        .join(name)
        .with_extension("c");
    let folder = cache().join("test-programs");
    std::fs::create_dir_all(&folder).expect("a folder for compiled programs");
    let (made, half) = (
        folder.join(name),
        folder.join(format!("{name}.{}", std::process::id())),
    );
    let changed = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|data| data.modified())
            .ok()
    };
    if changed(&made) < changed(&source) {
        tool(
            "cc",
            [
                OsStr::new("-O1"),
                "-Wall".as_ref(),
                "-o".as_ref(),
                half.as_os_str(),
                source.as_os_str(),
            ],
        );
        std::fs::rename(&half, &made).expect("the compiled program in its place");
    }
    made
}

/// How long a stopped program may take to be looked at again by whoever restarts it.
pub const RESTART: Duration = Duration::from_secs(60);
