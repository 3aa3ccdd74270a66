//! Test writes: what the watch must hear, or it is not called working.
//!
//! An unnamed file is made on each writable file system in scope, written and closed. It has no name and leaves nothing,
//! yet the kernel must tell of it. Deciding is plain code over times; who writes and who listens calls it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::time::Timestamp;

/// Between test writes.
pub(super) const PERIOD: Duration = Duration::from_secs(60);
/// A reader that needs longer than this for one event is as good as none.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// And it has been looked for at least so often: a machine, or we, may have been stopped meanwhile.
const LOOKS: u32 = 20;
/// Test files that are listened for at a time: one for each file system in scope.
const OUTSTANDING: usize = 256;

/// The test files that were written and not yet heard of; shared by who writes and who reads events.
#[derive(Debug, Default)]
pub(super) struct Canaries {
    expected: Mutex<BTreeSet<Vec<u8>>>,
    heard: Mutex<BTreeSet<Vec<u8>>>,
    outstanding: AtomicUsize,
}

impl Canaries {
    /// Listens for a file from now on.
    pub(super) fn expect(&self, key: Vec<u8>) {
        let mut expected = lock(&self.expected);
        if expected.len() < OUTSTANDING {
            expected.insert(key);
        }
        self.outstanding.store(expected.len(), Ordering::Release);
    }

    /// Whether an event is that of a test file; if so it was heard.
    pub(super) fn hear(&self, key: &[u8]) -> bool {
        // Without a look at a lock while nothing is listened for.
        if self.outstanding.load(Ordering::Acquire) == 0 || !lock(&self.expected).contains(key) {
            return false;
        }
        let mut heard = lock(&self.heard);
        if !heard.contains(key) {
            heard.insert(key.to_vec());
        }
        true
    }

    /// Whether any file is listened for.
    pub(super) fn any_expected(&self) -> bool {
        self.outstanding.load(Ordering::Acquire) > 0
    }

    fn was_heard(&self, key: &[u8]) -> bool {
        lock(&self.heard).contains(key)
    }

    /// Nothing more is expected of this file.
    fn forget(&self, key: &[u8]) {
        let mut expected = lock(&self.expected);
        expected.remove(key);
        self.outstanding.store(expected.len(), Ordering::Release);
        lock(&self.heard).remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of writing a test file.
#[derive(Debug)]
pub(super) enum Attempt {
    /// Written and closed; this is what events call it.
    Written(Vec<u8>),
    /// The file system takes no writes.
    ReadOnly,
    /// No test file could be made, in words.
    Refused(String),
}

/// One file system in scope and its test writes.
#[derive(Debug)]
pub(super) struct Nest {
    /// The file system, in words.
    place: String,
    state: State,
    next: Instant,
    /// When a test write last came back.
    good: Timestamp,
    deaf: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Out {
        key: Vec<u8>,
        until: Instant,
        looks: u32,
    },
    ReadOnly,
    Refused(String),
}

/// What changed with a look at a nest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A test write did not come back in time.
    Deaf { since: Timestamp },
    /// The next one did.
    Hears,
}

impl Nest {
    /// A file system that is watched since `wall`.
    pub(super) fn new(place: String, now: Instant, wall: Timestamp) -> Self {
        Self {
            place,
            state: State::Idle,
            next: now,
            good: wall,
            deaf: false,
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether the last test write did not come back.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Whether no test write is on its way.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.state, State::Out { .. })
    }

    /// Whether a test file is to be written now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !matches!(self.state, State::Out { .. }) && now >= self.next
    }

    /// The next test file is written now: somebody wants to know.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// A test file was written, or could not be.
    pub(super) fn attempted(&mut self, attempt: Attempt, now: Instant) {
        self.next = now + PERIOD;
        self.state = match attempt {
            Attempt::Written(key) => State::Out {
                key,
                until: now + PATIENCE,
                looks: 0,
            },
            Attempt::ReadOnly => State::ReadOnly,
            Attempt::Refused(error) => State::Refused(error),
        };
    }

