//! Each rung, on each kind of file system that it is for: what it tells, and what it says that it does not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::tests_beside::{Image, Mounted, report};
use super::*;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn watch_from(path: &Path, highest: Rung) -> Watch {
    let scope = Scope::sealed_all();
    let root = Root::open(path, &scope).unwrap();
    Watch::start_from(&root, path, &scope, &Attribution::default(), highest).unwrap()
}

/// Gathers until these paths were told: what happened at each, and by whom.
#[track_caller]
fn expect(watch: &Watch, expected: &[&str]) -> BTreeMap<String, (EventSet, u32)> {
    expect_until(watch, |told| {
        expected.iter().all(|path| told.contains_key(*path))
    })
}

/// Gathers until what was told in all is enough.
#[track_caller]
fn expect_until(
    watch: &Watch,
    is_enough: impl Fn(&BTreeMap<String, (EventSet, u32)>) -> bool,
) -> BTreeMap<String, (EventSet, u32)> {
    let mut all: BTreeMap<String, (EventSet, u32)> = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_enough(&all) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "no more is told than {all:?}");
        let taken = watch.take(left);
        assert_eq!(taken.lost, None);
        for place in taken.places {
            let path = String::from_utf8_lossy(place.path.as_bytes()).into_owned();
            let told = all.entry(path).or_insert((EventSet::empty(), 0));
            told.0 |= place.events;
            told.1 = place.actor.map_or(0, |actor| actor.pid);
        }
    }
    all
}

fn limits_with(watch: &Watch, text: &str) -> usize {
    let limits = watch.coverage().limits;
    limits.iter().filter(|limit| limit.contains(text)).count()
}

/// Writes to a file whose name is known everywhere, and expects to be named for it. What is told first may be the rest of an
/// earlier write: the end of writing alone.
#[track_caller]
fn a_write_is_told(watch: &Watch, root: &Path) {
    fs::write(root.join("file"), b"changed").unwrap();
    let own = std::process::id();
    expect_until(watch, |told| {
        told.get("file")
            .is_some_and(|(events, pid)| events.contains(EventSet::MODIFY) && *pid == own)
    });
}

#[test]
fn rung_b_tells_both_names_of_a_rename_and_of_a_directory_what_is_below() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("old/sub")).unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    let watch = watch_from(dir.path(), Rung::B);
    assert_eq!(watch.coverage().rung, Rung::B);
    assert_eq!(limits_with(&watch, "without the file that it is of"), 1);
    a_write_is_told(&watch, dir.path());
    fs::rename(dir.path().join("file"), dir.path().join("old/file")).unwrap();
    let told = expect(&watch, &["file", "old/file"]);
    assert!(
        told.values()
            .all(|(events, _)| events.contains(EventSet::RENAME))
    );
    fs::rename(dir.path().join("old"), dir.path().join("new")).unwrap();
    expect(&watch, &["old", "new"]);
    fs::write(dir.path().join("new/sub/after"), b"x").unwrap();
    expect(&watch, &["new/sub/after"]);
    fs::remove_file(dir.path().join("new/file")).unwrap();
    let told = expect(&watch, &["new/file"]);
    assert!(told["new/file"].0.contains(EventSet::DELETE));
}

#[test]
fn rung_c_tells_writes_by_path_and_through_other_mounts_by_inode() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    fs::write(dir.path().join("d/other"), b"x").unwrap();
    let watch = watch_from(dir.path(), Rung::C);
    assert_eq!(watch.coverage().rung, Rung::C);
    assert_eq!(limits_with(&watch, "found by rescans"), 1);
    a_write_is_told(&watch, dir.path());
    let elsewhere = TempDir::new().unwrap();
    let bind = ["--bind", dir.path().join("d").to_str().unwrap()].map(str::to_owned);
    let bind: Vec<&str> = bind.iter().map(String::as_str).collect();
    let Some(_mounted) = Mounted::new(&bind, elsewhere.path()) else {
        return;
    };
    fs::write(elsewhere.path().join("other"), b"y").unwrap();
    let ino =
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.path().join("d/other")).unwrap());
    let alias = report(&watch, |report| match report {
        Report::Inodes(aliased) => aliased.into_iter().find(|alias| alias.inode.ino == ino),
        _ => None,
    });
    assert_eq!(alias.actor.unwrap().pid, std::process::id());
}

/// By descriptors no event tells what a process runs: what was told of its exec must do, from its first write on.
#[test]
fn rung_c_names_the_program_that_wrote_and_not_the_one_that_started_it() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    let watch = watch_from(dir.path(), Rung::C);
    if !watch.attributed().followed {
        eprintln!("left out: processes are not followed here");
        return;
    }
    a_write_is_told(&watch, dir.path());
    for _ in 0..3 {
        let writer = Command::new("tee")
            .arg("-a")
            .arg(dir.path().join("file"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut writer = writer.unwrap();
        let mut input = writer.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"more").unwrap();
        let exe = fs::read_link(format!("/proc/{}/exe", writer.id())).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut told = Vec::new();
        while !told.iter().any(|actor: &Actor| actor.pid == writer.id()) {
            assert!(Instant::now() < deadline, "told only {told:?}");
            let taken = watch.take(Duration::from_secs(1));
            told.extend(taken.places.into_iter().filter_map(|place| place.actor));
        }
        let actor = told.iter().find(|actor| actor.pid == writer.id());
        let told = actor.unwrap().exe.clone().unwrap();
        assert!(told.ends_with(&*exe.to_string_lossy()), "{told}");
        drop(input);
        writer.wait().unwrap();
    }
}

