//! `fanotify_init(2)` and `fanotify_mark(2)` with the flags of file-handle records.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Makes a notification group. `flags` are `FAN_CLASS_*`, `FAN_REPORT_*` and their like.
///
/// # Errors
/// What the kernel says: `EPERM` without the capability, `EINVAL` for flags that it does not know.
pub fn fanotify_init(flags: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let raw = unsafe { libc::fanotify_init(flags, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Marks the whole file system that `directory` lies on.
///
/// # Errors
/// What the kernel says: `EINVAL` for a mask it does not know, `ENODEV`, `EOPNOTSUPP` or `EXDEV` where the file system
/// cannot be watched by handles.
pub fn fanotify_mark_filesystem(
    group: BorrowedFd<'_>,
    mask: u64,
    directory: BorrowedFd<'_>,
) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    // SAFETY: both descriptors are borrowed and so open; a null path means the object that `directory` refers to.
    let result = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            flags,
            mask,
            directory.as_raw_fd(),
            ptr::null(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
