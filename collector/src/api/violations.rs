//! Violations, and what was touched.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;

use super::reads::{self, TouchedView, ViolationFilter};
use super::{Answer, Asked, Listed, Named, asked, body};
use crate::access::Person;
use crate::door::people::People;
use crate::pins;
use crate::problem::ProblemResponse;
use crate::violations::review::{self, Judged};
use crate::violations::view::{Kind, Severity, ViolationView};

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ViolationStatus)]
enum Status {
    Open,
    Resolved,
    All,
}

/// What the list of violations takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    status: Option<Status>,
    node: Option<String>,
    #[param(value_type = Option<String>)]
    kind: Option<Kind>,
    #[param(value_type = Option<String>)]
    severity: Option<Severity>,
    path: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/violations`.
#[utoipa::path(get, path = "/api/v1/violations", operation_id = "violations_list", tag = "violations", params(Query), responses((status = 200, body = Listed<ViolationView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<ViolationView>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let open = match query.status {
        None | Some(Status::Open) => Some(true),
        Some(Status::Resolved) => Some(false),
        Some(Status::All) => None,
    };
    let filter = ViolationFilter {
        open,
        node: query.node.as_deref(),
        kind: query.kind.map(Kind::as_str),
        severity: query.severity.map(Severity::as_str),
        text: query.path.as_deref(),
        before: query.cursor.as_deref(),
    };
    let items = reads::violations(&people.app, &person.reach, &filter, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// `GET /api/v1/violations/{id}`.
#[utoipa::path(get, path = "/api/v1/violations/{id}", operation_id = "violations_get", tag = "violations", params(("id" = String, Path)), responses((status = 200, body = ViolationView)))]
pub(super) async fn get(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<Json<ViolationView>> {
    let violation = reads::violation(&people.app, &id).await?;
    violation
        .map(Json)
        .ok_or_else(|| ProblemResponse::not_found("there is no violation with this id"))
}

/// What the list of touched paths takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TouchedQuery {
    node: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/touched`.
#[utoipa::path(get, path = "/api/v1/touched", operation_id = "violations_touched", tag = "touched", params(TouchedQuery), responses((status = 200, body = Listed<TouchedView>)))]
pub(super) async fn touched(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<TouchedQuery>,
) -> Answer<Json<Listed<TouchedView>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let items = reads::touched(
        &people.app,
        &person.reach,
        query.node.as_deref(),
        query.cursor.as_deref(),
        limit + 1,
    )
    .await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ViolationReview)]
struct Review {
    reason: String,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ViolationResolution)]
struct Resolution {
    reason: String,
    /// What was found becomes the pin.
    #[serde(default)]
    accept: bool,
    /// What the person says that it was.
    #[serde(default)]
    r#as: Judged,
}

/// `POST /api/v1/violations/{id}/acknowledge`.
#[utoipa::path(post, path = "/api/v1/violations/{id}/acknowledge", operation_id = "violations_acknowledge", tag = "violations", params(("id" = String, Path)), request_body = Review, responses((status = 200, body = ViolationView)))]
pub(super) async fn acknowledge(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<ViolationView>> {
    let Review { reason } = body(request).await?;
    let violation = review::acknowledge(&people.app, &id, &reason, &person).await?;
    Ok(Json(violation))
}

/// `POST /api/v1/violations/{id}/resolve`: 409 `lasts` while the node still says that it is so. With `accept` the node is asked to make
/// what it found its pin, and the violation ends when it says that it has: 202.
#[utoipa::path(post, path = "/api/v1/violations/{id}/resolve", operation_id = "violations_resolve", tag = "violations", params(("id" = String, Path)), request_body = Resolution, responses((status = 200, body = ViolationView), (status = 202, body = ViolationView)))]
pub(super) async fn resolve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<(StatusCode, Json<ViolationView>)> {
    let Resolution {
        reason,
        accept,
        r#as,
    } = body(request).await?;
    if accept {
        let violation = pins::accept(&people.app, &id, &reason, &person).await?;
        return Ok((StatusCode::ACCEPTED, Json(violation)));
    }
    let violation = review::resolve(&people.app, &id, &reason, r#as, &person).await?;
    Ok((StatusCode::OK, Json(violation)))
}
