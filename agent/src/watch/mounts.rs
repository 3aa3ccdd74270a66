//! Being told that the mount table changed, and from Linux 6.14 on by whom.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::path::ImagePath;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::io::Errno;

use super::record;
use crate::scan::relative;
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
    File::open("/proc/self/mountinfo")
}

/// A group that tells of each mount that comes or goes in our own mount namespace.
#[derive(Debug)]
pub(super) struct MountEvents(Fanotify);

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
        Ok(Self(group))
    }

    pub(super) fn group(&self) -> &Fanotify {
        &self.0
    }

    /// What came and went since the last question. An overflow tells nothing more than the table does.
    pub(super) fn read(&self, root: &Path) -> io::Result<Vec<MountEvent>> {
        let mut events = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match rustix::io::read(&self.0, &mut buffer[..]) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for record in record::parse(&buffer[..length]).flatten() {
                let came = record
                    .mount
                    .filter(|_| record.mask & FAN_MNT_ATTACH != 0)
                    .and_then(|id| sys::mount_point(id).ok());
                let at = came.and_then(|point| {
                    let path = relative(&point, root.as_os_str().as_bytes())?;
                    ImagePath::from_bytes(path).ok()
                });
                events.push(MountEvent {
                    at: at.filter(|at| !at.is_root()),
                    pid: record.pid,
                });
            }
        }
    }
}
