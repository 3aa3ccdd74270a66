//! What a statement says of the pins.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use attestation::digest::Digest;
use attestation::path::ImagePath;
use attestation::pins::Pinned;
use attestation::scope::{Expect, Scope};
use attestation::statement::{Difference, FileRef};
use attestation::tree::Tree;

use super::PinBoard;

/// The pins under the scope of the image that is compared with.
#[derive(Debug)]
pub struct View {
    /// Tree digest of what is at `local` paths.
    pub local: Digest,
    /// Tree digest of what is at `growing` paths.
    pub growing: Digest,
    /// The pinned lines.
    pub pinned: Pinned,
    /// Digest and size of them as a file.
    pub file: Option<FileRef>,
    /// What is not as pinned.
    pub differences: Vec<Difference>,
    /// What cannot be read.
    pub unreadable: BTreeMap<ImagePath, String>,
}

impl PinBoard {
    /// What a statement says; computed anew only where something has changed.
    pub fn view(&self, scope: &Scope) -> Arc<View> {
        let of = scope.digest();
        let mut kept = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, scope, view)) = kept.as_ref()
            && (*version, *scope) == (self.version, of)
        {
            return Arc::clone(view);
        }
        let view = Arc::new(self.look(scope));
        *kept = Some((self.version, of, Arc::clone(&view)));
        view
    }

    fn look(&self, scope: &Scope) -> View {
        let (mut local, mut growing) = (Vec::new(), Vec::new());
        let mut differences = Vec::new();
        let mut unreadable = BTreeMap::new();
        for (path, tracked) in &self.entries {
            let expect = scope.decide(path).expect;
            let leaves = match expect {
                Expect::Local => &mut local,
                Expect::Growing => &mut growing,
                // Another image's scope names it.
                Expect::Sealed | Expect::Ignored => continue,
            };
            if let Some(found) = &tracked.found {
                leaves.push((path.key(), found.leaf()));
            }
            if let Some(mut difference) = Self::difference(path, tracked) {
                difference.expect = expect;
                differences.push(difference);
            }
            if let Some(error) = &tracked.error {
                unreadable.insert(path.clone(), error.clone());
            }
        }
        let pinned = self.pinned();
        View {
            local: Tree::from_leaves(local).root(),
            growing: Tree::from_leaves(growing).root(),
            file: pinned.file(),
            pinned,
            differences,
            unreadable,
        }
    }
}
