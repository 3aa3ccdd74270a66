//! Signing in and out for programs: a name and a password for a token.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Answer, body};
use crate::access::{By, Person, Role, accounts, sessions, tokens};
use crate::clock;
use crate::door::Peer;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// A token from `login` is good for a month.
const TOKEN_SECS: u64 = 30 * 86_400;

#[derive(Deserialize)]
struct Credentials {
    user: String,
    password: String,
}

#[derive(Serialize)]
pub(super) struct Session {
    token: String,
    expires: Option<attestation::time::Timestamp>,
    user: String,
    role: Role,
}

/// Checks a name and a password, within the limits on trying. Used by the page as well.
pub(crate) async fn check(
    people: &People,
    peer: Option<&Peer>,
    user: &str,
    password: Zeroizing<String>,
) -> Answer<Role> {
    let address = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip());
    people.attempts.count(address, user).map_err(|seconds| {
        ProblemResponse::new(
            StatusCode::TOO_MANY_REQUESTS,
            "attempts",
            format!("too many attempts to sign in; try again in {seconds} s"),
        )
        .with_retry_after(seconds)
    })?;
    let role = accounts::check(&people.app.store, &people.passwords, user, password).await?;
    role.ok_or_else(|| {
        ProblemResponse::new(
            StatusCode::UNAUTHORIZED,
            "credentials",
            "no account has this name and password",
        )
    })
}

/// `POST /api/v1/sessions`.
pub(super) async fn create(
    State(people): State<People>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Answer<(StatusCode, Json<Session>)> {
    let Credentials { user, password } = body(request).await?;
    let role = check(&people, peer.as_deref(), &user, Zeroizing::new(password)).await?;
    let expires = clock::after(clock::now(), TOKEN_SECS);
    let issued = tokens::issue(&people.app.store, &user, role, "login", Some(expires)).await?;
    let token = issued.written.to_string();
    Ok((
        StatusCode::CREATED,
        Json(Session {
            token,
            expires: issued.expires,
            user,
            role,
        }),
    ))
}

/// `DELETE /api/v1/sessions`: the token or the session of this very request ends.
pub(super) async fn end(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<StatusCode> {
    match person.by {
        By::Token(id) => {
            tokens::revoke(&people.app.store, &id).await?;
        }
        By::Session(hash) => sessions::close(&people.app.store, hash).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/whoami`.
pub(super) async fn whoami(Extension(person): Extension<Person>) -> Json<serde_json::Value> {
    let by = if matches!(person.by, By::Token(_)) {
        "token"
    } else {
        "session"
    };
    Json(serde_json::json!({ "user": person.user, "role": person.role, "by": by }))
}
