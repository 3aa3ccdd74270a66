//! More changes than one core can look at while they happen: the final state is attested, and what was lost on the way is a signed gap
//! that is healed.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use pristine_tests::{
    attested::becomes_attested,
    cost::Cost,
    disk::{Disk, Kind},
    left_out_without_root,
    program::tool,
    wait::{LATER, eventually},
    world::World,
};

/// On which other watchers saw 6,000 to 17,000.
const DELETES: usize = 50_000;
/// Files that a busy writer has at a time.
const OWN: usize = 200;

#[test]
fn busy_writers_and_fifty_thousand_deletes_on_one_core_end_in_an_attested_state() {
    if left_out_without_root("storms on a file system of their own") {
        return;
    }
    let world = World::start();
    let disk = Disk::mounted(&world.path("disk"), Kind::Ext4, 512);
    let root = disk.at.join("root");
    plant(&root);
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    let pid = agent.pid().expect("a running agent");
    tool("taskset", ["-a", "-p", "-c", "0", &pid.to_string()]);

    let seconds = std::env::var("PRISTINE_STORM_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(15);
    let began = Instant::now();
    let changes = two_busy_writers(&root, Duration::from_secs(seconds));
    let wrote = began.elapsed();
    let settled = becomes_attested(&world, "web-1", (&root, None), LATER);
    eprintln!(
        "busy writers: {changes} changes in {wrote:.1?}, the final state attested after {settled:.1?}"
    );
    every_gap_is_healed(&world);

    let began = Instant::now();
    for n in 0..DELETES {
        fs::remove_file(root.join(file(n))).expect("a removal");
    }
    let removed = began.elapsed();
    let settled = becomes_attested(&world, "web-1", (&root, None), LATER);
    eprintln!("{DELETES} deletes in {removed:.1?}, the final state attested after {settled:.1?}");
    every_gap_is_healed(&world);
    eprintln!("the agent: {}", Cost::of(pid));
    let node = world.people.node("web-1").expect("the node");
    assert_eq!(node["verdict"], "drifted", "{node:#}");
    assert!(
        node["differences"]
            .as_u64()
            .is_some_and(|count| count >= DELETES as u64),
        "{node:#}"
    );
    assert!(agent.stop().success());
    world.check();
}

fn file(n: usize) -> String {
    format!("many/{:02}/file-{n:05}", n % 50)
}

fn plant(root: &Path) {
    for folder in 0..50 {
        fs::create_dir_all(root.join(format!("many/{folder:02}"))).expect("a folder");
    }
    for writer in 0..2 {
        fs::create_dir_all(root.join(format!("writer-{writer}"))).expect("a folder");
    }
    for n in 0..DELETES {
        fs::write(root.join(file(n)), b"x").expect("a file");
    }
}

/// Creates, writes, renames and unlinks as fast as the file system goes; returns how many changes that were.
fn two_busy_writers(root: &Path, time: Duration) -> usize {
    let end = Instant::now() + time;
    let busy = |writer: usize| {
        let folder = root.join(format!("writer-{writer}"));
        let mut changes = 0;
        while Instant::now() < end {
            for n in 0..OWN {
                let (one, other) = (
                    folder.join(format!("one-{n}")),
                    folder.join(format!("other-{n}")),
                );
                fs::write(&one, changes.to_string()).expect("a file");
                fs::rename(&one, &other).expect("a rename");
                changes += 2;
                if n % 3 > 0 {
                    fs::remove_file(&other).expect("a removal");
                    changes += 1;
                }
            }
        }
        changes
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let busy = &busy;
                scope.spawn(move || busy(writer))
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer"))
            .sum()
    })
}

/// None is open; those that were are counted.
fn every_gap_is_healed(world: &World) {
    let gaps = eventually("every gap is closed", LATER, || {
        let gaps: Vec<_> = world
            .people
            .violations("all")
            .into_iter()
            .filter(|v| v["kind"] == "gap")
            .collect();
        gaps.iter()
            .all(|gap| !gap["resolved"].is_null())
            .then_some(gaps)
    });
    eprintln!("{} gaps were told and healed", gaps.len());
}