    /// Looks whether the test file was heard of.
    pub(super) fn look(
        &mut self,
        canaries: &Canaries,
        now: Instant,
        wall: Timestamp,
    ) -> Option<Change> {
        let State::Out { key, until, looks } = &mut self.state else {
            return None;
        };
        *looks = looks.saturating_add(1);
        let heard = canaries.was_heard(key);
        if !heard && (now < *until || *looks < LOOKS) {
            return None;
        }
        canaries.forget(key);
        self.state = State::Idle;
        if heard {
            self.good = wall;
            return std::mem::take(&mut self.deaf).then_some(Change::Hears);
        }
        let before = std::mem::replace(&mut self.deaf, true);
        (!before).then_some(Change::Deaf { since: self.good })
    }

    /// When to look again.
    pub(super) fn wake_at(&self) -> Instant {
        match &self.state {
            State::Out { until, .. } => *until,
            _ => self.next,
        }
    }

    /// What a statement says of it: nothing while it works.
    pub(super) fn limit(&self) -> Option<String> {
        let place = &self.place;
        if self.deaf {
            return Some(format!(
                "the watch does not work on {place}: a test write did not come back as an event"
            ));
        }
        match &self.state {
            State::ReadOnly => Some(format!(
                "{place} is read-only: the watch there is not tested by writing"
            )),
            State::Refused(error) => Some(format!("the watch on {place} is not tested: {error}")),
            State::Idle | State::Out { .. } => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn a_test_write_that_comes_back_says_nothing_and_the_next_is_a_minute_later() {
        let (canaries, start) = (Canaries::default(), Instant::now());
        let mut nest = Nest::new("/".into(), start, at(0));
        assert!(nest.is_due(start));
        canaries.expect(b"one".to_vec());
        nest.attempted(Attempt::Written(b"one".to_vec()), start);
        assert!(!nest.is_due(start + PERIOD));
        assert!(!canaries.hear(b"other"));
        assert!(canaries.hear(b"one"));
        assert_eq!(nest.look(&canaries, start, at(1)), None);
        assert_eq!(nest.limit(), None);
        assert!(!canaries.any_expected());
        assert!(!nest.is_due(start + PERIOD - Duration::from_millis(1)));
        assert!(nest.is_due(start + PERIOD));
        nest.hurry(start);
        assert!(nest.is_due(start));
    }

    #[test]
    fn a_test_write_on_its_way_is_not_followed_by_another_however_much_it_is_hurried() {
        let start = Instant::now();
        let mut nest = Nest::new("/".into(), start, at(0));
        nest.attempted(Attempt::Written(b"k".to_vec()), start);
        nest.hurry(start);
        assert!(!nest.is_due(start + PATIENCE));
        assert_eq!(nest.wake_at(), start + PATIENCE);
    }

    #[test]
    fn one_that_does_not_come_back_is_told_once_from_the_last_good_one_on_until_one_does() {
        let (canaries, start) = (Canaries::default(), Instant::now());
        let mut nest = Nest::new("/srv".into(), start, at(0));
        for (turn, expected) in [Some(Change::Deaf { since: at(0) }), None]
            .into_iter()
            .enumerate()
        {
            let now = start + PERIOD * u32::try_from(turn).unwrap();
            canaries.expect(b"k".to_vec());
            nest.attempted(Attempt::Written(b"k".to_vec()), now);
            assert_eq!(nest.look(&canaries, now, at(5)), None);
            // Whoever was stopped for long looks a few times more before it says so.
            for _ in 2..LOOKS {
                assert_eq!(nest.look(&canaries, now + PATIENCE, at(9)), None);
            }
            assert_eq!(nest.look(&canaries, now + PATIENCE, at(10)), expected);
            assert!(nest.limit().unwrap().contains("does not work on /srv"));
        }
        let now = start + PERIOD * 2;
        canaries.expect(b"k".to_vec());
        nest.attempted(Attempt::Written(b"k".to_vec()), now);
        assert!(canaries.hear(b"k"));
        assert_eq!(nest.look(&canaries, now, at(120)), Some(Change::Hears));
        assert_eq!(nest.limit(), None);
    }

    #[test]
    fn read_only_and_refused_are_stated() {
        let start = Instant::now();
        let mut nest = Nest::new("/".into(), start, at(0));
        nest.attempted(Attempt::ReadOnly, start);
        assert!(nest.limit().unwrap().contains("read-only"));
        nest.attempted(Attempt::Refused("no space".into()), start);
        assert!(nest.limit().unwrap().contains("no space"));
        assert_eq!(nest.look(&Canaries::default(), start, at(1)), None);
    }
}
