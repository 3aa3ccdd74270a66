#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use attestation::scope::{Expect, Rule};
use attestation::statement::Rung;
use tempfile::TempDir;

use super::*;
use crate::scan::{Progress, ScanOptions};

struct World {
    dir: TempDir,
    root: Root,
    watch: Watch,
}

impl World {
    /// A directory made ready by `prepare`, watched from then on; nothing where fanotify is refused.
    fn new(rules: &[(&str, Expect)], prepare: impl FnOnce(&Path)) -> Option<Self> {
        let world = Self::any(rules, prepare);
        if world.watch.coverage().rung != Rung::A {
            eprintln!("skipped: {:?}", world.watch.coverage());
            return None;
        }
        Some(world)
    }

    fn any(rules: &[(&str, Expect)], prepare: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().unwrap();
        prepare(dir.path());
        let (scope, root) = scope_and_root(dir.path(), rules);
        let watch = Watch::start(&root, dir.path(), &scope, &Attribution::default()).unwrap();
        Self { dir, root, watch }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gathers places until all of these were told, merged by path.
    fn expect(&self, expected: &[&str]) -> BTreeMap<String, Place> {
        let mut all: BTreeMap<String, Place> = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !expected.iter().all(|name| all.contains_key(*name)) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "told {all:#?}, expected {expected:?}");
            let taken = self.watch.take(left);
            assert_eq!(taken.lost, None);
            merge(&mut all, taken.places);
        }
        // What belongs to the same change comes within one pause of the reader.
        merge(&mut all, self.watch.take(Duration::from_millis(30)).places);
        all
    }

    /// Waits until the file is told by its name, or by its inode where the name it was opened under had gone.
    fn expect_inode(&self, name: &str, ino: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing was told of {name}");
            let taken = self.watch.take(left);
            assert_eq!(taken.lost, None);
            let named = |place: &Place| place.path.as_bytes() == name.as_bytes();
            let meant = |report: &Report| match report {
                Report::Inodes(aliased) => aliased.iter().any(|alias| alias.inode.ino == ino),
                _ => false,
            };
            if taken.places.iter().any(named) || taken.reports.iter().any(meant) {
                return;
            }
        }
    }

    /// Does something that is told last of all, so that whatever was told before has been taken with it.
    fn told_until_mark(&self) -> BTreeMap<String, Place> {
        fs::write(self.at("mark"), b"").unwrap();
        let mut all = self.expect(&["mark"]);
        all.remove("mark");
        all
    }
}

fn scope_and_root(path: &Path, rules: &[(&str, Expect)]) -> (Scope, Root) {
    let rule = |(glob, expect): &(&str, Expect)| Rule {
        r#match: (*glob).into(),
        expect: *expect,
        time: false,
    };
    let scope = Scope::new(rules.iter().map(rule).collect()).unwrap();
    let root = Root::open(path, &scope).unwrap();
    (scope, root)
}

fn merge(all: &mut BTreeMap<String, Place>, places: Vec<Place>) {
    for place in places {
        let name = String::from_utf8_lossy(place.path.as_bytes()).into_owned();
        match all.get_mut(&name) {
            Some(known) => {
                known.events |= place.events;
                known.subtree |= place.subtree;
                known.count += place.count;
                known.actor = place.actor;
            }
            None => drop(all.insert(name, place)),
        }
    }
}

fn has(places: &BTreeMap<String, Place>, name: &str, events: EventSet) -> bool {
    places[name].events.contains(events)
}

#[test]
fn create_write_and_close_are_one_place_with_its_actor() {
    let Some(world) = World::new(&[], |_| {}) else {
        return;
    };
    fs::write(world.at("new\nname"), b"x").unwrap();
    let places = world.expect(&["new\nname"]);
    assert!(has(
        &places,
        "new\nname",
        EventSet::CREATE | EventSet::MODIFY | EventSet::CLOSE_WRITE
    ));
    let actor = places["new\nname"].actor.as_ref().unwrap();
    assert_eq!(actor.pid, std::process::id());
    assert!(actor.exe.is_some());
    assert_eq!(places.len(), 1);
}

