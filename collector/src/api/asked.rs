//! What a request asks for, with a refusal in our own form when it cannot be understood.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::problem::ProblemResponse;

/// Items when nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
/// Items at most, as COMMANDS promises to scripts.
const MOST: u32 = 1_000;
/// Our cursors are ids; nothing longer is one.
const CURSOR: usize = 200;

/// The query of a request.
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Query(query) = Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|error| ProblemResponse::malformed(error.body_text()))?;
        Ok(Self(query))
    }
}

/// The one name in a request's path, parsed. What cannot be one does not exist.
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: FromStr + Send> FromRequestParts<S> for Named<T> {
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| ProblemResponse::not_found(error.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|_| ProblemResponse::not_found("there is nothing under this name"))
    }
}

/// What every list takes.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl ListQuery {
    /// How many items are wanted.
    ///
    /// # Errors
    /// When that is none or more than a thousand, or the cursor is none of ours.
    pub fn limit(&self) -> Result<u32, ProblemResponse> {
        limit(self.limit, self.cursor.as_deref())
    }
}

/// The same for lists with a query of their own.
///
/// # Errors
/// When the limit is none or more than a thousand, or the cursor is none of ours.
pub fn limit(limit: Option<u32>, cursor: Option<&str>) -> Result<u32, ProblemResponse> {
    if cursor.is_some_and(|cursor| {
        cursor.len() > CURSOR || !cursor.bytes().all(|byte| byte.is_ascii_graphic())
    }) {
        return Err(ProblemResponse::malformed(
            "this is no cursor of ours: take it from `next`",
        ));
    }
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MOST => Ok(limit),
        _ => Err(ProblemResponse::malformed("`limit` is 1 to 1000")),
    }
}

/// Where an offset is the cursor: how many items came before.
///
/// # Errors
/// When the cursor is none of ours.
pub fn offset(cursor: Option<&str>) -> Result<u64, ProblemResponse> {
    cursor
        .map_or(Ok(0), str::parse)
        .map_err(|_| ProblemResponse::malformed("this is no cursor of ours: take it from `next`"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn limits_and_cursors_are_bounded() {
        assert_eq!(limit(None, None).unwrap(), 100);
        assert_eq!(limit(Some(1_000), Some("0192")).unwrap(), 1_000);
        assert!(limit(Some(0), None).is_err() && limit(Some(1_001), None).is_err());
        assert!(limit(None, Some(&"a".repeat(201))).is_err() && limit(None, Some("a b")).is_err());
    }
}
