//! Local accounts, and one's own password.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Answer, Listed, Named, body, check_sign_in, optional_body};
use crate::access::accounts::{self, Account, NewAccount};
use crate::access::{Person, Reach, Role, secret};
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// An account just made, or one with another password.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = NewPassword)]
pub(super) struct Made {
    user: String,
    /// Only where it was made here; it is nowhere stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

/// `GET /api/v1/accounts`: all within reach; there are few.
#[utoipa::path(get, path = "/api/v1/accounts", operation_id = "accounts_list", tag = "accounts", responses((status = 200, body = Listed<Account>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Answer<Json<Listed<Account>>> {
    let items = accounts::list(&people.app.store, &person.reach).await?;
    Ok(Json(Listed { items, next: None }))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AccountWanted)]
struct Wanted {
    user: String,
    role: Role,
    #[serde(default)]
    groups: Vec<String>,
    password: Option<String>,
}

/// `POST /api/v1/accounts`: without a password one is made and answered once.
#[utoipa::path(post, path = "/api/v1/accounts", operation_id = "accounts_add", tag = "accounts", request_body = Wanted, responses((status = 201, body = Made)))]
pub(super) async fn add(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<Made>)> {
    let wanted: Wanted = body(request).await?;
    let (password, made) = given_or_made(wanted.password)?;
    let new = NewAccount {
        user: wanted.user.clone(),
        password,
        role: wanted.role,
        reach: Reach::of(wanted.groups),
    };
    accounts::add(&people.app.store, &person, new).await?;
    let made = Made {
        user: wanted.user,
        password: made,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// A password, and its text where it was made here.
pub(crate) fn given_or_made(given: Option<String>) -> Answer<(Zeroizing<String>, Option<String>)> {
    match given.filter(|given| !given.is_empty()) {
        Some(given) => Ok((Zeroizing::new(given), None)),
        None => {
            let made = secret::fresh_password().map_err(crate::access::AccessError::from)?;
            let shown = made.to_string();
            Ok((made, Some(shown)))
        }
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AccountChange)]
struct Changed {
    role: Option<Role>,
    groups: Option<Vec<String>>,
}

/// `PATCH /api/v1/accounts/{user}`.
#[utoipa::path(patch, path = "/api/v1/accounts/{user}", operation_id = "accounts_change", tag = "accounts", params(("user" = String, Path)), request_body = Changed, responses((status = 200, body = Account)))]
pub(super) async fn change(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
    request: Request,
) -> Answer<Json<Account>> {
    let Changed { role, groups } = body(request).await?;
    let reach = groups.map(Reach::of);
    accounts::set_role(&people.app.store, &person, &user, role, reach).await?;
    one(&people, &user).await
}

async fn one(people: &People, user: &str) -> Answer<Json<Account>> {
    accounts::named(&people.app.store, user)
        .await?
        .map(Json)
        .ok_or_else(|| ProblemResponse::not_found("there is no such account"))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[schema(as = PasswordWanted)]
struct Password {
    password: Option<String>,
}

/// `POST /api/v1/accounts/{user}/password`: without one in the body, one is made and answered once.
#[utoipa::path(post, path = "/api/v1/accounts/{user}/password", operation_id = "accounts_password", tag = "accounts", params(("user" = String, Path)), request_body = Option<Password>, responses((status = 200, body = Made)))]
pub(super) async fn password(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
    request: Request,
) -> Answer<Json<Made>> {
    let Password { password } = optional_body(request).await?;
    let (password, made) = given_or_made(password)?;
    accounts::set_password(&people.app.store, &person, &user, password).await?;
    Ok(Json(Made {
        user,
        password: made,
    }))
}

/// `POST /api/v1/accounts/{user}/disable`.
#[utoipa::path(post, path = "/api/v1/accounts/{user}/disable", operation_id = "accounts_disable", tag = "accounts", params(("user" = String, Path)), responses((status = 200, body = Account)))]
pub(super) async fn disable(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
) -> Answer<Json<Account>> {
    accounts::disable(&people.app.store, &person, &user).await?;
    one(&people, &user).await
}

/// `POST /api/v1/accounts/{user}/enable`.
#[utoipa::path(post, path = "/api/v1/accounts/{user}/enable", operation_id = "accounts_enable", tag = "accounts", params(("user" = String, Path)), responses((status = 200, body = Account)))]
pub(super) async fn enable(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
) -> Answer<Json<Account>> {
    accounts::enable(&people.app.store, &person, &user).await?;
    one(&people, &user).await
}

#[derive(Deserialize, utoipa::ToSchema)]
struct OwnPassword {
    current: String,
    password: String,
}

/// `POST /api/v1/password`: one's own; whoever found an open browser does not know the one before.
#[utoipa::path(post, path = "/api/v1/password", operation_id = "accounts_own_password", tag = "password", request_body = OwnPassword, responses((status = 204)))]
pub(super) async fn own_password(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<StatusCode> {
    let OwnPassword { current, password } = body(request).await?;
    set_own(&people, &person, current, password, "/api/v1/password").await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets one's own password where the one before is known. Tries are counted as those to sign in.
pub(crate) async fn set_own(
    people: &People,
    person: &Person,
    current: String,
    password: String,
    route: &str,
) -> Answer<()> {
    let current = Zeroizing::new(current);
    check_sign_in(people, person.from, &person.user, current, route)
        .await
        .map_err(|problem| match problem.status {
            StatusCode::UNAUTHORIZED => ProblemResponse::new(
                StatusCode::FORBIDDEN,
                "credentials",
                "this is not the password that the account has now",
            ),
            _ => problem,
        })?;
    let password = Zeroizing::new(password);
    Ok(accounts::set_password(&people.app.store, person, &person.user, password).await?)
}
