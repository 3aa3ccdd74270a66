//! Which image a group of nodes must be. One person asks for it, another approves, and it is signed by the collector's own key: the agent
//! and the appraisal read the same envelope.
//!
//! [`hold`] decides and signs, [`request`](mod@request) is what people do, [`rollout`] how far it has come, [`changes`] what they read.

pub mod changes;
mod hold;
pub mod request;
pub mod rollout;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::Assignment;
use attestation::time::Timestamp;
use sqlx::Row;

use crate::clock;
use crate::store::{Store, StoreError};

pub use self::request::{Answer, Wanted, approve, end, request};

/// The assignment that holds for a group now.
pub struct Current {
    /// SHA-256 of its payload.
    pub payload: Digest,
    /// As signed.
    pub envelope: Envelope,
    /// What it says.
    pub assignment: Assignment,
}

/// All current assignments, by group.
#[derive(Default)]
pub struct Assignments {
    by_group: RwLock<HashMap<String, Held>>,
    /// One change is made at a time, so that memory follows the store in its order.
    changing: tokio::sync::Mutex<()>,
}

struct Held {
    current: Arc<Current>,
    /// What held before, while this run knows it.
    before: Before,
}

enum Before {
    /// It was made before this run.
    Unknown,
    /// The group had none.
    Nothing,
    Known(Arc<Current>),
}

impl Assignments {
    /// Reads them from the store.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = sqlx::query("SELECT g.grp, a.payload, a.envelope FROM group_assignment g JOIN assignments a ON a.payload = g.payload")
            .fetch_all(store.read_pool())
            .await?;
        let mut by_group = HashMap::new();
        for row in rows {
            let group: String = row.try_get("grp")?;
            let envelope: Vec<u8> = row.try_get("envelope")?;
            let envelope = Envelope::from_json(&envelope)
                .map_err(|error| StoreError::corrupt(format!("assignments.envelope: {error}")))?;
            let said = envelope
                .peek::<Assignment>()
                .map_err(|error| StoreError::corrupt(format!("assignments.envelope: {error}")))?;
            let current = Current {
                payload: envelope.payload_digest(),
                envelope,
                assignment: said.predicate,
            };
            by_group.insert(
                group,
                Held {
                    current: Arc::new(current),
                    before: Before::Unknown,
                },
            );
        }
        Ok(Self {
            by_group: RwLock::new(by_group),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The assignment of a group.
    pub fn of(&self, group: &str) -> Option<Arc<Current>> {
        self.read().get(group).map(|held| Arc::clone(&held.current))
    }

    /// The assignment that a statement is appraised by: the current one, but for a statement that a node made before it can
    /// have heard of it. That one is appraised by the assignment before, for `grace` seconds.
    pub fn for_statement(
        &self,
        group: &str,
        image: Option<&Digest>,
        received: Timestamp,
        grace: u64,
    ) -> Option<Arc<Current>> {
        let by_group = self.read();
        let held = by_group.get(group)?;
        let current = &held.current.assignment;
        if received > clock::after(current.from, grace)
            || image.is_some_and(|image| allows(current, image))
        {
            return Some(Arc::clone(&held.current));
        }
        match (&held.before, image) {
            (Before::Nothing, None) => None,
            (Before::Known(before), Some(image)) if allows(&before.assignment, image) => {
                Some(Arc::clone(before))
            }
            _ => Some(Arc::clone(&held.current)),
        }
    }

    fn set(&self, group: &str, current: Current) {
        let mut by_group = self
            .by_group
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = by_group
            .remove(group)
            .map_or(Before::Nothing, |held| Before::Known(held.current));
        by_group.insert(
            group.to_owned(),
            Held {
                current: Arc::new(current),
                before,
            },
        );
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Held>> {
        self.by_group.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allows(assignment: &Assignment, image: &Digest) -> bool {
    assignment
        .allowed
        .iter()
        .any(|allowed| allowed.image == *image)
}
