//! Raw writes: what is written to a block device past the file system that lies on it changes files without an event.
//!
//! Marks lie on the device nodes, of the devices under each file system in scope and of those that they are made of. A
//! thread of its own hears of a write, has the device write out what it holds, and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use attestation::path::ImagePath;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::board::Board;
use super::record;
use super::report::{RawWrite, Report};
use crate::actor::Observer;
use crate::clock::now;
use crate::scan::{MountLine, Root, handle_key, mount_lines};
use crate::sys;

const GROUP: u32 = libc::FAN_CLASS_NOTIF
    | libc::FAN_REPORT_FID
    | libc::FAN_REPORT_DFID_NAME
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK;
const WRITES: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
const NAMES: u64 = libc::FAN_CREATE | libc::FAN_MOVED_TO | libc::FAN_ONDIR;
/// A writer's writes are gathered for so long before everything is read again.
const GATHER: Duration = Duration::from_millis(200);
/// Names below `/dev` that are looked at.
const NODES: usize = 16_384;
/// Devices that one is made of, all levels together.
const DEVICES: usize = 1_024;
/// Bytes taken with one read.
const BUFFER: usize = 16 * 1024;

/// Major and minor number.
type Device = (u32, u32);

/// The running thread; it ends when dropped.
#[derive(Debug)]
pub(super) struct Devices {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Devices {
    /// Watches the devices under the root. Nothing where there are none; in words why they cannot be watched.
    pub(super) fn start(root: &Root, board: &Arc<Board>) -> Result<Option<Self>, String> {
        let devices = under(root);
        if devices.is_empty() {
            return Ok(None);
        }
        Self::watch(devices, board)
            .map(Some)
            .map_err(|error| format!("raw writes to block devices are not told: {error}"))
    }

    fn watch(devices: BTreeSet<Device>, board: &Arc<Board>) -> io::Result<Self> {
        let group = Fanotify::init(InitFlags::from_bits_retain(GROUP), EventFFlags::empty())?;
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let mut thread = Thread {
            group,
            devices,
            nodes: BTreeMap::new(),
            stop: Arc::clone(&stop),
            board: Arc::clone(board),
            observer: Observer::default(),
        };
        thread.mark_nodes()?;
        let thread = std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || thread.run())?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        let rung = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| rung) {
            drop(thread.join());
        }
    }
}

struct Thread {
    group: Fanotify,
    devices: BTreeSet<Device>,
    /// Where the marked nodes are, by their handles.
    nodes: BTreeMap<Vec<u8>, PathBuf>,
    stop: Arc<OwnedFd>,
    board: Arc<Board>,
    observer: Observer,
}

