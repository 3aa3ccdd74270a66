//! Setting the clock, for the test of what notices it.

use std::io;

/// Puts the wall clock a nanosecond ahead: a step that the kernel tells of and nobody else can notice.
///
/// # Errors
/// `EPERM` without the right to set the clock.
pub fn step_clock_by_a_nanosecond() -> io::Result<()> {
    // SAFETY: a `timex` of zeros is a valid one.
    let mut step: libc::timex = unsafe { std::mem::zeroed() };
    step.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
    step.time.tv_usec = 1;
    // SAFETY: the kernel reads and writes the one structure that is given, which outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut step) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
