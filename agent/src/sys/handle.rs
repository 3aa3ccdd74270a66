//! File handles: names of inodes that outlive descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes that a handle may have, beside its type (`MAX_HANDLE_SZ` of the kernel).
pub const HANDLE_LIMIT: usize = 128;

/// A handle as the kernel writes it: type and opaque bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// Which encoding the file system used.
    pub kind: i32,
    /// The encoding.
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest handle.
#[repr(C)]
struct RawHandle {
    length: u32,
    kind: i32,
    bytes: [u8; HANDLE_LIMIT],
}

/// The handle of the object that `object` refers to.
///
/// # Errors
/// What the kernel says: `EOPNOTSUPP` where the file system has no handles.
pub fn name_to_handle(object: BorrowedFd<'_>) -> io::Result<FileHandle> {
    let mut raw = RawHandle {
        length: 128,
        kind: 0,
        bytes: [0; HANDLE_LIMIT],
    };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: `raw` has the layout of `struct file_handle` followed by the 128 bytes that its length announces; the path
    // is an empty C string; the descriptor is borrowed and so open; `mount_id` outlives the call.
    let result = unsafe {
        libc::name_to_handle_at(
            object.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(raw.length)
        .unwrap_or(HANDLE_LIMIT)
        .min(HANDLE_LIMIT);
    Ok(FileHandle {
        kind: raw.kind,
        bytes: raw.bytes[..length].to_vec(),
    })
}

/// Opens the object of a handle as `O_PATH`, on the mount that `mount` (not itself `O_PATH`) lies on.
///
/// # Errors
/// `ESTALE` when the object is gone, `EINVAL` for a handle longer than the kernel allows.
pub fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> io::Result<OwnedFd> {
    let too_long = || io::Error::from_raw_os_error(libc::EINVAL);
    let mut raw = RawHandle {
        length: u32::try_from(bytes.len()).map_err(|_| too_long())?,
        kind,
        bytes: [0; HANDLE_LIMIT],
    };
    raw.bytes
        .get_mut(..bytes.len())
        .ok_or_else(too_long)?
        .copy_from_slice(bytes);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: `raw` has the layout of `struct file_handle` and holds as many bytes as its length says; it outlives the
    // call; the descriptor is borrowed and so open.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut raw).cast(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
