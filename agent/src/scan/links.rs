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

/// Handle of a file with several names, and those of its names that scope does not ignore.
#[derive(Debug, Default)]
pub(crate) struct Links {
    names: RwLock<HashMap<Box<[u8]>, Vec<ImagePath>>>,
    count: AtomicUsize,
    overflowed: AtomicBool,
}

impl Links {
    pub(crate) fn note(&self, key: &[u8], path: &ImagePath) {
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
