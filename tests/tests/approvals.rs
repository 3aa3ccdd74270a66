//! What one person asks for and another approves: assignments, and exceptions. With real agents, watched to the end.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestation::time::Timestamp;
use pristine_tests::{
    people::{Answer, People},
    program::{Said, command},
    roots,
    wait::{LATER, SOON, eventually},
    world::{AUTHOR, COMMIT, World},
};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";
/// The file that differs.
const PATH: &str = "./etc/app/app.conf";

/// An account of this role, made on the collector's machine, and its owner signed in.
fn person(world: &World, name: &str, role: &str) -> People {
    let file = world.path(&format!("{name}.password"));
    fs::write(&file, PASSWORD).expect("a password file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode");
    let mut add = command("pristine-collector");
    add.args(["user", "add", name, "--role", role, "--password-file"])
        .arg(&file)
        .arg("--config")
        .arg(world.path("collector/collector.toml"));
    Said::by(&mut add).exits(0);
    let session = json!({"user": name, "password": PASSWORD});
    let session = world.people.stranger().post("/api/v1/sessions", &session);
    world
        .collector
        .people(session["token"].as_str().expect("a token"))
}

/// One who asks, and one who approves.
fn olga_and_ann(world: &World) -> (People, People) {
    (
        person(world, "olga", "operator"),
        person(world, "ann", "approver"),
    )
}

#[track_caller]
fn refused(answer: Option<Answer>, status: u16, code: &str) {
    let answer = answer.expect("an answer");
    let said = (answer.status, answer.json()["code"].clone());
    assert_eq!(said, (status, json!(code)), "{}", answer.json());
}

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn change(people: &People, change: &Value) -> Value {
    people.get(&format!("/api/v1/changes/{}", id(change)))
}

#[track_caller]
fn recorded(world: &World, action: &str, user: &str) {
    let done = world.people.list("/api/v1/activity");
    let told = |one: &Value| one["action"] == action && one["user"] == user;
    assert!(done.iter().any(told), "no {action} by {user}: {done:#?}");
}

/// Publishes an image of `root` without assigning it.
fn published(world: &World, root: &Path, version: &str, more: &[&str]) -> String {
    let image = world.signed(root, "base", version, more);
    let file = image.file.to_str().expect("a text path");
    world.run(["image", "publish", file]).exits(0);
    image.sha256
}

/// What an operator asks for is theirs to withdraw, and nobody's to approve who may not.
fn withdrawn(world: &World, olga: &People, ann: &People, ask: &Value) {
    let why = json!({"reason": "looked at it"});
    let asked = olga
        .ask("POST", "/api/v1/assignments", Some(ask))
        .expect("an answer");
    assert_eq!(asked.status, 202, "{}", asked.json());
    let asked = asked.json();
    assert_eq!(asked["state"], "waiting", "{asked}");
    let of = |what: &str| format!("/api/v1/assignments/{}/{what}", id(&asked));
    refused(olga.ask("POST", &of("approve"), Some(&why)), 403, "role");
    refused(
        world.people.ask("POST", "/api/v1/assignments", Some(ask)),
        409,
        "waiting",
    );
    refused(ann.ask("POST", &of("withdraw"), Some(&why)), 403, "role");
    assert_eq!(olga.post(&of("withdraw"), &why)["state"], "withdrawn");
    refused(
        ann.ask("POST", &of("approve"), Some(&why)),
        409,
        "not-waiting",
    );
}

#[test]
fn one_alone_decides_and_two_watch_each_other() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let one = published(&world, &root, "1.0", &["--epoch", "1"]);
    fs::write(root.join("etc/app/app.conf"), "listen = 443\n").expect("a change");
    let two = published(&world, &root, "2.0", &["--epoch", "2"]);
    let ask = |image: &str| json!({"group": "default", "image": image, "reason": "ticket 7"});
    let alone = world.people.post("/api/v1/assignments", &ask(&one));
    assert_eq!(alone["approved_by"], "admin", "{alone}");
    assert_eq!(alone["requested_by"], "admin");
    assert!(
        alone["told"]
            .as_str()
            .is_some_and(|told| told.contains("no other enabled account"))
    );
    assert!(world.people.page("/images").shows("same person"));

    let (olga, ann) = olga_and_ann(&world);
    withdrawn(&world, &olga, &ann, &ask(&two));
    let why = json!({"reason": "looked at it"});

    // Now an administrator's own word is not enough, whichever token they use.
    let asked = world.people.post("/api/v1/assignments", &ask(&two));
    assert_eq!(asked["state"], "waiting", "{asked}");
    let of = |what: &str| format!("/api/v1/assignments/{}/{what}", id(&asked));
    refused(
        world.people.ask("POST", &of("approve"), Some(&why)),
        403,
        "own-request",
    );
    let token = json!({"kind": "api", "role": "admin", "label": "another"});
    let token = world.people.post("/api/v1/tokens", &token);
    let again = world
        .collector
        .people(token["token"].as_str().expect("a token"));
    refused(
        again.ask("POST", &of("approve"), Some(&why)),
        403,
        "own-request",
    );
    assert!(
        ann.page(&format!("/changes/{}", id(&asked)))
            .shows("Approve")
    );
    let done = ann.post(&of("approve"), &why);
    assert_eq!(
        (&done["requested_by"], &done["approved_by"]),
        (&json!("admin"), &json!("ann"))
    );
    assert_eq!(done["allowed"][0]["image"], two.as_str());
    let shown = change(&ann, &asked);
    assert_eq!(
        (&shown["image"]["commit"], &shown["image"]["author"]),
        (&json!(COMMIT), &json!(AUTHOR))
    );
    assert_eq!(shown["previous"]["sha256"], one.as_str(), "{shown}");

    // Epochs never fall; and a refusal is told with its reason.
    refused(
        world
            .people
            .ask("POST", "/api/v1/assignments", Some(&ask(&one))),
        409,
        "epoch",
    );
    let asked = world.people.post("/api/v1/assignments", &ask(&two));
    let no = json!({"reason": "it is there already"});
    let no = ann.post(&format!("/api/v1/assignments/{}/refuse", id(&asked)), &no);
    assert_eq!(
        (&no["state"], &no["change"]["decision"]),
        (&json!("refused"), &json!("it is there already"))
    );
    for (action, user) in [
        ("assignment.request", "olga"),
        ("assignment.withdraw", "olga"),
        ("assignment.approve", "ann"),
        ("assignment.refuse", "ann"),
        ("image.publish", "admin"),
    ] {
        recorded(&world, action, user);
    }
    let listed = world.run(["change", "list"]).exits(0).out;
    assert!(
        listed.contains("refused") && listed.contains("superseded") && listed.contains("ann"),
        "{listed}"
    );
    world.check();
}

