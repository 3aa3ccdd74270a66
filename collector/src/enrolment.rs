//! Who becomes a node: by a join token at once, without one when a person agrees. The node id comes from the key, so another key
//! is another node, and the same key again gets the same answer.

use attestation::key::{NodeId, PublicKey};
use attestation::statement::{Enrolment, Renewal, Statement};
use attestation::time::Timestamp;
use attestation::wire::{
    CollectorKeys, EnrolmentAnswer, EnrolmentPending, EnrolmentRequest, RenewalAnswer,
    RenewalRequest, TokenPair,
};
use http::StatusCode;
use sqlx::Row;
use subtle::ConstantTimeEq;

use crate::authority::{Issued, public_key_of};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::fleet::{self, Status, hash_secret};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// Nodes that wait for a person; more are told to come again.
const WAITING: i64 = 1_000;
/// Seconds until a waiting node asks again.
const ASK_AGAIN: u64 = 5;
/// A product UUID and whatever else machines have for one.
const MACHINE: usize = 128;
/// The group of nodes that came without a token.
const DEFAULT_GROUP: &str = "default";

/// What an enrolment came to.
pub enum Enrolled {
    /// 201.
    Admitted(Box<EnrolmentAnswer>),
    /// 202.
    Waits(EnrolmentPending),
}

/// A request whose signature and certificate request are by one key.
struct Applicant {
    id: NodeId,
    key: PublicKey,
    statement: Statement<Enrolment>,
    envelope: Vec<u8>,
    digest: attestation::digest::Digest,
}

/// Answers `POST /join/v1/enrolment`.
pub async fn enrol(
    state: &AppState,
    request: EnrolmentRequest,
) -> Result<Enrolled, ProblemResponse> {
    let applicant = applicant(&request)?;
    let (id, now) = (applicant.id.clone(), clock::now());
    let issued = issue(state, &id, &applicant.key, now)?;
    let desk = Desk {
        now,
        started: state.started,
        interval: state.settings.interval,
    };
    let decided = state
        .store
        .write(move |tx| Box::pin(decide(tx, desk, applicant, request.token, issued)))
        .await??;
    match decided {
        Decided::Certificate(pem) => Ok(Enrolled::Admitted(Box::new(answer(state, id, pem)))),
        Decided::Waits => Ok(Enrolled::Waits(EnrolmentPending {
            node: id,
            retry_after: ASK_AGAIN,
        })),
    }
}

/// Answers `POST /join/v1/renewal`.
pub async fn renew(
    state: &AppState,
    request: RenewalRequest,
) -> Result<RenewalAnswer, ProblemResponse> {
    let claimed = request
        .statement
        .peek::<Renewal>()
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    let id = claimed.name().unwrap_or_default().to_owned();
    let node: Option<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id = ?")
        .bind(&id)
        .fetch_optional(state.store.read_pool())
        .await?;
    let node = node.ok_or_else(|| {
        ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "unknown-node",
            "no node has that id; enrol again",
        )
    })?;
    let key = PublicKey::from_pem(&node.public_key)
        .map_err(|error| StoreError::corrupt(error.to_string()))?;
    request
        .statement
        .verify::<Renewal>(std::slice::from_ref(&key), 1)
        .map_err(|error| {
            ProblemResponse::new(StatusCode::FORBIDDEN, "signature", error.to_string())
        })?;
    match node.state {
        NodeState::Active | NodeState::Suspended | NodeState::Retired => {}
        NodeState::Banned => {
            return Err(ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "banned",
                "this node is banned",
            ));
        }
        NodeState::Pending => {
            return Err(ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "pending",
                "this node waits for approval",
            ));
        }
    }
    let requested = public_key_of(&claimed.predicate.csr)
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    if requested != key.spki_der() {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "other-key",
            "the certificate request is for another key",
        ));
    }
    let now = clock::now();
    let node_id = id
        .parse()
        .map_err(|_bad| ProblemResponse::malformed("no node id"))?;
    let issued = issue(state, &node_id, &key, now)?;
    let certificate = issued.pem.clone();
    state
        .store
        .write(move |tx| Box::pin(async move { keep_certificate(tx, &id, &issued, now).await }))
        .await?;
    Ok(RenewalAnswer { certificate })
}

