//! What is a node's own: pinned when first seen, held to, moved on by growth and by a person, whatever restarts in between.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use pristine_tests::{
    agent::Agent,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::{Value, json};

const SCOPE: &str = r#"[
    {"match": "etc/hostname", "expect": "local"},
    {"match": "etc/keys/**", "expect": "local"},
    {"match": "var/log/**", "expect": "growing"}
]"#;

/// A root with something of its own, under an image whose scope says so.
fn begin(world: &World) -> (Agent, std::path::PathBuf) {
    let root = roots::small(&world.path("root"));
    fs::create_dir_all(root.join("etc/keys")).expect("a folder");
    fs::write(root.join("etc/hostname"), "web-1\n").expect("a file");
    fs::write(root.join("var/log/app.log"), "begun\n").expect("a file");
    fs::write(world.path("scope.json"), SCOPE).expect("a scope");
    let scope = world.path("scope.json");
    world.image(&root, "base", "1.0", &["--scope", &scope.to_string_lossy()]);
    let mut agent = Agent::configured(
        &world.path("web-1"),
        "web-1",
        &root,
        &world.collector.doors.agents,
        "interval = 1\n",
    );
    agent.enroll(&world.join_token()).exits(0);
    agent.begin();
    (agent, root)
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(path).expect("a log");
    file.write_all(text.as_bytes()).expect("a line");
}

fn pins(world: &World, id: &str) -> Vec<Value> {
    world.people.list(&format!("/api/v1/nodes/{id}/pins"))
}

fn pin(world: &World, id: &str, path: &str) -> Option<Value> {
    pins(world, id).into_iter().find(|pin| pin["path"] == path)
}

#[track_caller]
fn has_size(world: &World, id: &str, path: &str, size: u64) {
    let wanted = format!(" size={size} ");
    eventually(&format!("{path} is pinned with {wanted}"), LATER, || {
        let pin = pin(world, id, path)?;
        pin["line"].as_str()?.contains(&wanted).then_some(())
    });
}

#[track_caller]
fn open_at(world: &World, path: &str) -> Value {
    eventually(&format!("{path} is a violation"), LATER, || {
        let open = world.people.violations("open");
        open.into_iter().find(|it| it["path"] == path)
    })
}

#[track_caller]
fn is_over(world: &World, violation: &Value) -> Value {
    let id = violation["id"].as_str().expect("an id");
    eventually("it is resolved", LATER, || {
        let now = world.people.violation(id)?;
        (!now["resolved"].is_null()).then_some(now)
    })
}

