//! What a node speaks with: certificates that end, keys that change, clocks that are wrong, doors that move, disks that are
//! copied.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use attestation::digest::Digest;
use pristine_tests::{
    agent::Agent,
    collector::Options,
    off::{self, YEAR},
    program::{Said, command, tool},
    proxy::Proxy,
    roots,
    wait::{LATER, eventually},
    world::World,
};
use serde_json::Value;

const NODE: &str = "web-1";
/// Seconds that a certificate lives in these tests.
const SHORT: u64 = 12;

fn short_lived() -> World {
    World::with(&Options {
        interval: 1,
        more: format!("[limits]\nnode_certificate = {SHORT}\n"),
        ..Options::default()
    })
}

fn begun(world: &World) -> (PathBuf, Agent) {
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent(NODE, &root);
    world.wait_for_status(NODE, "pristine");
    (root, agent)
}

fn identity(agent: &Agent) -> Value {
    let bytes = fs::read(agent.state().join("identity.json")).expect("an identity");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn certificate(agent: &Agent) -> String {
    identity(agent)["certificate"]
        .as_str()
        .expect("a certificate")
        .to_owned()
}

#[track_caller]
fn is_told(world: &World, root: &Path, n: usize, content: &str) {
    fs::write(root.join(format!("usr/bin/tool-{n:02}")), content).expect("a change");
    let path = format!("./usr/bin/tool-{n:02}");
    let digest = Digest::of(content.as_bytes()).to_string();
    let end = std::time::Instant::now() + LATER;
    while !world.people.open("difference", &path).is_some_and(|it| {
        let found = it["found"].as_str().unwrap_or_default();
        found.contains(&digest)
    }) {
        assert!(
            std::time::Instant::now() < end,
            "not told within {LATER:?}: {path}\n{}",
            world.diagnosis()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_certificate_is_renewed_before_it_ends_and_nobody_notices() {
    let world = short_lived();
    let (root, agent) = begun(&world);
    let mut seen = vec![certificate(&agent)];
    eventually("three certificates one after the other", LATER, || {
        let now = certificate(&agent);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        (seen.len() >= 3).then_some(())
    });
    is_told(&world, &root, 3, "after renewals\n");
    let kinds: Vec<Value> = world.people.violations("all");
    assert!(
        kinds.iter().all(|it| it["kind"] != "silence"),
        "it was silent: {kinds:#?}"
    );
    drop(agent);
    world.check();
}

#[test]
fn a_node_that_comes_back_after_its_certificate_ended_renews_it() {
    let world = short_lived();
    let (root, mut agent) = begun(&world);
    assert!(agent.stop().success());
    let old = certificate(&agent);
    // The condition is the collector's clock: until it does not take the old certificate any more.
    std::thread::sleep(Duration::from_secs(SHORT + 2));
    agent.begin();
    is_told(&world, &root, 4, "after its end\n");
    assert_ne!(certificate(&agent), old);
    drop(agent);
    world.check();
}

#[test]
fn a_running_node_takes_another_key_and_keeps_its_id() {
    let world = World::start();
    let (root, mut agent) = begun(&world);
    let id = world.id(NODE);
    let key = || fs::read(agent.state().join("node.key")).expect("a key");
    let before = key();
    let rotate = |agent: &Agent| {
        let mut rotate = command("pristine-agent");
        rotate
            .arg("rotate-key")
            .arg("--config")
            .arg(agent.config())
            .args(["--format", "json"]);
        Said::by(&mut rotate).exits(0).json()
    };
    let said = rotate(&agent);
    assert_eq!(said["node"], id.as_str());
    assert_ne!(said["from"], said["to"]);
    let after = key();
    assert_ne!(after, before);
    is_told(&world, &root, 5, "with another key\n");
    // And while it does not run.
    assert!(agent.stop().success());
    let again = rotate(&agent);
    assert_eq!(again["from"], said["to"]);
    agent.begin();
    is_told(&world, &root, 6, "with a third key\n");
    agent.kill();
    agent.begin();
    is_told(&world, &root, 7, "after a restart\n");
    assert_eq!(world.id(NODE), id);
    let bad: Vec<Value> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|it| {
            ["fork", "replay", "gap", "rewind"].contains(&it["kind"].as_str().unwrap_or(""))
        })
        .filter(|it| it["kind"] != "gap" || it["detail"].to_string().contains("refused"))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
    drop(agent);
    world.check();
}

#[test]
fn a_collector_restored_from_before_a_rotation_is_shown_it_again() {
    let mut world = World::start();
    let (root, agent) = begun(&world);
    world.collector.stop();
    let backup = world.path("collector-backup");
    tool("cp", [Path::new("-a"), &world.collector.state(), &backup]);
    world.collector.begin();
    is_told(&world, &root, 3, "before the rotation\n");
    let mut rotate = command("pristine-agent");
    rotate.arg("rotate-key").arg("--config").arg(agent.config());
    Said::by(&mut rotate).exits(0);
    is_told(&world, &root, 4, "after the rotation\n");
    world.collector.kill();
    fs::remove_dir_all(world.collector.state()).expect("the state of today");
    tool("cp", [Path::new("-a"), &backup, &world.collector.state()]);
    world.collector.begin();
    is_told(&world, &root, 5, "after the restore\n");
    let refused: Vec<Value> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|it| it["kind"] == "gap" && it["detail"].to_string().contains("refused"))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
    drop(agent);
    world.check();
}

#[test]
fn a_node_goes_to_another_address_and_comes_back() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let (one, other) = (
        Proxy::before(&world.collector.doors.agents),
        Proxy::before(&world.collector.doors.agents),
    );
    let doors = format!("{}\", \"{}", one.url(), other.url());
    let mut agent = Agent::configured(&world.path(NODE), NODE, &root, &doors, "");
    agent.enroll(&world.join_token()).exits(0);
    agent.begin();
    world.wait_for_status(NODE, "pristine");
    assert!(one.taken() > 0 && other.taken() == 0);
    one.cut();
    is_told(&world, &root, 3, "by the other door\n");
    assert!(other.taken() > 0);
    let before = one.taken();
    one.open();
    other.cut();
    is_told(&world, &root, 4, "by the first door again\n");
    assert!(one.taken() > before);
    drop(agent);
    world.check();
}

#[test]
fn a_node_whose_clock_is_a_year_off_reaches_its_collector() {
    let world = World::start();
    if !off::is_possible(&world.path("")) {
        eprintln!("left out: no compiler, or the clock of a program cannot be moved");
        return;
    }
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    for (n, (name, seconds)) in [("ahead", YEAR), ("behind", -YEAR)].into_iter().enumerate() {
        let environment = off::clock(&world.path(""), seconds);
        let door = &world.collector.doors.agents;
        let mut agent = Agent::configured(&world.path(name), name, &root, door, "");
        agent.environment = environment;
        agent.enroll(&world.join_token()).exits(0);
        agent.begin();
        world.wait_for_status(name, if n == 0 { "pristine" } else { "drifted" });
        is_told(&world, &root, 3 + n, &format!("{name}\n"));
        agent.kill();
        agent.begin();
        is_told(&world, &root, 5 + n, &format!("{name} after a restart\n"));
        assert!(agent.stop().success());
    }
    world.check();
}

#[test]
fn a_collector_whose_clock_was_a_year_off_is_reached_when_it_is_right() {
    let world = short_lived();
    if !off::is_possible(&world.path("")) {
        eprintln!("left out: no compiler, or the clock of a program cannot be moved");
        return;
    }
    let (root, mut agent) = begun(&world);
    // For the node it is the same: one clock is a year off the other.
    for (n, seconds) in [YEAR, -YEAR].into_iter().enumerate() {
        agent.kill();
        agent.environment = off::clock(&world.path(""), seconds);
        agent.begin();
        is_told(&world, &root, 3 + n, &format!("a year off {n}\n"));
        let old = certificate(&agent);
        eventually("a certificate by the collector's time", LATER, || {
            (certificate(&agent) != old).then_some(())
        });
        is_told(&world, &root, 5 + n, &format!("renewed {n}\n"));
    }
    drop(agent);
    world.check();
}

#[test]
fn a_node_that_a_person_removed_by_a_backup_is_let_in_again_by_one() {
    let mut world = World::start();
    world.collector.stop();
    let backup = world.path("collector-backup");
    tool("cp", [Path::new("-a"), &world.collector.state(), &backup]);
    world.collector.begin();
    let (root, agent) = begun(&world);
    let id = world.id(NODE);
    world.collector.kill();
    fs::remove_dir_all(world.collector.state()).expect("the state of today");
    tool("cp", [Path::new("-a"), &backup, &world.collector.state()]);
    world.collector.begin();
    let waits = eventually("the node asks to be let in", LATER, || {
        world
            .people
            .node(&id)
            .filter(|it| it["status"] == "pending")
    });
    assert_eq!(waits["name"], NODE);
    world.image(&root, "base", "1.1", &[]);
    world.run(["node", "approve", &id]).exits(0);
    eventually("it attests again", LATER, || {
        let node = world.people.node(&id)?;
        (node["status"] == "pristine").then_some(())
    });
    is_told(&world, &root, 3, "known again\n");
    drop(agent);
    world.check();
}
