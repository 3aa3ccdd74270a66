//! What is watched beside files, on the real kernel: mounts, clocks, devices, mappings, namespaces, test writes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use attestation::statement::Rung;
use tempfile::TempDir;

use super::*;

/// A watch of a directory, and what it reports.
struct Beside {
    dir: TempDir,
    watch: Watch,
}

impl Beside {
    fn new(prepare: impl FnOnce(&Path)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let dir = TempDir::new().unwrap();
        prepare(dir.path());
        Some(Self::of(dir))
    }

    fn of(dir: TempDir) -> Self {
        let watch = watch(dir.path());
        Self { dir, watch }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub(super) fn watch(path: &Path) -> Watch {
    let scope = Scope::sealed_all();
    let root = Root::open(path, &scope).unwrap();
    Watch::start(&root, path, &scope, &Attribution::default()).unwrap()
}

/// The first report that `wanted` knows what to make of.
pub(super) fn report<T>(watch: &Watch, wanted: impl Fn(Report) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "not told in time");
        if let Some(found) = watch.take(left).reports.into_iter().find_map(&wanted) {
            return found;
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    let done = Command::new(program).args(arguments).status();
    done.is_ok_and(|status| status.success())
}

/// A mount that ends with the test.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    pub(super) fn new(options: &[&str], at: &Path) -> Option<Self> {
        let done = Command::new("mount").args(options).arg(at).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: mount {options:?} is refused");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), &self.0]);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn who_mounts_something_is_told_with_the_place() {
    let Some(beside) = Beside::new(|dir| fs::create_dir(dir.join("d")).unwrap()) else {
        return;
    };
    let told = beside.watch.coverage().limits;
    if told.iter().any(|limit| limit.contains("who mounts")) {
        eprintln!("skipped: {told:?}");
        return;
    }
    let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "none"], &beside.at("d")) else {
        return;
    };
    let actor = report(&beside.watch, |report| match report {
        Report::Mounted { path, actor } if path.as_bytes() == b"d" => Some(actor),
        _ => None,
    });
    assert!(actor.pid > 0 && actor.pid != std::process::id());
}

#[test]
#[ignore = "sets the clock of the machine: every agent that runs on it tells of a step"]
fn a_step_of_the_clock_is_told() {
    let Some(beside) = Beside::new(|_| {}) else {
        return;
    };
    if let Err(error) = crate::sys::step_clock_by_a_nanosecond() {
        eprintln!("skipped: the clock may not be set here: {error}");
        return;
    }
    report(&beside.watch, |report| {
        matches!(report, Report::ClockSet).then_some(())
    });
}

#[test]
fn a_mount_of_another_namespace_is_told_with_who_lives_there() {
    let Some(beside) = Beside::new(|dir| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::create_dir(dir.join("e")).unwrap();
    }) else {
        return;
    };
    let script = "mount -t tmpfs hidden $0/d && echo x > $0/d/x && mount -t tmpfs empty $0/e && mount --bind $0/d $0/d && exec sleep 1000";
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(beside.dir.path())
        .spawn();
    let Ok(child) = child else {
        eprintln!("skipped: no unshare here");
        return;
    };
    let child = Running(child);
    let inside = format!("/proc/{}/root{}", child.0.id(), beside.at("d/x").display());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !Path::new(&inside).exists() {
        assert!(Instant::now() < deadline, "no mount in the namespace");
        std::thread::yield_now();
    }
    beside.watch.look_around();
    let told = report(&beside.watch, |report| match report {
        Report::Foreign(mounts) if !mounts.is_empty() => Some(mounts),
        _ => None,
    });
    assert_eq!(told.len(), 1, "an empty tmpfs shows nothing: {told:?}");
    assert_eq!(told[0].mount.path.as_bytes(), b"d");
    assert_eq!(told[0].actor.pid, child.0.id());
    drop(child);
    beside.watch.look_around();
    report(&beside.watch, |report| match report {
        Report::Foreign(mounts) if mounts.is_empty() => Some(()),
        _ => None,
    });
}

#[test]
fn a_file_that_is_mapped_shared_and_writable_is_told() {
    let Some(beside) = Beside::new(|dir| fs::write(dir.join("file"), [0; 4096]).unwrap()) else {
        return;
    };
    let script = "import mmap, sys, time\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nf.close()\nprint('mapped', flush=True)\ntime.sleep(1000)";
    let child = Command::new("python3")
        .args(["-c", script])
        .arg(beside.at("file"))
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(child) = child else {
        eprintln!("skipped: no python3 here");
        return;
    };
    let mut child = Running(child);
    let mut line = String::new();
    let said = child.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(said), &mut line).unwrap();
    beside.watch.look_around();
    let ino = std::os::unix::fs::MetadataExt::ino(&fs::metadata(beside.at("file")).unwrap());
    report(&beside.watch, |report| match report {
        Report::Mapped(inodes) => inodes.iter().any(|inode| inode.ino == ino).then_some(()),
        _ => None,
    });
}

/// An image file with a file system on a loop device.
pub(super) struct Image {
    pub(super) device: PathBuf,
}

