//! What watching costs those who write: each load alone, beside a bare listener, and beside the agent; one after the other in every round.
//!
//! The file system is ext4 in memory, so that neither a disk nor anybody else's files are in the figures. The agent is measured twice: with the load
//! beside what it attests (it is told of it and lets it go), and in it (it hashes every file and tells of it). Needs root.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pristine_tests::{agent::Agent, collector::Options, program::tool, roots, world::World};

use crate::at;

/// One load: a script for `sh`, run in an empty folder with `$FROM` (prepared sources) and `$BENCH` (this program). What is
/// over soon, or takes now longer and now shorter by itself, is done several times over.
struct Load {
    name: &'static str,
    /// Done before the clock starts.
    prepare: &'static str,
    timed: &'static str,
}

/// Empty roots for `dpkg`, as many as the most of the loads that unpack wants.
const NEW_DPKG_ROOTS: &str = "for n in $(seq 15); do mkdir -p $n/var/lib/dpkg/updates $n/var/lib/dpkg/info; touch $n/var/lib/dpkg/status; done";

const LOADS: [Load; 11] = [
    Load {
        name: "storm of tiny files",
        prepare: "true",
        timed: "for n in 1 2 3 4 5; do $BENCH load storm .; done",
    },
    Load {
        name: "tar -x",
        prepare: "mkdir 1 2 3 4 5",
        timed: "for n in 1 2 3 4 5; do tar -xf $FROM/tree.tar -C $n; done",
    },
    Load {
        name: "cp -a",
        prepare: "true",
        timed: "for n in 1 2 3 4 5; do cp -a $FROM/tree $n; done",
    },
    Load {
        name: "rm -rf",
        prepare: "for n in $(seq 15); do cp -a $FROM/tree $n; done",
        timed: "rm -rf $(seq 15)",
    },
    Load {
        name: "package unpack",
        prepare: NEW_DPKG_ROOTS,
        timed: "dpkg --root=$PWD/1 --force-script-chrootless --log=/dev/null --unpack $FROM/server.deb",
    },
    Load {
        name: "package of sources",
        prepare: NEW_DPKG_ROOTS,
        timed: "for n in $(seq 3); do dpkg --root=$PWD/$n --force-script-chrootless --log=/dev/null --unpack $FROM/sources.deb; done",
    },
    Load {
        name: "uncompressed package",
        prepare: NEW_DPKG_ROOTS,
        timed: "for n in $(seq 15); do dpkg --root=$PWD/$n --force-script-chrootless --log=/dev/null --unpack $FROM/tree.deb; done",
    },
    Load {
        name: "git checkout",
        prepare: "cp -a $FROM/git .",
        timed: "cd git && git checkout -q other && git checkout -q one",
    },
    Load {
        name: "SQLite",
        prepare: "true",
        timed: "for n in 1 2 3; do mkdir $n; (cd $n && python3 $FROM/rows.py full 1500); done",
    },
    // The former waits for the disk most of the time. Here nobody waits.
    Load {
        name: "SQLite, not synced",
        prepare: "true",
        timed: "for n in 1 2 3; do mkdir $n; (cd $n && python3 $FROM/rows.py off 20000); done",
    },
    Load {
        name: "appender",
        prepare: "true",
        timed: "$BENCH load append .",
    },
];

const ROWS: &str = "import sqlite3, sys
db = sqlite3.connect('rows.db', isolation_level=None)
db.execute('pragma synchronous = ' + sys.argv[1])
db.execute('create table rows (n integer primary key, text text)')
for n in range(int(sys.argv[2])):
    db.execute('insert into rows values (?, ?)', (n, 'row %d' % n))
";

/// What a node sends of the loads inside is more than it may in a day.
const UNLIMITED: &str = "[limits]\nbytes_per_day = 68719476736\nstatements_per_second = 1000\nstatements_burst = 1000\n";

/// Between the start of whoever watches and the first load.
const SETTLED: Duration = Duration::from_secs(3);

/// Who watches.
#[derive(Clone, Copy, PartialEq)]
enum Watcher {
    Nobody,
    Listener,
    Beside,
    Inside,
}

