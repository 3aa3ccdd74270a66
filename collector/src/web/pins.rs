//! `/nodes/ID/pins`: what a node keeps to itself, line by line, and whether a person has looked at it.

use attestation::digest::Digest;
use attestation::scope::Expect;
use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Filled;
use super::{address, shell, state, text, value};
use crate::access::Person;
use crate::access::roles::{Right, Role};
use crate::api::reads::{self, NodeFacts};
use crate::api::{Asked, Named};
use crate::clock;
use crate::door::people::People;
use crate::pins::{self, PinView};
use crate::problem::ProblemResponse;

/// Lines on one page.
const PAGE: u32 = 200;

#[derive(Deserialize)]
pub(super) struct Query {
    /// Only those that wait for a person.
    #[serde(default)]
    waiting: String,
    /// The path that the page before ended with.
    #[serde(default)]
    after: String,
}

/// `GET /nodes/{id}/pins`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Asked(query): Asked<Query>,
) -> Result<Markup, ProblemResponse> {
    let node = reads::node(&people.app, &id).await?.ok_or_else(|| {
        ProblemResponse::not_found("no node has this id; it may never have enrolled here")
    })?;
    let waiting = !query.waiting.is_empty();
    let after = Some(query.after.as_str()).filter(|after| !after.is_empty());
    let mut lines = pins::list(&people.app, &node.row, waiting, after, PAGE + 1).await?;
    let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = (lines.len() > most).then(|| {
        lines.truncate(most);
        lines
            .last()
            .map(|line| line.path.clone())
            .unwrap_or_default()
    });
    let here = format!("/nodes/{id}/pins");
    let body = html! {
        p.crumbs { a href="/nodes" { "Nodes" } " / " a href={ "/nodes/" (id) } { (text::plain(&node.row.name)) } }
        h1 { (first_line(&node)) }
        p.lead { "Pins are what is this node’s own: pinned as first found, and held to that. A " b { "local" } " path may not change, a " b { "growing" }
            " one may only get longer. Whether the first finding was good no image can say: a person looks once." }
        (review(&node, person.role))
        p.pages {
            @if waiting { a href=(here) { "All " (node.pins.entries) " lines" } } @else if node.pins.unreviewed > 0 { a href=(address(&here, &[("waiting", "1")])) { "Only the " (node.pins.unreviewed) " that wait" } }
        }
        (table(&lines, clock::now()))
        @if let Some(next) = next { p.pages { a href=(address(&here, &[("waiting", query.waiting.as_str()), ("after", next.as_str())])) { "Next page" } } }
    };
    let live = shell::live(
        "pins",
        &address(
            &here,
            &[
                ("waiting", query.waiting.as_str()),
                ("after", query.after.as_str()),
            ],
        ),
        &["node"],
        &body,
    );
    let title = format!("Pins of {}", node.row.name);
    Ok(shell::page(&person, "/nodes", &title, &live))
}

fn first_line(node: &NodeFacts) -> Markup {
    let (entries, waiting) = (node.pins.entries, node.pins.unreviewed);
    html! {
        (text::plain(&node.row.name))
        @if entries == 0 { " has pinned nothing." } @else {
            " has pinned " (text::counted(entries, "line", "lines")) ": "
            @if waiting == 0 { "all reviewed." } @else { (text::count(waiting)) " " @if waiting == 1 { "waits" } @else { "wait" } " for a person." }
        }
    }
}

fn review(node: &NodeFacts, role: Role) -> Markup {
    if node.pins.unreviewed == 0 {
        return Markup::default();
    }
    let Some(seen) = &node.pins.sha256 else {
        return Markup::default();
    };
    html! {
        @if !role.may(Right::Respond) { p.soft { "An operator may mark them as reviewed." } } @else {
            form.review method="post" action={ "/nodes/" (node.row.id) "/pins/review" } {
                input type="hidden" name="pins" value=(seen);
                button.act.first type="submit" { "Accept all " (node.pins.unreviewed) " as reviewed" }
            }
            p.note { "This says that you have looked at the lines as they now are. Your name is kept in the activity log; what changes after this waits again." }
        }
    }
}

