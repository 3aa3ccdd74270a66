//! What a node has pinned, and that a person has looked at it.

use attestation::digest::Digest;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::Deserialize;

use super::nodes::unknown;
use super::reads;
use super::{Answer, Asked, Listed, Named, asked, body};
use crate::access::Person;
use crate::door::people::People;
use crate::pins::{self, PinView, Reviewed};

/// What the list takes; a cursor is a path here, and longer than an id.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    limit: Option<u32>,
    cursor: Option<String>,
    /// Only those that no person has reviewed.
    #[serde(default)]
    unreviewed: bool,
}

/// `GET /api/v1/nodes/{id}/pins`.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/pins", operation_id = "pins_list", tag = "nodes", params(("id" = String, Path), Query), responses((status = 200, body = Listed<PinView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Named(id): Named<String>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<PinView>>> {
    let limit = asked::limit(query.limit, None)?;
    let node = reads::node(&people.app, &id).await?.ok_or_else(unknown)?;
    let cursor = query.cursor.as_deref();
    let items = pins::list(&people.app, &node.row, query.unreviewed, cursor, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.path.clone())))
}

/// What a review may name.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = PinReview)]
struct Review {
    /// The paths reviewed, as shown; all that wait where absent.
    #[serde(default)]
    paths: Option<Vec<String>>,
    /// The digest of the pins as they were seen; 409 where they have changed since.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pins: Option<Digest>,
}

/// `POST /api/v1/nodes/{id}/pins/review`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/pins/review", operation_id = "pins_review", tag = "nodes", params(("id" = String, Path)), request_body = Review, responses((status = 200, body = Reviewed)))]
pub(super) async fn review(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Reviewed>> {
    let Review { paths, pins } = body(request).await?;
    let reviewed = pins::mark_reviewed(&people.app, &id, paths, pins, &person).await?;
    Ok(Json(reviewed))
}
