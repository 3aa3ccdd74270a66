//! How fast content is read again: within a budget of the processor, and no faster than the deadline asks. Pure: time,
//! processor time and bytes go in, how long to rest comes out.

use std::time::Duration;

/// Everything is read again within this (DESIGN.md).
pub(super) const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// A round is planned to take this much of the deadline: what comes late still comes in time.
const PLANNED: Duration = Duration::from_secs(20 * 3600);
/// Processor time that may be saved up while there is nothing to do.
const SAVED: i64 = 50_000_000;
/// Once the budget is used up it is let grow to this, so that work comes in pieces worth waking up for.
const PIECE: i64 = 5_000_000;
/// The longest rest before it is thought over again.
const LONGEST: Duration = Duration::from_secs(60);
/// Shorter rests are saved up.
const SHORTEST: Duration = Duration::from_millis(50);

/// The pace of one round after the other.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// Millionths of one processor.
    share: u32,
    /// As fast as the budget allows: nothing has been read in this run yet.
    hurry: bool,
    /// Bytes of a round.
    total: u64,
    /// Bytes of this round that are read.
    done: u64,
    /// Processor time that this round took.
    spent: Duration,
    /// When this round began.
    began: Duration,
    /// Processor time that may be used, in nanoseconds; below 0 it was used ahead.
    credit: i64,
    at: Duration,
    used: Duration,
}

