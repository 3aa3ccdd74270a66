//! The images that a statement is compared with: the one that it names, and those that its node may be beside it.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::time::Timestamp;

use crate::assignments::Current;
use crate::images::LoadedImage;
use crate::problem::ProblemResponse;
use crate::state::AppState;

/// The image that a statement names, where it is held.
pub(super) async fn image(
    state: &AppState,
    named: Option<&Digest>,
) -> Result<Option<Arc<LoadedImage>>, ProblemResponse> {
    let Some(named) = named else {
        return Ok(None);
    };
    state.images.get(named).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "image not loaded");
        ProblemResponse::internal()
    })
}

/// The other images that the node may be now.
pub(super) async fn beside(
    state: &AppState,
    named: Option<&Digest>,
    current: &Current,
    received: Timestamp,
) -> Result<Vec<Arc<LoadedImage>>, ProblemResponse> {
    let mut beside = Vec::new();
    for allowed in &current.assignment.allowed {
        if Some(&allowed.image) == named || !allowed.holds_at(received) {
            continue;
        }
        let image = image(state, Some(&allowed.image)).await?;
        beside.extend(image.filter(|image| !image.revoked));
    }
    Ok(beside)
}
