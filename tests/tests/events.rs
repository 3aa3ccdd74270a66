//! KERNEL.md section 2, row by row: every way to change a file that the kernel tells of in another manner is told as a difference,
//! with the doer, on each file system that has it.

use std::{fs, path::Path, process::Command};

use pristine_tests::{
    attested::has_no_gap,
    change::{Doer, by, change},
    disk::{Disk, Kind, mount, unmount},
    left_out_without_root,
    program::compiled,
    rows::Rows,
    sighting::{Sighting, added, content, difference, removed},
    wait::BY_EVENT,
    world::World,
};

/// One way to change something: `script` is Python, `told` what must come of it.
struct Row {
    name: &'static str,
    script: &'static str,
    told: &'static [Sighting<'static>],
    /// Only here; everywhere where it is empty.
    only: &'static [Kind],
}

const fn row(name: &'static str, script: &'static str, told: &'static [Sighting<'static>]) -> Row {
    Row {
        name,
        script,
        told,
        only: &[],
    }
}

const fn longer(path: &'static str, size: &'static str) -> Sighting<'static> {
    difference(
        path,
        &["size", "sha256digest"],
        Some("size=12288"),
        Some(size),
    )
}

const SHARING: &[Kind] = &[Kind::Xfs, Kind::Btrfs];

const ROWS: &[Row] = &[
    row(
        "create, write, close by one process",
        "write(b'rows/created', b'x')",
        &[added("./rows/created", "size=1")],
    ),
    row(
        "write",
        "fd = os.open(at(b'rows/write'), os.O_WRONLY); os.pwrite(fd, b'W', 5000); os.close(fd)",
        &[content("./rows/write")],
    ),
    row(
        "append",
        "fd = os.open(at(b'rows/append'), os.O_WRONLY | os.O_APPEND); os.write(fd, b'W'); os.close(fd)",
        &[longer("./rows/append", "size=12289")],
    ),
    row(
        "O_DIRECT",
        "import mmap
page = mmap.mmap(-1, 4096); page.write(b'D' * 4096)
fd = os.open(at(b'rows/direct'), os.O_WRONLY | os.O_DIRECT); os.pwrite(fd, page, 4096); os.close(fd)",
        &[content("./rows/direct")],
    ),
    row(
        "sendfile",
        "source, fd = os.open(at(b'blob'), os.O_RDONLY), os.open(at(b'rows/sendfile'), os.O_WRONLY)
os.sendfile(fd, source, 0, 4096); os.close(fd)",
        &[content("./rows/sendfile")],
    ),
    row(
        "splice",
        "source, fd = os.open(at(b'blob'), os.O_RDONLY), os.open(at(b'rows/splice'), os.O_WRONLY)
r, w = os.pipe(); os.splice(source, w, 4096); os.splice(r, fd, 4096); os.close(fd)",
        &[content("./rows/splice")],
    ),
    row(
        "copy_file_range",
        "source, fd = os.open(at(b'blob'), os.O_RDONLY), os.open(at(b'rows/copy_file_range'), os.O_WRONLY)
os.copy_file_range(source, fd, 4096); os.close(fd)",
        &[content("./rows/copy_file_range")],
    ),
    Row {
        name: "reflink",
        script: "import fcntl
source, fd = os.open(at(b'blob'), os.O_RDONLY), os.open(at(b'rows/reflink'), os.O_WRONLY)
fcntl.ioctl(fd, 0x40049409, source); os.close(fd)",
        told: &[content("./rows/reflink")],
        only: SHARING,
    },
    row(
        "truncate by path",
        "os.truncate(at(b'rows/truncate'), 5)",
        &[longer("./rows/truncate", "size=5 ")],
    ),
    row(
        "fallocate, the descriptor kept open",
        "fd = os.open(at(b'rows/fallocate'), os.O_WRONLY); os.posix_fallocate(fd, 0, 20000)",
        &[longer("./rows/fallocate", "size=20000")],
    ),
    row(
        "fallocate that punches a hole, the descriptor kept open",
        "fd = os.open(at(b'rows/hole'), os.O_WRONLY)
assert ctypes.CDLL(None, use_errno=True).fallocate(fd, 3, ctypes.c_long(4096), ctypes.c_long(4096)) == 0, ctypes.get_errno()",
        &[content("./rows/hole")],
    ),
    row(
        "rename over a file",
        "os.rename(at(b'rows/renamed'), at(b'rows/victim'))",
        &[removed("./rows/renamed"), content("./rows/victim")],
    ),
    row(
        "RENAME_EXCHANGE",
        "assert ctypes.CDLL(None).renameat2(-100, at(b'rows/one'), -100, at(b'rows/other'), 2) == 0",
        &[content("./rows/one"), content("./rows/other")],
    ),
    row(
        "rename of a directory with all that is in it",
        "os.rename(at(b'moved'), at(b'rows/moved'))",
        &[
            removed("./moved"),
            removed("./moved/below/file"),
            added("./rows/moved", "type=dir"),
            added("./rows/moved/below/file", "size=12288"),
        ],
    ),
    row(
        "link",
        "os.link(at(b'rows/link'), at(b'rows/linked'))",
        &[added("./rows/linked", "size=12288")],
    ),
    row(
        "write to a file by a name that it got while it was watched",
        "fd = os.open(at(b'rows/linked'), os.O_WRONLY); os.write(fd, b'W'); os.close(fd)",
        &[content("./rows/link")],
    ),
    row(
        "write to a file of two names, by one of them",
        "fd = os.open(at(b'rows/second'), os.O_WRONLY); os.write(fd, b'W'); os.close(fd)",
        &[content("./rows/first"), content("./rows/second")],
    ),
    row(
        "unlink",
        "os.unlink(at(b'rows/unlink'))",
        &[removed("./rows/unlink")],
    ),
    row(
        "a directory removed with all that is in it",
        "shutil.rmtree(at(b'gone'))",
        &[removed("./gone"), removed("./gone/below/file")],
    ),
    row(
        "O_TMPFILE and linkat",
        "fd = os.open(at(b'rows'), os.O_TMPFILE | os.O_WRONLY, 0o640); os.write(fd, b'unnamed')
libc(b'linkat', -100, b'/proc/self/fd/%d' % fd, -100, at(b'rows/named'), 0x400); os.close(fd)",
        &[added("./rows/named", "size=7")],
    ),
    row(
        "chmod",
        "os.chmod(at(b'rows/chmod'), 0o4755)",
        &[difference("./rows/chmod", &["mode"], Some("mode=0644"), Some("mode=4755"))],
    ),
    row(
        "chown",
        "os.chown(at(b'rows/chown'), 12, 34)",
        &[difference("./rows/chown", &["uid", "gid"], Some("uid=0 gid=0"), Some("uid=12 gid=34"))],
    ),
    row(
        "utimens, where the scope asks for times",
        "os.utime(at(b'timed/file'), ns=(1, 1500000000))",
        &[difference("./timed/file", &["time"], Some("time="), Some("time=1.500000000"))],
    ),
    row(
        "extended attribute",
        "os.setxattr(at(b'rows/xattr'), 'user.note', b'mine')",
        &[difference("./rows/xattr", &["xattr.user.note"], Some("type=file"), Some("xattr.user.note=bWluZQ=="))],
    ),
    row(
        "capability",
        "os.setxattr(at(b'rows/capability'), 'security.capability', struct.pack('<5I', 0x2000001, 1 << 10, 0, 0, 0))",
        &[difference(
            "./rows/capability",
            &["xattr.security.capability"],
            Some("type=file"),
            Some("xattr.security.capability="),
        )],
    ),
    row(
        "access control list",
        "none = 0xffffffff
acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *e) for e in
    [(1, 6, none), (2, 4, 33), (4, 4, none), (16, 4, none), (32, 4, none)])
