//! While differences are unlisted a statement names the whole manifest; made anew only when it is another.

use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::statement::FileRef;

use super::Engine;
use crate::statement::Composed;
use crate::{clock, journal, snapshot};

/// While much changes a snapshot is made no more often: it costs as much as reading the image's manifest once.
const PAUSE: Duration = Duration::from_secs(60);

/// A snapshot as it was last made, and the tree that it gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    named: FileRef,
    tree: Digest,
    at: Instant,
}

impl Engine {
    /// Names the whole view where a statement does not list every difference.
    pub(super) fn name_snapshot(&mut self, composed: &mut Composed) {
        if composed.unlisted {
            composed.statement.predicate.snapshot = self.snapshot();
        } else if self.snapshot.take().is_some() {
            snapshot::forget(&self.parts.state);
        }
    }

    /// The snapshot to name; nothing where it cannot be made: then the differences stay unlisted, and the journal says why.
    fn snapshot(&mut self) -> Option<FileRef> {
        let (group, compared) = self.nearest(clock::now())?;
        let tree = group.tree.root();
        if let Some(made) = self.snapshot {
            if made.tree == tree {
                return Some(made.named);
            }
            if made.at.elapsed() < PAUSE {
                return None;
            }
        }
        let image = &compared.candidate.reference.lines;
        match snapshot::write(&self.parts.state, image, &compared.differences) {
            Ok(named) => {
                let at = Instant::now();
                self.snapshot = Some(Made { named, tree, at });
                Some(named)
            }
            Err(error) => {
                let error = journal::chain(&error);
                tracing::error!(%error, "no snapshot of what is there");
                None
            }
        }
    }
}
