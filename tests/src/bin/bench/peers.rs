//! The same work by those who do it too: first scan, nothing changed, 100 files changed; time and peak memory. Needs root.
//!
//! AIDE with two workers, Tripwire, NetBSD's mtree and bare `openssl dgst` on two processes; each with SHA-256 where it has it (Tripwire has SHA-1)
//! and the attributes that it can record. Before each warm run the tree is read once by `tar`; cold means that the page cache was dropped before.

use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pristine_tests::{
    agent::Agent,
    program::{built, tool},
    roots,
    world::World,
};

use crate::{
    at,
    measured::{Cost, cost},
};

/// Files that are changed before the last check.
const CHANGED: usize = 100;

/// A command line, as words.
type Words = Vec<OsString>;

/// One tool: what it does first, and what it does to see whether something changed; exit codes that mean that it worked.
struct Peer {
    name: &'static str,
    first: Words,
    again: Option<Words>,
    /// Between the two.
    keep: Option<(PathBuf, PathBuf)>,
    works: &'static [i32],
}

/// Measures on `root` (`debian`, `small` for half a million small files, or a directory), and prints a table; of the tools only
/// those with `only` in their name, and the agent.
pub fn peers(root: &Path, rounds: usize, only: &str) {
    let folder = tempfile::Builder::new()
        .prefix("pristine-bench-")
        .tempdir()
        .expect("a temporary folder");
    let root = match root.to_str() {
        Some("debian") => roots::debian_large(),
        Some("small") => roots::half_a_million(),
        _ => root.to_path_buf(),
    };
    let work = folder.path().join("root");
    tool(
        "cp",
        [Path::new("-a"), Path::new("--reflink=auto"), &root, &work],
    );
    let mut peers = set_up(folder.path(), &work);
    peers.retain(|peer| peer.name.contains(only));
    println!(
        "{} ({} entries): median of {rounds} interleaved rounds",
        root.display(),
        entries(&work)
    );
    println!(
        "  {:42} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "first", "cold", "nothing", "changed", "peak"
    );
    let mut firsts = vec![Vec::new(); peers.len()];
    let mut rows: Vec<Row> = peers.iter().map(|peer| Row::of(peer.name)).collect();
    for _ in 0..rounds {
        for ((peer, row), times) in peers.iter().zip(&mut rows).zip(&mut firsts) {
            warm(&work);
            let cost = worked(peer, &peer.first);
            row.peak = row.peak.max(cost.peak);
            times.push(Duration::from_secs_f64(cost.seconds));
        }
    }
    for ((peer, row), times) in peers.iter().zip(&mut rows).zip(&mut firsts) {
        row.first = at(times, 50).as_secs_f64();
        drop_caches();
        row.cold = worked(peer, &peer.first).seconds;
        if let Some((from, to)) = &peer.keep {
            fs::rename(from, to).expect("what the first run wrote");
        }
    }
    checks(&peers, &mut rows, (&work, rounds), |row| &mut row.nothing);
    let agent = Watched::start(&work);
    change(&work);
    checks(&peers, &mut rows, (&work, rounds), |row| &mut row.changed);
    for row in &rows {
        row.print();
    }
    agent.print();
}

struct Row {
    name: &'static str,
    first: f64,
    cold: f64,
    nothing: Option<f64>,
    changed: Option<f64>,
    peak: i64,
}

impl Row {
    fn of(name: &'static str) -> Self {
        Self {
            name,
            first: 0.0,
            cold: 0.0,
            nothing: None,
            changed: None,
            peak: 0,
        }
    }

    fn print(&self) {
        let second =
            |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3} s"));
        println!(
            "  {:42} {:>9} {:>9} {:>9} {:>9} {:>5} MiB",
            self.name,
            second(Some(self.first)),
            second(Some(self.cold)),
            second(self.nothing),
            second(self.changed),
            self.peak / 1024
        );
    }
}

fn checks(
    peers: &[Peer],
    rows: &mut [Row],
    (root, rounds): (&Path, usize),
    place: impl Fn(&mut Row) -> &mut Option<f64>,
) {
    for (peer, row) in peers.iter().zip(rows) {
        let Some(again) = &peer.again else { continue };
        let mut times = Vec::new();
        for _ in 0..rounds {
            warm(root);
            let cost = worked(peer, again);
            row.peak = row.peak.max(cost.peak);
            times.push(Duration::from_secs_f64(cost.seconds));
        }
        *place(row) = Some(at(&mut times, 50).as_secs_f64());
    }
}

