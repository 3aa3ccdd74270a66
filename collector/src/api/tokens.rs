//! Join tokens and API tokens. Everybody makes API tokens of their own, which may no more than they do; join tokens are for who keeps
//! the list of nodes.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;

use super::{Answer, Asked, ListQuery, Listed, Named, body};
use crate::access::tokens::{self, LIFE_SECS, LONGEST_SECS, NewToken};
use crate::access::{AccessError, Person, Reach, Right, Role, lacks};
use crate::clock;
use crate::door::people::People;
use crate::fleet;

/// A join token without a life of its own is good for a day.
pub(crate) const JOIN_SECS: u64 = 86_400;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TokenKind)]
enum Kind {
    Join,
    Api,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = TokenWanted)]
struct Wanted {
    kind: Kind,
    group: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    uses: Option<u32>,
    ttl_secs: Option<u64>,
    role: Option<Role>,
    label: Option<String>,
}

/// `POST /api/v1/tokens`.
#[utoipa::path(post, path = "/api/v1/tokens", operation_id = "tokens_create", tag = "tokens", request_body = Wanted, responses((status = 201, body = serde_json::Value)))]
pub(super) async fn create(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<serde_json::Value>)> {
    let wanted: Wanted = body(request).await?;
    let made = match wanted.kind {
        Kind::Join => {
            let uses = wanted.uses.unwrap_or(1);
            let group = wanted.group.as_deref().unwrap_or("default");
            let ttl = wanted.ttl_secs.unwrap_or(JOIN_SECS);
            let made = join(&people, &person, group, uses, ttl).await?;
            serde_json::json!({ "kind": "join", "token": made.token.to_string(), "id": made.id, "expires": made.expires, "group": group, "uses": uses })
        }
        Kind::Api => {
            let named = wanted.groups.into_iter().chain(wanted.group);
            let role = wanted.role.unwrap_or(Role::Viewer);
            let label = wanted.label.unwrap_or_default();
            let issued = api(&people, &person, role, named, label, wanted.ttl_secs).await?;
            serde_json::json!({ "kind": "api", "token": issued.written.as_str(), "id": issued.id, "expires": issued.expires, "role": role })
        }
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// A join token, where the person keeps the list of nodes.
pub(crate) async fn join(
    people: &People,
    person: &Person,
    group: &str,
    uses: u32,
    ttl_secs: u64,
) -> Answer<fleet::CreatedToken> {
    if !person.may(Right::Steward) {
        return Err(lacks(person.role.as_str(), Right::Steward));
    }
    fleet::create_join_token(&people.app, group, uses, ttl_secs, person).await
}

/// An API token of the person's own. Without groups it reaches as far as they do.
pub(crate) async fn api(
    people: &People,
    person: &Person,
    role: Role,
    groups: impl IntoIterator<Item = String>,
    label: String,
    ttl_secs: Option<u64>,
) -> Answer<tokens::Issued> {
    let seconds = ttl_secs.unwrap_or(LIFE_SECS);
    if seconds == 0 || seconds > LONGEST_SECS {
        return Err(AccessError::Token.into());
    }
    let named = Reach::of(groups);
    let new = NewToken {
        user: person.user.clone(),
        role,
        reach: if named.is_all() {
            person.reach.clone()
        } else {
            named
        },
        label,
        expires: Some(clock::after(clock::now(), seconds)),
        login: false,
    };
    Ok(tokens::issue(&people.app.store, person, new).await?)
}

/// `GET /api/v1/tokens`: one's own, join tokens of groups within reach for who makes them, all for who administers all.
#[utoipa::path(get, path = "/api/v1/tokens", operation_id = "tokens_list", tag = "tokens", params(ListQuery), responses((status = 200, body = Listed<tokens::TokenView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<tokens::TokenView>>> {
    let limit = query.limit()?;
    let cursor = query.cursor.as_deref();
    let items = tokens::list(&people.app.store, &person, cursor, limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// `DELETE /api/v1/tokens/{id}`.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", operation_id = "tokens_revoke", tag = "tokens", params(("id" = String, Path)), responses((status = 204)))]
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Answer<StatusCode> {
    tokens::revoke(&people.app.store, &person, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
