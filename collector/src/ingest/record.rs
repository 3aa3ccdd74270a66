//! The writer's part: order, forks, and everything that follows from a statement, in one transaction.

use std::sync::Arc;

use attestation::appraisal::Verdict;
use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Statement, Subject, VerdictStatement};
use attestation::time::Timestamp;
use attestation::wire::{Expected, Refused};
use serde_json::json;
use sqlx::Row;

use super::refusal::{Code, Refusal, note};
use super::sequence::{Place, expected, place};
use super::{Listed, Prepared};
use crate::events::{Event, NodeEvent, VerdictEvent};
use crate::keys::CollectorKeys;
use crate::log::{self, Leaf};
use crate::metrics::{Metrics, VerdictLabel};
use crate::problem::ProblemResponse;
use crate::settings::CollectorSettings;
use crate::state::AppState;
use crate::store::nodes::to_sql;
use crate::store::{NodeRow, NodeState, StoreError, Writing};
use crate::violations::steps::{Change, Facts, event, steps};
use crate::violations::store::{Channels, apply, open_of, open_of_kind};
use crate::violations::view::{Kind, Step};

/// A statement that is refused before it comes to the writer.
pub struct Refuse {
    /// Its place in the request.
    pub index: usize,
    /// Why.
    pub code: Code,
    /// What it was.
    pub envelope: Envelope,
}

/// What became of a request's statements.
pub struct Recorded {
    /// One for each statement taken, in order.
    pub receipts: Vec<Envelope>,
    /// Of the newest.
    pub verdict: Option<Verdict>,
    /// Whether the newest made its node fresh.
    pub fresh: bool,
    /// The first that was not taken.
    pub refused: Option<Refused>,
}

/// What the job needs beside the statements.
struct Office {
    node: String,
    received: Timestamp,
    calm: bool,
    webhooks: Vec<String>,
    metrics: Arc<Metrics>,
    keys: Arc<CollectorKeys>,
    listed: Listed,
    settings: Arc<CollectorSettings>,
}

impl Office {
    fn new(state: &AppState, node: &NodeRow, received: Timestamp, calm: bool) -> Self {
        Self {
            node: node.id.clone(),
            received,
            calm,
            webhooks: webhooks(&state.settings),
            metrics: Arc::clone(&state.metrics),
            keys: Arc::clone(&state.keys),
            listed: state.listed.clone(),
            settings: Arc::clone(&state.settings),
        }
    }

    fn channels(&self) -> Channels<'_> {
        Channels {
            webhooks: &self.webhooks,
            metrics: &self.metrics,
        }
    }
}

fn webhooks(settings: &CollectorSettings) -> Vec<String> {
    settings
        .webhooks
        .iter()
        .map(|webhook| webhook.url.clone())
        .collect()
}

/// Stores a request's statements, in order, up to the first that is refused.
pub async fn record(
    state: &AppState,
    node: &NodeRow,
    prepared: Vec<Prepared>,
    refuse: Option<Refuse>,
    received: Timestamp,
    calm: bool,
) -> Result<Result<Recorded, ProblemResponse>, StoreError> {
    let office = Office::new(state, node, received, calm);
    let done = state
        .store
        .write(move |tx| Box::pin(job(tx, office, prepared, refuse)))
        .await?;
    let (recorded, refusal) = match done {
        Ok(done) => done,
        Err(problem) => return Ok(Err(problem)),
    };
    if let Some(refusal) = refusal {
        note(&state.store, &state.metrics, refusal);
    }
    Ok(Ok(recorded))
}

type Done = Result<(Recorded, Option<Refusal>), ProblemResponse>;

