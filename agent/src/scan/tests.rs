#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use attestation::digest::Digest;
use attestation::entry::{Kind, XattrValue};
use attestation::scope::{Expect, Rule};
use tempfile::TempDir;

use super::*;

const SEALED: Decision = Decision {
    expect: Expect::Sealed,
    time: false,
};

fn rule(glob: &str, expect: Expect) -> Rule {
    Rule {
        r#match: glob.into(),
        expect,
        time: false,
    }
}

fn path(raw: &[u8]) -> ImagePath {
    ImagePath::from_bytes(raw).unwrap()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("skipped in part: `{program}` does not work here");
    }
    done
}

fn found_with(
    root: &Root,
    scope: &Scope,
    threads: usize,
    wanted: &Wanted<'_>,
) -> BTreeMap<ImagePath, Reading> {
    let all = Mutex::new(BTreeMap::new());
    let progress = Progress::new();
    let summary = scan_wanted(
        root,
        scope,
        &ImagePath::root(),
        &ScanOptions {
            threads,
            ..ScanOptions::default()
        },
        &progress,
        wanted,
        &|found| {
            let twice = all
                .lock()
                .unwrap()
                .insert(found.path.clone(), found.reading);
            assert!(twice.is_none(), "{} twice", found.path);
        },
    )
    .unwrap();
    assert_eq!(summary.entries, progress.entries());
    assert_eq!(summary.bytes, progress.bytes());
    all.into_inner().unwrap()
}

fn found(root: &Root) -> BTreeMap<ImagePath, Reading> {
    found_with(root, &Scope::sealed_all(), 2, &|_, _| true)
}

fn open(directory: &Path) -> Root {
    Root::open(directory, &Scope::sealed_all()).unwrap()
}

fn entry(reading: &Reading) -> &Entry {
    match reading {
        Reading::Entry(entry, _) => entry,
        other => panic!("not an entry: {other:?}"),
    }
}

fn sha256(reading: &Reading) -> Option<Digest> {
    match &entry(reading).kind {
        Kind::File { sha256, .. } => *sha256,
        other => panic!("not a file: {other:?}"),
    }
}

