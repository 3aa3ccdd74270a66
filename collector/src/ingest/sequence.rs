//! Where a statement belongs in its node's chain. Pure.

use attestation::digest::Digest;
use attestation::statement::Attestation;
use attestation::wire::Expected;

/// The cause of a gap that says: the way between is lost.
pub const LOST: &str = "lost";

/// Where a statement belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the next one.
    Next,
    /// It jumps ahead with a gap of cause `lost`; taken once, and once more each time that a person has judged one.
    Jump,
    /// It has a sequence that was taken already: the same bytes, or a fork.
    Before,
    /// It is out of sequence, or names another statement before it.
    Elsewhere,
}

/// The statement that a node's chain takes next.
pub fn expected(sequence: Option<u64>, previous: Option<Digest>) -> Expected {
    Expected {
        sequence: sequence.map_or(0, |sequence| sequence.saturating_add(1)),
        previous,
    }
}

/// Where a statement belongs in a chain that ends as given.
pub fn place(end: &Expected, jump_taken: bool, statement: &Attestation) -> Place {
    use std::cmp::Ordering;
    match statement.sequence.cmp(&end.sequence) {
        Ordering::Less => Place::Before,
        Ordering::Equal if statement.previous == end.previous => Place::Next,
        Ordering::Equal => Place::Elsewhere,
        Ordering::Greater => {
            let says_lost = statement.coverage.gaps.iter().any(|gap| gap.cause == LOST);
            if says_lost && !jump_taken {
                Place::Jump
            } else {
                Place::Elsewhere
            }
        }
    }
}
