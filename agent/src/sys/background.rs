//! A thread that gives way to all others.

use std::io;

/// Who is meant: a thread (`IOPRIO_WHO_PROCESS`), namely this one.
const ONE_THREAD: libc::c_int = 1;
/// `IOPRIO_CLASS_IDLE` at its place in the number.
const IDLE: libc::c_int = 3 << 13;
/// The lowest weight.
const NICEST: libc::c_int = 19;

/// Puts the calling thread into the idle class of I/O and gives it the lowest weight of the processor. Each is tried.
///
/// # Errors
/// What the kernel said to the last that it refused.
pub fn give_way() -> io::Result<()> {
    let mut result = Ok(());
    // SAFETY: the call takes three integers; 0 means the calling thread.
    if unsafe { libc::syscall(libc::SYS_ioprio_set, ONE_THREAD, 0, IDLE) } != 0 {
        result = Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes integers; on Linux 0 means the calling thread, not its process.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) } != 0 {
        result = Err(io::Error::last_os_error());
    }
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_has_the_lowest_weight_and_the_idle_class() {
        let given_way = std::thread::spawn(|| {
            give_way().unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // What follows the name, which may hold anything.
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let nice = fields.split_whitespace().nth(16).map(str::to_owned);
            // SAFETY: the call takes two integers; 0 means the calling thread.
            let class = unsafe { libc::syscall(libc::SYS_ioprio_get, ONE_THREAD, 0) };
            (nice.unwrap(), class)
        });
        let (nice, class) = given_way.join().unwrap();
        assert_eq!(nice, NICEST.to_string());
        assert_eq!(class, libc::c_long::from(IDLE));
    }
}