#[test]
fn every_type_is_found_and_none_is_opened_that_should_not_be() {
    let dir = TempDir::new().unwrap();
    let at = |name: &[u8]| dir.path().join(OsStr::from_bytes(name));
    fs::write(at(b"file"), b"content").unwrap();
    fs::set_permissions(at(b"file"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(at(b"new\nline \xff\\"), b"").unwrap();
    fs::create_dir(at(b"dir")).unwrap();
    fs::set_permissions(at(b"dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(OsStr::from_bytes(b"no/where\n"), at(b"dir/link")).unwrap();
    let _socket = UnixListener::bind(at(b"dir/socket")).unwrap();
    assert!(run("mkfifo", &[at(b"dir/fifo").as_os_str()]));
    let device = is_root()
        && run(
            "mknod",
            &[
                at(b"dir/null").as_os_str(),
                "c".as_ref(),
                "1".as_ref(),
                "3".as_ref(),
            ],
        );

    let root = open(dir.path());
    let all = found(&root);
    assert_eq!(all.len(), 7 + usize::from(device));
    let file = entry(&all[&path(b"file")]);
    assert_eq!(
        (file.mode, sha256(&all[&path(b"file")])),
        (0o4755, Some(Digest::of(b"content")))
    );
    assert_eq!(
        sha256(&all[&path(b"new\nline \xff\\")]),
        Some(Digest::of(b""))
    );
    assert_eq!(entry(&all[&path(b"dir")]).mode, 0o1777);
    let link = entry(&all[&path(b"dir/link")]);
    assert_eq!(
        (link.mode, &link.kind),
        (
            0o777,
            &Kind::Link {
                target: b"no/where\n".to_vec()
            }
        )
    );
    assert_eq!(entry(&all[&path(b"dir/socket")]).kind, Kind::Socket);
    assert_eq!(entry(&all[&path(b"dir/fifo")]).kind, Kind::Fifo);
    if device {
        assert_eq!(
            entry(&all[&path(b"dir/null")]).kind,
            Kind::Char { major: 1, minor: 3 }
        );
    }
    for (path, reading) in &all {
        let again = read_entry(&root, path, SEALED);
        assert_eq!(
            entry(reading).line().unwrap().as_str(),
            entry(&again).line().unwrap().as_str()
        );
    }
    assert!(matches!(
        read_entry(&root, &path(b"file/below"), SEALED),
        Reading::Absent
    ));
    assert!(matches!(
        read_entry(&root, &path(b"dir/link/below"), SEALED),
        Reading::Absent
    ));
    assert!(matches!(
        read_entry(&root, &path(b"nothing"), SEALED),
        Reading::Absent
    ));
}

#[test]
fn recorded_attributes_are_read_and_sorted() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let set = |name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("user.z", b"last");
    set("user.a", &[7; 2_000]);
    let capability = is_root() && run("setcap", &["cap_net_raw+ep".as_ref(), file.as_os_str()]);
    let acl = run(
        "setfacl",
        &["-m".as_ref(), "u:12345:r".as_ref(), file.as_os_str()],
    );
    if is_root() {
        set("trusted.secret", b"not recorded");
        let link = dir.path().join("link");
        symlink("target", &link).unwrap();
        rustix::fs::lsetxattr(&link, "trusted.link", b"x", rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    let all = found(&open(dir.path()));
    let names: Vec<_> = entry(&all[&path(b"file")])
        .xattrs
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let mut expected = vec![b"user.a".to_vec(), b"user.z".to_vec()];
    if acl {
        expected.insert(0, b"system.posix_acl_access".to_vec());
    }
    if capability {
        expected.insert(0, b"security.capability".to_vec());
    }
    assert_eq!(names, expected);
    let values = &entry(&all[&path(b"file")]).xattrs;
    assert_eq!(
        values[names.len() - 2].value,
        XattrValue::Hashed(Digest::of(&[7; 2_000]))
    );
    assert_eq!(
        values[names.len() - 1].value,
        XattrValue::Plain(b"last".to_vec())
    );
}

#[test]
fn the_attributes_of_a_link_are_its_own() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    symlink("nowhere", dir.path().join("link")).unwrap();
    let link = dir.path().join("link");
    let none = rustix::fs::XattrFlags::empty();
    if let Err(errno) = rustix::fs::lsetxattr(&link, "security.ima", b"x", none) {
        eprintln!("skipped: {errno}");
        return;
    }
    let all = found(&open(dir.path()));
    assert_eq!(entry(&all[&path(b"link")]).xattrs[0].name, b"security.ima");
}

#[test]
fn immutable_and_append_only_are_told() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    if !run("chattr", &["+ia".as_ref(), file.as_os_str()]) {
        return;
    }
    let all = found(&open(dir.path()));
    let flags = entry(&all[&path(b"file")]).flags;
    run("chattr", &["-ia".as_ref(), file.as_os_str()]);
    assert!(flags.immutable && flags.append_only);
}

#[test]
fn holes_are_hashed_without_being_read() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("sparse");
    let mut file = fs::File::create(&name).unwrap();
    file.write_all(b"begin").unwrap();
    file.set_len(40 * 1024 * 1024).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"middle", 20 * 1024 * 1024 + 123).unwrap();
    drop(file);
    let expected = Digest::of(&fs::read(&name).unwrap());
    assert_eq!(
        sha256(&found(&open(dir.path()))[&path(b"sparse")]),
        Some(expected)
    );
}

#[test]
fn content_that_is_not_wanted_is_left_out_however_large() {
    let dir = TempDir::new().unwrap();
    fs::File::create(dir.path().join("huge"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    fs::write(dir.path().join("small"), b"x").unwrap();
    let started = Instant::now();
    let root = open(dir.path());
    let wanted = |_: &ImagePath, size: u64| size <= 64 * 1024 * 1024;
    let all = found_with(&root, &Scope::sealed_all(), 2, &wanted);
    assert_eq!(
        entry(&all[&path(b"huge")]).kind,
        Kind::File {
            size: 1 << 40,
            sha256: None
        }
    );
    assert_eq!(sha256(&all[&path(b"small")]), Some(Digest::of(b"x")));
    assert!(matches!(
        read_entry_wanted(&root, &path(b"huge"), SEALED, &wanted, Manner::default()),
        Reading::Entry(
            Entry {
                kind: Kind::File { sha256: None, .. },
                ..
            },
            _
        )
    ));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_scan_can_be_stopped_within_a_file() {
    let dir = TempDir::new().unwrap();
    fs::File::create(dir.path().join("huge"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let root = open(dir.path());
    let progress = Progress::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            progress.stop();
        });
        let result = super::scan(
            &root,
            &Scope::sealed_all(),
            &ScanOptions {
                threads: 2,
                ..ScanOptions::default()
            },
            &progress,
            &|_| {},
        );
        assert!(matches!(result, Err(ScanError::Stopped)));
    });
}

#[test]
fn a_file_that_never_rests_is_unsettled() {
    let dir = TempDir::new().unwrap();
    let name = dir.path().join("busy");
    fs::write(&name, vec![0; 8 * 1024 * 1024]).unwrap();
    let root = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().write(true).open(&name).unwrap();
            let mut turn = 0_u8;
            while !done.load(Ordering::Relaxed) {
                turn = turn.wrapping_add(1);
                std::os::unix::fs::FileExt::write_at(&file, &[turn], 0).unwrap();
            }
        });
        let mut unsettled = false;
        for _ in 0..20 {
            unsettled |= matches!(
                read_entry(&root, &path(b"busy"), SEALED),
                Reading::Unsettled(..)
            );
        }
        done.store(true, Ordering::Relaxed);
        assert!(unsettled);
    });
    assert!(matches!(
        read_entry(&root, &path(b"busy"), SEALED),
        Reading::Entry(..)
    ));
}

