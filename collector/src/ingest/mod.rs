//! From a request at the agents' door to receipts: certificate, node, signature, sequence and chain, explanation, verdict. The
//! challenge decides only whether a statement makes its node fresh.

mod budget;
mod challenge;
mod listed;
mod prepare;
mod record;
mod references;
mod refusal;
mod sequence;

use std::sync::Arc;
use std::time::Instant;

use attestation::dsse::{Envelope, VerifiedStatement};
use attestation::key::{NodeId, PublicKey};
use attestation::statement::{Attestation, Difference};
use attestation::time::Timestamp;
use attestation::wire::{
    AttestationsAnswer, AttestationsRequest, ChallengeAnswer, MAX_STATEMENTS, Request,
};
use http::StatusCode;
use sqlx::Row;

use crate::assignments::Current;
use crate::clock;
use crate::enrolment::former_keys;
use crate::fleet;
use crate::images::LoadedImage;
use crate::pins::{self, Held, Standing};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError};

pub use self::budget::{Budgets, Exceeded};
pub use self::challenge::{Challenges, Issued, NoRandom, Taken};
pub use self::listed::{Listed, current_differences};
pub use self::prepare::{Bench, Prepared, prepare, verify};
pub use self::record::{Recorded, Refuse};
pub use self::refusal::{Code, Refusal, note};
pub use self::sequence::{LOST, Place, expected, place};

/// Below this a request is verified where it arrives: a change of thread costs more.
const INLINE: usize = 32 << 10;
/// Statements made before a node can have heard of a new assignment: for so many intervals, and at least so many seconds.
const GRACE_INTERVALS: u64 = 3;
const GRACE_SECONDS: u64 = 10;

/// The node that a certificate names, if it may speak.
pub async fn speaker(state: &AppState, id: &str) -> Result<NodeRow, ProblemResponse> {
    let row: Option<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id = ?")
        .bind(id)
        .fetch_optional(state.store.read_pool())
        .await?;
    match row {
        None => Err(refused(
            "unknown-node",
            "no node has the certificate's id; enrol again",
        )),
        Some(row) => may_speak(&row).map(|()| row),
    }
}

/// Whether a node's statements are taken. A suspended one is not counted, but what it says is evidence like any other's.
pub fn may_speak(row: &NodeRow) -> Result<(), ProblemResponse> {
    match row.state {
        NodeState::Active | NodeState::Suspended => Ok(()),
        // One that said goodbye, was retired for staying away, and is back.
        NodeState::Retired if row.stopped.is_some() => Ok(()),
        NodeState::Retired => Err(refused(
            "unknown-node",
            "this node was replaced; enrol again",
        )),
        NodeState::Pending => Err(refused("pending", "this node waits for approval")),
        NodeState::Banned => Err(refused("banned", "this node is banned")),
    }
}

fn refused(code: &'static str, detail: &str) -> ProblemResponse {
    ProblemResponse::new(StatusCode::FORBIDDEN, code, detail)
}

/// Answers `POST /agent/v1/challenge`.
pub async fn challenge(state: &AppState, id: &str) -> Result<ChallengeAnswer, ProblemResponse> {
    let node = speaker(state, id).await?;
    let issued = issue(state, id)?;
    Ok(ChallengeAnswer {
        challenge: issued.challenge,
        expires: issued.expires,
        interval: state.settings.interval,
        assignment: state
            .assignments
            .of(&node.group)
            .map(|current| current.payload),
        requests: requests(state, id).await,
        expected: expected(node.sequence, node.previous),
    })
}

/// Answers `POST /agent/v1/attestations`.
pub async fn submit(
    state: &AppState,
    id: &str,
    request: AttestationsRequest,
    plain: usize,
) -> Result<AttestationsAnswer, ProblemResponse> {
    let (received, instant) = (clock::now(), Instant::now());
    let node = speaker(state, id).await?;
    if request.statements.is_empty() || request.statements.len() > MAX_STATEMENTS {
        return Err(ProblemResponse::malformed(format!(
            "a request has 1 to {MAX_STATEMENTS} statements"
        )));
    }
    if let Err(exceeded) = state
        .budgets
        .spend(id, request.statements.len(), plain, instant)
    {
        record::flood(state, &node, received).await?;
        return Err(ProblemResponse::new(
            StatusCode::TOO_MANY_REQUESTS,
            "flood",
            "above the node's budget",
        )
        .with_retry_after(exceeded.retry_after));
    }
    let work = Work::new(&node, received)?;
    let (verified, refuse) = work.verify(state, &node, request.statements, plain).await?;
    let wanted = verified
        .iter()
        .filter_map(|statement| statement.predicate().challenge.as_deref());
    let taken = state.challenges.take(id, wanted, instant);
    let prepared = work.prepare(state, &node, verified, &taken, plain).await;
    let standing = prepared
        .as_ref()
        .ok()
        .and_then(|prepared| prepared.last())
        .map(|last| last.pins.clone());
    let recorded = match prepared {
        Ok(prepared) => record::record(
            state,
            &node,
            prepared,
            refuse,
            received,
            state.budgets.calm(id, instant),
        )
        .await
        .map_err(ProblemResponse::from)
        .flatten(),
        Err(problem) => Err(problem),
    };
    let recorded = match recorded {
        Ok(recorded) => recorded,
        Err(problem) => {
            state.challenges.give_back(taken);
            state.pins.forget(id);
            return Err(problem);
        }
    };
    state.pins.over(id, &recorded.moved);
    match standing {
        Some(standing) if recorded.refused.is_none() => state.pins.note(id, &standing),
        _ => state.pins.forget(id),
    }
    state
        .metrics
        .ingest_seconds
        .observe(instant.elapsed().as_secs_f64());
    answer(state, id, &node.group, recorded).await
}