/// The watchers in the order of the table.
const WATCHERS: [Watcher; 4] = [
    Watcher::Nobody,
    Watcher::Listener,
    Watcher::Beside,
    Watcher::Inside,
];

/// Measures `rounds` times and prints the medians; only the loads whose names hold `only`.
pub fn writers(rounds: usize, only: &str) {
    let loads: Vec<&Load> = LOADS
        .iter()
        .filter(|load| load.name.contains(only))
        .collect();
    // The heartbeat of a collector that nobody has configured otherwise: what the collector does with one is done on another machine.
    let world = World::with(&Options {
        interval: 30,
        more: UNLIMITED.to_owned(),
        ..Options::default()
    });
    let awake = Awake::keep();
    let disk = Disk::mount(&world.path("disk"));
    let sources = sources(&world.path("sources"));
    let root = roots::small(&disk.at.join("root"));
    fs::create_dir(root.join("load")).expect("a folder in the root");
    fs::create_dir(disk.at.join("load")).expect("a folder beside the root");
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    agent.stop();
    let mut times = vec![vec![Vec::new(); WATCHERS.len()]; loads.len()];
    for round in 0..rounds {
        // Whoever comes first in a round is another one each time.
        for turn in 0..WATCHERS.len() {
            let which = (round + turn) % WATCHERS.len();
            let watcher = WATCHERS[which];
            let watching = Watching::start(&world, &mut agent, &disk.at, watcher);
            for (load, times) in loads.iter().zip(&mut times) {
                let place = if watcher == Watcher::Inside {
                    &root
                } else {
                    &disk.at
                };
                times[which].push(once(load, &place.join("load"), &sources));
                watching.let_catch_up();
            }
            watching.end(&world, &mut agent);
        }
    }
    print(rounds, &loads, &mut times);
    if let Err(error) = awake {
        println!(
            "  idle cores halted as they do (/dev/cpu_dma_latency: {error}), and waking one may be most of what a synced write takes"
        );
    }
}

fn print(rounds: usize, loads: &[&Load], times: &mut [Vec<Vec<Duration>>]) {
    println!(
        "what watching costs the writers: ext4 in memory, {rounds} interleaved rounds, time against the median of nobody watching: medians, and between which the middle half lies"
    );
    println!(
        "  {:20} {:>21} {:>18} {:>18} {:>18}",
        "", "nobody", "bare listener", "agent, load beside", "agent, load inside"
    );
    for (load, times) in loads.iter().zip(times) {
        let alone = at(&mut times[0], 50).as_secs_f64();
        print!("  {:20} {alone:7.3} s", load.name);
        for (which, times) in times.iter_mut().enumerate() {
            let mut share = |percent| at(times, percent).as_secs_f64() / alone;
            let (low, median, high) = (share(25), share(50), share(75));
            if which > 0 {
                print!(" {median:6.2}");
            }
            print!(" ({low:.2}-{high:.2})");
        }
        println!();
    }
}

/// The time of one load in an empty folder, which is empty again afterwards.
fn once(load: &Load, folder: &Path, sources: &Path) -> Duration {
    let place = folder.join("one");
    fs::create_dir(&place).expect("an empty folder");
    shell(load.prepare, &place, sources);
    let began = Instant::now();
    shell(load.timed, &place, sources);
    let took = began.elapsed();
    fs::remove_dir_all(&place).expect("what the load made");
    took
}

