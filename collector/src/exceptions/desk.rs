//! What every step of an exception needs, and how it is written down: as evidence with a leaf in the log, and in the activity log, from
//! the transaction that does it.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use serde_json::json;

use super::Exceptions;
use super::read::{self, ExceptionView};
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::approvals::Approvals;
use crate::clock;
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{StoreError, Writing};
use crate::violations::store::Channels;

/// What became of a request or of a decision.
#[derive(Debug)]
pub struct Decided {
    /// As it now is.
    pub exception: ExceptionView,
    /// What follows, for the person.
    pub told: String,
    /// Violations that ended by it.
    pub ended: usize,
}

pub(super) type Outcome = Result<Decided, ProblemResponse>;

/// What a job needs beside the store.
pub(super) struct Desk {
    pub(super) person: Person,
    pub(super) now: Timestamp,
    pub(super) rule: Approvals,
    pub(super) channels: Channels,
    pub(super) exceptions: Arc<Exceptions>,
}

impl Desk {
    pub(super) fn new(state: &AppState, person: &Person) -> Self {
        Self {
            person: person.clone(),
            now: clock::now(),
            rule: state.settings.approvals,
            channels: state.channels.clone(),
            exceptions: Arc::clone(&state.exceptions),
        }
    }

    /// The one that this transaction has just written.
    pub(super) async fn required(
        &self,
        tx: &mut Writing,
        id: &str,
    ) -> Result<ExceptionView, StoreError> {
        read::in_transaction(tx, id, self.now)
            .await?
            .ok_or_else(|| StoreError::corrupt("exceptions: the one just written is gone"))
    }

    /// Writes down what was done to one.
    pub(super) async fn note(
        &self,
        tx: &mut Writing,
        action: &'static str,
        exception: &ExceptionView,
        reason: &str,
    ) -> Result<(), StoreError> {
        let record = serde_json::to_vec(exception)
            .map_err(|error| StoreError::corrupt(error.to_string()))?;
        let digest = Digest::of(&record);
        log::keep(tx, "exception", &digest, &record, self.now).await?;
        let leaf = Leaf {
            kind: "exception",
            at: self.now,
            node: exception.node.as_deref(),
            sequence: None,
            digest,
            more: json!({"exception": exception.id, "action": action, "by": self.person.user}),
        };
        log::append(tx, &leaf).await?;
        let node = match &exception.node {
            Some(id) => tx.node(id).await?,
            None => None,
        };
        let target = Target::new("exception", &exception.id, &exception.path);
        let target = match (&node, &exception.group) {
            (Some(node), _) => target.on(node),
            (None, Some(group)) => target.in_group(group),
            (None, None) => target,
        };
        let doing = Doing {
            who: &self.person,
            at: self.now,
            action,
            target,
            before: json!({"expected": exception.expected}),
            after: json!({
                "state": exception.state, "node": exception.node, "group": exception.group, "path": exception.path,
                "found": exception.found, "ends": exception.ends, "ticket": exception.ticket, "owner": exception.owner,
                "requested_by": exception.requested_by,
            }),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
        };
        activity::record(tx, &doing).await
    }
}

/// What was not committed is not remembered either.
pub(super) fn settled(state: &AppState, id: &str, done: Result<Outcome, StoreError>) -> Outcome {
    match done {
        Ok(outcome) => outcome,
        Err(error) => {
            state.exceptions.forget(id);
            Err(error.into())
        }
    }
}
