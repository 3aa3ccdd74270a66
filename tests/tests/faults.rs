//! Programs killed at random moments, a collector that is away, a disk that takes no write: nothing is lost, nothing is told twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use pristine_tests::{
    agent::Agent,
    collector::Options,
    left_out_without_root,
    program::{Said, python, script, tool},
    random::Random,
    roots,
    sighting::is_violation_step,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::Value;

/// At least so many faults, and more while there is time.
const ROUNDS: usize = 50;

#[test]
fn faults_at_random_moments_lose_nothing_and_tell_nothing_twice() {
    let mut random = Random::new();
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let originals: BTreeMap<usize, Vec<u8>> = (3..40)
        .map(|n| (n, fs::read(tool_path(&root, n)).expect("a file")))
        .collect();

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let began = Instant::now();
    let time = Duration::from_secs(
        std::env::var("PRISTINE_FAULT_SECONDS")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(150),
    );
    let mut rounds = 0;
    while rounds < ROUNDS || began.elapsed() < time {
        rounds += 1;
        let mut changed: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for step in 0..=random.below(3) {
            let n = 3 + random.below(37);
            let content = if random.below(4) == 0 {
                originals[&n].clone()
            } else {
                format!("round {rounds} step {step}\n").into_bytes()
            };
            fs::write(tool_path(&root, n), &content).expect("a change");
            changed.insert(n, content);
        }
        let name = fault(&mut random, &mut world, &mut agent);
        *counts.entry(name).or_default() += 1;
        for (n, content) in &changed {
            is_told_as_it_is(&world, *n, content, &originals[n]);
        }
    }
    eprintln!(
        "{rounds} random faults in {:?}: {counts:?}",
        began.elapsed()
    );

    for (n, content) in &originals {
        fs::write(tool_path(&root, *n), content).expect("an undoing");
    }
    world.wait_for_status("web-1", "pristine");
    every_difference_is_resolved(&world);
    nothing_was_told_twice(&world);
    the_log_is_one_unbroken_chain(&world);
    world.check();
}

