//! The words of a verdict.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The result of an appraisal, in the order of gravity: the first that applies is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All of it is as the image has it, and all of it was seen.
    Pristine,
    /// Nothing differs, but not all was seen.
    Incomplete,
    /// Something is not as expected.
    Drifted,
    /// The differences do not give the attested tree.
    Unexplained,
    /// An image that is not allowed, revoked or expired.
    UnknownImage,
    /// An image older than all allowed ones.
    Rollback,
    /// Two statements with one sequence.
    Forked,
}

impl Verdict {
    /// All verdicts, the gravest last.
    pub const ALL: [Self; 7] = [
        Self::Pristine,
        Self::Incomplete,
        Self::Drifted,
        Self::Unexplained,
        Self::UnknownImage,
        Self::Rollback,
        Self::Forked,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pristine => "pristine",
            Self::Incomplete => "incomplete",
            Self::Drifted => "drifted",
            Self::Unexplained => "unexplained",
            Self::UnknownImage => "unknown-image",
            Self::Rollback => "rollback",
            Self::Forked => "forked",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the word of a verdict.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a verdict")]
pub struct UnknownVerdict(String);

impl FromStr for Verdict {
    type Err = UnknownVerdict;

    fn from_str(text: &str) -> Result<Self, UnknownVerdict> {
        let known = Self::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == text);
        known.ok_or_else(|| UnknownVerdict(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn word_and_json_are_the_same() {
        for verdict in Verdict::ALL {
            assert_eq!(
                serde_json::to_string(&verdict).unwrap(),
                format!("\"{verdict}\"")
            );
            assert_eq!(verdict.as_str().parse::<Verdict>().unwrap(), verdict);
        }
        assert!("unknown_image".parse::<Verdict>().is_err());
        assert!(Verdict::ALL.is_sorted(), "the gravest last");
    }
}