async fn answer(
    state: &AppState,
    id: &str,
    group: &str,
    recorded: Recorded,
) -> Result<AttestationsAnswer, ProblemResponse> {
    let issued = issue(state, id)?;
    Ok(AttestationsAnswer {
        receipts: recorded.receipts,
        verdict: recorded.verdict,
        fresh: recorded.fresh,
        challenge: issued.challenge,
        expires: issued.expires,
        interval: state.settings.interval,
        assignment: state.assignments.of(group).map(|current| current.payload),
        requests: requests(state, id).await,
        refused: recorded.refused,
    })
}

/// What a node is asked for with this answer.
async fn requests(state: &AppState, id: &str) -> Vec<Request> {
    let mut requests = fleet::due(state, id).await;
    requests.extend(state.snapshots.due(id, Instant::now()));
    requests.extend(state.pins.due(id));
    requests
}

fn issue(state: &AppState, id: &str) -> Result<Issued, ProblemResponse> {
    state
        .challenges
        .issue(id, clock::now(), Instant::now())
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "no challenge");
            ProblemResponse::internal()
        })
}

/// One request's work outside the writer.
struct Work {
    node: NodeId,
    key: PublicKey,
    received: Timestamp,
}

type Verified = Vec<VerifiedStatement<Attestation>>;

/// A statement with all that it is appraised by.
struct Job {
    statement: VerifiedStatement<Attestation>,
    differences: Option<Arc<Vec<Difference>>>,
    image: Option<Arc<LoadedImage>>,
    beside: Vec<Arc<LoadedImage>>,
    assignment: Option<Arc<Current>>,
    pins: Standing,
    fresh: bool,
}

impl Work {
    fn new(node: &NodeRow, received: Timestamp) -> Result<Self, ProblemResponse> {
        let corrupt = |what: String| ProblemResponse::from(StoreError::corrupt(what));
        let key = PublicKey::from_pem(&node.public_key)
            .map_err(|error| corrupt(format!("nodes.public_key: {error}")))?;
        let id = node
            .id
            .parse()
            .map_err(|_bad| corrupt("nodes.id".to_owned()))?;
        Ok(Self {
            node: id,
            key,
            received,
        })
    }

    /// Verifies in order, up to the first that is not this node's; the rest is not looked at.
    async fn verify(
        &self,
        state: &AppState,
        row: &NodeRow,
        statements: Vec<Envelope>,
        size: usize,
    ) -> Result<(Verified, Option<Refuse>), ProblemResponse> {
        let keys = vec![self.key.clone()];
        let (mut verified, mut failed) = self.signed_by(state, keys, statements, size).await?;
        if let Some((Code::Signature, rest)) = &mut failed {
            // Signed before the node took another key, and sent only now.
            let mut keys = former_keys(state, row).await?;
            if !keys.is_empty() {
                keys.push(self.key.clone());
                let rest = std::mem::take(rest);
                let (more, still) = self.signed_by(state, keys, rest, size).await?;
                verified.extend(more);
                failed = still;
            }
        }
        let Some((code, mut rest)) = failed else {
            return Ok((verified, None));
        };
        let (index, envelope) = (verified.len(), rest.remove(0));
        let code = if code == Code::AnotherNode && is_anothers(state, &envelope).await? {
            Code::Replay
        } else {
            code
        };
        Ok((
            verified,
            Some(Refuse {
                index,
                code,
                envelope,
            }),
        ))
    }

    /// Those that one of the keys has signed, up to the first that none has; with the reason, that one and what follows it.
    async fn signed_by(
        &self,
        state: &AppState,
        keys: Vec<PublicKey>,
        statements: Vec<Envelope>,
        size: usize,
    ) -> Result<(Verified, Option<(Code, Vec<Envelope>)>), ProblemResponse> {
        let node = self.node.clone();
        on_bench(state, size, move || {
            let mut verified = Vec::with_capacity(statements.len());
            let mut rest = statements.into_iter();
            while let Some(envelope) = rest.next() {
                match verify(&envelope, &node, &keys) {
                    Ok(statement) => verified.push(statement),
                    Err(code) => {
                        let rest = std::iter::once(envelope).chain(rest).collect();
                        return (verified, Some((code, rest)));
                    }
                }
            }
            (verified, None)
        })
        .await
    }

