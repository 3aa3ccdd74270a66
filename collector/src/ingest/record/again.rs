//! A sequence for the second time, and bytes of another node: the same receipt, a fork, a replay.

use attestation::appraisal::Verdict;
use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Receipt, Statement};
use attestation::time::Timestamp;
use serde_json::json;
use sqlx::Row;

use super::kept::keep_statement;
use super::verdict::set_verdict;
use super::{Office, Outcome};
use crate::ingest::Prepared;
use crate::ingest::refusal::Code;
use crate::store::nodes::to_sql;
use crate::store::{NodeRow, StoreError, Writing};
use crate::violations::steps::{Change, event};
use crate::violations::store::{apply, open_of_kind};
use crate::violations::view::{Kind, Step};

/// A sequence that was taken already: the same bytes get the same receipt, other bytes are a fork.
pub(super) async fn before(
    tx: &mut Writing,
    office: &Office,
    node: &mut NodeRow,
    prepared: &Prepared,
) -> Result<Outcome, StoreError> {
    let payload = prepared.payload.as_bytes().as_slice();
    let known: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT envelope FROM receipts WHERE payload = ?")
            .bind(payload)
            .fetch_optional(&mut tx.connection)
            .await?;
    if let Some(bytes) = known {
        office.metrics.repeated.inc();
        let receipt = Envelope::from_json(&bytes)
            .map_err(|error| StoreError::corrupt(format!("receipts.envelope: {error}")))?;
        return Ok(Outcome::Told(receipt));
    }
    let said = prepared.statement.predicate();
    if let Some(receipt) = pruned(tx, office, node, prepared).await? {
        office.metrics.repeated.inc();
        return Ok(Outcome::Told(receipt));
    }
    let rows = sqlx::query("SELECT payload FROM attestations WHERE node = ? AND sequence = ?")
        .bind(&node.id)
        .bind(to_sql(said.sequence))
        .fetch_all(&mut tx.connection)
        .await?;
    let payloads = rows
        .iter()
        .map(|row| row.try_get::<Vec<u8>, _>("payload"))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(other) = payloads.iter().find(|other| other.as_slice() != payload) else {
        return Ok(Outcome::Refused(Code::Sequence));
    };
    if payloads.iter().any(|stored| stored == payload) {
        return Ok(Outcome::Refused(Code::Fork));
    }
    let other: [u8; 32] = other
        .as_slice()
        .try_into()
        .map_err(|_bad| StoreError::corrupt("attestations.payload"))?;
    fork(tx, office, node, prepared, Digest::from_bytes(other)).await?;
    Ok(Outcome::Refused(Code::Fork))
}

/// The receipt of a statement whose evidence was pruned: the same bytes as before, because all that it says stands in the statement's
/// row, and one key signs the same bytes alike.
async fn pruned(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
) -> Result<Option<Envelope>, StoreError> {
    let said = prepared.statement.predicate();
    let row = sqlx::query(
        "SELECT received, fresh FROM attestations WHERE node = ? AND sequence = ? AND payload = ? AND pruned IS NOT NULL",
    )
    .bind(&node.id)
    .bind(to_sql(said.sequence))
    .bind(prepared.payload.as_bytes().as_slice())
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let received = Timestamp::from_micros(row.try_get("received")?);
    let node: attestation::key::NodeId = node
        .id
        .parse()
        .map_err(|_bad| StoreError::corrupt("nodes.id"))?;
    let receipt = Statement::<Receipt>::of_payload(
        &node,
        &prepared.payload,
        Receipt {
            log: office.settings.origin.clone(),
            sequence: said.sequence,
            fresh: row.try_get("fresh")?,
            received,
            logged_by: received,
        },
    );
    Envelope::sign(receipt.to_payload(), &office.keys.receipt)
        .map(Some)
        .map_err(|error| StoreError::corrupt(error.to_string()))
}

/// Both statements are kept as proof; the node is forked until re-enrolment is approved.
async fn fork(
    tx: &mut Writing,
    office: &Office,
    node: &mut NodeRow,
    prepared: &Prepared,
    other: Digest,
) -> Result<(), StoreError> {
    let reasons = vec!["fork".to_owned()];
    keep_statement(
        tx,
        office,
        node,
        prepared,
        Some(Verdict::Forked),
        &reasons,
        false,
    )
    .await?;
    node.forked = true;
    let said = prepared.statement.predicate();
    let mut detail = serde_json::Map::new();
    detail.insert("sequence".to_owned(), json!(said.sequence));
    detail.insert("payloads".to_owned(), json!([other, prepared.payload]));
    once(tx, office, node, Kind::Fork, detail, Some(prepared.payload)).await?;
    set_verdict(tx, office, node, Some(Verdict::Forked), &reasons, prepared).await?;
    tx.put_node(node.clone()).await
}

/// Another node's bytes: not stored as evidence of that node, but told.
pub(super) async fn replay(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    envelope: &Envelope,
) -> Result<(), StoreError> {
    let of = envelope
        .peek_header()
        .ok()
        .and_then(|header| header.subject.first().map(|subject| subject.name.clone()));
    let mut detail = serde_json::Map::new();
    detail.insert("of".to_owned(), json!(of));
    detail.insert("payload".to_owned(), json!(envelope.payload_digest()));
    once(tx, office, node, Kind::Replay, detail, None).await
}

/// Opens the violation of a kind without a path, or updates it where it says something else.
pub(super) async fn once(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    kind: Kind,
    detail: serde_json::Map<String, serde_json::Value>,
    evidence: Option<Digest>,
) -> Result<(), StoreError> {
    let open = open_of_kind(tx, &node.id, kind).await?;
    let mut violation = event(
        &node.id,
        &node.name,
        kind,
        office.received,
        detail,
        uuid::Uuid::now_v7().to_string(),
    );
    let step = match open {
        Some(open) if open.detail == violation.detail => return Ok(()),
        Some(open) => {
            violation.id = open.id;
            violation.opened = open.opened;
            violation.detected = open.detected;
            Step::Updated
        }
        None => Step::Opened,
    };
    apply(
        tx,
        &Change { step, violation },
        office.received,
        evidence,
        &office.channels,
    )
    .await
}
