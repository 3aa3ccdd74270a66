//! Tokens on the settings page.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::{once, role_options, split, told};
use crate::access::tokens::{self, TokenView};
use crate::access::{Person, Right, Role};
use crate::api::Named;
use crate::api::tokens as api;
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::web::form::Filled;
use crate::web::text;

/// Tokens looked at; older ones are in the API.
const LISTED: u32 = 500;
const DAY_SECS: u64 = 86_400;
const HOUR_SECS: u64 = 3_600;

pub(super) async fn section(people: &People, person: &Person) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let all = tokens::list(&people.app.store, person, None, LISTED).await?;
    let (good, ended): (Vec<&TokenView>, Vec<&TokenView>) =
        all.iter().partition(|token| is_good(token, now));
    Ok(html! {
        h2 #tokens { "Tokens" @if !ended.is_empty() { small { (ended.len()) " that ended are not shown" } } }
        @if good.is_empty() { p.none { "No token is good now." } } @else { (table(&good, now)) }
        h2 #new-token { "Make an API token" small { "for a program that acts for you" } }
        form.review method="post" action="/settings/tokens" {
            label { "What for" input name="label" required maxlength="200" autocomplete="off" placeholder="grafana, the pipeline of web"; }
            label { "Role" select name="role" { (role_options(person, Role::Viewer)) } }
            label { "Only these groups" input name="groups" autocomplete="off" spellcheck="false" placeholder="as far as you reach"; }
            label { "Days" input name="days" type="number" min="1" max="366" value="90" required; }
            button.act.first type="submit" { "Make it" }
        }
        @if person.may(Right::Steward) {
            h2 #join { "Make a join token" small { "machines enrol with it" } }
            form.review method="post" action="/settings/join-tokens" {
                label { "Group" input name="group" value=(person.reach.groups().next().unwrap_or("default")) required maxlength="253" autocomplete="off" spellcheck="false"; }
                label { "How many machines" input name="uses" type="number" min="1" max="100000" value="1" required; }
                label { "Hours" input name="hours" type="number" min="1" max="8784" value="24" required; }
                button.act.first type="submit" { "Make it" }
            }
        }
    })
}

fn is_good(token: &TokenView, now: Timestamp) -> bool {
    token.revoked.is_none()
        && token.expires.is_none_or(|end| end > now)
        && token.uses_left.is_none_or(|left| left > 0)
}

fn table(tokens: &[&TokenView], now: Timestamp) -> Markup {
    html! {
        table.tokens {
            thead { tr { th scope="col" { "Token" } th scope="col" { "May" } th scope="col" { "Of" } th scope="col" { "Made" } th scope="col" { "Good until" } th scope="col" { "End it" } } }
            tbody { @for token in tokens {
                tr data-row=(token.id) {
                    td data-label="Token" { div.cell {
                        @if token.label.is_empty() { (token.kind) " token" } @else { (text::plain(&token.label)) }
                        span.sub { (text::digits(&token.id)) (text::copy(&token.id, "id")) }
                    } }
                    td data-label="May" { div.cell { (may(token)) } }
                    td data-label="Of" { div.cell { (text::plain(&token.user)) } }
                    td data-label="Made" { div.cell { (text::age(token.created, now)) } }
                    td data-label="Good until" { div.cell { @match token.expires { Some(end) => (text::moment(end)), None => "it is revoked" } } }
                    td data-label="End it" { div.cell {
                        form method="post" action={ "/settings/tokens/" (token.id) "/revoke" } {
                            button.act type="submit" aria-label={ "Revoke the token " (token.label) " " (token.id) } { "Revoke" }
                        }
                    } }
                }
            } }
        }
    }
}

fn may(token: &TokenView) -> Markup {
    html! {
        @match (&token.role, &token.group) {
            (Some(role), _) => {
                (role.as_str())
                span.sub { "for " @if let Some(reach) = &token.groups { (text::nodes_of(reach)) } }
            }
            (None, Some(group)) => {
                "join the group " (text::plain(group))
                span.sub { (text::counted(u64::try_from(token.uses_left.unwrap_or(0)).unwrap_or(0), "use", "uses")) " left" }
            }
            (None, None) => span.none { "nothing" },
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    label: String,
    role: Role,
    #[serde(default)]
    groups: String,
    days: u64,
}

/// `POST /settings/tokens`.
pub(super) async fn create(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Filled(wanted): Filled<Wanted>,
) -> Result<Response, ProblemResponse> {
    let life = wanted.days.saturating_mul(DAY_SECS);
    let named = split(&wanted.groups);
    let (role, label) = (wanted.role, wanted.label.clone());
    let made = api::api(&people, &person, role, named, label, Some(life)).await;
    let outcome = made.map(|issued| {
        let what = format!("The API token for {}.", wanted.label);
        once(&what, &issued.written)
    });
    told(&people, &person, outcome).await
}

#[derive(Deserialize)]
pub(super) struct WantedJoin {
    group: String,
    uses: u32,
    hours: u64,
}

/// `POST /settings/join-tokens`: the line for the machines, once.
pub(super) async fn create_join(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Filled(WantedJoin { group, uses, hours }): Filled<WantedJoin>,
) -> Result<Response, ProblemResponse> {
    let life = hours.saturating_mul(HOUR_SECS);
    let made = api::join(&people, &person, &group, uses, life).await;
    let outcome = made.map(|made| {
        let line = format!("pristine-agent enroll --token {}", made.token);
        once("Run this on each machine that joins.", &line)
    });
    told(&people, &person, outcome).await
}

/// `POST /settings/tokens/{id}/revoke`.
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Response, ProblemResponse> {
    let revoked = tokens::revoke(&people.app.store, &person, &id).await;
    let outcome = revoked
        .map(|()| html! { p.lead role="status" { "The token " code { (text::plain(&id)) } " is revoked." } })
        .map_err(ProblemResponse::from);
    told(&people, &person, outcome).await
}
