//! Disks and databases put back to an earlier day: the chain goes on, every receipt is kept, and what was lost is said.

use std::{
    fs,
    path::{Path, PathBuf},
};

use attestation::{digest::Digest, statement::Attestation};
use pristine_tests::{
    agent::Agent,
    evidence::{chain, newest},
    program::tool,
    roots,
    wait::{LATER, eventually},
    world::World,
};
use serde_json::Value;

const NODE: &str = "web-1";

#[test]
fn an_agent_restored_from_an_older_disk_goes_on_where_the_collector_is_and_says_so() {
    let (world, root, mut agent) = begun();
    assert!(agent.stop().success());
    let backup = world.path("agent-backup");
    copy(agent.state(), &backup);
    agent.begin();
    for n in 3..6 {
        is_told(&world, &root, n, "after the backup");
    }
    agent.kill();
    let before = newest(&world, NODE);
    put_back(&backup, agent.state());
    fs::write(tool_path(&root, 7), "while it was down\n").expect("a change");
    agent.begin();
    is_open(&world, 7, "while it was down\n");
    // What was told before the disk was put back still stands.
    for n in 3..6 {
        is_open(&world, n, "after the backup\n");
    }
    let rewind = violation(&world, "rewind");
    assert_eq!(rewind["detail"]["rewound"], true, "{rewind:#}");
    let chain = chain(&world, NODE);
    assert_unbroken(&chain);
    assert!(chain.iter().any(|(digest, _)| *digest == before.1));
    let said: Vec<u64> = chain
        .iter()
        .filter(|(_, said)| said.rewound)
        .map(|(_, said)| said.sequence)
        .collect();
    assert_eq!(said, [before.0 + 1], "the first statement after it says so");
    no_forks(&world);
    drop(agent);
    world.check();
}

#[test]
fn a_collector_restored_from_an_older_backup_is_given_again_what_it_lacks() {
    let (mut world, root, agent) = begun();
    world.collector.stop();
    let backup = world.path("collector-backup");
    copy(&world.collector.state(), &backup);
    world.collector.begin();
    for n in 3..6 {
        is_told(&world, &root, n, "after the backup");
    }
    let before = chain(&world, NODE);
    world.collector.kill();
    put_back(&backup, &world.collector.state());
    world.collector.begin();
    let newest = before.first().expect("statements").1.sequence;
    eventually("the node is where it was", LATER, || {
        let node = world.people.node(NODE)?;
        (node["sequence"].as_u64()? > newest).then_some(())
    });
    for n in 3..6 {
        is_open(&world, n, "after the backup\n");
    }
    let chain = chain(&world, NODE);
    assert_unbroken(&chain);
    for (digest, said) in &before {
        assert!(
            chain.iter().any(|(again, _)| again == digest),
            "statement {} was receipted and is not there any more",
            said.sequence
        );
    }
    for kind in ["rewind", "fork", "replay"] {
        let all = world.people.violations("all");
        assert!(all.iter().all(|it| it["kind"] != kind), "{all:#?}");
    }
    is_told(&world, &root, 8, "and it goes on");
    drop(agent);
    world.check();
}

#[test]
fn where_the_way_between_is_lost_the_node_goes_on_and_the_jump_is_told() {
    let (mut world, root, mut agent) = begun();
    world.collector.stop();
    let backup = world.path("collector-backup");
    copy(&world.collector.state(), &backup);
    world.collector.begin();
    for n in 3..9 {
        is_told(&world, &root, n, "after the backup");
    }
    assert!(agent.stop().success());
    let own = newest(&world, NODE).0;
    world.collector.kill();
    put_back(&backup, &world.collector.state());
    world.collector.begin();
    let known = newest(&world, NODE).0;
    cut_ring(agent.state(), 2);
    agent.begin();
    let rewind = violation(&world, "rewind");
    assert_eq!(rewind["detail"]["expected"], known + 1, "{rewind:#}");
    assert!(
        rewind["detail"]["sequence"]
            .as_u64()
            .is_some_and(|sequence| sequence > own),
        "{rewind:#}"
    );
    for n in 3..9 {
        is_open(&world, n, "after the backup\n");
    }
    is_told(&world, &root, 9, "and it goes on");
    let chain = chain(&world, NODE);
    let jumps: Vec<&Attestation> = chain
        .iter()
        .map(|(_, said)| said)
        .filter(|said| said.coverage.gaps.iter().any(|gap| gap.cause == "lost"))
        .collect();
    assert!(!jumps.is_empty(), "no statement says that the way is lost");
    no_forks(&world);
    drop(agent);
    world.check();
}