    async fn prepare(
        &self,
        state: &AppState,
        row: &NodeRow,
        verified: Verified,
        taken: &Taken,
        size: usize,
    ) -> Result<Vec<Prepared>, ProblemResponse> {
        let grace = (state.settings.interval.saturating_mul(GRACE_INTERVALS)).max(GRACE_SECONDS);
        let mut jobs = Vec::with_capacity(verified.len());
        let mut within: Vec<(u64, Arc<Vec<Difference>>)> = Vec::new();
        let mut pinned = self.pinned(state, &verified).await?;
        let accepted = state.pins.accepted(&row.id);
        for statement in verified {
            let said = statement.predicate();
            let image = references::image(state, said.image.as_ref()).await?;
            let assignment = state.assignments.for_statement(
                &row.group,
                said.image.as_ref(),
                self.received,
                grace,
            );
            let differences = match said.r#as {
                Some(sequence) => match within.iter().find(|(at, _)| *at == sequence) {
                    Some((_, listed)) => Some(Arc::clone(listed)),
                    None => state.listed.of(&state.store, &row.id, sequence).await?,
                },
                None => {
                    let listed = Arc::new(said.differences.clone());
                    within.push((said.sequence, Arc::clone(&listed)));
                    Some(listed)
                }
            };
            let another_log = said.log != state.settings.origin;
            let fresh = !another_log && taken.holds(said.challenge.as_deref());
            let listed = differences
                .as_ref()
                .map_or(&[][..], |listed| listed.as_slice());
            let scope = image.as_ref().map(|image| &image.statement.predicate.scope);
            let beside = match &assignment {
                Some(current) if !listed.is_empty() => {
                    references::beside(state, said.image.as_ref(), current, self.received).await?
                }
                _ => Vec::new(),
            };
            let pins = pins::stand(pinned.as_ref(), said, listed, scope, &accepted);
            if let Standing::Held(held) = &pins {
                pinned = Some(Arc::clone(held));
            }
            jobs.push(Job {
                differences,
                image,
                beside,
                assignment,
                pins,
                fresh,
                statement,
            });
        }
        let (node, received) = (self.node.clone(), self.received);
        let (keys, settings) = (Arc::clone(&state.keys), Arc::clone(&state.settings));
        let prepared = on_bench(state, size, move || {
            jobs.into_iter()
                .map(|job| {
                    let bench = Bench {
                        node: &node,
                        assignment: job.assignment.as_deref(),
                        keys: &keys,
                        origin: &settings.origin,
                        received,
                    };
                    let prepared = prepare(
                        &bench,
                        job.statement,
                        job.differences,
                        job.image,
                        job.pins,
                        job.fresh,
                    )?;
                    Ok(Prepared {
                        beside: job.beside,
                        ..prepared
                    })
                })
                .collect::<Result<Vec<_>, Code>>()
        })
        .await?;
        prepared.map_err(|_failed| ProblemResponse::internal())
    }

    /// What is held of the node, where a statement speaks of pins.
    async fn pinned(
        &self,
        state: &AppState,
        verified: &Verified,
    ) -> Result<Option<Arc<Held>>, ProblemResponse> {
        if verified.iter().all(|it| it.predicate().pins.is_none()) {
            return Ok(None);
        }
        Ok(state.pins.held(&state.store, self.node.as_str()).await?)
    }
}

/// Whether an envelope is a statement that another known node has signed.
async fn is_anothers(state: &AppState, envelope: &Envelope) -> Result<bool, ProblemResponse> {
    let Ok(header) = envelope.peek_header() else {
        return Ok(false);
    };
    let Some(subject) = header.subject.first() else {
        return Ok(false);
    };
    let row = sqlx::query("SELECT public_key FROM nodes WHERE id = ?")
        .bind(&subject.name)
        .fetch_optional(state.store.read_pool())
        .await?;
    let Some(row) = row else { return Ok(false) };
    let pem: String = row.try_get("public_key")?;
    Ok(PublicKey::from_pem(&pem).is_ok_and(|key| {
        envelope
            .verify::<Attestation>(std::slice::from_ref(&key), 1)
            .is_ok()
    }))
}

/// Runs what hashes and verifies: small requests here, others on a blocking thread, a bounded number at once.
async fn on_bench<T, F>(state: &AppState, size: usize, work: F) -> Result<T, ProblemResponse>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if size <= INLINE {
        return Ok(work());
    }
    let _place = state
        .bench
        .acquire()
        .await
        .map_err(|_closed| ProblemResponse::internal())?;
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_gone| ProblemResponse::internal())
}
