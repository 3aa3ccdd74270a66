//! Two measurements on the machine at hand, side by side with a tool that everybody has, printed as they are:
//! `bench scan ROOT ROUNDS` and `bench latency CHANGES`.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use pristine_tests::{
    program::{Said, command},
    roots,
    wait::{SOON, eventually},
    world::World,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["scan", root, rounds] => {
            scan(Path::new(root), rounds.parse().expect("a number of rounds"))
        }
        ["latency", changes] => latency(changes.parse().expect("a number of changes")),
        _ => {
            eprintln!("usage: bench scan ROOT ROUNDS | bench latency CHANGES");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

/// `pristine scan` against `openssl dgst` over the same files, warm, one after the other in every round.
fn scan(root: &Path, rounds: usize) {
    let root = if root == Path::new("debian") {
        roots::debian_original()
    } else {
        root.to_path_buf()
    };
    let ours = || {
        let mut scan = command("pristine");
        scan.arg("scan").arg(&root).args(["--format", "json"]);
        let began = Instant::now();
        let said = Said::by(&mut scan);
        assert!([0, 2].contains(&said.code), "{}", said.err);
        (began.elapsed(), said)
    };
    let theirs = || {
        let began = Instant::now();
        let mut find = Command::new("find")
            .arg(&root)
            .args(["-type", "f", "-print0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("find");
        let names = find.stdout.take().expect("piped");
        let digests = Command::new("xargs")
            .args(["-0", "-P2", "openssl", "dgst", "-sha256"])
            .stdin(names)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        digests.expect("xargs");
        find.wait().expect("find");
        began.elapsed()
    };
    let (_, first) = ours();
    theirs();
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        our_times.push(ours().0);
        their_times.push(theirs());
    }
    let facts = first.json();
    let (ours, theirs) = (at(&mut our_times, 50), at(&mut their_times, 50));
    println!(
        "scan of {}: {} entries, {} bytes, {rounds} interleaved rounds, warm",
        root.display(),
        facts["entries"],
        facts["bytes"]
    );
    println!(
        "  pristine scan ROOT                                         median {:8.3} s",
        ours.as_secs_f64()
    );
    println!(
        "  find -type f -print0 | xargs -0 -P2 openssl dgst -sha256   median {:8.3} s",
        theirs.as_secs_f64()
    );
    println!("  ratio {:.2}", theirs.as_secs_f64() / ours.as_secs_f64());
}

/// From the return of `write` to the arrival of the webhook, with all three programs: for changes that come after quiet
/// (the agent tells the first one at once) and for such as follow each other (it gathers them for 20 ms).
fn latency(changes: usize) {
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

/// The value below which `percent` of them lie.
fn at(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
