//! A command with its time and its peak memory, measured by a process that has no other children.

use std::{
    ffi::OsString,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use nix::sys::resource::{UsageWho, getrusage};

/// What a command cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// The most that one of its processes held, in KiB.
    pub peak: i64,
    /// Its exit code.
    pub code: i32,
}

/// Runs `command` through this program.
pub fn cost(command: &[OsString]) -> Cost {
    let own = std::env::current_exe().expect("this program");
    let output = Command::new(own)
        .arg("measured")
        .args(command)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = said.split_whitespace();
    let mut word = || {
        words
            .next()
            .unwrap_or_else(|| panic!("{command:?}: {said}"))
    };
    Cost {
        seconds: word().parse().expect("seconds"),
        peak: word().parse().expect("KiB"),
        code: word().parse().expect("a code"),
    }
}

/// The other side: runs the words as a command whose output goes nowhere; prints seconds, KiB and exit code.
pub fn run(words: &[&str]) -> ExitCode {
    let (name, arguments) = words.split_first().expect("a command");
    let began = Instant::now();
    let status = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let seconds = began.elapsed().as_secs_f64();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)
        .expect("usage")
        .max_rss();
    println!("{seconds} {peak} {}", status.code().unwrap_or(-1));
    ExitCode::SUCCESS
}
