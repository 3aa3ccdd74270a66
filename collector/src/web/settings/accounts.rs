//! Accounts on the settings page.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::{once, role_options, split, told};
use crate::access::accounts::{self, Account, NewAccount};
use crate::access::{AccessError, Person, Reach, Role};
use crate::api::Named;
use crate::api::accounts::given_or_made;
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::web::form::Filled;
use crate::web::text;

pub(super) async fn section(people: &People, person: &Person) -> Result<Markup, ProblemResponse> {
    let accounts = accounts::list(&people.app.store, &person.reach).await?;
    let now = clock::now();
    Ok(html! {
        h2 #accounts { "Accounts" }
        (table(&accounts, person, now))
        h2 #new-account { "Make an account" }
        form.review method="post" action="/settings/accounts" {
            label { "Name" input name="user" required maxlength="64" pattern="[A-Za-z0-9._@\\-]+" autocomplete="off" autocapitalize="none" spellcheck="false"; }
            label { "Role" select name="role" { (role_options(person, Role::Viewer)) } }
            label { "Only these groups" input name="groups" autocomplete="off" spellcheck="false" placeholder="all, or names with commas"; }
            button.act.first type="submit" { "Make it" }
            span.note { "A password is made and shown once; its owner changes it here." }
        }
    })
}

fn table(accounts: &[Account], person: &Person, now: Timestamp) -> Markup {
    html! {
        table.accounts {
            thead { tr { th scope="col" { "Account" } th scope="col" { "Role and groups" } th scope="col" { "Password" } th scope="col" { "State" } } }
            tbody { @for account in accounts { (row(account, person, now)) } }
        }
    }
}

fn row(account: &Account, person: &Person, now: Timestamp) -> Markup {
    let at = |what: &str| format!("/settings/accounts/{}/{what}", account.user);
    let groups: Vec<&str> = account.groups.groups().collect();
    html! {
        tr data-row=(account.user) {
            td data-label="Account" { div.cell {
                b { (text::plain(&account.user)) }
                span.sub { "made " (text::age(account.created, now)) ", " a href=(crate::web::address("/activity", &[("who", &account.user)])) { "what it did" } }
            } }
            td data-label="Role" { div.cell {
                form.review method="post" action=(at("role")) {
                    label { "Role of " (text::plain(&account.user)) select name="role" { (role_options(person, account.role)) } }
                    label { "Only these groups" input name="groups" value=(groups.join(", ")) autocomplete="off" spellcheck="false" placeholder="all"; }
                    button.act type="submit" { "Save" }
                }
            } }
            td data-label="Password" { div.cell {
                form method="post" action=(at("password")) { button.act type="submit" aria-label={ "Make a new one: the password of " (account.user) } { "Make a new one" } }
            } }
            td data-label="State" { div.cell {
                @match account.disabled {
                    Some(since) => {
                        "disabled " (text::age(since, now)) " "
                        form method="post" action=(at("enable")) { button.act type="submit" aria-label={ "Enable " (account.user) } { "Enable" } }
                    }
                    None => {
                        form method="post" action=(at("disable")) { button.act type="submit" aria-label={ "Disable " (account.user) ": its sessions end and its tokens are revoked" } { "Disable" } }
                    }
                }
            } }
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    user: String,
    role: Role,
    #[serde(default)]
    groups: String,
}

/// `POST /settings/accounts`.
pub(super) async fn add(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Filled(wanted): Filled<Wanted>,
) -> Result<Response, ProblemResponse> {
    let (password, made) = given_or_made(None)?;
    let new = NewAccount {
        user: wanted.user.clone(),
        password,
        role: wanted.role,
        reach: Reach::of(split(&wanted.groups)),
    };
    let added = accounts::add(&people.app.store, &person, new).await;
    let what = format!("The password of {}.", wanted.user);
    let outcome = added
        .map(|()| once(&what, made.as_deref().unwrap_or_default()))
        .map_err(ProblemResponse::from);
    told(&people, &person, outcome).await
}

#[derive(Deserialize)]
pub(super) struct Changed {
    role: Role,
    #[serde(default)]
    groups: String,
}

/// `POST /settings/accounts/{user}/role`.
pub(super) async fn role(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
    Filled(Changed { role, groups }): Filled<Changed>,
) -> Result<Response, ProblemResponse> {
    let reach = Reach::of(split(&groups));
    let store = &people.app.store;
    let set = accounts::set_role(store, &person, &user, Some(role), Some(reach)).await;
    done(
        &people,
        &person,
        set,
        &user,
        "has the role and the groups that you chose",
    )
    .await
}

/// `POST /settings/accounts/{user}/password`.
pub(super) async fn password(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
) -> Result<Response, ProblemResponse> {
    let (password, made) = given_or_made(None)?;
    let set = accounts::set_password(&people.app.store, &person, &user, password).await;
    let what = format!("The new password of {user}; its sessions have ended.");
    let outcome = set
        .map(|()| once(&what, made.as_deref().unwrap_or_default()))
        .map_err(ProblemResponse::from);
    told(&people, &person, outcome).await
}

/// `POST /settings/accounts/{user}/disable`.
pub(super) async fn disable(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
) -> Result<Response, ProblemResponse> {
    let set = accounts::disable(&people.app.store, &person, &user).await;
    let how = "is disabled: its sessions have ended and its tokens are revoked";
    done(&people, &person, set, &user, how).await
}

/// `POST /settings/accounts/{user}/enable`.
pub(super) async fn enable(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(user): Named<String>,
) -> Result<Response, ProblemResponse> {
    let set = accounts::enable(&people.app.store, &person, &user).await;
    done(&people, &person, set, &user, "may sign in again").await
}

async fn done(
    people: &People,
    person: &Person,
    set: Result<(), AccessError>,
    user: &str,
    how: &str,
) -> Result<Response, ProblemResponse> {
    let outcome = set
        .map(|()| html! { p.lead role="status" { b { (text::plain(user)) } " " (how) "." } })
        .map_err(ProblemResponse::from);
    told(people, person, outcome).await
}
