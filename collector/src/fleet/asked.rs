//! What people ask of nodes: kept in the store until the node is told with its next answer, and then never again. Whether
//! anything waits is known in memory, so that a quiet attestation asks no table.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use attestation::time::Timestamp;
use attestation::wire::{Request, RequestKind};
use serde::Serialize;
use serde_json::Value;

use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeState, Store, StoreError};

/// Nodes that are to be told something.
#[derive(Default)]
pub struct Asked {
    waiting: Mutex<HashSet<String>>,
}

impl Asked {
    /// What waits in the store.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let waiting: Vec<String> =
            sqlx::query_scalar("SELECT DISTINCT node FROM asked WHERE told IS NULL")
                .fetch_all(store.read_pool())
                .await?;
        Ok(Self {
            waiting: Mutex::new(waiting.into_iter().collect()),
        })
    }

    fn add(&self, node: &str) {
        self.lock().insert(node.to_owned());
    }

    fn take(&self, node: &str) -> bool {
        self.lock().remove(node)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for its node.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Waiting {
    /// The node's id.
    pub node: String,
    /// `rescan`.
    pub kind: &'static str,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

/// Asks a node to look at everything again. A second wish while the first one waits is the same one.
pub async fn rescan(state: &AppState, who: &Person, id: &str) -> Result<Waiting, ProblemResponse> {
    let (node_id, by, at) = (id.to_owned(), who.clone(), clock::now());
    let asked = state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let node = match by.reach.within(tx.node(&node_id).await?) {
                    Ok(node) => node,
                    Err(refused) => return Ok(Err(refused)),
                };
                if !matches!(node.state, NodeState::Active | NodeState::Suspended) {
                    let detail = format!(
                        "a node that is {} is not asked for anything",
                        node.state.as_str()
                    );
                    return Ok(Err(ProblemResponse::conflict("not-active", detail)));
                }
                sqlx::query("INSERT INTO asked (id, node, kind, at, by_user) VALUES (?, ?, 'rescan', ?, ?) ON CONFLICT DO NOTHING")
                    .bind(uuid::Uuid::now_v7().to_string())
                    .bind(&node_id)
                    .bind(at.as_micros())
                    .bind(&by.user)
                    .execute(&mut tx.connection)
                    .await?;
                let doing = Doing {
                    who: &by,
                    at,
                    action: "node.rescan",
                    target: Target::node(&node),
                    before: Value::Null,
                    after: Value::Null,
                    reason: None,
                };
                activity::record(tx, &doing).await?;
                Ok(Ok(()))
            })
        })
        .await?;
    asked?;
    state.asked.add(id);
    Ok(Waiting {
        node: id.to_owned(),
        kind: "rescan",
        at,
        by: who.user.clone(),
    })
}

/// What a node is told with this answer. It is marked as told before: an answer that is lost is not told again, and a person who
/// sees no rescan asks again.
pub async fn due(state: &AppState, node: &str) -> Vec<Request> {
    if !state.asked.take(node) {
        return Vec::new();
    }
    let (id, now) = (node.to_owned(), clock::now());
    let told = state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let told = sqlx::query("UPDATE asked SET told = ? WHERE node = ? AND told IS NULL")
                    .bind(now.as_micros())
                    .bind(id)
                    .execute(&mut tx.connection)
                    .await?;
                Ok(told.rows_affected())
            })
        })
        .await;
    match told {
        Ok(0) => Vec::new(),
        Ok(_) => vec![Request {
            kind: RequestKind::Rescan,
            sha256: None,
            path: None,
            found: None,
        }],
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a request to a node waits for its next answer"
            );
            state.asked.add(node);
            Vec::new()
        }
    }
}
