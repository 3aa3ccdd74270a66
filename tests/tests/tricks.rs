//! KERNEL.md section 3, row by row: every trick that is known to get past a watcher is done for real, and what the agent answers is
//! what the row promises. What cannot be done here is listed in `not-run.md`.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pristine_tests::{
    agent::Agent,
    attested::becomes_attested,
    change::{Doer, change},
    disk::{Disk, Kind, Mounted, mount, unmount},
    left_out_without_root,
    program::tool,
    rows::Rows,
    sighting::{added, content, difference, mounted},
    wait::{BY_EVENT, LATER, SOON, eventually},
    world::World,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What no event tells is found by the next rescan, every ten seconds here.
const BY_RESCAN: Duration = Duration::from_secs(40);
/// What is looked for every minute, and read again half a minute later.
const BY_MINUTE: Duration = Duration::from_secs(110);

const MORE: &str = "rescan = 10\n";
const SCOPE: &str =
    r#"[{"match": "ignored/**", "expect": "ignored"}, {"match": "other", "expect": "sealed"}]"#;
/// Larger than any 32-bit number of bytes.
const LARGE: u64 = (1 << 31) + 4096;

/// Files of 12,288 bytes below `f`.
const FILES: &[&str] = &[
    "mtime",
    "mapped",
    "dirty",
    "changing",
    "aliased",
    "linked",
    "bound",
    "ns",
    "raw",
    "living",
    "immutable",
    "fifo",
    "device",
    "hole",
];

/// One root with one agent, on which all tricks are done.
struct Ground {
    agent: Agent,
    root: PathBuf,
    _other: Disk,
    _overlay: Option<Mounted>,
    disk: Disk,
    world: World,
}

/// What the root lies on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// An ext4 of its own.
    Disk,
    /// An overlay, as a container's root is: everything lies below until it is written to.
    Overlay,
}

impl Ground {
    fn prepared(base: Base) -> Self {
        let world = World::start();
        let disk = Disk::mounted(&world.path("disk"), Kind::Ext4, 256);
        let root = disk.at.join("root");
        let lower = disk.at.join("lower");
        let overlay = match base {
            Base::Disk => {
                plant(&root);
                None
            }
            Base::Overlay => {
                plant(&lower);
                Some(Mounted::overlay(&lower, &root))
            }
        };
        fs::hard_link(root.join("f/aliased"), root.join("ignored/alias")).expect("a hard link");
        let other = Disk::mounted(&root.join("other"), Kind::Tmpfs, 16);
        fs::write(root.join("other/file"), "on another file system\n").expect("a file");
        world.image_by(&root, SCOPE);
        let agent = world.agent_with("web-1", &root, MORE);
        world.wait_for_status("web-1", "pristine");
        Self {
            agent,
            root,
            _other: other,
            _overlay: overlay,
            disk,
            world,
        }
    }

    #[track_caller]
    fn does(&self, script: &str) -> Doer {
        change(&self.root, script)
    }

    fn node(&self) -> Value {
        self.world.people.node("web-1").unwrap_or_default()
    }

    /// The whole tree is attested as a scan by the same rules finds it.
    #[track_caller]
    fn is_attested(&self) {
        let scope = self.world.path("scope.json");
        becomes_attested(&self.world, "web-1", (&self.root, Some(&scope)), LATER);
    }

    fn is_unsettled(&self, path: &str) -> bool {
        self.node()["coverage"]["unsettled"]
            .as_array()
            .is_some_and(|list| list.iter().any(|one| one == path))
    }
}

