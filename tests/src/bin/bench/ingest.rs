//! What a collector takes in: nodes that attest one after the other as fast as they are answered, each over its own
//! connection, every statement signed, verified, appraised, stored and synced before its receipt. The load runs on the same
//! cores; what each side costs is told in processor time, which other work on the machine does not falsify.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use attestation::{digest::Digest, statement::Subject, wire::AttestationsAnswer};
use pristine_tests::{collector::Options, node::Node, roots, world::World};

use crate::at;

/// `NODES` nodes for `SECONDS`.
pub fn ingest(nodes: usize, seconds: usize) {
    let world = World::with(&Options {
        interval: 30,
        more: LIMITS.to_owned(),
        ..Options::default()
    });
    let root = roots::small(&world.path("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let said = world.run([
        "image",
        "show",
        image.file.to_str().expect("a text path"),
        "--format",
        "json",
    ]);
    let shown = said.exits(0).json();
    let tree: Digest = shown["tree"]
        .as_str()
        .and_then(|it| it.parse().ok())
        .expect("a tree");
    let named: Digest = image.sha256.parse().expect("a digest");
    let speakers: Vec<Node> = (0..nodes)
        .map(|n| Node::join(&world, &format!("node-{n:04}")))
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let pid = world.collector.pid().expect("a running collector");
    let before = (processor_time(pid), processor_time(std::process::id()));
    let began = Instant::now();
    let threads: Vec<_> = speakers
        .into_iter()
        .map(|node| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || speak(&node, named, tree, &stop))
        })
        .collect();
    thread::sleep(Duration::from_secs(seconds as u64));
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> = threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("a node"))
        .collect();
    let took = began.elapsed().as_secs_f64();
    let count = times.len();
    let each = |before: Duration, pid| {
        let spent = processor_time(pid).saturating_sub(before);
        spent.as_secs_f64() * 1e6 / count as f64
    };
    let (collector, load) = (each(before.0, pid), each(before.1, std::process::id()));
    println!("{nodes} nodes, one statement a request, {took:.1} s: {count} attestations");
    println!(
        "  {:8.0} a second, signed, verified, appraised, stored, synced",
        count as f64 / took
    );
    println!(
        "  {collector:8.0} us of processor time each in the collector, {load:.0} us in the load"
    );
    println!(
        "  answered within: median {:.0} ms, 99 % {:.0} ms",
        millis(at(&mut times, 50)),
        millis(at(&mut times, 99))
    );
    world.check();
}

/// Nobody is held back here but by the collector itself.
const LIMITS: &str = "[limits]\nstatements_per_second = 100000\nstatements_burst = 1000000\nbytes_per_day = 100000000000\njoins_per_second = 100000\njoins_burst = 100000\n";

fn speak(node: &Node, image: Digest, tree: Digest, stop: &AtomicBool) -> Vec<Duration> {
    let first = node.challenge();
    let (mut at, mut challenge) = (first.expected, first.challenge);
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let statement = node.statement_after(&at, Some(challenge), |statement| {
            statement.subject = vec![Subject::of_tree(node.id.to_string(), &tree)];
            statement.predicate.image = Some(image);
        });
        let began = Instant::now();
        let answer = node
            .send(std::slice::from_ref(&statement))
            .expect("an answer");
        times.push(began.elapsed());
        let answer: AttestationsAnswer = serde_json::from_slice(&answer.body).expect("receipts");
        assert_eq!(answer.receipts.len(), 1, "{:?}", answer.refused);
        challenge = answer.challenge;
        at.sequence += 1;
        at.previous = Some(statement.payload_digest());
    }
    times
}

/// What a process has used so far, in user and kernel.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let after_name = stat.rsplit(')').next().expect("fields");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|n| fields[*n].parse::<u64>().expect("ticks"))
        .sum();
    // A hundred a second on every Linux that this runs on.
    Duration::from_millis(ticks * 10)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
