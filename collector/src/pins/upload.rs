//! `PUT /agent/v1/pins/{sha256}`: taken only when it is what the node's last statement says its pins are, and nothing else fits.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use attestation::digest::Digest;
use attestation::manifest::decompressor;
use attestation::pins::{MAX_BYTES, Pinned, PinsError};
use attestation::statement::FileRef;
use axum::body::Body;
use axum::extract::Request;
use http::StatusCode;

use super::{Held, Standing, put};
use crate::clock;
use crate::door::read_body;
use crate::ingest;
use crate::log;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::NodeRow;

/// Plain bytes that are taken: twice what an agent pins, so that a later one may pin more.
const PLAIN: u64 = MAX_BYTES * 2;
/// Pins that do not compress are hardly longer than plain.
const COMPRESSED: usize = 8 << 20;

/// Takes a node's pins: 201, or 200 where they are here already.
pub async fn take_upload(
    state: &AppState,
    id: &str,
    sha256: Digest,
    request: Request<Body>,
) -> Result<StatusCode, ProblemResponse> {
    let node = ingest::speaker(state, id).await?;
    if node.pins == Some(sha256) {
        return Ok(StatusCode::OK);
    }
    let stated = stated(&node).filter(|stated| stated.sha256 == sha256);
    let Some(stated) = stated else {
        return Err(ProblemResponse::new(
            StatusCode::NOT_FOUND,
            "not-asked-for",
            "the node's last statement names other pins",
        ));
    };
    if stated.size > PLAIN {
        return Err(ProblemResponse::too_large(format!(
            "pinned lines have at most {PLAIN} plain bytes"
        )));
    }
    let body = read_body(request, COMPRESSED).await?;
    if let Err(exceeded) = state.budgets.spend(id, 1, body.len(), Instant::now()) {
        return Err(ProblemResponse::new(
            StatusCode::TOO_MANY_REQUESTS,
            "flood",
            "above the node's budget",
        )
        .with_retry_after(exceeded.retry_after));
    }
    let compressed = body.clone();
    let read = tokio::task::spawn_blocking(move || read(&compressed, &stated)).await;
    let held = read
        .map_err(|_gone| ProblemResponse::internal())?
        .map_err(|error| ProblemResponse::malformed(in_words(&error)))?;
    keep(state, node, held, body.to_vec()).await?;
    Ok(StatusCode::CREATED)
}

/// What a node's last statement says its pins are.
pub fn stated(node: &NodeRow) -> Option<FileRef> {
    serde_json::from_value(node.stated.get("pins")?.clone()).ok()
}

fn in_words(error: &PinsError) -> String {
    match error {
        PinsError::Manifest(source) => format!("{error}: {source}"),
        PinsError::TooMany | PinsError::Another => error.to_string(),
    }
}

fn read(compressed: &[u8], stated: &FileRef) -> Result<Held, PinsError> {
    let plain = decompressor(Cursor::new(compressed), stated.size);
    Held::of(Pinned::read(plain, stated)?).ok_or(PinsError::Another)
}

/// The compressed file is evidence: whoever holds it, and the statements since, can recompute every verdict.
async fn keep(
    state: &AppState,
    node: NodeRow,
    held: Held,
    compressed: Vec<u8>,
) -> Result<(), ProblemResponse> {
    let image = match &node.image {
        Some(image) => state.images.get(image).await.ok().flatten(),
        None => None,
    };
    let (held, at, id) = (Arc::new(held), clock::now(), node.id);
    let standing = Standing::Held(Arc::clone(&held));
    let name = id.clone();
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let Some(mut node) = tx.node(&id).await? else {
                    return Ok(());
                };
                let scope = image.as_ref().map(|image| &image.statement.predicate.scope);
                put(tx, &mut node, Some(&held), scope, at).await?;
                tx.put_node(node).await?;
                log::keep(tx, "pins", &held.file.sha256, &compressed, at).await
            })
        })
        .await?;
    state.pins.note(&name, &standing);
    Ok(())
}
