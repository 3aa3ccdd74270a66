//! A look at a whole subtree beside the engine: its thread walks and hashes, the engine goes on with events and takes
//! the results in between. What a sweep says is a place to look at, like an event: if it disagrees with what the
//! engine knows, the engine reads there itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use attestation::statement::Actor;
use attestation::time::Timestamp;

use super::group::{Mark, Observed, ShortKey};
use crate::scan::{Progress, Root, ScanOptions, scan_below};

/// Results on their way to the engine; the walkers wait when it has more to do.
const RESULTS: usize = 4096;
/// Results taken in before the engine looks at events again.
const AT_ONCE: usize = 512;

/// Why a sweep is made.
#[derive(Clone, Debug)]
pub(super) struct Occasion {
    pub(super) events: Vec<&'static str>,
    pub(super) actor: Option<Actor>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// What a sweep came by.
#[derive(Debug)]
pub(super) struct Swept {
    pub(super) path: ImagePath,
    pub(super) key: Digest,
    /// Leaf and mark of what is there; nothing where it could not be read.
    pub(super) there: Option<(Digest, Mark)>,
}

/// A running sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) below: ImagePath,
    pub(super) group: usize,
    pub(super) occasion: Option<Occasion>,
    pub(super) started: Timestamp,
    pub(super) seen: HashSet<ShortKey>,
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

impl Sweep {
    pub(super) fn start(
        root: Root,
        scope: Arc<Scope>,
        below: ImagePath,
        group: usize,
        occasion: Option<Occasion>,
        options: ScanOptions,
    ) -> std::io::Result<Self> {
        let (sender, results) = sync_channel(RESULTS);
        let progress = Arc::new(Progress::new());
        let running = Arc::clone(&progress);
        let start = below.clone();
        let thread = std::thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || {
                let visit = |found: crate::scan::Found| {
                    if found.decision.expect != Expect::Sealed {
                        return;
                    }
                    let observed = Observed::from(found.reading);
                    let there = observed.line.as_ref().map(Line::leaf).zip(observed.mark);
                    let swept = Swept {
                        key: found.path.key(),
                        path: found.path,
                        there,
                    };
                    // The engine ended the sweep: the rest is not wanted.
                    drop(sender.send(swept));
                };
                scan_below(&root, &scope, &start, &options, &running, &visit)
                    .inspect_err(|error| tracing::warn!(%error, "look at everything again"))
                    .is_ok()
            })?;
        Ok(Self {
            below,
            group,
            occasion,
            started: crate::clock::now(),
            seen: HashSet::new(),
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
