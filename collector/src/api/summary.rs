//! `GET /api/v1/summary`: the fleet in numbers.

use axum::extract::State;
use axum::{Extension, Json};

use super::{Answer, reads};
use crate::access::Person;
use crate::door::people::People;

/// `GET /api/v1/summary`: nodes, violations, alerts and the store in numbers.
#[utoipa::path(get, path = "/api/v1/summary", operation_id = "summary_get", tag = "summary", responses((status = 200, body = reads::Summary)))]
pub(super) async fn get(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<Json<reads::Summary>> {
    let nodes = reads::all_nodes(&people.app, &person.reach).await?;
    Ok(Json(
        reads::summary(&people.app, &person.reach, &nodes).await?,
    ))
}
