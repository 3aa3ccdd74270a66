//! Being told of changes: places to look at, never truths.
//!
//! One reader thread takes what the kernel tells and merges it into a bounded board; [`Watch::take`] turns that into
//! paths, on the thread of whoever asks. What was lost is said as [`Lost`], never left out.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::statement::{Actor, Rung, WatchCoverage};
use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::board::Board;
use self::canary::Canaries;
use self::devices::Devices;
use self::fanotify::FanotifyWatch;
use self::inotify::NotifyWatch;
use self::lookout::{Calls, Lookout};
use crate::actor::{Attribution, Users};
use crate::scan::Root;

pub use self::events::EventSet;
pub use self::report::{Aliased, ForeignMount, Inode, RawWrite, Report};

mod board;
mod busy;
mod canary;
mod clock;
mod counts;
mod descriptors;
mod devices;
mod events;
mod fanotify;
mod handles;
mod inotify;
mod keys;
mod ladder;
mod lookout;
mod mappings;
mod mounts;
mod namespaces;
mod processes;
mod reader;
pub mod record;
mod report;

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
    /// What concerns more than one place, in the order in which it was told.
    pub reports: Vec<Report>,
    /// Root logged in.
    pub login_of_root: bool,
    /// A [`Waker`] was used.
    pub woken: bool,
}

impl Taken {
    fn says_something(&self) -> bool {
        !self.places.is_empty()
            || self.lost.is_some()
            || self.mounts_changed
            || !self.reports.is_empty()
            || self.login_of_root
            || self.woken
    }
}

/// How it is found out who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributed {
    /// Every process is followed from its start; else each is looked up when its event is read, if its event names one.
    pub followed: bool,
    /// Who cannot be told, in words; these are among the limits of the watch, too.
    pub limits: Vec<String>,
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
    lookout: Lookout,
    root: Root,
    users: Mutex<Users>,
    /// Ends with the watch.
    _devices: Option<Devices>,
    /// What is not watched for as long as this lasts.
    limits: Vec<String>,
}

#[derive(Debug)]
enum Mechanism {
    Fanotify(Box<FanotifyWatch>),
    Notify(NotifyWatch),
}

impl Watch {
    /// Starts to watch everything in scope under `root`, which is at `path`, by the best means that the kernel grants. What is
    /// seen of logins goes to `attribution`, which outlives the watch.
    ///
    /// # Errors
    /// When no mechanism works here.
    pub fn start(
        root: &Root,
        path: &Path,
        scope: &Scope,
        attribution: &Attribution,
    ) -> Result<Self, WatchError> {
        Self::start_from(root, path, scope, attribution, Rung::A)
    }

    /// As [`Watch::start`], but by no better means than those of a rung.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn start_from(
        root: &Root,
        path: &Path,
        scope: &Scope,
        attribution: &Attribution,
        highest: Rung,
    ) -> Result<Self, WatchError> {
        let board = Arc::new(Board::default());
        let canaries = Arc::new(Canaries::default());
        let started = FanotifyWatch::start(root, scope, &board, &canaries, attribution, highest);
        let mechanism = match started {
            Ok(watch) => Mechanism::Fanotify(Box::new(watch)),
            Err(refused) => {
                tracing::info!(%refused, "no fanotify, watching by inotify");
                let watch = NotifyWatch::start(root, path, scope, &board, &canaries, &refused)?;
                Mechanism::Notify(watch)
            }
        };
        Self::beside(root, board, &canaries, mechanism)
    }

    /// The watch, with what watches beside it.
    fn beside(
        root: &Root,
        board: Arc<Board>,
        canaries: &Arc<Canaries>,
        mechanism: Mechanism,
    ) -> Result<Self, WatchError> {
        let calls = match &mechanism {
            Mechanism::Fanotify(_) => Calls::Handle,
            Mechanism::Notify(_) => Calls::Name,
        };
        let lookout = Lookout::start(root, &board, canaries, calls).map_err(WatchError::Thread)?;
        let (devices, limits) = match Devices::start(root, &board) {
            Ok(devices) => (devices, Vec::new()),
            Err(limit) => (None, vec![limit]),
        };
        Ok(Self {
            board,
            mechanism,
            lookout,
            root: root.clone(),
            users: Mutex::default(),
            _devices: devices,
            limits,
        })
    }

    /// Which rung of the ladder this is, and in words what it does not see.
    #[must_use]
    pub fn coverage(&self) -> WatchCoverage {
        let mut coverage = match &self.mechanism {
            Mechanism::Fanotify(watch) => watch.coverage(),
            Mechanism::Notify(watch) => watch.coverage(),
        };
        coverage.limits.extend(self.lookout.limits());
        coverage.limits.extend(self.limits.iter().cloned());
        coverage
    }

    /// How it is found out who did something.
    #[must_use]
    pub fn attributed(&self) -> Attributed {
        match &self.mechanism {
            Mechanism::Fanotify(watch) => watch.attributed(),
            Mechanism::Notify(_) => Attributed {
                followed: false,
                limits: vec![inotify::NOBODY.to_owned()],
            },
        }
    }

    /// Has what is otherwise looked at every minute looked at now: other mount namespaces, mappings, and
    /// whether the watch works.
    pub fn look_around(&self) {
        self.lookout.look_around();
    }

    /// Gives up what is only kept for speed: the directories that events name are looked up anew.
    pub fn ease(&self) {
        self.board.batch().directories_moved();
    }

    /// Where very much waits to be taken it is let go of, as a gap of cause `memory` that a rescan closes.
    pub fn shed(&self) {
        if self.board.is_crowded() {
            self.board.batch().shed("memory");
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
        let (places, aliased) = match &self.mechanism {
            _ if gathered.seen.is_empty() => Default::default(),
            Mechanism::Fanotify(watch) => watch.resolve(gathered.seen, gathered.generation),
            Mechanism::Notify(watch) => (watch.resolve(gathered.seen), Vec::new()),
        };
        let mut reports = gathered.reports;
        if !aliased.is_empty() {
            reports.push(Report::Inodes(aliased));
        }
        Taken {
            places,
            lost: gathered.lost.map(|cause| Lost { cause }),
            mounts_changed: gathered.mounts_changed,
            reports: self.named(reports),
            login_of_root: gathered.login_of_root,
            woken: gathered.woken,
        }
    }

    /// Reports with the names of their users.
    fn named(&self, mut reports: Vec<Report>) -> Vec<Report> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for actor in reports.iter_mut().flat_map(Report::actors) {
            users.name(&self.root, actor);
        }
        reports
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

/// The number of the mount that a path lies on, as mount tables have it.
fn mount_of(path: &Path) -> Option<u64> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW
        | rustix::fs::AtFlags::NO_AUTOMOUNT
        | rustix::fs::AtFlags::STATX_DONT_SYNC;
    let wanted = rustix::fs::StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, wanted).ok()?;
    let told = stat.stx_mask & wanted.bits() != 0;
    told.then_some(stat.stx_mnt_id)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_attribution;
#[cfg(test)]
mod tests_beside;
#[cfg(test)]
mod tests_devices;
#[cfg(test)]
mod tests_ladder;
