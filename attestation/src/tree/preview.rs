//! The digest that a tree would have after some changes, without making them.

use crate::digest::Digest;
use crate::tree::{Node, Place, Tree, bit, combine, fold};

type Change = (Digest, Option<Digest>);

/// A set of entries below some depth: how many there are, as far as the definition asks, and its digest there.
#[derive(Clone, Copy)]
enum Set {
    Empty,
    One(Digest),
    Several(Digest),
}

impl Set {
    fn digest(self) -> Digest {
        match self {
            Set::Empty => Digest::ZERO,
            Set::One(digest) | Set::Several(digest) => digest,
        }
    }

    /// Two sides, seen from one depth above.
    fn join(self, right: Set) -> Set {
        match (self, right) {
            (Set::Empty, Set::Empty) => Set::Empty,
            (Set::Empty, one @ Set::One(_)) | (one @ Set::One(_), Set::Empty) => one,
            (left, right) => Set::Several(combine(&left.digest(), &right.digest())),
        }
    }
}

/// What hangs in the tree at some depth.
#[derive(Clone, Copy)]
struct Hanging {
    node: Node,
    /// The depth at which its parent sees it.
    seen_at: u16,
}

pub(super) fn root_with(tree: &Tree, changes: &[Change]) -> Digest {
    let mut sorted = changes.to_vec();
    sorted.sort_by_key(|change| change.0);
    sorted.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            kept.1 = later.1;
        }
        same
    });
    let root = tree.root.map(|node| Hanging { node, seen_at: 0 });
    set(tree, root, 0, &sorted).digest()
}

/// The set at `depth` when `changes`, which all belong there, are made; at most 256 calls deep.
fn set(tree: &Tree, hanging: Option<Hanging>, depth: u16, changes: &[Change]) -> Set {
    let Some(hanging) = hanging else {
        return of_changes(depth, changes);
    };
    if changes.is_empty() {
        return unchanged(tree, hanging, depth);
    }
    match hanging.node.place() {
        Place::Leaf(place) => {
            let (key, leaf) = tree.leaves[place];
            let merged = match changes.binary_search_by(|change| change.0.cmp(&key)) {
                Ok(_) => return of_changes(depth, changes),
                Err(index) => [&changes[..index], &[(key, Some(leaf))], &changes[index..]].concat(),
            };
            of_changes(depth, &merged)
        }
        Place::Branch(place) => {
            let branch = &tree.branches[place];
            let Ok(number) = u8::try_from(depth) else {
                return Set::Empty;
            };
            let sides = if number == branch.bit {
                branch.sides.map(|node| {
                    Some(Hanging {
                        node,
                        seen_at: depth + 1,
                    })
                })
            } else if bit(tree.some_key(hanging.node), number) {
                [None, Some(hanging)]
            } else {
                [Some(hanging), None]
            };
            let (left, right) =
                changes.split_at(changes.partition_point(|(key, _)| !bit(key, number)));
            set(tree, sides[0], depth + 1, left).join(set(tree, sides[1], depth + 1, right))
        }
    }
}

/// The set of a node that no change touches.
fn unchanged(tree: &Tree, hanging: Hanging, depth: u16) -> Set {
    match hanging.node.place() {
        Place::Leaf(place) => Set::One(tree.leaves[place].1),
        Place::Branch(place) if depth == hanging.seen_at => {
            Set::Several(tree.branches[place].digest)
        }
        Place::Branch(place) => {
            let branch = &tree.branches[place];
            let key = tree.some_key(hanging.node);
            Set::Several(fold(
                tree.own_digest(branch),
                key,
                u16::from(branch.bit),
                depth,
            ))
        }
    }
}

/// The set of the leaves that sorted changes put, where the tree has nothing.
fn of_changes(depth: u16, changes: &[Change]) -> Set {
    let mut leaves = changes.iter().filter_map(|change| change.1);
    match (leaves.next(), leaves.next(), u8::try_from(depth)) {
        (None, ..) => Set::Empty,
        (Some(leaf), None, _) => Set::One(leaf),
        (Some(_), Some(_), Ok(number)) => {
            let (left, right) =
                changes.split_at(changes.partition_point(|(key, _)| !bit(key, number)));
            of_changes(depth + 1, left).join(of_changes(depth + 1, right))
        }
        // Distinct keys have parted before their 256 bits are over.
        (Some(_), Some(_), Err(_)) => Set::Empty,
    }
}