fn shell(script: &str, place: &Path, sources: &Path) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(place)
        .env("FROM", sources)
        .env("BENCH", std::env::current_exe().expect("this program"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("a shell");
    assert!(status.success(), "{script}: {status}");
}

/// What the loads unpack, copy and check out.
fn sources(at: &Path) -> PathBuf {
    let tree = at.join("tree/usr/share/bench");
    fs::create_dir_all(&tree).expect("a folder for sources");
    for n in 0..4_000_usize {
        let folder = tree.join(format!("{:02}", n % 60));
        fs::create_dir_all(&folder).expect("a folder");
        let text =
            format!("{n} some line of a file that is as long as most are\n").repeat(1 + n % 240);
        fs::write(folder.join(format!("{n:04}")), text).expect("a file");
    }
    let script = "
        tar -cf tree.tar tree
        mkdir -p deb/DEBIAN && cp -a tree/usr deb/
        printf 'Package: bench\\nVersion: 1\\nArchitecture: all\\nMaintainer: Nobody <nobody@example.org>\\nDescription: files\\n' > deb/DEBIAN/control
        dpkg-deb -Znone -b deb tree.deb
        git init -q -b one git && cp -a tree/usr git/ && cd git
        git config user.name Bench && git config user.email bench@example.org && git config gc.auto 0
        git add . && git commit -q -m one
        git checkout -q -b other && find usr -type f -name '*[05]' -exec sh -c 'echo more >> \"$1\"' sh {} \\; && git rm -q -r usr/share/bench/07
        git commit -q -a -m other && git checkout -q one";
    fs::write(at.join("rows.py"), ROWS).expect("a script");
    shell(script, at, at);
    for (package, name) in [
        (roots::package(), "server.deb"),
        (roots::package_of_sources(), "sources.deb"),
    ] {
        symlink(package, at.join(name)).expect("a link to the package");
    }
    at.to_path_buf()
}

/// Whoever watches, until ended.
struct Watching {
    watcher: Watcher,
    listener: Option<Child>,
}

impl Watching {
    fn start(world: &World, agent: &mut Agent, disk: &Path, watcher: Watcher) -> Self {
        let mut listener = None;
        match watcher {
            Watcher::Nobody => {}
            Watcher::Listener => {
                let mut child = Command::new(std::env::current_exe().expect("this program"))
                    .arg("listen")
                    .arg(disk)
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("a listener");
                let mut ready = String::new();
                let said = child.stdout.take().expect("piped");
                BufReader::new(said).read_line(&mut ready).expect("ready");
                listener = Some(child);
            }
            Watcher::Beside | Watcher::Inside => {
                agent.begin();
                world.wait_for_status("web-1", "pristine");
            }
        }
        // What a start leaves to do, here and at the collector, is no cost of watching.
        std::thread::sleep(SETTLED);
        Self { watcher, listener }
    }

    /// Between two loads: what one left to do must not be in the time of the next.
    fn let_catch_up(&self) {
        let pause = if self.watcher == Watcher::Inside {
            3_000
        } else {
            300
        };
        std::thread::sleep(Duration::from_millis(pause));
    }

    fn end(self, world: &World, agent: &mut Agent) {
        if let Some(mut listener) = self.listener {
            listener.kill().expect("the listener");
            listener.wait().expect("the listener's end");
        } else if self.watcher != Watcher::Nobody {
            world.wait_for_status("web-1", "pristine");
            agent.stop();
        }
    }
}

/// Idle cores wait without halting as long as this stands, as on a server tuned for latency. To wake a halted one may take a virtual
/// machine half a millisecond, and whether one has halted is up to chance: 600 rows written by SQLite took now 0.28 s and now 0.41 s, and 0.14 to
/// 0.16 s where none does.
struct Awake {
    /// The request ends when it is closed (Documentation/power/pm_qos_interface.rst).
    _latency: fs::File,
}

impl Awake {
    fn keep() -> std::io::Result<Self> {
        let mut latency = fs::OpenOptions::new()
            .write(true)
            .open("/dev/cpu_dma_latency")?;
        latency.write_all(&0_i32.to_ne_bytes())?;
        Ok(Self { _latency: latency })
    }
}

/// An ext4 file system in memory.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: &Path) -> Self {
        let memory = at.with_extension("memory");
        fs::create_dir_all(at).expect("a mount point");
        fs::create_dir_all(&memory).expect("a mount point");
        let text = |path: &Path| path.to_str().expect("a text path").to_owned();
        tool(
            "mount",
            ["-t", "tmpfs", "-o", "size=3g", "bench", &text(&memory)],
        );
        let image = text(&memory.join("ext4"));
        tool("truncate", ["-s", "2500M", &image]);
        tool("mkfs.ext4", ["-q", "-F", &image]);
        tool("mount", ["-o", "loop,noatime", &image, &text(at)]);
        Self {
            at: at.to_path_buf(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for path in [self.at.clone(), self.at.with_extension("memory")] {
            let path = path.to_str().expect("a text path").to_owned();
            Command::new("umount").args(["-l", &path]).status().ok();
        }
    }
}