fn table(lines: &[PinView], now: Timestamp) -> Markup {
    if lines.is_empty() {
        return html! { p.none { "No line here. The image’s scope names no local or growing path that exists, or the node has not sent its lines yet." } };
    }
    html! {
        table.pins {
            thead { tr { th scope="col" { "Path" } th scope="col" { "Kind" } th scope="col" { "Pinned line" } th scope="col" { "First seen" } th scope="col" { "Reviewed" } } }
            tbody { @for line in lines {
                tr data-row=(line.path) {
                    td data-label="Path" { div.cell { (text::path_to_copy(&line.path)) } }
                    td data-label="Kind" { div.cell { (kind(line.expect)) } }
                    td data-label="Pinned line" { div.cell { (facts(line)) } }
                    td data-label="First seen" { div.cell { (text::age(line.first, now)) @if line.changed != line.first { span.note { "changed " (text::age(line.changed, now)) } } } }
                    td data-label="Reviewed" { div.cell {
                        @match (line.reviewed, &line.reviewed_by) {
                            (Some(at), Some(by)) => { (text::age(at, now)) span.note { "by " (text::plain(by)) } }
                            (Some(at), None) => (text::age(at, now)),
                            (None, _) => (state::tag("unreviewed", "warn")),
                        }
                    } }
                }
            } }
        }
    }
}

fn kind(expect: Option<Expect>) -> &'static str {
    match expect {
        Some(Expect::Local) => "local",
        Some(Expect::Growing) => "growing",
        Some(Expect::Sealed | Expect::Ignored) | None => "not known",
    }
}

/// The line without its path, and what it was where nothing explains the change.
fn facts(line: &PinView) -> Markup {
    let keywords = |text: &str| {
        let rest = text.split_once(' ').map_or("", |(_, rest)| rest).to_owned();
        html! { span.mono { @for word in rest.split(' ') { (word_of(word)) " " } } }
    };
    html! {
        (keywords(&line.line))
        @if let Some(was) = &line.was { span.note { span.bad { "was " } (keywords(was)) " · neither growth nor a person explains the change" } }
    }
}

fn word_of(word: &str) -> Markup {
    match word.split_once('=') {
        Some(("sha256digest", digest)) => html! { "sha256digest=" (text::hex(digest)) },
        Some(("mode", mode)) => match u16::from_str_radix(mode, 8) {
            Ok(bits) => html! { "mode=" (value::mode(bits)) },
            Err(_) => text::encoded(word),
        },
        _ => text::encoded(word),
    }
}

#[derive(Deserialize)]
pub(super) struct Said {
    pins: Digest,
}

/// `POST /nodes/{id}/pins/review`.
pub(super) async fn review_all(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    pins::mark_reviewed(&people.app, &id, None, Some(said.pins), &person).await?;
    Ok(Redirect::to(&format!("/nodes/{id}/pins")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(reviewed: bool) -> PinView {
        let at = Timestamp::from_micros(1_000_000);
        PinView {
            path: "./etc/<b>\\040name".to_owned(),
            expect: Some(Expect::Local),
            line: "./etc/<b>\\040name type=file mode=4755 uid=0 gid=0 size=1 sha256digest=00"
                .to_owned(),
            was: (!reviewed).then(|| "./etc/x type=fifo mode=0600 uid=0 gid=0".to_owned()),
            first: at,
            changed: at,
            reviewed: reviewed.then_some(at),
            reviewed_by: reviewed.then(|| "ada".to_owned()),
        }
    }

    #[test]
    fn hostile_names_stay_text_and_what_waits_says_so() {
        let now = Timestamp::from_micros(2_000_000);
        let shown = table(&[line(false)], now).into_string();
        assert!(
            shown.contains("unreviewed") && shown.contains("type=fifo"),
            "{shown}"
        );
        assert!(!shown.contains("<b>\\040"), "{shown}");
        let seen = table(&[line(true)], now).into_string();
        assert!(
            seen.contains("by ada") && !seen.contains("unreviewed"),
            "{seen}"
        );
    }
}
