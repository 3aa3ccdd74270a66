//! Login sessions on nodes.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::nodes::unknown;
use super::reads::{self, TouchedView};
use super::{Answer, Asked, ListQuery, Listed, Named, asked};
use crate::access::Person;
use crate::door::people::People;
use crate::logins::{self, CommandView, Filter, LoginView};
use crate::problem::ProblemResponse;
use crate::violations::view::ViolationView;

/// Commands, violations and touched paths given with one session.
const WITH_ONE: u32 = 1_000;

/// What the list of sessions takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    node: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/sessions`.
#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "logins_list", tag = "sessions", params(Query), responses((status = 200, body = Listed<LoginView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<LoginView>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let filter = Filter {
        node: query.node.as_deref(),
        before: query.cursor.as_deref(),
    };
    let items = logins::list(&people.app, &person.reach, filter, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// `GET /api/v1/nodes/{id}/sessions`.
#[utoipa::path(get, path = "/api/v1/nodes/{id}/sessions", operation_id = "logins_of_node", tag = "nodes", params(("id" = String, Path), ListQuery), responses((status = 200, body = Listed<LoginView>)))]
pub(super) async fn of_node(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<LoginView>>> {
    let limit = query.limit()?;
    reads::node(&people.app, &id).await?.ok_or_else(unknown)?;
    let filter = Filter {
        node: Some(&id),
        before: query.cursor.as_deref(),
    };
    let items = logins::list(&people.app, &person.reach, filter, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// A session with what was run and what was changed in it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WholeLoginSession)]
pub(super) struct Whole {
    #[serde(flatten)]
    login: LoginView,
    ran: Vec<CommandView>,
    violations: Vec<ViolationView>,
    touched: Vec<TouchedView>,
}

/// `GET /api/v1/sessions/{id}`.
#[utoipa::path(get, path = "/api/v1/sessions/{id}", operation_id = "logins_get", tag = "sessions", params(("id" = String, Path)), responses((status = 200, body = Whole)))]
pub(super) async fn get(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<Json<Whole>> {
    let login = logins::named(&people.app, &id)
        .await?
        .ok_or_else(|| ProblemResponse::not_found("there is no session with this id"))?;
    let ran = logins::commands(&people.app, &id, WITH_ONE).await?;
    let (violations, touched) = logins::changes(&people.app, &login, WITH_ONE).await?;
    Ok(Json(Whole {
        login,
        ran,
        violations,
        touched,
    }))
}
