//! Steps of the wall clock, and sleep: what makes times of change doubtful, or the watch blind.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};

/// Sleep shorter than this is the jitter of two readings.
const SLEPT: Duration = Duration::from_millis(500);
/// After sleep the wall clock is read from hardware that knows whole seconds.
const HARDWARE: Duration = Duration::from_secs(2);
/// The timer lies so far ahead that only a step ends it.
const FAR: i64 = 100 * 365 * 86_400;

/// Readings of the three clocks, as near to one moment as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Nanoseconds that the wall clock is ahead of the time since boot.
    pub(super) ahead: i128,
    /// Nanoseconds asleep since boot.
    pub(super) asleep: i128,
}

/// What happened to time between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) clock_set: bool,
    pub(super) slept: bool,
}

/// `cancelled`: the kernel said that the clock was set. Steps forth and back leave no difference, so its word counts; but it
/// says so at the end of each sleep as well.
pub(super) fn happened(before: &Reading, now: &Reading, cancelled: bool) -> Happened {
    let slept = now.asleep - before.asleep > nanos(SLEPT);
    let moved = (now.ahead - before.ahead).abs();
    Happened {
        clock_set: if slept {
            moved > nanos(HARDWARE)
        } else {
            cancelled
        },
        slept,
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// Reads the clocks.
pub(super) fn read() -> Reading {
    let of = |clock| {
        let time = rustix::time::clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let boot = of(ClockId::Boottime);
    Reading {
        ahead: of(ClockId::Realtime) - boot,
        asleep: boot - of(ClockId::Monotonic),
    }
}

/// A timer that becomes readable when the wall clock is set.
#[derive(Debug)]
pub(super) struct StepTimer(OwnedFd);

impl StepTimer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = Self(rustix::time::timerfd_create(
            TimerfdClockId::Realtime,
            flags,
        )?);
        timer.arm()?;
        Ok(timer)
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Whether the clock was set since the last question; the timer is armed again before the answer, so no step is missed.
    pub(super) fn was_set(&self) -> io::Result<bool> {
        let cancelled = match rustix::io::read(&self.0, &mut [0_u8; 8]) {
            Err(Errno::CANCELED) | Ok(_) => true,
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        if cancelled {
            self.arm()?;
        }
        Ok(cancelled)
    }

    fn arm(&self) -> io::Result<()> {
        let now = rustix::time::clock_gettime(ClockId::Realtime);
        let never = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let at = Itimerspec {
            it_interval: never,
            it_value: Timespec {
                tv_sec: now.tv_sec.saturating_add(FAR),
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        rustix::time::timerfd_settime(&self.0, flags, &at)?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    fn reading(ahead: i128, asleep: i128) -> Reading {
        Reading { ahead, asleep }
    }

    fn told(before: (i128, i128), now: (i128, i128), cancelled: bool) -> (bool, bool) {
        let happened = happened(
            &reading(before.0, before.1),
            &reading(now.0, now.1),
            cancelled,
        );
        (happened.clock_set, happened.slept)
    }

    #[test]
    fn the_kernels_word_counts_even_when_the_clock_was_put_back() {
        assert_eq!(told((5, 0), (5, 0), true), (true, false));
        assert_eq!(told((5, 0), (-3600 * SECOND, 0), true), (true, false));
    }

    #[test]
    fn drift_is_no_step() {
        assert_eq!(told((0, 0), (SECOND / 1000, 0), false), (false, false));
    }

    #[test]
    fn sleep_is_told_as_sleep_and_a_step_beside_it_as_both() {
        assert_eq!(told((0, 0), (SECOND / 2, 60 * SECOND), true), (false, true));
        assert_eq!(told((0, 0), (-9 * SECOND, 60 * SECOND), true), (true, true));
        assert_eq!(told((0, 0), (0, SECOND / 1000), false), (false, false));
    }

    /// The one step that harms nobody: a nanosecond ahead. Needs the right to set the clock.
    #[test]
    #[ignore = "sets the clock of the machine: every agent that runs on it tells of a step"]
    fn a_step_of_the_clock_is_heard_of() {
        let timer = StepTimer::new().unwrap();
        assert!(!timer.was_set().unwrap());
        if let Err(error) = crate::sys::step_clock_by_a_nanosecond() {
            eprintln!("skipped: the clock may not be set here: {error}");
            return;
        }
        assert!(timer.was_set().unwrap());
        assert!(!timer.was_set().unwrap());
    }
}