/// What runs a revoked image is no image that it may be, and nobody can assign it again.
fn revoked(world: &World, two: &str) {
    world
        .run(["image", "revoke", "base", "2.0", "--reason", "a hole"])
        .exits(0);
    world.wait_for_status("web-1", "unknown-image");
    let open = world.people.violations("open");
    assert!(
        open.iter().all(|one| one["kind"] == "unknown-image"),
        "{open:#?}"
    );
    refused(
        world.people.ask(
            "POST",
            "/api/v1/assignments",
            Some(&json!({"group": "default", "image": two})),
        ),
        409,
        "revoked",
    );
}

#[test]
fn a_rollout_is_watched_to_its_end_without_a_violation() {
    const NODES: u64 = 3;
    let world = World::start();
    let names: Vec<String> = (1..=NODES).map(|n| format!("web-{n}")).collect();
    let root = |name: &str| world.path(&format!("root-{name}"));
    for name in &names {
        roots::small(&root(name));
    }
    world.image(&root("web-1"), "base", "1.0", &[]);
    let mut agents: Vec<_> = names
        .iter()
        .map(|name| world.agent(name, &root(name)))
        .collect();
    for name in &names {
        world.wait_for_status(name, "pristine");
    }
    let next = roots::small(&world.path("next"));
    let changed = [
        ("etc/app/app.conf", "listen = 443\n"),
        ("usr/bin/tool-03", "#!/bin/sh\n"),
        ("usr/lib/deep/er/still/library", "another\n"),
    ];
    for (path, content) in changed {
        fs::write(next.join(path), content).expect("a change");
    }
    let two = published(&world, &next, "2.0", &["--epoch", "2"]);
    let said = world
        .run([
            "node",
            "assign",
            "base:2.0",
            "--keep-previous",
            "1h",
            "--reason",
            "ticket 9",
            "--format",
            "json",
        ])
        .exits(0)
        .json();
    let begun = change(&world.people, &said);
    assert_eq!(
        (&begun["state"], &begun["progress"]["old"]),
        (&json!("rolling-out"), &json!(NODES)),
        "{begun}"
    );
    assert!(world.people.page("/").shows("becomes base 2.0"));

    for (at, name) in names.iter().enumerate() {
        for (path, content) in changed {
            // Put in place at once, as a package manager does.
            let beside = world.path("new-content");
            fs::write(&beside, content).expect("new content");
            let to = root(name).join(path);
            fs::set_permissions(&beside, fs::metadata(&to).expect("a file").permissions())
                .expect("its mode");
            fs::rename(&beside, &to).expect("in its place");
        }
        let wanted = at as u64 + 1;
        eventually(&format!("{wanted} nodes have it"), LATER, || {
            let now = change(&world.people, &said);
            (now["progress"]["new"] == wanted).then_some(())
        });
    }
    let done = change(&world.people, &said);
    assert_eq!(done["state"], "done", "{done}");
    let have = world
        .people
        .list(&format!("/api/v1/changes/{}/nodes?has=true", id(&said)));
    let told: Vec<&Value> = have.iter().map(|node| &node["name"]).collect();
    assert_eq!(told, names.iter().collect::<Vec<_>>(), "{have:#?}");
    assert!(
        have.iter()
            .all(|node| node["image"]["sha256"] == two.as_str())
    );
    assert_eq!(world.people.violations("all"), Vec::<Value>::new());
    assert!(
        world
            .people
            .page(&format!("/changes/{}", id(&said)))
            .shows("Every node of default has base 2.0")
    );
    let what = format!(
        "/images/{two}/differences?from={}",
        begun["previous"]["sha256"].as_str().expect("an image")
    );
    assert!(world.people.page(&what).shows("3 entries changed"));

    revoked(&world, &two);
    for agent in &mut agents {
        assert!(agent.stop().success());
    }
    world.check();
}

