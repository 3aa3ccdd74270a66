//! Runs the built program in a world of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several tests, none of which uses all; a failed step is a failed test"
)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// How a run came out.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Standard output as one JSON document.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}, stderr {}", self.text(), self.stderr))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "stdout: {}\nstderr: {}",
            self.text(),
            self.stderr
        );
        self
    }

    /// Asserts that standard error says something.
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(
            self.stderr.contains(part),
            "{part:?} is not in {}",
            self.stderr
        );
        self
    }
}

/// A scratch directory with a tree to make images of.
pub struct World {
    place: TempDir,
}

impl World {
    /// A tree with odd names, a link, an empty directory and a few files.
    pub fn new() -> Self {
        let world = Self {
            place: tempfile::tempdir().unwrap(),
        };
        let root = world.root();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::write(root.join("usr/bin/tool"), "tool\n").unwrap();
        fs::write(root.join("etc/conf"), "a=1\n").unwrap();
        fs::write(root.join("etc/with space"), "x").unwrap();
        fs::write(root.join("etc/new\nline"), "y").unwrap();
        fs::write(root.join("etc/star*[q]?"), "z").unwrap();
        std::os::unix::fs::symlink("tool", root.join("usr/bin/alias")).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pristine"));
        command
            .args(arguments)
            .current_dir(self.place.path())
            .env("HOME", self.path("home"))
            .env("NO_COLOR", "1")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("PRISTINE_URL")
            .env_remove("PRISTINE_TOKEN")
            // The scratch directory may lie in somebody's checkout.
            .env(
                "GIT_CEILING_DIRECTORIES",
                self.place.path().parent().unwrap(),
            );
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Run {
        finish(self.command(arguments))
    }

    /// Runs with words separated by spaces.
    pub fn say(&self, line: &str) -> Run {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// A key pair `NAME` and `NAME.pub`.
    pub fn key(&self, name: &str) {
        self.say(&format!("key generate -o {name}")).exits(0);
    }

    /// An image of the tree, signed by `key`.
    pub fn image(&self, file: &str, key: &str) {
        self.key(key);
        self.say(&format!(
            "image build root --name web --version 1 --key {key} -o {file}"
        ))
        .exits(0);
    }
}

pub fn finish(mut command: Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The names of a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|name| name.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether the tests run as root, whom no permission stops.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}
