//! The kinds of what a person must judge.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationKind {
    /// An entry is not as expected.
    Difference,
    /// More differences than are told one by one.
    Many,
    /// A mount where none should be.
    Mount,
    /// A sealed path was changed and put back.
    Touched,
    /// A time and a place that the agent did not see.
    Gap,
    /// Nothing was heard for too long.
    Silence,
    /// Two statements with one sequence.
    Fork,
    /// Bytes of another node.
    Replay,
    /// The sequence jumped over what is lost.
    Rewind,
    /// The differences do not give the attested tree.
    Unexplained,
    /// An image older than all allowed ones.
    Rollback,
    /// An image that is not allowed, revoked or expired.
    UnknownImage,
    /// The node shows less assurance than it was enrolled with.
    Downgrade,
    /// The node says more than its budget.
    Flood,
}

impl ViolationKind {
    /// All kinds, in the order of the design.
    pub const ALL: [Self; 14] = [
        Self::Difference,
        Self::Many,
        Self::Mount,
        Self::Touched,
        Self::Gap,
        Self::Silence,
        Self::Fork,
        Self::Replay,
        Self::Rewind,
        Self::Unexplained,
        Self::Rollback,
        Self::UnknownImage,
        Self::Downgrade,
        Self::Flood,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Difference => "difference",
            Self::Many => "many",
            Self::Mount => "mount",
            Self::Touched => "touched",
            Self::Gap => "gap",
            Self::Silence => "silence",
            Self::Fork => "fork",
            Self::Replay => "replay",
            Self::Rewind => "rewind",
            Self::Unexplained => "unexplained",
            Self::Rollback => "rollback",
            Self::UnknownImage => "unknown-image",
            Self::Downgrade => "downgrade",
            Self::Flood => "flood",
        }
    }
}

/// Not the word of a kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind of violation")]
pub struct UnknownKind(String);

impl FromStr for ViolationKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| UnknownKind(text.chars().take(80).collect()))
    }
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn word_and_json_are_the_same() {
        for kind in ViolationKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert_eq!(kind.as_str().parse::<ViolationKind>().unwrap(), kind);
        }
        assert!("Difference".parse::<ViolationKind>().is_err());
    }
}