fn plant(root: &Path) {
    for folder in ["f", "ignored", "covered", "swap", "other"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for name in FILES {
        // 16 bytes a line, and no two blocks alike.
        let content: String = (0..768).map(|n| format!("{name:>9} {n:05}\n")).collect();
        fs::write(root.join("f").join(name), content).expect("a file");
    }
    fs::write(root.join("covered/file"), "below\n").expect("a file");
    fs::write(root.join("swap/inside"), "inside\n").expect("a file");
    let large = fs::File::create(root.join("f/large")).expect("a file");
    large.set_len(LARGE).expect("a length");
    let image = root.join("f/image");
    fs::File::create(&image)
        .expect("an image")
        .set_len(8 << 20)
        .expect("its size");
    tool(
        "mkfs.ext4",
        ["-q", "-F", image.to_str().expect("a text path")],
    );
}

#[test]
fn every_trick_on_a_watched_root_is_answered() {
    if left_out_without_root("KERNEL.md section 3") {
        return;
    }
    let mut ground = Ground::prepared(Base::Disk);
    let mut rows = Rows::of("KERNEL.md 3");
    let slow = Slow::begin(&ground);
    told_by_events(&mut rows, &ground);
    told_of_the_last_byte(&mut rows, &ground);
    told_about_mounts(&mut rows, &ground);
    told_by_flags(&mut rows, &ground);
    told_by_rescans(&mut rows, &ground);
    told_of_raw_writes(&mut rows, &ground);
    told_by_lookouts(&mut rows, &ground, slow);
    rows.row("the whole tree is attested as it is", || {
        ground.is_attested();
    });
    rows.row("agent stopped: silence", || silence(&ground));
    assert!(ground.agent.stop().success());
    ground.world.check();
    rows.end();
}

/// Left out: what is about the disk below, and what an overlay cannot do (directories of the lower one do not change places).
#[test]
fn every_trick_that_an_overlay_knows_is_answered_there() {
    if left_out_without_root("KERNEL.md section 3 on an overlay") {
        return;
    }
    let mut ground = Ground::prepared(Base::Overlay);
    assert_eq!(ground.node()["coverage"]["watch"]["rung"], "C");
    let mut rows = Rows::of("KERNEL.md 3 on an overlay");
    let slow = Slow::begin(&ground);
    told_by_events(&mut rows, &ground);
    told_about_mounts(&mut rows, &ground);
    told_by_flags(&mut rows, &ground);
    told_by_lookouts(&mut rows, &ground, slow);
    rows.row("the whole tree is attested as it is", || {
        ground.is_attested();
    });
    assert!(ground.agent.stop().success());
    ground.world.check();
    rows.end();
}

fn told_by_events(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("mtime put back, size kept", || {
        let doer = ground.does("s = os.stat(at(b'f/mtime')); again(b'f/mtime', b'X')\nos.utime(at(b'f/mtime'), ns=(s.st_atime_ns, s.st_mtime_ns))");
        content("./f/mtime").in_the_api(world, BY_EVENT, Some(&doer));
    });
    rows.row("store through a shared mapping: told when the mapping goes", || {
        let doer = ground.does("import mmap
fd = os.open(at(b'f/mapped'), os.O_RDWR); m = mmap.mmap(fd, 4096); os.close(fd); m[100:101] = b'!'; m.close()");
        content("./f/mapped").in_the_api(world, BY_EVENT, Some(&doer));
    });
    rows.row("second store to an already dirty page", || {
        let doer = ground.does("import mmap
fd = os.open(at(b'f/dirty'), os.O_RDWR); m = mmap.mmap(fd, 4096); m[100:101] = b'!'; C.sched_yield(); m[200:201] = b'?'; m.close(); os.close(fd)");
        let told = content("./f/dirty").in_the_api(world, BY_EVENT, Some(&doer));
        let digest = attestation::digest::Digest::of(&fs::read(ground.root.join("f/dirty")).expect("a file")).to_string();
        eventually("the second store is told", BY_RESCAN, || {
            let now = world.people.violation(told["id"].as_str().expect("an id"))?;
            now["found"].as_str().is_some_and(|found| found.contains(&digest)).then_some(())
        });
    });
    rows.row(
        "file changes while it is read: unsettled, then settled",
        || {
            let doer = ground.does(
                "import threading
def busy():
    fd = os.open(at(b'f/changing'), os.O_WRONLY | os.O_APPEND)
    while True: os.write(fd, b'more and more ' * 4000); os.ftruncate(fd, 12288)
threading.Thread(target=busy, daemon=True).start()",
            );
            eventually("it is unsettled", BY_RESCAN, || {
                ground.is_unsettled("./f/changing").then_some(())
            });
            drop(doer);
            eventually("it is settled", BY_RESCAN, || {
                (!ground.is_unsettled("./f/changing")).then_some(())
            });
        },
    );
    rows.row("write through a hard link in an ignored place", || {
        let doer = ground.does("again(b'ignored/alias', b'X')");
        content("./f/aliased").in_the_api(world, BY_EVENT, Some(&doer));
    });
    rows.row(
        "new hard link to a sealed file from an ignored place: touched",
        || {
            drop(ground.does("os.link(at(b'f/linked'), at(b'ignored/linked'))"));
            ground.world.is_touched("./f/linked", BY_EVENT);
        },
    );
    rows.row(
        "FIFO, device or a hole of 1 TiB put where a file was",
        || {
            let doer = ground.does(
                "os.unlink(at(b'f/fifo')); os.mkfifo(at(b'f/fifo'))
os.unlink(at(b'f/device')); os.mknod(at(b'f/device'), 0o644 | stat.S_IFCHR, os.makedev(1, 5))
os.truncate(at(b'f/hole'), 1 << 40)",
            );
            difference("./f/fifo", &["type"], Some("type=file"), Some("type=fifo")).in_the_api(
                world,
                BY_EVENT,
                Some(&doer),
            );
            difference(
                "./f/device",
                &["type"],
                Some("type=file"),
                Some("type=char"),
            )
            .in_the_api(world, BY_EVENT, Some(&doer));
            difference(
                "./f/hole",
                &["size"],
                Some("size=12288"),
                Some("size=1099511627776"),
            )
            .in_the_api(world, BY_EVENT, Some(&doer));
            // Nobody who reads the whole tree later should hash a tebibyte of zeros.
            fs::remove_file(ground.root.join("f/hole")).expect("a removal");
        },
    );
    rows.row("names with newlines, escapes, invalid UTF-8, 255 bytes", || {
        let doer = ground.does("for name in [b'new\\nline', b'\\x1b[31mred', b'\\xff\\xfe', b'n' * 255, b' ', b'*?[#=']: write(b'f/' + name, b'x')");
        let long = format!("./f/{}", "n".repeat(255));
        for path in ["./f/new\\012line", "./f/\\033\\13331mred", "./f/\\377\\376", &long, "./f/\\040", "./f/\\052\\077\\133\\043\\075"] {
            added(path, "size=1").in_the_api(world, BY_EVENT, Some(&doer));
        }
    });
}

fn told_of_the_last_byte(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row(
        "limits on file size: the last byte of more than 2 GiB",
        || {
            let doer = ground.does(&format!(
                "fd = os.open(at(b'f/large'), os.O_WRONLY); os.pwrite(fd, b'X', {}); os.close(fd)",
                LARGE - 1
            ));
            content("./f/large").in_the_api(world, LATER, Some(&doer));
        },
    );
}

fn told_about_mounts(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("bind mount over a file", || {
        let evil = world.path("evil");
        fs::write(&evil, "evil\n").expect("a file");
        let doer = ground.does(&format!(
            "libc(b'mount', {:?}.encode(), at(b'f/bound'), None, 4096, None)",
            evil.display()
        ));
        let told = mounted("./f/bound").in_the_api(world, BY_EVENT, Some(&doer));
        assert!(
            world.people.open("difference", "./f/bound").is_none(),
            "what lies below is as it was"
        );
        unmount(&ground.root.join("f/bound"));
        ground.world.is_resolved(&told, BY_RESCAN);
        drop(doer);
    });
    rows.row(
        "tmpfs over a directory, and what is changed below it",
        || {
            let below = fs::File::options()
                .write(true)
                .open(ground.root.join("covered/file"))
                .expect("a file");
            mount(&["-t", "tmpfs", "tmpfs"], &ground.root.join("covered"));
            let told = mounted("./covered").in_the_api(world, BY_EVENT, None);
            below
                .write_all_at(b"BELOW", 0)
                .expect("a write below the mount");
            drop(below);
            content("./covered/file").in_the_api(world, BY_EVENT, None);
            fs::write(ground.root.join("covered/above"), "x").expect("a file on the tmpfs");
            unmount(&ground.root.join("covered"));
            ground.world.is_resolved(&told, BY_RESCAN);
            assert!(
                world.people.open("difference", "./covered/above").is_none(),
                "what was above is not told"
            );
        },
    );
    rows.row("another file system mounted in scope", || {
        let doer = ground.does("again(b'other/file', b'X')");
        content("./other/file").in_the_api(world, BY_EVENT, Some(&doer));
    });
}

fn told_by_flags(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("chattr +i, -i", || {
        let file = ground.root.join("f/immutable");
        tool("chattr", [Path::new("+i"), &file]);
        let flags = difference(
            "./f/immutable",
            &["flags"],
            Some("type=file"),
            Some("flags=schg"),
        );
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flags.in_the_api(world, BY_RESCAN, None)
        }));
        tool("chattr", [Path::new("-i"), &file]);
        ground
            .world
            .is_resolved(&told.expect("the flag is told"), BY_RESCAN);
    });
}

