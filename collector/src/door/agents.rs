//! The agents' door: nothing here runs without a certificate of the agents' authority, which the handshake demands.

use std::time::Duration;

use attestation::digest::Digest;
use attestation::wire::{AttestationsRequest, ChallengeRequest};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use http::{HeaderValue, StatusCode, header};
use tower_http::timeout::TimeoutLayer;

use super::{PeerNode, read_json};
use crate::clock;
use crate::images;
use crate::ingest::{self, Refusal};
use crate::problem::ProblemResponse;
use crate::snapshots;
use crate::state::AppState;

/// A request is answered by then, or given up.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of a manifest in one piece of its body.
const PIECE: usize = 64 << 10;

/// The router of the agents' door.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/agent/v1/challenge", post(challenge))
        .route("/agent/v1/attestations", post(attestations))
        .route("/agent/v1/assignment", get(assignment))
        .route("/agent/v1/images/{sha256}", get(image))
        .route("/agent/v1/manifests/{sha256}", get(manifest))
        .route("/agent/v1/pins/{sha256}", put(pins))
        .route("/agent/v1/snapshots/{sha256}", put(snapshot))
        .fallback(nothing_here)
        .layer(from_fn_with_state(state.clone(), present_key))
        .layer(DefaultBodyLimit::disable())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            ANSWER,
        ))
        .with_state(state)
}

/// A certificate of a key that the node gave up opens nothing any more.
async fn present_key(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    request: Request<Body>,
    next: Next,
) -> Response {
    if !state.former.has(&peer.key) {
        return next.run(request).await;
    }
    let problem = ProblemResponse::new(
        StatusCode::FORBIDDEN,
        "former-key",
        "this node has taken another key since",
    );
    refuse(&state, &peer, problem).into_response()
}

type Answer<T> = Result<T, ProblemResponse>;

async fn challenge(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    request: Request<Body>,
) -> Answer<Response> {
    let read = read_json::<ChallengeRequest>(request).await;
    let (ChallengeRequest {}, _) = read.map_err(|error| refuse(&state, &peer, error.into()))?;
    let answer = ingest::challenge(&state, &peer.id)
        .await
        .map_err(|problem| refuse(&state, &peer, problem))?;
    Ok(Json(answer).into_response())
}

async fn attestations(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    request: Request<Body>,
) -> Answer<Response> {
    let read = read_json::<AttestationsRequest>(request).await;
    let (request, plain) = read.map_err(|error| refuse(&state, &peer, error.into()))?;
    let answer = ingest::submit(&state, &peer.id, request, plain)
        .await
        .map_err(|problem| refuse(&state, &peer, problem))?;
    Ok(Json(answer).into_response())
}

async fn assignment(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
) -> Answer<Response> {
    let node = ingest::speaker(&state, &peer.id).await?;
    let current = state
        .assignments
        .of(&node.group)
        .ok_or_else(|| ProblemResponse::not_found("the node's group has no assignment"))?;
    Ok(json(current.envelope.to_json()))
}

async fn image(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    Path(sha256): Path<String>,
) -> Answer<Response> {
    ingest::speaker(&state, &peer.id).await?;
    let found: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT envelope FROM images WHERE payload = ?")
            .bind(digest(&sha256)?.as_bytes().as_slice())
            .fetch_optional(state.store.read_pool())
            .await?;
    found
        .map(json)
        .ok_or_else(|| ProblemResponse::not_found("no such image"))
}

async fn manifest(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    Path(sha256): Path<String>,
) -> Answer<Response> {
    ingest::speaker(&state, &peer.id).await?;
    let file = tokio::fs::File::open(images::file(&state, &digest(&sha256)?)).await;
    let file = file.map_err(|_absent| ProblemResponse::not_found("no such manifest"))?;
    let size = file
        .metadata()
        .await
        .map_err(|_gone| ProblemResponse::internal())?
        .len();
    let mut response = Body::from_stream(pieces(file)).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/zstd"),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

async fn snapshot(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    Path(sha256): Path<String>,
    request: Request<Body>,
) -> Answer<StatusCode> {
    ingest::speaker(&state, &peer.id).await?;
    let sha256 = digest(&sha256)?;
    let new = snapshots::put(&state, &peer.id, sha256, request.into_body())
        .await
        .map_err(|problem| refuse(&state, &peer, problem))?;
    Ok(if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    })
}

async fn pins(
    State(state): State<AppState>,
    Extension(peer): Extension<PeerNode>,
    Path(sha256): Path<String>,
    request: Request<Body>,
) -> Answer<StatusCode> {
    crate::pins::take_upload(&state, &peer.id, digest(&sha256)?, request)
        .await
        .map_err(|problem| refuse(&state, &peer, problem))
}

async fn nothing_here() -> ProblemResponse {
    ProblemResponse::not_found("nothing is here")
}

fn pieces(
    file: tokio::fs::File,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> {
    use tokio::io::AsyncReadExt;
    futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), file)))
    })
}

fn digest(text: &str) -> Answer<Digest> {
    text.parse()
        .map_err(|_bad| ProblemResponse::malformed("64 lower-case hex digits are wanted"))
}

fn json(bytes: Vec<u8>) -> Response {
    (
        [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )],
        bytes,
    )
        .into_response()
}

/// Counts a refused request and keeps it as evidence; a request that the store could not take is no fault of the node.
fn refuse(state: &AppState, peer: &PeerNode, problem: ProblemResponse) -> ProblemResponse {
    if problem.status.is_server_error() {
        state.metrics.refuse(problem.code);
    } else {
        let refusal = Refusal {
            at: clock::now(),
            door: "agents",
            node: Some(peer.id.to_string()),
            code: problem.code,
            detail: problem.detail.clone(),
            sample: Vec::new(),
        };
        ingest::note(&state.store, &state.metrics, refusal);
    }
    problem
}
