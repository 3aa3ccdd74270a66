//! The people's door: pages, API, metrics and health, behind one gate and one set of headers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::{Semaphore, watch};
use tower_http::compression::CompressionLayer;
use uuid::Uuid;

use crate::access::attempts::Attempts;
use crate::access::gate::gate;
use crate::access::password::Passwords;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::{api, web};

/// Who may listen to events at once: pages left open on many desks, not an attack.
const LISTENERS: usize = 512;
/// Our own problem documents are far smaller.
const PROBLEM_BYTES: usize = 64 * 1024;

/// Scripts and styles are our own files; nothing inline, nothing evaluated, nothing from elsewhere, no frame around us.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// What the people's door needs beside the collector's state.
#[derive(Clone)]
pub struct People {
    /// What every door shares.
    pub app: AppState,
    /// Checks passwords, a few at a time.
    pub passwords: Passwords,
    /// Counts attempts to sign in.
    pub attempts: Arc<Attempts>,
    /// Places for listeners to events.
    pub listeners: Arc<Semaphore>,
    /// Ends streams when the collector stops.
    pub closing: Closing,
}

/// Tells streams that have no end of their own that the door closes.
#[derive(Clone)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Resolves when the door closes.
    pub async fn closed(&mut self) {
        // A sender that is gone has closed the door too.
        drop(self.0.wait_for(|stop| *stop).await);
    }
}

/// The id of a request: in its answer, in problems and in the journal.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Everything that people and their programs reach. Streams of events end when `closing` says so: the door waits for them.
pub fn router(app: AppState, closing: watch::Receiver<bool>) -> Router {
    let people = People {
        closing: Closing(closing),
        passwords: Passwords::default(),
        attempts: Arc::default(),
        listeners: Arc::new(Semaphore::new(LISTENERS)),
        app,
    };
    let app = people.app.clone();
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .merge(api::routes())
        .merge(web::routes())
        .fallback(nothing)
        .layer(from_fn_with_state(app, gate))
        .layer(from_fn(around))
        .layer(CompressionLayer::new().gzip(true))
        .with_state(people)
}

/// Ready when the store answers and its disk takes writes.
async fn ready(State(people): State<People>) -> Response {
    let answers = sqlx::query_scalar::<_, i64>("SELECT 1")
        .fetch_one(people.app.store.read_pool())
        .await
        .is_ok();
    match (answers, people.app.store.is_full()) {
        (true, false) => "ready\n".into_response(),
        (true, true) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the disk of the store is full\n",
        )
            .into_response(),
        (false, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer\n",
        )
            .into_response(),
    }
}

async fn metrics(State(people): State<People>, headers: HeaderMap) -> Response {
    match crate::metrics::answer(&people.app, &headers).await {
        Ok(answer) => answer,
        Err(error) => ProblemResponse::from(error).into_response(),
    }
}

async fn nothing(request: Request) -> ProblemResponse {
    if request.uri().path().starts_with("/api/") {
        ProblemResponse::not_found("there is no such address in the API")
    } else {
        ProblemResponse::not_found(
            "no page has this address; it may have been mistyped, or what it showed is gone",
        )
    }
}

/// Around every answer: an id, the security headers, and problems in the form that the asker reads.
async fn around(mut request: Request, next: Next) -> Response {
    let id: Arc<str> = Uuid::now_v7().to_string().into();
    request.extensions_mut().insert(RequestId(id.clone()));
    let path = request.uri().path().to_owned();
    let reads_html = !path.starts_with("/api/") && accepts_html(request.headers());
    let mut response = next.run(request).await;
    if is_problem(&response) {
        response = with_id(response, &id, reads_html).await;
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: with that a browser sends our own forms with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        "cross-origin-opener-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        "permissions-policy",
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    );
    // What is behind the sign-in stays out of shared and private caches.
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", value);
    }
    response
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accepted| accepted.contains("text/html"))
}

fn is_problem(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/problem+json")
        && !response.headers().contains_key(header::CONTENT_ENCODING)
}

/// Puts the request's id into a problem; shows it as a page where a browser asked for one.
async fn with_id(response: Response, id: &str, as_page: bool) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, PROBLEM_BYTES).await.unwrap_or_default();
    let Ok(serde_json::Value::Object(mut problem)) = serde_json::from_slice(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    if as_page {
        let text = |name: &str| {
            problem
                .get(name)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut page = web::shell::trouble(parts.status, &text("code"), &text("detail"), id);
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        for (name, value) in parts.headers.drain() {
            if let Some(name) = name {
                page.headers_mut().insert(name, value);
            }
        }
        return page;
    }
    problem.insert(
        "request_id".to_owned(),
        serde_json::Value::String(id.to_owned()),
    );
    parts.headers.remove(header::CONTENT_LENGTH);
    let bytes = serde_json::to_vec(&problem).unwrap_or_else(|_| bytes.to_vec());
    Response::from_parts(parts, Body::from(bytes))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step is a failed test"
)]
mod tests;
