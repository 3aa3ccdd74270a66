//! How far a scan has come, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use attestation::path::ImagePath;

/// Files from this size on are told while they are read: some seconds at least. A hole counts as what it is, and hashing
/// its zeros takes as long as reading them from a cache.
const LARGE: u64 = 1 << 30;

/// Counters that another thread may read while a scan runs, and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    stopped: AtomicBool,
    rest: Rest,
    /// Files that are being read: one for each thread at most.
    large: Mutex<Vec<Arc<Reading>>>,
}

/// A large file that is being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Large {
    /// Which.
    pub path: ImagePath,
    /// Its bytes, holes included.
    pub size: u64,
    /// How many of them are hashed.
    pub done: u64,
}

#[derive(Debug)]
struct Reading {
    path: ImagePath,
    size: u64,
    done: AtomicU64,
}

/// Counts the bytes of one file while it is read.
pub(super) struct Counted<'p> {
    progress: &'p Progress,
    large: Option<Arc<Reading>>,
}

impl Counted<'_> {
    pub(super) fn add(&self, bytes: u64) {
        if let Some(large) = &self.large {
            large.done.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(own) = &self.large {
            self.progress
                .lock()
                .retain(|large| !Arc::ptr_eq(large, own));
        }
    }
}

/// Hears of bytes that were read, and returns when reading may go on.
#[derive(Default)]
struct Rest(Option<Box<dyn Fn(u64) + Send + Sync>>);

impl std::fmt::Debug for Rest {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.0.is_some() { "paced" } else { "unpaced" })
    }
}

impl Progress {
    /// Counters at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters of a reader that has a pace to keep: `rest` hears of bytes as they are read, and returns when reading may
    /// go on.
    #[must_use]
    pub fn paced(rest: Box<dyn Fn(u64) + Send + Sync>) -> Self {
        Self {
            rest: Rest(Some(rest)),
            ..Self::default()
        }
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

    /// Large files that are being read now, those with the most left first.
    #[must_use]
    pub fn large(&self) -> Vec<Large> {
        let told = |large: &Arc<Reading>| Large {
            path: large.path.clone(),
            size: large.size,
            done: large.done.load(Ordering::Relaxed).min(large.size),
        };
        let mut files: Vec<Large> = self.lock().iter().map(told).collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.size - file.done));
        files
    }

    /// A file is being read from now on.
    pub(super) fn count(&self, path: &ImagePath, size: u64) -> Counted<'_> {
        let large = (size >= LARGE).then(|| {
            let large = Arc::new(Reading {
                path: path.clone(),
                size,
                done: AtomicU64::new(0),
            });
            self.lock().push(Arc::clone(&large));
            large
        });
        Counted {
            progress: self,
            large,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Reading>>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rest(&self, bytes: u64) {
        if let Some(rest) = &self.rest.0 {
            rest(bytes);
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_told_while_they_are_read() {
        let progress = Progress::new();
        let path = |name: &str| ImagePath::parse(name).unwrap();
        let small = progress.count(&path("./small"), LARGE - 1);
        small.add(5);
        assert_eq!(progress.large(), []);
        let one = progress.count(&path("./one"), LARGE);
        let two = progress.count(&path("./two"), 3 * LARGE);
        two.add(LARGE);
        let names = |files: Vec<Large>| -> Vec<(String, u64)> {
            let named = files
                .into_iter()
                .map(|file| (file.path.to_string(), file.done));
            named.collect()
        };
        let both = [("./two".to_owned(), LARGE), ("./one".to_owned(), 0)];
        assert_eq!(names(progress.large()), both);
        drop(two);
        assert_eq!(names(progress.large()), both[1..]);
        drop(one);
        assert_eq!(progress.large(), []);
    }
}
