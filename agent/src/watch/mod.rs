//! Being told of changes: places to look at, never truths.
//!
//! One reader thread takes what the kernel tells and merges it into a bounded board; [`Watch::take`] turns that into
//! paths, on the thread of whoever asks. What was lost is said as [`Lost`], never left out.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::statement::{Actor, WatchCoverage};
use attestation::time::Timestamp;
use thiserror::Error;

use self::board::Board;
use self::fanotify::FanotifyWatch;
use self::inotify::NotifyWatch;
use crate::scan::Root;

pub use self::events::EventSet;

mod board;
mod events;
mod fanotify;
mod handles;
mod inotify;
mod mounts;
pub mod record;

/// Something happened at this path.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where to look.
    pub path: ImagePath,
    /// A directory came, went or moved: what lies below is to be looked at too.
    pub subtree: bool,
    /// What the kernel called it.
    pub events: EventSet,
    /// Who did it last, as far as it could be told.
    pub actor: Option<Actor>,
    /// When the first of the merged events was read.
    pub first: Timestamp,
    /// When the last of the merged events was read.
    pub last: Timestamp,
    /// How many events were merged.
    pub count: u64,
}

/// Events are missing: from the last good one on, everything in scope is unknown until it was scanned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why: `overflow`, or a sentence.
    pub cause: String,
}

/// What [`Watch::take`] has to say.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Places in scope where something happened, one for each path.
    pub places: Vec<Place>,
    /// Set when events are missing.
    pub lost: Option<Lost>,
    /// The mount table changed.
    pub mounts_changed: bool,
    /// A [`Waker`] was used.
    pub woken: bool,
}

impl Taken {
    fn says_something(&self) -> bool {
        !self.places.is_empty() || self.lost.is_some() || self.mounts_changed || self.woken
    }
}

/// Why nothing can be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// Neither mechanism could be started on this root.
    #[error("cannot watch the root: fanotify: {fanotify}; inotify")]
    Refused {
        /// What the kernel said to the first.
        fanotify: String,
        /// What it said to the second.
        #[source]
        inotify: notify::Error,
    },
    /// The reader thread could not be started.
    #[error("cannot start the thread that reads events")]
    Thread(#[source] std::io::Error),
}

/// A running watch; it ends when dropped.
#[derive(Debug)]
pub struct Watch {
    board: Arc<Board>,
    mechanism: Mechanism,
}

#[derive(Debug)]
enum Mechanism {
    Fanotify(FanotifyWatch),
    Notify(NotifyWatch),
}

impl Watch {
    /// Starts to watch everything in scope under `root`, which is at `path`, by the best means that the kernel grants.
    ///
    /// # Errors
    /// When no mechanism works here.
    pub fn start(root: &Root, path: &Path, scope: &Scope) -> Result<Self, WatchError> {
        let board = Arc::new(Board::default());
        let refused = match FanotifyWatch::start(root, scope, &board) {
            Ok(watch) => {
                return Ok(Self {
                    board,
                    mechanism: Mechanism::Fanotify(watch),
                });
            }
            Err(refused) => refused,
        };
        tracing::info!(%refused, "no fanotify, watching by inotify");
        let watch = NotifyWatch::start(root, path, scope, &board, &refused)?;
        Ok(Self {
            board,
            mechanism: Mechanism::Notify(watch),
        })
    }

    /// Which rung of the ladder this is, and in words what it does not see.
    #[must_use]
    pub fn coverage(&self) -> WatchCoverage {
        match &self.mechanism {
            Mechanism::Fanotify(watch) => watch.coverage(),
            Mechanism::Notify(watch) => watch.coverage(),
        }
    }

    /// Waits until there is something to say, somebody wakes it, or the time is over.
    #[must_use]
    pub fn take(&self, timeout: Duration) -> Taken {
        let deadline = Instant::now().checked_add(timeout);
        let mut left = timeout;
        loop {
            let taken = self.take_once(left);
            if taken.says_something() {
                return taken;
            }
            // What was told lies out of scope: as if nothing had been.
            left = deadline.map_or(timeout, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return taken;
            }
        }
    }

    fn take_once(&self, timeout: Duration) -> Taken {
        let gathered = self.board.take(timeout);
        let places = match &self.mechanism {
            _ if gathered.seen.is_empty() => Vec::new(),
            Mechanism::Fanotify(watch) => watch.resolve(gathered.seen, gathered.generation),
            Mechanism::Notify(watch) => watch.resolve(gathered.seen),
        };
        Taken {
            places,
            lost: gathered.lost.map(|cause| Lost { cause }),
            mounts_changed: gathered.mounts_changed,
            woken: gathered.woken,
        }
    }

    /// What ends a [`Watch::take`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker {
            board: Arc::clone(&self.board),
        }
    }
}

/// Wakes the thread that waits in [`Watch::take`].
#[derive(Clone, Debug)]
pub struct Waker {
    board: Arc<Board>,
}

impl Waker {
    /// Lets the running or the next [`Watch::take`] return at once, with `woken` set.
    pub fn wake(&self) {
        self.board.wake();
    }
}

#[cfg(test)]
mod tests;
