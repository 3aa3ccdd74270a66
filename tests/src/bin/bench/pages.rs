//! How long the server takes for each page of a big fleet: a thousand nodes, 20,000 violations, 200,000 records of activity.

use std::{
    fs,
    time::{Duration, Instant},
};

use pristine_tests::{
    people::People,
    program::{python, script},
    roots,
    wait::{LATER, eventually},
    world::World,
};

use crate::at;

const NODES: usize = 1_000;
const VIOLATIONS: usize = 20_000;
const RECORDS: usize = 200_000;

/// Asks for every page so often.
pub fn pages(rounds: usize) {
    let mut world = World::start();
    let root = roots::small(&world.path("root"));
    let image = world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    fs::write(root.join("etc/app/app.conf"), "port = 1\n").expect("a change");
    eventually("a violation", LATER, || {
        (!world.people.violations("open").is_empty()).then_some(())
    });
    let node = world.id("web-1");
    agent.stop();
    world.collector.stop();
    fill(&world);
    world.collector.begin();
    let people = &world.people;
    eventually("the collector answers", LATER, || {
        people
            .ask("GET", "/readyz", None)
            .filter(|it| it.status == 200)
    });
    let violation = people.get("/api/v1/violations?limit=1")["items"][0]["id"]
        .as_str()
        .expect("a violation")
        .to_owned();
    println!(
        "{NODES} nodes, {VIOLATIONS} violations, {RECORDS} records of activity; {rounds} times each"
    );
    let mut slow = Vec::new();
    for page in addresses(&node, &violation, &image.sha256) {
        let (median, most, bytes) = timed(people, &page, rounds);
        println!(
            "  {:7.1} ms  {:7.1} ms at most  {:6} KiB  {page}",
            millis(median),
            millis(most),
            bytes / 1024
        );
        if median > Duration::from_millis(100) {
            slow.push(page);
        }
    }
    if slow.is_empty() {
        println!("  every median is under 100 ms");
    } else {
        println!("  above 100 ms: {}", slow.join(", "));
    }
}

fn fill(world: &World) {
    let done = std::process::Command::new(python())
        .arg(script("fleet.py"))
        .arg(world.collector.state())
        .args([NODES, VIOLATIONS, RECORDS].map(|count| count.to_string()))
        .status()
        .expect("python");
    assert!(done.success(), "the store is filled");
}

/// Every page, and the filters that look through most rows.
fn addresses(node: &str, violation: &str, image: &str) -> Vec<String> {
    let fixed = [
        "/",
        "/nodes",
        "/nodes?q=web-09",
        "/nodes?status=drifted",
        "/violations",
        "/violations?status=all&q=file-19999",
        "/sessions",
        "/images",
        "/changes",
        "/exceptions",
        "/activity",
        "/activity?q=person-7",
        "/alerts",
        "/settings",
    ];
    let own = [
        format!("/nodes/{node}"),
        format!("/nodes/{node}?span=month"),
        format!("/nodes/{node}/pins"),
        format!("/violations/{violation}"),
        format!("/images/{image}"),
    ];
    fixed.map(str::to_owned).into_iter().chain(own).collect()
}

fn timed(people: &People, page: &str, rounds: usize) -> (Duration, Duration, usize) {
    let mut bytes = 0;
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            let answer = people.ask("GET", page, None).expect("an answer");
            assert_eq!(answer.status, 200, "{page}");
            bytes = answer.body.len();
            began.elapsed()
        })
        .collect();
    (at(&mut times, 50), at(&mut times, 100), bytes)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