/// What was only touched stays open until a person has looked at it.
fn every_difference_is_resolved(world: &World) {
    let end = Instant::now() + LATER;
    loop {
        let open = world.people.violations("open");
        if open.iter().all(|violation| violation["kind"] == "touched")
            && world.people.node("web-1").is_some()
        {
            return;
        }
        assert!(
            Instant::now() < end,
            "not resolved within {LATER:?}: {open:#?}"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

/// One fault at a random moment; everything runs again afterwards.
fn fault(random: &mut Random, world: &mut World, agent: &mut Agent) -> &'static str {
    thread::sleep(random.up_to(Duration::from_millis(120)));
    match random.below(10) {
        0..=3 => {
            agent.kill();
            agent.begin();
            "agent killed"
        }
        4..=7 => {
            world.collector.kill();
            world.collector.begin();
            "collector killed"
        }
        8 => {
            world.collector.kill();
            agent.kill();
            world.collector.begin();
            agent.begin();
            "both killed"
        }
        _ => {
            world.collector.kill();
            thread::sleep(random.up_to(Duration::from_secs(4)));
            world.collector.begin();
            "collector away"
        }
    }
}

fn is_told_as_it_is(world: &World, n: usize, content: &[u8], original: &[u8]) {
    let path = format!("./usr/bin/tool-{n:02}");
    let digest = attestation::digest::Digest::of(content).to_string();
    let what = format!(
        "{path} is told as it is now ({})",
        String::from_utf8_lossy(content).trim_end()
    );
    let end = Instant::now() + LATER;
    loop {
        let open = world.people.open("difference", &path);
        let right = match &open {
            None => content == original,
            Some(violation) => violation["found"]
                .as_str()
                .is_some_and(|found| found.contains(&digest)),
        };
        // An answer of nothing counts only from a collector that answers.
        if right && world.people.node("web-1").is_some() {
            return;
        }
        assert!(
            Instant::now() < end,
            "not within {LATER:?}: {what}\n{open:?}\n{}",
            world.diagnosis()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// One webhook id for each step: a second delivery is the same bytes, and no step has two ids.
fn nothing_was_told_twice(world: &World) {
    let all = world.people.violations("all");
    let ended = all
        .iter()
        .filter(|violation| !violation["resolved"].is_null());
    let ids: BTreeSet<_> = ended
        .map(|v| v["id"].as_str().expect("an id").to_owned())
        .collect();
    eventually("every violation's end has been delivered", LATER, || {
        ids.iter()
            .all(|id| world.webhook.find("resolved", id).is_some())
            .then_some(())
    });
    let mut bodies: BTreeMap<String, Value> = BTreeMap::new();
    let mut steps: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for delivery in world.webhook.deliveries() {
        let violation = delivery.violation();
        // Statements that come in one request are received at one time: the step is what it tells, not only when.
        let step = (
            violation["id"].to_string(),
            delivery.step().to_owned(),
            violation.to_string(),
        );
        let first = bodies
            .entry(delivery.id.clone())
            .or_insert_with(|| delivery.event.clone());
        assert_eq!(*first, delivery.event, "one id, two messages");
        let id = steps
            .entry(step.clone())
            .or_insert_with(|| delivery.id.clone());
        assert_eq!(*id, delivery.id, "one step, two ids: {step:?}");
    }
    for (step, expected) in [("opened", 1), ("resolved", 1)] {
        for id in &ids {
            let id = Value::from(id.as_str()).to_string();
            let told = steps
                .keys()
                .filter(|(violation, s, _)| *violation == id && s == step)
                .count();
            assert_eq!(told, expected, "{step} of {id}");
        }
    }
    let journal = world.collector.journal();
    for id in &ids {
        for event in ["violation.opened", "violation.resolved"] {
            let told = journal.iter().any(|line| {
                is_violation_step(line) && line["event"] == event && line["id"] == id.as_str()
            });
            assert!(told, "no {event} of {id} in the journal");
        }
    }
    overlapping(&all);
}

/// Never two violations of one kind and path at one time.
fn overlapping(all: &[Value]) {
    let mut times: BTreeMap<(String, String), Vec<(String, String)>> = BTreeMap::new();
    for violation in all {
        let key = (violation["kind"].to_string(), violation["path"].to_string());
        let text = |member: &str| violation[member].as_str().unwrap_or("9999").to_owned();
        times
            .entry(key)
            .or_default()
            .push((text("opened"), text("resolved")));
    }
    for (key, mut spans) in times {
        spans.sort();
        for pair in spans.windows(2) {
            assert!(
                pair[0].1 <= pair[1].0,
                "{key:?} was open twice at one time: {pair:?}"
            );
        }
    }
}

/// What the store holds of the node, in the order in which it was logged.
fn the_log_is_one_unbroken_chain(world: &World) {
    let checked = Said::by(
        std::process::Command::new(python())
            .arg(script("chain.py"))
            .arg(world.collector.state()),
    )
    .exits(0);
    eprintln!("{}", checked.out.trim_end());
}

/// The collector goes on telling it where it stands, and takes nothing more today: no reason to ask at once again.
#[test]
fn a_node_above_its_budget_tries_again_later_each_time() {
    let world = World::with(&Options {
        more: "[limits]\nbytes_per_day = 100000\n".to_owned(),
        ..Options::default()
    });
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    // One statement that is larger than what is left of the day.
    let many = world.path("many");
    fs::create_dir(&many).expect("a folder");
    for n in 0..2_000 {
        fs::write(many.join(n.to_string()), "one of many\n").expect("a file");
    }
    fs::rename(&many, root.join("srv/many")).expect("all of them at once");
    let refused = |times: f64| {
        eventually("it is refused", LATER, || {
            let refusals = world.people.metric("pristine_ingest_refused", &["flood"]);
            (refusals >= times).then(Instant::now)
        })
    };
    let second = refused(2.0);
    // Half of 0.5, 1, 2 and 4 seconds.
    let took = refused(6.0) - second;
    assert!(took > Duration::from_millis(3_500), "{took:?}");
    assert!(
        !agent.complaint().contains("answers again"),
        "{}",
        agent.complaint()
    );
    let status = agent.status().expect("a running agent");
    assert!(
        status["collector"]["error"].to_string().contains("flood"),
        "{status:#}"
    );
    assert!(
        world
            .people
            .violations("open")
            .iter()
            .any(|violation| violation["kind"] == "flood")
    );
    assert!(agent.stop().success());
}

#[test]
fn a_full_disk_does_not_silence_the_agent() {
    through_a_full_disk(64);
}

#[test]
fn a_disk_too_small_for_the_spool_does_not_silence_the_agent() {
    through_a_full_disk(12);
}

fn through_a_full_disk(mebibytes: u32) {
    if left_out_without_root("a state directory on a small file system") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let disk = SmallDisk::mounted(&world.path("disk"), mebibytes);
    let state = disk.at.join("state");
    let more = "[limits]\nspool = \"16MiB\"\n";
    let mut agent = Agent::with_state(
        &world.path("web-1"),
        "web-1",
        &root,
        &world.collector.doors.agents,
        &state,
        more,
    );
    agent.enroll(&world.join_token()).exits(0);
    agent.begin();
    world.wait_for_status("web-1", "pristine");

    disk.fill();
    for n in 3..9 {
        fs::write(tool_path(&root, n), format!("while the disk is full {n}\n")).expect("a change");
        is_told_as_it_is(
            &world,
            n,
            format!("while the disk is full {n}\n").as_bytes(),
            b"",
        );
    }
    assert!(agent.runs(), "{}", agent.complaint());
    agent.kill();
    fs::write(tool_path(&root, 10), "while it is down\n").expect("a change");
    agent.begin();
    is_told_as_it_is(&world, 10, b"while it is down\n", b"");

    disk.free();
    fs::write(tool_path(&root, 11), "after\n").expect("a change");
    is_told_as_it_is(&world, 11, b"after\n", b"");
    agent.kill();
    agent.begin();
    fs::write(tool_path(&root, 12), "after a restart\n").expect("a change");
    is_told_as_it_is(&world, 12, b"after a restart\n", b"");
    let forks: Vec<_> = world
        .people
        .violations("all")
        .into_iter()
        .filter(|v| v["kind"] == "fork" || v["kind"] == "replay")
        .collect();
    assert!(forks.is_empty(), "{forks:#?}");
    drop(agent);
    world.check();
}

#[test]
fn what_happened_while_the_collector_was_away_is_told_when_it_is_back() {
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    world.collector.stop();
    let away = Duration::from_secs(
        std::env::var("PRISTINE_AWAY_SECONDS")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(8),
    );
    let began = Instant::now();
    let mut n = 3;
    while began.elapsed() < away {
        fs::write(tool_path(&root, n), format!("away {n}\n")).expect("a change");
        n = if n < 39 { n + 1 } else { 3 };
        thread::sleep(away / 20);
    }
    let spool = agent.status().expect("a status")["spool"].clone();
    assert!(spool["waiting"].as_u64() > Some(1), "{spool}");
    agent.kill();
    agent.begin();
    world.collector.begin();
    let last = if n == 3 { 39 } else { n - 1 };
    for n in [3, last] {
        is_told_as_it_is(&world, n, format!("away {n}\n").as_bytes(), b"");
    }
    eventually("the silence is over", SOON, || {
        let open = world.people.violations("open");
        (!open.iter().any(|v| v["kind"] == "silence")).then_some(())
    });
    the_log_is_one_unbroken_chain(&world);
    drop(agent);
    world.check();
}

#[test]
fn a_webhook_receiver_that_fails_gets_everything_later_under_the_same_ids() {
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    world.webhook.fail(true);
    fs::write(tool_path(&root, 5), "changed\n").expect("a change");
    let refused = eventually("a first try", SOON, || {
        world.webhook.deliveries().into_iter().find(|d| !d.accepted)
    });
    world.collector.kill();
    world.collector.begin();
    world.webhook.fail(false);
    let id = refused.violation()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let accepted = eventually("it is delivered in the end", LATER, || {
        world.webhook.find("opened", &id)
    });
    assert_eq!(accepted.id, refused.id);
    assert_eq!(accepted.event, refused.event);
    drop(agent);
    world.check();
}

fn tool_path(root: &Path, n: usize) -> PathBuf {
    root.join(format!("usr/bin/tool-{n:02}"))
}

/// A file system of a few MiB that can be filled.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn mounted(at: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        let size = format!("size={mebibytes}m,mode=755");
        tool(
            "mount",
            [
                "-t",
                "tmpfs",
                "-o",
                &size,
                "tmpfs",
                at.to_str().expect("a text path"),
            ],
        );
        Self {
            at: at.to_path_buf(),
        }
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.at.join("filler")).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(0), &mut filler).expect_err("a full disk");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.at.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        tool("umount", [Path::new("-l"), &self.at]);
    }
}
