//! Another key for a node that keeps its id: the one it has and the one it takes have both signed.
//!
//! From then on the new key is the node's: its certificates, its renewals. Statements that the node had signed before and
//! not yet sent still count by the former key, until the first one by the new key is taken; a former key never speaks at
//! the agents' door again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::PublicKey;
use attestation::statement::{Attestation, Rotation};
use attestation::time::Timestamp;
use attestation::wire::{RenewalAnswer, RotationRequest};
use http::StatusCode;
use serde_json::json;

use super::certificate::keep_certificate;
use super::issue;
use crate::authority::{Issued, public_key_of};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, Store, StoreError, Writing};

/// SHA-256 of the SPKI of every key that was given up, in memory: each request asks.
#[derive(Default)]
pub struct Former {
    keys: Mutex<HashSet<Digest>>,
}

impl Former {
    /// Those in the store.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let pems: Vec<String> = sqlx::query_scalar("SELECT public_key FROM former_keys")
            .fetch_all(store.read_pool())
            .await?;
        let keys = pems
            .iter()
            .map(|pem| read(pem).map(|key| key.spki_digest()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            keys: Mutex::new(keys),
        })
    }

    /// Whether a key was given up.
    pub fn has(&self, key: &Digest) -> bool {
        self.lock().contains(key)
    }

    fn add(&self, key: Digest) {
        self.lock().insert(key);
    }

    fn remove(&self, key: &Digest) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers `POST /join/v1/rotation`.
pub async fn rotate(
    state: &AppState,
    request: RotationRequest,
) -> Result<RenewalAnswer, ProblemResponse> {
    let refuse =
        |code, detail: &str| Err(ProblemResponse::new(StatusCode::FORBIDDEN, code, detail));
    let claimed = request
        .statement
        .peek::<Rotation>()
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    let id = claimed.name().unwrap_or_default().to_owned();
    let node: Option<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id = ?")
        .bind(&id)
        .fetch_optional(state.store.read_pool())
        .await?;
    let Some(node) = node else {
        return refuse("unknown-node", "no node has that id; enrol again");
    };
    if !matches!(node.state, NodeState::Active | NodeState::Suspended) {
        return refuse("not-active", "only a node that attests takes another key");
    }
    let new = public_key_of(&claimed.predicate.csr)
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    let new = PublicKey::from_spki_der(&new)
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    let held = read(&node.public_key)?;
    let again = new == held;
    // Shown again, by a node whose answer was lost: what it says was checked then, and here it proves the new key alone.
    let (keys, threshold) = if again {
        (vec![new.clone()], 1)
    } else {
        (vec![held.clone(), new.clone()], 2)
    };
    if let Err(error) = request.statement.verify::<Rotation>(&keys, threshold) {
        return refuse("signature", &error.to_string());
    }
    if !again && state.former.has(&new.spki_digest()) {
        return refuse("former-key", "this key was given up before");
    }
    let now = clock::now();
    let node_id = id
        .parse()
        .map_err(|_bad| ProblemResponse::malformed("no node id"))?;
    let issued = issue(state, &node_id, &new, now)?;
    let certificate = issued.pem.clone();
    let change = Change {
        id,
        held: held.clone(),
        new: new.clone(),
        envelope: request.statement,
        issued,
        now,
    };
    let took = state
        .store
        .write(move |tx| Box::pin(async move { take(tx, change).await }))
        .await?;
    if !took {
        return refuse("other-key", "the node has another key by now");
    }
    if !again {
        state.former.add(held.spki_digest());
        state.former.remove(&new.spki_digest());
    }
    Ok(RenewalAnswer { certificate })
}

struct Change {
    id: String,
    held: PublicKey,
    new: PublicKey,
    envelope: Envelope,
    issued: Issued,
    now: Timestamp,
}

/// Within the transaction; false where the node's key is another than it was a moment ago.
async fn take(tx: &mut Writing, change: Change) -> Result<bool, StoreError> {
    let Some(mut node) = tx.node(&change.id).await? else {
        return Ok(false);
    };
    let held = read(&node.public_key)?;
    if held != change.held {
        return Ok(false);
    }
    if held != change.new {
        sqlx::query("INSERT INTO former_keys (node, public_key, replaced) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&node.id)
            .bind(&node.public_key)
            .bind(change.now.as_micros())
            .execute(&mut tx.connection)
            .await?;
        node.public_key = change.new.to_pem();
        tx.put_node(node.clone()).await?;
        let digest = change.envelope.payload_digest();
        log::keep(
            tx,
            "rotation",
            &digest,
            &change.envelope.to_json(),
            change.now,
        )
        .await?;
        let leaf = Leaf {
            kind: "key",
            at: change.now,
            node: Some(&node.id),
            sequence: None,
            digest,
            more: json!({"from": held.keyid(), "to": change.new.keyid()}),
        };
        log::append(tx, &leaf).await?;
        tx.event(Event::Node(NodeEvent {
            id: node.id.clone(),
        }));
    }
    keep_certificate(tx, &node.id, &change.issued, change.now).await?;
    Ok(true)
}

/// The keys that a node gave up and that still count for what it had signed before: none once the key that it has now has
/// signed the newest statement taken.
pub async fn former_keys(state: &AppState, node: &NodeRow) -> Result<Vec<PublicKey>, StoreError> {
    let pems: Vec<String> = sqlx::query_scalar(
        "SELECT public_key FROM former_keys WHERE node = ? ORDER BY replaced DESC LIMIT 16",
    )
    .bind(&node.id)
    .fetch_all(state.store.read_pool())
    .await?;
    if pems.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(newest) = node.previous {
        let bytes: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT bytes FROM evidence WHERE sha256 = ?")
                .bind(newest.as_bytes().as_slice())
                .fetch_optional(state.store.read_pool())
                .await?;
        let present = read(&node.public_key)?;
        let signed = bytes
            .and_then(|bytes| Envelope::from_json(&bytes).ok())
            .is_some_and(|envelope| {
                envelope
                    .verify::<Attestation>(std::slice::from_ref(&present), 1)
                    .is_ok()
            });
        if signed {
            return Ok(Vec::new());
        }
    }
    pems.iter().map(|pem| read(pem)).collect()
}

fn read(pem: &str) -> Result<PublicKey, StoreError> {
    PublicKey::from_pem(pem).map_err(|error| StoreError::corrupt(format!("a node's key: {error}")))
}
