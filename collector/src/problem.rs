//! Errors as the other side sees them: RFC 9457 with a stable `code`. What is in the store or in keys stays in the journal.

use attestation::wire::Expected;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::store::StoreError;

/// A refusal, ready to be sent.
#[derive(Clone, Debug)]
pub struct ProblemResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people: what, why, what to do.
    pub detail: String,
    /// The sequence that would have been taken.
    pub expected: Option<Expected>,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u64>,
}

/// As it is sent: RFC 9457.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    expected: Option<&'a Expected>,
}

impl ProblemResponse {
    /// A refusal with a status, a code and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            expected: None,
            retry_after: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 409: what is asked for does not fit how things stand now.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// 500, without a word of what went wrong inside.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the collector could not do this; its journal says why",
        )
    }

    /// Says when to come again.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<StoreError> for ProblemResponse {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-full",
                "the collector's disk is full; nothing was stored",
            )
            .with_retry_after(5),
            StoreError::Busy | StoreError::Closed => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "the collector cannot write now; try again",
            )
            .with_retry_after(1),
            other => {
                tracing::error!(error = &other as &dyn std::error::Error, "store failed");
                Self::internal()
            }
        }
    }
}

impl From<sqlx::Error> for ProblemResponse {
    fn from(error: sqlx::Error) -> Self {
        Self::from(StoreError::from(error))
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("https://pristine.dev/problems/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("refused"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            expected: self.expected.as_ref(),
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
