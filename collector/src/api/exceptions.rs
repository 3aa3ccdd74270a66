//! Exceptions: accepted differences.

use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::time::Timestamp;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::decisions::{self, No, Yes};
use super::{Answer, Asked, Listed, Named, asked, body};
use crate::access::Person;
use crate::approvals::{Ending, Matter};
use crate::clock;
use crate::door::people::People;
use crate::exceptions::{
    self, About, Decided, ExceptionFilter, ExceptionView, Place, Relying, Wanted,
};
use crate::problem::ProblemResponse;

/// Nodes that one answer names; more are counted.
const NAMED: u32 = 1_000;

/// What the list of exceptions takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    /// `waiting`, `approved`, `ended`, `refused`, `withdrawn` or `revoked`.
    state: Option<String>,
    node: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/exceptions`.
#[utoipa::path(get, path = "/api/v1/exceptions", operation_id = "exceptions_list", tag = "exceptions", params(Query), responses((status = 200, body = Listed<ExceptionView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<ExceptionView>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let filter = ExceptionFilter {
        state: query.state.as_deref(),
        node: query.node.as_deref(),
        before: query.cursor.as_deref(),
    };
    let items =
        exceptions::list(&people.app, &person.reach, filter, limit + 1, clock::now()).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// The exception with this id, or 404.
pub(crate) async fn found(people: &People, id: &str) -> Answer<ExceptionView> {
    exceptions::one(&people.app, id, clock::now())
        .await?
        .ok_or_else(|| Matter::Exception.unknown())
}

/// An exception with the nodes that rely on it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WholeException)]
pub(super) struct Whole {
    #[serde(flatten)]
    exception: ExceptionView,
    relying: Vec<Relying>,
}

/// `GET /api/v1/exceptions/{id}`.
#[utoipa::path(get, path = "/api/v1/exceptions/{id}", operation_id = "exceptions_get", tag = "exceptions", params(("id" = String, Path)), responses((status = 200, body = Whole)))]
pub(super) async fn get(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<Json<Whole>> {
    let exception = found(&people, &id).await?;
    let relying = exceptions::relying(&people.app, &id, NAMED).await?;
    Ok(Json(Whole { exception, relying }))
}

/// For which nodes, where a violation is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ExceptionFor)]
pub(crate) enum For {
    /// The violation's node.
    #[default]
    Node,
    /// All of its group.
    Group,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ExceptionWanted)]
struct Asking {
    violation: Option<String>,
    #[serde(default)]
    r#for: For,
    node: Option<String>,
    group: Option<String>,
    #[schema(value_type = Option<String>)]
    path: Option<ImagePath>,
    #[schema(value_type = Option<String>)]
    found: Option<Line>,
    reason: String,
    #[serde(default)]
    ticket: String,
    #[serde(default)]
    owner: String,
    #[schema(value_type = String, format = DateTime)]
    ends: Timestamp,
}

/// The difference that is meant: a violation's, or one that is described.
fn about(asking: &Asking) -> Answer<About> {
    let place = match (&asking.node, &asking.group) {
        (Some(node), None) => Some(Place::Node(node.clone())),
        (None, Some(group)) => Some(Place::Group(group.clone())),
        _ => None,
    };
    match (&asking.violation, place, &asking.path) {
        (Some(id), None, None) => Ok(About::Violation {
            id: id.clone(),
            group: asking.r#for == For::Group,
        }),
        (None, Some(place), Some(path)) => Ok(About::Described {
            place,
            path: path.clone(),
            found: asking.found.clone(),
        }),
        _ => Err(ProblemResponse::malformed(
            "give a `violation`, or a `path` with its `found` line and a `node` or a `group`",
        )),
    }
}

/// What a request or a decision answers.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ExceptionAnswer)]
pub(super) struct Answered {
    #[serde(flatten)]
    exception: ExceptionView,
    /// What follows, in a sentence.
    told: String,
    /// Violations that ended by it.
    #[schema(value_type = u64)]
    ended: usize,
}

fn answered(decided: Decided) -> Json<Answered> {
    Json(Answered {
        exception: decided.exception,
        told: decided.told,
        ended: decided.ended,
    })
}

/// `POST /api/v1/exceptions`: 201 where it holds at once, 202 where it waits for another person's word.
#[utoipa::path(post, path = "/api/v1/exceptions", operation_id = "exceptions_request", tag = "exceptions", request_body = Asking, responses((status = 201, body = Answered), (status = 202, body = Answered)))]
pub(super) async fn request(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<Answered>)> {
    let asking: Asking = body(request).await?;
    let wanted = Wanted {
        about: about(&asking)?,
        reason: asking.reason,
        ticket: asking.ticket,
        owner: asking.owner,
        ends: asking.ends,
    };
    let decided = exceptions::request(&people.app, wanted, &person).await?;
    let status = decisions::status(decided.exception.waits);
    Ok((status, answered(decided)))
}

/// `POST /api/v1/exceptions/{id}/approve`.
#[utoipa::path(post, path = "/api/v1/exceptions/{id}/approve", operation_id = "exceptions_approve", tag = "exceptions", params(("id" = String, Path)), request_body = Yes, responses((status = 200, body = Answered)))]
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let Yes { reason } = body(request).await?;
    let decided = exceptions::approve(&people.app, &id, reason.as_deref(), &person).await?;
    Ok(answered(decided))
}

/// `POST /api/v1/exceptions/{id}/refuse`: by another person.
#[utoipa::path(post, path = "/api/v1/exceptions/{id}/refuse", operation_id = "exceptions_refuse", tag = "exceptions", params(("id" = String, Path)), request_body = No, responses((status = 200, body = Answered)))]
pub(super) async fn refuse(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let No { reason } = body(request).await?;
    let decided = exceptions::end(&people.app, &id, Ending::Refuse, &reason, &person).await?;
    Ok(answered(decided))
}

/// `POST /api/v1/exceptions/{id}/withdraw`: by who asked for it.
#[utoipa::path(post, path = "/api/v1/exceptions/{id}/withdraw", operation_id = "exceptions_withdraw", tag = "exceptions", params(("id" = String, Path)), request_body = No, responses((status = 200, body = Answered)))]
pub(super) async fn withdraw(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let No { reason } = body(request).await?;
    let decided = exceptions::end(&people.app, &id, Ending::Withdraw, &reason, &person).await?;
    Ok(answered(decided))
}

/// `POST /api/v1/exceptions/{id}/revoke`.
#[utoipa::path(post, path = "/api/v1/exceptions/{id}/revoke", operation_id = "exceptions_revoke", tag = "exceptions", params(("id" = String, Path)), request_body = No, responses((status = 200, body = Answered)))]
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let No { reason } = body(request).await?;
    let decided = exceptions::revoke(&people.app, &id, &reason, &person).await?;
    Ok(answered(decided))
}
