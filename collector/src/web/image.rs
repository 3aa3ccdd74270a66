//! `/images/SHA256`: one image: where it came from, where it runs, which groups must be it; and what is not as in another.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::changes::{asked, bar, mark};
use super::decision::{Said, form};
use super::form::Filled;
use super::{address, node, paging, shell, state, text, value};
use crate::access::{Person, Right};
use crate::api::images::{self as api, Changed, ImageEntry};
use crate::api::{Asked, Named};
use crate::assignments::changes::{self, ChangeFilter, ChangeView};
use crate::assignments::{self, Wanted};
use crate::clock;
use crate::door::people::People;
use crate::images;
use crate::problem::ProblemResponse;

/// Deployments of it, and other images of its name, that are named.
const LISTED: u32 = 50;
/// Differences on one page.
const ROWS: u32 = 200;
/// Hours that the form proposes for what was before: a day to roll out.
const HOURS: u32 = 24;

/// `GET /images/{sha256}`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let image = api::found(&people, &person.reach, &sha256).await?;
    let filter = ChangeFilter {
        image: Some(&sha256),
        ..ChangeFilter::default()
    };
    let deployments = changes::list(&people.app, &person.reach, filter, LISTED, now).await?;
    let versions = api::entries(&people, &person.reach, Some(&image.name), 0, LISTED).await?;
    let body = html! {
        p.crumbs { a href="/images" { "Images" } " / " a href=(address("/images", &[("name", &image.name)])) { (text::plain(&image.name)) } }
        h1 { (sentence(&image, &deployments, now)) }
        (facts(&image, now))
        (runs(&deployments, now))
        (compare(&image, &versions))
        @if person.may(Right::Request) && image.complete && image.revoked.is_none() { (assign(&image)) }
        @if person.may(Right::Publish) && image.revoked.is_none() { (revoke_form(&image)) }
    };
    let title = format!("{} {}", image.name, image.version);
    Ok(shell::page(&person, "/images", &title, &body))
}

fn named(image: &ImageEntry) -> Markup {
    html! { (text::plain(&image.name)) " " (text::plain(&image.version)) }
}

fn sentence(image: &ImageEntry, deployments: &[ChangeView], now: Timestamp) -> Markup {
    let groups = deployments.iter().filter(|change| change.holds()).count();
    html! {
        (named(image))
        @if image.revoked.is_some() { " was revoked: no node may be it." }
        @else if image.expires.is_some_and(|expires| expires <= now) { " has expired: no node may be it." }
        @else if !image.complete { " is not whole: its manifest has not been sent." }
        @else {
            " runs on " (text::counted(image.nodes, "node", "nodes")) ", "
            @if groups == 0 { "and no group must be it." } @else { "and " (groups) (if groups == 1 { " group must be it." } else { " groups must be it." }) }
        }
    }
}

fn facts(image: &ImageEntry, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            dt { "Statement" } dd { a href={ "/api/v1/evidence/" (image.sha256) } { (text::hex(&image.sha256)) } }
            dt { "Tree" } dd { @match &image.tree { Some(tree) => (text::digest(tree)), None => span.none { "none" } } ", " (text::count(image.entries)) " entries, " (text::count(image.bytes)) " bytes" }
            dt { "Epoch" } dd { (image.epoch) }
            dt { "Commit" } dd { (node::provenance(&image.source.commit, &image.source.repository)) @if !image.source.r#ref.is_empty() { span.note { (text::plain(&image.source.r#ref)) } } }
            dt { "Author" } dd { @if image.source.author.is_empty() { span.none { "not known" } } @else { (text::plain(&image.source.author)) } }
            dt { "Built" } dd { (text::age(image.created, now)) }
            dt { "Published" } dd { (text::age(image.published, now)) " by " (text::plain(&image.published_by)) }
            @if let Some(expires) = image.expires { dt { "Expires" } dd { (text::moment(expires)) } }
            @if let Some(at) = image.revoked {
                dt { "Revoked" }
                dd { (text::age(at, now)) @if let Some(by) = &image.revoked_by { " by " (text::plain(by)) } @if let Some(why) = &image.revoke_reason { span.note { (text::plain(why)) } } }
            }
        }
    }
}

fn runs(deployments: &[ChangeView], now: Timestamp) -> Markup {
    html! {
        h2 #deployments { "Deployments" }
        @if deployments.is_empty() { p.none { "It was assigned to no group yet." } } @else {
            table.changes {
                thead { tr { th scope="col" { "State" } th scope="col" { "Group" } th scope="col" { "Asked for by" } th scope="col" { "Approved by" } th scope="col" { "When" } th scope="col" { "Nodes" } } }
                tbody { @for change in deployments {
                    tr data-row=(change.id) {
                        td data-label="State" { div.cell { a href={ "/changes/" (change.id) } { (mark(change.phase)) } } }
                        td data-label="Group" { div.cell { (text::plain(&change.group)) } }
                        td data-label="Asked for by" { div.cell { (text::plain(&change.requested_by)) } }
                        td data-label="Approved by" { div.cell { (asked(change).decided(now)) } }
                        td data-label="When" { div.cell { (text::age(change.decided.unwrap_or(change.requested), now)) } }
                        td data-label="Nodes" { div.cell { @match &change.progress { Some(progress) => (bar(progress)), None => span.none { "none" } } } }
                    }
                } }
            }
        }
    }
}