fn begun() -> (World, PathBuf, Agent) {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent(NODE, &root);
    world.wait_for_status(NODE, "pristine");
    (world, root, agent)
}

fn tool_path(root: &Path, n: usize) -> PathBuf {
    root.join(format!("usr/bin/tool-{n:02}"))
}

#[track_caller]
fn is_told(world: &World, root: &Path, n: usize, content: &str) {
    let content = format!("{content}\n");
    fs::write(tool_path(root, n), &content).expect("a change");
    is_open(world, n, &content);
}

#[track_caller]
fn is_open(world: &World, n: usize, content: &str) {
    let path = format!("./usr/bin/tool-{n:02}");
    let digest = Digest::of(content.as_bytes()).to_string();
    let end = std::time::Instant::now() + LATER;
    loop {
        let open = world.people.open("difference", &path);
        let found = open.as_ref().and_then(|it| it["found"].as_str());
        if found.is_some_and(|found| found.contains(&digest)) {
            return;
        }
        assert!(
            std::time::Instant::now() < end,
            "not told within {LATER:?}: {path} is {content:?}\n{open:?}\n{}",
            world.diagnosis()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[track_caller]
fn violation(world: &World, kind: &str) -> Value {
    eventually(&format!("a violation of kind {kind}"), LATER, || {
        let all = world.people.violations("all");
        all.into_iter().find(|it| it["kind"] == kind)
    })
}

#[track_caller]
fn no_forks(world: &World) {
    let all = world.people.violations("all");
    let told: Vec<&Value> = all
        .iter()
        .filter(|it| it["kind"] == "fork" || it["kind"] == "replay")
        .collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// From the newest down to 0, without a hole.
#[track_caller]
fn assert_unbroken(chain: &[(Digest, Attestation)]) {
    let sequences: Vec<u64> = chain.iter().map(|(_, said)| said.sequence).collect();
    let whole: Vec<u64> = (0..chain.len() as u64).rev().collect();
    assert_eq!(sequences, whole);
}

fn copy(from: &Path, to: &Path) {
    tool("cp", [Path::new("-a"), from, to]);
}

fn put_back(backup: &Path, state: &Path) {
    fs::remove_dir_all(state).expect("the state of today");
    copy(backup, state);
}

/// Leaves the newest `left` statements in the spool of a stopped agent, as if the ring had gone round.
fn cut_ring(state: &Path, left: usize) {
    const HEADER: usize = 24;
    const RECORD: usize = 52;
    let path = state.join("spool/segment-0000");
    let bytes = fs::read(&path).expect("the first segment");
    let mut statements = Vec::new();
    let mut at = HEADER;
    while bytes.get(at + 8).is_some_and(|kind| (1..=3).contains(kind)) {
        let length: [u8; 4] = bytes[at + 4..at + 8].try_into().expect("four bytes");
        if bytes[at + 8] == 1 {
            statements.push(at);
        }
        at += RECORD + u32::from_le_bytes(length) as usize;
    }
    let from = statements[statements.len() - left];
    let mut cut = bytes[..HEADER].to_vec();
    cut.extend_from_slice(&bytes[from..at]);
    cut.resize(bytes.len(), 0);
    fs::write(&path, cut).expect("a shorter ring");
}
