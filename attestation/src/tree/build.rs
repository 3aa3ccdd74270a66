//! A tree of many entries at once: sorted by key, every branch is made and hashed exactly once.

use crate::digest::Digest;
use crate::tree::{Branch, Node, Tree, bit, combine, depth_below, first_difference, fold};

pub(super) fn build(mut leaves: Vec<(Digest, Digest)>) -> Tree {
    // Stable, so that of one key's leaves the last one comes last.
    leaves.sort_by_key(|leaf| leaf.0);
    leaves.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    leaves.shrink_to_fit();
    let mut builder = Builder {
        branches: Vec::with_capacity(leaves.len().saturating_sub(1)),
        leaves: &leaves,
    };
    let root = match leaves.len() {
        0 => None,
        count => Some(builder.node(0, count, 0)),
    };
    let branches = builder.branches;
    Tree {
        root,
        leaves,
        branches,
        ..Tree::default()
    }
}

struct Builder<'a> {
    leaves: &'a [(Digest, Digest)],
    branches: Vec<Branch>,
}

impl Builder<'_> {
    /// The node of `leaves[start..end]`, which is not empty, as it is seen at `depth`; at most 256 calls deep.
    fn node(&mut self, start: usize, end: usize, depth: u16) -> Node {
        let (first, last) = (&self.leaves[start].0, &self.leaves[end - 1].0);
        let Some(parting) = first_difference(first, last) else {
            return Node::leaf(start);
        };
        let middle = start + self.leaves[start..end].partition_point(|(key, _)| !bit(key, parting));
        let left = self.node(start, middle, depth_below(parting));
        let right = self.node(middle, end, depth_below(parting));
        let own = combine(&self.digest(left), &self.digest(right));
        let digest = fold(own, first, u16::from(parting), depth);
        self.branches.push(Branch {
            digest,
            bit: parting,
            sides: [left, right],
        });
        Node::branch(self.branches.len() - 1)
    }

    fn digest(&self, node: Node) -> Digest {
        match node.place() {
            super::Place::Leaf(place) => self.leaves[place].1,
            super::Place::Branch(place) => self.branches[place].digest,
        }
    }
}