#[test]
fn a_file_replaced_while_it_is_read_gives_one_of_the_two() {
    let dir = TempDir::new().unwrap();
    let (name, other) = (dir.path().join("file"), dir.path().join("other"));
    let contents = [vec![1; 300_000], vec![2; 300_001]];
    fs::write(&name, &contents[0]).unwrap();
    let root = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..200 {
                fs::write(&other, &contents[turn % 2]).unwrap();
                fs::rename(&other, &name).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let reading = read_entry(&root, &path(b"file"), SEALED);
            if matches!(reading, Reading::Unreadable { .. } | Reading::Unsettled(..)) {
                continue;
            }
            let digest = sha256(&reading).unwrap();
            assert!(contents.iter().any(|content| Digest::of(content) == digest));
        }
    });
}

#[test]
fn scope_decides_what_is_visited_and_where_to_descend() {
    let dir = TempDir::new().unwrap();
    for name in ["a/b/c", "d/e", "etc"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["a/x", "a/b/c/keep", "d/e/gone", "etc/machine-id"] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    let scope = Scope::new(vec![
        rule("a/**", Expect::Ignored),
        rule("a/b/c", Expect::Sealed),
        rule("d", Expect::Ignored),
        rule("etc/machine-id", Expect::Local),
    ])
    .unwrap();
    let root = Root::open(dir.path(), &scope).unwrap();
    let all = found_with(&root, &scope, 2, &|_, _| true);
    let paths: Vec<_> = all
        .keys()
        .map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned())
        .collect();
    assert_eq!(
        paths,
        ["", "a", "a/b/c", "a/b/c/keep", "etc", "etc/machine-id"]
    );
}

#[test]
fn a_subtree_can_be_scanned_alone() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    fs::write(dir.path().join("a/b/file"), b"").unwrap();
    fs::write(dir.path().join("other"), b"").unwrap();
    let root = open(dir.path());
    let below = |start: &[u8]| {
        let all = Mutex::new(BTreeMap::new());
        let options = ScanOptions {
            threads: 2,
            ..ScanOptions::default()
        };
        scan_below(
            &root,
            &Scope::sealed_all(),
            &path(start),
            &options,
            &Progress::new(),
            &|found| {
                all.lock().unwrap().insert(found.path, found.reading);
            },
        )
        .unwrap();
        all.into_inner().unwrap()
    };
    let keys = |all: &BTreeMap<ImagePath, Reading>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&below(b"a")),
        [path(b"a"), path(b"a/b"), path(b"a/b/file")]
    );
    assert_eq!(keys(&below(b"other")), [path(b"other")]);
    assert!(matches!(below(b"gone")[&path(b"gone")], Reading::Absent));
}