impl Thread {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.wait() {
                Ok(true) => return,
                Ok(false) => {}
                Err(errno) => return self.end(errno),
            }
            let mut written = BTreeMap::new();
            // Read at once for the sake of who writes, and again when its writes have gathered.
            for pause in [Duration::ZERO, GATHER] {
                std::thread::sleep(pause);
                if let Err(errno) = self.drain(&mut buffer, &mut written) {
                    return self.end(errno);
                }
            }
            self.report(written);
        }
    }

    fn end(&self, errno: Errno) {
        let error = io::Error::from(errno);
        self.board
            .lose(&format!("raw writes are no longer told: {error}"));
    }

    fn wait(&self) -> Result<bool, Errno> {
        let mut polled = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.group.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(errno) => Err(errno),
        }
    }

    fn drain(
        &mut self,
        buffer: &mut [u8],
        written: &mut BTreeMap<PathBuf, RawWrite>,
    ) -> Result<(), Errno> {
        self.observer.begin();
        loop {
            let length = match rustix::io::read(&self.group, &mut *buffer) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let mut told: Vec<(PathBuf, i32)> = Vec::new();
            let mut created = None;
            for record in record::parse(&buffer[..length]) {
                let Ok(record) = record else {
                    self.board.lose("overflow");
                    continue;
                };
                if record.mask & libc::FAN_Q_OVERFLOW != 0 {
                    self.board.lose("overflow");
                }
                let node = record
                    .object
                    .and_then(|object| self.nodes.get(&key(object.kind, object.bytes)));
                if let Some(node) = node.filter(|_| record.mask & WRITES != 0) {
                    told.push((node.clone(), record.pid));
                }
                if record.mask & NAMES & !libc::FAN_ONDIR != 0 {
                    created = Some(record.pid);
                }
            }
            if let Some(pid) = created {
                // A new node of our devices may have been written before it was marked.
                told.extend(self.new_nodes().into_iter().map(|node| (node, pid)));
            }
            for (node, pid) in told {
                self.note(written, node, pid);
            }
        }
    }

    fn note(&mut self, written: &mut BTreeMap<PathBuf, RawWrite>, node: PathBuf, pid: i32) {
        let relative = node.as_os_str().as_bytes().strip_prefix(b"/");
        let Some(Ok(path)) = relative.map(ImagePath::from_bytes) else {
            return;
        };
        let (actor, at) = (self.observer.observe(pid).actor.clone(), now());
        let write = written.entry(node).or_insert_with(|| RawWrite {
            node: path,
            actor: actor.clone(),
            first: at,
            last: at,
        });
        if write.actor.pid != actor.pid || write.actor.exe.is_none() {
            write.actor = actor;
        }
        write.last = at;
    }

    fn new_nodes(&mut self) -> Vec<PathBuf> {
        let before: BTreeSet<PathBuf> = self.nodes.values().cloned().collect();
        if let Err(error) = self.mark_nodes() {
            self.board
                .lose(&format!("a new device node cannot be watched: {error}"));
        }
        let nodes = self.nodes.values();
        nodes
            .filter(|node| !before.contains(*node))
            .cloned()
            .collect()
    }

    /// What was written lies in the device's own cache: only what is on the device is what a re-read finds.
    fn report(&self, written: BTreeMap<PathBuf, RawWrite>) {
        for (node, write) in written {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            let written_out = rustix::fs::open(&node, flags, Mode::empty())
                .and_then(|device| rustix::fs::fsync(&device));
            if let Err(errno) = written_out {
                let error = io::Error::from(errno);
                tracing::warn!(node = %node.display(), %error, "have the device write out what it holds");
            }
            self.board.report(Report::RawWrite(write));
        }
    }

    /// Marks the nodes of our devices, and each directory below `/dev` for those to come.
    fn mark_nodes(&mut self) -> io::Result<()> {
        let top = Path::new("/dev");
        let device = fs::symlink_metadata(top)?.dev();
        let mut waiting = vec![top.to_owned()];
        let mut left = NODES;
        while let Some(directory) = waiting.pop() {
            self.mark(&directory, NAMES)?;
            for entry in fs::read_dir(&directory)?.flatten() {
                left = left.saturating_sub(1);
                if left == 0 {
                    return Err(io::Error::other("more names below /dev than are looked at"));
                }
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
                    continue;
                };
                let Ok(found) = fs::symlink_metadata(&path) else {
                    continue;
                };
                if kind.is_dir() && found.dev() == device {
                    waiting.push(path);
                } else if kind.is_block_device() && self.devices.contains(&numbers(found.rdev())) {
                    self.mark_node(path)?;
                }
            }
        }
        Ok(())
    }

    fn mark_node(&mut self, path: PathBuf) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::open(&path, flags, Mode::empty())?;
        let handle = sys::name_to_handle(node.as_fd())?;
        self.mark(&path, WRITES)?;
        self.nodes.insert(key(handle.kind, &handle.bytes), path);
        Ok(())
    }

    fn mark(&self, path: &Path, mask: u64) -> io::Result<()> {
        let flags = MarkFlags::from_bits_retain(libc::FAN_MARK_ADD | libc::FAN_MARK_DONT_FOLLOW);
        let mask = MaskFlags::from_bits_retain(mask);
        Ok(self.group.mark(flags, mask, rustix::fs::CWD, Some(path))?)
    }
}

/// All nodes lie on one file system.
fn key(kind: i32, bytes: &[u8]) -> Vec<u8> {
    handle_key([0; 8], kind, bytes)
}