#[test]
fn writes_in_every_form_are_told() {
    let Some(world) = World::new(&[], |dir| {
        for name in [
            "written",
            "appended",
            "truncated",
            "opened",
            "cut",
            "mapped",
        ] {
            fs::write(dir.join(name), b"0123456789").unwrap();
        }
    }) else {
        return;
    };
    fs::OpenOptions::new()
        .write(true)
        .open(world.at("written"))
        .unwrap()
        .write_at(b"x", 3)
        .unwrap();
    std::io::Write::write_all(
        &mut fs::OpenOptions::new()
            .append(true)
            .open(world.at("appended"))
            .unwrap(),
        b"x",
    )
    .unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(world.at("truncated"))
        .unwrap()
        .set_len(3)
        .unwrap();
    drop(
        fs::OpenOptions::new()
            .write(true)
            .open(world.at("opened"))
            .unwrap(),
    );
    assert!(
        Command::new("truncate")
            .args(["-s", "5"])
            .arg(world.at("cut"))
            .status()
            .unwrap()
            .success()
    );
    let places = world.expect(&["written", "appended", "truncated", "opened", "cut"]);
    for name in ["written", "appended", "truncated", "cut"] {
        assert!(has(&places, name, EventSet::MODIFY), "{name}");
    }
    assert_eq!(places["opened"].events, EventSet::CLOSE_WRITE);
}

#[test]
fn a_rename_is_told_at_both_names() {
    let Some(world) = World::new(&[], |dir| {
        fs::create_dir(dir.join("d")).unwrap();
        for name in ["a", "b", "x", "y"] {
            fs::write(dir.join(name), name).unwrap();
        }
    }) else {
        return;
    };
    fs::rename(world.at("a"), world.at("d/b")).unwrap();
    fs::rename(world.at("b"), world.at("d/b")).unwrap();
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        world.at("x"),
        rustix::fs::CWD,
        world.at("y"),
        flags,
    )
    .unwrap();
    let places = world.expect(&["a", "b", "d/b", "x", "y"]);
    for name in ["a", "b", "d/b", "x", "y"] {
        assert!(has(&places, name, EventSet::RENAME), "{name}");
        assert!(!places[name].subtree);
    }
}

#[test]
fn links_and_removals_are_told() {
    let Some(world) = World::new(&[], |dir| {
        fs::write(dir.join("file"), b"").unwrap();
        fs::write(dir.join("gone"), b"").unwrap();
    }) else {
        return;
    };
    fs::hard_link(world.at("file"), world.at("second")).unwrap();
    fs::remove_file(world.at("gone")).unwrap();
    let places = world.expect(&["second", "gone"]);
    assert!(has(&places, "second", EventSet::CREATE));
    assert!(has(&places, "gone", EventSet::DELETE));
}

#[test]
fn an_unnamed_file_that_gets_a_name_is_told_under_it() {
    let Some(world) = World::new(&[], |_| {}) else {
        return;
    };
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::open(world.dir.path(), flags, rustix::fs::Mode::RUSR).unwrap();
    rustix::io::write(&file, b"x").unwrap();
    let proc_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(
        rustix::fs::CWD,
        proc_path,
        rustix::fs::CWD,
        world.at("named"),
        follow,
    )
    .unwrap();
    let places = world.expect(&["named"]);
    assert!(has(&places, "named", EventSet::CREATE));
}