#[test]
fn a_large_directory_is_shared_and_nothing_is_missed() {
    let dir = TempDir::new().unwrap();
    for number in 0..5_000 {
        fs::write(
            dir.path().join(format!("file-{number}")),
            number.to_string(),
        )
        .unwrap();
    }
    let root = open(dir.path());
    for threads in [1, 2, 8] {
        assert_eq!(
            found_with(&root, &Scope::sealed_all(), threads, &|_, _| true).len(),
            5_001
        );
    }
}

#[test]
fn a_tree_deeper_than_a_path_may_be_is_told_as_such() {
    let dir = TempDir::new().unwrap();
    let mut at = rustix::fs::open(
        dir.path(),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let name = "n".repeat(200);
    for _ in 0..330 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&at, "side", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(
            &at,
            &name,
            rustix::fs::OFlags::PATH,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    let all = found(&open(dir.path()));
    let deep: Vec<_> = all
        .iter()
        .filter(|(_, reading)| matches!(reading, Reading::Unreadable { .. }))
        .collect();
    assert_eq!(deep.len(), 1);
    assert!(matches!(deep[0].1, Reading::Unreadable { error } if error == "depth"));
    let deepest = 65_535 / 201;
    assert_eq!(deep[0].0.as_bytes().len(), deepest * 201 - 1);
    assert!(all.len() > 2 * deepest);
    assert!(matches!(
        read_entry(&open(dir.path()), deep[0].0, SEALED),
        Reading::Entry(..)
    ));
    drop(at);
    // The ordinary removal by paths cannot reach so deep.
    run("rm", &["-rf".as_ref(), dir.path().as_os_str()]);
}

#[test]
fn more_attributes_than_can_be_listed_are_unreadable_or_too_long() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let mut set = 0;
    for number in 0..2_000 {
        let name = format!("user.{number:0>200}");
        match rustix::fs::lsetxattr(&file, name, b"x", rustix::fs::XattrFlags::empty()) {
            Ok(()) => set += 1,
            Err(_) => break,
        }
    }
    // Version 2 of a capability: its effective flag, then CAP_NET_RAW.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let named = is_root()
        && rustix::fs::lsetxattr(
            &file,
            "security.capability",
            &capability,
            rustix::fs::XattrFlags::empty(),
        )
        .is_ok();
    let all = found(&open(dir.path()));
    let reading = &all[&path(b"file")];
    if set * 201 > 65_536 {
        let Reading::Unreadable { error } = reading else {
            panic!("{reading:?}");
        };
        let word = "read by name: xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(error.ends_with(word), named, "{error}");
    } else if !named {
        assert_eq!(entry(reading).xattrs.len(), set);
    }
}

#[test]
fn what_lies_under_a_mount_is_read_as_it_is() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), b"below").unwrap();
    fs::write(at("cover"), b"above").unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/inner"), b"inner").unwrap();
    let root = open(dir.path());
    if !root.is_clone() {
        eprintln!("skipped: mounts cannot be cloned");
        return;
    }
    let mounted = run(
        "mount",
        &[
            "--bind".as_ref(),
            at("cover").as_os_str(),
            at("file").as_os_str(),
        ],
    ) && run(
        "mount",
        &[
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "covering".as_ref(),
            at("dir").as_os_str(),
        ],
    );
    let all = found(&root);
    let late = found(&open(dir.path()));
    let table = mount_table(dir.path()).unwrap();
    let scope = Scope::new(vec![rule("dir", Expect::Sealed)]).unwrap();
    fs::write(at("dir/own"), b"of the tmpfs").ok();
    let named = Root::open(dir.path(), &scope).unwrap();
    let with_mount = found_with(&named, &scope, 2, &|_, _| true);
    let own = read_entry(&named, &path(b"dir/own"), SEALED);
    run("umount", &[at("file").as_os_str()]);
    run("umount", &[at("dir").as_os_str()]);
    if !mounted {
        return;
    }
    for all in [all, late] {
        assert_eq!(sha256(&all[&path(b"file")]), Some(Digest::of(b"below")));
        assert_eq!(
            sha256(&all[&path(b"dir/inner")]),
            Some(Digest::of(b"inner"))
        );
    }
    assert_eq!(
        table
            .iter()
            .map(|mount| mount.path.clone())
            .collect::<Vec<_>>(),
        [path(b"dir"), path(b"file")]
    );
    assert_eq!(
        (table[0].fstype.as_str(), table[0].source.as_str()),
        ("tmpfs", "covering")
    );
    assert!(!with_mount.contains_key(&path(b"dir/inner")));
    assert_eq!(
        sha256(&with_mount[&path(b"dir/own")]),
        Some(Digest::of(b"of the tmpfs"))
    );
    assert_eq!(sha256(&own), Some(Digest::of(b"of the tmpfs")));
}