async fn job(
    tx: &mut Writing,
    office: Office,
    prepared: Vec<Prepared>,
    refuse: Option<Refuse>,
) -> Result<Done, StoreError> {
    let Some(mut node) = tx.node(&office.node).await? else {
        return Err(StoreError::corrupt("nodes: the speaker is gone"));
    };
    // A ban that was committed since the request came holds for it too.
    if let Err(problem) = super::may_speak(&node) {
        return Ok(Err(problem));
    }
    let mut recorded = Recorded {
        receipts: Vec::new(),
        verdict: None,
        fresh: false,
        refused: None,
    };
    let mut refusal = None;
    for (index, prepared) in prepared.into_iter().enumerate() {
        match one(tx, &office, &mut node, &prepared).await? {
            Outcome::Taken(receipt, verdict) => {
                recorded.receipts.push(receipt);
                recorded.verdict = verdict;
                recorded.fresh = prepared.fresh;
            }
            Outcome::Told(receipt) => recorded.receipts.push(receipt),
            Outcome::Refused(code) => {
                recorded.refused = Some(refused(index, code, &node));
                refusal = Some(office.refusal(code, prepared.statement.envelope().to_json()));
                break;
            }
        }
    }
    if let Some(refuse) = refuse
        && recorded.refused.is_none()
    {
        if refuse.code == Code::Replay {
            replay(tx, &office, &node, &refuse.envelope).await?;
        }
        recorded.refused = Some(refused(refuse.index, refuse.code, &node));
        refusal = Some(office.refusal(refuse.code, refuse.envelope.to_json()));
    }
    Ok(Ok((recorded, refusal)))
}

impl Office {
    fn refusal(&self, code: Code, sample: Vec<u8>) -> Refusal {
        Refusal {
            at: self.received,
            door: "agents",
            node: Some(self.node.clone()),
            code: code.as_str(),
            detail: "statement refused".to_owned(),
            sample,
        }
    }
}

fn refused(index: usize, code: Code, node: &NodeRow) -> Refused {
    Refused {
        index: u64::try_from(index).unwrap_or(u64::MAX),
        code: code.as_str().to_owned(),
        expected: Some(expected(node.sequence, node.previous)),
    }
}

enum Outcome {
    /// Stored now.
    Taken(Envelope, Option<Verdict>),
    /// Stored before: the same receipt again.
    Told(Envelope),
    /// Not stored, or stored as proof of a fork.
    Refused(Code),
}

async fn one(
    tx: &mut Writing,
    office: &Office,
    node: &mut NodeRow,
    prepared: &Prepared,
) -> Result<Outcome, StoreError> {
    let said = prepared.statement.predicate();
    let end = expected(node.sequence, node.previous);
    match place(&end, node.jump_taken, said) {
        Place::Before => before(tx, office, node, prepared).await,
        Place::Elsewhere => Ok(Outcome::Refused(Code::Sequence)),
        Place::Next => take(tx, office, node, prepared, None).await,
        Place::Jump => take(tx, office, node, prepared, Some(&end)).await,
    }
}

/// A sequence that was taken already: the same bytes get the same receipt, other bytes are a fork.
async fn before(
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
async fn replay(
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
async fn once(
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
        &office.channels(),
    )
    .await
}

/// In sequence and by the right key: stored, whatever it says.
async fn take(
    tx: &mut Writing,
    office: &Office,
    node: &mut NodeRow,
    prepared: &Prepared,
    jumped: Option<&Expected>,
) -> Result<Outcome, StoreError> {
    let said = prepared.statement.predicate();
    let (verdict, reasons) = match &prepared.appraisal {
        Some(_) if node.forked => (Some(Verdict::Forked), vec!["fork".to_owned()]),
        Some(appraisal) => (Some(appraisal.verdict), appraisal.reasons.clone()),
        None => (None, Vec::new()),
    };
    let mut kept = reasons.clone();
    if let Some(log) = &prepared.another_log {
        tracing::warn!(node = node.id, log, "a statement for another log");
        kept.push(format!("another-log {log}"));
    }
    keep_statement(tx, office, node, prepared, verdict, &kept, true).await?;
    touched(tx, node, prepared).await?;
    violations(tx, office, node, prepared, verdict, &reasons, jumped).await?;
    // History may tell of something graver, but heals nothing.
    let was = node
        .verdict
        .as_deref()
        .and_then(|was| was.parse::<Verdict>().ok());
    if prepared.fresh || verdict > was {
        set_verdict(tx, office, node, verdict, &reasons, prepared).await?;
    }
    advance(node, prepared, office.received, jumped.is_some());
    tx.put_node(node.clone()).await?;
    tx.event(Event::Node(NodeEvent {
        id: node.id.clone(),
    }));
    if said.r#as.is_none() {
        office
            .listed
            .keep(&node.id, said.sequence, Arc::clone(&prepared.differences));
    }
    let label = VerdictLabel {
        verdict: verdict.map_or("none", Verdict::as_str).to_owned(),
    };
    office.metrics.statements.get_or_create(&label).inc();
    Ok(Outcome::Taken(prepared.receipt.clone(), verdict))
}

