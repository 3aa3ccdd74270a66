//! `/images`: what nodes may be, where it came from, and where it runs.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::{address, node, shell, state, text};
use crate::access::Person;
use crate::api::assignments::{self, AssignmentView};
use crate::api::images::{self, ImageEntry};
use crate::api::{Asked, Listed};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

const ROWS: u32 = 100;
/// Assignments shown; groups are few.
const ASSIGNMENTS: u32 = 200;

/// The filters, as they stand in the address.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    name: String,
    page: Option<u64>,
}

/// `GET /images`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let page = filter.page.unwrap_or(1).clamp(1, 10_000);
    let name = (!filter.name.is_empty()).then_some(filter.name.as_str());
    let before = (page - 1) * u64::from(ROWS);
    let items = images::entries(&people, &person.reach, name, before, ROWS + 1).await?;
    let listed = Listed::of(items, ROWS, |image| image.sha256.clone());
    let current: Vec<AssignmentView> = assignments::views(&people, &person.reach, 0, ASSIGNMENTS)
        .await?
        .into_iter()
        .filter(|assignment| assignment.current)
        .collect();
    let body = html! {
        h1 { (first_line(&listed, &current)) }
        @if listed.items.is_empty() { (empty()) } @else {
            (table(&listed.items, &current, now))
            @if page > 1 || listed.next.is_some() {
                p.pages {
                    @if page > 1 { a href=(address("/images", &[("name", &filter.name), ("page", &(page - 1).to_string())])) { "Newer" } }
                    @if listed.next.is_some() { a href=(address("/images", &[("name", &filter.name), ("page", &(page + 1).to_string())])) { "Older" } }
                }
            }
            (groups(&current, now))
        }
    };
    Ok(shell::page(&person, "/images", "Images", &body))
}

fn first_line(listed: &Listed<ImageEntry>, current: &[AssignmentView]) -> Markup {
    let count = u64::try_from(listed.items.len()).unwrap_or(0);
    if count == 0 {
        return html! { "No images yet." };
    }
    let groups = u64::try_from(current.len()).unwrap_or(0);
    html! {
        @if listed.next.is_some() { "More than " } (text::counted(count, "image version", "image versions")) ", assigned to "
        (if groups == 0 { "no group yet".to_owned() } else { text::counted(groups, "group", "groups") }) "."
    }
}

fn empty() -> Markup {
    html! {
        div.empty {
            p { b { "Build and publish one" } " from the root that your pipeline has just made:" }
            pre { "pristine image build dir:ROOT --name NAME --version V -o NAME.mtree.zst --key KEY\npristine image publish NAME.mtree.zst\npristine node assign --group default NAME:V" }
        }
    }
}

fn table(images: &[ImageEntry], current: &[AssignmentView], now: Timestamp) -> Markup {
    html! {
        table.images {
            thead { tr {
                th scope="col" { "Image" } th scope="col" { "Version" } th.num scope="col" { "Epoch" } th scope="col" { "Commit" } th scope="col" { "Author" }
                th.num scope="col" { "Entries" } th scope="col" { "Tree" } th scope="col" { "Published" } th scope="col" { "Runs on" }
            } }
            tbody { @for image in images { (row(image, current, now)) } }
        }
    }
}

fn row(image: &ImageEntry, current: &[AssignmentView], now: Timestamp) -> Markup {
    let groups: Vec<&str> = current
        .iter()
        .filter(|assignment| {
            assignment
                .image
                .is_some_and(|digest| digest.to_string() == image.sha256)
        })
        .map(|assignment| assignment.group.as_str())
        .collect();
    html! {
        tr data-row=(image.sha256) id={ "i" (image.sha256) } {
            td data-label="Image" { div.cell {
                a href={ "/images/" (image.sha256) } { b { (text::plain(&image.name)) } }
                @if !image.complete { " " (state::tag("manifest missing", "warn")) }
                @if image.revoked.is_some() { " " (state::tag("revoked", "bad")) }
                @if image.expires.is_some_and(|expires| expires <= now) { " " (state::tag("expired", "bad")) }
                span.sub { (text::hex(&image.sha256)) }
            } }
            td data-label="Version" { div.cell { a href={ "/images/" (image.sha256) } { (text::plain(&image.version)) } } }
            td.num data-label="Epoch" { div.cell { (image.epoch) } }
            td data-label="Commit" { div.cell { (node::provenance(&image.source.commit, &image.source.repository)) } }
            td data-label="Author" { div.cell { @if image.source.author.is_empty() { span.none { "not known" } } @else { (text::plain(&image.source.author)) } } }
            td.num data-label="Entries" { div.cell { (text::count(image.entries)) } }
            td data-label="Tree" { div.cell { @if let Some(tree) = &image.tree { (text::digest(tree)) } } }
            td data-label="Published" { div.cell { (text::age(image.published, now)) span.sub { "by " (text::plain(&image.published_by)) } } }
            td data-label="Runs on" { div.cell {
                (text::counted(image.nodes, "node", "nodes"))
                span.sub { @if groups.is_empty() { "assigned to no group" } @else { "assigned to " @for (at, group) in groups.iter().enumerate() { @if at > 0 { ", " } a href=(address("/nodes", &[("group", group)])) { (text::plain(group)) } } } }
            } }
        }
    }
}

fn groups(current: &[AssignmentView], now: Timestamp) -> Markup {
    html! {
        h2 #groups { "What each group must be" }
        @if current.is_empty() {
            p.none { "No group has an image yet: " code { "pristine node assign --group default NAME:VERSION" } "." }
        } @else {
            table.groups {
                thead { tr { th scope="col" { "Group" } th scope="col" { "Image" } th scope="col" { "Asked for by" } th scope="col" { "Approved by" } th scope="col" { "Since" } } }
                tbody { @for assignment in current {
                    tr data-row={ "g" (assignment.group) } {
                        td data-label="Group" { div.cell { a href=(address("/nodes", &[("group", &assignment.group)])) { (text::plain(&assignment.group)) } } }
                        td data-label="Image" { div.cell { (text::plain(assignment.name.as_deref().unwrap_or("not here"))) " " (text::plain(assignment.version.as_deref().unwrap_or(""))) } }
                        td data-label="Asked for by" { div.cell { (text::plain(&assignment.requested_by)) } }
                        td data-label="Approved by" { div.cell { (text::plain(&assignment.approved_by)) @if assignment.approved_by == assignment.requested_by { " " (state::tag("same person", "warn")) } } }
                        td data-label="Since" { div.cell { @match &assignment.change { Some(change) => a href={ "/changes/" (change) } { (text::age(assignment.from, now)) }, None => (text::age(assignment.from, now)) } } }
                    }
                } }
            }
        }
    }
}