fn applicant(request: &EnrolmentRequest) -> Result<Applicant, ProblemResponse> {
    let malformed = |error: String| ProblemResponse::malformed(error);
    let claimed = request
        .statement
        .peek::<Enrolment>()
        .map_err(|error| malformed(error.to_string()))?;
    let spki =
        public_key_of(&claimed.predicate.csr).map_err(|error| malformed(error.to_string()))?;
    let key = PublicKey::from_spki_der(&spki).map_err(|error| malformed(error.to_string()))?;
    let verified = request
        .statement
        .verify::<Enrolment>(std::slice::from_ref(&key), 1)
        .map_err(|error| {
            ProblemResponse::new(StatusCode::FORBIDDEN, "signature", error.to_string())
        })?;
    let id = NodeId::of(&key);
    if verified.statement().name() != Some(id.as_str()) {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "other-key",
            "the statement is about another node than its key's",
        ));
    }
    let name = &claimed.predicate.name;
    fleet::checked(name).map_err(|error| malformed(error.to_string()))?;
    let machine = claimed.predicate.machine.as_deref();
    if machine.is_some_and(|machine| machine.len() > MACHINE || fleet::checked(machine).is_err()) {
        return Err(malformed(format!(
            "`machine` has 1 to {MACHINE} visible characters"
        )));
    }
    let replaces = claimed.predicate.replaces.as_deref();
    if replaces.is_some_and(|id| id.parse::<NodeId>().is_err()) {
        return Err(malformed("`replaces` is a node id".to_owned()));
    }
    Ok(Applicant {
        id,
        key,
        digest: verified.payload_digest(),
        envelope: request.statement.to_json(),
        statement: claimed,
    })
}

fn issue(
    state: &AppState,
    id: &NodeId,
    key: &PublicKey,
    now: Timestamp,
) -> Result<Issued, ProblemResponse> {
    state
        .authority
        .issue_node(id.as_str(), &key.spki_der(), now)
        .map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no certificate issued"
            );
            ProblemResponse::internal()
        })
}

fn answer(state: &AppState, node: NodeId, certificate: String) -> EnrolmentAnswer {
    EnrolmentAnswer {
        node,
        certificate,
        ca: state.authority.pem().to_owned(),
        agents: state.agents_urls(),
        log: state.settings.origin.clone(),
        publishers: state.settings.publishers.clone(),
        keys: CollectorKeys {
            receipt: state.keys.receipt.public(),
            assignment: state.keys.assignment.public(),
            verdict: state.keys.verdict.public(),
        },
        interval: state.settings.interval,
    }
}

/// What deciding needs of the time.
#[derive(Clone, Copy)]
struct Desk {
    now: Timestamp,
    started: Timestamp,
    interval: u64,
}

enum Decided {
    /// PEM.
    Certificate(String),
    Waits,
}

type Decision = Result<Decided, ProblemResponse>;

async fn decide(
    tx: &mut Writing,
    desk: Desk,
    applicant: Applicant,
    token: Option<TokenPair>,
    issued: Issued,
) -> Result<Decision, StoreError> {
    if let Some(node) = tx.node(applicant.id.as_str()).await? {
        return known(tx, desk, node, token, issued).await;
    }
    let said = &applicant.statement.predicate;
    let admitted = match token {
        None => None,
        Some(token) => match spend(tx, &token, desk.now).await? {
            None => return Ok(Err(no_token())),
            Some(group) => Some((token.id, group)),
        },
    };
    let replaced = match free_name(tx, desk, &said.name, said.replaces.as_deref()).await? {
        Ok(replaced) => replaced,
        Err(problem) => {
            give_back(tx, admitted.as_ref().map(|(id, _)| id.as_str())).await?;
            return Ok(Err(problem));
        }
    };
    let group = admitted
        .as_ref()
        .map_or(DEFAULT_GROUP, |(_, group)| group)
        .to_owned();
    let state = if admitted.is_some() {
        NodeState::Active
    } else {
        NodeState::Pending
    };
    if admitted.is_none() {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM nodes WHERE state = 'pending'")
            .fetch_one(&mut tx.connection)
            .await?;
        if waiting >= WAITING {
            let problem = ProblemResponse::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-waiting",
                "too many nodes wait for approval",
            );
            return Ok(Err(problem.with_retry_after(60)));
        }
    }
    let mut node = NodeRow::new(
        applicant.id.to_string(),
        said.name.clone(),
        group,
        state,
        applicant.key.to_pem(),
        desk.now,
    );
    node.machine.clone_from(&said.machine);
    node.replaces.clone_from(&said.replaces);
    node.token_id = admitted.map(|(id, _)| id);
    if state == NodeState::Active {
        node.approved = Some(desk.now);
        node.approved_by = node.token_id.as_ref().map(|id| format!("token {id}"));
        retire(tx, &replaced).await?;
    }
    enter(tx, &node, &applicant, desk.now).await?;
    if state == NodeState::Pending {
        return Ok(Ok(Decided::Waits));
    }
    keep_certificate(tx, &node.id, &issued, desk.now).await?;
    Ok(Ok(Decided::Certificate(issued.pem)))
}