#[test]
fn changes_of_attributes_are_told() {
    let Some(world) = World::new(&[], |dir| {
        fs::create_dir(dir.join("dir")).unwrap();
        for name in ["mode", "times", "xattr", "owner"] {
            fs::write(dir.join(name), b"").unwrap();
        }
    }) else {
        return;
    };
    fs::set_permissions(world.at("mode"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(world.at("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    let times = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH)
        .set_accessed(std::time::UNIX_EPOCH);
    fs::File::open(world.at("times"))
        .unwrap()
        .set_times(times)
        .unwrap();
    rustix::fs::setxattr(
        world.at("xattr"),
        "user.x",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    std::os::unix::fs::chown(world.at("owner"), Some(1), Some(1)).unwrap();
    let places = world.expect(&["mode", "dir", "times", "xattr", "owner"]);
    for name in ["mode", "dir", "times", "xattr", "owner"] {
        assert!(has(&places, name, EventSet::ATTRIB), "{name}");
    }
    assert!(!places["dir"].subtree);
}

#[test]
fn the_root_itself_is_a_place() {
    let Some(world) = World::new(&[], |_| {}) else {
        return;
    };
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    assert!(has(&world.expect(&[""]), "", EventSet::ATTRIB));
}

#[test]
fn a_directory_that_comes_goes_or_moves_is_told_with_what_is_below() {
    let Some(world) = World::new(&[], |dir| fs::create_dir_all(dir.join("old/sub")).unwrap())
    else {
        return;
    };
    fs::write(world.at("old/sub/before"), b"").unwrap();
    world.expect(&["old/sub/before"]);
    fs::rename(world.at("old"), world.at("new")).unwrap();
    let places = world.expect(&["old", "new"]);
    assert!(places["old"].subtree && places["new"].subtree);
    fs::write(world.at("new/sub/after"), b"").unwrap();
    assert!(
        world
            .expect(&["new/sub/after"])
            .contains_key("new/sub/after")
    );
    fs::create_dir(world.at("made")).unwrap();
    assert!(world.expect(&["made"])["made"].subtree);
    fs::remove_dir_all(world.at("new")).unwrap();
    let places = world.expect(&["new"]);
    assert!(places["new"].subtree && has(&places, "new", EventSet::DELETE));
}

#[test]
fn a_directory_brought_in_from_outside_is_told_and_one_taken_out_as_well() {
    let Some(world) = World::new(&[], |_| {}) else {
        return;
    };
    let outside = TempDir::new_in(world.dir.path().parent().unwrap()).unwrap();
    fs::create_dir(outside.path().join("in")).unwrap();
    fs::write(outside.path().join("in/file"), b"").unwrap();
    fs::rename(outside.path().join("in"), world.at("in")).unwrap();
    assert!(world.expect(&["in"])["in"].subtree);
    fs::rename(world.at("in"), outside.path().join("out")).unwrap();
    assert!(world.expect(&["in"])["in"].subtree);
    fs::write(outside.path().join("out/file"), b"x").unwrap();
    assert!(world.told_until_mark().is_empty());
}

#[test]
fn what_happens_outside_or_is_ignored_is_not_told() {
    let rules = [
        ("log/**", Expect::Ignored),
        ("log/keep/**", Expect::Sealed),
        ("tmp", Expect::Ignored),
    ];
    let Some(world) = World::new(&rules, |dir| {
        fs::create_dir_all(dir.join("log/keep")).unwrap();
        fs::create_dir_all(dir.join("tmp/deep")).unwrap();
    }) else {
        return;
    };
    let outside = TempDir::new_in(world.dir.path().parent().unwrap()).unwrap();
    for turn in 0..3 {
        fs::write(outside.path().join("file"), b"x").unwrap();
        fs::write(world.at("tmp/deep/file"), b"x").unwrap();
        fs::write(world.at("log/line"), b"x").unwrap();
        assert!(world.told_until_mark().is_empty(), "turn {turn}");
    }
    fs::write(world.at("log/keep/file"), b"x").unwrap();
    assert_eq!(world.expect(&["log/keep/file"]).len(), 1);
    fs::set_permissions(world.at("log"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(has(&world.expect(&["log"]), "log", EventSet::ATTRIB));
}

#[test]
fn an_ignored_directory_that_is_moved_into_scope_is_heard_from_then_on() {
    let rules = [("tmp", Expect::Ignored)];
    let Some(world) = World::new(&rules, |dir| fs::create_dir_all(dir.join("tmp/d")).unwrap())
    else {
        return;
    };
    fs::write(world.at("tmp/d/file"), b"x").unwrap();
    assert!(world.told_until_mark().is_empty());
    fs::rename(world.at("tmp/d"), world.at("d")).unwrap();
    assert!(world.expect(&["d"])["d"].subtree);
    fs::write(world.at("d/file"), b"y").unwrap();
    world.expect(&["d/file"]);
}

#[test]
fn a_directory_made_in_an_ignored_one_is_heard_once_it_is_in_scope() {
    let Some(world) = World::new(&[("tmp", Expect::Ignored)], |dir| {
        fs::create_dir(dir.join("tmp")).unwrap();
    }) else {
        return;
    };
    // From here on it is known that nothing there is of interest.
    fs::write(world.at("tmp/other"), b"x").unwrap();
    assert!(world.told_until_mark().is_empty());
    fs::create_dir_all(world.at("tmp/stays/deep")).unwrap();
    fs::write(world.at("tmp/stays/deep/file"), b"x").unwrap();
    assert!(world.told_until_mark().is_empty());
    for turn in 0..50 {
        let (there, here) = (format!("tmp/{turn}"), format!("{turn}"));
        fs::create_dir_all(world.at(&there).join("deep")).unwrap();
        fs::write(world.at(&there).join("deep/before"), b"x").unwrap();
        fs::rename(world.at(&there), world.at(&here)).unwrap();
        let after = format!("{here}/deep/after");
        fs::write(world.at(&after), b"x").unwrap();
        assert!(world.expect(&[&here, &after])[&here].subtree);
    }
}

#[test]
fn a_write_through_a_name_that_came_and_went_elsewhere_is_told() {
    let Some(world) = World::new(&[("tmp", Expect::Ignored)], |dir| {
        fs::create_dir(dir.join("tmp")).unwrap();
        fs::write(dir.join("sealed"), b"x").unwrap();
    }) else {
        return;
    };
    // From here on what happens there is let go of as soon as it is read.
    fs::write(world.at("tmp/other"), b"x").unwrap();
    assert!(world.told_until_mark().is_empty());
    for turn in 0..50 {
        fs::hard_link(world.at("sealed"), world.at("tmp/alias")).unwrap();
        fs::write(world.at("tmp/alias"), turn.to_string()).unwrap();
        fs::remove_file(world.at("tmp/alias")).unwrap();
        let ino = std::os::unix::fs::MetadataExt::ino(&fs::metadata(world.at("sealed")).unwrap());
        world.expect_inode("sealed", ino);
    }
}

#[test]
fn a_write_through_another_name_is_told_at_the_sealed_one() {
    let rules = [("tmp", Expect::Ignored)];
    let Some(world) = World::new(&rules, |dir| {
        fs::create_dir(dir.join("tmp")).unwrap();
        fs::write(dir.join("sealed"), b"x").unwrap();
        fs::write(dir.join("sealed-too"), b"x").unwrap();
        fs::hard_link(dir.join("sealed"), dir.join("tmp/alias")).unwrap();
    }) else {
        return;
    };
    let scope = Scope::new(vec![Rule {
        r#match: "tmp".into(),
        expect: Expect::Ignored,
        time: false,
    }])
    .unwrap();
    crate::scan::scan(
        &world.root,
        &scope,
        &ScanOptions::default(),
        &Progress::new(),
        &|_| {},
    )
    .unwrap();
    for _ in 0..2 {
        fs::write(world.at("tmp/other"), b"x").unwrap();
        fs::write(world.at("tmp/alias"), b"y").unwrap();
        let places = world.expect(&["sealed"]);
        assert!(has(&places, "sealed", EventSet::MODIFY));
        assert_eq!(places.len(), 1);
    }
}

#[test]
fn a_write_through_a_bind_mount_comes_with_our_path() {
    let Some(world) = World::new(&[], |dir| fs::create_dir(dir.join("d")).unwrap()) else {
        return;
    };
    let elsewhere = TempDir::new().unwrap();
    let mount = Command::new("mount")
        .arg("--bind")
        .arg(world.at("d"))
        .arg(elsewhere.path())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no bind mounts here");
        return;
    }
    let written = fs::write(elsewhere.path().join("file"), b"x");
    assert!(
        Command::new("umount")
            .arg(elsewhere.path())
            .status()
            .unwrap()
            .success()
    );
    written.unwrap();
    world.expect(&["d/file"]);
}

#[test]
fn a_mount_is_told() {
    let Some(world) = World::new(&[], |dir| fs::create_dir(dir.join("d")).unwrap()) else {
        return;
    };
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(world.at("d"))
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mounts here");
        return;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = false;
    while !told && Instant::now() < deadline {
        told = world.watch.take(Duration::from_secs(1)).mounts_changed;
    }
    assert!(
        Command::new("umount")
            .arg(world.at("d"))
            .status()
            .unwrap()
            .success()
    );
    assert!(told);
}

#[test]
fn a_storm_of_small_files_and_its_removal_is_told_without_loss() {
    let Some(world) = World::new(&[], |dir| fs::create_dir(dir.join("d")).unwrap()) else {
        return;
    };
    for number in 0..3_000 {
        fs::write(world.at(&format!("d/{number}")), b"x").unwrap();
    }
    fs::remove_dir_all(world.at("d")).unwrap();
    let names: Vec<_> = (0..3_000).map(|number| format!("d/{number}")).collect();
    let mut all = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    // Files in a directory that is gone may be told by the directory alone.
    while !all.contains_key("d") {
        assert!(Instant::now() < deadline);
        let taken = world.watch.take(Duration::from_secs(1));
        assert_eq!(taken.lost, None);
        merge(&mut all, taken.places);
    }
    let d = &all["d"];
    assert!(d.subtree && d.events.contains(EventSet::DELETE));
    assert!(all.keys().all(|name| name == "d" || names.contains(name)));
}

/// An inode number that is just being given to a new file reads back as ENOMEM, which is neither a loss nor a lack.
#[test]
fn handles_of_numbers_that_are_used_again_are_no_loss() {
    let Some(world) = World::new(&[], |_| {}) else {
        return;
    };
    let end = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let dir = world.at(&format!("busy{writer}"));
            scope.spawn(move || {
                while Instant::now() < end {
                    fs::create_dir_all(dir.join("below")).unwrap();
                    fs::write(dir.join("below/file"), b"x").unwrap();
                    fs::remove_dir_all(&dir).unwrap();
                }
            });
        }
        while Instant::now() < end {
            assert_eq!(world.watch.take(Duration::from_millis(10)).lost, None);
        }
    });
}

#[test]
fn a_quiet_watch_tells_within_milliseconds() {
    let Some(world) = World::new(&[], |dir| fs::write(dir.join("file"), b"").unwrap()) else {
        return;
    };
    let file = fs::OpenOptions::new()
        .write(true)
        .open(world.at("file"))
        .unwrap();
    let mut waits = Vec::new();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(12));
        let started = Instant::now();
        file.write_at(b"x", 0).unwrap();
        // Mounts of other tests are told as well.
        let mut places = Vec::new();
        while places.is_empty() {
            assert!(started.elapsed() < Duration::from_secs(5));
            places = world.watch.take(Duration::from_secs(5)).places;
        }
        waits.push(started.elapsed());
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].path.as_bytes(), b"file");
    }
    waits.sort();
    println!(
        "event to take: median {:?}, 90th percentile {:?}",
        waits[25], waits[45]
    );
    assert!(waits[25] < Duration::from_millis(20));
}