impl Image {
    pub(super) fn new(file: &Path, mkfs: &[&str]) -> Option<Self> {
        fs::File::create(file)
            .unwrap()
            .set_len(400 * 1024 * 1024)
            .unwrap();
        let (program, arguments) = mkfs.split_first().unwrap();
        let made = Command::new(program)
            .args(arguments)
            .arg(file)
            .stdout(std::process::Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no {program} here");
            return None;
        }
        let said = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        let device = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        match device {
            Ok(device) if !device.is_empty() => Some(Self {
                device: device.into(),
            }),
            _ => {
                eprintln!("skipped: no loop device here");
                None
            }
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        run("losetup", &["-d".as_ref(), &self.device]);
    }
}

/// A root on a loop device, watched. What comes first ends first.
pub(super) struct OnDevice {
    pub(super) watch: Watch,
    _mounted: Mounted,
    pub(super) image: Image,
    _work: TempDir,
}

impl OnDevice {
    pub(super) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let work = TempDir::new().unwrap();
        let image = Image::new(&work.path().join("image"), &["mkfs.ext4", "-qF"])?;
        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        let mounted = Mounted::new(&[image.device.to_str().unwrap()], &root)?;
        Some(Self {
            watch: watch(&root),
            _mounted: mounted,
            image,
            _work: work,
        })
    }
}

/// Another process writes a block through a device node.
pub(super) fn write_raw(node: &Path) {
    let to = format!("of={}", node.display());
    let dd = Command::new("dd")
        .args(["if=/dev/zero", &to, "bs=512", "count=1", "conv=notrunc"])
        .stderr(std::process::Stdio::null())
        .status();
    assert!(dd.unwrap().success());
}

#[test]
fn a_raw_write_to_the_device_below_is_told_with_its_writer() {
    let Some(OnDevice { watch, image, .. }) = &OnDevice::new() else {
        return;
    };
    write_raw(&image.device);
    let write = report(watch, |report| match report {
        Report::RawWrite(write) => Some(write),
        _ => None,
    });
    let node = image.device.to_string_lossy();
    assert_eq!(
        write.node.as_bytes(),
        node.trim_start_matches('/').as_bytes()
    );
    assert!(write.actor.pid > 0 && write.actor.pid != std::process::id());
}

/// On each kind of file system: which rung, and a test write that comes back.
#[test]
fn test_writes_come_back_on_every_kind_of_file_system() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let kinds: [&[&str]; 3] = [
        &["mkfs.ext4", "-qF"],
        &["mkfs.xfs", "-qf"],
        &["mkfs.btrfs", "-qf"],
    ];
    for kind in kinds {
        let work = TempDir::new().unwrap();
        let Some(image) = Image::new(&work.path().join("image"), kind) else {
            continue;
        };
        let root = work.path().join("root");
        fs::create_dir(&root).unwrap();
        let Some(_mounted) = Mounted::new(&[image.device.to_str().unwrap()], &root) else {
            continue;
        };
        assert_eq!(is_heard(&root), Rung::A, "{kind:?}");
    }
    let dir = TempDir::new().unwrap();
    if let Some(_mounted) = Mounted::new(&["-t", "tmpfs", "none"], dir.path()) {
        assert_eq!(is_heard(dir.path()), Rung::A);
    }
}

/// Watches, waits for the first test write to come back, and says the rung.
pub(super) fn is_heard(root: &Path) -> Rung {
    let watch = watch(root);
    let coverage = watch.coverage();
    let deadline = Instant::now() + canary::PATIENCE + Duration::from_secs(5);
    while !watch.lookout.has_heard() {
        assert!(Instant::now() < deadline, "{:?}", watch.coverage());
        let taken = watch.take(Duration::from_millis(100));
        // Below an overlay it has a name that nothing is found under.
        let named = |place: &Place| !place.path.as_bytes().starts_with(b"#");
        assert!(!taken.places.iter().any(named), "{taken:?}");
    }
    let limits = watch.coverage().limits;
    assert!(
        !limits.iter().any(|limit| limit.contains("test")),
        "{limits:?}"
    );
    coverage.rung
}

/// What the kernel says of the marks of our own groups on an inode: the masks that are ignored.
fn ignored_masks(ino: u64) -> Vec<String> {
    let wanted = format!("fanotify ino:{ino:x} ");
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| line.starts_with(&wanted))
        .filter_map(|line| {
            Some(
                line.split("ignored_mask:")
                    .nth(1)?
                    .split(' ')
                    .next()?
                    .to_owned(),
            )
        })
        .collect()
}

#[test]
fn a_busy_file_in_an_ignored_place_is_quiet_for_a_moment_and_a_sealed_one_never() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("tmp")).unwrap();
    let scope = Scope::from_json(br#"[{"match":"tmp","expect":"ignored"}]"#).unwrap();
    let root = Root::open(dir.path(), &scope).unwrap();
    let watch = Watch::start(&root, dir.path(), &scope, &Attribution::default()).unwrap();
    // The first event of the directory teaches that it is ignored.
    fs::write(dir.path().join("tmp/first"), b"x").unwrap();
    drop(watch.take(Duration::from_millis(200)));
    let appender = |name: &str| {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        let ino = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        (file, ino)
    };
    let ((mut log, busy), (mut sealed, never)) = (appender("tmp/log"), appender("sealed"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while ignored_masks(busy) != ["2"] {
        assert!(Instant::now() < deadline, "{:?}", ignored_masks(busy));
        for file in [&mut log, &mut sealed] {
            std::io::Write::write_all(file, b"line\n").unwrap();
        }
        drop(watch.take(Duration::from_millis(12)));
        assert_eq!(ignored_masks(never), [""; 0]);
    }
    while ignored_masks(busy) == ["2"] {
        assert!(Instant::now() < deadline);
        drop(watch.take(Duration::from_millis(20)));
    }
    fs::rename(dir.path().join("tmp/log"), dir.path().join("log")).unwrap();
    std::io::Write::write_all(&mut log, b"line\n").unwrap();
    let mut told = EventSet::empty();
    while !told.contains(EventSet::RENAME) || !told.contains(EventSet::MODIFY) {
        assert!(Instant::now() < deadline, "{told}");
        for place in watch.take(Duration::from_secs(1)).places {
            if place.path.as_bytes() == b"log" {
                told |= place.events;
            }
        }
    }
}
