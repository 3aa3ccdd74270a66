//! A changed verdict is signed, kept and told.

use attestation::appraisal::Verdict;
use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Statement, Subject, VerdictStatement};
use serde_json::json;

use super::Office;
use crate::events::{Event, VerdictEvent};
use crate::ingest::Prepared;
use crate::log;
use crate::pins::Standing;
use crate::store::nodes::to_sql;
use crate::store::{NodeRow, StoreError, Writing};

/// A changed verdict is signed, kept and told.
pub(super) async fn set_verdict(
    tx: &mut Writing,
    office: &Office,
    node: &mut NodeRow,
    verdict: Option<Verdict>,
    reasons: &[String],
    prepared: &Prepared,
) -> Result<(), StoreError> {
    node.verdict_at = Some(office.received);
    node.verdict_reasons = reasons.to_vec();
    let was = node
        .verdict
        .as_deref()
        .and_then(|was| was.parse::<Verdict>().ok());
    if verdict == was {
        return Ok(());
    }
    node.verdict = verdict.map(|verdict| verdict.as_str().to_owned());
    node.verdict_since = Some(office.received);
    let sequence = prepared.statement.predicate().sequence;
    sqlx::query("INSERT INTO verdict_changes (node, at, sequence, verdict, was, reasons) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&node.id)
        .bind(office.received.as_micros())
        .bind(to_sql(sequence))
        .bind(verdict.map(Verdict::as_str))
        .bind(was.map(Verdict::as_str))
        .bind(json!(reasons).to_string())
        .execute(&mut tx.connection)
        .await?;
    if let Some(verdict) = verdict {
        sign_verdict(tx, office, node, verdict, reasons, prepared).await?;
    }
    tx.journal_changed();
    tx.event(Event::Verdict(VerdictEvent {
        node: node.id.clone(),
        name: node.name.clone(),
        verdict,
        was,
        reasons: reasons.to_vec(),
        at: office.received,
        sequence,
    }));
    Ok(())
}

async fn sign_verdict(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    verdict: Verdict,
    reasons: &[String],
    prepared: &Prepared,
) -> Result<(), StoreError> {
    let tree = prepared
        .statement
        .statement()
        .tree()
        .unwrap_or(Digest::ZERO);
    let said = VerdictStatement {
        verdict,
        reasons: reasons.to_vec(),
        received: office.received,
        attestation: prepared.payload,
        image: prepared.image.as_ref().map(|image| image.payload),
        assignment: prepared.assignment,
        pins: match &prepared.pins {
            Standing::Held(held) => Some(held.file.sha256),
            Standing::None | Standing::Missing(_) => None,
        },
    };
    let statement = Statement::about(Subject::of_tree(node.id.clone(), &tree), said);
    let envelope = Envelope::sign(statement.to_payload(), &office.keys.verdict)
        .map_err(|error| StoreError::corrupt(error.to_string()))?;
    log::keep(
        tx,
        "verdict",
        &envelope.payload_digest(),
        &envelope.to_json(),
        office.received,
    )
    .await
}
