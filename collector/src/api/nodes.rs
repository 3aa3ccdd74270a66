//! The fleet.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;

use super::reads::{self, NodeView};
use super::{Answer, Asked, ListQuery, Listed, Named, body, optional_body};
use crate::access::Person;
use crate::door::people::People;
use crate::fleet::Decision;
use crate::problem::ProblemResponse;
use crate::snapshots;
use crate::{fleet, ingest};

pub(super) fn unknown() -> ProblemResponse {
    ProblemResponse::not_found("there is no node with this id")
}

/// `GET /api/v1/nodes`.
#[utoipa::path(get, path = "/api/v1/nodes", operation_id = "nodes_list", tag = "nodes", params(ListQuery), responses((status = 200, body = Listed<NodeView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<NodeView>>> {
    let limit = query.limit()?;
    let cursor = query.cursor.as_deref();
    let nodes = reads::nodes_after(&people.app, &person.reach, cursor, limit + 1).await?;
    let listed = Listed::of(nodes, limit, |node| node.row.id.clone());
    Ok(Json(Listed {
        items: listed.items.iter().map(reads::NodeFacts::view).collect(),
        next: listed.next,
    }))
}

/// `GET /api/v1/nodes/{id}`.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", operation_id = "nodes_get", tag = "nodes", params(("id" = String, Path)), responses((status = 200, body = NodeView)))]
pub(super) async fn get(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<Json<NodeView>> {
    let node = reads::node(&people.app, &id).await?.ok_or_else(unknown)?;
    Ok(Json(node.view()))
}

/// `GET /api/v1/nodes/{id}/differences`: all that still stand, in pages.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/differences", operation_id = "nodes_differences", tag = "nodes", params(("id" = String, Path), ListQuery), responses((status = 200, body = Listed<Object>)))]
pub(super) async fn differences(
    State(people): State<People>,
    Named(id): Named<String>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<attestation::statement::Difference>>> {
    let limit = query.limit()?;
    let from: usize = match &query.cursor {
        None => 0,
        Some(cursor) => cursor.parse().map_err(|_| {
            ProblemResponse::malformed("this is no cursor of ours: take it from `next`")
        })?,
    };
    let node = reads::node(&people.app, &id).await?.ok_or_else(unknown)?;
    let all = ingest::current_differences(&people.app, &id).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let to = from.saturating_add(limit);
    // More than a statement lists: by the snapshot, once that is here.
    let page = snapshots::differences(&people.app, &node.row, &all, from, limit).await?;
    if let Some(page) = page {
        let next = page.more.then(|| to.to_string());
        return Ok(Json(Listed {
            items: page.items,
            next,
        }));
    }
    let next = (to < all.len()).then(|| to.to_string());
    let items = all.into_iter().skip(from).take(to - from).collect();
    Ok(Json(Listed { items, next }))
}

/// What is said of a decision.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[schema(as = DecisionReason)]
struct Said {
    #[serde(default)]
    reason: String,
}

async fn decide(
    people: People,
    person: Person,
    id: String,
    request: Request,
    decision: Decision,
) -> Answer<Json<NodeView>> {
    let Said { reason } = optional_body(request).await?;
    fleet::decide(&people.app, &person, &id, decision, &reason).await?;
    get(State(people), Named(id)).await
}

/// `POST /api/v1/nodes/{id}/approve`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/approve", operation_id = "nodes_approve", tag = "nodes", params(("id" = String, Path)), request_body = Option<Said>, responses((status = 200, body = NodeView)))]
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    decide(people, person, id, request, Decision::Approve).await
}

/// `POST /api/v1/nodes/{id}/suspend`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/suspend", operation_id = "nodes_suspend", tag = "nodes", params(("id" = String, Path)), request_body = Option<Said>, responses((status = 200, body = NodeView)))]
pub(super) async fn suspend(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    decide(people, person, id, request, Decision::Suspend).await
}

/// `POST /api/v1/nodes/{id}/resume`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/resume", operation_id = "nodes_resume", tag = "nodes", params(("id" = String, Path)), request_body = Option<Said>, responses((status = 200, body = NodeView)))]
pub(super) async fn resume(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    decide(people, person, id, request, Decision::Resume).await
}

/// `POST /api/v1/nodes/{id}/ban`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/ban", operation_id = "nodes_ban", tag = "nodes", params(("id" = String, Path)), request_body = Option<Said>, responses((status = 200, body = NodeView)))]
pub(super) async fn ban(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    decide(people, person, id, request, Decision::Ban).await
}

/// `POST /api/v1/nodes/{id}/decommission`: what a provisioner calls when it takes a server away.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/decommission", operation_id = "nodes_decommission", tag = "nodes", params(("id" = String, Path)), request_body = Option<Said>, responses((status = 200, body = NodeView)))]
pub(super) async fn decommission(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    decide(people, person, id, request, Decision::Decommission).await
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Rename {
    name: String,
}

/// `POST /api/v1/nodes/{id}/rename`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/rename", operation_id = "nodes_rename", tag = "nodes", params(("id" = String, Path)), request_body = Rename, responses((status = 200, body = NodeView)))]
pub(super) async fn rename(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    let Rename { name } = body(request).await?;
    fleet::rename(&people.app, &person, &id, &name).await?;
    get(State(people), Named(id)).await
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Move {
    group: String,
}

/// `POST /api/v1/nodes/{id}/group`.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/group", operation_id = "nodes_group", tag = "nodes", params(("id" = String, Path)), request_body = Move, responses((status = 200, body = NodeView)))]
pub(super) async fn group(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<NodeView>> {
    let Move { group } = body(request).await?;
    fleet::move_to_group(&people.app, &person, &id, &group).await?;
    get(State(people), Named(id)).await
}

/// `POST /api/v1/nodes/{id}/rescan`: the node is told with its next answer.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/rescan", operation_id = "nodes_rescan", tag = "nodes", params(("id" = String, Path)), responses((status = 202, body = fleet::Waiting)))]
pub(super) async fn rescan(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Answer<(StatusCode, Json<fleet::Waiting>)> {
    let waiting = fleet::rescan(&people.app, &person, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(waiting)))
}
