//! Rung C: events that come with an open descriptor of the file, where a file system has no handles.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno as NixErrno;
use nix::sys::fanotify::{Fanotify, FanotifyEvent};
use rustix::fs::{AtFlags, CWD, StatxFlags, makedev};
use rustix::io::Errno;

use super::keys::inode_key;
use super::record::Record;
use super::report::Inode;
use crate::scan::handle_key;
use crate::sys;

/// A written file, as its descriptor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) mask: u64,
    pub(super) pid: i32,
    pub(super) inode: Inode,
    /// It has more names than the one it was written under.
    pub(super) linked: bool,
    /// What test writes know the file by: its handle where it has one, else its inode.
    pub(super) key: Vec<u8>,
    /// The mount through which it was written.
    pub(super) mount: u64,
    /// Where it lies, as the kernel shows it to us.
    pub(super) shown: Vec<u8>,
}

impl Written {
    /// As far as it concerns who did it.
    pub(super) fn record(&self) -> Record<'static> {
        Record {
            mask: self.mask,
            pid: self.pid,
            object: None,
            named: None,
            renamed: None,
            mount: None,
        }
    }
}

/// A read that brought fewer events than this left none: as many fit into what one read takes, and some.
const FULL: usize = 128;

/// What one read of a group brought.
#[derive(Debug)]
pub(super) enum Brought {
    /// Nothing more waits.
    Nothing,
    /// Written files; `lost`: something that could not be looked at, in words; `drained`: no more wait.
    Some {
        written: Vec<Written>,
        lost: Option<String>,
        drained: bool,
    },
}

/// Reads once. The kernel opens the files in our name: one that it cannot open is an event lost.
pub(super) fn read(group: &Fanotify) -> Result<Brought, Errno> {
    let events = match group.read_events() {
        Ok(events) => events,
        Err(NixErrno::EAGAIN) => return Ok(Brought::Nothing),
        Err(NixErrno::EINTR) => {
            return Ok(Brought::Some {
                written: Vec::new(),
                lost: None,
                drained: false,
            });
        }
        Err(errno @ (NixErrno::EBADF | NixErrno::EINVAL | NixErrno::EFAULT)) => {
            return Err(Errno::from_raw_os_error(errno as i32));
        }
        Err(errno) => {
            return Ok(Brought::Some {
                written: Vec::new(),
                lost: Some(format!("a written file could not be opened: {errno}")),
                drained: false,
            });
        }
    };
    let mut written = Vec::with_capacity(events.len());
    let mut lost = None;
    for event in &events {
        match describe(event) {
            Ok(Some(event)) => written.push(event),
            Ok(None) => lost = Some("overflow".to_owned()),
            Err(errno) => {
                let error = io::Error::from(errno);
                lost = Some(format!("a written file does not say what it is: {error}"));
            }
        }
    }
    let drained = events.len() < FULL;
    Ok(Brought::Some {
        written,
        lost,
        drained,
    })
}

/// Nothing for the event that tells of lost ones.
fn describe(event: &FanotifyEvent) -> Result<Option<Written>, Errno> {
    let Some(file) = event.fd() else {
        return Ok(None);
    };
    let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
    let inode = Inode {
        dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
    };
    Ok(Some(Written {
        mask: event.mask().bits(),
        pid: event.pid(),
        inode,
        linked: stat.stx_nlink > 1,
        key: key_of(file, inode),
        mount: stat.stx_mnt_id,
        shown: shown(file)?,
    }))
}

fn key_of(file: BorrowedFd<'_>, inode: Inode) -> Vec<u8> {
    match sys::name_to_handle(file.as_fd()) {
        Ok(handle) => handle_key([0; 8], handle.kind, &handle.bytes),
        Err(_) => inode_key(inode.dev, inode.ino),
    }
}

fn shown(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::readlinkat(CWD, link, Vec::new()) {
        Ok(shown) => Ok(shown.into_bytes()),
        // Longer than the kernel tells: the inode must do.
        Err(Errno::NAMETOOLONG) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}
