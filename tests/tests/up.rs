//! `pristine up`: the whole system by one command, as root and as an ordinary user, and again.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pristine_tests::{
    is_root,
    people::People,
    program::{Lines, Program, command},
    roots,
    wait::{LATER, SOON, eventually},
    webhook::Receiver,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// `nobody` on Debian: an ordinary user for tests that run as root.
const ORDINARY: u32 = 65_534;

struct Up {
    folder: TempDir,
    root: PathBuf,
    as_user: Option<u32>,
    process: Option<Program>,
    lines: Lines,
}

impl Up {
    fn over_a_small_root(as_user: Option<u32>) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pristine-up-")
            .tempdir()
            .expect("a temporary folder");
        let root = roots::small(&folder.path().join("root"));
        if let Some(user) = as_user {
            pristine_tests::program::tool(
                "chown",
                [
                    "-R",
                    &user.to_string(),
                    folder.path().to_str().expect("a text path"),
                ],
            );
            chown(folder.path(), Some(user), None).expect("an owner");
        }
        Self {
            folder,
            root,
            as_user,
            process: None,
            lines: Lines::default(),
        }
    }

    /// Starts it and gives the `ready` object.
    fn begin(&mut self, more: &[&str]) -> Value {
        self.lines = Lines::default();
        let mut up = command("pristine");
        up.args([
            "up",
            "--format",
            "json",
            "--ops",
            "127.0.0.1:0",
            "--agents",
            "127.0.0.1:0",
            "--join",
            "127.0.0.1:0",
        ]);
        up.arg("--root")
            .arg(&self.root)
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .args(more);
        up.env("HOME", self.folder.path())
            .current_dir(self.folder.path());
        if let Some(user) = self.as_user {
            up.uid(user).gid(user);
        }
        self.process = Some(Program::start("pristine up", &mut up, self.lines.clone()));
        eventually("it is ready", LATER, || {
            let ended = self.process.as_mut().and_then(Program::ended);
            assert!(
                ended.is_none(),
                "it ended: {}",
                self.process
                    .as_ref()
                    .map(Program::complaint)
                    .unwrap_or_default()
            );
            self.events().into_iter().next()
        })
    }

    fn events(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("lines");
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    fn event(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(what, LATER, || self.events().into_iter().find(&is_it))
    }

    fn interrupt(&mut self) {
        let mut process = self.process.take().expect("a running up");
        let status = process.stop(Signal::INT);
        assert_eq!(
            status.code(),
            Some(0),
            "Ctrl-C ends it cleanly: {status}\n{}",
            process.complaint()
        );
    }
}

fn people(ready: &Value) -> People {
    People::new(
        ready["ops"].as_str().expect("an address"),
        ready["token"].as_str().expect("a token"),
    )
}

fn shows_changes_and_goes_on(mut up: Up) {
    let ready = up.begin(&[]);
    assert_eq!(ready["event"], "ready");
    for member in ["ops", "agents", "join", "user", "password", "token"] {
        assert!(ready[member].is_string(), "no {member} in {ready}");
    }
    let verdict = up.event("a verdict", |e| e["event"] == "verdict");
    assert_eq!(verdict["verdict"], "pristine", "{verdict}");
    assert!(verdict["at"].is_string());
    let door = people(&ready);
    let node = door
        .node(verdict["node"].as_str().expect("a node"))
        .expect("the node");
    assert_eq!(node["status"], "pristine", "{node}");
    assert!(door.page("/").shows("pristine"));

    let before = fs::read(up.root.join("etc/app/app.conf")).expect("a file");
    fs::write(up.root.join("etc/app/app.conf"), "listen = 8080\n").expect("a change");
    let told = up.event("a violation", |e| e["event"] == "violation");
    assert_eq!(told["path"], "./etc/app/app.conf");
    for member in [
        "id", "node", "kind", "expect", "expected", "found", "fields", "severity", "opened",
        "image",
    ] {
        assert!(told.get(member).is_some(), "no {member} in {told}");
    }
    fs::write(up.root.join("etc/app/app.conf"), before).expect("an undoing");
    up.event("it is resolved", |e| {
        e["event"] == "violation" && e["id"] == told["id"] && !e["resolved"].is_null()
    });
    let id = node["id"].clone();
    let history = ids(&door);
    up.interrupt();

    let ready = up.begin(&[]);
    assert!(ready["token"].is_string(), "a fresh token: {ready}");
    assert!(ready["password"].is_null(), "no password again: {ready}");
    let door = people(&ready);
    let again = eventually("the same node is pristine again", LATER, || {
        door.list("/api/v1/nodes")
            .into_iter()
            .find(|node| node["status"] == "pristine")
    });
    assert_eq!(again["id"], id, "the same keys");
    assert_eq!(door.list("/api/v1/nodes").len(), 1);
    assert_eq!(
        ids(&door),
        history,
        "the history is there and nothing new was raised"
    );
    stays_pristine(&up, &door, Duration::from_secs(5));
    up.interrupt();
}

