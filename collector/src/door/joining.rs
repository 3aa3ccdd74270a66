//! The joining door: TLS without client certificates, for nodes that have none yet or whose certificate is over. Everything is
//! signed by the node's own key; nothing else is believed.

use std::time::Duration;

use attestation::wire::{EnrolmentRequest, RenewalRequest};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;
use tower_http::timeout::TimeoutLayer;

use super::read_json;
use crate::clock;
use crate::enrolment::{self, Enrolled};
use crate::ingest::{self, Refusal};
use crate::problem::ProblemResponse;
use crate::state::AppState;

/// A request is answered by then, or given up.
const ANSWER: Duration = Duration::from_secs(30);

/// The router of the joining door.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/join/v1/enrolment", post(enrol))
        .route("/join/v1/renewal", post(renew))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::disable())
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            ANSWER,
        ))
        .with_state(state)
}

async fn enrol(
    State(state): State<AppState>,
    request: Request<Body>,
) -> Result<Response, ProblemResponse> {
    let (request, _) = read_json::<EnrolmentRequest>(request)
        .await
        .map_err(|error| refuse(&state, error.into()))?;
    match enrolment::enrol(&state, request)
        .await
        .map_err(|problem| refuse(&state, problem))?
    {
        Enrolled::Admitted(answer) => Ok((StatusCode::CREATED, Json(*answer)).into_response()),
        Enrolled::Waits(answer) => Ok((StatusCode::ACCEPTED, Json(answer)).into_response()),
    }
}

async fn renew(
    State(state): State<AppState>,
    request: Request<Body>,
) -> Result<Response, ProblemResponse> {
    let (request, _) = read_json::<RenewalRequest>(request)
        .await
        .map_err(|error| refuse(&state, error.into()))?;
    let answer = enrolment::renew(&state, request)
        .await
        .map_err(|problem| refuse(&state, problem))?;
    Ok(Json(answer).into_response())
}

async fn nothing_here() -> ProblemResponse {
    ProblemResponse::not_found("nothing is here")
}

fn refuse(state: &AppState, problem: ProblemResponse) -> ProblemResponse {
    if problem.status.is_server_error() {
        state.metrics.refuse(problem.code);
        return problem;
    }
    let refusal = Refusal {
        at: clock::now(),
        door: "joining",
        node: None,
        code: problem.code,
        detail: problem.detail.clone(),
        sample: Vec::new(),
    };
    ingest::note(&state.store, &state.metrics, refusal);
    problem
}
