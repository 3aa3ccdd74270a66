//! The change history.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;

use super::{Answer, Asked, Listed, Named, asked};
use crate::access::Person;
use crate::approvals::Matter;
use crate::assignments::changes::{self, ChangeFilter, ChangeView, NodeStand};
use crate::clock;
use crate::door::people::People;

/// What the list of changes takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    group: Option<String>,
    #[param(value_type = Option<String>)]
    image: Option<attestation::digest::Digest>,
    /// Only those that wait for another person's word.
    #[serde(default)]
    waiting: Option<bool>,
    /// Only those that hold for their group now.
    #[serde(default)]
    holding: bool,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/changes`.
#[utoipa::path(get, path = "/api/v1/changes", operation_id = "changes_list", tag = "changes", params(Query), responses((status = 200, body = Listed<ChangeView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<ChangeView>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let filter = ChangeFilter {
        group: query.group.as_deref(),
        image: query.image.as_ref(),
        waiting: query.waiting,
        holding: query.holding,
        before: query.cursor.as_deref(),
    };
    let items = changes::list(&people.app, &person.reach, filter, limit + 1, clock::now()).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// The change with this id, or 404.
pub(crate) async fn found(people: &People, id: &str) -> Answer<ChangeView> {
    changes::one(&people.app, id, clock::now())
        .await?
        .ok_or_else(|| Matter::Change.unknown())
}

/// `GET /api/v1/changes/{id}`.
#[utoipa::path(get, path = "/api/v1/changes/{id}", operation_id = "changes_get", tag = "changes", params(("id" = String, Path)), responses((status = 200, body = ChangeView)))]
pub(super) async fn get(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<Json<ChangeView>> {
    Ok(Json(found(&people, &id).await?))
}

/// What the list of a change's nodes takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NodesQuery {
    /// Those that have it, or those that do not have it yet.
    #[serde(default)]
    has: bool,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/changes/{id}/nodes`.
#[utoipa::path(get, path = "/api/v1/changes/{id}/nodes", operation_id = "changes_nodes", tag = "changes", params(("id" = String, Path), NodesQuery), responses((status = 200, body = Listed<NodeStand>)))]
pub(super) async fn nodes(
    State(people): State<People>,
    Named(id): Named<String>,
    Asked(query): Asked<NodesQuery>,
) -> Answer<Json<Listed<NodeStand>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let offset = asked::offset(query.cursor.as_deref())?;
    let change = found(&people, &id).await?;
    let items = changes::nodes(&people.app, &change, query.has, offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    Ok(Json(Listed::of(items, limit, |_| next.to_string())))
}
