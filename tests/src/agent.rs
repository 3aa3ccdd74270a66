//! An agent as an operator runs it: `enroll` once, then `run` with a configuration file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use rustix::process::Signal;

use crate::program::{Lines, Program, Said, command};

/// One agent over its whole life, restarts included.
#[derive(Debug)]
pub struct Agent {
    /// The node's name.
    pub name: String,
    /// What it attests.
    pub root: PathBuf,
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
            .args(["--name", &self.name]);
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

    /// Starts `run`.
    pub fn begin(&mut self) {
        let mut run = command("pristine-agent");
        run.arg("run").arg("--config").arg(self.config());
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
