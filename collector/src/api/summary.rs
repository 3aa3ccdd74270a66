//! `GET /api/v1/summary`: the fleet in numbers.

use axum::Json;
use axum::extract::State;

use super::{Answer, reads};
use crate::door::people::People;

pub(super) async fn get(State(people): State<People>) -> Answer<Json<reads::Summary>> {
    let nodes = reads::all_nodes(&people.app).await?;
    Ok(Json(reads::summary(&people.app, &nodes).await?))
}
