//! Join tokens and API tokens.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::Deserialize;

use super::{Answer, Asked, ListQuery, Listed, Named, body};
use crate::access::{Person, Role, tokens};
use crate::clock;
use crate::door::people::People;
use crate::fleet;
use crate::problem::ProblemResponse;

/// A join token without a life of its own is good for a day.
const JOIN_SECS: u64 = 86_400;
/// A year: whoever needs longer makes another.
const LONGEST_SECS: u64 = 366 * 86_400;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Join,
    Api,
}

#[derive(Deserialize)]
struct Wanted {
    kind: Kind,
    group: Option<String>,
    uses: Option<u32>,
    ttl_secs: Option<u64>,
    role: Option<Role>,
    label: Option<String>,
}

/// `POST /api/v1/tokens`.
pub(super) async fn create(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<serde_json::Value>)> {
    let wanted: Wanted = body(request).await?;
    if wanted
        .ttl_secs
        .is_some_and(|seconds| seconds == 0 || seconds > LONGEST_SECS)
    {
        return Err(ProblemResponse::malformed(
            "`ttl_secs` is 1 second to 366 days",
        ));
    }
    let made = match wanted.kind {
        Kind::Join => {
            let uses = wanted.uses.unwrap_or(1);
            let group = wanted.group.as_deref().unwrap_or("default");
            let ttl = wanted.ttl_secs.unwrap_or(JOIN_SECS);
            let made =
                fleet::create_join_token(&people.app, group, uses, ttl, &person.user).await?;
            serde_json::json!({ "kind": "join", "token": made.token.to_string(), "id": made.id, "expires": made.expires, "group": group, "uses": uses })
        }
        Kind::Api => {
            let role = wanted.role.unwrap_or(Role::Viewer);
            let expires = wanted
                .ttl_secs
                .map(|seconds| clock::after(clock::now(), seconds));
            let label = wanted.label.unwrap_or_default();
            if label.len() > 200 {
                return Err(ProblemResponse::malformed("`label` has at most 200 bytes"));
            }
            let issued =
                tokens::issue(&people.app.store, &person.user, role, &label, expires).await?;
            serde_json::json!({ "kind": "api", "token": issued.written.as_str(), "id": issued.id, "expires": issued.expires, "role": role })
        }
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// `GET /api/v1/tokens`.
pub(super) async fn list(
    State(people): State<People>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<tokens::TokenView>>> {
    let limit = query.limit()?;
    let items = tokens::list(&people.app.store, query.cursor.as_deref(), limit + 1).await?;
    Ok(Json(Listed::of(items, limit, |item| item.id.clone())))
}

/// `DELETE /api/v1/tokens/{id}`.
pub(super) async fn revoke(
    State(people): State<People>,
    Named(id): Named<String>,
) -> Answer<StatusCode> {
    if tokens::revoke(&people.app.store, &id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ProblemResponse::not_found("there is no token with this id"))
    }
}