/// The same key again: the same answer; a token is not counted twice.
async fn known(
    tx: &mut Writing,
    desk: Desk,
    mut node: NodeRow,
    token: Option<TokenPair>,
    issued: Issued,
) -> Result<Decision, StoreError> {
    match node.state {
        NodeState::Banned => {
            return Ok(Err(ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "banned",
                "this node is banned",
            )));
        }
        NodeState::Pending => {
            let Some(token) = token else {
                return Ok(Ok(Decided::Waits));
            };
            let Some(group) = spend(tx, &token, desk.now).await? else {
                return Ok(Err(no_token()));
            };
            node.state = NodeState::Active;
            node.group = group;
            node.approved = Some(desk.now);
            node.approved_by = Some(format!("token {}", token.id));
            node.token_id = Some(token.id);
            tx.event(Event::Node(NodeEvent {
                id: node.id.clone(),
            }));
            tx.put_node(node.clone()).await?;
        }
        NodeState::Retired if node.stopped.is_none() => {
            return Ok(Err(ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "replaced",
                "this node was replaced; make a new key",
            )));
        }
        NodeState::Active | NodeState::Suspended | NodeState::Retired => {}
    }
    let row = sqlx::query(
        "SELECT der FROM certificates WHERE node = ? AND expires > ? ORDER BY issued DESC LIMIT 1",
    )
    .bind(&node.id)
    .bind(desk.now.as_micros())
    .fetch_optional(&mut tx.connection)
    .await?;
    if let Some(row) = row {
        let der: Vec<u8> = row.try_get("der")?;
        return Ok(Ok(Decided::Certificate(pem(&der))));
    }
    keep_certificate(tx, &node.id, &issued, desk.now).await?;
    Ok(Ok(Decided::Certificate(issued.pem)))
}

fn no_token() -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::UNAUTHORIZED,
        "token",
        "the join token is unknown, used up, revoked or expired",
    )
}

/// Takes one use of a token; its group, if it is good.
async fn spend(
    tx: &mut Writing,
    token: &TokenPair,
    now: Timestamp,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT secret_hash, grp FROM join_tokens WHERE id = ? AND revoked IS NULL AND uses_left > 0 AND expires > ?")
        .bind(&token.id)
        .bind(now.as_micros())
        .fetch_optional(&mut tx.connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let stored: Vec<u8> = row.try_get("secret_hash")?;
    if !bool::from(
        stored
            .as_slice()
            .ct_eq(hash_secret(&token.secret).as_bytes().as_slice()),
    ) {
        return Ok(None);
    }
    sqlx::query("UPDATE join_tokens SET uses_left = uses_left - 1 WHERE id = ?")
        .bind(&token.id)
        .execute(&mut tx.connection)
        .await?;
    Ok(Some(row.try_get("grp")?))
}

async fn give_back(tx: &mut Writing, token: Option<&str>) -> Result<(), StoreError> {
    if let Some(id) = token {
        sqlx::query("UPDATE join_tokens SET uses_left = uses_left + 1 WHERE id = ?")
            .bind(id)
            .execute(&mut tx.connection)
            .await?;
    }
    Ok(())
}

/// Whether a name may be taken, and which nodes then give way: those that are lost, stopped, or named in `replaces`.
async fn free_name(
    tx: &mut Writing,
    desk: Desk,
    name: &str,
    replaces: Option<&str>,
) -> Result<Result<Vec<NodeRow>, ProblemResponse>, StoreError> {
    let holders: Vec<NodeRow> = sqlx::query_as(
        "SELECT * FROM nodes WHERE name = ? AND state IN ('active', 'suspended', 'banned')",
    )
    .bind(name)
    .fetch_all(&mut tx.connection)
    .await?;
    for holder in &holders {
        let gone = matches!(
            fleet::status(holder, desk.now, desk.started, desk.interval),
            Status::Lost | Status::Stopped
        );
        let named = replaces == Some(holder.id.as_str());
        if holder.state == NodeState::Banned || !(gone || named) {
            let detail = format!(
                "the name {name:?} is node {}'s, which is neither lost nor stopped nor in `replaces`",
                holder.id
            );
            return Ok(Err(ProblemResponse::new(
                StatusCode::CONFLICT,
                "name-taken",
                detail,
            )));
        }
    }
    Ok(Ok(holders))
}

/// A server rebuilt under the same name retires the node before it.
async fn retire(tx: &mut Writing, replaced: &[NodeRow]) -> Result<(), StoreError> {
    for node in replaced {
        let mut node = node.clone();
        node.state = NodeState::Retired;
        node.stopped = None;
        tx.event(Event::Node(NodeEvent {
            id: node.id.clone(),
        }));
        tx.put_node(node).await?;
    }
    Ok(())
}

async fn enter(
    tx: &mut Writing,
    node: &NodeRow,
    applicant: &Applicant,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.put_node(node.clone()).await?;
    log::keep(tx, "enrolment", &applicant.digest, &applicant.envelope, now).await?;
    let more = serde_json::json!({"name": node.name, "group": node.group, "state": node.state.as_str(), "by": node.approved_by});
    log::append(
        tx,
        &Leaf {
            kind: "enrolment",
            at: now,
            node: Some(&node.id),
            sequence: None,
            digest: applicant.digest,
            more,
        },
    )
    .await?;
    tx.event(Event::Node(NodeEvent {
        id: node.id.clone(),
    }));
    Ok(())
}

async fn keep_certificate(
    tx: &mut Writing,
    node: &str,
    issued: &Issued,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (serial, node, der, issued, expires) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&issued.serial)
    .bind(node)
    .bind(&issued.der)
    .bind(now.as_micros())
    .bind(issued.expires.as_micros())
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
