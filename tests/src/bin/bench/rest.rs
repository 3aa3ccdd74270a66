//! What the agent costs when nothing happens: resident memory and processor time with the default heartbeat and rescan.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use pristine_tests::{
    agent::Agent,
    collector::Options,
    disk::{Disk, Kind},
    roots,
    world::World,
};

/// The node's bar: resident KiB, and percent of a core, for so many entries.
const ENTRIES: usize = 140_000;

/// Watches an agent on 140,000 entries (or on `root`) for so many seconds. Needs root.
pub fn rest(root: &Path, seconds: usize) {
    let folder = tempfile::Builder::new()
        .prefix("pristine-bench-")
        .tempdir()
        .expect("a temporary folder");
    // A file system of its own: what others write beside it is heard of as well, and is not rest.
    let disk = Disk::mounted(&folder.path().join("disk"), Kind::Ext4, 1_024);
    let root = match root.to_str() {
        Some("140000") => made(&disk.at.join("root")),
        Some("small") => roots::half_a_million(),
        _ => root.to_path_buf(),
    };
    // The heartbeat of a collector that nobody has configured otherwise.
    let world = World::with(&Options {
        interval: 30,
        ..Options::default()
    });
    world.image(&root, "base", "1", &[]);
    let mut agent = Agent::configured(
        &world.path("web-1"),
        "web-1",
        &root,
        &world.collector.doors.agents,
        "",
    );
    agent.enroll(&world.join_token()).exits(0);
    agent.begin();
    world.wait_for_status("web-1", "pristine");
    let pid = agent.pid().expect("a running agent");
    println!(
        "at rest, {} entries",
        world.people.node("web-1").expect("the node")["entries"]
    );
    let began = Instant::now();
    let network = child(pid);
    let (all, reread) = used(pid);
    let beside = network.map(used);
    let (mut most, mut told) = (0, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        std::thread::sleep(Duration::from_secs(1));
        most = most.max(resident(pid));
        if began.elapsed() >= told {
            told = began.elapsed() + Duration::from_secs(60);
            println!(
                "  after {:4.0} s {:6.1} MiB resident",
                began.elapsed().as_secs_f64(),
                mebibytes(resident(pid))
            );
        }
    }
    let (all_after, reread_after) = used(pid);
    let reread = reread_after - reread;
    let percent = |seconds: f64| 100.0 * seconds / began.elapsed().as_secs_f64();
    println!(
        "  {seconds} s: {:.1} MiB resident at most, now {:.1}; {:.3} % of a core, and {:.3} % for reading content again",
        mebibytes(most),
        mebibytes(resident(pid)),
        percent(all_after - all - reread),
        percent(reread)
    );
    if let (Some(network), Some((before, _))) = (network, beside) {
        println!(
            "  its network process beside it: {:.1} MiB resident, {:.3} % of a core; both, with what they share counted once: {:.1} MiB",
            mebibytes(resident(network)),
            percent(used(network).0 - before),
            mebibytes(shared_once(pid) + shared_once(network))
        );
    }
}

/// The process that the agent keeps for the network.
fn child(pid: u32) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .find_map(|children| children.split_whitespace().next()?.parse().ok())
}

/// KiB of a process, each shared page divided by those who share it (proc_pid_smaps(5), `Pss`).
fn shared_once(pid: u32) -> u64 {
    kibibytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn made(at: &Path) -> std::path::PathBuf {
    // Some 20 files in a directory, as on a server.
    for folder in 0..ENTRIES / 20 {
        let folder = at.join(format!(
            "{:02}/{:02}/{folder:04}",
            folder / 500,
            folder / 20 % 25
        ));
        fs::create_dir_all(&folder).expect("a folder");
        for n in 0..19 {
            fs::write(
                folder.join(format!("file-{n:02}")),
                format!("{} {n}\n", folder.display()).repeat(n + 1),
            )
            .expect("a file");
        }
    }
    at.to_path_buf()
}

/// Processor seconds of the process, and of its thread that reads content again.
fn used(pid: u32) -> (f64, f64) {
    let seconds = |stat: &str| {
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks: u32 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u32>().expect("ticks"))
            .sum();
        f64::from(ticks) / 100.0
    };
    let of = |path: &Path| fs::read_to_string(path.join("stat")).ok();
    let process = Path::new("/proc").join(pid.to_string());
    let threads = fs::read_dir(process.join("task"))
        .expect("threads")
        .flatten();
    let reread = threads
        .filter_map(|thread| of(&thread.path()))
        .filter(|stat| stat.contains("(reread)"));
    (
        seconds(&of(&process).expect("the process")),
        reread.map(|stat| seconds(&stat)).sum(),
    )
}

fn resident(pid: u32) -> u64 {
    kibibytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn kibibytes(file: &str, name: &str) -> u64 {
    let told = fs::read_to_string(file).expect("a running agent");
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("what is resident");
    line.trim().trim_end_matches(" kB").parse().expect("KiB")
}

fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
