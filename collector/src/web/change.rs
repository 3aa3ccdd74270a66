//! `/changes/ID`: one deployment: what, who asked, who approved, which nodes have it and which do not yet.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::changes::{asked, author, bar, mark, named, of, rule};
use super::decision::Said;
use super::form::Filled;
use super::{address, node, paging, shell, state, text};
use crate::access::Person;
use crate::api::changes::found;
use crate::api::{Asked, Named};
use crate::approvals::{Approvals, Ending};
use crate::assignments;
use crate::assignments::changes::{self, ChangeView, NodeStand};
use crate::assignments::rollout::{Phase, Progress, Stand};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// Nodes on one page of a change.
const NODES: u32 = 100;

/// What the page of one change takes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    with: Option<u64>,
    #[serde(default)]
    without: Option<u64>,
}

/// `GET /changes/{id}`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Asked(shown): Asked<Shown>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let change = found(&people, &id).await?;
    let (with, without) = (
        Pages::of(&people, &change, true, shown.with).await?,
        Pages::of(&people, &change, false, shown.without).await?,
    );
    let body = html! {
        p.crumbs { a href="/changes" { "Changes" } " / " a href=(address("/changes", &[("group", &change.group)])) { (text::plain(&change.group)) } }
        h1 { (sentence(&change)) }
        p.lead { (mark(change.phase)) (window(&change, now)) }
        @if let Some(progress) = &change.progress { (bar(progress)) (breakdown(progress, change.phase)) }
        div.cols {
            div { h2 #what { "What" } (what(&change)) }
            div { h2 #who { "Who" } (who(&change, now)) }
        }
        (answer(&change, &person, people.app.settings.approvals))
        @if change.holds() {
            h2 #without { "Not yet" small { (text::count(change.progress.map_or(0, |it| it.nodes.saturating_sub(it.new)))) } }
            (nodes(&without, &id, "without", now))
            h2 #with { "Have it" small { (text::count(change.progress.map_or(0, |it| it.new))) } }
            (nodes(&with, &id, "with", now))
        }
    };
    let title = format!(
        "{} {} on {}",
        change.image.name, change.image.version, change.group
    );
    let here = format!("/changes/{id}");
    let live = shell::live("change", &here, &["change", "verdict", "node"], &body);
    Ok(shell::page(&person, "/changes", &title, &live))
}

fn sentence(change: &ChangeView) -> Markup {
    let group = html! { (text::plain(&change.group)) };
    html! {
        @match change.phase {
            Phase::Waiting => { (group) " is to be " (named(change)) "." }
            Phase::Refused => { (group) " was not to become " (named(change)) "." }
            Phase::Withdrawn => { "The request that " (group) " become " (named(change)) " was withdrawn." }
            Phase::RollingOut => { (named(change)) " is on " (of(change)) " of " (group) "." }
            Phase::Overdue => { (named(change)) " is on " (of(change)) " of " (group) " only, and the time for it is over." }
            Phase::Done => {
                "Every node of " (group) " has " (named(change))
                @if let Some(progress) = change.progress.filter(|progress| progress.differing > 0) { ", and something differs on " (text::count(progress.differing)) " of them" }
                "."
            }
            Phase::Superseded => { (group) " was to be " (named(change)) "; another change took over." }
        }
    }
}

fn window(change: &ChangeView, now: Timestamp) -> Markup {
    html! {
        @if let Some(at) = change.superseded { ", since " (text::moment(at)) "." }
        @else if let Some(until) = change.until {
            @if until > now { ". What was before stays allowed until " (text::moment(until)) "." }
            @else { ". What was before is allowed no more since " (text::moment(until)) "." }
        }
        @else if change.holds() { ". What was before is allowed no more." }
        @else { "." }
    }
}

fn breakdown(progress: &Progress, phase: Phase) -> Markup {
    let parts = [
        (
            progress.differing,
            "on the new image, but something differs",
        ),
        (progress.old, "still on what was before"),
        (progress.neither, "on another image, or not heard of yet"),
    ];
    html! {
        @if phase != Phase::Superseded && progress.new < progress.nodes {
            p.note { @for (at, (count, told)) in parts.iter().filter(|(count, _)| *count > 0).enumerate() { @if at > 0 { "; " } (text::count(*count)) " " (told) } "." }
        }
    }
}

fn what(change: &ChangeView) -> Markup {
    html! {
        dl.facts {
            dt { "Image" } dd { a href={ "/images/" (change.image.sha256) } { (named(change)) } " " (text::hex(&change.image.sha256)) ", epoch " (change.epoch) }
            dt { "Commit" } dd { (node::provenance(&change.image.commit, &change.image.repository)) }
            dt { "Author" } dd { (author(change)) }
            dt { "Before" } dd { @match &change.previous {
                Some(previous) => {
                    a href={ "/images/" (previous.sha256) } { (text::plain(&previous.name)) " " (text::plain(&previous.version)) }
                    @if previous.sha256 != change.image.sha256 { span.note { a href=(address(&format!("/images/{}/differences", change.image.sha256), &[("from", &previous.sha256)])) { "What changed between them" } } }
                }
                None => span.none { "nothing: the group had no image" },
            } }
            @if let Some(assignment) = &change.assignment { dt { "Signed as" } dd { a href={ "/api/v1/evidence/" (assignment) } { (text::digest(assignment)) } } }
        }
    }
}

fn who(change: &ChangeView, now: Timestamp) -> Markup {
    let word = match change.phase {
        Phase::Refused => "Refused by",
        Phase::Withdrawn => "Withdrawn by",
        _ => "Approved by",
    };
    html! { dl.facts { (asked(change).facts(&change.reason, word, now)) } }
}

/// What this person may say of a change that waits.
fn answer(change: &ChangeView, person: &Person, approvals: Approvals) -> Markup {
    if !change.waits() {
        return Markup::default();
    }
    asked(change).answer(
        &format!("/changes/{}", change.id),
        person,
        "Approving makes it hold at once: the nodes of the group hear of it with their next contact.",
        Some(rule(approvals)),
    )
}

/// One page of a change's nodes.
struct Pages {
    items: Vec<NodeStand>,
    page: u64,
    more: bool,
}

impl Pages {
    async fn of(
        people: &People,
        change: &ChangeView,
        has: bool,
        page: Option<u64>,
    ) -> Result<Self, ProblemResponse> {
        let page = page.unwrap_or(1).clamp(1, 10_000);
        let offset = (page - 1) * u64::from(NODES);
        let mut items = if change.holds() {
            changes::nodes(&people.app, change, has, offset, NODES + 1).await?
        } else {
            Vec::new()
        };
        let most = usize::try_from(NODES).unwrap_or(usize::MAX);
        let more = items.len() > most;
        items.truncate(most);
        Ok(Self { items, page, more })
    }
}

fn nodes(pages: &Pages, id: &str, word: &str, now: Timestamp) -> Markup {
    let to = |page: u64| address(&format!("/changes/{id}"), &[(word, &page.to_string())]);
    html! {
        @if pages.items.is_empty() { p.none { "None." } } @else {
            table.nodes {
                thead { tr { th scope="col" { "Name" } th scope="col" { "Stands" } th scope="col" { "Attests" } th scope="col" { "Since" } th scope="col" { "Last attested" } } }
                tbody { @for node in &pages.items { (stands(node, now)) } }
            }
            (paging::numbered(pages.page, pages.more, to))
        }
    }
}

fn stands(node: &NodeStand, now: Timestamp) -> Markup {
    let (word, tone) = match node.stand {
        Stand::New => ("has it", "good"),
        Stand::Differing => ("has it, but differs", "bad"),
        Stand::Old => ("still the one before", "warn"),
        Stand::Neither => ("neither", "quiet"),
    };
    html! {
        tr data-row={ (node.node) "-" (word) } {
            td data-label="Name" { div.cell { a href={ "/nodes/" (node.node) } { (text::plain(&node.name)) } } }
            td data-label="Stands" { div.cell { (state::tag(word, tone)) } }
            td data-label="Attests" { div.cell { @match &node.image { Some(image) => { (text::plain(&image.name)) " " (text::plain(&image.version)) } None => span.none { "no image yet" } } } }
            td data-label="Since" { div.cell { @match node.since { Some(at) => (text::age(at, now)), None => span.none { "not known" } } } }
            td data-label="Last attested" { div.cell { @match node.last_attested { Some(at) => (text::age(at, now)), None => span.none { "never" } } } }
        }
    }
}

/// `POST /changes/{id}/approve`.
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    assignments::approve(&people.app, &id, Some(&said.reason), &person).await?;
    Ok(Redirect::to(&format!("/changes/{id}")))
}

/// `POST /changes/{id}/refuse`.
pub(super) async fn refuse(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    assignments::end(&people.app, &id, Ending::Refuse, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/changes/{id}")))
}

/// `POST /changes/{id}/withdraw`.
pub(super) async fn withdraw(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    assignments::end(&people.app, &id, Ending::Withdraw, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/changes/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_by_its_kind() {
        let progress = Progress {
            nodes: 20,
            new: 14,
            differing: 1,
            old: 5,
            neither: 0,
        };
        let told = breakdown(&progress, Phase::RollingOut).into_string();
        assert!(
            told.contains("5 still on what was before") && !told.contains("another image"),
            "{told}"
        );
        assert_eq!(breakdown(&progress, Phase::Superseded).into_string(), "");
    }
}