#[test]
fn the_root_is_not_led_astray_by_links() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/file"), b"").unwrap();
    symlink("real", dir.path().join("alias")).unwrap();
    symlink("/etc/passwd", dir.path().join("outside")).unwrap();
    let root = open(dir.path());
    assert!(matches!(
        read_entry(&root, &path(b"alias/file"), SEALED),
        Reading::Absent
    ));
    assert!(matches!(
        entry(&read_entry(&root, &path(b"outside"), SEALED)).kind,
        Kind::Link { .. }
    ));
    assert_eq!(found(&root).len(), 5);
}

#[test]
fn what_may_not_be_read_is_a_finding() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("secret"), b"").unwrap();
    fs::create_dir(dir.path().join("closed")).unwrap();
    fs::set_permissions(dir.path().join("secret"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let all = found(&open(dir.path()));
    if rustix::process::geteuid().is_root() {
        // Nothing is closed to root here; the walk as another user is a test of the whole program.
        assert!(
            all.values()
                .all(|reading| matches!(reading, Reading::Entry(..)))
        );
    } else {
        assert!(matches!(all[&path(b"secret")], Reading::Unreadable { .. }));
        assert!(matches!(all[&path(b"closed")], Reading::Unreadable { .. }));
    }
}

#[test]
fn names_of_one_file_are_known_to_belong_together() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("one"), b"").unwrap();
    fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
    let root = open(dir.path());
    found(&root);
    if root.links().is_empty() {
        eprintln!("skipped: no handles here");
        return;
    }
    assert_eq!(root.names_beside(&path(b"one")), [path(b"two")]);
}

fn content(reading: &Reading) -> Digest {
    match reading {
        Reading::Entry(entry, _) | Reading::Unsettled(entry, _) => match &entry.kind {
            Kind::File {
                sha256: Some(sha256),
                ..
            } => *sha256,
            other => panic!("no content: {other:?}"),
        },
        other => panic!("no entry: {other:?}"),
    }
}

#[test]
fn what_is_read_from_storage_is_what_was_written() {
    let from_storage = Manner {
        from_storage: true,
        writers: Writers::Always,
    };
    // The second is kept in memory: nothing lies below its pages.
    for folder in [std::env::temp_dir(), "/dev/shm".into()] {
        let scratch = tempfile::tempdir_in(folder).unwrap();
        let root = Root::open(scratch.path(), &Scope::sealed_all()).unwrap();
        let sizes = [0, 1, 511, 4096, 4097, 262_144, 262_145, 1_000_001];
        for size in sizes {
            let bytes: Vec<u8> = (0..size).map(|at: u32| (at % 251) as u8).collect();
            fs::write(scratch.path().join("file"), &bytes).unwrap();
            let read = read_entry_wanted(&root, &path(b"file"), SEALED, &|_, _| true, from_storage);
            assert_eq!(content(&read), Digest::of(&bytes), "{size}");
        }
        let sparse = fs::File::create(scratch.path().join("sparse")).unwrap();
        sparse.set_len(3_000_000).unwrap();
        std::os::unix::fs::FileExt::write_at(&sparse, b"in the middle", 1_500_001).unwrap();
        drop(sparse);
        let read = read_entry_wanted(&root, &path(b"sparse"), SEALED, &|_, _| true, from_storage);
        let plain = read_entry(&root, &path(b"sparse"), SEALED);
        assert_eq!(content(&read), content(&plain));
    }
}

