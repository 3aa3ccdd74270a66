//! A new certificate for a node that has one, or had one.

use attestation::key::PublicKey;
use attestation::statement::Renewal;
use attestation::wire::{RenewalAnswer, RenewalRequest};
use http::StatusCode;

use super::certificate::keep_certificate;
use super::issue;
use crate::authority::public_key_of;
use crate::clock;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError};

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
