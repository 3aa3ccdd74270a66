//! Who is let in: by the writer, in one transaction, so that a token is never used once too often.

use std::net::IpAddr;

use attestation::time::Timestamp;
use attestation::wire::TokenPair;
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::Row;
use subtle::ConstantTimeEq;

use super::certificate::{keep_certificate, pem};
use super::{Applicant, DEFAULT_GROUP, WAITING};
use crate::access::{By, Person};
use crate::activity::{self, Doing, Target};
use crate::authority::Issued;
use crate::events::{Event, NodeEvent};
use crate::fleet::{self, Retiring, Status, hash_secret};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// What deciding needs of the time.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) now: Timestamp,
    pub(super) started: Timestamp,
    pub(super) interval: u64,
    /// Where the request comes from.
    pub(super) from: Option<IpAddr>,
    /// For those that give way.
    pub(super) retiring: Retiring,
}

/// A join token that is good, and one of its uses.
struct Spent {
    id: String,
    group: String,
    /// Who made it: the machine joins on their behalf.
    maker: String,
}

impl Spent {
    fn who(&self, desk: &Desk) -> Person {
        Person {
            by: By::JoinToken(self.id.clone()),
            from: desk.from,
            ..Person::local(self.maker.clone())
        }
    }
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
        return known(tx, &desk, &applicant, node, token, issued).await;
    }
    let said = &applicant.statement.predicate;
    let admitted = match token {
        None => None,
        Some(token) => match spend(tx, &token, desk.now).await? {
            None => return Ok(Err(no_token())),
            Some(spent) => Some(spent),
        },
    };
    let replaced = match free_name(tx, &desk, &said.name, said.replaces.as_deref()).await? {
        Ok(replaced) => replaced,
        Err(problem) => {
            give_back(tx, admitted.as_ref().map(|spent| spent.id.as_str())).await?;
            return Ok(Err(problem));
        }
    };
    let group = admitted
        .as_ref()
        .map_or(DEFAULT_GROUP, |spent| &spent.group)
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
    if let Some(spent) = &admitted {
        node.token_id = Some(spent.id.clone());
        node.approved = Some(desk.now);
        node.approved_by = Some(format!("token {}", spent.id));
    }
    enter(tx, &node, &applicant, desk.now).await?;
    if let Some(spent) = &admitted {
        admit(tx, &desk, spent, &node, replaced).await?;
    }
    if state == NodeState::Pending {
        return Ok(Ok(Decided::Waits));
    }
    keep_certificate(tx, &node.id, &issued, desk.now).await?;
    Ok(Ok(Decided::Certificate(issued.pem)))
}

/// The same key again: the same answer; a token is not counted twice.
async fn known(
    tx: &mut Writing,
    desk: &Desk,
    applicant: &Applicant,
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
            let Some(spent) = spend(tx, &token, desk.now).await? else {
                return Ok(Err(no_token()));
            };
            let replaces = applicant.statement.predicate.replaces.as_deref();
            let replaced = match free_name(tx, desk, &node.name, replaces).await? {
                Ok(replaced) => replaced,
                Err(problem) => {
                    give_back(tx, Some(&spent.id)).await?;
                    return Ok(Err(problem));
                }
            };
            node.state = NodeState::Active;
            node.group.clone_from(&spent.group);
            node.approved = Some(desk.now);
            node.approved_by = Some(format!("token {}", spent.id));
            node.token_id = Some(spent.id.clone());
            tx.event(Event::Node(NodeEvent {
                id: node.id.clone(),
            }));
            tx.put_node(node.clone()).await?;
            admit(tx, desk, &spent, &node, replaced).await?;
        }
        NodeState::Retired if node.stopped.is_none() => {
            return Ok(Err(ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "replaced",
                "this node is retired; make a new key",
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

/// Takes one use of a token, if it is good.
async fn spend(
    tx: &mut Writing,
    token: &TokenPair,
    now: Timestamp,
) -> Result<Option<Spent>, StoreError> {
    let row = sqlx::query("SELECT secret_hash, grp, created_by FROM join_tokens WHERE id = ? AND revoked IS NULL AND uses_left > 0 AND expires > ?")
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
    Ok(Some(Spent {
        id: token.id.clone(),
        group: row.try_get("grp")?,
        maker: row.try_get("created_by")?,
    }))
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
    desk: &Desk,
    name: &str,
    replaces: Option<&str>,
) -> Result<Result<Vec<NodeRow>, ProblemResponse>, StoreError> {
    let holders = fleet::holders(tx, name).await?;
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
            return Ok(Err(ProblemResponse::conflict("name-taken", detail)));
        }
    }
    Ok(Ok(holders))
}

/// Writes down who came in, and on whose behalf. A server rebuilt under the same name retires the node before it.
async fn admit(
    tx: &mut Writing,
    desk: &Desk,
    spent: &Spent,
    node: &NodeRow,
    replaced: Vec<NodeRow>,
) -> Result<(), StoreError> {
    let who = spent.who(desk);
    for before in replaced {
        desk.retiring
            .replace(tx, &who, before, &node.id, desk.now)
            .await?;
    }
    let doing = Doing {
        who: &who,
        at: desk.now,
        action: "node.join",
        target: Target::node(node),
        before: Value::Null,
        after: json!({"group": node.group, "state": node.state.as_str()}),
        reason: None,
    };
    activity::record(tx, &doing).await
}

async fn enter(
    tx: &mut Writing,
    node: &NodeRow,
    applicant: &Applicant,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.put_node(node.clone()).await?;
    log::keep(tx, "enrolment", &applicant.digest, &applicant.envelope, now).await?;
    let more = json!({"name": node.name, "group": node.group, "state": node.state.as_str(), "by": node.approved_by});
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