/// Every violation so far, whatever became of it.
fn ids(door: &People) -> BTreeSet<String> {
    let all = door.violations("all");
    all.iter()
        .map(|violation| violation["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// Nothing is raised while nothing happens; for minutes where `PRISTINE_IDLE_SECONDS` asks for it.
fn stays_pristine(up: &Up, door: &People, at_least: Duration) {
    let idle = std::env::var("PRISTINE_IDLE_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .map_or(at_least, Duration::from_secs);
    let end = Instant::now() + idle;
    let violations = door.violations("all").len();
    while Instant::now() < end {
        let nodes = door.list("/api/v1/nodes");
        assert_eq!(nodes[0]["status"], "pristine", "{nodes:#?}");
        assert_eq!(
            door.violations("all").len(),
            violations,
            "{:#?}",
            door.violations("all")
        );
        assert!(up.process.is_some());
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn up_attests_a_directory_tells_a_change_and_goes_on_with_the_same_node() {
    shows_changes_and_goes_on(Up::over_a_small_root(None));
}

#[test]
fn up_works_for_an_ordinary_user() {
    if !is_root() {
        eprintln!("left out: the test before this one runs as an ordinary user already");
        return;
    }
    shows_changes_and_goes_on(Up::over_a_small_root(Some(ORDINARY)));
}

#[test]
fn up_killed_at_any_moment_goes_on_with_the_same_node() {
    let mut up = Up::over_a_small_root(None);
    let ready = up.begin(&[]);
    let id = up.event("a verdict", |e| e["event"] == "verdict")["node"].clone();
    drop(ready);
    for _ in 0..3 {
        up.process.take().expect("a running up").kill();
        fs::write(
            up.root.join("etc/app/app.conf"),
            "changed while it was down\n",
        )
        .expect("a change");
        let ready = up.begin(&[]);
        let door = people(&ready);
        let told = eventually("the change is told", LATER, || {
            door.open("difference", "./etc/app/app.conf")
        });
        assert_eq!(told["node"], id);
        assert_eq!(door.list("/api/v1/nodes").len(), 1);
    }
    up.interrupt();
}

/// An address that nobody uses at the moment.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

#[test]
fn up_delivers_to_a_webhook_and_rebases_on_request() {
    let mut up = Up::over_a_small_root(None);
    // The secret is made by `up` and printed, so the receiver begins after it, where it was said to be.
    let address = free_address();
    let ready = up.begin(&["--webhook", &format!("http://{address}/hook")]);
    let secret = ready["webhook_secret"].as_str().expect("a secret");
    let receiver = Receiver::at(&address, secret);
    up.event("a verdict", |e| e["event"] == "verdict");
    fs::write(up.root.join("srv/www/empty"), "no more\n").expect("a change");
    let told = up.event("a violation", |e| e["event"] == "violation");
    eventually("the webhook is told", SOON, || {
        receiver.find("opened", told["id"].as_str().expect("an id"))
    });
    up.interrupt();

    let ready = up.begin(&["--rebase"]);
    let door = people(&ready);
    eventually("it is pristine by the new image", LATER, || {
        door.list("/api/v1/nodes")
            .into_iter()
            .find(|n| n["status"] == "pristine")
    });
    eventually("the old violation is resolved", LATER, || {
        door.violations("open").is_empty().then_some(())
    });
    assert_eq!(receiver.refused(), Vec::<String>::new());
    up.interrupt();
}

#[test]
fn up_keeps_a_state_directory_inside_the_root_out_of_the_image() {
    let mut up = Up::over_a_small_root(None);
    let folder = up.folder.path().to_path_buf();
    up.root.clone_from(&folder);
    up.begin(&[]);
    let verdict = up.event("a verdict", |e| e["event"] == "verdict");
    assert_eq!(verdict["verdict"], "pristine", "{verdict}");
    assert!(Path::new(&folder).join("state").is_dir());
    up.interrupt();
}