#[test]
fn a_waker_ends_the_wait() {
    let world = World::any(&[], |_| {});
    let waker = world.watch.waker();
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !world.watch.take(Duration::from_secs(1)).woken {
            assert!(Instant::now() < deadline);
        }
    });
}

#[test]
fn without_fanotify_inotify_tells_places_and_says_what_it_does_not() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("old/sub")).unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    fs::write(dir.path().join("old/file"), b"").unwrap();
    let (scope, root) = scope_and_root(dir.path(), &[("tmp", Expect::Ignored)]);
    let board = Arc::new(Board::default());
    let refused = std::io::Error::from_raw_os_error(libc::EPERM);
    let canaries = Arc::default();
    let watch = NotifyWatch::start(&root, dir.path(), &scope, &board, &canaries, &refused).unwrap();
    let watch = Watch::beside(&root, board, &canaries, Mechanism::Notify(watch)).unwrap();
    let world = World { dir, root, watch };
    let coverage = world.watch.coverage();
    assert_eq!(coverage.rung, Rung::D);
    assert!(
        coverage
            .limits
            .iter()
            .any(|limit| limit == "no process is named")
    );

    let deadline = Instant::now() + Duration::from_secs(20);
    while !world.watch.lookout.has_heard() {
        assert!(Instant::now() < deadline, "{:?}", world.watch.coverage());
        assert!(
            world
                .watch
                .take(Duration::from_millis(50))
                .places
                .is_empty()
        );
    }
    fs::write(world.at("tmp/unheard"), b"x").unwrap();
    fs::write(world.at("old/file"), b"x").unwrap();
    let places = world.expect(&["old/file"]);
    assert!(has(&places, "old/file", EventSet::MODIFY) && places["old/file"].actor.is_none());
    assert!(!places.contains_key("tmp/unheard"));
    fs::create_dir_all(world.at("made/deep")).unwrap();
    assert!(world.expect(&["made"])["made"].subtree);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut heard = false;
    while !heard && Instant::now() < deadline {
        fs::write(world.at("made/deep/file"), b"x").unwrap();
        heard = world
            .watch
            .take(Duration::from_millis(100))
            .places
            .iter()
            .any(|place| place.path.as_bytes() == b"made/deep/file");
    }
    assert!(heard);
    fs::rename(world.at("old"), world.at("new")).unwrap();
    let places = world.expect(&["old", "new"]);
    assert!(places["old"].subtree && places["new"].subtree);
    fs::remove_file(world.at("new/file")).unwrap();
    assert!(has(
        &world.expect(&["new/file"]),
        "new/file",
        EventSet::DELETE
    ));
}