/// A FIFO is never opened in a way that waits for somebody to write to it.
#[test]
fn rung_c_does_not_hang_at_a_fifo() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), b"x").unwrap();
    let watch = watch_from(dir.path(), Rung::C);
    let fifo = dir.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let both = fs::OpenOptions::new().read(true).write(true).open(&fifo);
    drop(std::io::Write::write(&mut both.unwrap(), b"x"));
    a_write_is_told(&watch, dir.path());
}

#[test]
fn an_overlay_is_watched_by_descriptors_and_its_upper_directory_by_handles() {
    if !is_root() {
        return;
    }
    let work = TempDir::new().unwrap();
    let at = |name: &str| work.path().join(name);
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(at(name)).unwrap();
    }
    for name in ["file", "gone", "moved"] {
        fs::write(at("lower").join(name), b"x").unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let Some(_mounted) = Mounted::new(&["-t", "overlay", "-o", &options, "none"], &at("root"))
    else {
        return;
    };
    let watch = watch_from(&at("root"), Rung::A);
    assert_eq!(watch.coverage().rung, Rung::C);
    a_write_is_told(&watch, &at("root"));
    a_write_is_told(&watch, &at("root"));
    fs::remove_file(at("root/gone")).unwrap();
    fs::rename(at("root/moved"), at("root/new")).unwrap();
    expect(&watch, &["gone", "moved", "new"]);
    let file = fs::OpenOptions::new().write(true).open(at("root/file"));
    file.unwrap().set_len(1).unwrap();
    expect(&watch, &["file"]);
    assert_eq!(super::tests_beside::is_heard(&at("root")), Rung::C);
}

#[test]
fn a_subvolume_of_btrfs_is_watched_from_its_top() {
    if !is_root() {
        return;
    }
    let work = TempDir::new().unwrap();
    let Some(image) = Image::new(&work.path().join("image"), &["mkfs.btrfs", "-qf"]) else {
        return;
    };
    let device = image.device.to_str().unwrap();
    let (top, root) = (work.path().join("top"), work.path().join("root"));
    fs::create_dir(&top).unwrap();
    fs::create_dir(&root).unwrap();
    let Some(top_mount) = Mounted::new(&[device], &top) else {
        return;
    };
    for name in ["@", "@home"] {
        let made = Command::new("btrfs")
            .args(["subvolume", "create"])
            .arg(top.join(name))
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success());
    }
    fs::create_dir(top.join("@/d")).unwrap();
    fs::write(top.join("@/d/known"), b"x").unwrap();
    let Some(_mounted) = Mounted::new(&["-o", "subvol=@", device], &root) else {
        return;
    };
    let watch = watch_from(&root, Rung::A);
    assert_eq!(watch.coverage().rung, Rung::A);
    a_write_is_told(&watch, &root);
    fs::write(top.join("@home/outside"), b"outside").unwrap();
    fs::write(top.join("@/d/known"), b"from the top").unwrap();
    let mut told = expect(&watch, &["d/known"]);
    // The end of the write before may come with it.
    told.remove("file");
    assert_eq!(told.len(), 1, "{told:?}");
    drop(watch);
    assert_eq!(super::tests_beside::is_heard(&root), Rung::A);
    drop(top_mount);
}

#[test]
fn read_only_roots_are_watched_and_said_to_be_untested() {
    if !is_root() {
        return;
    }
    let work = TempDir::new().unwrap();
    let (tree, root) = (work.path().join("tree"), work.path().join("root"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(tree.join("file"), b"x").unwrap();
    let images: [(&str, Vec<&Path>); 2] = [
        (
            "mksquashfs",
            vec![&tree, Path::new("IMAGE"), Path::new("-quiet")],
        ),
        ("mkfs.erofs", vec![Path::new("IMAGE"), &tree]),
    ];
    for (program, arguments) in images {
        let image = work.path().join(program);
        let arguments = arguments.into_iter().map(|argument| {
            if argument == Path::new("IMAGE") {
                &image
            } else {
                argument
            }
        });
        let made = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no {program} here");
            continue;
        }
        let Some(_mounted) = Mounted::new(&["-o", "loop,ro", image.to_str().unwrap()], &root)
        else {
            continue;
        };
        let watch = watch_from(&root, Rung::A);
        assert_eq!(watch.coverage().rung, Rung::A, "{program}");
        let deadline = Instant::now() + Duration::from_secs(10);
        while limits_with(&watch, "read-only") != 1 {
            assert!(Instant::now() < deadline, "{:?}", watch.coverage());
            drop(watch.take(Duration::from_millis(20)));
        }
    }
}

#[test]
fn a_new_hard_link_to_a_file_is_told_by_its_inode() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("sealed"), b"x").unwrap();
    let ino = std::os::unix::fs::MetadataExt::ino(&fs::metadata(root.join("sealed")).unwrap());
    for rung in [Rung::A, Rung::B] {
        let watch = watch_from(&root, rung);
        let outside = dir.path().join(format!("outside-{rung}"));
        fs::hard_link(root.join("sealed"), &outside).unwrap();
        let alias = report(&watch, |report| match report {
            Report::Inodes(aliased) => aliased.into_iter().find(|alias| alias.inode.ino == ino),
            _ => None,
        });
        assert!(alias.events.contains(EventSet::ATTRIB));
        assert_eq!(alias.actor.unwrap().pid, std::process::id());
    }
}
