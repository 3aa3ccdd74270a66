//! The JSON API under `/api/v1`. Lists take `limit` and `cursor` and answer `{items, next}`; errors are `application/problem+json`.

pub(crate) mod accounts;
pub(crate) mod activity;
pub(crate) mod alerts;
mod asked;
pub(crate) mod assignments;
pub(crate) mod changes;
mod decisions;
mod events;
mod evidence;
pub(crate) mod exceptions;
pub(crate) mod images;
mod logins;
mod nodes;
pub mod openapi;
mod pins;
pub mod reads;
mod sign_in;
mod summary;
pub(crate) mod tokens;
mod violations;

use axum::Router;
use axum::extract::Request;
use axum::routing::{delete, get, patch, post, put};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::door::people::People;
use crate::problem::ProblemResponse;

pub use self::asked::{Asked, ListQuery, Named};
pub(crate) use self::sign_in::check as check_sign_in;

/// A page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Listed<T> {
    /// What was asked for.
    pub items: Vec<T>,
    /// The cursor of the next page, null on the last one.
    pub next: Option<String>,
}

/// What every handler answers with.
pub type Answer<T> = Result<T, ProblemResponse>;

impl<T> Listed<T> {
    /// Of one item more than asked for, the last tells that there is a next page.
    pub fn of(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// Reads a small JSON body.
pub(crate) async fn body<T: DeserializeOwned + Send + 'static>(request: Request) -> Answer<T> {
    Ok(crate::door::read_json::<T>(request).await?.0)
}

/// The same where no body at all is one with nothing in it.
pub(crate) async fn optional_body<T: DeserializeOwned + Default + Send + 'static>(
    request: Request,
) -> Answer<T> {
    let empty = request
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .is_some_and(|length| length.as_bytes() == b"0")
        || (!request.headers().contains_key(http::header::CONTENT_LENGTH)
            && !request
                .headers()
                .contains_key(http::header::TRANSFER_ENCODING)
            && !request.headers().contains_key(http::header::CONTENT_TYPE));
    if empty {
        return Ok(T::default());
    }
    body(request).await
}

/// The routes of the API. Who may use which stands in [`crate::access::roles::ROUTES`].
pub fn routes() -> Router<People> {
    Router::new()
        .route(
            "/api/v1/sessions",
            get(logins::list).post(sign_in::create).delete(sign_in::end),
        )
        .route("/api/v1/sessions/{id}", get(logins::get))
        .route("/api/v1/whoami", get(sign_in::whoami))
        .route("/api/v1/summary", get(summary::get))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{id}", get(nodes::get))
        .route("/api/v1/nodes/{id}/differences", get(nodes::differences))
        .route("/api/v1/nodes/{id}/approve", post(nodes::approve))
        .route("/api/v1/nodes/{id}/suspend", post(nodes::suspend))
        .route("/api/v1/nodes/{id}/resume", post(nodes::resume))
        .route("/api/v1/nodes/{id}/ban", post(nodes::ban))
        .route("/api/v1/nodes/{id}/decommission", post(nodes::decommission))
        .route("/api/v1/nodes/{id}/rename", post(nodes::rename))
        .route("/api/v1/nodes/{id}/group", post(nodes::group))
        .route("/api/v1/nodes/{id}/rescan", post(nodes::rescan))
        .route("/api/v1/nodes/{id}/sessions", get(logins::of_node))
        .route("/api/v1/nodes/{id}/pins", get(pins::list))
        .route("/api/v1/nodes/{id}/pins/review", post(pins::review))
        .route("/api/v1/violations", get(violations::list))
        .route("/api/v1/violations/{id}", get(violations::get))
        .route(
            "/api/v1/violations/{id}/acknowledge",
            post(violations::acknowledge),
        )
        .route("/api/v1/violations/{id}/resolve", post(violations::resolve))
        .route("/api/v1/touched", get(violations::touched))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/images", get(images::list).post(images::publish))
        .route("/api/v1/images/{sha256}", get(images::get))
        .route("/api/v1/images/{sha256}/revoke", post(images::revoke))
        .route(
            "/api/v1/images/{sha256}/differences",
            get(images::differences),
        )
        .route("/api/v1/manifests/{sha256}", put(images::put_manifest))
        .route(
            "/api/v1/assignments",
            get(assignments::list).post(assignments::request),
        )
        .route(
            "/api/v1/assignments/{id}/approve",
            post(assignments::approve),
        )
        .route("/api/v1/assignments/{id}/refuse", post(assignments::refuse))
        .route(
            "/api/v1/assignments/{id}/withdraw",
            post(assignments::withdraw),
        )
        .route("/api/v1/changes", get(changes::list))
        .route("/api/v1/changes/{id}", get(changes::get))
        .route("/api/v1/changes/{id}/nodes", get(changes::nodes))
        .route(
            "/api/v1/exceptions",
            get(exceptions::list).post(exceptions::request),
        )
        .route("/api/v1/exceptions/{id}", get(exceptions::get))
        .route("/api/v1/exceptions/{id}/approve", post(exceptions::approve))
        .route("/api/v1/exceptions/{id}/refuse", post(exceptions::refuse))
        .route(
            "/api/v1/exceptions/{id}/withdraw",
            post(exceptions::withdraw),
        )
        .route("/api/v1/exceptions/{id}/revoke", post(exceptions::revoke))
        .route("/api/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/v1/tokens/{id}", delete(tokens::revoke))
        .route("/api/v1/password", post(accounts::own_password))
        .route("/api/v1/accounts", get(accounts::list).post(accounts::add))
        .route("/api/v1/accounts/{user}", patch(accounts::change))
        .route("/api/v1/accounts/{user}/password", post(accounts::password))
        .route("/api/v1/accounts/{user}/disable", post(accounts::disable))
        .route("/api/v1/accounts/{user}/enable", post(accounts::enable))
        .route("/api/v1/activity", get(activity::list))
        .route("/api/v1/activity/{id}", get(activity::get))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}/retry", post(alerts::retry))
        .route("/api/v1/channels", get(alerts::channels))
        .route("/api/v1/channels/{name}/test", post(alerts::test))
        .route("/api/v1/openapi.json", get(openapi::get))
        .route("/api/v1/evidence/{sha256}", get(evidence::get))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_more_than_asked_for_makes_a_next_page() {
        let listed = Listed::of(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!(
            (listed.items, listed.next),
            (vec![1, 2], Some("2".to_owned()))
        );
        let listed = Listed::of(vec![1, 2], 2, ToString::to_string);
        assert_eq!(listed.next, None);
    }
}
