//! What was told and not yet taken: a bounded map in which repeats are merged.
//!
//! The reader thread writes, the consumer takes all. Above the limit nothing is kept but the fact that something is lost.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use attestation::time::Timestamp;

use super::EventSet;
use super::report::Report;
use crate::actor::{Doer, knows_less};

/// Places kept between two takes: a hundred thousand removals bring two each (the name, and the object without one); at
/// some 180 bytes a place they are 45 MiB at the worst.
const PLACE_LIMIT: usize = 262_144;
/// From here on actors are told without command line and parents, which take the most: ten times as much as a place.
const CROWD: usize = 32_768;
/// Directories known to be of no interest. When full it is emptied and learnt anew.
const IGNORED_LIMIT: usize = 65_536;

/// Reports kept between two takes; they come once a minute, or by the hand of somebody who mounts in a loop.
const REPORT_LIMIT: usize = 1_024;

/// Bytes that name a place: what they mean is known to the mechanism that wrote them.
pub(super) type Key = Box<[u8]>;

/// Merged events of one place.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) events: EventSet,
    pub(super) subtree: bool,
    pub(super) actor: Option<Arc<Doer>>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: u64,
}

/// All that was gathered since the last take.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) seen: HashMap<Key, Seen>,
    pub(super) lost: Option<String>,
    pub(super) mounts_changed: bool,
    pub(super) reports: Vec<Report>,
    pub(super) login_of_root: bool,
    pub(super) woken: bool,
    /// Counts the moves of directories; what was learnt under an older number may be wrong.
    pub(super) generation: u64,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.seen.is_empty()
            && self.lost.is_none()
            && !self.mounts_changed
            && self.reports.is_empty()
            && !self.login_of_root
            && !self.woken
    }
}

#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    gathered: Gathered,
    ignored: HashSet<Key>,
}

impl State {
    fn ignore(&mut self, directory: &[u8]) {
        if self.ignored.len() >= IGNORED_LIMIT {
            self.ignored.clear();
        }
        self.ignored.insert(directory.into());
    }
}

/// One event, as it is put on the board.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) events: EventSet,
    pub(super) subtree: bool,
    pub(super) actor: Option<Arc<Doer>>,
    pub(super) at: Timestamp,
}

