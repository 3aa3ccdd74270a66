//! Who is let in: by the writer, in one transaction, so that a token is never used once too often.

use attestation::time::Timestamp;
use attestation::wire::TokenPair;
use http::StatusCode;
use sqlx::Row;
use subtle::ConstantTimeEq;

use super::certificate::{keep_certificate, pem};
use super::{Applicant, DEFAULT_GROUP, WAITING};
use crate::authority::Issued;
use crate::events::{Event, NodeEvent};
use crate::fleet::{self, Status, hash_secret};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// What deciding needs of the time.
#[derive(Clone, Copy)]
pub(super) struct Desk {
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) interval: u64,
}

pub(super) enum Decided {
    /// PEM.
    Certificate(String),
    Waits,
}

pub(super) type Decision = Result<Decided, ProblemResponse>;

pub(super) async fn decide(
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
