//! What a restart of the agent reads, by the agent's own count; and that what its index does not know is found all the same.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use pristine_tests::{
    agent::Agent,
    change::change,
    collector::Options,
    disk::{Disk, Kind},
    evidence::{chain, tells_gap},
    left_out_without_root,
    program::tool,
    roots,
    wait::{LATER, SOON, eventually},
    world::World,
};
use serde_json::Value;

#[test]
fn a_restart_reads_only_what_changed() {
    let (world, root, mut agent) = watched();
    let first = baseline(&agent);
    assert_eq!(first["known"], 0);
    assert!(first["bytes"].as_u64().expect("bytes") > 10_000);
    let content = statement_read(&agent);
    assert!(content.is_string(), "everything was read: {content}");

    // A clean stop keeps what is known, whatever was written before.
    agent.stop();
    agent.begin();
    let again = baseline(&agent);
    assert_eq!(again["known"], first["entries"]);
    assert_eq!(again["bytes"], 0);
    world.wait_for_status("web-1", "pristine");
    // What was read before the restart is not claimed; the rolling reading of content comes to it.
    eventually("a reading of everything in this run", LATER, || {
        statement_read(&agent).is_string().then_some(())
    });

    agent.stop();
    fs::write(root.join("usr/bin/tool-07"), "changed while it was down\n").expect("a change");
    agent.begin();
    let third = baseline(&agent);
    assert_eq!(third["bytes"], 26);
    world.wait_for_status("web-1", "drifted");
    assert!(
        world
            .people
            .open("difference", "./usr/bin/tool-07")
            .is_some()
    );

    // Killed: the index is the one written after the start, or older.
    eventually("an index", LATER, || index(&agent));
    agent.kill();
    agent.begin();
    let fourth = baseline(&agent);
    let known = |of: &Value| of["known"].as_u64().expect("a number");
    assert!(known(&fourth) >= known(&third) - 1, "{fourth}");
    world.wait_for_status("web-1", "drifted");
    world.check();
}

#[test]
fn what_was_read_is_taken_in_at_once_though_the_next_heartbeat_is_far() {
    let world = World::with(&Options {
        interval: 600,
        ..Options::default()
    });
    let root = roots::small(&world.path("root"));
    // Read for so long that nothing else wakes the engine any more when it is over.
    let large = fs::File::create(root.join("usr/large")).expect("a file");
    large.set_len(1 << 30).expect("a hole");
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    // The end of the reading and the engine's look at it meet as luck has it.
    for _ in 0..5 {
        baseline(&agent);
        agent.stop();
        fs::remove_dir_all(agent.state().join("index")).expect("the index");
        agent.begin();
    }
    baseline(&agent);
    world.check();
}

#[test]
fn a_damaged_index_is_told_and_everything_is_read() {
    let (world, root, mut agent) = watched();
    let first = baseline(&agent);
    agent.stop();
    let index = index(&agent).expect("an index");
    let file = fs::OpenOptions::new().write(true).open(&index);
    let at = fs::metadata(&index).expect("an index").len() / 2;
    file.expect("the index")
        .write_all_at(b"?!", at)
        .expect("damage");
    fs::write(root.join("etc/app/app.conf"), "listen = 81\n").expect("a change");
    agent.begin();
    let again = baseline(&agent);
    assert_eq!(again["known"], 0);
    assert_eq!(again["entries"], first["entries"]);
    assert!(
        agent.complaint().contains("damaged"),
        "{}",
        agent.complaint()
    );
    world.wait_for_status("web-1", "drifted");

    // The next one is whole again.
    agent.stop();
    agent.begin();
    assert_ne!(baseline(&agent)["known"], 0);
    world.check();
}

