//! The activity log: what people and pipelines did. A row for pages and scripts, and a leaf of the log that stands for it.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use serde_json::{Value, json};

use crate::log::{self, Leaf};
use crate::store::{StoreError, Writing};

/// One thing that somebody did.
pub struct Action<'a> {
    /// When.
    pub at: Timestamp,
    /// Who: the account, or the one that a token speaks for.
    pub by: &'a str,
    /// What, in a stable word or two: `node.rescan`, `violation.resolve`.
    pub action: &'static str,
    /// To what: an id.
    pub target: &'a str,
    /// The node that it is about, if it is about one.
    pub node: Option<&'a str>,
    /// What else there is to say.
    pub detail: Value,
}

/// Writes it down, inside the transaction that does it.
pub async fn note(tx: &mut Writing, done: &Action<'_>) -> Result<(), StoreError> {
    let detail = done.detail.to_string();
    sqlx::query(
        "INSERT INTO actions (id, at, user, action, target, detail) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(uuid::Uuid::now_v7().to_string())
    .bind(done.at.as_micros())
    .bind(done.by)
    .bind(done.action)
    .bind(done.target)
    .bind(&detail)
    .execute(&mut tx.connection)
    .await?;
    let more =
        json!({"action": done.action, "by": done.by, "target": done.target, "detail": done.detail});
    let leaf = Leaf {
        kind: "action",
        at: done.at,
        node: done.node,
        sequence: None,
        digest: Digest::of(more.to_string().as_bytes()),
        more,
    };
    log::append(tx, &leaf).await
}
