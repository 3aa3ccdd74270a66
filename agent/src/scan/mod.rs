//! Reading a root as it is: every object below it, through a private clone of its mount.
//!
//! What cannot be read is a finding in the result, never a reason to stop. Nothing that is not a regular file or a
//! directory is ever opened for reading, no symbolic link is followed, and no mount is crossed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attestation::entry::{Entry, InodeFlags};
use attestation::path::ImagePath;
use attestation::scope::{Decision, Scope};
use thiserror::Error;

pub use self::mount_table::mount_table;
pub use self::object::Wanted;
pub use self::root::{Root, RootError};

mod attributes;
mod content;
mod links;
mod mount_table;
mod names;
mod object;
mod queue;
mod root;
mod walk;

pub(crate) use self::links::{Links, handle_key};
pub(crate) use self::mount_table::{MountLine, lines_below, mount_lines, relative};
pub(crate) use self::root::Filesystem;

/// How a scan is to be done.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Threads that walk and hash; one for each core when the cache is warm.
    pub threads: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads }
    }
}

/// Counters that another thread may read while a scan runs, and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Objects visited until now.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Content bytes accounted for until now, holes included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Asks the running scan to end with [`ScanError::Stopped`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the scan was asked to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// What `statx` said of an object: equal fingerprints mean that nothing that the kernel tells has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// Device of the file system, major in the upper half.
    pub dev: u64,
    /// Inode number on that device.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of content, nanoseconds since 1970; anybody who owns the file may set it.
    pub mtime_ns: i64,
    /// Time of the last change of anything, nanoseconds since 1970; nobody may set it.
    pub ctime_ns: i64,
    /// Names that the inode has.
    pub nlink: u64,
}

/// All that `statx` tells of what an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// What moves when anything does.
    pub fingerprint: Fingerprint,
    /// As in the entry.
    pub mode: u16,
    /// As in the entry.
    pub uid: u32,
    /// As in the entry.
    pub gid: u32,
    /// As in the entry.
    pub flags: InodeFlags,
    /// Whether it is a directory.
    pub directory: bool,
}

/// What is at a path.
#[derive(Clone, Debug)]
pub enum Reading {
    /// Nothing is there.
    Absent,
    /// An object, read whole.
    Entry(Entry, Fingerprint),
    /// Something is there that could not be read; the cause in a word, or in the kernel's.
    Unreadable {
        /// Why: `depth`, `size`, `mount`, `attributes`, or the text of a system error.
        error: String,
    },
    /// It changed each time while it was read: the line just read.
    Unsettled(Entry, Fingerprint),
}

/// One object that a scan came by.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub path: ImagePath,
    /// What scope expects there.
    pub decision: Decision,
    /// What is there.
    pub reading: Reading,
}

/// What a scan amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Objects visited.
    pub entries: u64,
    /// Content bytes accounted for, holes included.
    pub bytes: u64,
    /// Objects that could not be read.
    pub unreadable: u64,
    /// Objects that changed each time while they were read.
    pub unsettled: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why there is no result. Trouble with single objects is not among these.
#[derive(Debug, Error)]
pub enum ScanError {
    /// [`Progress::stop`] was called.
    #[error("the scan was stopped")]
    Stopped,
    /// A worker ended abnormally.
    #[error("a scan thread ended abnormally")]
    Worker,
    /// The threads could not be started.
    #[error("cannot start a scan thread")]
    Spawn(#[source] std::io::Error),
}

/// Visits everything in scope under the root; `visit` is called from the worker threads, in no order.
///
/// # Errors
/// When the scan was stopped or its threads could not run. What cannot be read is visited as such.
pub fn scan(
    root: &Root,
    scope: &Scope,
    options: &ScanOptions,
    progress: &Progress,
    visit: &(dyn Fn(Found) + Sync),
) -> Result<ScanSummary, ScanError> {
    scan_below(root, scope, &ImagePath::root(), options, progress, visit)
}

/// Visits `path` and everything in scope below it.
///
/// # Errors
/// As [`scan`].
pub fn scan_below(
    root: &Root,
    scope: &Scope,
    path: &ImagePath,
    options: &ScanOptions,
    progress: &Progress,
    visit: &(dyn Fn(Found) + Sync),
) -> Result<ScanSummary, ScanError> {
    scan_wanted(root, scope, path, options, progress, &|_, _| true, visit)
}

/// As [`scan_below`]; the content of a file is read only where `wanted` says so for its path and size, else the digest is
/// left out. So neither a hole of a tebibyte nor a file whose size already differs holds up a scan.
///
/// # Errors
/// As [`scan`].
pub fn scan_wanted(
    root: &Root,
    scope: &Scope,
    path: &ImagePath,
    options: &ScanOptions,
    progress: &Progress,
    wanted: &Wanted<'_>,
    visit: &(dyn Fn(Found) + Sync),
) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let purpose = walk::Purpose::Read { wanted, visit };
    let mut summary = walk::run(root, scope, path, options, progress, purpose)?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// Asks `statx` about `path` and everything in scope below it; opens directories only. `visit` gets nothing for what
/// `statx` has no answer about, or whose listing failed.
///
/// # Errors
/// As [`scan`].
pub fn survey(
    root: &Root,
    scope: &Scope,
    path: &ImagePath,
    options: &ScanOptions,
    progress: &Progress,
    visit: &(dyn Fn(ImagePath, Decision, Option<Surveyed>) + Sync),
) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let purpose = walk::Purpose::Survey(visit);
    let mut summary = walk::run(root, scope, path, options, progress, purpose)?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// Reads what is at `path` now. The way there is resolved without following a link or crossing a mount.
#[must_use]
pub fn read_entry(root: &Root, path: &ImagePath, decision: Decision) -> Reading {
    read_entry_wanted(root, path, decision, &|_, _| true)
}

/// As [`read_entry`]; content is read only where `wanted` says so.
#[must_use]
pub fn read_entry_wanted(
    root: &Root,
    path: &ImagePath,
    decision: Decision,
    wanted: &Wanted<'_>,
) -> Reading {
    object::read_at_path(root, path, decision, wanted)
}

#[cfg(test)]
mod tests;