fn in_seconds(seconds: u64) -> String {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        + Duration::from_secs(seconds);
    Timestamp::from_micros(i64::try_from(at.as_micros()).expect("a time")).to_string()
}

fn replaced(world: &World, at: &Path, content: &str) {
    let beside = world.path("content");
    fs::write(&beside, content).expect("a file");
    fs::rename(&beside, at).expect("in its place");
}

#[track_caller]
fn open_at(world: &World, path: &str) -> Value {
    eventually(&format!("{path} is a violation"), LATER, || {
        world.people.open("difference", path)
    })
}

/// An exception for a few seconds: after them the difference is a violation again.
fn ends_by_itself(world: &World, olga: &People, ann: &People, again: &Value) {
    let short = json!({"violation": again["id"], "reason": "for a moment", "ends": in_seconds(8)});
    let short = olga.post("/api/v1/exceptions", &short);
    ann.post(
        &format!("/api/v1/exceptions/{}/approve", id(&short)),
        &json!({}),
    );
    assert_eq!(world.is_resolved(again, SOON)["resolved_as"], "excepted");
    let last = open_at(world, PATH);
    assert_eq!(last["detail"]["exception"], short["id"], "{last}");
    let ended = world
        .people
        .get(&format!("/api/v1/exceptions/{}", id(&short)));
    assert_eq!(ended["state"], "ended", "{ended}");
}

#[test]
fn an_exception_takes_two_persons_and_ends() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let (olga, ann) = olga_and_ann(&world);
    let file = root.join("etc/app/app.conf");
    replaced(&world, &file, "listen = 8080\n");
    let violation = open_at(&world, PATH);

    let ask = |ends: &str| json!({"violation": violation["id"], "reason": "until 1.1", "ticket": "OPS-7", "ends": ends});
    let long = in_seconds(400 * 86_400);
    refused(
        olga.ask("POST", "/api/v1/exceptions", Some(&ask(&long))),
        400,
        "malformed",
    );
    let asked = olga.post("/api/v1/exceptions", &ask(&in_seconds(3_600)));
    assert_eq!(
        (&asked["state"], &asked["owner"]),
        (&json!("waiting"), &json!("olga")),
        "{asked}"
    );
    let of = |what: &str| format!("/api/v1/exceptions/{}/{what}", id(&asked));
    refused(
        olga.ask("POST", &of("approve"), Some(&json!({}))),
        403,
        "role",
    );
    assert!(
        world.people.open("difference", PATH).is_some(),
        "asking changes nothing"
    );
    let held = ann.post(&of("approve"), &json!({"reason": "agreed"}));
    assert_eq!(
        (&held["state"], &held["ended"]),
        (&json!("approved"), &json!(1)),
        "{held}"
    );
    let over = world.is_resolved(&violation, SOON);
    assert_eq!(over["resolved_as"], "excepted", "{over}");
    assert!(
        over["resolution"]
            .as_str()
            .is_some_and(|told| told.contains("by ann: until 1.1"))
    );
    eventually("the node says that one is excepted", SOON, || {
        world
            .people
            .node("web-1")
            .filter(|node| node["excepted"] == 1)
    });
    let node = world.people.node("web-1").expect("the node");
    assert_eq!(
        node["status"], "drifted",
        "the verdict stays what it is: {node}"
    );
    assert!(
        world
            .run(["node", "list"])
            .exits(0)
            .out
            .contains("with 1 excepted")
    );
    assert!(
        ann.page(&format!("/exceptions/{}", id(&asked)))
            .shows("is accepted as it was found")
    );

    // Another line is a violation; the accepted one again is none.
    replaced(&world, &file, "listen = 9090\n");
    let another = open_at(&world, PATH);
    assert_ne!(another["id"], violation["id"]);
    replaced(&world, &file, "listen = 8080\n");
    assert_eq!(
        world.is_resolved(&another, LATER)["resolved_as"],
        "excepted"
    );

    // Revoked, it is one again, and says what it was excepted by.
    let revoke = [
        "exception",
        "revoke",
        id(&asked),
        "--reason",
        "the image has it now",
    ];
    world.run(revoke).exits(0);
    let again = open_at(&world, PATH);
    assert_eq!(again["detail"]["exception"], asked["id"], "{again}");

    ends_by_itself(&world, &olga, &ann, &again);
    for (action, user) in [
        ("exception.request", "olga"),
        ("exception.approve", "ann"),
        ("exception.revoke", "admin"),
    ] {
        recorded(&world, action, user);
    }
    let listed = world.run(["exception", "list"]).exits(0).out;
    assert!(
        listed.contains("ended") && listed.contains("revoked") && listed.contains("OPS-7"),
        "{listed}"
    );
    assert!(agent.stop().success());
    world.check();
}
