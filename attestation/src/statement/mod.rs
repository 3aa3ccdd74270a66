//! in-toto Statements v1: who says what about which subject. One file for each predicate.
//!
//! A statement that was only parsed proves nothing; [`crate::dsse::Envelope::verify`] makes the type that does.

mod actor;
mod assignment;
mod attestation;
mod coverage;
mod enrolment;
mod image;
mod receipt;
mod verdict;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::actor::{Actor, Ancestor, Confidence, Session, SessionCommand};
pub use self::assignment::{Allowed, Assignment};
pub use self::attestation::{
    AgentFacts, Assurance, Attestation, Difference, FileRef, Grown, TooMany, Touched,
};
pub use self::coverage::{Coverage, Gap, Mounts, Rung, UnexpectedMount, Unreadable, WatchCoverage};
pub use self::enrolment::{Enrolment, Renewal, Rotation};
pub use self::image::{Builder, Image, ManifestRef, Source};
pub use self::receipt::Receipt;
pub use self::verdict::VerdictStatement;
use crate::digest::Digest;
use crate::json::{self, JsonError};

/// The only payload type an envelope of ours may have.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The only `_type` a statement may have.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The digest name of a tree among a subject's digests.
pub const TREE_DIGEST: &str = "pristineTree";
/// A payload is at most this long, unless its predicate says otherwise (FORMATS.md 5.2).
pub const MAX_PAYLOAD: usize = 1 << 20;
/// An image statement carries its whole scope (1,000 rules of 1 KiB, escaped) and the mounts.
pub const MAX_IMAGE_PAYLOAD: usize = 8 << 20;

/// What a statement can say: the predicates of FORMATS.md 5.1 to 5.4.
pub trait Predicate: Serialize + DeserializeOwned {
    /// The NAME of `https://pristine.dev/NAME/v1`.
    const NAME: &'static str;
    /// The longest payload that a reader takes.
    const MAX_PAYLOAD: usize = MAX_PAYLOAD;
}

/// The `predicateType` of a predicate's name.
pub fn predicate_type(name: &str) -> String {
    format!("https://pristine.dev/{name}/v1")
}

/// What a statement speaks of: a name and its digests by algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A node id or an image's name.
    #[serde(default)]
    pub name: String,
    /// Lower-case hex by digest name.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with one digest.
    pub fn new(name: impl Into<String>, algorithm: &str, digest: &Digest) -> Self {
        let digest = BTreeMap::from([(algorithm.to_owned(), digest.to_string())]);
        Self {
            name: name.into(),
            digest,
        }
    }

    /// A subject named by its tree digest.
    pub fn of_tree(name: impl Into<String>, tree: &Digest) -> Self {
        Self::new(name, TREE_DIGEST, tree)
    }

    /// A subject named by the SHA-256 of bytes.
    pub fn of_bytes(name: impl Into<String>, sha256: &Digest) -> Self {
        Self::new(name, "sha256", sha256)
    }

    /// The digest of that name, where it is there and in its one form.
    pub fn digest_named(&self, algorithm: &str) -> Option<Digest> {
        self.digest.get(algorithm)?.parse().ok()
    }
}

/// An in-toto Statement v1 with a typed predicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<P> {
    /// What it speaks of.
    pub subject: Vec<Subject>,
    /// What it says.
    pub predicate: P,
}

/// Why a payload is not the statement that was expected.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The payload is longer than its predicate allows.
    #[error("statement of {size} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes of the payload.
        size: usize,
        /// The most that is read.
        limit: usize,
    },
    /// The payload is not strict JSON of the right shape.
    #[error("statement is not readable")]
    Json(#[from] JsonError),
    /// The payload type of the envelope is another.
    #[error("payload type {0:?} is not {PAYLOAD_TYPE}")]
    PayloadType(String),
    /// `_type` is another.
    #[error("statement type {0:?} is not {STATEMENT_TYPE}")]
    StatementType(String),
    /// `predicateType` is another: a key's role is one predicate.
    #[error("predicate type {found:?} is not {wanted}")]
    PredicateType {
        /// What was asked for.
        wanted: String,
        /// What the statement says.
        found: String,
    },
    /// No subject: nothing is said about nothing.
    #[error("statement has no subject")]
    NoSubject,
}

#[derive(Serialize)]
struct Written<'a, P> {
    #[serde(rename = "_type")]
    statement_type: &'a str,
    subject: &'a [Subject],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: &'a P,
}

#[derive(Deserialize)]
struct Read<P> {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: P,
}

/// What every statement has, whatever its predicate: enough to know what it is and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it speaks of.
    pub subject: Vec<Subject>,
    /// The whole `predicateType`.
    pub predicate_type: String,
}

#[derive(Deserialize)]
struct ReadHeader {
    #[serde(rename = "_type")]
    statement_type: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

impl Header {
    /// Reads what every statement has; the whole payload must be strict JSON.
    pub fn from_payload(payload: &[u8]) -> Result<Self, StatementError> {
        let read: ReadHeader = json::from_slice_strict(payload)?;
        check_type(&read.statement_type, &read.subject)?;
        Ok(Self {
            subject: read.subject,
            predicate_type: read.predicate_type,
        })
    }
}

impl<P: Predicate> Statement<P> {
    /// A statement about one subject.
    pub fn about(subject: Subject, predicate: P) -> Self {
        Self {
            subject: vec![subject],
            predicate,
        }
    }

    /// The payload bytes to sign; they are kept and never made again.
    ///
    /// Empty only if a predicate cannot be written as JSON, which no predicate here can be: no reader takes an empty payload.
    pub fn to_payload(&self) -> Vec<u8> {
        let written = Written {
            statement_type: STATEMENT_TYPE,
            subject: &self.subject,
            predicate_type: predicate_type(P::NAME),
            predicate: &self.predicate,
        };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads a payload; says nothing about who signed it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, StatementError> {
        if payload.len() > P::MAX_PAYLOAD {
            return Err(StatementError::TooLong {
                size: payload.len(),
                limit: P::MAX_PAYLOAD,
            });
        }
        // The type first: another predicate must be refused as that, not as a missing field of this one.
        let header = Header::from_payload(payload)?;
        let wanted = predicate_type(P::NAME);
        if header.predicate_type != wanted {
            return Err(StatementError::PredicateType {
                wanted,
                found: header.predicate_type,
            });
        }
        let read: Read<P> = serde_json::from_slice(payload).map_err(JsonError::from)?;
        debug_assert_eq!(
            (read.statement_type.as_str(), read.predicate_type),
            (STATEMENT_TYPE, wanted)
        );
        Ok(Self {
            subject: read.subject,
            predicate: read.predicate,
        })
    }

    /// The name of the first subject: a node id, or an image's name.
    pub fn name(&self) -> Option<&str> {
        self.subject.first().map(|subject| subject.name.as_str())
    }

    /// The tree digest of the first subject.
    pub fn tree(&self) -> Option<Digest> {
        self.subject.first()?.digest_named(TREE_DIGEST)
    }
}

fn check_type(statement_type: &str, subject: &[Subject]) -> Result<(), StatementError> {
    if statement_type != STATEMENT_TYPE {
        return Err(StatementError::StatementType(statement_type.to_owned()));
    }
    if subject.is_empty() {
        return Err(StatementError::NoSubject);
    }
    Ok(())
}

/// For `skip_serializing_if`: a flag that is not raised is not written.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// For `skip_serializing_if`: a count of nothing is not written.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
