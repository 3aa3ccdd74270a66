//! From a write to its webhook.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pristine_tests::{
    roots,
    wait::{SOON, eventually},
    world::World,
};

use crate::at;

/// From the return of `write` to the arrival of the webhook, with all three programs: for changes that come after quiet
/// (the agent tells the first one at once) and for such as follow each other (it gathers them for 20 ms).
pub fn latency(changes: usize) {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    println!("write to webhook: agent, mutual TLS, sync to disk, verdict, webhook");
    for (what, pause) in [("after quiet", 250), ("following each other", 60)] {
        let mut times = Vec::new();
        for n in 0..changes {
            let (path, shown) = file(&root, n);
            let before = fs::read(&path).expect("a file")[0];
            for (step, byte) in [("opened", before ^ 1), ("resolved", before)] {
                times.push(told(&world, &path, &shown, step, byte));
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        let count = times.len();
        let mut percentile = |percent| at(&mut times, percent).as_secs_f64() * 1000.0;
        println!(
            "  {what:21} {count} changes: median {:5.1} ms, 90 % {:5.1}, 99 % {:5.1}, most {:5.1}",
            percentile(50),
            percentile(90),
            percentile(99),
            percentile(100)
        );
    }
    drop(agent);
    world.check();
}

fn told(world: &World, path: &Path, shown: &str, step: &str, first_byte: u8) -> Duration {
    let seen = world.webhook.deliveries().len();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("a file");
    file.write_all_at(&[first_byte], 0).expect("a change");
    drop(file);
    let done = Instant::now();
    let arrived = eventually(&format!("{step} {shown} at the webhook"), SOON, || {
        let deliveries = world.webhook.deliveries();
        deliveries[seen..]
            .iter()
            .find(|d| d.step() == step && d.violation()["path"] == shown)
            .map(|d| d.arrived)
    });
    arrived.saturating_duration_since(done)
}

fn file(root: &Path, n: usize) -> (PathBuf, String) {
    let name = format!("usr/bin/tool-{:02}", 3 + n % 37);
    (root.join(OsStr::new(&name)), format!("./{name}"))
}
