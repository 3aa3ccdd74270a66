//! An agent as an operator runs it: `enroll` once, then `run` with a configuration file.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Lines, Program, Said, built, command};

/// One agent over its whole life, restarts included.
#[derive(Debug)]
pub struct Agent {
    /// The node's name.
    pub name: String,
    /// What it attests.
    pub root: PathBuf,
    /// More environment for its commands.
    pub environment: Vec<(String, String)>,
    /// What `run` is given to: the built program, or another one with its first arguments.
    pub runner: Vec<OsString>,
    folder: PathBuf,
    state: PathBuf,
    process: Option<Program>,
}

impl Agent {
    /// Writes the configuration in `folder`; nothing runs yet.
    pub fn configured(
        folder: &Path,
        name: &str,
        root: &Path,
        agents_door: &str,
        more: &str,
    ) -> Self {
        Self::with_state(folder, name, root, agents_door, &folder.join("state"), more)
    }

    /// The same with the state somewhere else.
    pub fn with_state(
        folder: &Path,
        name: &str,
        root: &Path,
        agents_door: &str,
        state: &Path,
        more: &str,
    ) -> Self {
        fs::create_dir_all(folder).expect("a folder for the agent");
        let config = format!(
            "root = \"{}\"\nstate = \"{}\"\ncollectors = [\"{agents_door}\"]\n{more}",
            root.display(),
            state.display()
        );
        fs::write(folder.join("agent.toml"), config).expect("a configuration file");
        let (name, root) = (name.to_owned(), root.to_path_buf());
        Self {
            name,
            root,
            environment: Vec::new(),
            runner: vec![built().join("pristine-agent").into_os_string()],
            folder: folder.to_path_buf(),
            state: state.to_path_buf(),
            process: None,
        }
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// `pristine-agent enroll --token-file …`; the file must be wiped afterwards.
    pub fn enroll(&self, token: &str) -> Said {
        let file = self.folder.join("join.token");
        fs::write(&file, token).expect("a token file");
        let mut enroll = command("pristine-agent");
        enroll
            .arg("enroll")
            .arg("--config")
            .arg(self.config())
            .arg("--token-file")
            .arg(&file)
            .args(["--name", &self.name])
            .envs(self.environment.clone());
        let said = Said::by(&mut enroll);
        if said.code == 0 {
            let left = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                !left.contains(token),
                "the token file still holds the token"
            );
        }
        said
    }

    /// A command of the agent with its configuration.
    pub fn command(&self, name: &str) -> Command {
        let mut command = command("pristine-agent");
        command.arg(name).arg("--config").arg(self.config());
        command
    }

    /// `status --format json` of the running agent.
    pub fn status(&self) -> Option<Value> {
        let said = Said::by(self.command("status").args(["--format", "json"]));
        serde_json::from_str(&said.out).ok()
    }

    /// Sends a signal to the running agent.
    pub fn signal(&self, signal: Signal) {
        self.process
            .as_ref()
            .expect("a running agent")
            .signal(signal);
    }

    /// Starts `run`.
    pub fn begin(&mut self) {
        self.begin_with(&[]);
    }

    /// Starts `run` with more in its environment.
    pub fn begin_with(&mut self, environment: &[(&str, &OsStr)]) {
        let (program, arguments) = self.runner.split_first().expect("a program");
        let mut run = Command::new(program);
        run.args(arguments).arg("run").arg("--config");
        run.arg(self.config())
            .env("NO_COLOR", "1")
            // As its unit runs it.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null());
        run.envs(self.environment.clone());
        run.envs(environment.iter().copied());
        self.process = Some(Program::start("pristine-agent", &mut run, Lines::default()));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("a running agent").kill();
    }

    /// SIGTERM: a signed goodbye and a clean end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process
            .take()
            .expect("a running agent")
            .stop(Signal::TERM)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.ended().is_none())
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Program::pid)
    }

    /// What it wrote to standard error last.
    pub fn complaint(&self) -> String {
        self.process
            .as_ref()
            .map(Program::complaint)
            .unwrap_or_default()
    }
}
