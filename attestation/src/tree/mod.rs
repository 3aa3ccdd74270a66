//! The tree digest (FORMATS.md section 4): a Merkle trie over (key, leaf), of which only branching nodes are kept.
//!
//! Names can be ground so that keys share 40 and more bits, so a chain of nodes with one empty side is folded into the
//! digest of the branch at its end and takes no memory. Every branch keeps its digest as its parent sees it, so an update
//! hashes only what lies between the entry and the root.

mod build;
mod preview;
mod proof;

use crate::digest::Digest;
use crate::entry::Line;
use crate::path::ImagePath;

pub use proof::{MAX_SIBLINGS, Presence, Proof, ProofError};

/// A set of (key, leaf) with its digest at hand: 108 bytes an entry.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    root: Option<Node>,
    leaves: Vec<(Digest, Digest)>,
    branches: Vec<Branch>,
    free_leaves: Vec<u32>,
    free_branches: Vec<u32>,
}

/// Where two non-empty sides part.
#[derive(Clone, Copy, Debug)]
struct Branch {
    /// The digest as the parent sees it: folded up to the depth below the parent's, or to 0 at the root.
    digest: Digest,
    /// The number of the bit that tells the sides apart; all keys below share the bits before it.
    bit: u8,
    sides: [Node; 2],
}

/// A leaf or a branch by its place: the highest bit tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node(u32);

/// What a node is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Leaf(usize),
    Branch(usize),
}

impl Node {
    const BRANCH: u32 = 1 << 31;

    /// Places are below 2^31: so many entries would take more than 200 GiB.
    fn leaf(place: usize) -> Self {
        Node(u32::try_from(place).unwrap_or(u32::MAX) & !Self::BRANCH)
    }

    fn branch(place: usize) -> Self {
        Node(u32::try_from(place).unwrap_or(u32::MAX) | Self::BRANCH)
    }

    fn place(self) -> Place {
        let place = (self.0 & !Self::BRANCH) as usize;
        if self.0 & Self::BRANCH == 0 {
            Place::Leaf(place)
        } else {
            Place::Branch(place)
        }
    }
}

