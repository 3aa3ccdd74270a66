//! Files in scope that have more than one name.
//!
//! A write comes under the name that was opened, which may lie where nobody looks. The handle of the file is the same
//! under every name, so the sealed names are found by it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use attestation::path::ImagePath;

/// Names kept in all: about ten times what a large distribution has.
const NAME_LIMIT: usize = 65_536;
/// Names kept of one file.
const NAMES_OF_ONE: usize = 1_024;
/// Notes after which files are looked for that have gone or have one name again, or as many as are kept, if those are more:
/// package managers make a link for each file that they replace, and a look at one takes some microseconds.
const REVIEW_AFTER: usize = 1_024;

/// Handle of a file with several names, and those of its names that scope does not ignore.
#[derive(Debug, Default)]
pub(crate) struct Links {
    names: RwLock<HashMap<Box<[u8]>, Vec<ImagePath>>>,
    count: AtomicUsize,
    /// Notes since the last review, and names that it left.
    noted: AtomicUsize,
    kept: AtomicUsize,
    overflowed: AtomicBool,
}

impl Links {
    /// Notes a name of a file; `has_several` tells from time to time of other files whether they still have more than one.
    pub(crate) fn note(&self, key: &[u8], path: &ImagePath, has_several: impl Fn(&[u8]) -> bool) {
        let noted = self.noted.fetch_add(1, Ordering::Relaxed);
        if noted >= REVIEW_AFTER.max(self.kept.load(Ordering::Relaxed)) {
            self.noted.store(0, Ordering::Relaxed);
            self.review(has_several);
            let kept = self.count.load(Ordering::Relaxed);
            self.kept.store(kept, Ordering::Relaxed);
        }
        self.add(key, path);
    }

    /// Forgets files that have gone, or have one name again.
    fn review(&self, has_several: impl Fn(&[u8]) -> bool) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = names.keys().cloned().collect();
        drop(names);
        for key in keys.iter().filter(|key| !has_several(key)) {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            // Asked again while nobody can note a name that it has got since.
            if !has_several(key)
                && let Some(gone) = names.remove(key)
            {
                self.count.fetch_sub(gone.len(), Ordering::Relaxed);
            }
        }
    }

    fn add(&self, key: &[u8], path: &ImagePath) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(key) {
            if known.contains(path) {
                return;
            }
            if known.len() >= NAMES_OF_ONE {
                self.overflowed.store(true, Ordering::Relaxed);
                return;
            }
        }
        if self.count.load(Ordering::Relaxed) >= NAME_LIMIT {
            self.overflowed.store(true, Ordering::Relaxed);
            return;
        }
        names.entry(key.into()).or_default().push(path.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        !self.is_empty()
            && self
                .names
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains_key(key)
    }

    pub(crate) fn names(&self, key: &[u8]) -> Vec<ImagePath> {
        if self.is_empty() {
            return Vec::new();
        }
        self.names
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }
}

/// The key of an object by its handle: file system, type and bytes of the handle.
pub(crate) fn handle_key(fsid: [u8; 8], kind: i32, bytes: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(12 + bytes.len());
    key.extend_from_slice(&fsid);
    key.extend_from_slice(&kind.to_le_bytes());
    key.extend_from_slice(bytes);
    key
}

/// File system, kind and bytes in the key of a handle.
pub(crate) fn split_handle(key: &[u8]) -> Option<([u8; 8], i32, &[u8])> {
    let (fsid, rest) = key.split_first_chunk::<8>()?;
    let (kind, bytes) = rest.split_first_chunk::<4>()?;
    Some((*fsid, i32::from_le_bytes(*kind), bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn path(name: &str) -> ImagePath {
        ImagePath::from_bytes(name.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn files_that_went_are_forgotten_and_those_that_stay_are_kept() {
        let links = Links::default();
        let stays = |key: &[u8]| key == b"stays";
        links.note(b"stays", &path("a"), stays);
        links.note(b"stays", &path("b"), stays);
        for turn in 0..10 * REVIEW_AFTER {
            links.note(&turn.to_le_bytes(), &path("gone"), stays);
        }
        assert_eq!(links.names(b"stays"), [path("a"), path("b")]);
        assert!(links.count.load(Ordering::Relaxed) <= 2 * REVIEW_AFTER + 3);
        assert!(!links.overflowed());
    }

    #[test]
    fn more_than_the_limit_is_told() {
        let links = Links::default();
        for turn in 0..=NAME_LIMIT {
            links.note(&turn.to_le_bytes(), &path("name"), |_| true);
        }
        assert!(links.overflowed());
        assert_eq!(links.count.load(Ordering::Relaxed), NAME_LIMIT);
    }
}