impl Board {
    /// The board, locked for a batch of events; the bell rings when the batch is done.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            state: self.lock(),
            bell: &self.bell,
        }
    }

    /// Events are missing.
    pub(super) fn lose(&self, cause: &str) {
        self.batch().lose(cause);
    }

    pub(super) fn mounts_changed(&self) {
        self.batch().state.gathered.mounts_changed = true;
    }

    /// Something that concerns more than a place.
    pub(super) fn report(&self, report: Report) {
        let mut batch = self.batch();
        if batch.state.gathered.reports.len() < REPORT_LIMIT {
            batch.state.gathered.reports.push(report);
        } else {
            batch.lose("overflow");
        }
    }

    pub(super) fn root_logged_in(&self) {
        self.batch().state.gathered.login_of_root = true;
    }

    /// Whether so much waits to be taken that less is told of each place.
    pub(super) fn is_crowded(&self) -> bool {
        self.lock().gathered.seen.len() >= CROWD
    }

    pub(super) fn wake(&self) {
        self.batch().state.gathered.woken = true;
    }

    /// Waits for something, at most for `timeout`, and takes all there is.
    pub(super) fn take(&self, timeout: Duration) -> Gathered {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        while state.gathered.is_empty() {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3_600),
            };
            if left.is_zero() {
                break;
            }
            (state, _) = self
                .bell
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let generation = state.gathered.generation;
        mem::replace(
            &mut state.gathered,
            Gathered {
                generation,
                ..Gathered::default()
            },
        )
    }

    /// Remembers that nothing below a directory is of interest, unless directories moved since `generation`.
    pub(super) fn ignore(&self, directory: &[u8], generation: u64) {
        let mut state = self.lock();
        if state.gathered.generation == generation {
            state.ignore(directory);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Batch<'b> {
    state: MutexGuard<'b, State>,
    bell: &'b Condvar,
}

impl Batch<'_> {
    pub(super) fn is_ignored(&self, directory: &[u8]) -> bool {
        self.state.ignored.contains(directory)
    }

    /// Remembers that nothing below a directory is of interest.
    pub(super) fn ignore(&mut self, directory: &[u8]) {
        self.state.ignore(directory);
    }

    /// Directories moved: what was learnt of them no longer holds.
    pub(super) fn directories_moved(&mut self) {
        self.state.gathered.generation = self.state.gathered.generation.wrapping_add(1);
        self.state.ignored.clear();
    }

    /// Lets go of every place that waits to be taken: what happened there is not seen.
    pub(super) fn shed(&mut self, cause: &str) {
        self.state.gathered.seen = HashMap::new();
        self.lose(cause);
    }

    pub(super) fn lose(&mut self, cause: &str) {
        self.state
            .gathered
            .lost
            .get_or_insert_with(|| cause.to_owned());
    }

    pub(super) fn add(&mut self, key: &[u8], event: &Event) {
        let seen = &mut self.state.gathered.seen;
        if let Some(known) = seen.get_mut(key) {
            known.merge(event);
        } else if seen.len() < PLACE_LIMIT {
            seen.insert(key.into(), Seen::from(event));
        } else {
            self.lose("overflow");
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.state.gathered.is_empty() {
            self.bell.notify_one();
        }
    }
}

impl From<&Event> for Seen {
    fn from(event: &Event) -> Self {
        Self {
            events: event.events,
            subtree: event.subtree,
            actor: event.actor.clone(),
            first: event.at,
            last: event.at,
            count: 1,
        }
    }
}

impl Seen {
    fn merge(&mut self, event: &Event) {
        self.absorb(&Self::from(event));
    }

    /// Merges what came under another key of the same place. The last actor is told, with whatever was known of it before.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.events |= other.events;
        self.subtree |= other.subtree;
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        if other.last >= self.last {
            self.last = other.last;
            match (&self.actor, &other.actor) {
                (_, None) => {}
                (Some(old), Some(new)) if knows_less(&new.actor, &old.actor) => {}
                (_, Some(new)) => self.actor = Some(Arc::clone(new)),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use attestation::statement::Actor;

    use super::*;

    fn event(events: EventSet, at: i64, pid: u32, exe: Option<&str>) -> Event {
        let actor = Actor {
            pid,
            exe: exe.map(str::to_owned),
            ..Actor::default()
        };
        Event {
            events,
            subtree: false,
            actor: Some(Arc::new(Doer::from(actor))),
            at: Timestamp::from_micros(at),
        }
    }

    #[test]
    fn repeats_are_merged_and_the_last_actor_is_told() {
        let board = Board::default();
        let mut batch = board.batch();
        batch.add(b"a", &event(EventSet::CREATE, 1, 7, Some("./bin/one")));
        batch.add(b"a", &event(EventSet::MODIFY, 2, 7, None));
        batch.add(b"b", &event(EventSet::MODIFY, 2, 7, Some("./bin/one")));
        batch.add(b"b", &event(EventSet::CLOSE_WRITE, 3, 8, None));
        drop(batch);
        let gathered = board.take(Duration::ZERO);
        let a = &gathered.seen[&b"a"[..]];
        assert_eq!(
            (a.count, a.first.as_micros(), a.last.as_micros()),
            (2, 1, 2)
        );
        assert_eq!(a.events, EventSet::CREATE.union(EventSet::MODIFY));
        assert_eq!(
            a.actor.as_ref().unwrap().actor.exe.as_deref(),
            Some("./bin/one")
        );
        let b = &gathered.seen[&b"b"[..]].actor.as_ref().unwrap().actor;
        assert_eq!((b.pid, b.exe.as_deref()), (8, None));
        assert!(board.take(Duration::ZERO).is_empty());
    }

    #[test]
    fn more_places_than_the_limit_are_a_loss() {
        let board = Board::default();
        for place in 0..=PLACE_LIMIT {
            board
                .batch()
                .add(&place.to_le_bytes(), &event(EventSet::MODIFY, 1, 1, None));
        }
        let gathered = board.take(Duration::ZERO);
        assert_eq!(gathered.seen.len(), PLACE_LIMIT);
        assert_eq!(gathered.lost.as_deref(), Some("overflow"));
    }

    #[test]
    fn what_is_let_go_of_is_a_loss() {
        let board = Board::default();
        board
            .batch()
            .add(b"a", &event(EventSet::MODIFY, 1, 1, None));
        board.batch().shed("memory");
        let gathered = board.take(Duration::ZERO);
        assert!(gathered.seen.is_empty());
        assert_eq!(gathered.lost.as_deref(), Some("memory"));
    }

    #[test]
    fn a_waker_ends_the_wait() {
        let board = Arc::new(Board::default());
        let other = Arc::clone(&board);
        let waiting = std::thread::spawn(move || other.take(Duration::from_secs(60)).woken);
        board.wake();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn what_was_learnt_before_a_move_is_not_kept() {
        let board = Board::default();
        let generation = board.take(Duration::ZERO).generation;
        board.ignore(b"d", generation);
        assert!(board.batch().is_ignored(b"d"));
        board.batch().directories_moved();
        board.ignore(b"d", generation);
        assert!(!board.batch().is_ignored(b"d"));
    }
}