#[test]
fn what_is_first_found_is_pinned_and_a_person_reviews_it() {
    let world = World::start();
    let (mut agent, _root) = begin(&world);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    let node = world.people.node("web-1").expect("the node");
    assert_eq!(node["pins"]["entries"], node["unreviewed"], "{node}");
    let key = node["public_key"].as_str().expect("a key");
    assert!(key.starts_with("-----BEGIN PUBLIC KEY-----"), "{node}");
    let found = pins(&world, &id);
    let paths: Vec<&str> = found
        .iter()
        .filter_map(|pin| pin["path"].as_str())
        .collect();
    assert_eq!(paths, ["./etc/hostname", "./var/log/app.log"], "{found:#?}");
    assert_eq!(found[0]["expect"], "local");
    assert_eq!(found[1]["expect"], "growing");
    let page = world.people.page(&format!("/nodes/{id}/pins"));
    assert!(page.shows("unreviewed") && page.shows("hostname"));

    let review = format!("/api/v1/nodes/{id}/pins/review");
    let other = json!({"pins": "0".repeat(64)});
    let refused = world
        .people
        .ask("POST", &review, Some(&other))
        .expect("an answer");
    assert_eq!(refused.status, 409, "not what was shown");
    let seen = json!({"pins": node["pins"]["sha256"]});
    let done = world.people.post(&review, &seen);
    assert_eq!(done["reviewed"], 2, "{done}");
    assert_eq!(
        world.people.node("web-1").expect("the node")["unreviewed"],
        0
    );
    assert!(
        pins(&world, &id)
            .iter()
            .all(|pin| !pin["reviewed_by"].is_null())
    );
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn growth_moves_a_pin_on_and_a_rewritten_byte_is_found() {
    let world = World::start();
    let (mut agent, root) = begin(&world);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    let log = root.join("var/log/app.log");
    append(&log, "more\n");
    has_size(&world, &id, "./var/log/app.log", 11);
    fs::write(root.join("var/log/new.log"), "").expect("a new log");
    has_size(&world, &id, "./var/log/new.log", 0);
    assert_eq!(world.people.violations("open"), Vec::<Value>::new());
    assert_eq!(
        world.people.node("web-1").expect("the node")["status"],
        "pristine"
    );

    // Rewritten and longer in one go: to the kernel it looks like growth.
    fs::write(&log, "BEGUN\nmore\nand more\n").expect("another log");
    let violation = open_at(&world, "./var/log/app.log");
    assert_eq!(violation["expect"], "growing", "{violation}");
    assert!(
        violation["expected"]
            .as_str()
            .is_some_and(|line| line.contains(" size=11 "))
    );
    world.wait_for_status("web-1", "drifted");
    fs::write(&log, "begun\nmore\n").expect("the log as it was");
    let over = is_over(&world, &violation);
    assert_eq!(over["resolution"], "as expected again", "{over}");
    // A log that is turned over is not what was pinned: a person says that it is well.
    fs::rename(&log, root.join("var/log/app.log.1")).expect("turned over");
    fs::write(&log, "").expect("a log begun anew");
    let turned = open_at(&world, "./var/log/app.log");
    has_size(&world, &id, "./var/log/app.log.1", 11);
    accept(&world, &turned);
    is_over(&world, &turned);
    has_size(&world, &id, "./var/log/app.log", 0);
    append(&log, "again\n");
    has_size(&world, &id, "./var/log/app.log", 6);
    world.wait_for_status("web-1", "pristine");
    assert!(agent.stop().success());
    world.check();
}

fn accept(world: &World, violation: &Value) {
    let id = violation["id"].as_str().expect("an id");
    let said = world
        .run([
            "violation",
            "resolve",
            id,
            "--accept",
            "--reason",
            "meant so",
            "--format",
            "json",
        ])
        .exits(0)
        .json();
    assert_eq!(said["acknowledged"]["reason"], "meant so", "{said}");
}

#[test]
fn what_a_person_accepts_becomes_the_pin_also_over_a_restart() {
    let world = World::start();
    let (mut agent, root) = begin(&world);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    fs::write(root.join("etc/hostname"), "web-one\n").expect("another name");
    let renamed = open_at(&world, "./etc/hostname");
    assert_eq!(renamed["expect"], "local", "{renamed}");
    fs::write(root.join("etc/keys/new"), "key\n").expect("a new key");
    let added = open_at(&world, "./etc/keys/new");
    assert_eq!(added["fields"], json!(["added"]), "{added}");
    let path = format!(
        "/api/v1/violations/{}/resolve",
        added["id"].as_str().expect("an id")
    );
    let by_hand = world
        .people
        .ask("POST", &path, Some(&json!({"reason": "no"})));
    assert_eq!(by_hand.expect("an answer").json()["code"], "lasts");
    accept(&world, &renamed);
    let over = is_over(&world, &renamed);
    assert_eq!(over["resolution"], "accepted by admin: meant so", "{over}");
    let pin_now = pin(&world, &id, "./etc/hostname").expect("a pin");
    assert_eq!(pin_now["line"], renamed["found"]);
    assert_eq!(
        pin_now["reviewed_by"], "admin",
        "accepting is reviewing: {pin_now}"
    );

    // The agent is away while a log grows and a name changes.
    assert!(agent.stop().success());
    append(&root.join("var/log/app.log"), "while away\n");
    fs::remove_file(root.join("etc/keys/new")).expect("the key goes");
    fs::write(root.join("etc/hostname"), "mallory\n").expect("another name");
    agent.begin();
    let away = open_at(&world, "./etc/hostname");
    assert_eq!(
        away["expected"], renamed["found"],
        "the accepted line is the pin: {away}"
    );
    has_size(&world, &id, "./var/log/app.log", 17);
    is_over(&world, &added);
    fs::write(root.join("etc/hostname"), "web-one\n").expect("the name as accepted");
    is_over(&world, &away);
    world.wait_for_status("web-1", "pristine");
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn a_new_image_keeps_the_pins_that_it_still_names() {
    let world = World::start();
    let (mut agent, root) = begin(&world);
    world.wait_for_status("web-1", "pristine");
    let id = world.id("web-1");
    let scope = r#"[{"match": "etc/hostname", "expect": "local"}, {"match": "etc/keys/**", "expect": "local"},
        {"match": "srv/www/empty", "expect": "local"}, {"match": "var/log/**", "expect": "ignored"}]"#;
    fs::write(world.path("next.json"), scope).expect("a scope");
    let next = world.path("next.json");
    world.image(
        &root,
        "base",
        "1.1",
        &["--scope", &next.to_string_lossy(), "--epoch", "2"],
    );
    eventually(
        "the pins are those that the next image names",
        LATER,
        || {
            let paths: Vec<String> = pins(&world, &id)
                .iter()
                .filter_map(|pin| Some(pin["path"].as_str()?.to_owned()))
                .collect();
            (paths == ["./etc/hostname", "./srv/www/empty"]).then_some(())
        },
    );
    world.wait_for_status("web-1", "pristine");
    fs::write(root.join("etc/hostname"), "other\n").expect("another name");
    open_at(&world, "./etc/hostname");
    assert!(agent.stop().success());
    eventually("it has stopped", SOON, || {
        let node = world.people.node("web-1")?;
        (node["status"] == "stopped").then_some(())
    });
    world.check();
}