/// Reads everything once, so that nobody pays for what the kernel has given up since the last one came by.
fn warm(root: &Path) {
    let script = format!("tar -cf - -C {} . | cat > /dev/null", root.display());
    tool("sh", ["-c", &script]);
}

fn worked(peer: &Peer, command: &Words) -> Cost {
    let cost = cost(command);
    assert!(
        peer.works.contains(&cost.code),
        "{}: exit code {}: {command:?}",
        peer.name,
        cost.code
    );
    cost
}

fn words<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Words {
    words.into_iter().map(Into::into).collect()
}

fn shell(script: String) -> Words {
    words(["sh", "-c", &script])
}

fn set_up(folder: &Path, root: &Path) -> Vec<Peer> {
    let text = |path: &Path| path.to_str().expect("a text path").to_owned();
    let pristine = built().join("pristine");
    let image = folder.join("bench.mtree.zst");
    let build = [
        "image",
        "build",
        &text(root),
        "--name",
        "bench",
        "--version",
        "1",
        "-o",
        &text(&image),
    ];
    let scan = ["scan", &text(root), "--image", &text(&image)];
    let ours = |arguments: &[&str]| {
        words(std::iter::once(text(&pristine)).chain(arguments.iter().map(ToString::to_string)))
    };
    let files = format!(
        "find {} -type f -print0 | xargs -0 -P2 openssl dgst -sha256",
        text(root)
    );
    let spec = folder.join("mtree");
    let mut peers = vec![
        Peer {
            name: "pristine image build, scan --image",
            first: shell(format!(
                "rm -f {0} {0}.dsse.json; exec {1} {2}",
                text(&image),
                text(&pristine),
                build.join(" ")
            )),
            again: Some(ours(&scan)),
            keep: None,
            works: &[0, 1],
        },
        Peer {
            name: "pristine scan",
            first: ours(&["scan", &text(root)]),
            again: None,
            keep: None,
            works: &[0],
        },
        Peer {
            name: "find | xargs -P2 openssl dgst",
            first: shell(files.clone()),
            again: Some(shell(files)),
            keep: None,
            works: &[0],
        },
        Peer {
            name: "mtree -c -K sha256, mtree -f",
            first: shell(format!(
                "mtree -c -K sha256 -p {} > {}",
                text(root),
                text(&spec)
            )),
            again: Some(shell(format!("mtree -p {} -f {}", text(root), text(&spec)))),
            keep: None,
            works: &[0, 2],
        },
    ];
    peers.push(aide(folder, root));
    peers.push(tripwire(folder, root));
    peers
}

fn aide(folder: &Path, root: &Path) -> Peer {
    let config = folder.join("aide.conf");
    let (database, new) = (folder.join("aide.db"), folder.join("aide.db.new"));
    let lines = format!(
        "database_in=file:{}\ndatabase_out=file:{}\ngzip_dbout=no\nnum_workers=2\nreport_url=file:{}\n{} ftype+p+l+u+g+s+sha256+acl+xattrs\n",
        database.display(),
        new.display(),
        folder.join("aide.report").display(),
        root.display()
    );
    fs::write(&config, lines).expect("AIDE's configuration");
    let run = |what: &str| {
        words([
            "aide",
            "--config",
            config.to_str().expect("a text path"),
            what,
        ])
    };
    Peer {
        name: "aide --init, --check, two workers",
        first: run("--init"),
        again: Some(run("--check")),
        keep: Some((new, database)),
        works: &[0, 1, 2, 3, 4, 5, 6, 7],
    }
}

