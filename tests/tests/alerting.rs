//! Alerts reach people: through Debian's Alertmanager, a mail server with TLS, a chat, and an HTTP receiver that checks signatures with
//! a library that is not ours; whatever these answer, and whenever the collector dies; one message for a change on many nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use attestation::{path::ImagePath, statement::UnexpectedMount};
use pristine_tests::{
    collector::Options,
    node::Node,
    program::tool,
    random::Random,
    receivers::{Alertmanager, Receivers, finds, missing},
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::{Value, json};

const CHANNELS: [&str; 6] = ["hook", "grouped", "chat", "am", "mail", "mail-starttls"];

/// Nobody is held back by the budgets of a node or of an address.
const LIMITS: &str = "[limits]\nstatements_per_second = 100000\nstatements_burst = 100000\njoins_per_second = 100000\njoins_burst = 100000\n";

/// A collector that tells all receivers, and the receivers.
struct Told {
    world: World,
    receivers: Receivers,
    _folder: tempfile::TempDir,
}

fn told(more: &str, alertmanager: Option<u64>) -> Option<Told> {
    if let Some(why) = Receivers::missing() {
        eprintln!("{why}");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let receivers = Receivers::start(folder.path());
    let world = World::with(&Options {
        // Nobody is to be silent here.
        interval: 600,
        more: format!("{LIMITS}{more}{}", receivers.config(alertmanager)),
        ..Options::default()
    });
    Some(Told {
        world,
        receivers,
        _folder: folder,
    })
}

impl Told {
    /// A token for so many nodes.
    fn token(&self, uses: usize) -> String {
        let made = [
            "token",
            "create",
            "--join",
            "--uses",
            &uses.to_string(),
            "--format",
            "json",
        ];
        let said = self.world.run(made).exits(0).json();
        said["token"].as_str().expect("a token").to_owned()
    }

    /// Nothing that arrived was wrong, and one id is one message.
    fn check(&self) {
        assert_eq!(self.receivers.refused(), Vec::<Value>::new());
        let mut bodies: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for line in self.receivers.arrived() {
            // An Alertmanager is told how things stand when it is told; its id are the labels.
            if line["channel"] != "alertmanager" {
                let key = (
                    line["channel"].to_string() + line["path"].as_str().unwrap_or(""),
                    line["id"].to_string(),
                );
                bodies
                    .entry(key)
                    .or_default()
                    .insert(line["body"].to_string());
            }
        }
        for ((channel, id), bodies) in bodies {
            assert_eq!(
                bodies.len(),
                1,
                "{channel} got different messages under the id {id}"
            );
        }
        self.world.check();
    }
}

/// Tells that something is mounted at these paths, and nowhere else.
fn mounted(node: &Node, paths: &[String]) -> bool {
    let statement = node.statement(|statement| {
        let mounts = &mut statement.predicate.coverage.mounts;
        mounts.unexpected = paths
            .iter()
            .map(|path| UnexpectedMount {
                path: ImagePath::parse(&format!("./{path}")).expect("a path"),
                source: "/dev/sdb1".to_owned(),
                r#type: "ext4".to_owned(),
                actor: None,
            })
            .collect();
    });
    node.send(&[statement])
        .is_some_and(|answer| answer.status == 200)
}

/// Somebody tries each channel.
fn tried(world: &World) {
    for channel in CHANNELS {
        let said = world.run(["alert", "test", channel, "--format", "json"]);
        let tried = said.exits(0).json();
        assert_eq!(tried["accepted"], true, "{tried}");
    }
    world.run(["alert", "test", "nobody"]).exits(2);
}

/// Whether a message tells of this violation. A mail's body is encoded, its text is not.
fn about(line: &Value, id: &str) -> bool {
    ["body", "text"]
        .iter()
        .any(|part| line[*part].as_str().is_some_and(|text| text.contains(id)))
}

/// Every channel is told of the violation, each in its own form; `heard`: the Alertmanager's place is taken by a receiver as well.
fn reached(receivers: &Receivers, id: &str, heard: bool) {
    for channel in CHANNELS
        .into_iter()
        .filter(|channel| *channel != "am" || heard)
    {
        eventually(&format!("{channel} is told"), SOON, || {
            receivers
                .accepted(channel)
                .into_iter()
                .find(|line| about(line, id))
        });
    }
    let chat = receivers
        .accepted("chat")
        .into_iter()
        .find(|line| about(line, id))
        .expect("told");
    let text = chat["body"].as_str().expect("a body");
    assert!(
        !text.contains("<!channel>") && text.contains("&lt;!channel&gt;"),
        "{text}"
    );
    let mail = receivers
        .accepted("mail")
        .into_iter()
        .find(|line| about(line, id))
        .expect("told");
    assert_eq!(
        mail["subject"],
        "[pristine] high: web-1: something is mounted at /srv/<!channel>"
    );
    assert_eq!(mail["to"], json!(["ops@c.example", "night@c.example"]));
    assert!(
        receivers
            .accepted("mail-starttls")
            .iter()
            .all(|mail| mail["encrypted"] == true)
    );
}

#[test]
fn every_channel_is_told_and_an_alert_ends_when_it_is_over() {
    let alertmanager = Alertmanager::missing().map_or_else(
        || {
            let folder = tempfile::tempdir().expect("a folder");
            Some((Alertmanager::start(folder.path()), folder))
        },
        |why| {
            eprintln!("{why}");
            None
        },
    );
    let port = alertmanager.as_ref().map(|(running, _)| running.port);
    let route = "[[route]]\nchannels = [\"hook\", \"grouped\", \"chat\", \"am\", \"mail\", \"mail-starttls\"]\nseverity = \"high\"\n\
        [[route]]\nchannels = [\"hook\"]\nkinds = [\"gap\"]\n";
    let Some(told) = told(route, port) else {
        return;
    };
    let (world, receivers) = (&told.world, &told.receivers);
    tried(world);
    let node = Node::join(world, "web-1");
    let hostile = "srv/<!channel>".to_owned();
    assert!(mounted(&node, &[hostile]));
    let violation = eventually("a violation", SOON, || {
        world
            .people
            .violations("open")
            .into_iter()
            .find(|it| it["kind"] == "mount")
    });
    let id = violation["id"].as_str().expect("an id");
    reached(receivers, id, port.is_none());
    if let Some((running, _)) = &alertmanager {
        let alert = eventually("alertmanager has the alert", SOON, || {
            running
                .alerts()
                .into_iter()
                .find(|it| it["labels"]["alertname"] == "PristineMount")
        });
        assert_eq!(alert["labels"]["severity"], "high");
        assert_eq!(alert["labels"]["path"], "./srv/\\074!channel\\076");
        assert!(
            alert["annotations"]["link"]
                .as_str()
                .is_some_and(|link| link.ends_with(id))
        );
    }
    assert!(mounted(&node, &[]));
    if let Some((running, _)) = &alertmanager {
        eventually("the alert is over", SOON, || {
            let stands = running
                .alerts()
                .iter()
                .any(|it| it["labels"]["alertname"] == "PristineMount");
            (!stands).then_some(())
        });
    }
    eventually("its end is told", SOON, || {
        let ends = |line: &Value| {
            about(line, id)
                && line["subject"]
                    .as_str()
                    .is_some_and(|it| it.contains("resolved"))
        };
        receivers.accepted("mail").into_iter().find(ends)
    });
    // A receiver has a message before the collector has written down that it has.
    let page = eventually("every alert has been delivered", SOON, || {
        let page = world.people.page("/alerts");
        page.html
            .contains("Every alert has been delivered.")
            .then_some(page)
    });
    assert!(
        page.html
            .contains("Violations that are high or graver go to")
    );
    told.check();
}

/// How long it goes on; fifty rounds there are at least.
fn rounds() -> usize {
    std::env::var("PRISTINE_ALERT_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(50)
}

#[test]
fn receivers_fail_and_the_collector_dies_and_everything_is_told_at_least_once() {
    let Some(mut told) = told("[alerts]\nsettle = 0\nwindow = 1\n", None) else {
        return;
    };
    let mut random = Random::new();
    let node = Node::join(&told.world, "web-1");
    let mut paths: Vec<String> = Vec::new();
    for round in 0..rounds() {
        let mode = |random: &mut Random| ["ok", "ok", "500", "slow", "cut"][random.below(5)];
        let modes: serde_json::Map<String, Value> =
            ["webhook", "slack", "alertmanager", "smtp", "starttls"]
                .into_iter()
                .map(|channel| (channel.to_owned(), json!(mode(&mut random))))
                .collect();
        told.receivers.mode(&Value::Object(modes));
        paths.push(format!("srv/round-{round:03}"));
        // A statement lists 256 mounts at most; what is no longer listed is over, and that is told too.
        let listed = &paths[paths.len().saturating_sub(200)..];
        assert!(mounted(&node, listed), "round {round} was not taken");
        if random.below(3) == 0 {
            thread::sleep(Duration::from_millis(random.below(60) as u64));
            told.world.collector.kill();
            told.world.collector.begin();
        }
    }
    told.receivers.all("ok");
    for channel in CHANNELS {
        let mut left: BTreeSet<String> = paths.iter().cloned().collect();
        eventually(&format!("{channel} is told of all"), LATER, || {
            for line in told.receivers.accepted(channel) {
                let body = line["body"].as_str().unwrap_or_default().to_owned();
                let text = line["text"].as_str().unwrap_or_default();
                left.retain(|path| !body.contains(path.as_str()) && !text.contains(path.as_str()));
            }
            left.is_empty().then_some(())
        });
    }
    eventually("nothing waits", LATER, || {
        let summary = told.world.people.get("/api/v1/summary");
        (summary["alerts_waiting"] == 0).then_some(())
    });
    told.check();
}

#[test]
fn one_change_on_five_hundred_nodes_is_one_message_a_channel() {
    const NODES: usize = 500;
    const SPEAKERS: usize = 4;
    let Some(told) = told("", None) else { return };
    let token = told.token(NODES);
    let mut nodes: Vec<Node> = Vec::new();
    thread::scope(|scope| {
        let joining: Vec<_> = (0..SPEAKERS)
            .map(|speaker| {
                let (world, token) = (&told.world, &token);
                scope.spawn(move || {
                    (0..NODES)
                        .filter(|n| n % SPEAKERS == speaker)
                        .map(|n| Node::join_with(world, &format!("web-{n:03}"), token))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        nodes.extend(
            joining
                .into_iter()
                .flat_map(|joined| joined.join().expect("nodes")),
        );
    });
    let path = ["srv/same".to_owned()];
    thread::scope(|scope| {
        for some in nodes.chunks(NODES / SPEAKERS) {
            let path = &path;
            scope.spawn(move || {
                for node in some {
                    assert!(mounted(node, path));
                }
            });
        }
    });
    eventually("all is told", LATER, || {
        let summary = told.world.people.get("/api/v1/summary");
        (summary["violations"] == NODES && summary["alerts_waiting"] == 0).then_some(())
    });
    let alerts = |channel: &str| {
        let mut got = told.receivers.accepted(channel);
        got.retain(|line| line["count"] != 0 && line["id"] != "standing");
        got
    };
    for channel in ["grouped", "chat", "mail", "mail-starttls"] {
        let got = alerts(channel);
        assert_eq!(got.len(), 1, "{channel}: {got:#?}");
        let text = got[0]["text"]
            .as_str()
            .or(got[0]["body"].as_str())
            .unwrap_or_default();
        assert!(
            text.contains("500 nodes") || text.contains("\"count\":500"),
            "{text}"
        );
    }
    // An Alertmanager is told again as the count grows; it is one alert there: the labels are the same.
    let labels: BTreeSet<String> = alerts("am")
        .iter()
        .map(|line| {
            let sent: Value =
                serde_json::from_str(line["body"].as_str().expect("a body")).expect("JSON");
            sent[0]["labels"].to_string()
        })
        .collect();
    assert_eq!(labels.len(), 1, "{labels:?}");
    let last = alerts("am").pop().expect("told");
    assert!(
        last["body"]
            .as_str()
            .is_some_and(|body| body.contains("500 nodes")),
        "{last}"
    );
    // And a webhook that does not ask for grouping is told of each, as before.
    assert_eq!(alerts("hook").len(), NODES);
    told.check();
}

#[test]
fn promtool_takes_the_metrics() {
    if let Some(why) = missing(finds("promtool"), "promtool: apt-get install prometheus") {
        eprintln!("{why}");
        return;
    }
    let world = World::start();
    let node = Node::join(&world, "web-1");
    assert!(mounted(&node, &["srv/x".to_owned()]));
    eventually("a delivery is counted", SOON, || {
        (world.people.metric("pristine_alert_deliveries_total", &[]) > 0.0).then_some(())
    });
    let plain = world
        .people
        .accepting("/metrics", "text/plain;version=0.0.4");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(&plain.body)
        .expect("written");
    let said = promtool.wait_with_output().expect("its end");
    let complaint =
        String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success() && complaint.is_empty(),
        "{complaint}\n{}",
        String::from_utf8_lossy(&plain.body)
    );
    let text = String::from_utf8_lossy(&plain.body).into_owned();
    for name in [
        "pristine_nodes{status=\"pending\"} 1",
        "pristine_violations_open{severity=\"high\"} 1",
        "pristine_store_bytes ",
        "pristine_log_leaves ",
        "pristine_ingest_seconds_bucket",
        "pristine_build_info{version=",
        "pristine_alert_waiting_oldest_seconds{",
    ] {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
    let rules =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/pristine.rules.yml");
    tool("promtool", [Path::new("check"), Path::new("rules"), &rules]);
    let open = world.people.ask("GET", "/metrics", None).expect("metrics");
    assert!(
        open.content_type
            .starts_with("application/openmetrics-text")
            && open.body.ends_with(b"# EOF\n")
    );
    world.check();
}
