//! The collector's verdict, with the digests of all that it was derived from (FORMATS.md 5.3).

use serde::{Deserialize, Serialize};

use super::Predicate;
use crate::digest::Digest;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// The predicate of a verdict; its subject is the node and the attested tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictStatement {
    /// The result.
    pub verdict: Verdict,
    /// Why.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// When the attestation was received.
    pub received: Timestamp,
    /// SHA-256 of the attestation's payload.
    pub attestation: Digest,
    /// SHA-256 of the image statement's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// SHA-256 of the assignment's payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Digest>,
    /// SHA-256 of the pinned lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Digest>,
}

impl Predicate for VerdictStatement {
    const NAME: &'static str = "verdict";
}
