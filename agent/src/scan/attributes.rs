//! What `statx` and the extended attributes say of an object.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use attestation::entry::{
    FileTime, InodeFlags, NAMED_XATTRS, Xattr, XattrValue, is_recorded_xattr,
};
use attestation::scope::Decision;
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Fingerprint, Surveyed};

/// The kernel's limit for a list of names and for one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_LIMIT: usize = 65_536;
/// What almost every list and value fits in. The kernel gets and frees as much memory as a call offers room: with all of
/// [`XATTR_LIMIT`] at each call that was a twelfth of the time of a scan of small files.
const XATTR_USUAL: usize = 1024;

/// `statx` of what a descriptor refers to.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<Statx, Errno> {
    stat_at(fd, c"", AtFlags::EMPTY_PATH)
}

/// `statx` of a name, never through a link.
pub(super) fn stat_name(directory: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    stat_at(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn stat_at(fd: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Statx, Errno> {
    let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(fd, name, flags, StatxFlags::BASIC_STATS)
}

pub(super) fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

pub(super) fn fingerprint(stat: &Statx) -> Fingerprint {
    Fingerprint {
        dev: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime_ns: nanoseconds(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime_ns: nanoseconds(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        nlink: u64::from(stat.stx_nlink),
    }
}

pub(super) fn surveyed(stat: &Statx) -> Surveyed {
    Surveyed {
        fingerprint: fingerprint(stat),
        mode: mode(stat),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        flags: flags(stat),
        directory: file_type(stat) == FileType::Directory,
    }
}

fn nanoseconds(seconds: i64, nanos: u32) -> i64 {
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanos))
}

/// Whether nothing that the kernel tells has changed from one to the other.
pub(super) fn same(before: &Statx, after: &Statx) -> bool {
    fingerprint(before) == fingerprint(after)
        && (before.stx_mode, before.stx_uid, before.stx_gid)
            == (after.stx_mode, after.stx_uid, after.stx_gid)
        && flags(before) == flags(after)
}

/// The permission bits, and for a link the mode that all links have.
pub(super) fn mode(stat: &Statx) -> u16 {
    if file_type(stat) == FileType::Symlink {
        0o777
    } else {
        stat.stx_mode & 0o7777
    }
}

pub(super) fn flags(stat: &Statx) -> InodeFlags {
    let has = |flag| stat.stx_attributes.contains(flag);
    match file_type(stat) {
        FileType::RegularFile | FileType::Directory => InodeFlags {
            immutable: has(StatxAttributes::IMMUTABLE),
            append_only: has(StatxAttributes::APPEND),
        },
        _ => InodeFlags {
            immutable: false,
            append_only: false,
        },
    }
}

pub(super) fn time(stat: &Statx, decision: Decision) -> Option<FileTime> {
    let asked = decision.time && file_type(stat) != FileType::Directory;
    asked.then_some(FileTime {
        seconds: stat.stx_mtime.tv_sec,
        nanos: stat.stx_mtime.tv_nsec,
    })
}

/// Buffers for reading extended attributes, kept from one object to the next.
pub(super) struct XattrReader {
    list: Vec<u8>,
    value: Vec<u8>,
}

/// How the object is reached.
#[derive(Clone, Copy)]
pub(super) enum Object<'o> {
    /// By a descriptor open for reading.
    Open(BorrowedFd<'o>),
    /// By an `O_PATH` descriptor, which the calls refuse: through its entry in `/proc`, which leads to the object itself.
    Path(BorrowedFd<'o>),
}

/// Why an object's attributes are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unlisted {
    pub(super) errno: Errno,
    /// Those of [`NAMED_XATTRS`] that it has, where the list of names was refused: whoever sets 20,000 others must not hide a capability
    /// behind them.
    pub(super) named: Vec<Xattr>,
}

impl From<Errno> for Unlisted {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            named: Vec::new(),
        }
    }
}

impl XattrReader {
    pub(super) fn new() -> Self {
        Self {
            list: vec![0; XATTR_LIMIT],
            value: vec![0; XATTR_LIMIT],
        }
    }

    /// The recorded attributes, sorted by raw name. An object without any costs one call.
    pub(super) fn read(&mut self, object: Object<'_>) -> Result<Vec<Xattr>, Unlisted> {
        let proc_path = match object {
            Object::Open(_) => None,
            Object::Path(fd) => {
                let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
                Some(CString::new(path).map_err(|_| Errno::INVAL)?)
            }
        };
        let proc_path = proc_path.as_deref();
        let listed = fitting(&mut self.list, |room| match (object, proc_path) {
            (Object::Path(_), Some(path)) => rustix::fs::listxattr(path, room),
            (Object::Open(fd) | Object::Path(fd), _) => rustix::fs::flistxattr(fd, room),
        });
        let value = &mut self.value;
        let length = match listed {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => {
                let named = NAMED_XATTRS
                    .into_iter()
                    .filter_map(|name| read_value(value, object, proc_path, name).ok()?)
                    .collect();
                return Err(Unlisted { errno, named });
            }
        };
        let mut found = Vec::new();
        for name in self.list[..length].split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            if is_recorded_xattr(name.to_bytes()) {
                found.extend(read_value(value, object, proc_path, name)?);
            }
        }
        found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }
}

/// An attribute, or nothing where there is none (any more: what `statx` says afterwards tells of that).
fn read_value(
    room: &mut [u8],
    object: Object<'_>,
    proc_path: Option<&CStr>,
    name: &CStr,
) -> Result<Option<Xattr>, Errno> {
    let read = fitting(room, |room| match (object, proc_path) {
        (Object::Path(_), Some(path)) => rustix::fs::getxattr(path, name, room),
        (Object::Open(fd) | Object::Path(fd), _) => rustix::fs::fgetxattr(fd, name, room),
    });
    match read {
        Ok(size) => Ok(Some(Xattr {
            name: name.to_bytes().to_vec(),
            value: XattrValue::of(&room[..size]),
        })),
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Asks with the usual room, and with all of it where that is too little.
fn fitting(
    room: &mut [u8],
    mut ask: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    match ask(&mut room[..XATTR_USUAL]) {
        Err(Errno::RANGE) => ask(room),
        answer => answer,
    }
}
