//! Proofs that a path is, or is not, in the tree of a given digest.

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::entry::Line;
use crate::path::ImagePath;
use crate::tree::{Place, Tree, bit, combine, first_difference, fold};

/// A key has 256 bits, so no way is longer.
pub const MAX_SIBLINGS: usize = 256;

/// The way from the root of a tree to where a path's entry is or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The path that it speaks of.
    pub path: ImagePath,
    /// The line found where the way ends: the path's own, another's that shares the way, or none.
    #[serde(deserialize_with = "present")]
    pub entry: Option<Line>,
    /// The other side at each step, from the root down.
    pub siblings: Vec<Digest>,
}

/// A member that must be there, though it may be null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Line>, D::Error> {
    Option::deserialize(deserializer)
}

/// What a proof shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Presence {
    /// The path is in the tree, with this line.
    Present(Line),
    /// The path is not in the tree.
    Absent,
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// More than 256 siblings.
    #[error("a proof has at most {MAX_SIBLINGS} siblings")]
    TooManySiblings,
    /// The last sibling is empty, so the way would have ended above it.
    #[error("the last sibling is empty: the way cannot end below the only entry")]
    EmptyLastSibling,
    /// The line's path does not begin with the bits of the way.
    #[error("the line found does not lie on the way of the path")]
    OffTheWay,
    /// The siblings do not lead to the tree's digest.
    #[error("the proof leads to another tree digest")]
    OtherTree,
}

impl Proof {
    /// What the proof shows of the tree with this digest.
    pub fn check(&self, tree: &Digest) -> Result<Presence, ProofError> {
        if self.siblings.len() > MAX_SIBLINGS {
            return Err(ProofError::TooManySiblings);
        }
        if self.siblings.last() == Some(&Digest::ZERO) {
            return Err(ProofError::EmptyLastSibling);
        }
        let key = self.path.key();
        let own = self.entry.as_ref().map(|line| line.borrowed().key());
        if let Some(parting) = own.and_then(|own| first_difference(&key, &own))
            && usize::from(parting) < self.siblings.len()
        {
            return Err(ProofError::OffTheWay);
        }
        let end = self.entry.as_ref().map_or(Digest::ZERO, Line::leaf);
        let steps = (0..=u8::MAX).zip(&self.siblings).rev();
        let root = steps.fold(end, |digest, (number, sibling)| {
            if bit(&key, number) {
                combine(sibling, &digest)
            } else {
                combine(&digest, sibling)
            }
        });
        if root != *tree {
            return Err(ProofError::OtherTree);
        }
        Ok(match &self.entry {
            Some(line) if own == Some(key) => Presence::Present(line.clone()),
            _ => Presence::Absent,
        })
    }
}

/// The siblings along a key, and the key of the leaf where the way ends.
pub(super) fn way(tree: &Tree, key: &Digest) -> (Vec<Digest>, Option<Digest>) {
    let mut siblings = Vec::new();
    let Some(mut node) = tree.root else {
        return (siblings, None);
    };
    loop {
        let place = match node.place() {
            Place::Leaf(place) => return (siblings, Some(tree.leaves[place].0)),
            Place::Branch(place) => place,
        };
        let branch = &tree.branches[place];
        let shared = *tree.some_key(node);
        // Between the branch above and this one the other side is empty, unless the key parts from all that is below.
        for number in (0..branch.bit).skip(siblings.len()) {
            if bit(key, number) != bit(&shared, number) {
                let (from, to) = (u16::from(branch.bit), u16::from(number) + 1);
                siblings.push(fold(tree.own_digest(branch), &shared, from, to));
                return (siblings, None);
            }
            siblings.push(Digest::ZERO);
        }
        let side = usize::from(bit(key, branch.bit));
        siblings.push(tree.digest(branch.sides[1 - side]));
        node = branch.sides[side];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let shown = (0..300).map(|number| format!("./d{number} type=dir mode=0755 uid=0 gid=0"));
        shown.map(|text| text.parse().unwrap()).collect()
    }

    fn tree(lines: &[Line]) -> Tree {
        Tree::from_leaves(
            lines
                .iter()
                .map(|line| (line.path().key(), line.leaf()))
                .collect(),
        )
    }

    fn prove(lines: &[Line], path: &ImagePath) -> Proof {
        let find = |key: &Digest| lines.iter().find(|line| line.path().key() == *key).cloned();
        tree(lines).prove(path, find)
    }

    #[test]
    fn presence_and_absence() {
        let lines = lines();
        for count in [0, 1, 2, 3, 300] {
            let (inside, outside) = lines.split_at(count);
            let digest = tree(inside).root();
            for line in inside {
                assert_eq!(
                    prove(inside, &line.path()).check(&digest),
                    Ok(Presence::Present(line.clone()))
                );
            }
            for line in outside {
                assert_eq!(
                    prove(inside, &line.path()).check(&digest),
                    Ok(Presence::Absent)
                );
            }
        }
    }

    #[test]
    fn refused() {
        let lines = lines();
        let digest = tree(&lines).root();
        let good = prove(&lines, &lines[0].path());
        let changed = |change: &dyn Fn(&mut Proof)| {
            let mut proof = good.clone();
            change(&mut proof);
            proof.check(&digest)
        };
        assert!(good.check(&digest).is_ok());
        assert_eq!(
            changed(&|proof| proof.siblings.push(Digest::ZERO)),
            Err(ProofError::EmptyLastSibling)
        );
        assert_eq!(
            changed(&|proof| proof.siblings.resize(257, digest)),
            Err(ProofError::TooManySiblings)
        );
        assert_eq!(
            changed(&|proof| proof.siblings.resize(256, digest)),
            Err(ProofError::OtherTree)
        );
        assert_eq!(
            changed(&|proof| proof.entry = Some(lines[1].clone())),
            Err(ProofError::OffTheWay)
        );
        assert_eq!(
            changed(&|proof| proof.entry = None),
            Err(ProofError::OtherTree)
        );
        assert_eq!(
            changed(&|proof| proof.siblings.truncate(proof.siblings.len() - 1)),
            Err(ProofError::OtherTree)
        );
        assert_eq!(
            changed(&|proof| proof.siblings.swap(0, 1)),
            Err(ProofError::OtherTree)
        );
    }

    #[test]
    fn as_json() {
        let lines = lines();
        let proof = prove(&lines[..3], &"./nowhere".parse().unwrap());
        let json = serde_json::to_string(&proof).unwrap();
        assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
        assert!(serde_json::from_str::<Proof>(r#"{"path":"./a","siblings":[]}"#).is_err());
        assert!(
            serde_json::from_str::<Proof>(r#"{"path":"a","entry":null,"siblings":[]}"#).is_err()
        );
        assert!(
            serde_json::from_str::<Proof>(r#"{"path":"./a","entry":null,"siblings":[]}"#).is_ok()
        );
    }
}