impl Tree {
    /// The tree of no entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree of many entries at once; where a key is there twice its last leaf counts.
    pub fn from_leaves(leaves: Vec<(Digest, Digest)>) -> Self {
        build::build(leaves)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.leaves.len() - self.free_leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The tree digest.
    pub fn root(&self) -> Digest {
        self.root.map_or(Digest::ZERO, |node| self.digest(node))
    }

    /// The leaf under a key.
    pub fn get(&self, key: &Digest) -> Option<Digest> {
        let (own, leaf) = self.leaves[self.closest(key)?];
        (own == *key).then_some(leaf)
    }

    /// Puts a leaf under a key and gives back the one that was there.
    pub fn insert(&mut self, key: Digest, leaf: Digest) -> Option<Digest> {
        let Some(closest) = self.closest(&key) else {
            self.root = Some(self.add_leaf(key, leaf));
            return None;
        };
        let found = self.leaves[closest];
        let Some(parting) = first_difference(&key, &found.0) else {
            self.leaves[closest].1 = leaf;
            let way = self.way(&key, None);
            self.rehash(&way);
            return Some(found.1);
        };
        let way = self.way(&key, Some(parting));
        let added = self.add_leaf(key, leaf);
        let other = self.below(&way, &key);
        let sides = if bit(&key, parting) {
            [other, added]
        } else {
            [added, other]
        };
        let branch = self.add_branch(Branch {
            digest: Digest::ZERO,
            bit: parting,
            sides,
        });
        self.replace_below(&way, &key, branch);
        // What moved down below the new branch is seen from another depth now.
        self.refold(other, depth_below(parting));
        self.rehash(&[&way[..], &[branch]].concat());
        None
    }

    /// Takes a key out and gives back its leaf.
    pub fn remove(&mut self, key: &Digest) -> Option<Digest> {
        let leaf = self.get(key)?;
        let mut way = self.way(key, None);
        let last = self.below(&way, key);
        self.free(last);
        let Some(parent) = way.pop() else {
            self.root = None;
            return Some(leaf);
        };
        let Place::Branch(place) = parent.place() else {
            return Some(leaf);
        };
        let Branch {
            bit: parting,
            sides,
            ..
        } = self.branches[place];
        let sibling = sides[usize::from(!bit(key, parting))];
        self.replace_below(&way, key, sibling);
        self.free(parent);
        let depth = way.last().map_or(0, |above| self.depth_below(*above));
        self.refold(sibling, depth);
        self.rehash(&way);
        Some(leaf)
    }

    /// The digest of the tree as it would be with some leaves put (`Some`) or taken out (`None`); of two changes of one key
    /// the later one counts. Nothing is changed, so an image's tree can be shared.
    pub fn root_with(&self, changes: &[(Digest, Option<Digest>)]) -> Digest {
        preview::root_with(self, changes)
    }

    /// The proof that `path` is, or is not, in the tree. `line_of` finds the line under a key of this tree; where it does
    /// not, the proof does not hold.
    pub fn prove(&self, path: &ImagePath, line_of: impl Fn(&Digest) -> Option<Line>) -> Proof {
        let (siblings, end) = proof::way(self, &path.key());
        Proof {
            path: path.clone(),
            entry: end.and_then(|key| line_of(&key)),
            siblings,
        }
    }

    /// The entries, by rising key.
    pub fn iter(&self) -> impl Iterator<Item = (Digest, Digest)> {
        self.iter_below(self.root)
    }

    /// The entries whose key begins with this byte, by rising key: a part of the whole, for whoever cannot go through all
    /// of it at once.
    pub fn iter_beginning(&self, byte: u8) -> impl Iterator<Item = (Digest, Digest)> {
        let mut node = self.root;
        while let Some(Place::Branch(place)) = node.map(Node::place) {
            let Branch { bit, sides, .. } = &self.branches[place];
            if *bit > 7 {
                break;
            }
            node = Some(sides[usize::from(byte >> (7 - bit) & 1)]);
        }
        // Bits that no branch tells apart were not compared on the way.
        self.iter_below(node)
            .filter(move |(key, _)| key.as_bytes()[0] == byte)
    }

    fn iter_below(&self, node: Option<Node>) -> impl Iterator<Item = (Digest, Digest)> {
        let mut open: Vec<Node> = node.into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                match open.pop()?.place() {
                    Place::Leaf(place) => return Some(self.leaves[place]),
                    Place::Branch(place) => {
                        let [left, right] = self.branches[place].sides;
                        open.extend([right, left]);
                    }
                }
            }
        })
    }

    /// The digest of a node as its parent sees it.
    fn digest(&self, node: Node) -> Digest {
        match node.place() {
            Place::Leaf(place) => self.leaves[place].1,
            Place::Branch(place) => self.branches[place].digest,
        }
    }

    /// The digest of a branch at its own depth, from its sides.
    fn own_digest(&self, branch: &Branch) -> Digest {
        combine(&self.digest(branch.sides[0]), &self.digest(branch.sides[1]))
    }

    /// Any key below a node.
    fn some_key(&self, mut node: Node) -> &Digest {
        loop {
            match node.place() {
                Place::Leaf(place) => return &self.leaves[place].0,
                Place::Branch(place) => node = self.branches[place].sides[0],
            }
        }
    }

    /// The leaf at the end of the way that the branches' bits of `key` show.
    fn closest(&self, key: &Digest) -> Option<usize> {
        let mut node = self.root?;
        loop {
            match node.place() {
                Place::Leaf(place) => return Some(place),
                Place::Branch(place) => {
                    let branch = &self.branches[place];
                    node = branch.sides[usize::from(bit(key, branch.bit))];
                }
            }
        }
    }

    /// The branches from the root down along `key`, only those above the bit `until` where it is given.
    fn way(&self, key: &Digest, until: Option<u8>) -> Vec<Node> {
        let mut way = Vec::with_capacity(40);
        let mut next = self.root;
        while let Some(node) = next {
            let Place::Branch(place) = node.place() else {
                break;
            };
            let branch = &self.branches[place];
            if until.is_some_and(|until| branch.bit >= until) {
                break;
            }
            way.push(node);
            next = Some(branch.sides[usize::from(bit(key, branch.bit))]);
        }
        way
    }

    /// What hangs below the end of a way on the side of `key`; the tree is not empty.
    fn below(&self, way: &[Node], key: &Digest) -> Node {
        match way.last().map(|node| node.place()) {
            Some(Place::Branch(place)) => {
                let branch = &self.branches[place];
                branch.sides[usize::from(bit(key, branch.bit))]
            }
            _ => self.root.unwrap_or(Node(0)),
        }
    }

    fn replace_below(&mut self, way: &[Node], key: &Digest, node: Node) {
        match way.last().map(|node| node.place()) {
            Some(Place::Branch(place)) => {
                let branch = &mut self.branches[place];
                branch.sides[usize::from(bit(key, branch.bit))] = node;
            }
            _ => self.root = Some(node),
        }
    }

    /// Computes the digests of a way anew, from its end to the root.
    fn rehash(&mut self, way: &[Node]) {
        for (index, node) in way.iter().enumerate().rev() {
            let depth = index
                .checked_sub(1)
                .map_or(0, |above| self.depth_below(way[above]));
            self.refold(*node, depth);
        }
    }

    /// Computes the digest of a node anew, as it is seen at `depth`; a leaf's is the same at all.
    fn refold(&mut self, node: Node, depth: u16) {
        if let Place::Branch(place) = node.place() {
            let branch = self.branches[place];
            let (own, own_depth) = (self.own_digest(&branch), u16::from(branch.bit));
            // Only a chain of one-sided nodes needs to know which side that is.
            self.branches[place].digest = if own_depth == depth {
                own
            } else {
                fold(own, self.some_key(node), own_depth, depth)
            };
        }
    }

    fn depth_below(&self, node: Node) -> u16 {
        match node.place() {
            Place::Leaf(_) => 0,
            Place::Branch(place) => depth_below(self.branches[place].bit),
        }
    }

    fn add_leaf(&mut self, key: Digest, leaf: Digest) -> Node {
        match self.free_leaves.pop() {
            Some(free) => {
                self.leaves[free as usize] = (key, leaf);
                Node::leaf(free as usize)
            }
            None => {
                self.leaves.push((key, leaf));
                Node::leaf(self.leaves.len() - 1)
            }
        }
    }

    fn add_branch(&mut self, branch: Branch) -> Node {
        match self.free_branches.pop() {
            Some(free) => {
                self.branches[free as usize] = branch;
                Node::branch(free as usize)
            }
            None => {
                self.branches.push(branch);
                Node::branch(self.branches.len() - 1)
            }
        }
    }

    fn free(&mut self, node: Node) {
        let place = node.0 & !Node::BRANCH;
        match node.place() {
            Place::Leaf(_) => self.free_leaves.push(place),
            Place::Branch(_) => self.free_branches.push(place),
        }
    }
}