fn advance(node: &mut NodeRow, prepared: &Prepared, received: Timestamp, jumped: bool) {
    let said = prepared.statement.predicate();
    node.sequence = Some(said.sequence);
    node.previous = Some(prepared.payload);
    node.last_received = Some(received);
    if prepared.fresh {
        node.last_fresh = Some(received);
    }
    node.tree = prepared.statement.statement().tree();
    node.image = said.image;
    node.stopped = said.goodbye.then_some(received);
    node.differences_at = Some(prepared.differences_at);
    node.differences = said
        .differences_total
        .unwrap_or(0)
        .max(u64::try_from(prepared.differences.len()).unwrap_or(u64::MAX));
    node.jump_taken |= jumped;
    if node.state == NodeState::Retired && !said.goodbye {
        node.state = NodeState::Active;
    }
    node.stated = json!({
        "boot": said.boot,
        "issued": said.issued,
        "entries": said.entries,
        "coverage": said.coverage,
        "agent": said.agent,
        "claims": said.claims,
        "goodbye": said.goodbye,
        "rewound": said.rewound,
    });
}

/// Evidence, the statement's row, its leaf, and its receipt where it gets one.
async fn keep_statement(
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

async fn touched(tx: &mut Writing, node: &NodeRow, prepared: &Prepared) -> Result<(), StoreError> {
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

async fn violations(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
    verdict: Option<Verdict>,
    reasons: &[String],
    jumped: Option<&Expected>,
) -> Result<(), StoreError> {
    let said = prepared.statement.predicate();
    let open = if tx.nodes.is_clean(&node.id) {
        Vec::new()
    } else {
        open_of(tx, &node.id).await?
    };
    let facts = Facts {
        node: &node.id,
        node_name: &node.name,
        attestation: said,
        differences: &prepared.differences,
        verdict,
        reasons,
        fresh: prepared.fresh,
        received: office.received,
        image: prepared.image.as_ref().map(|image| image.view()),
        after_goodbye: node.stopped.is_some(),
        jumped: jumped.map(|end| (end.sequence, said.sequence)),
        fork: None,
        calm: office.calm,
    };
    let changes = steps(&open, &facts, || uuid::Uuid::now_v7().to_string());
    if open.is_empty() && changes.is_empty() {
        tx.nodes.set_clean(&node.id, true);
    }
    for change in &changes {
        apply(
            tx,
            change,
            office.received,
            Some(prepared.payload),
            &office.channels(),
        )
        .await?;
    }
    Ok(())
}

/// A changed verdict is signed, kept and told.
async fn set_verdict(
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
        pins: None,
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

/// The node sends more than its budget: told once, until it keeps within it again.
pub async fn flood(
    state: &AppState,
    node: &NodeRow,
    received: Timestamp,
) -> Result<(), StoreError> {
    let office = Office::new(state, node, received, false);
    let node = node.clone();
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                if open_of_kind(tx, &node.id, Kind::Flood).await?.is_some() {
                    return Ok(());
                }
                let limits = &office.settings.limits;
                let mut detail = serde_json::Map::new();
                detail.insert(
                    "statements_per_second".to_owned(),
                    json!(limits.statements_per_second),
                );
                detail.insert("bytes_per_day".to_owned(), json!(limits.bytes_per_day));
                once(tx, &office, &node, Kind::Flood, detail, None).await
            })
        })
        .await
}
