//! What changes a root without an event of a file: mounts, raw writes to the device below, stores through mappings, hard links from
//! elsewhere, and a root that has no file handles. Each is told with what it did, and with who did it where the kernel says so.

use std::{fs, path::Path};

use attestation::time::Timestamp;
use pristine_tests::{
    change::{Doer, change},
    disk::{Disk, Kind, Mounted, unmount},
    evidence::tells_gap,
    left_out_without_root,
    program::tool,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::Value;

/// A violation of this kind at this path, when there is one.
#[track_caller]
fn told(world: &World, kind: &str, path: &str) -> Value {
    let mut last = Value::Null;
    let end = std::time::Instant::now() + LATER;
    while std::time::Instant::now() < end {
        if let Some(found) = world.people.open(kind, path) {
            last = found;
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(
        !last.is_null(),
        "no {kind} at {path}\n{}",
        world.diagnosis()
    );
    last
}

#[track_caller]
fn by(violation: &Value, doer: &Doer) {
    assert_eq!(violation["actor"]["pid"], doer.pid(), "{violation:#}");
}

/// A signed gap of this cause, and after it every byte was read. The slow reading of all content would take hours for that.
#[track_caller]
fn is_a_gap_and_all_is_read(world: &World, cause: &str) {
    let (_, gap) = tells_gap(world, "node-1", cause);
    assert!(gap.paths.is_empty(), "everywhere: {gap:#?}");
    eventually("everything is read again", LATER, || {
        let node = world.people.node("node-1")?;
        let read: Timestamp = node["coverage"]["read"].as_str()?.parse().ok()?;
        (Some(read) >= gap.to).then_some(())
    });
}

/// Linux 6.14 tells of mounts with who made them.
fn tells_who_mounts() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel release");
    let mut numbers = release.split(['.', '-', '\n']);
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    number() > Some(6) || (release.starts_with("6.") && number() >= Some(14))
}

#[test]
fn a_mount_is_told_with_who_made_it_and_one_in_another_namespace_with_who_lives_there() {
    if left_out_without_root("mounts and who made them") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent("node-1", &root);
    world.wait_for_status("node-1", "pristine");

    let mount = "libc(b'mount', b'hidden', at(b'usr/bin'), b'tmpfs', 0, None)";
    let doer = change(&root, mount);
    let violation = told(&world, "mount", "./usr/bin");
    if tells_who_mounts() {
        by(&violation, &doer);
    } else {
        eprintln!("left out, needs Linux 6.14: who mounted");
    }
    drop(doer);
    unmount(&root.join("usr/bin"));

    let elsewhere = "libc(b'unshare', 0x20000)
libc(b'mount', None, b'/', None, 0x44000, None)
libc(b'mount', b'hidden', at(b'etc'), b'tmpfs', 0, None)
write(b'etc/other', b'x')";
    let doer = change(&root, elsewhere);
    world.rescan("node-1");
    let violation = told(&world, "mount", "./etc");
    by(&violation, &doer);
    drop(doer);
    world.rescan("node-1");
    world.is_resolved(&violation, LATER);
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn a_raw_write_to_the_device_below_is_told_with_its_writer_though_the_page_cache_has_the_old_bytes()
{
    if left_out_without_root("raw writes to a loop device") {
        return;
    }
    let world = World::start();
    let disk = Disk::mounted(&world.path("root"), Kind::Ext4, 64);
    let root = roots::small(&disk.at);
    fs::write(
        root.join("etc/marked"),
        "A-marker-that-is-nowhere-else\n".repeat(200),
    )
    .expect("a file");
    tool("sync", [Path::new("-f"), &root]);
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent_with("node-1", &root, "cmdline = false\n");
    world.wait_for_status("node-1", "pristine");

    let device = disk.device();
    let script = format!(
        "fd = os.open({device:?}, os.O_RDWR)
size = os.lseek(fd, 0, os.SEEK_END)
step, where, before = 1 << 20, -1, b''
for start in range(0, size, step):
    chunk = os.pread(fd, step, start)
    found = (before + chunk).find(b'A-marker-that-is-nowhere-else')
    if found >= 0:
        where = start - len(before) + found
        break
    before = chunk[-64:]
assert where >= 0, 'the file is not on the device'
os.pwrite(fd, b'B', where)
os.close(fd)"
    );
    let doer = change(&root, &script);
    assert!(
        fs::read(root.join("etc/marked"))
            .expect("the file")
            .starts_with(b"A"),
        "the page cache has the old bytes"
    );
    let node = format!(".{}", device.display());
    let touched = told(&world, "touched", &node);
    by(&touched, &doer);
    assert!(touched["actor"]["cmdline"].is_null(), "{touched:#}");
    let violation = told(&world, "difference", "./etc/marked");
    assert_eq!(violation["fields"], serde_json::json!(["sha256digest"]));
    is_a_gap_and_all_is_read(&world, "raw-write");
    drop(doer);
    assert!(agent.stop().success());
    world.check();
}

/// What inodes say of when they changed counts for nothing after it.
#[test]
#[ignore = "sets the clock of the machine: every agent that runs on it tells of a step"]
fn a_step_of_the_clock_is_a_gap_and_all_is_read_again() {
    if left_out_without_root("the machine's clock") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent("node-1", &root);
    world.wait_for_status("node-1", "pristine");
    // `timex` with ADJ_SETOFFSET and ADJ_NANO: a nanosecond ahead.
    let step = "t = ctypes.create_string_buffer(208)
struct.pack_into('I', t, 0, 0x2100)
struct.pack_into('q', t, 80, 1)
if C.adjtimex(t) < 0: write(b'../refused', b'')";
    drop(change(&root, step));
    if world.path("refused").exists() {
        eprintln!("left out: the clock may not be set here");
        return;
    }
    is_a_gap_and_all_is_read(&world, "clock");
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn a_store_through_a_mapping_and_a_hard_link_from_elsewhere_are_told() {
    if left_out_without_root("mappings and hard links") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent("node-1", &root);
    world.wait_for_status("node-1", "pristine");

    let doer = change(
        &root,
        &format!(
            "os.link(at(b'etc/app/app.conf'), {:?})",
            world.path("outside").display().to_string()
        ),
    );
    by(&told(&world, "touched", "./etc/app/app.conf"), &doer);
    drop(doer);

    // The descriptor is closed before the store: only the mapping is left, and nothing tells of what is stored through it.
    let doer = change(
        &root,
        "import mmap
f = open(at(b'usr/bin/tool-07'), 'r+b')
m = mmap.mmap(f.fileno(), 0)
f.close()
m[0:1] = b'X'",
    );
    world.rescan("node-1");
    let violation = told(&world, "difference", "./usr/bin/tool-07");
    assert_eq!(violation["fields"], serde_json::json!(["sha256digest"]));
    drop(doer);
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn a_file_system_mounted_where_the_scope_names_it_is_watched_and_read() {
    if left_out_without_root("a file system in scope that is mounted later") {
        return;
    }
    let world = World::start();
    let root = roots::small(&world.path("root"));
    let fill = || {
        let mounted = Mounted::new(&["-t", "tmpfs", "data"], &root.join("srv"));
        fs::write(root.join("srv/kept"), "kept\n").expect("a file");
        mounted
    };
    let first = fill();
    world.image_by(&root, r#"[{"match": "srv", "expect": "sealed"}]"#);
    drop(first);
    let mut agent = world.agent("node-1", &root);
    told(&world, "difference", "./srv/kept");

    let _second = fill();
    world.wait_for_status("node-1", "pristine");
    // From when it was mounted until it was watched and read.
    let (_, gap) = tells_gap(&world, "node-1", "mount");
    let paths: Vec<String> = gap.paths.iter().map(ToString::to_string).collect();
    assert_eq!(paths, ["./srv"]);
    let doer = change(&root, "write(b'srv/kept', b'changed')");
    by(&told(&world, "difference", "./srv/kept"), &doer);
    drop(doer);
    assert!(agent.stop().success());
    world.check();
}

#[test]
fn an_overlay_is_attested_and_what_is_written_in_it_is_told_at_once() {
    if left_out_without_root("an overlay as root") {
        return;
    }
    let world = World::start();
    let lower = roots::small(&world.path("lower"));
    let root = world.path("root");
    let mounted = Mounted::overlay(&lower, &root);
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent("node-1", &root);
    world.wait_for_status("node-1", "pristine");
    for (script, path) in [
        ("write(b'etc/app/app.conf', b'x')", "./etc/app/app.conf"),
        ("os.unlink(at(b'usr/bin/tool-03'))", "./usr/bin/tool-03"),
        ("write(b'usr/bin/new', b'x')", "./usr/bin/new"),
    ] {
        let doer = change(&root, script);
        by(&told(&world, "difference", path), &doer);
    }
    assert!(agent.stop().success());
    drop(mounted);
    world.check();
}

/// Also where nothing happens: what the minute's looks cost and say must not disturb a quiet node.
#[test]
fn a_quiet_node_stays_pristine_while_its_watch_is_tested() {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    world.image(&root, "base", "1", &[]);
    let mut agent = world.agent("node-1", &root);
    world.wait_for_status("node-1", "pristine");
    world.rescan("node-1");
    eventually("a status without a violation", SOON, || {
        world.people.violations("open").is_empty().then_some(())
    });
    world.wait_for_status("node-1", "pristine");
    assert!(agent.stop().success());
    world.check();
}