fn told_by_rescans(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("a loop-mounted image is written inside", || {
        let inside = world.path("inside");
        fs::create_dir(&inside).expect("a mount point");
        mount(
            &[
                "-o",
                "loop",
                ground.root.join("f/image").to_str().expect("a text path"),
            ],
            &inside,
        );
        fs::write(inside.join("file"), "inside\n").expect("a file");
        tool("umount", [&inside]);
        content("./f/image").in_the_api(world, BY_RESCAN, None);
    });
    rows.row("symlink swapped into the path during scans", || {
        let outside = world.path("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("only-outside"), "x").expect("a file");
        let doer = ground.does(&format!(
            "import threading, time
os.symlink({:?}, at(b'swap.link'))
def busy():
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for _ in range(2): libc(b'renameat2', -100, at(b'swap'), -100, at(b'swap.link'), 2)
    os.unlink(at(b'swap.link'))
busy.thread = threading.Thread(target=busy); busy.thread.start()",
            outside.display()
        ));
        for _ in 0..3 {
            world.rescan("web-1");
            std::thread::sleep(Duration::from_secs(1));
        }
        eventually("it is as it was", BY_RESCAN, || {
            (!ground.root.join("swap.link").is_symlink()).then_some(())
        });
        drop(doer);
        ground.is_attested();
        let told = world.people.violations("all");
        let led = told.iter().filter(|violation| {
            violation["path"]
                .as_str()
                .is_some_and(|path| path.contains("only-outside"))
        });
        assert_eq!(led.count(), 0, "a scan was led out of the root: {told:#?}");
    });
}

/// What is looked for once a minute: begun before everything else, so that the minutes pass meanwhile.
struct Slow {
    began: Instant,
    _doers: [Doer; 2],
}

impl Slow {
    fn begin(ground: &Ground) -> Self {
        let evil = ground.world.path("evil");
        fs::write(&evil, "evil\n").expect("a file");
        let mapping = ground.does(
            "import mmap
fd = os.open(at(b'f/living'), os.O_RDWR); m = mmap.mmap(fd, 4096); os.close(fd); m[100:101] = b'!'",
        );
        let namespace = ground.does(&format!(
            "libc(b'unshare', 0x20000)
libc(b'mount', None, b'/', None, 0x44000, None)
libc(b'mount', {:?}.encode(), at(b'f/ns'), None, 4096, None)",
            evil.display()
        ));
        let began = Instant::now();
        Self {
            began,
            _doers: [mapping, namespace],
        }
    }

    fn left(&self) -> Duration {
        BY_MINUTE.saturating_sub(self.began.elapsed())
    }
}

fn told_of_raw_writes(rows: &mut Rows, ground: &Ground) {
    let world = &ground.world;
    rows.row("raw write to the block device under the file system", || {
        let device = ground.disk.device();
        let (place, old) = raw_place(&ground.disk.image, &ground.root.join("f/raw"));
        let script = format!(
            "fd = os.open({:?}, os.O_WRONLY); assert os.pwrite(fd, b'RAW!', {place}) == 4; os.fsync(fd); os.close(fd)",
            device.display()
        );
        let doer = ground.does(&script);
        let told = content("./f/raw").in_the_api(world, LATER, None);
        let digest = attestation::digest::Digest::of(&[b"RAW!", &old[4..]].concat()).to_string();
        assert!(told["found"].as_str().is_some_and(|found| found.contains(&digest)), "{told:#}");
        let node = device.strip_prefix("/").expect("a path").display().to_string();
        let touched = ground.world.is_touched(&format!("./{node}"), BY_EVENT);
        assert_eq!(touched["actor"]["pid"], doer.pid(), "who wrote raw: {touched:#}");
        // The page cache still has the old bytes, which a scan would take: the agent read the disk itself.
        let file = fs::File::open(ground.root.join("f/raw")).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("no cached pages");
    });
}

fn told_by_lookouts(rows: &mut Rows, ground: &Ground, slow: Slow) {
    let world = &ground.world;
    rows.row(
        "store through a shared mapping that lives on: told within a minute",
        || {
            content("./f/living").in_the_api(world, slow.left(), None);
        },
    );
    rows.row("mount in a private namespace: told within a minute", || {
        mounted("./f/ns").in_the_api(world, slow.left(), None);
    });
    drop(slow);
    rows.row("the watch is tested every minute, and works", || {
        let node = ground.node();
        let limits = node["coverage"]["watch"]["limits"].to_string();
        assert!(
            !limits.contains("not tested") && !limits.contains("does not work"),
            "{limits}"
        );
    });
}

/// Where the first bytes of a file lie on its disk, and what is in them: found by its content, which is nobody else's.
fn raw_place(image: &Path, file: &Path) -> (u64, Vec<u8>) {
    let content = fs::read(file).expect("a file");
    fs::File::open(file)
        .and_then(|file| file.sync_all())
        .expect("a file on its disk");
    let disk = fs::read(image).expect("the disk");
    let place = disk
        .chunks(4096)
        .position(|block| block == &content[..4096])
        .expect("the file's first block");
    (place as u64 * 4096, content)
}

/// A frozen agent sends nothing: the collector tells the silence, and that it is over.
fn silence(ground: &Ground) {
    let pid = ground
        .agent
        .pid()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .expect("a running agent");
    kill_process(pid, Signal::STOP).expect("a stopped agent");
    let silence = || {
        ground
            .world
            .people
            .violations("open")
            .into_iter()
            .find(|violation| violation["kind"] == "silence")
    };
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("the silence is told", SOON, silence)
    }));
    kill_process(pid, Signal::CONT).expect("a running agent");
    ground.world.is_resolved(&told.expect("the silence"), SOON);
}
