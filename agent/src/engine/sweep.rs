//! A look at a whole subtree beside the engine: its threads walk, the engine goes on with events and takes the results
//! in between. What a sweep says is a place to look at, like an event: if it disagrees with what the engine knows, the
//! engine reads there itself.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use attestation::statement::Actor;
use attestation::time::Timestamp;

use super::group::{Group, Observed};
use super::marks::{Mark, Marks, short};
use super::wanted::Wanted;
use crate::scan::{
    Found, Manner, Progress, Root, ScanError, ScanOptions, Surveyed, Writers, scan_wanted, survey,
};

/// Results on their way to the engine; the walkers wait when it has more to do.
const RESULTS: usize = 4096;
/// Results taken in before the engine looks at events again.
const AT_ONCE: usize = 512;

/// Past the page cache, and asking for writers.
pub(super) const CLOSELY: Manner = Manner {
    from_storage: true,
    writers: Writers::Always,
};

/// Why a sweep is made.
#[derive(Clone, Debug)]
pub(super) struct Occasion {
    pub(super) events: Vec<&'static str>,
    pub(super) actor: Option<Actor>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// Nobody was blind meanwhile: that only the inode moved is not worth telling.
    pub(super) seeing: bool,
    /// How closely to look.
    pub(super) manner: Manner,
}

/// How closely a sweep looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Asks `statx`; tells what moved.
    Metadata,
    /// Reads everything.
    Content,
}

/// What a sweep came by.
#[derive(Debug)]
pub(super) struct Swept {
    pub(super) path: ImagePath,
    pub(super) key: Digest,
    pub(super) there: There,
}

/// What is there.
#[derive(Debug)]
pub(super) enum There {
    /// Leaf and mark, as read by the sweep.
    Read(Digest, Mark),
    /// Something that was not read since it moved.
    Moved,
    /// Something that has a writer.
    Unsettled,
    /// Something that could not be read.
    Unreadable,
    /// Something at a `local` or `growing` path.
    Own,
}

/// A running sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) below: ImagePath,
    pub(super) group: usize,
    pub(super) occasion: Option<Occasion>,
    pub(super) started: Timestamp,
    /// Its number among the sweeps of its scope.
    pub(super) round: u32,
    results: Receiver<Swept>,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<bool>>,
}

/// What [`Sweep::take`] brought.
pub(super) enum Step {
    /// Results, and there may be more.
    Some(Vec<Swept>),
    /// Nothing yet.
    Wait,
    /// Everything was seen; `false`: the scan did not come to its end.
    Over(bool),
}

/// What the threads of a sweep share.
struct Threads {
    root: Root,
    scope: Arc<Scope>,
    below: ImagePath,
    options: ScanOptions,
    marks: Marks,
    round: u32,
    started: Timestamp,
    wanted: Wanted,
    progress: Arc<Progress>,
    results: SyncSender<Swept>,
}

impl Threads {
    fn run(&self, depth: Depth) -> Result<(), ScanError> {
        let Self {
            root,
            scope,
            below,
            options,
            progress,
            ..
        } = self;
        match depth {
            Depth::Metadata => {
                survey(
                    root,
                    scope,
                    below,
                    options,
                    progress,
                    &|path, at, stat| match at.expect {
                        Expect::Sealed => self.surveyed(path, stat.as_ref()),
                        _ => self.own(path),
                    },
                )
            }
            Depth::Content => scan_wanted(
                root,
                scope,
                below,
                options,
                progress,
                &|path, size| self.wanted.content(path, size),
                &|found| match found.decision.expect {
                    Expect::Sealed => self.read(found),
                    _ => self.own(found.path),
                },
            ),
        }
        .map(drop)
    }

    fn surveyed(&self, path: ImagePath, stat: Option<&Surveyed>) {
        let key = path.key();
        let there = match stat {
            None => There::Unreadable,
            Some(stat) => {
                let mark = Mark::surveyed(stat);
                if self.marks.see_unmoved(&short(&key), self.round, &mark) {
                    return;
                }
                There::Moved
            }
        };
        self.tell(Swept { path, key, there });
    }

    /// What is this node's own is read by the engine, if it does not know it.
    fn own(&self, path: ImagePath) {
        self.tell(Swept {
            key: path.key(),
            path,
            there: There::Own,
        });
    }

    fn read(&self, found: Found) {
        let key = found.path.key();
        self.marks.see(&short(&key), self.round);
        let observed = Observed::of(found.reading, self.started);
        let there = match observed.line.as_ref().map(Line::leaf).zip(observed.mark) {
            Some(_) if observed.unsettled => There::Unsettled,
            Some((leaf, mark)) => There::Read(leaf, mark),
            None => There::Unreadable,
        };
        self.tell(Swept {
            path: found.path,
            key,
            there,
        });
    }

    fn tell(&self, swept: Swept) {
        // The engine ended the sweep: the rest is not wanted.
        drop(self.results.send(swept));
    }
}

impl Sweep {
    pub(super) fn start(
        root: Root,
        (number, group): (usize, &Group),
        below: ImagePath,
        occasion: Option<Occasion>,
        depth: Depth,
        mut options: ScanOptions,
    ) -> std::io::Result<Self> {
        options.manner = CLOSELY;
        let (sender, results) = sync_channel(RESULTS);
        let progress = Arc::new(Progress::new());
        let round = group.marks.begin();
        let started = crate::clock::now();
        let threads = Threads {
            root,
            scope: Arc::clone(&group.scope),
            below: below.clone(),
            options,
            marks: group.marks.clone(),
            round,
            started,
            wanted: Wanted::in_group(group),
            progress: Arc::clone(&progress),
            results: sender,
        };
        let thread = std::thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || {
                threads
                    .run(depth)
                    .inspect_err(|error| tracing::warn!(%error, "look at everything again"))
                    .is_ok()
            })?;
        Ok(Self {
            below,
            group: number,
            occasion,
            started,
            round,
            results,
            progress,
            thread: Some(thread),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.below.is_root()
    }

    pub(super) fn take(&mut self) -> Step {
        let mut taken = Vec::new();
        while taken.len() < AT_ONCE {
            match self.results.try_recv() {
                Ok(swept) => taken.push(swept),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if taken.is_empty() => {
                    let whole = self
                        .thread
                        .take()
                        .is_some_and(|thread| thread.join().unwrap_or(false));
                    return Step::Over(whole);
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        if taken.is_empty() {
            Step::Wait
        } else {
            Step::Some(taken)
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.progress.stop();
    }
}
