//! The images that this node may be, as the agent holds them: signed statement in memory, lines on disk.
//!
//! A hundred thousand lines are twenty megabytes; they are looked up in the plain file, one in thirty-two of its
//! offsets is kept in memory.

mod checked;
mod lines;
mod publishers;
mod store;

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::statement::{Image, Statement};
use attestation::time::Timestamp;
use attestation::tree::Tree;

use self::checked::Checked;
pub use self::lines::{Lines, LinesError};
pub use self::publishers::{Publishers, UntrustedImage};
pub use self::store::{ImageStore, StoreError};

/// An image as the agent compares with it.
#[derive(Debug)]
pub struct Reference {
    /// SHA-256 of the statement's payload: the image's name in an attestation.
    pub payload: Digest,
    /// What the publishers signed.
    pub statement: Statement<Image>,
    /// The manifest's lines.
    pub lines: Lines,
    /// The tree that they were checked with.
    checked: Checked,
}

impl Reference {
    /// An image with lines that nobody checked.
    #[cfg(test)]
    pub(crate) fn new(payload: Digest, statement: Statement<Image>, lines: Lines) -> Self {
        Self {
            payload,
            statement,
            lines,
            checked: Checked::default(),
        }
    }

    /// The tree of the lines. The first who asks gets the one that they were checked with, if it is still kept; else it is
    /// made from them.
    ///
    /// # Errors
    /// When the lines cannot be read.
    pub fn tree(&self) -> Result<Tree, LinesError> {
        match self.checked.take() {
            Some(tree) => Ok(tree),
            None => Ok(Tree::from_leaves(self.lines.leaves()?)),
        }
    }
}

/// An image that the assignment allows.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The image.
    pub reference: Arc<Reference>,
    /// Until when it is allowed.
    pub until: Option<Timestamp>,
}
