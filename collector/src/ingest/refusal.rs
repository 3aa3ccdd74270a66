//! What is refused without storing it: counted, and the newest kept as bounded evidence.

use attestation::digest::Digest;
use attestation::time::Timestamp;

use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// So many refusals are kept.
const KEPT: i64 = 1_000;
/// So many bytes of what was refused are kept.
const SAMPLE: usize = 4_096;

/// Why a statement is refused; the stable word that the agent gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not signed by the node's key.
    Signature,
    /// No statement of the right shape.
    Malformed,
    /// It is about another node.
    AnotherNode,
    /// It is another node's, signed by that one.
    Replay,
    /// Out of sequence.
    Sequence,
    /// The sequence has other bytes already.
    Fork,
    /// The collector failed.
    Internal,
}

impl Code {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Malformed => "malformed",
            Self::AnotherNode => "another-node",
            Self::Replay => "replay",
            Self::Sequence => "sequence",
            Self::Fork => "fork",
            Self::Internal => "internal",
        }
    }
}

/// One refusal.
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// At which door.
    pub door: &'static str,
    /// Whose certificate, if any.
    pub node: Option<String>,
    /// Why.
    pub code: &'static str,
    /// In words.
    pub detail: String,
    /// The beginning of what was refused.
    pub sample: Vec<u8>,
}

/// Counts a refusal and keeps it, if the store has room; nothing depends on that.
pub fn note(store: &Store, metrics: &Metrics, refusal: Refusal) {
    metrics.refuse(refusal.code);
    let store = store.clone();
    tokio::spawn(async move {
        if let Err(error) = keep(&store, refusal).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "refusal not kept");
        }
    });
}

async fn keep(store: &Store, mut refusal: Refusal) -> Result<(), StoreError> {
    let sha256 = (!refusal.sample.is_empty()).then(|| Digest::of(&refusal.sample));
    refusal.sample.truncate(SAMPLE);
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO refusals (at, door, node, code, detail, sha256, sample) VALUES (?, ?, ?, ?, ?, ?, ?)")
                    .bind(refusal.at.as_micros())
                    .bind(refusal.door)
                    .bind(refusal.node)
                    .bind(refusal.code)
                    .bind(refusal.detail)
                    .bind(sha256.map(|digest| digest.as_bytes().to_vec()))
                    .bind(refusal.sample)
                    .execute(&mut tx.connection)
                    .await?;
                sqlx::query("DELETE FROM refusals WHERE id <= (SELECT max(id) FROM refusals) - ?")
                    .bind(KEPT)
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
}