os.setxattr(at(b'rows/acl'), 'system.posix_acl_access', acl)",
        &[difference(
            "./rows/acl",
            &["xattr.system.posix_acl_access"],
            Some("mode=0644"),
            Some("xattr.system.posix_acl_access="),
        )],
    ),
    row(
        "in another mount namespace, through a bind mount there",
        "libc(b'unshare', 0x20000)
libc(b'mount', None, b'/', None, 0x44000, None)
libc(b'mount', at(b'rows'), at(b'ignored/mnt'), None, 4096, None)
fd = os.open(at(b'ignored/mnt/namespace'), os.O_WRONLY); os.write(fd, b'W'); os.close(fd)
libc(b'umount2', at(b'ignored/mnt'), 2)",
        &[content("./rows/namespace")],
    ),
    row(
        "after pivot_root",
        "libc(b'unshare', 0x20000)
libc(b'mount', None, b'/', None, 0x44000, None)
libc(b'mount', R, R, None, 4096, None)
libc(b'syscall', 155, R, at(b'ignored/mnt'))
os.chdir('/')
fd = os.open(b'/rows/pivot', os.O_WRONLY); os.write(fd, b'W'); os.close(fd)",
        &[content("./rows/pivot")],
    ),
];

/// Files that no row's script names by `rows/NAME` as its first path.
const MORE_FILES: &[&str] = &[
    "rows/bind",
    "rows/link",
    "rows/pid",
    "rows/untouched",
    "rows/ring-inline",
    "rows/ring-async",
    "rows/ring-sqpoll",
    "moved/below/file",
    "gone/below/file",
    "timed/file",
    "ignored/mnt/nothing",
    "blob",
];

fn plant(root: &Path) {
    let named = ROWS
        .iter()
        .flat_map(|row| row.told)
        .filter(|told| told.expected.is_some() && told.path.starts_with("./rows/"))
        .map(|told| &told.path[2..])
        .filter(|path| *path != "rows/second");
    for (n, path) in named.chain(MORE_FILES.iter().copied()).enumerate() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, format!("{n:07}\n").repeat(12_288 / 8)).expect("a file");
    }
    fs::hard_link(root.join("rows/first"), root.join("rows/second")).expect("a second name");
}

