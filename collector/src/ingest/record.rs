//! The writer's part: order, forks, and everything that follows from a statement, in one transaction.

mod accounted;
mod again;
mod flood;
mod kept;
mod verdict;

use std::sync::Arc;

use attestation::appraisal::Verdict;
use attestation::dsse::Envelope;
use attestation::scope::Expect;
use attestation::time::Timestamp;
use attestation::wire::{Expected, Refused};
use serde_json::json;

use self::accounted::accounted;
use self::again::{before, replay};
pub use self::flood::flood;
use self::kept::{became, keep_statement, snapshot, touched};
use self::verdict::set_verdict;
use super::refusal::{Code, Refusal, note};
use super::sequence::{Place, expected, place};
use super::{Listed, Prepared};
use crate::events::{Event, NodeEvent};
use crate::exceptions::{self, Exceptions};
use crate::keys::CollectorKeys;
use crate::logins;
use crate::metrics::{Metrics, VerdictLabel};
use crate::pins::{self, Standing};
use crate::problem::ProblemResponse;
use crate::settings::CollectorSettings;
use crate::snapshots::Snapshots;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};
use crate::violations::Resolution;
use crate::violations::steps::{Facts, steps};
use crate::violations::store::{Channels, apply, open_of, open_touched};
use crate::violations::view::Step;

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
    /// Violations that are over, or are about something else now.
    pub moved: Vec<String>,
}

/// What the job needs beside the statements.
struct Office {
    node: String,
    received: Timestamp,
    calm: bool,
    channels: Channels,
    metrics: Arc<Metrics>,
    keys: Arc<CollectorKeys>,
    listed: Listed,
    snapshots: Snapshots,
    exceptions: Arc<Exceptions>,
    settings: Arc<CollectorSettings>,
}

impl Office {
    fn new(state: &AppState, node: &NodeRow, received: Timestamp, calm: bool) -> Self {
        Self {
            node: node.id.clone(),
            received,
            calm,
            channels: state.channels.clone(),
            metrics: Arc::clone(&state.metrics),
            keys: Arc::clone(&state.keys),
            listed: state.listed.clone(),
            snapshots: state.snapshots.clone(),
            exceptions: Arc::clone(&state.exceptions),
            settings: Arc::clone(&state.settings),
        }
    }
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
        moved: Vec::new(),
    };
    let mut refusal = None;
    for (index, prepared) in prepared.into_iter().enumerate() {
        match one(tx, &office, &mut node, &prepared).await? {
            Outcome::Taken(receipt, verdict, moved) => {
                recorded.moved.extend(moved);
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
    Taken(Envelope, Option<Verdict>, Vec<String>),
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
    snapshot(tx, office, node, prepared).await?;
    logins::record(tx, node, said, office.received).await?;
    pinned(tx, node, prepared, office.received).await?;
    let moved = violations(tx, office, node, prepared, verdict, &reasons, jumped).await?;
    // History may tell of something graver, but heals nothing.
    let was = node
        .verdict
        .as_deref()
        .and_then(|was| was.parse::<Verdict>().ok());
    if prepared.fresh || verdict > was {
        set_verdict(tx, office, node, verdict, &reasons, prepared).await?;
    }
    became(tx, node, prepared, office.received).await?;
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
    Ok(Outcome::Taken(prepared.receipt.clone(), verdict, moved))
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
        "pins": said.pins,
        "goodbye": said.goodbye,
        "rewound": said.rewound,
    });
}

async fn violations(
    tx: &mut Writing,
    office: &Office,
    node: &NodeRow,
    prepared: &Prepared,
    verdict: Option<Verdict>,
    reasons: &[String],
    jumped: Option<&Expected>,
) -> Result<Vec<String>, StoreError> {
    let said = prepared.statement.predicate();
    let mut open = if tx.nodes.is_clean(&node.id) {
        Vec::new()
    } else {
        open_of(tx, &node.id).await?
    };
    open.extend(open_touched(tx, &node.id, &said.touched).await?);
    let accounted = accounted(office, node, prepared);
    if prepared.fresh {
        let relied = &office.exceptions;
        exceptions::rely(tx, relied, &node.id, &accounted, office.received).await?;
    }
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
        accounted: &accounted,
    };
    let mut changes = steps(&open, &facts, || uuid::Uuid::now_v7().to_string());
    if open.is_empty() && changes.is_empty() {
        tx.nodes.set_clean(&node.id, true);
    }
    for change in &mut changes {
        let is_pin = matches!(
            change.violation.expect,
            Some(Expect::Local | Expect::Growing)
        );
        if is_pin
            && change.step == Step::Resolved
            && let Some(word) = pins::word(tx, &change.violation).await?
        {
            change.violation.resolution = Some(word);
            change.violation.resolved_as = Some(Resolution::Accepted);
        }
        apply(
            tx,
            change,
            office.received,
            Some(prepared.payload),
            &office.channels,
        )
        .await?;
    }
    Ok(changes.into_iter().map(|it| it.violation.id).collect())
}

/// What the statement's pins are becomes what is held. One without an image says nothing of them.
async fn pinned(
    tx: &mut Writing,
    node: &mut NodeRow,
    prepared: &Prepared,
    received: Timestamp,
) -> Result<(), StoreError> {
    if prepared.statement.predicate().image.is_none() {
        return Ok(());
    }
    let held = match &prepared.pins {
        Standing::None => None,
        Standing::Missing(_) => return Ok(()),
        Standing::Held(held) => Some(held.as_ref()),
    };
    let image = prepared.image.as_ref();
    let scope = image.map(|image| &image.statement.predicate.scope);
    pins::put(tx, node, held, scope, received).await
}