fn compare(image: &ImageEntry, versions: &[ImageEntry]) -> Markup {
    let others: Vec<&ImageEntry> = versions
        .iter()
        .filter(|other| other.sha256 != image.sha256 && other.complete)
        .collect();
    html! {
        @if image.complete && !others.is_empty() {
            h2 #compare { "What changed" }
            form.filters method="get" action={ "/images/" (image.sha256) "/differences" } {
                label { "Since" select name="from" { @for other in &others { option value=(other.sha256) { (text::plain(&other.version)) } } } }
                button.act type="submit" { "Compare" }
            }
        }
    }
}

fn assign(image: &ImageEntry) -> Markup {
    html! {
        h2 #assign { "Assign it to a group" }
        form.review method="post" action={ "/images/" (image.sha256) "/assign" } {
            label { "Group" input name="group" required maxlength="64" autocomplete="off" value="default"; }
            label { "Hours that what was before stays allowed" input name="hours" type="number" min="0" max="8784" value=(HOURS) required; }
            label { "Reason" input name="reason" maxlength="1000" autocomplete="off" placeholder="what it brings, a ticket"; }
            button.act.first type="submit" { "Ask for it" }
        }
    }
}

fn revoke_form(image: &ImageEntry) -> Markup {
    html! {
        h2 #revoke { "Revoke it" }
        p { "No node may be it from then on: " (text::counted(image.nodes, "node that is", "nodes that are")) " it becomes " b { "unknown image" } " with the next statement. This cannot be taken back." }
        (form(&format!("/images/{}/revoke", image.sha256), None, "Revoke"))
    }
}

/// What the form says.
#[derive(Deserialize)]
pub(super) struct Assigning {
    group: String,
    hours: u32,
    #[serde(default)]
    reason: String,
}

/// `POST /images/{sha256}/assign`.
pub(super) async fn assign_to(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
    Filled(asking): Filled<Assigning>,
) -> Result<Redirect, ProblemResponse> {
    let wanted = Wanted {
        group: asking.group.trim().to_owned(),
        image: sha256,
        keep_previous_secs: (asking.hours > 0).then(|| u64::from(asking.hours) * 3_600),
        reason: asking.reason,
    };
    let answer = assignments::request(&people.app, wanted, &person).await?;
    Ok(Redirect::to(&format!("/changes/{}", answer.change.id)))
}

/// `POST /images/{sha256}/revoke`.
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    images::revoke(&people.app, sha256, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/images/{sha256}")))
}

/// What the page of differences takes.
#[derive(Debug, Deserialize)]
pub(super) struct Between {
    from: Digest,
    page: Option<u64>,
}

/// `GET /images/{sha256}/differences`.
pub(super) async fn differences(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
    Asked(between): Asked<Between>,
) -> Result<Markup, ProblemResponse> {
    let (from, to) = (
        api::found(&people, &person.reach, &between.from).await?,
        api::found(&people, &person.reach, &sha256).await?,
    );
    let page = between.page.unwrap_or(1).clamp(1, 100_000);
    let offset = (page - 1) * u64::from(ROWS);
    let (changed, more) = api::between(&people, &between.from, &sha256, offset, ROWS).await?;
    let count = u64::try_from(changed.len()).unwrap_or(0);
    let link = |page: u64| {
        address(
            &format!("/images/{sha256}/differences"),
            &[("from", &from.sha256), ("page", &page.to_string())],
        )
    };
    let body = html! {
        p.crumbs { a href="/images" { "Images" } " / " a href={ "/images/" (to.sha256) } { (named(&to)) } }
        h1 {
            @if changed.is_empty() && page == 1 { "Nothing changed from " (named(&from)) " to " (named(&to)) "." }
            @else { @if more || page > 1 { "More than " } (text::counted(count, "entry", "entries")) " changed from " (named(&from)) " to " (named(&to)) "." }
        }
        dl.facts {
            dt { "From commit" } dd { (node::provenance(&from.source.commit, &from.source.repository)) }
            dt { "To commit" } dd { (node::provenance(&to.source.commit, &to.source.repository)) }
        }
        @if !changed.is_empty() { h2 { "Entries" } (table(&changed)) }
        (paging::numbered(page, more, link))
    };
    let title = format!("{} {} since {}", to.name, to.version, from.version);
    Ok(shell::page(&person, "/images", &title, &body))
}

fn table(changed: &[Changed]) -> Markup {
    html! {
        table.differences {
            thead { tr { th scope="col" { "Path" } th scope="col" { "What" } } }
            tbody { @for one in changed {
                tr data-row=(one.path) {
                    td data-label="Path" { div.cell { (text::path_to_copy(&one.path)) } }
                    td data-label="What" { div.cell {
                        @match one.fields.first().map(String::as_str) {
                            Some("added") => (state::tag("added", "good")),
                            Some("removed") => (state::tag("removed", "bad")),
                            _ => span.sub { @for (at, field) in one.fields.iter().enumerate() { @if at > 0 { ", " } (text::encoded(&value::label(field))) } },
                        }
                    } }
                }
            } }
        }
    }
}
