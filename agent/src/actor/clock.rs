//! The clocks that process events and `/proc` are told by.

use attestation::time::Timestamp;
use rustix::time::ClockId;

/// How the clocks stand to each other, looked at once a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    pub(super) now: u64,
    /// Nanoseconds by which the clock that counts sleep is ahead of the one that does not.
    pub(super) asleep: u64,
    /// Microseconds since 1970 at the start of the monotonic clock.
    wall: i64,
}

impl Clocks {
    pub(super) fn look() -> Self {
        let now = monotonic();
        let micros = i64::try_from(now / 1_000).unwrap_or(i64::MAX);
        Self {
            now,
            asleep: asleep(),
            wall: crate::clock::now().as_micros().saturating_sub(micros),
        }
    }

    pub(super) fn at(&self, nanos: u64) -> Timestamp {
        let micros = i64::try_from(nanos / 1_000).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.wall.saturating_add(micros))
    }
}

/// Nanoseconds of the clock that process events are told by.
pub(crate) fn monotonic() -> u64 {
    nanos(ClockId::Monotonic)
}

/// How far the clock that counts sleep is ahead of the one that does not, in nanoseconds.
pub(super) fn asleep() -> u64 {
    let monotonic = monotonic();
    nanos(ClockId::Boottime).saturating_sub(monotonic)
}

fn nanos(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
