//! Whether a file has a writer: a read lease is refused while it has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// From `fcntl.h`: which signal tells of a lease.
const SET_SIGNAL: libc::c_int = 10;

/// Whether somebody has the file open for writing or mapped shared and writable, asked of a descriptor that is open for
/// reading only. Nothing where the kernel does not say: without `CAP_LEASE` for the files of others, on file systems
/// without leases.
pub fn has_writer(file: BorrowedFd<'_>) -> Option<bool> {
    // Whoever opens the file for writing in the moment that the lease lasts makes the kernel send a signal; the usual one
    // would end the process, this one is ignored unless somebody asks for it.
    if fcntl(file, SET_SIGNAL, libc::SIGURG).is_err() {
        return None;
    }
    match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // What is refused here ends with the descriptor.
            drop(fcntl(file, libc::F_SETLEASE, libc::F_UNLCK));
            Some(false)
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Some(true),
        Err(_) => None,
    }
}

fn fcntl(file: BorrowedFd<'_>, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: both commands take an integer and no pointer; the descriptor is borrowed and so open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