/// The second store into a page that is dirty already moves nothing that `statx` tells of.
#[test]
fn a_store_through_a_mapping_while_the_agent_is_down_is_found() {
    if left_out_without_root("files are asked for their writers") {
        return;
    }
    let (world, root, mut agent) = watched();
    agent.stop();
    // The same byte again makes the page dirty, and another one is stored when the process ends.
    let writer = change(
        &root,
        "import atexit, mmap
f = open(at(b'usr/bin/tool-09'), 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[0] = m[0]
atexit.register(lambda: m.__setitem__(0, 88))",
    );
    agent.begin();
    // As the image has it, and never called clean while somebody may change it.
    world.wait_for_status("web-1", "incomplete");
    agent.stop();
    let ctime = |root: &Path| {
        let file = fs::metadata(root.join("usr/bin/tool-09")).expect("the file");
        (file.ctime(), file.ctime_nsec())
    };
    let before = ctime(&root);
    drop(writer);
    if ctime(&root) != before {
        eprintln!("the page was written back meanwhile: only a moved inode is found here");
    }
    agent.begin();
    world.wait_for_status("web-1", "drifted");
    assert!(
        world
            .people
            .open("difference", "./usr/bin/tool-09")
            .is_some()
    );
    world.check();
}

/// No event tells of it, no inode, no gap: neither a restart nor a rescan reads it, only whoever reads all content again.
#[test]
fn what_was_written_below_the_file_system_while_the_agent_is_down_is_found_by_reading_all_again() {
    if left_out_without_root("raw writes to a loop device") {
        return;
    }
    let world = World::start();
    let disk = Disk::mounted(&world.path("root"), Kind::Ext4, 64);
    let root = roots::small(&disk.at);
    // More than a block, and no other file's.
    let content = "A-marker-that-is-nowhere-else\n".repeat(200);
    fs::write(root.join("etc/marked"), &content).expect("a file");
    settle(&root);
    tool("sync", [Path::new("-f"), &root]);
    world.image(&root, "base", "1.0", &[]);
    let mut agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    assert!(agent.stop().success());

    let below = fs::read(&disk.image).expect("the disk");
    let place = below
        .chunks(4096)
        .position(|block| block == &content.as_bytes()[..4096])
        .expect("the file's first block");
    let device = fs::OpenOptions::new().write(true).open(disk.device());
    let device = device.expect("the device");
    device
        .write_all_at(b"B", place as u64 * 4096)
        .expect("a raw write");
    device.sync_all().expect("a raw write on the disk");
    drop(device);

    agent.begin();
    assert_eq!(baseline(&agent)["bytes"], 0, "the restart reads nothing");
    let told = eventually("other content", LATER, || {
        world.people.open("difference", "./etc/marked")
    });
    assert_eq!(told["fields"], serde_json::json!(["sha256digest"]));
    // With a gap everything would have been read because of it.
    for (_, said) in chain(&world, "web-1") {
        assert!(said.coverage.gaps.is_empty(), "{said:#?}");
    }
    world.check();
}

/// From its last word on nobody looked, and there was no goodbye: what was put back meanwhile only its inode tells.
#[test]
fn a_kill_leaves_a_gap_and_what_was_put_back_meanwhile_is_touched() {
    let (world, root, mut agent) = watched();
    agent.kill();
    put_back(&root.join("usr/bin/tool-07"));
    agent.begin();

    let (said, gap) = tells_gap(&world, "web-1", "restart");
    assert_eq!(said.coverage.gaps.len(), 1, "{said:#?}");
    let last_word = chain(&world, "web-1")
        .into_iter()
        .find(|(digest, _)| Some(*digest) == said.previous);
    let (_, last_word) = last_word.expect("the statement before");
    assert_eq!(gap.from, last_word.issued, "since its last word");
    assert!(gap.to > Some(gap.from), "{gap:#?}");
    assert!(gap.paths.is_empty(), "everywhere: {gap:#?}");
    let touched: Vec<_> = said
        .touched
        .iter()
        .map(|it| (it.path.to_string(), it.event.as_str()))
        .collect();
    assert_eq!(touched, [("./usr/bin/tool-07".to_owned(), "ctime")]);

    let told = eventually("the gap is told", SOON, || {
        let mut all = world.people.violations("all").into_iter();
        all.find(|violation| violation["kind"] == "gap")
    });
    assert_eq!(told["detail"]["gaps"][0]["cause"], "restart", "{told:#}");
    world.is_resolved(&told, LATER);
    let touched = world.is_touched("./usr/bin/tool-07", SOON);
    assert_eq!(touched["event"], "ctime", "{touched:#}");
    let differs = world.people.open("difference", "./usr/bin/tool-07");
    assert!(differs.is_none(), "{differs:#?}");
    world.check();
}

#[test]
fn after_a_goodbye_and_no_change_there_is_no_gap() {
    let (world, _, mut agent) = watched();
    assert!(agent.stop().success());
    agent.begin();
    // The collector makes no violation of an announced gap: what the node signed counts.
    let said = eventually("a word after the goodbye", LATER, || {
        let chain = chain(&world, "web-1");
        let goodbye = chain.iter().position(|(_, said)| said.goodbye)?;
        let (_, first) = chain.get(goodbye.checked_sub(1)?)?;
        Some(first.clone())
    });
    assert!(said.coverage.gaps.is_empty(), "{said:#?}");
    assert!(said.touched.is_empty(), "{said:#?}");
    world.check();
}

/// A small root whose agent is content.
fn watched() -> (World, PathBuf, Agent) {
    let world = World::start();
    let root = roots::small(&world.path("root"));
    settle(&root);
    world.image(&root, "base", "1.0", &[]);
    let agent = world.agent("web-1", &root);
    world.wait_for_status("web-1", "pristine");
    (world, root, agent)
}

/// Files that changed within the last moments are read again whatever an index says.
fn settle(root: &Path) {
    let newest = root.join("usr/bin/tool-39");
    eventually("the root to be a little older", LATER, || {
        let age = fs::metadata(&newest)
            .ok()?
            .modified()
            .ok()?
            .elapsed()
            .ok()?;
        (age.as_millis() > 100).then_some(())
    });
}

/// Another content and the old one again, modification time included, later than anything that was signed.
fn put_back(file: &Path) {
    let modified = || {
        let now = fs::metadata(file).expect("the file");
        now.modified().expect("its time")
    };
    let (began, old) = (SystemTime::now(), fs::read(file).expect("the file"));
    let time = modified();
    eventually("an inode that changed since", SOON, || {
        fs::write(file, "#!/bin/EVIL\n").expect("a change");
        fs::write(file, &old).expect("the old content");
        // The kernel's clock for inodes may be some milliseconds behind.
        let since = modified() > began;
        let opened = fs::OpenOptions::new().write(true).open(file);
        opened
            .and_then(|opened| opened.set_modified(time))
            .expect("the old time");
        since.then_some(())
    });
}

fn baseline(agent: &Agent) -> Value {
    eventually("a baseline", LATER, || {
        let baseline = agent.status()?["baseline"].clone();
        baseline.is_object().then_some(baseline)
    })
}

fn statement_read(agent: &Agent) -> Value {
    agent.status().expect("a status")["read"].clone()
}

fn index(agent: &Agent) -> Option<PathBuf> {
    let mut files = fs::read_dir(agent.state().join("index")).ok()?;
    files
        .find_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_none())
}
