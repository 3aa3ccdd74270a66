//! Reading a root as it is: every object below it, through a private clone of its mount.
//!
//! What cannot be read is a finding in the result, never a reason to stop. Nothing that is not a regular file or a
//! directory is ever opened for reading, no symbolic link is followed, and no mount is crossed.

use std::time::{Duration, Instant};

use attestation::entry::{Entry, InodeFlags};
use attestation::path::ImagePath;
use attestation::scope::{Decision, Scope};
use thiserror::Error;

pub use self::growing::{Extent, Growth, Tail, hash_part, read_growing, survey_path};
pub use self::mount_table::mount_table;
pub use self::object::{Hearer, Unmoved, Wanted};
pub use self::progress::{Large, Progress};
pub use self::root::{Root, RootError};
pub use self::served::Silence;

mod attributes;
mod content;
mod growing;
mod links;
mod mount_table;
mod names;
mod object;
mod progress;
mod queue;
mod root;
mod served;
mod walk;

pub(crate) use self::links::{Links, handle_key, split_handle};
pub(crate) use self::mount_table::{
    MountLine, everybody, everybodys_mount_table, lines_below, mount_lines, relative,
};
pub(crate) use self::root::Filesystem;
pub(crate) use self::served::within_time;

/// How a scan is to be done.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Threads that walk and hash; one for each core when the cache is warm.
    pub threads: usize,
    /// How each object is read.
    pub manner: Manner,
}

/// How an object is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Content comes from storage, past the page cache, as far as the file system allows; what was not cached before is
    /// not cached afterwards.
    pub from_storage: bool,
    /// Whether files are asked for somebody who has them open for writing, or mapped shared and writable: what has one
    /// is [`Reading::Unsettled`].
    pub writers: Writers,
}

/// Which files are asked whether they have a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writers {
    /// None.
    #[default]
    Unasked,
    /// Those whose inode changed lately, and those of a file system that has nothing to write back to: only they can
    /// change without their ctime moving.
    Recent,
    /// All.
    Always,
}

impl Default for ScanOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads,
            manner: Manner::default(),
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
    let purpose = walk::Purpose::Read {
        wanted,
        unmoved: None,
        hearer: None,
        visit,
    };
    timed(|| walk::run(root, scope, path, options, progress, purpose))
}

/// As [`scan_wanted`] for all of the root, with somebody who hears the content of small files as it is read.
///
/// # Errors
/// As [`scan`].
pub fn scan_heard(
    root: &Root,
    scope: &Scope,
    options: &ScanOptions,
    progress: &Progress,
    wanted: &Wanted<'_>,
    hearer: Option<Hearer<'_>>,
    visit: &(dyn Fn(Found) + Sync),
) -> Result<ScanSummary, ScanError> {
    let purpose = walk::Purpose::Read {
        wanted,
        unmoved: None,
        hearer,
        visit,
    };
    let path = ImagePath::root();
    timed(|| walk::run(root, scope, &path, options, progress, purpose))
}

/// As [`scan_wanted`] for all of the root; what `unmoved` takes for known by what `statx` says is not read, and not
/// visited.
///
/// # Errors
/// As [`scan`].
pub fn scan_moved(
    root: &Root,
    scope: &Scope,
    options: &ScanOptions,
    progress: &Progress,
    unmoved: &Unmoved<'_>,
    wanted: &Wanted<'_>,
    visit: &(dyn Fn(Found) + Sync),
) -> Result<ScanSummary, ScanError> {
    let purpose = walk::Purpose::Read {
        wanted,
        unmoved: Some(unmoved),
        hearer: None,
        visit,
    };
    let path = ImagePath::root();
    timed(|| walk::run(root, scope, &path, options, progress, purpose))
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
    let purpose = walk::Purpose::Survey(visit);
    timed(|| walk::run(root, scope, path, options, progress, purpose))
}

fn timed(run: impl FnOnce() -> Result<ScanSummary, ScanError>) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let mut summary = run()?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// Reads what is at `path` now. The way there is resolved without following a link or crossing a mount.
#[must_use]
pub fn read_entry(root: &Root, path: &ImagePath, decision: Decision) -> Reading {
    read_entry_wanted(root, path, decision, &|_, _| true, Manner::default())
}

/// As [`read_entry`]; content is read only where `wanted` says so, and as `manner` says.
#[must_use]
pub fn read_entry_wanted(
    root: &Root,
    path: &ImagePath,
    decision: Decision,
    wanted: &Wanted<'_>,
    manner: Manner,
) -> Reading {
    let progress = Progress::new();
    object::ObjectReader::new(root, &progress, wanted, manner).read_path(path, decision)
}

/// Says why what lies in a directory cannot all be named: reading the directory itself does not tell.
///
/// # Errors
/// The cause, as in [`Reading::Unreadable`].
pub fn listing(root: &Root, path: &ImagePath) -> Result<(), String> {
    walk::listing(root, path)
}

/// Reads several paths, one after the other, as [`read_entry_wanted`] does; ends early when it is stopped.
pub fn read_entries<T>(
    root: &Root,
    paths: impl IntoIterator<Item = (ImagePath, Decision, T)>,
    manner: Manner,
    progress: &Progress,
    wanted: &Wanted<'_>,
    mut visit: impl FnMut(Found, T),
) {
    let mut reader = object::ObjectReader::new(root, progress, wanted, manner);
    for (path, decision, with) in paths {
        progress.rest(0);
        if progress.is_stopped() {
            return;
        }
        let reading = reader.read_path(&path, decision);
        let found = Found {
            path,
            decision,
            reading,
        };
        visit(found, with);
    }
}

#[cfg(test)]
mod tests;