fn tripwire(folder: &Path, root: &Path) -> Peer {
    let at = folder.join("tripwire");
    fs::create_dir(&at).expect("a folder for Tripwire");
    let d = at.display();
    fs::write(
        at.join("twcfg.txt"),
        format!("ROOT={d}\nPOLFILE={d}/tw.pol\nDBFILE={d}/tw.twd\nREPORTFILE={d}/tw.twr\nSITEKEYFILE={d}/site.key\nLOCALKEYFILE={d}/local.key\nEDITOR=/bin/true\nLATEPROMPTING=false\nMAILNOVIOLATIONS=false\nREPORTLEVEL=1\nMAILMETHOD=SENDMAIL\nMAILPROGRAM=/bin/true\n"),
    )
    .expect("Tripwire's configuration");
    fs::write(
        at.join("twpol.txt"),
        format!("{} -> +pugstS-aimcbdlrCMH;\n", root.display()),
    )
    .expect("Tripwire's policy");
    for arguments in [
        format!(
            "--generate-keys --local-keyfile {d}/local.key --local-passphrase bench --site-keyfile {d}/site.key --site-passphrase bench"
        ),
        format!(
            "--create-cfgfile --cfgfile {d}/tw.cfg --site-keyfile {d}/site.key --site-passphrase bench {d}/twcfg.txt"
        ),
        format!(
            "--create-polfile --cfgfile {d}/tw.cfg --polfile {d}/tw.pol --site-keyfile {d}/site.key --site-passphrase bench {d}/twpol.txt"
        ),
    ] {
        tool("twadmin", arguments.split(' '));
    }
    let run = |arguments: String| {
        words(
            std::iter::once("tripwire")
                .chain(arguments.split(' '))
                .collect::<Vec<_>>(),
        )
    };
    Peer {
        name: "tripwire --init, --check (SHA-1)",
        first: run(format!(
            "--init --cfgfile {d}/tw.cfg --polfile {d}/tw.pol --local-passphrase bench --silent"
        )),
        again: Some(run(format!(
            "--check --cfgfile {d}/tw.cfg --polfile {d}/tw.pol --silent"
        ))),
        keep: None,
        works: &[0, 1, 2, 3, 4, 5, 6, 7],
    }
}

/// The agent: its first start, a start with nothing changed, one after the changes; and what it holds.
struct Watched {
    world: World,
    agent: Agent,
    first: f64,
    nothing: f64,
    root: PathBuf,
}

impl Watched {
    fn start(root: &Path) -> Self {
        let world = World::start();
        world.image(root, "base", "1", &[]);
        let mut agent = Agent::configured(
            &world.path("web-1"),
            "web-1",
            root,
            &world.collector.doors.agents,
            "",
        );
        agent.enroll(&world.join_token()).exits(0);
        warm(root);
        let first = until_watching(&mut agent);
        world.wait_for_status("web-1", "pristine");
        agent.stop();
        warm(root);
        let nothing = until_watching(&mut agent);
        world.wait_for_status("web-1", "pristine");
        agent.stop();
        Self {
            world,
            agent,
            first,
            nothing,
            root: root.to_path_buf(),
        }
    }

    fn print(mut self) {
        warm(&self.root);
        let changed = until_watching(&mut self.agent);
        self.world.wait_for_status("web-1", "drifted");
        let pid = self.agent.pid().expect("a running agent");
        let peak = memory(pid, "VmHWM:");
        println!(
            "  {:42} {:7.3} s {:>9} {:7.3} s {:7.3} s {:>5} MiB",
            "pristine-agent, from start to watching",
            self.first,
            "",
            self.nothing,
            changed,
            peak / 1024
        );
        println!(
            "  the agent at rest holds {} MiB of {}",
            memory(pid, "VmRSS:") / 1024,
            self.root.display()
        );
    }
}

fn until_watching(agent: &mut Agent) -> f64 {
    let began = Instant::now();
    agent.begin();
    while !agent.complaint().contains("watching") {
        assert!(
            agent.runs() && began.elapsed() < Duration::from_secs(600),
            "{}",
            agent.complaint()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    began.elapsed().as_secs_f64()
}

fn memory(pid: u32, what: &str) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of the agent");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .expect("a line of it");
    line.trim().trim_end_matches(" kB").parse().expect("KiB")
}

fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("the page cache dropped");
}

fn entries(root: &Path) -> usize {
    tool("find", [root]).lines().count()
}

/// One more byte in every so many-th file.
fn change(root: &Path) {
    let files = tool(
        "find",
        [
            root.as_os_str(),
            "-type".as_ref(),
            "f".as_ref(),
            "-size".as_ref(),
            "-64k".as_ref(),
        ],
    );
    let files: Vec<&str> = files.lines().collect();
    for n in 0..CHANGED {
        let file = files[n * files.len() / CHANGED];
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(file)
            .expect("a file");
        file.write_all(b"!").expect("one more byte");
    }
}
