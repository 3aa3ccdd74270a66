//! A program whose wall clock is off, by a library that stands before the system's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::tool;

/// A year, in seconds.
pub const YEAR: i64 = 365 * 86_400;

/// Environment for a program whose clock is `seconds` off; the library is compiled into `folder`.
pub fn clock(folder: &Path, seconds: i64) -> Vec<(String, String)> {
    let library = folder.join("clock.so");
    if !library.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/c/clock.c");
        let text = |path: &PathBuf| path.to_str().expect("a text path").to_owned();
        tool(
            "cc",
            [
                "-shared",
                "-fPIC",
                "-O1",
                "-o",
                &text(&library),
                &text(&source),
                "-ldl",
            ],
        );
    }
    vec![
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        ("CLOCK_OFF_SECONDS".to_owned(), seconds.to_string()),
    ]
}

/// Whether this machine can do that: the library must really move `date`.
pub fn is_possible(folder: &Path) -> bool {
    let compiler = Command::new("cc")
        .arg("--version")
        .output()
        .is_ok_and(|said| said.status.success());
    if !compiler {
        return false;
    }
    let seconds = |off: i64| {
        let said = Command::new("date")
            .arg("+%s")
            .envs(clock(folder, off))
            .output()
            .ok()?;
        String::from_utf8_lossy(&said.stdout)
            .trim()
            .parse::<i64>()
            .ok()
    };
    match (seconds(0), seconds(YEAR)) {
        (Some(now), Some(later)) => later - now > YEAR / 2,
        _ => false,
    }
}
