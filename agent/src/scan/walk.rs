//! The walk: directories are jobs, a large directory's files are jobs too, and threads share them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attestation::path::ImagePath;
use attestation::scope::{Decision, Scope};

use self::batch::Batch;
pub(super) use self::listing::listing;
use self::worker::Worker;
use super::names::Position;
use super::object::{Hearer, Unmoved, Wanted};
use super::queue::Queue;
use super::root::Filesystem;
use super::{Found, Manner, Progress, Root, ScanError, ScanOptions, ScanSummary, Surveyed};

mod asking;
mod batch;
mod listing;
mod worker;

type Visit<'v> = dyn Fn(Found) + Sync + 'v;
type Survey<'v> = dyn Fn(ImagePath, Decision, Option<Surveyed>) + Sync + 'v;

/// What is made of the objects on the way.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'v> {
    /// Read them.
    Read {
        wanted: &'v Wanted<'v>,
        /// What it says this of is passed by.
        unmoved: Option<&'v Unmoved<'v>>,
        hearer: Option<Hearer<'v>>,
        visit: &'v Visit<'v>,
    },
    /// Only ask `statx` about them; nothing where it has no answer.
    Survey(&'v Survey<'v>),
}

enum Job<'s> {
    Directory {
        position: Arc<Position<'s>>,
        parent: Option<Arc<Opened<'s>>>,
    },
    Files {
        directory: Arc<Opened<'s>>,
        files: Batch,
    },
}

/// A directory that is open for what lies in it.
struct Opened<'s> {
    position: Arc<Position<'s>>,
    path: ImagePath,
    fd: OwnedFd,
    filesystem: &'s Filesystem,
    open: &'s AtomicUsize,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all threads share.
struct Walk<'s> {
    root: &'s Root,
    scope: &'s Scope,
    /// Whether this is the thread that asks a server: whoever started it watches over it.
    asking: bool,
    queue: Queue<Job<'s>>,
    open: &'s AtomicUsize,
    progress: &'s Progress,
    purpose: Purpose<'s>,
    manner: Manner,
}

pub(super) fn run(
    root: &Root,
    scope: &Scope,
    path: &ImagePath,
    options: &ScanOptions,
    progress: &Progress,
    purpose: Purpose<'_>,
) -> Result<ScanSummary, ScanError> {
    run_as((root, scope), path, options, progress, purpose, false)
}

fn run_as(
    (root, scope): (&Root, &Scope),
    path: &ImagePath,
    options: &ScanOptions,
    progress: &Progress,
    purpose: Purpose<'_>,
    asking: bool,
) -> Result<ScanSummary, ScanError> {
    let mut state = scope.start();
    for name in path.components() {
        if state.ignores_all_below() {
            return Ok(ScanSummary::default());
        }
        state = state.child(name);
    }
    let threads = options.threads.max(1);
    let open = AtomicUsize::new(0);
    let walk = Walk {
        root,
        scope,
        asking,
        queue: Queue::new(threads),
        open: &open,
        progress,
        purpose,
        manner: options.manner,
    };
    let position = Arc::new(Position::start(path.as_bytes(), state));
    walk.queue.push(
        0,
        Job::Directory {
            position,
            parent: None,
        },
    );
    let mut summary = ScanSummary::default();
    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        for lane in 0..threads {
            let walk = &walk;
            let worker = std::thread::Builder::new()
                .name(format!("scan-{lane}"))
                .spawn_scoped(scope, move || Worker::new(walk, lane).run());
            match worker {
                Ok(worker) => workers.push(worker),
                Err(error) if workers.is_empty() => return Err(ScanError::Spawn(error)),
                // Fewer threads do the same work.
                Err(error) => tracing::warn!(%error, "cannot start a scan thread"),
            }
        }
        for worker in workers {
            let tally = worker.join().map_err(|_| ScanError::Worker)?;
            summary.entries += tally.entries;
            summary.bytes += tally.bytes;
            summary.unreadable += tally.unreadable;
            summary.unsettled += tally.unsettled;
        }
        Ok(())
    })?;
    if progress.is_stopped() {
        Err(ScanError::Stopped)
    } else {
        Ok(summary)
    }
}
