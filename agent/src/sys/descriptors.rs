//! Descriptors that a program was started with.

use std::io;

/// Closes every descriptor from `first` on: what a program inherits is not what it opened.
///
/// # Errors
/// What the kernel says; `ENOSYS` before Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes no pointer. It is made when the program begins, before anything holds a descriptor that it
    // would be closed under.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
