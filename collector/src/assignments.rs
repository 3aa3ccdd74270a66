//! Which image a group of nodes must be. Signed by the collector's own key; the agent and the appraisal read the same envelope.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::{Allowed, Assignment, Statement};
use attestation::time::Timestamp;
use http::StatusCode;
use serde::Serialize;
use sqlx::Row;

use crate::clock;
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{Store, StoreError};

/// Groups are named by people; a name is shown everywhere.
const GROUP_NAME: usize = 64;
/// Images that a group may be at once: the new one and those that it takes over from.
const ALLOWED: usize = 8;

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

/// An assignment that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Assigned {
    /// SHA-256 of its payload.
    pub sha256: Digest,
    /// As it was signed.
    #[serde(flatten)]
    pub assignment: Assignment,
}

/// Assigns an image to a group. `keep_previous_secs` lets nodes stay for so long what the group may be now.
pub async fn assign(
    state: &AppState,
    group: &str,
    image: Digest,
    keep_previous_secs: Option<u64>,
    by: &str,
) -> Result<Assigned, ProblemResponse> {
    if group.is_empty() || group.len() > GROUP_NAME || group.chars().any(char::is_control) {
        return Err(ProblemResponse::malformed(format!(
            "a group's name has 1 to {GROUP_NAME} characters"
        )));
    }
    let Some(loaded) = state.images.get(&image).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "image not loaded");
        ProblemResponse::internal()
    })?
    else {
        return Err(ProblemResponse::new(
            StatusCode::CONFLICT,
            "no-image",
            "no such image, or its manifest has not been sent",
        ));
    };
    if loaded.revoked {
        return Err(ProblemResponse::new(
            StatusCode::CONFLICT,
            "revoked",
            "that image was revoked",
        ));
    }
    let now = clock::now();
    let mut allowed = vec![Allowed {
        image,
        name: loaded.statement.name().unwrap_or_default().to_owned(),
        version: loaded.statement.predicate.version.clone(),
        epoch: loaded.statement.predicate.epoch,
        until: None,
    }];
    if let (Some(seconds), Some(before)) = (keep_previous_secs, state.assignments.of(group)) {
        allowed.extend(kept(
            &before.assignment.allowed,
            image,
            now,
            clock::after(now, seconds),
        ));
    }
    let assignment = Assignment {
        group: group.to_owned(),
        allowed,
        from: now,
        requested_by: by.to_owned(),
        approved_by: by.to_owned(),
    };
    let statement = Statement::<Assignment>::of_images(assignment.clone());
    let envelope =
        Envelope::sign(statement.to_payload(), &state.keys.assignment).map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "assignment not signed"
            );
            ProblemResponse::internal()
        })?;
    let payload = envelope.payload_digest();
    store(&state.store, payload, &envelope, &assignment, image).await?;
    state.assignments.set(
        group,
        Current {
            payload,
            envelope,
            assignment: assignment.clone(),
        },
    );
    Ok(Assigned {
        sha256: payload,
        assignment,
    })
}

/// Of what was allowed, what still is, and no longer than until then.
fn kept(before: &[Allowed], image: Digest, now: Timestamp, until: Timestamp) -> Vec<Allowed> {
    let still = before
        .iter()
        .filter(|allowed| allowed.image != image && allowed.holds_at(now));
    still
        .take(ALLOWED - 1)
        .map(|allowed| Allowed {
            until: Some(allowed.until.map_or(until, |earlier| earlier.min(until))),
            ..allowed.clone()
        })
        .collect()
}

async fn store(
    store: &Store,
    payload: Digest,
    envelope: &Envelope,
    assignment: &Assignment,
    image: Digest,
) -> Result<(), StoreError> {
    let (bytes, said) = (envelope.to_json(), assignment.clone());
    store
        .write(move |tx| {
            Box::pin(async move {
                log::keep(tx, "assignment", &payload, &bytes, said.from).await?;
                sqlx::query(
                    "INSERT INTO assignments (payload, grp, envelope, image, from_time, requested_by, approved_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(payload.as_bytes().as_slice())
                .bind(&said.group)
                .bind(bytes)
                .bind(image.as_bytes().as_slice())
                .bind(said.from.as_micros())
                .bind(&said.requested_by)
                .bind(&said.approved_by)
                .execute(&mut tx.connection)
                .await?;
                sqlx::query("INSERT INTO group_assignment (grp, payload) VALUES (?1, ?2) ON CONFLICT (grp) DO UPDATE SET payload = ?2")
                    .bind(&said.group)
                    .bind(payload.as_bytes().as_slice())
                    .execute(&mut tx.connection)
                    .await?;
                let more = serde_json::json!({"group": said.group, "image": image, "by": said.approved_by});
                let leaf = Leaf { kind: "assignment", at: said.from, node: None, sequence: None, digest: payload, more };
                log::append(tx, &leaf).await
            })
        })
        .await
}
