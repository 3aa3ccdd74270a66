//! Where a directory lies: a chain of names, so that a tree as deep as the path limit costs one name a level.

use std::sync::Arc;

use attestation::scope::ScopeState;

/// Longest path in bytes; what lies deeper is told as unreadable, cause `depth`.
pub(super) const PATH_LIMIT: usize = 65_535;

/// A directory on the way of the walk.
pub(super) struct Position<'s> {
    parent: Option<Arc<Position<'s>>>,
    name: Box<[u8]>,
    length: usize,
    pub(super) state: ScopeState<'s>,
}

impl<'s> Position<'s> {
    /// A place to start from: the root (an empty path) or what a path names.
    pub(super) fn start(path: &[u8], state: ScopeState<'s>) -> Self {
        Self {
            parent: None,
            name: path.into(),
            length: path.len(),
            state,
        }
    }

    pub(super) fn child(self: &Arc<Self>, name: &[u8], state: ScopeState<'s>) -> Self {
        let length = joined_length(self.length, name);
        Self {
            parent: Some(Arc::clone(self)),
            name: name.into(),
            length,
            state,
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The whole path, put together from the last name back.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut parts = vec![&*self.name];
        let mut above = self.parent.as_deref();
        while let Some(position) = above {
            if !position.name.is_empty() {
                parts.push(&position.name);
            }
            above = position.parent.as_deref();
        }
        parts.reverse();
        parts.join(&b'/')
    }
}

/// Bytes of a path with one more name.
pub(super) fn joined_length(length: usize, name: &[u8]) -> usize {
    if length == 0 {
        name.len()
    } else {
        length + 1 + name.len()
    }
}

impl Drop for Position<'_> {
    /// One level at a time: the chain may have as many levels as a path has bytes, the stack has not.
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(position) = above {
            above = match Arc::into_inner(position) {
                Some(mut last) => last.parent.take(),
                None => None,
            };
        }
    }
}