const SCOPE: &str = r#"[{"match": "timed/**", "expect": "sealed", "time": true}, {"match": "ignored/**", "expect": "ignored"}]"#;

fn every_row_on(kind: Kind) {
    let table = format!("KERNEL.md 2 on {}", kind.name());
    if left_out_without_root(&table) {
        return;
    }
    let world = World::start();
    let disk = Disk::mounted(&world.path("disk"), kind, 320);
    let root = &disk.at;
    plant(root);
    world.image_by(root, SCOPE);
    let mut agent = world.agent("web-1", root);
    let node = world.wait_for_status("web-1", "pristine");
    assert_eq!(node["coverage"]["watch"]["rung"], "A", "{node:#}");

    let mut rows = Rows::of(&table);
    for row in ROWS
        .iter()
        .filter(|row| row.only.is_empty() || row.only.contains(&kind))
    {
        rows.row(row.name, || {
            let doer = change(root, row.script);
            for told in row.told {
                is_told(&world, root, told, &doer);
            }
        });
    }
    by_rings_and_other_namespaces(&mut rows, &world, root);
    rows.row(
        "opened for writing and nothing written: nothing to tell",
        || {
            drop(change(
                root,
                "os.close(os.open(at(b'rows/untouched'), os.O_WRONLY))",
            ));
            // What comes after it is told, so it has been looked at.
            let doer = change(root, "write(b'rows/after', b'x')");
            is_told(&world, root, &added("./rows/after", "size=1"), &doer);
            let told = world.people.violations("all");
            assert!(
                !told.iter().any(|v| v["path"] == "./rows/untouched"),
                "{told:#?}"
            );
        },
    );
    rows.row("utimens, where it does not: touched", || {
        drop(change(root, "os.utime(at(b'rows/untouched'), ns=(1, 1))"));
        world.is_touched("./rows/untouched", BY_EVENT);
    });
    rows.row("no event was lost on the way", || {
        let node = world.people.node("web-1").expect("the node");
        assert!(has_no_gap(&node), "{node:#}");
    });
    assert!(agent.stop().success());
    world.check();
    rows.end();
}

/// What needs a program of its own, another mount or another namespace.
fn by_rings_and_other_namespaces(rows: &mut Rows, world: &World, root: &Path) {
    for mode in ["inline", "async", "sqpoll"] {
        rows.row(&format!("io_uring, {mode}"), || {
            let path = format!("./rows/ring-{mode}");
            let doer = by(Command::new(compiled("io_uring"))
                .arg(mode)
                .arg(root.join(&path[2..])));
            is_told(world, root, &content(&path), &doer);
        });
    }
    rows.row("through a bind mount elsewhere", || {
        let elsewhere = world.path("elsewhere");
        fs::create_dir_all(&elsewhere).expect("a mount point");
        mount(
            &["--bind", root.join("rows").to_str().expect("a text path")],
            &elsewhere,
        );
        let doer = change(
            &elsewhere,
            "fd = os.open(at(b'bind'), os.O_WRONLY); os.write(fd, b'W'); os.close(fd)",
        );
        unmount(&elsewhere);
        is_told(world, root, &content("./rows/bind"), &doer);
    });
    rows.row("in another pid namespace", || {
        let script = "libc(b'unshare', 0x20000000)
if os.fork() == 0:
    fd = os.open(at(b'rows/pid'), os.O_WRONLY); os.write(fd, b'W'); os.close(fd)
    sys.stdin.read(); os._exit(0)";
        let doer = change(root, script);
        let violation = content("./rows/pid").in_the_api(world, BY_EVENT, None);
        let exe = violation["actor"]["exe"].as_str().unwrap_or_default();
        assert!(exe.ends_with(&*doer.exe.to_string_lossy()), "{violation:#}");
        assert_ne!(
            violation["actor"]["pid"], 1,
            "a number of our namespace: {violation:#}"
        );
    });
}

/// Told with the doer, and as the file is now.
#[track_caller]
fn is_told(world: &World, root: &Path, told: &Sighting<'_>, doer: &Doer) {
    let violation = told.in_the_api(world, BY_EVENT, Some(doer));
    let path = root.join(&told.path[2..]);
    if told.found.is_some() && path.is_file() {
        let content = fs::read(&path).expect("a file");
        let digest = attestation::digest::Digest::of(&content).to_string();
        let found = violation["found"].as_str().unwrap_or_default();
        assert!(
            found.contains(&digest),
            "{} is not as it was told: {found}",
            told.path
        );
    }
}

#[test]
fn every_row_on_ext4() {
    every_row_on(Kind::Ext4);
}

#[test]
fn every_row_on_xfs() {
    every_row_on(Kind::Xfs);
}

#[test]
fn every_row_on_btrfs() {
    every_row_on(Kind::Btrfs);
}

#[test]
fn every_row_on_tmpfs() {
    every_row_on(Kind::Tmpfs);
}
