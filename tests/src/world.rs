//! A small fleet: a publisher, a collector, a webhook receiver, and agents as a test asks for them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    agent::Agent,
    collector::{Collector, Options},
    people::People,
    program::{Said, command},
    wait::{LATER, SOON, eventually},
    webhook::Receiver,
};

/// Everything is below one temporary folder and gone at the end.
#[derive(Debug)]
pub struct World {
    /// The collector.
    pub collector: Collector,
    /// Who is told of violations.
    pub webhook: Receiver,
    /// The first administrator at the people's door.
    pub people: People,
    folder: TempDir,
}

/// An image as `image build` made it and the collector took it.
#[derive(Debug, Clone)]
pub struct Image {
    /// `NAME.mtree.zst`.
    pub file: PathBuf,
    /// SHA-256 of the statement's payload, hex.
    pub sha256: String,
}

impl World {
    /// A publisher's key, a webhook receiver and a running collector.
    pub fn start() -> Self {
        Self::with(&Options::default())
    }

    /// The same with options.
    pub fn with(options: &Options) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pristine-test-")
            .tempdir()
            .expect("a temporary folder");
        let key = folder.path().join("publisher");
        Said::by(
            command("pristine")
                .args(["key", "generate", "-o"])
                .arg(&key),
        )
        .exits(0);
        let webhook = Receiver::start();
        let collector = Collector::start(
            &folder.path().join("collector"),
            &key.with_extension("pub"),
            &webhook,
            options,
        );
        let people = collector.people(&collector.first.token);
        let world = Self {
            collector,
            webhook,
            people,
            folder,
        };
        world.sign_in();
        world
    }

    /// A path in the temporary folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The publisher's private key file; its public half is beside it with `.pub`.
    pub fn publisher(&self) -> PathBuf {
        self.path("publisher")
    }

    /// The `pristine` command of somebody whose home is in this world.
    pub fn pristine(&self) -> Command {
        let mut command = command("pristine");
        command
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path(".config"));
        command.current_dir(self.folder.path());
        command
    }

    /// Runs `pristine` with arguments.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Said {
        Said::by(self.pristine().args(arguments))
    }

    /// Builds, signs, publishes and assigns the image of `root` by the commands that people use.
    pub fn image(&self, root: &Path, name: &str, version: &str, more: &[&str]) -> Image {
        let image = self.signed(root, name, version, more);
        self.run([
            OsStr::new("image"),
            OsStr::new("publish"),
            image.file.as_os_str(),
        ])
        .exits(0);
        self.run([
            "node",
            "assign",
            "--group",
            "default",
            &format!("{name}:{version}"),
        ])
        .exits(0);
        image
    }

    /// The same of the image `base:1.0` with rules, a JSON array; gives their file.
    pub fn image_by(&self, root: &Path, rules: &str) -> PathBuf {
        let file = self.path("scope.json");
        std::fs::write(&file, rules).expect("a scope file");
        let scope = file.to_str().expect("a text path");
        self.image(root, "base", "1.0", &["--scope", scope]);
        file
    }

    /// Builds an image and signs it as a second step; nothing is published.
    pub fn signed(&self, root: &Path, name: &str, version: &str, more: &[&str]) -> Image {
        let file = self.path(&format!("{name}-{version}.mtree.zst"));
        let mut build = self.pristine();
        build
            .args(["image", "build"])
            .arg(format!("dir:{}", root.display()));
        build.args([
            "--name",
            name,
            "--version",
            version,
            "--repository",
            "https://git.example/base.git",
        ]);
        build
            .args(["--commit", COMMIT, "--author", AUTHOR])
            .arg("-o")
            .arg(&file)
            .args(more);
        Said::by(&mut build).exits(0);
        let mut sign = self.pristine();
        Said::by(
            sign.args(["image", "sign"])
                .arg(&file)
                .arg("--key")
                .arg(self.publisher()),
        )
        .exits(0);
        let envelope = std::fs::read(statement_of(&file)).expect("a statement beside the manifest");
        let envelope = attestation::dsse::Envelope::from_json(&envelope).expect("an envelope");
        Image {
            sha256: envelope.payload_digest().to_string(),
            file,
        }
    }

    /// A join token, made by the command for it.
    pub fn join_token(&self) -> String {
        let said = self
            .run(["token", "create", "--join", "--format", "json"])
            .exits(0)
            .json();
        said["token"].as_str().expect("a token").to_owned()
    }

    /// An agent that has joined by a token and runs.
    pub fn agent(&self, name: &str, root: &Path) -> Agent {
        self.agent_with(name, root, "")
    }

    /// The same with more lines in its configuration.
    pub fn agent_with(&self, name: &str, root: &Path, more: &str) -> Agent {
        let mut agent = self.joined(name, root, more);
        agent.begin();
        agent
    }

    /// An agent that has joined by a token and does not run yet.
    pub fn joined(&self, name: &str, root: &Path, more: &str) -> Agent {
        let door = &self.collector.doors.agents;
        let agent = Agent::configured(&self.path(name), name, root, door, more);
        agent.enroll(&self.join_token()).exits(0);
        agent
    }

    /// The node's id.
    pub fn id(&self, name: &str) -> String {
        let node = eventually(&format!("{name} is a node"), SOON, || {
            self.people.node(name)
        });
        node["id"].as_str().expect("an id").to_owned()
    }

    /// Has the node look at everything again.
    #[track_caller]
    pub fn rescan(&self, name: &str) {
        self.run(["node", "rescan", &self.id(name)]).exits(0);
    }

    /// Waits until a path is listed as touched.
    #[track_caller]
    pub fn is_touched(&self, path: &str, within: Duration) -> Value {
        eventually(&format!("{path} is touched"), within, || {
            let all = self.people.list("/api/v1/touched");
            all.into_iter().find(|touched| touched["path"] == path)
        })
    }

    /// Waits until a violation is resolved.
    #[track_caller]
    pub fn is_resolved(&self, violation: &Value, within: Duration) -> Value {
        let id = violation["id"].as_str().expect("an id");
        let path = &violation["path"];
        eventually(&format!("{path} is resolved"), within, || {
            let now = self.people.violation(id);
            now.filter(|violation| !violation["resolved"].is_null())
        })
    }

    /// Waits until the node has this status; a scan may lie between.
    #[track_caller]
    pub fn wait_for_status(&self, name: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let what = format!("{name} is {status}");
        let ask = || {
            last = self.people.node(name).unwrap_or_default();
            if last["status"] == status {
                Some(last.clone())
            } else {
                None
            }
        };
        eventually_or(&what, ask, || self.diagnosis())
    }

    /// What may explain that something did not happen.
    pub fn diagnosis(&self) -> String {
        let nodes = json!(self.people.list("/api/v1/nodes"));
        let open = json!(self.people.violations("open"));
        let journal = self.collector.journal();
        let tail = json!(journal[journal.len().saturating_sub(10)..]);
        format!("nodes: {nodes:#}\nopen violations: {open:#}\nend of the journal: {tail:#}")
    }

    /// What must hold at the end of every test, whatever it did.
    #[track_caller]
    pub fn check(&self) {
        assert_eq!(
            self.webhook.refused(),
            Vec::<String>::new(),
            "requests that the webhook receiver had to refuse"
        );
        assert_eq!(
            self.collector.strange_lines(),
            Vec::<String>::new(),
            "standard output is the journal and nothing else"
        );
    }

    fn sign_in(&self) {
        let password = self.path("admin.password");
        std::fs::write(&password, &self.collector.first.password).expect("a password file");
        let mut login = self.pristine();
        login.arg("login").arg(&self.collector.doors.ops);
        login
            .args(["--user", &self.collector.first.user, "--password-file"])
            .arg(&password);
        Said::by(&mut login).exits(0);
    }
}

/// The commit that test images say they were built from.
pub const COMMIT: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
/// And who wrote it.
pub const AUTHOR: &str = "Release pipeline <release@example.org>";

/// Where the statement of a manifest lies.
pub fn statement_of(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".dsse.json");
    PathBuf::from(name)
}

#[track_caller]
fn eventually_or<T>(
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
    explain: impl Fn() -> String,
) -> T {
    let end = std::time::Instant::now() + LATER;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            std::time::Instant::now() < end,
            "not within {LATER:?}: {what}\n{}",
            explain()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
