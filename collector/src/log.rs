//! The log (FORMATS.md section 7): until there are tiles a leaf is a row of an append-only table, and a receipt promises that.

use attestation::digest::Digest;
use attestation::time::Timestamp;

use crate::store::nodes::to_sql;
use crate::store::{StoreError, Writing};

/// One leaf.
pub struct Leaf<'a> {
    /// `attestation`, `violation`, `resolution`, `silence`, `enrolment`, `image`, `assignment`, `action`, `collector`, ….
    pub kind: &'static str,
    /// When.
    pub at: Timestamp,
    /// About which node.
    pub node: Option<&'a str>,
    /// About which statement of it.
    pub sequence: Option<u64>,
    /// SHA-256 of the evidence that it stands for.
    pub digest: Digest,
    /// Further members of the record.
    pub more: serde_json::Value,
}

/// Appends a leaf inside the transaction.
pub async fn append(tx: &mut Writing, leaf: &Leaf<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO log (at, type, node, sequence, digest, record) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(leaf.at.as_micros())
    .bind(leaf.kind)
    .bind(leaf.node)
    .bind(leaf.sequence.map(to_sql))
    .bind(leaf.digest.as_bytes().as_slice())
    .bind(record(leaf))
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

/// Stores evidence by its digest; the same bytes twice are stored once.
pub async fn keep(
    tx: &mut Writing,
    kind: &'static str,
    digest: &Digest,
    bytes: &[u8],
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO evidence (sha256, kind, bytes, stored) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(digest.as_bytes().as_slice())
        .bind(kind)
        .bind(bytes)
        .bind(at.as_micros())
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

fn record(leaf: &Leaf<'_>) -> String {
    let mut members = serde_json::json!({"type": leaf.kind, "at": leaf.at, "digest": leaf.digest});
    if let Some(object) = members.as_object_mut() {
        if let Some(node) = leaf.node {
            object.insert("node".to_owned(), node.into());
        }
        if let Some(sequence) = leaf.sequence {
            object.insert("sequence".to_owned(), sequence.into());
        }
        if let Some(more) = leaf.more.as_object() {
            object.extend(more.clone());
        }
    }
    members.to_string()
}
