//! Signing in and out for programs: a name and a password for a token.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Answer, body};
use crate::access::accounts::{self, Account};
use crate::access::refused::{Refused, Why};
use crate::access::tokens::{self, NewToken};
use crate::access::{AccessError, By, Person, Reach, Role, sessions};
use crate::clock;
use crate::door::Peer;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// A token from `login` is good for a month.
const TOKEN_SECS: u64 = 30 * 86_400;

#[derive(Deserialize, utoipa::ToSchema)]
struct Credentials {
    user: String,
    password: String,
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = SignedIn)]
pub(super) struct Session {
    token: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<attestation::time::Timestamp>,
    user: String,
    role: Role,
    #[schema(value_type = Vec<String>)]
    groups: Reach,
}

/// Checks a name and a password, within the limits on trying. Used by the page as well.
pub(crate) async fn check(
    people: &People,
    from: Option<IpAddr>,
    user: &str,
    password: Zeroizing<String>,
    route: &str,
) -> Answer<Account> {
    let app = &people.app;
    let address = from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let refuse = async |why| {
        let mut refused = Refused::new(None, from, why, route);
        // Only the name of an account: people type passwords where the name belongs.
        if let Some(account) = accounts::named(&app.store, user).await? {
            refused.user = account.user;
        }
        app.refused.note(&app.store, refused).await;
        Ok::<_, AccessError>(())
    };
    if let Err(seconds) = people.attempts.count(address, user) {
        refuse(Why::Attempts).await?;
        let detail = format!("too many attempts to sign in; try again in {seconds} s");
        let problem = ProblemResponse::new(StatusCode::TOO_MANY_REQUESTS, "attempts", detail);
        return Err(problem.with_retry_after(seconds));
    }
    let account = accounts::check(&app.store, &people.passwords, user, password).await?;
    match &account {
        Some(_) => people.attempts.remember(address, user),
        None => refuse(Why::Credentials).await?,
    }
    account.ok_or_else(|| {
        ProblemResponse::new(
            StatusCode::UNAUTHORIZED,
            "credentials",
            "no account has this name and password",
        )
    })
}

/// `POST /api/v1/sessions`.
#[utoipa::path(post, path = "/api/v1/sessions", operation_id = "sign_in_create", tag = "sessions", request_body = Credentials, responses((status = 201, body = Session)))]
pub(super) async fn create(
    State(people): State<People>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Answer<(StatusCode, Json<Session>)> {
    let Credentials { user, password } = body(request).await?;
    let from = peer.map(|peer| peer.address.ip().to_canonical());
    let password = Zeroizing::new(password);
    let account = check(&people, from, &user, password, "/api/v1/sessions").await?;
    let who = Person {
        user: account.user.clone(),
        role: account.role,
        reach: account.groups.clone(),
        by: By::Nobody,
        from,
    };
    let new = NewToken {
        user: account.user,
        role: account.role,
        reach: account.groups,
        label: "login".to_owned(),
        expires: Some(clock::after(clock::now(), TOKEN_SECS)),
        login: true,
    };
    let issued = tokens::issue(&people.app.store, &who, new).await?;
    Ok((
        StatusCode::CREATED,
        Json(Session {
            token: issued.written.to_string(),
            expires: issued.expires,
            user: who.user,
            role: who.role,
            groups: who.reach,
        }),
    ))
}

/// `DELETE /api/v1/sessions`: the token or the session of this very request ends.
#[utoipa::path(delete, path = "/api/v1/sessions", operation_id = "sign_in_end", tag = "sessions", responses((status = 204)))]
pub(super) async fn end(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<StatusCode> {
    match &person.by {
        By::Token(id) => tokens::revoke(&people.app.store, &person, id).await?,
        _ => sessions::close(&people.app.store, &person).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/v1/whoami`.
#[utoipa::path(get, path = "/api/v1/whoami", operation_id = "sign_in_whoami", tag = "whoami", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn whoami(Extension(person): Extension<Person>) -> Json<serde_json::Value> {
    let by = if matches!(person.by, By::Token(_)) {
        "token"
    } else {
        "session"
    };
    Json(
        serde_json::json!({ "user": person.user, "role": person.role, "groups": person.reach, "by": by }),
    )
}
