//! Deliveries and channels.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::{Answer, Asked, Listed, Named, asked};
use crate::access::Person;
use crate::alerts::{self, ChannelView, Delivery, DeliveryFilter, DeliveryState, Trial, route};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// What the list of deliveries takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    channel: Option<String>,
    state: Option<DeliveryState>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/alerts`: deliveries, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", operation_id = "alerts_list", tag = "alerts", params(Query), responses((status = 200, body = Listed<Delivery>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<Delivery>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let before = query
        .cursor
        .as_deref()
        .map(|cursor| {
            cursor.parse().map_err(|_| {
                ProblemResponse::malformed("this is no cursor of ours: take it from `next`")
            })
        })
        .transpose()?;
    let filter = DeliveryFilter {
        channel: query.channel.as_deref(),
        state: query.state,
        before,
    };
    let app = &people.app;
    let alerting = Some(&*app.channels.alerting);
    let items = alerts::deliveries(&app.store, alerting, &person.reach, filter, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| {
        item.cursor.to_string()
    })))
}

/// Channels, and the routes in words.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Channels {
    items: Vec<ChannelView>,
    next: Option<String>,
    routes: Vec<String>,
}

/// `GET /api/v1/channels`: who is told, of what, and how that goes.
#[utoipa::path(get, path = "/api/v1/channels", operation_id = "alerts_channels", tag = "channels", responses((status = 200, body = Channels)))]
pub(super) async fn channels(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<Json<Channels>> {
    let app = &people.app;
    let alerting = &app.channels.alerting;
    let routes = alerting.routes_within(&person.reach);
    Ok(Json(Channels {
        items: alerts::channels(&app.store, alerting, &person.reach).await?,
        next: None,
        routes: routes.iter().map(route::words).collect(),
    }))
}

/// `POST /api/v1/channels/{name}/test`: a real message, and what became of it.
#[utoipa::path(post, path = "/api/v1/channels/{name}/test", operation_id = "alerts_test", tag = "channels", params(("name" = String, Path)), responses((status = 200, body = Trial)))]
pub(super) async fn test(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(name): Named<String>,
) -> Answer<Json<Trial>> {
    Ok(Json(alerts::trial(&people.app, &name, &person).await?))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[schema(as = AlertRetry)]
struct Retry {
    channel: Option<String>,
}

/// How many dead letters are tried again.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Retried {
    deliveries: u64,
}

/// `POST /api/v1/alerts/{id}/retry`: dead letters of this message are tried again, to one channel or to all.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/retry", operation_id = "alerts_retry", tag = "alerts", params(("id" = String, Path)), responses((status = 200, body = Retried)))]
pub(super) async fn retry(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Retried>> {
    let Retry { channel } = super::body(request).await?;
    let deliveries = again(&people, &id, channel.as_deref(), &person).await?;
    Ok(Json(Retried { deliveries }))
}

/// Has dead letters tried again; there must be one.
pub(crate) async fn again(
    people: &People,
    id: &str,
    channel: Option<&str>,
    person: &Person,
) -> Result<u64, ProblemResponse> {
    let app = &people.app;
    let alerting = &app.channels.alerting;
    let moved = alerts::try_again(&app.store, alerting, id, channel, person, clock::now()).await?;
    if moved == 0 {
        return Err(ProblemResponse::not_found(
            "no delivery with this id was given up on; the list of alerts shows how each stands",
        ));
    }
    Ok(moved)
}