/// Two trees are equal when they hold the same entries.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.root() == other.root()
    }
}

impl Eq for Tree {}

/// The depth of what hangs below a branch on that bit.
fn depth_below(bit: u8) -> u16 {
    u16::from(bit) + 1
}

/// A bit of a key, counted from the most significant one of the first byte.
fn bit(key: &Digest, number: u8) -> bool {
    key.as_bytes()[usize::from(number / 8)] >> (7 - number % 8) & 1 == 1
}

/// The first bit in which two keys differ.
fn first_difference(one: &Digest, other: &Digest) -> Option<u8> {
    let pairs = (0_u8..).zip(one.as_bytes().iter().zip(other.as_bytes()));
    let differing = |(index, (one, other)): (u8, (&u8, &u8))| {
        let zeros = u8::try_from((one ^ other).leading_zeros()).unwrap_or(8);
        (zeros < 8).then(|| index * 8 + zeros)
    };
    pairs.into_iter().find_map(differing)
}

/// The digest of two sides.
fn combine(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left.as_bytes());
    bytes[33..].copy_from_slice(right.as_bytes());
    Digest::of(&bytes)
}

/// Carries the digest of several entries that share the bits of `key` from one depth up to another.
fn fold(digest: Digest, key: &Digest, from: u16, to: u16) -> Digest {
    (to..from)
        .rev()
        .fold(digest, |digest, depth| match u8::try_from(depth) {
            Ok(number) if bit(key, number) => combine(&Digest::ZERO, &digest),
            _ => combine(&digest, &Digest::ZERO),
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn leaf(number: u64) -> (Digest, Digest) {
        (
            Digest::of(&number.to_be_bytes()),
            Digest::of(&number.to_le_bytes()),
        )
    }

    /// The definition, word for word.
    fn by_definition(entries: &[(Digest, Digest)], depth: u16) -> Digest {
        match entries {
            [] => Digest::ZERO,
            [(_, leaf)] => *leaf,
            _ => {
                let right = |(key, _): &&(Digest, Digest)| bit(key, u8::try_from(depth).unwrap());
                let (right, left): (Vec<_>, Vec<_>) = entries.iter().partition(right);
                combine(
                    &by_definition(&left, depth + 1),
                    &by_definition(&right, depth + 1),
                )
            }
        }
    }

    #[test]
    fn the_entries_come_by_rising_key_as_a_whole_and_in_parts() {
        for count in [0, 1, 2, 5, 300, 5000] {
            let mut all: Vec<_> = (0..count).map(leaf).collect();
            let tree = Tree::from_leaves(all.clone());
            all.sort();
            assert_eq!(tree.iter().collect::<Vec<_>>(), all);
            let parts = (0..=255).flat_map(|byte| tree.iter_beginning(byte).collect::<Vec<_>>());
            assert_eq!(parts.collect::<Vec<_>>(), all);
        }
    }

    /// Keys that share all bits but a few, at both ends and in the middle.
    fn crowded() -> Vec<(Digest, Digest)> {
        let key = |changes: &[(usize, u8)]| {
            let mut bytes = *Digest::of(b"crowded").as_bytes();
            changes
                .iter()
                .for_each(|(index, mask)| bytes[*index] ^= mask);
            Digest::from_bytes(bytes)
        };
        [
            &[][..],
            &[(31, 1)],
            &[(31, 2)],
            &[(5, 8)],
            &[(5, 8), (31, 1)],
            &[(0, 128)],
            &[(0, 128), (20, 3)],
            &[(7, 255)],
        ]
        .iter()
        .enumerate()
        .map(|(number, changes)| (key(changes), leaf(number as u64).1))
        .collect()
    }

    #[test]
    fn as_defined_however_it_is_made() {
        let mut entries: Vec<_> = (0..200).map(leaf).collect();
        entries.extend(crowded());
        let mut grown = Tree::new();
        for (index, (key, leaf)) in entries.iter().enumerate() {
            assert_eq!(grown.insert(*key, *leaf), None);
            let expected = by_definition(&entries[..=index], 0);
            assert_eq!(grown.root(), expected);
            assert_eq!(
                Tree::from_leaves(entries[..=index].to_vec()).root(),
                expected
            );
        }
        for (index, (key, leaf)) in entries.iter().enumerate() {
            assert_eq!(grown.get(key), Some(*leaf));
            assert_eq!(grown.remove(key), Some(*leaf));
            assert_eq!(grown.remove(key), None);
            assert_eq!(grown.root(), by_definition(&entries[index + 1..], 0));
            assert_eq!(grown.len(), entries.len() - index - 1);
        }
        assert!(grown.is_empty());
    }

    #[test]
    fn a_repeated_key_has_its_last_leaf() {
        let (key, one) = leaf(1);
        let (_, two) = leaf(2);
        let mut tree = Tree::from_leaves(vec![(key, one), leaf(3), (key, two)]);
        assert_eq!((tree.len(), tree.get(&key)), (2, Some(two)));
        assert_eq!(tree.insert(key, one), Some(two));
        assert_eq!(tree, Tree::from_leaves(vec![leaf(3), (key, one)]));
        assert_eq!(tree.iter().count(), 2);
    }

    #[test]
    fn a_preview_equals_the_change() {
        let mut entries: Vec<_> = (0..50).map(leaf).collect();
        entries.extend(crowded());
        let tree = Tree::from_leaves(entries.clone());
        for skip in 0..entries.len() {
            let mut changes: Vec<_> = entries[skip..]
                .iter()
                .step_by(7)
                .map(|(key, _)| (*key, None))
                .collect();
            changes.extend(
                (100..100 + skip as u64).map(|number| (leaf(number).0, Some(leaf(number).1))),
            );
            changes.extend(
                entries[..skip]
                    .iter()
                    .step_by(5)
                    .map(|(key, leaf)| (*key, Some(Digest::of(leaf.as_bytes())))),
            );
            changes.push((leaf(7).0, None));
            changes.push((leaf(7).0, Some(leaf(8).1)));
            let mut changed = tree.clone();
            for (key, leaf) in &changes {
                match leaf {
                    Some(leaf) => changed.insert(*key, *leaf),
                    None => changed.remove(key),
                };
            }
            assert_eq!(tree.root_with(&changes), changed.root());
            assert_eq!(Tree::new().root_with(&changes), {
                let mut fresh = Tree::new();
                changes
                    .iter()
                    .filter(|(key, _)| *key != leaf(7).0)
                    .for_each(|(key, leaf)| {
                        if let Some(leaf) = leaf {
                            fresh.insert(*key, *leaf);
                        }
                    });
                fresh.insert(leaf(7).0, leaf(8).1);
                fresh.root()
            });
        }
        let all: Vec<_> = entries.iter().map(|(key, _)| (*key, None)).collect();
        assert_eq!(tree.root_with(&all), Digest::ZERO);
        assert_eq!(tree.root_with(&[]), tree.root());
        assert_eq!(tree.root(), Tree::from_leaves(entries).root());
    }
}
