//! When to attest, when to rescan. Pure: events and the time go in, actions come out; no clock, no file, no thread.
//!
//! The first change after quiet is told at once; what follows is gathered. Sustained change stays within the node's
//! budget by gathering longer, never by leaving something out.

use std::time::{Duration, Instant};

/// The pace of a monitor; [`Pace::default`] is DESIGN.md's.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between quiet statements.
    pub interval: Duration,
    /// Changes that follow each other within this belong together.
    pub gather: Duration,
    /// The first of them never waits longer than this for the last.
    pub gather_at_most: Duration,
    /// Between looks at everything.
    pub rescan: Duration,
    /// Statements a second that the collector takes from one node for good.
    pub sustained: u32,
    /// Statements that may be ahead of that.
    pub burst: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            gather: Duration::from_millis(20),
            gather_at_most: Duration::from_millis(200),
            rescan: Duration::from_secs(600),
            sustained: 10,
            burst: 600,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that must be told was found.
    Changed,
    /// The view of the root was begun anew, or mended, and must be told whatever the budget says about gathering.
    Begun,
    /// A statement was signed.
    Attested,
    /// There was nothing to sign a quiet statement with: it waits until [`Event::Ready`].
    Postponed,
    /// What changed cannot be signed now: it is tried again in a second.
    Held,
    /// A challenge is in hand again.
    Ready,
    /// A rescan is wanted now: events were lost, the collector asked, a gap must be closed.
    RescanWanted,
    /// A rescan ended.
    Rescanned,
}

/// What must be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign what changed.
    Attest,
    /// Sign a quiet statement.
    Heartbeat,
    /// Look at everything, mounts included.
    Rescan,
}

/// The state between events.
#[derive(Debug)]
pub struct Monitor {
    pace: Pace,
    pending: Option<Pending>,
    last_change: Option<Instant>,
    last_attested: Instant,
    postponed: bool,
    rescan_at: Option<Instant>,
    rescanning: bool,
    rescan_again: bool,
    /// Statements that may be signed now, in thousandths.
    tokens: u64,
    refilled: Instant,
    /// At least this long between statements while the last one was large.
    spacing: Duration,
    /// After a change could not be signed.
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    last: Instant,
    at_once: bool,
}

