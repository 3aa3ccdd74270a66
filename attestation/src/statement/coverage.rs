//! What an attestation says of what it saw, and of what it did not (FORMATS.md 5.2).

use serde::{Deserialize, Serialize};

use super::Actor;
use crate::digest::Digest;
use crate::path::ImagePath;
use crate::time::Timestamp;

/// What the node saw, and what it did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// How it watches.
    pub watch: WatchCoverage,
    /// Watching without a gap since; absent while nothing is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Every content byte in scope was read from storage since; absent until the first read is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Timestamp>,
    /// Times and places not seen and not yet scanned again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// How many gaps, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps_total: Option<u64>,
    /// What could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
    /// How many could not, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable_total: Option<u64>,
    /// Paths with a live writer or mapping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<ImagePath>,
    /// How many are unsettled, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled_total: Option<u64>,
    /// The mount table under the root.
    pub mounts: Mounts,
}

impl Coverage {
    /// Equal, but for the time of the last full read.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let read = other.read;
        *other
            == Self {
                read,
                ..self.clone()
            }
    }
}

/// How the node watches: a rung of the ladder and its standing limits, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchCoverage {
    /// The rung reached.
    pub rung: Rung,
    /// Standing limits, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// How many limits, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits_total: Option<u64>,
}

/// A rung of the watch ladder, from most to nothing seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rung {
    /// File-handle records with names, targets and renames.
    A,
    /// File-handle records without renames.
    B,
    /// Descriptor events only, and rescans.
    C,
    /// Unprivileged notification, and rescans.
    D,
    /// No watch: scans alone.
    #[serde(rename = "none")]
    None,
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::None => "none",
        })
    }
}

/// A time and a place that was not seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From when nothing was seen.
    pub from: Timestamp,
    /// Until when; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Why, in a stable word: `overflow`, `restart`, `spool`, `lost`, `refused`, ….
    pub cause: String,
    /// Where; everywhere when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<ImagePath>,
    /// How many places, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths_total: Option<u64>,
}

/// A path that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Where.
    pub path: ImagePath,
    /// Why, in the system's words.
    pub error: String,
}

/// The mount table under the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounts {
    /// SHA-256 of the canonical JSON of the table.
    pub sha256: Digest,
    /// What the scope and the image do not expect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unexpected: Vec<UnexpectedMount>,
    /// How many are unexpected, where not all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected_total: Option<u64>,
}

/// A mount where none should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnexpectedMount {
    /// The mount point.
    pub path: ImagePath,
    /// What is mounted.
    pub source: String,
    /// The file system type.
    pub r#type: String,
    /// Who mounted it, where the kernel told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
}
