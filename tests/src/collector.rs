//! The collector as an operator runs it: `init` once, then `serve` with a configuration file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    people::People,
    program::{Lines, Program, RESTART, Said, command},
    wait::{SOON, eventually},
    webhook::Receiver,
};

/// Seconds between two heartbeats in tests, unless a test asks for others.
pub const INTERVAL: u64 = 2;

/// What a test may ask for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Seconds between heartbeats; 0 for [`INTERVAL`].
    pub interval: u64,
    /// More lines for the configuration file.
    pub more: String,
    /// Names of the server beside its loopback address.
    pub names: Vec<String>,
}

/// What `init` printed.
#[derive(Debug, Clone)]
pub struct FirstSignIn {
    /// The first administrator.
    pub user: String,
    /// Their password.
    pub password: String,
    /// An API token of theirs.
    pub token: String,
    /// The file of the agents' certificate authority.
    pub ca: PathBuf,
}

/// The doors as they were bound.
#[derive(Debug, Clone)]
pub struct Doors {
    /// `https://…` of the agents' door.
    pub agents: String,
    /// `https://…` of the joining door.
    pub join: String,
    /// `http://…` of the people's door.
    pub ops: String,
}

/// One collector over its whole life, restarts included.
#[derive(Debug)]
pub struct Collector {
    folder: PathBuf,
    process: Option<Program>,
    journal: Lines,
    /// What `init` printed.
    pub first: FirstSignIn,
    /// Where it listens; the same after a restart.
    pub doors: Doors,
}

impl Collector {
    /// Makes the configuration in `folder`, calls `init`, starts `serve` on free ports.
    pub fn start(folder: &Path, publisher: &Path, webhook: &Receiver, options: &Options) -> Self {
        fs::create_dir_all(folder).expect("a folder for the collector");
        write_config(folder, publisher, webhook, options);
        let config = folder.join("collector.toml");
        let said = Said::by(
            command("pristine-collector")
                .arg("init")
                .arg("--config")
                .arg(&config)
                .args(["--format", "json"]),
        );
        let printed = said.exits(0).json();
        let text = |name: &str| {
            printed[name]
                .as_str()
                .unwrap_or_else(|| panic!("init printed no {name}"))
                .to_owned()
        };
        let first = FirstSignIn {
            user: text("user"),
            password: text("password"),
            token: text("token"),
            ca: PathBuf::from(text("ca")),
        };
        let doors = Doors {
            agents: String::new(),
            join: String::new(),
            ops: String::new(),
        };
        let mut collector = Self {
            folder: folder.to_path_buf(),
            process: None,
            journal: Lines::default(),
            first,
            doors,
        };
        collector.begin();
        collector.keep_ports();
        collector
    }

    /// Starts `serve` and waits until the people's door says that it is ready.
    pub fn begin(&mut self) {
        let before = self.journal.lock().expect("lines").len();
        let give_up = std::time::Instant::now() + RESTART;
        'start: loop {
            let mut serve = command("pristine-collector");
            serve
                .arg("serve")
                .arg("--config")
                .arg(self.folder.join("collector.toml"))
                // As its unit runs it.
                .env("MALLOC_ARENA_MAX", "2");
            let mut process =
                Program::start("pristine-collector", &mut serve, Arc::clone(&self.journal));
            loop {
                if let Some(doors) = self.bound(before, &process) {
                    self.doors = doors;
                    self.process = Some(process);
                    break 'start;
                }
                let late = std::time::Instant::now() > give_up;
                // A port that a client of this machine holds for a moment is no failure of the collector.
                if process.ended().is_some() && !late && process.complaint().contains("in use") {
                    continue 'start;
                }
                assert!(
                    !late && process.ended().is_none(),
                    "the collector does not start:\n{}",
                    process.complaint()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let door = self.people("");
        eventually("the collector is ready", SOON, || {
            door.ask("GET", "/readyz", None).filter(|a| a.status == 200)
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("a running collector").kill();
    }

    /// SIGTERM; the end must be clean.
    pub fn stop(&mut self) {
        let status = self
            .process
            .take()
            .expect("a running collector")
            .stop(Signal::TERM);
        assert!(status.success(), "an orderly stop ended with {status}");
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Program::pid)
    }

    /// A client of its people's door.
    pub fn people(&self, token: &str) -> People {
        People::new(&self.doors.ops, token)
    }

    /// Every journal line so far, those of earlier processes included.
    pub fn journal(&self) -> Vec<Value> {
        let lines = self.journal.lock().expect("lines");
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Lines on standard output that are no JSON object: there must be none.
    pub fn strange_lines(&self) -> Vec<String> {
        let lines = self.journal.lock().expect("lines");
        let strange = |line: &&String| {
            !serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object())
        };
        lines.iter().filter(strange).cloned().collect()
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn bound(&self, after: usize, process: &Program) -> Option<Doors> {
        let mut lines = self.journal.lock().expect("lines")[after..].to_vec();
        lines.extend(process.stderr.lock().expect("lines").iter().cloned());
        lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| {
                let door = |name: &str, scheme: &str| {
                    let text = line[name].as_str()?;
                    Some(if text.contains("://") {
                        text.to_owned()
                    } else {
                        format!("{scheme}://{text}")
                    })
                };
                Some(Doors {
                    agents: door("agents", "https")?,
                    join: door("join", "https")?,
                    ops: door("ops", "http")?,
                })
            })
    }

    /// Agents and tokens name the ports, so a restarted collector must have the same ones.
    fn keep_ports(&self) {
        let path = self.folder.join("collector.toml");
        let mut config = fs::read_to_string(&path).expect("its configuration");
        for (key, url) in [
            ("agents", &self.doors.agents),
            ("join", &self.doors.join),
            ("ops", &self.doors.ops),
        ] {
            let port = url
                .trim_end_matches('/')
                .rsplit(':')
                .next()
                .expect("a port");
            config = config.replace(
                &format!("{key} = \"127.0.0.1:0\""),
                &format!("{key} = \"127.0.0.1:{port}\""),
            );
        }
        fs::write(&path, config).expect("its configuration");
    }
}

fn names_of(options: &Options) -> Vec<String> {
    let mut names = vec!["127.0.0.1".to_owned()];
    names.extend(options.names.clone());
    names
}

fn write_config(folder: &Path, publisher: &Path, webhook: &Receiver, options: &Options) {
    let secret = folder.join("webhook.secret");
    fs::write(&secret, &webhook.secret).expect("a secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("its mode");
    let interval = if options.interval == 0 {
        INTERVAL
    } else {
        options.interval
    };
    let config = format!(
        r#"state = "{state}"
agents = "127.0.0.1:0"
join = "127.0.0.1:0"
ops = "127.0.0.1:0"
names = {names:?}
origin = "collector.test/log"
interval = {interval}
{more}
[[publishers]]
image = "base"
keys = ["{publisher}"]
threshold = 1

[[publishers]]
image = "debian"
keys = ["{publisher}"]

[[webhook]]
url = "{url}"
secret_file = "{secret}"
"#,
        state = folder.join("state").display(),
        more = options.more,
        names = names_of(options),
        publisher = publisher.display(),
        url = webhook.url(),
        secret = secret.display(),
    );
    fs::write(folder.join("collector.toml"), config).expect("a configuration file");
}
