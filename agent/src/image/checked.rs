//! The tree that an image's lines were checked with, kept for the look at everything that comes next: made anew it would take as
//! long as checking them did.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use attestation::tree::Tree;

type Slot = Mutex<Option<Tree>>;

/// The tree of one image, until somebody takes it.
#[derive(Debug, Default)]
pub(super) struct Checked(Arc<Slot>);

/// Whose tree is kept: one image's at a time, as half a million entries take fifty megabytes.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Weak<Slot>>);

impl Last {
    /// Keeps a tree, and lets go of the one before.
    pub(super) fn keep(&self, tree: Tree) -> Checked {
        let checked = Checked(Arc::new(Mutex::new(Some(tree))));
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = last.upgrade() {
            take(&before);
        }
        *last = Arc::downgrade(&checked.0);
        checked
    }
}

impl Checked {
    /// The tree, once.
    pub(super) fn take(&self) -> Option<Tree> {
        take(&self.0)
    }
}

fn take(slot: &Slot) -> Option<Tree> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use attestation::digest::Digest;

    use super::*;

    fn tree(name: &[u8]) -> Tree {
        Tree::from_leaves(vec![(Digest::of(name), Digest::of(b"leaf"))])
    }

    #[test]
    fn the_last_tree_is_given_once_and_none_before_it() {
        let last = Last::default();
        let (one, two) = (last.keep(tree(b"one")), last.keep(tree(b"two")));
        assert!(one.take().is_none(), "only the last is kept");
        assert_eq!(
            two.take().map(|tree| tree.root()),
            Some(tree(b"two").root())
        );
        assert!(two.take().is_none());
        assert!(Checked::default().take().is_none());
    }
}
