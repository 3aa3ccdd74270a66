//! The collector's promise that an attestation is in its log (FORMATS.md 5.4).

use serde::{Deserialize, Serialize};

use super::{Predicate, Statement, Subject};
use crate::digest::Digest;
use crate::key::NodeId;
use crate::time::Timestamp;

/// The predicate of a receipt; its subject is the node and the digest of the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Origin of the log.
    pub log: String,
    /// The sequence receipted.
    pub sequence: u64,
    /// Whether it answered a challenge in time.
    pub fresh: bool,
    /// When it was received, by the collector's clock.
    pub received: Timestamp,
    /// By when it is in the log.
    pub logged_by: Timestamp,
}

impl Predicate for Receipt {
    const NAME: &'static str = "receipt";
}

impl Statement<Receipt> {
    /// The receipt for that payload of that node.
    pub fn of_payload(node: &NodeId, payload: &Digest, predicate: Receipt) -> Self {
        Self::about(Subject::of_bytes(node.to_string(), payload), predicate)
    }

    /// The digest of the payload that it is for.
    pub fn payload_digest(&self) -> Option<Digest> {
        self.subject.first()?.digest_named("sha256")
    }
}
