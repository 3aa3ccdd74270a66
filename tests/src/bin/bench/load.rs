//! Loads that no tool of the system has: many tiny files, and one file that grows by tiny pieces.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
};

/// Files of the storm.
const FILES: usize = 20_000;
/// Pieces of the appender.
const PIECES: usize = 200_000;

/// Does it once, in `folder`.
pub fn load(what: &str, folder: &Path) {
    match what {
        "storm" => storm(folder),
        "append" => append(folder),
        other => panic!("no load is called {other}"),
    }
}

fn storm(folder: &Path) {
    let name = |n: usize| folder.join(format!("{n:05}"));
    for n in 0..FILES {
        let mut file = File::create(name(n)).expect("a file");
        file.write_all(b"sixteen letters\n").expect("a line");
    }
    for n in 0..FILES {
        fs::remove_file(name(n)).expect("the file again");
    }
}

fn append(folder: &Path) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log");
    for n in 0..PIECES {
        writeln!(file, "{n:07} something happened").expect("a line");
    }
}
