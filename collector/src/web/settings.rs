//! `/settings`: who am I, API tokens, join tokens, accounts. Every form works without script; a secret is shown in the answer to the form
//! that made it, and nowhere else.

mod accounts;
mod tokens;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Filled;
use super::{shell, text};
use crate::access::{By, Person, Right, Role};
use crate::api::accounts::set_own;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// The page's routes.
pub(super) fn routes() -> Router<People> {
    Router::new()
        .route("/settings", get(page))
        .route("/settings/password", post(password))
        .route("/settings/tokens", post(tokens::create))
        .route("/settings/tokens/{id}/revoke", post(tokens::revoke))
        .route("/settings/join-tokens", post(tokens::create_join))
        .route("/settings/accounts", post(accounts::add))
        .route("/settings/accounts/{user}/role", post(accounts::role))
        .route(
            "/settings/accounts/{user}/password",
            post(accounts::password),
        )
        .route("/settings/accounts/{user}/disable", post(accounts::disable))
        .route("/settings/accounts/{user}/enable", post(accounts::enable))
}

/// `GET /settings`.
async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Result<Markup, ProblemResponse> {
    shown(&people, &person, &Markup::default()).await
}

/// The page, with what the form before came to.
async fn shown(
    people: &People,
    person: &Person,
    outcome: &Markup,
) -> Result<Markup, ProblemResponse> {
    let body = html! {
        h1 { "You are " (text::plain(&person.user)) ", " (article(person.role)) " for " (text::nodes_of(&person.reach)) "." }
        (outcome)
        (you(person))
        (tokens::section(people, person).await?)
        @if person.may(Right::Administer) { (accounts::section(people, person).await?) }
    };
    Ok(shell::page(person, "/settings", "Settings", &body))
}

/// What a form came to, on the page that it stood on. A refusal of the form is told there too; anything else is an error like any other.
async fn told(
    people: &People,
    person: &Person,
    outcome: Result<Markup, ProblemResponse>,
) -> Result<Response, ProblemResponse> {
    let (status, outcome) = match outcome {
        Ok(done) => (StatusCode::OK, done),
        Err(problem) if problem.status.is_client_error() => {
            let shown = html! { p.trouble role="alert" { (text::plain(&problem.detail)) } };
            (problem.status, shown)
        }
        Err(problem) => return Err(problem),
    };
    let page = shown(people, person, &outcome).await?;
    Ok((status, page).into_response())
}

/// Something that is shown once.
fn once(what: &str, secret: &str) -> Markup {
    html! {
        div.empty role="status" {
            p { b { (what) } " It is shown only now, and stored nowhere in this form." }
            pre { (secret) }
            p { (text::copy(secret, "it")) }
        }
    }
}

fn article(role: Role) -> &'static str {
    match role {
        Role::Viewer => "a viewer",
        Role::Operator => "an operator",
        Role::Approver => "an approver",
        Role::Publisher => "a publisher",
        Role::Admin => "an administrator",
    }
}

/// What a role is for, in a sentence.
fn purpose(role: Role) -> &'static str {
    match role {
        Role::Viewer => "reads everything, changes nothing",
        Role::Operator => "works with what is found, asks for changes, keeps the list of nodes",
        Role::Approver => "approves what others ask for, lets nodes in and bans them",
        Role::Publisher => "publishes images",
        Role::Admin => "may everything, but for approving what they asked for themselves",
    }
}

fn you(person: &Person) -> Markup {
    html! {
        dl.facts {
            dt { "Role" } dd { (person.role.as_str()) " " span.soft { (purpose(person.role)) } }
            dt { "Nodes" } dd { (text::nodes_of(&person.reach)) }
            dt { "Signed in by" } dd { (text::plain(&person.by.shown())) @if let Some(from) = person.from { " from " code { (from) } } }
            dt { "Activity" } dd { a href=(super::address("/activity", &[("who", &person.user)])) { "What you did" } }
        }
        @if matches!(person.by, By::Session(_)) {
            h2 #password { "Your password" }
            form.review method="post" action="/settings/password" {
                label { "The one you have" input name="current" type="password" required autocomplete="current-password"; }
                label { "The new one" input name="password" type="password" required minlength="10" maxlength="1024" autocomplete="new-password"; }
                button.act type="submit" { "Change it" }
                span.note { "At least ten characters. You are signed out everywhere, and sign in again with it." }
            }
        }
    }
}

#[derive(Deserialize)]
struct Passwords {
    current: String,
    password: String,
}

/// `POST /settings/password`.
async fn password(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Filled(Passwords { current, password }): Filled<Passwords>,
) -> Result<Response, ProblemResponse> {
    match set_own(&people, &person, current, password, "/settings/password").await {
        Ok(()) => Ok(axum::response::Redirect::to("/sign-in").into_response()),
        Err(refused) => told(&people, &person, Err(refused)).await,
    }
}

/// Roles that this person may hand on, as options.
fn role_options(person: &Person, chosen: Role) -> Markup {
    html! {
        @for role in Role::ALL.into_iter().filter(|role| person.role.covers(*role)) {
            option value=(role.as_str()) selected[role == chosen] { (role.as_str()) ": " (purpose(role)) }
        }
    }
}

/// Names of groups as people type them: with commas or spaces between them.
fn split(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split([',', '\n'])
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Reach;

    #[test]
    fn groups_are_typed_with_commas() {
        let typed: Vec<String> = split("web, db one ,,\nedge").collect();
        assert_eq!(typed, ["web", "db one", "edge"]);
    }

    #[test]
    fn nobody_is_offered_a_role_that_they_may_not_hand_on() {
        let person = Person {
            role: Role::Operator,
            reach: Reach::all(),
            ..Person::local("ann")
        };
        let shown = role_options(&person, Role::Viewer).into_string();
        assert!(
            shown.contains("value=\"operator\"") && shown.contains("value=\"viewer\" selected")
        );
        assert!(!shown.contains("value=\"admin\"") && !shown.contains("value=\"approver\""));
    }
}
