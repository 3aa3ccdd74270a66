//! Whose content is read, however large it is.

use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};

use super::group::Group;
use crate::image::{Candidate, Reference};

/// The content of a file whose difference is certain without it is read up to here (FORMATS.md 5.2).
const CERTAIN: u64 = 64 * 1024 * 1024;

/// What decides for a scope and its images.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    scope: Arc<Scope>,
    references: Vec<Arc<Reference>>,
}

impl Wanted {
    pub(super) fn of(scope: Arc<Scope>, candidates: &[Candidate]) -> Self {
        let references = candidates
            .iter()
            .map(|candidate| Arc::clone(&candidate.reference))
            .collect();
        Self { scope, references }
    }

    /// For looks at single paths.
    pub(super) fn in_group(group: &Group) -> Self {
        let references = group
            .compared
            .iter()
            .map(|compared| Arc::clone(&compared.candidate.reference))
            .collect();
        Self {
            scope: Arc::clone(&group.scope),
            references,
        }
    }

    /// Whether the content of a file of this size is to be read: a large one only where it may be as an image has it.
    pub(super) fn content(&self, path: &ImagePath, size: u64) -> bool {
        match self.scope.decide(path).expect {
            // Read by whoever keeps the state of its hash.
            Expect::Growing => return false,
            Expect::Sealed if size > CERTAIN => {}
            Expect::Sealed | Expect::Local | Expect::Ignored => return true,
        }
        self.references.iter().any(|reference| {
            // What cannot be looked up is read: that takes time, and is never wrong.
            match reference.lines.find(path) {
                Ok(Some(line)) => line.borrowed().size() == size,
                Ok(None) => false,
                Err(_) => true,
            }
        })
    }
}