impl Pacer {
    /// `percent` of one processor; times and processor times are counted from any beginning.
    pub(super) fn new(percent: f64, now: Duration, used: Duration) -> Self {
        // Whole millionths: a share below one is none.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 0 and a million"
        )]
        let share = (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
        Self {
            share: share.max(1),
            hurry: true,
            total: 0,
            done: 0,
            spent: Duration::ZERO,
            began: now,
            credit: SAVED,
            at: now,
            used,
        }
    }

    /// A round begins.
    pub(super) fn round(&mut self, total: u64, hurry: bool, now: Duration) {
        self.total = total;
        self.hurry = hurry;
        self.done = 0;
        self.spent = Duration::ZERO;
        self.began = now;
    }

    /// So many bytes were read since the last time; how long to rest before reading on.
    pub(super) fn rest(&mut self, now: Duration, used: Duration, bytes: u64) -> Duration {
        let passed = now.saturating_sub(self.at);
        let work = used.saturating_sub(self.used);
        self.at = now;
        self.used = used;
        self.done = self.done.saturating_add(bytes);
        self.spent += work;
        let earned = self.earned(passed);
        self.credit = self
            .credit
            .saturating_add(earned)
            .saturating_sub(nanos(work))
            .min(SAVED);
        self.for_budget().max(self.for_plan(now)).min(LONGEST)
    }

    /// How long a round takes within the budget, by what it has taken until now.
    pub(super) fn round_takes(&self) -> Option<Duration> {
        if self.done < self.total / 100 || self.done == 0 {
            return None;
        }
        let whole = u128::from(self.total) * self.spent.as_nanos() / u128::from(self.done);
        let takes = whole * 1_000_000 / u128::from(self.share);
        Some(Duration::from_nanos(
            u64::try_from(takes).unwrap_or(u64::MAX),
        ))
    }

    fn earned(&self, passed: Duration) -> i64 {
        let earned = passed.as_nanos() * u128::from(self.share) / 1_000_000;
        i64::try_from(earned).unwrap_or(i64::MAX)
    }

    fn for_budget(&self) -> Duration {
        if self.credit > 0 {
            return Duration::ZERO;
        }
        let missing = u128::from(PIECE.saturating_sub(self.credit).unsigned_abs());
        let nanos = missing * 1_000_000 / u128::from(self.share);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn for_plan(&self, now: Duration) -> Duration {
        if self.hurry {
            return Duration::ZERO;
        }
        // What is read by now was due at this part of the plan; where there is nothing to read, all of it is.
        let (done, total) = match self.total {
            0 => (1, 1),
            total => (u128::from(self.done), u128::from(total)),
        };
        let part = PLANNED.as_nanos() * done / total;
        let due = Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX)).min(PLANNED);
        let ahead = due.saturating_sub(now.saturating_sub(self.began));
        if ahead < SHORTEST {
            Duration::ZERO
        } else {
            ahead
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `total` bytes in pieces that cost a nanosecond of work for so many bytes; returns time and work.
    fn read(pacer: &mut Pacer, total: u64, piece: u64, per_nano: u64) -> (Duration, Duration) {
        let (mut now, mut used) = (Duration::ZERO, Duration::ZERO);
        let mut left = total;
        let mut bytes = 0;
        loop {
            let rest = pacer.rest(now, used, bytes);
            if !rest.is_zero() {
                now += rest;
                bytes = 0;
                continue;
            }
            if left == 0 {
                return (now, used);
            }
            bytes = piece.min(left);
            left -= bytes;
            let work = Duration::from_nanos(bytes / per_nano + 20_000);
            now += work;
            used += work;
        }
    }

    #[test]
    fn the_first_round_takes_what_the_budget_allows() {
        let mut pacer = Pacer::new(1.0, Duration::ZERO, Duration::ZERO);
        let total = 10 << 30;
        pacer.round(total, true, Duration::ZERO);
        let (time, work) = read(&mut pacer, total, 1 << 18, 1);
        assert!(
            work <= time / 100 + Duration::from_millis(60),
            "{work:?} of {time:?}"
        );
        assert!(work >= time / 110, "{work:?} of {time:?}");
        let estimate = pacer.round_takes().unwrap_or_default();
        assert!(estimate > time.mul_f64(0.9) && estimate < time.mul_f64(1.1));
    }

    #[test]
    fn later_rounds_are_spread_and_come_before_the_deadline() {
        let mut pacer = Pacer::new(1.0, Duration::ZERO, Duration::ZERO);
        let total = 10 << 30;
        pacer.round(total, false, Duration::ZERO);
        let (time, _) = read(&mut pacer, total, 1 << 18, 1);
        assert!(time > PLANNED.mul_f64(0.99) && time < DEADLINE, "{time:?}");
    }

    #[test]
    fn what_the_budget_does_not_hold_takes_longer_and_is_known_to() {
        let mut pacer = Pacer::new(1.0, Duration::ZERO, Duration::ZERO);
        let total = 4 << 40;
        pacer.round(total, false, Duration::ZERO);
        let (time, work) = read(&mut pacer, total / 50, 1 << 20, 1);
        assert!(work <= time / 100 + Duration::from_millis(60));
        let takes = pacer.round_takes().unwrap_or_default();
        assert!(takes > DEADLINE, "{takes:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_budget_is_kept_whatever_is_read(
            percent in 1_u32..100,
            pieces in proptest::collection::vec((0_u64..1 << 22, 0_u64..30_000_000, 0_u64..5_000_000), 1..200),
            hurry: bool,
        ) {
            let mut pacer = Pacer::new(f64::from(percent), Duration::ZERO, Duration::ZERO);
            pacer.round(1 << 30, hurry, Duration::ZERO);
            let (mut now, mut used) = (Duration::ZERO, Duration::ZERO);
            let mut longest = Duration::ZERO;
            for (bytes, work, waited) in pieces {
                let work = Duration::from_nanos(work);
                longest = longest.max(work);
                used += work;
                now += work + Duration::from_nanos(waited);
                let mut rest = pacer.rest(now, used, bytes);
                while !rest.is_zero() {
                    prop_assert!(rest <= LONGEST);
                    now += rest;
                    rest = pacer.rest(now, used, 0);
                }
            }
            // Ahead of the budget by what may be saved up, and by the last piece.
            let allowed = now * percent / 100 + Duration::from_nanos(50_000_000) + longest;
            prop_assert!(used <= allowed, "{:?} of {:?}", used, allowed);
        }
    }
}
