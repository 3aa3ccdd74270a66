//! Being told that the mount table changed, and from Linux 6.14 on by whom.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::path::ImagePath;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::io::Errno;

use super::record;
use crate::scan::{everybody, mount_lines, relative};
use crate::sys;

// The kernel's own numbers (Linux 6.14): no library has names for them yet.
const FAN_REPORT_MNT: u32 = 0x4000;
const FAN_MARK_MNTNS: u32 = 0x110;
const FAN_MNT_ATTACH: u64 = 0x0100_0000;
const FAN_MNT_DETACH: u64 = 0x0200_0000;
/// Bytes taken with one read: some hundred events.
const BUFFER: usize = 16 * 1024;

/// Opens the table whose changes `poll` tells as `POLLPRI | POLLERR`.
pub(super) fn open_table() -> io::Result<File> {
    File::open(everybody().join("mountinfo"))
}

/// Whether what comes and goes there may do so without any event in our own mount namespace: what is mounted there for itself
/// alone does not get here.
pub(super) fn needs_table() -> bool {
    everybody() != Path::new("/proc/self")
}

/// A group that tells of each mount that comes or goes in our own mount namespace, by whomever it was done elsewhere.
#[derive(Debug)]
pub(super) struct MountEvents {
    group: Fanotify,
    /// The mounts that were there at the last question, by the numbers that the table has.
    known: BTreeSet<u64>,
}

/// A mount that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountEvent {
    /// Where it came, relative to the root. Nothing for what went, was gone at once, or lies elsewhere.
    pub(super) at: Option<ImagePath>,
    pub(super) pid: i32,
}

impl MountEvents {
    /// Fails where the kernel has no such events.
    pub(super) fn new() -> io::Result<Self> {
        let flags = FAN_REPORT_MNT | libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let group = Fanotify::init(InitFlags::from_bits_retain(flags), EventFFlags::empty())?;
        let namespace = File::open("/proc/self/ns/mnt")?;
        group.mark(
            MarkFlags::from_bits_retain(libc::FAN_MARK_ADD | FAN_MARK_MNTNS),
            MaskFlags::from_bits_retain(FAN_MNT_ATTACH | FAN_MNT_DETACH),
            &namespace,
            None::<&Path>,
        )?;
        let known = mount_lines(&own_table()).map(|line| line.id).collect();
        Ok(Self { group, known })
    }

    pub(super) fn group(&self) -> &Fanotify {
        &self.group
    }

    /// What came and went since the last question. An overflow tells nothing more than the table does.
    pub(super) fn read(&mut self, root: &Path) -> io::Result<Vec<MountEvent>> {
        self.read_by(root, &sys::mount_point)
    }

    fn read_by(&mut self, root: &Path, point: Point<'_>) -> io::Result<Vec<MountEvent>> {
        let told = self.take()?;
        let mut points: Vec<io::Result<Vec<u8>>> = Vec::new();
        points.extend(told.iter().filter_map(|(came, _)| came.map(point)));
        // A filter of system calls that is older than this one: what the table has more than before must then be what came,
        // in the same order. Where the numbers differ, some came and went, and nobody is named.
        let refused = |point: &io::Result<_>| matches!(point, Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
        if points.iter().any(refused) {
            let newcomers = newcomers(&mut self.known, &own_table());
            if newcomers.len() == points.len() {
                points = newcomers.into_iter().map(Ok).collect();
            }
        }
        let mut points = points.into_iter();
        let events = told.into_iter().map(|(came, pid)| {
            let point = came.and_then(|_| points.next()?.ok());
            MountEvent {
                at: point.and_then(|point| {
                    let path = relative(&point, root.as_os_str().as_bytes())?;
                    ImagePath::from_bytes(path).ok().filter(|at| !at.is_root())
                }),
                pid,
            }
        });
        Ok(events.collect())
    }

    /// The number of each mount that came, nothing for one that went, and who did it.
    fn take(&self) -> io::Result<Vec<(Option<u64>, i32)>> {
        let mut told = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match rustix::io::read(&self.group, &mut buffer[..]) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(told),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let records = record::parse(&buffer[..length]).flatten();
            told.extend(records.map(|record| {
                let came = record.mount.filter(|_| record.mask & FAN_MNT_ATTACH != 0);
                (came, record.pid)
            }));
        }
    }
}

/// Says where a mount is, by its number that is never given anew.
type Point<'p> = &'p dyn Fn(u64) -> io::Result<Vec<u8>>;

fn own_table() -> Vec<u8> {
    std::fs::read("/proc/self/mountinfo").unwrap_or_default()
}

/// Where the mounts are that a table has and that were not known; then they are.
fn newcomers(known: &mut BTreeSet<u64>, table: &[u8]) -> Vec<Vec<u8>> {
    let before = std::mem::take(known);
    let mut points = Vec::new();
    for line in mount_lines(table) {
        if !before.contains(&line.id) {
            points.push(line.point);
        }
        known.insert(line.id);
    }
    points
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn what_a_table_has_more_than_before_is_what_came() {
        let table = |ids: &[u64]| -> Vec<u8> {
            let line = |id| format!("{id} 1 8:1 / /m{id} rw - ext4 /dev/a rw\n");
            ids.iter()
                .copied()
                .map(line)
                .collect::<String>()
                .into_bytes()
        };
        let mut known = BTreeSet::from([1, 2]);
        assert_eq!(
            newcomers(&mut known, &table(&[1, 2, 7, 5])),
            [b"/m7", b"/m5"]
        );
        assert!(newcomers(&mut known, &table(&[1, 7, 5])).is_empty());
        // The number of one that went is given anew.
        assert_eq!(newcomers(&mut known, &table(&[1, 7, 5, 2])), [b"/m2"]);
    }

    #[test]
    fn a_mount_is_placed_where_the_kernel_may_not_be_asked_for_it() {
        let Ok(mut events) = MountEvents::new() else {
            eprintln!("skipped: this kernel does not tell of mounts");
            return;
        };
        // Others may mount something in the same moment, and then nobody is named.
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let mount = |command: &str, more: &[&str]| {
                let mut command = std::process::Command::new(command);
                let status = command.args(more).arg(dir.path()).status();
                status.is_ok_and(|status| status.success())
            };
            if !mount("mount", &["-t", "tmpfs", "none"]) {
                eprintln!("skipped: nothing can be mounted here");
                return;
            }
            let refuse = |_| Err(io::Error::from(io::ErrorKind::PermissionDenied));
            let told = events.read_by(dir.path().parent().unwrap(), &refuse);
            assert!(mount("umount", &[]));
            let name = dir.path().file_name().unwrap().as_bytes();
            let mut told = told.unwrap().into_iter();
            if told.any(|event| event.at.is_some_and(|at| at.as_bytes() == name) && event.pid > 0) {
                return;
            }
            // What went is taken out of what is known.
            events.read_by(dir.path(), &refuse).unwrap();
        }
        unreachable!("a mount was never placed");
    }
}
