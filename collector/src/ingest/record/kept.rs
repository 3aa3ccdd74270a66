//! What is kept of a statement: evidence, its row, its leaf, its receipt, what it says was touched.

use attestation::appraisal::Verdict;
use attestation::time::Timestamp;
use serde_json::json;

use super::Office;
use crate::ingest::Prepared;
use crate::log::{self, Leaf};
use crate::snapshots::{self, Named};
use crate::store::nodes::to_sql;
use crate::store::{NodeRow, StoreError, Writing};

/// Evidence, the statement's row, its leaf, and its receipt where it gets one.
pub(super) async fn keep_statement(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
    verdict: Option<Verdict>,
    reasons: &[String],
    receipted: bool,
) -> Result<(), StoreError> {
    let said = prepared.statement.predicate();
    let payload = prepared.payload.as_bytes().as_slice();
    log::keep(
        tx,
        "attestation",
        &prepared.payload,
        &prepared.statement.envelope().to_json(),
        office.received,
    )
    .await?;
    sqlx::query("INSERT INTO attestations (node, sequence, payload, received, fresh, verdict, reasons) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(&node.id)
        .bind(to_sql(said.sequence))
        .bind(payload)
        .bind(office.received.as_micros())
        .bind(prepared.fresh)
        .bind(verdict.map(Verdict::as_str))
        .bind(json!(reasons).to_string())
        .execute(&mut tx.connection)
        .await?;
    if receipted {
        sqlx::query("INSERT INTO receipts (payload, envelope) VALUES (?, ?)")
            .bind(payload)
            .bind(prepared.receipt.to_json())
            .execute(&mut tx.connection)
            .await?;
    }
    let leaf = Leaf {
        kind: "attestation",
        at: office.received,
        node: Some(&node.id),
        sequence: Some(said.sequence),
        digest: prepared.payload,
        more: json!({"fresh": prepared.fresh, "verdict": verdict}),
    };
    log::append(tx, &leaf).await
}

/// A node that compares with another image than before. Since when it does is told with its deployment; what it was before goes after its
/// time ([`crate::retention`]).
pub(super) async fn became(
    tx: &mut Writing,
    node: &NodeRow,
    prepared: &Prepared,
    received: Timestamp,
) -> Result<(), StoreError> {
    let said = prepared.statement.predicate();
    let Some(image) = said.image.filter(|image| node.image != Some(*image)) else {
        return Ok(());
    };
    sqlx::query(
        "INSERT OR REPLACE INTO node_images (node, since, image, sequence) VALUES (?, ?, ?, ?)",
    )
    .bind(&node.id)
    .bind(received.as_micros())
    .bind(image.as_bytes().as_slice())
    .bind(to_sql(said.sequence))
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

pub(super) async fn touched(
    tx: &mut Writing,
    node: &NodeRow,
    prepared: &Prepared,
) -> Result<(), StoreError> {
    let said = prepared.statement.predicate();
    for touched in &said.touched {
        let actor = touched
            .actor
            .as_ref()
            .and_then(|actor| serde_json::to_string(actor).ok());
        sqlx::query("INSERT INTO touched (id, node, path, event, count, first, last, actor, sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(uuid::Uuid::now_v7().to_string())
            .bind(&node.id)
            .bind(touched.path.to_string())
            .bind(&touched.event)
            .bind(to_sql(touched.count))
            .bind(touched.first.as_micros())
            .bind(touched.last.as_micros())
            .bind(actor)
            .bind(to_sql(said.sequence))
            .execute(&mut tx.connection)
            .await?;
    }
    Ok(())
}

/// The snapshot that a statement names, while it cannot list every difference.
pub(super) async fn snapshot(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
) -> Result<(), StoreError> {
    let said = prepared.statement.predicate();
    if said.differences_total.is_none() {
        // Everything is listed again: what was named is not kept there any more.
        office.snapshots.forget(&node.id);
        return Ok(());
    }
    let (Some(named), Some(image), Some(tree)) = (
        said.snapshot,
        said.image,
        prepared.statement.statement().tree(),
    ) else {
        return Ok(());
    };
    let named = Named {
        sha256: named.sha256,
        size: named.size,
        sequence: said.sequence,
        tree,
        image,
    };
    snapshots::named(tx, &office.snapshots, &node.id, named, office.received).await
}