fn numbers(device: u64) -> Device {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// The block devices under the file systems of a root, and what those are made of.
fn under(root: &Root) -> BTreeSet<Device> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let lines: Vec<MountLine> = mount_lines(&table).collect();
    let mut devices = BTreeSet::new();
    for filesystem in root.watched() {
        let id = super::mount_of(&root.shown(&filesystem.prefix));
        if let Some(line) = lines.iter().find(|line| Some(line.id) == id) {
            devices.extend(of_line(line));
        }
    }
    made_of(devices, &|device| parts(device))
}

/// The devices that a mounted file system lies on.
fn of_line(line: &MountLine) -> Vec<Device> {
    if line.device.0 != 0 {
        return vec![line.device];
    }
    // btrfs and overlayfs have no device of their own: by its node, or by the directories that it is laid over.
    let mut found = Vec::new();
    let node = Path::new(std::ffi::OsStr::from_bytes(&line.source));
    if let Ok(node) = fs::metadata(node)
        && node.file_type().is_block_device()
    {
        found.push(numbers(node.rdev()));
        found.extend(btrfs_siblings(numbers(node.rdev())));
    }
    for option in [&b"upperdir"[..], b"lowerdir"] {
        let directories = line.option(option).unwrap_or_default();
        for directory in directories.split(|byte| *byte == b':') {
            let directory = Path::new(std::ffi::OsStr::from_bytes(directory));
            if let Ok(directory) = fs::metadata(directory) {
                found.push(numbers(directory.dev()));
            }
        }
    }
    found.retain(|device| device.0 != 0);
    found
}

/// The other devices of a btrfs that spans several.
fn btrfs_siblings(device: Device) -> Vec<Device> {
    let Ok(all) = fs::read_dir("/sys/fs/btrfs") else {
        return Vec::new();
    };
    let filesystems = all
        .flatten()
        .map(|one| devices_in(&one.path().join("devices")));
    filesystems
        .filter(|devices| devices.contains(&device))
        .flatten()
        .collect()
}

/// The whole device of a partition, and the devices below a mapped one.
fn parts(device: Device) -> Vec<Device> {
    let place = PathBuf::from(format!("/sys/dev/block/{}:{}", device.0, device.1));
    let mut found = devices_in(&place.join("slaves"));
    if place.join("partition").exists()
        && let Ok(place) = fs::canonicalize(&place)
        && let Some(whole) = place.parent().and_then(device_at)
    {
        found.push(whole);
    }
    found
}

fn devices_in(directory: &Path) -> Vec<Device> {
    let Ok(listing) = fs::read_dir(directory) else {
        return Vec::new();
    };
    listing
        .flatten()
        .filter_map(|entry| device_at(&entry.path()))
        .collect()
}

fn device_at(directory: &Path) -> Option<Device> {
    let text = fs::read_to_string(directory.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// These devices, and all that they are made of.
fn made_of(devices: BTreeSet<Device>, parts: &dyn Fn(Device) -> Vec<Device>) -> BTreeSet<Device> {
    let mut waiting: Vec<Device> = devices.iter().copied().collect();
    let mut all = devices;
    while let Some(device) = waiting.pop() {
        for part in parts(device) {
            if all.len() < DEVICES && all.insert(part) {
                waiting.push(part);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_on_encrypted_partitions_is_made_of_all_below_it() {
        let parts = |device| match device {
            (253, 1) => vec![(253, 0)],
            (253, 0) => vec![(8, 2), (8, 18)],
            (8, 2) => vec![(8, 0)],
            (8, 18) => vec![(8, 16)],
            // A circle, which the kernel does not make, must not be an endless way.
            (8, 0) => vec![(253, 1)],
            _ => Vec::new(),
        };
        let all = made_of(BTreeSet::from([(253, 1)]), &parts);
        let expected = [(8, 0), (8, 2), (8, 16), (8, 18), (253, 0), (253, 1)];
        assert!(all.iter().eq(&expected), "{all:?}");
    }
}