#[test]
fn a_file_with_a_writer_is_unsettled_until_the_writer_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path(), &Scope::sealed_all()).unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "content").unwrap();
    let asked = |writers| {
        let manner = Manner {
            from_storage: false,
            writers,
        };
        let read = read_entry_wanted(&root, &path(b"file"), SEALED, &|_, _| true, manner);
        matches!(read, Reading::Unsettled(..))
    };
    let writer = fs::OpenOptions::new().write(true).open(&file).unwrap();
    assert!(asked(Writers::Recent) && asked(Writers::Always));
    assert!(!asked(Writers::Unasked));
    drop(writer);
    assert!(!asked(Writers::Recent) && !asked(Writers::Always));
    let reader = fs::File::open(&file).unwrap();
    assert!(!asked(Writers::Always));
    drop(reader);
}

#[test]
fn only_what_moved_is_read() {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path(), &Scope::sealed_all()).unwrap();
    fs::create_dir(scratch.path().join("d")).unwrap();
    for name in ["a", "b", "d/c"] {
        fs::write(scratch.path().join(name), name).unwrap();
    }
    let read = Mutex::new(Vec::new());
    let passed = Mutex::new(Vec::new());
    let unmoved = |path: &ImagePath, _: Decision, stat: &Surveyed| {
        let passes = path.as_bytes() != b"b" && path.as_bytes() != b"d";
        assert_eq!(stat.directory, path.is_root() || path.as_bytes() == b"d");
        if passes {
            passed.lock().unwrap().push(path.to_string());
        }
        passes
    };
    let summary = scan_moved(
        &root,
        &Scope::sealed_all(),
        &ScanOptions::default(),
        &Progress::new(),
        &unmoved,
        &|_, _| true,
        &|found| read.lock().unwrap().push(found.path.to_string()),
    )
    .unwrap();
    let sorted = |list: Mutex<Vec<String>>| {
        let mut list = list.into_inner().unwrap();
        list.sort();
        list
    };
    assert_eq!(sorted(read), ["./b", "./d"]);
    assert_eq!(sorted(passed), [".", "./a", "./d/c"]);
    assert_eq!((summary.entries, summary.bytes), (5, 1));
}

#[test]
fn small_files_are_heard_whole_while_they_are_read() {
    let scratch = tempfile::tempdir().unwrap();
    let root = Root::open(scratch.path(), &Scope::sealed_all()).unwrap();
    let long: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for (name, content) in [("a", &b"a"[..]), ("empty", b""), ("long", &long)] {
        fs::write(scratch.path().join(name), content).unwrap();
    }
    fs::File::create(scratch.path().join("hole"))
        .and_then(|hole| hole.set_len(200_000))
        .unwrap();
    fs::write(scratch.path().join("large"), vec![1; 2_000_000]).unwrap();
    let heard = Mutex::new(BTreeMap::new());
    let hear = |path: &ImagePath, content: &[u8]| {
        let before = heard
            .lock()
            .unwrap()
            .insert(path.to_string(), content.to_vec());
        assert!(before.is_none(), "{path} twice");
    };
    let hearer = Hearer {
        limit: 1_200_000,
        hear: &hear,
    };
    let summary = scan_heard(
        &root,
        &Scope::sealed_all(),
        &ScanOptions::default(),
        &Progress::new(),
        &|path, _| path.as_bytes() != b"a",
        Some(hearer),
        &|_| {},
    )
    .unwrap();
    assert_eq!(summary.entries, 6);
    let expected = [
        ("./hole".to_owned(), vec![0; 200_000]),
        ("./long".to_owned(), long),
    ];
    let heard = heard.into_inner().unwrap();
    assert_eq!(heard, BTreeMap::from(expected), "not what is not wanted");
}