impl Monitor {
    /// A monitor that owes a heartbeat one interval from now, and a rescan one rescan time from now.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            pending: None,
            last_change: None,
            last_attested: now,
            postponed: false,
            rescan_at: Some(now + pace.rescan),
            rescanning: false,
            rescan_again: false,
            tokens: u64::from(pace.burst) * 1000,
            refilled: now,
            spacing: Duration::ZERO,
            not_before: None,
        }
    }

    /// The collector's interval, or a shorter one of the configuration.
    pub fn set_interval(&mut self, interval: Duration) {
        // Below a second a node would spend its budget on saying nothing.
        self.pace.interval = interval.max(Duration::from_secs(1));
    }

    /// Between quiet statements.
    pub fn interval(&self) -> Duration {
        self.pace.interval
    }

    /// Another time between rescans, counted from now.
    pub fn set_rescan(&mut self, rescan: Duration, now: Instant) {
        self.pace.rescan = rescan;
        // One that is wanted at once stays so.
        self.rescan_at = self.rescan_at.map(|at| at.min(now + rescan));
    }

    /// How large the last statement was: a large one is not repeated in full several times a second.
    pub fn set_weight(&mut self, bytes: usize, unlisted: bool) {
        self.spacing = if unlisted {
            Duration::from_secs(60)
        } else {
            // 64 KiB a second, sustained, is what the daily budget bears for a while.
            Duration::from_millis(u64::try_from(bytes / 64).unwrap_or(u64::MAX).min(20_000))
                .saturating_sub(Duration::from_millis(200))
        };
    }

    /// Takes an event in.
    pub fn event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Changed => self.changed(now),
            Event::Begun => {
                self.pending = Some(Pending {
                    first: now,
                    last: now,
                    at_once: true,
                });
            }
            Event::Attested => {
                self.refill(now);
                self.tokens = self.tokens.saturating_sub(1000);
                self.last_attested = now;
                self.pending = None;
                self.postponed = false;
                self.not_before = None;
            }
            Event::Postponed => self.postponed = true,
            Event::Held => self.not_before = Some(now + Duration::from_secs(1)),
            Event::Ready => {
                if self.postponed {
                    self.postponed = false;
                    // What was owed is owed now.
                    self.last_attested = now
                        .checked_sub(self.pace.interval)
                        .unwrap_or(self.last_attested);
                }
            }
            Event::RescanWanted => {
                if self.rescanning {
                    self.rescan_again = true;
                } else {
                    self.rescan_at = Some(now);
                }
            }
            Event::Rescanned => {
                self.rescanning = false;
                let again = std::mem::take(&mut self.rescan_again);
                self.rescan_at = Some(if again { now } else { now + self.pace.rescan });
            }
        }
    }

    /// What must be done at `now`.
    pub fn due(&mut self, now: Instant) -> Option<Action> {
        self.refill(now);
        if self.attest_at(now).is_some_and(|at| at <= now) {
            return Some(Action::Attest);
        }
        if self.rescan_at.is_some_and(|at| at <= now) {
            self.rescan_at = None;
            self.rescanning = true;
            return Some(Action::Rescan);
        }
        if self.heartbeat_at().is_some_and(|at| at <= now) {
            return Some(Action::Heartbeat);
        }
        None
    }

    /// How long nothing is due, if no event comes.
    pub fn idle(&self, now: Instant) -> Duration {
        [self.attest_at(now), self.heartbeat_at(), self.rescan_at]
            .into_iter()
            .flatten()
            .min()
            .map_or(self.pace.interval, |at| at.saturating_duration_since(now))
            .min(self.pace.interval)
    }

    fn changed(&mut self, now: Instant) {
        let after_quiet = self
            .last_change
            .is_none_or(|last| now.saturating_duration_since(last) > self.pace.gather_at_most);
        self.last_change = Some(now);
        match &mut self.pending {
            Some(pending) => pending.last = now,
            None => {
                self.pending = Some(Pending {
                    first: now,
                    last: now,
                    at_once: after_quiet,
                });
            }
        }
    }

    /// When the pending change is told.
    fn attest_at(&self, now: Instant) -> Option<Instant> {
        let pending = self.pending?;
        let gathered = if pending.at_once {
            pending.first
        } else {
            (pending.last + self.pace.gather).min(pending.first + self.pace.gather_at_most)
        };
        let mut at = gathered.max(self.last_attested + self.spacing_now(pending.at_once));
        if self.tokens < 1000 {
            at = at.max(now + self.until_token());
        }
        Some(self.not_before.map_or(at, |not_before| at.max(not_before)))
    }

    /// Half the burst is for whoever changes something now and then; below that, the sustained rate.
    fn spacing_now(&self, at_once: bool) -> Duration {
        let low = self.tokens < u64::from(self.pace.burst) * 500;
        let budget = if low && !at_once {
            Duration::from_secs(1) / self.pace.sustained.max(1)
        } else {
            Duration::ZERO
        };
        budget.max(self.spacing)
    }

    fn until_token(&self) -> Duration {
        let missing = 1000_u64.saturating_sub(self.tokens);
        Duration::from_millis(missing.div_ceil(u64::from(self.pace.sustained.max(1))))
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        if self.postponed {
            return None;
        }
        Some(self.last_attested + self.pace.interval)
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_millis();
        let gained = u64::try_from(passed)
            .unwrap_or(u64::MAX)
            .saturating_mul(u64::from(self.pace.sustained));
        if gained > 0 {
            self.refilled = now;
            self.tokens = self
                .tokens
                .saturating_add(gained)
                .min(u64::from(self.pace.burst) * 1000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs events at given milliseconds and returns when each action came, asking every millisecond.
    fn play(pace: Pace, script: &[(u64, Event)], until: u64) -> Vec<(u64, Action)> {
        let start = Instant::now();
        let mut monitor = Monitor::new(pace, start);
        let mut acted = Vec::new();
        let mut script = script.iter().peekable();
        for at in 0..=until {
            let now = start + Duration::from_millis(at);
            while let Some((_, event)) = script.next_if(|(when, _)| *when == at) {
                monitor.event(now, *event);
            }
            while let Some(action) = monitor.due(now) {
                acted.push((at, action));
                match action {
                    Action::Attest | Action::Heartbeat => monitor.event(now, Event::Attested),
                    Action::Rescan => monitor.event(now, Event::Rescanned),
                }
            }
        }
        acted
    }

    fn quiet_pace() -> Pace {
        Pace {
            interval: Duration::from_secs(3600),
            ..Pace::default()
        }
    }

    #[test]
    fn the_first_change_after_quiet_is_told_at_once() {
        assert_eq!(
            play(quiet_pace(), &[(50, Event::Changed)], 400),
            [(50, Action::Attest)]
        );
    }

    #[test]
    fn what_follows_is_gathered() {
        let script = [
            (50, Event::Changed),
            (53, Event::Changed),
            (60, Event::Changed),
        ];
        assert_eq!(
            play(quiet_pace(), &script, 400),
            [(50, Action::Attest), (80, Action::Attest)]
        );
    }

    #[test]
    fn a_storm_is_told_every_200_milliseconds() {
        let script: Vec<_> = (50..1050).map(|at| (at, Event::Changed)).collect();
        let acted = play(quiet_pace(), &script, 2000);
        assert_eq!(acted.len(), 6);
        assert_eq!(acted[0], (50, Action::Attest));
        assert_eq!(acted[1], (251, Action::Attest));
    }

    #[test]
    fn a_long_storm_stays_within_the_budget() {
        let pace = Pace {
            burst: 20,
            ..quiet_pace()
        };
        let script: Vec<_> = (0..60_000).map(|at| (at, Event::Changed)).collect();
        let acted = play(pace, &script, 60_000);
        assert!(acted.len() <= 20 + 600, "{} statements", acted.len());
        assert!(acted.len() >= 250, "{} statements", acted.len());
    }

    #[test]
    fn pulses_that_are_each_first_after_quiet_stay_within_the_budget() {
        let pace = Pace {
            burst: 5,
            sustained: 1,
            ..quiet_pace()
        };
        let script: Vec<_> = (0..100)
            .map(|pulse| (pulse * 300, Event::Changed))
            .collect();
        let acted = play(pace, &script, 30_000);
        assert!(acted.len() <= 35, "{} statements", acted.len());
    }

    #[test]
    fn a_heartbeat_comes_at_the_interval_and_a_rescan_at_its_time() {
        let pace = Pace {
            interval: Duration::from_secs(30),
            rescan: Duration::from_secs(70),
            ..Pace::default()
        };
        assert_eq!(
            play(pace, &[], 91_000),
            [
                (30_000, Action::Heartbeat),
                (60_000, Action::Heartbeat),
                (70_000, Action::Rescan),
                (90_000, Action::Heartbeat)
            ]
        );
    }

    #[test]
    fn a_postponed_heartbeat_comes_when_a_challenge_does() {
        let start = Instant::now();
        let mut monitor = Monitor::new(Pace::default(), start);
        let later = start + Duration::from_secs(31);
        assert_eq!(monitor.due(later), Some(Action::Heartbeat));
        monitor.event(later, Event::Postponed);
        assert_eq!(monitor.due(later + Duration::from_secs(100)), None);
        let back = later + Duration::from_secs(120);
        monitor.event(back, Event::Ready);
        assert_eq!(monitor.due(back), Some(Action::Heartbeat));
    }

    #[test]
    fn a_rescan_wanted_during_a_rescan_comes_after_it() {
        let start = Instant::now();
        let mut monitor = Monitor::new(quiet_pace(), start);
        monitor.event(start, Event::RescanWanted);
        assert_eq!(monitor.due(start), Some(Action::Rescan));
        monitor.event(start, Event::RescanWanted);
        assert_eq!(monitor.due(start), None);
        monitor.event(start, Event::Rescanned);
        assert_eq!(monitor.due(start), Some(Action::Rescan));
    }

    #[test]
    fn a_large_statement_is_not_repeated_several_times_a_second() {
        let start = Instant::now();
        let mut monitor = Monitor::new(quiet_pace(), start);
        monitor.event(start, Event::Changed);
        assert_eq!(monitor.due(start), Some(Action::Attest));
        monitor.event(start, Event::Attested);
        monitor.set_weight(256 * 1024, false);
        monitor.event(start, Event::Changed);
        assert_eq!(monitor.due(start + Duration::from_secs(2)), None);
        assert_eq!(
            monitor.due(start + Duration::from_secs(5)),
            Some(Action::Attest)
        );
        monitor.set_weight(1 << 20, true);
        monitor.event(start + Duration::from_secs(5), Event::Attested);
        monitor.event(start + Duration::from_secs(5), Event::Changed);
        assert_eq!(monitor.due(start + Duration::from_secs(60)), None);
        assert_eq!(
            monitor.due(start + Duration::from_secs(66)),
            Some(Action::Attest)
        );
    }
}
