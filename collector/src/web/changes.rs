//! `/changes`: every deployment, with who asked, who approved, and how far it has come.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::decision::Request;
use super::{address, node, paging, shell, state, text};
use crate::access::Person;
use crate::api::{Asked, Listed};
use crate::approvals::Approvals;
use crate::assignments::changes::{self, ChangeFilter, ChangeView};
use crate::assignments::rollout::{Phase, Progress};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

const ROWS: u32 = 50;
/// Requests that wait: one a group.
const WAITING: u32 = 100;

/// The filters, as they stand in the address.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    group: String,
    #[serde(default)]
    after: String,
}

/// `GET /changes`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (group, after) = (some(&filter.group), some(&filter.after));
    let of_group = ChangeFilter {
        group: group.as_deref(),
        ..ChangeFilter::default()
    };
    let waits = ChangeFilter {
        waiting: Some(true),
        ..of_group
    };
    let waiting = changes::list(&people.app, &person.reach, waits, WAITING, now).await?;
    let rest = ChangeFilter {
        waiting: Some(false),
        before: after.as_deref(),
        ..of_group
    };
    let items = changes::list(&people.app, &person.reach, rest, ROWS + 1, now).await?;
    let listed = Listed::of(items, ROWS, |change| change.id.clone());
    let here = |after: &str| address("/changes", &[("group", &filter.group), ("after", after)]);
    let newest = (!filter.after.is_empty()).then(|| here(""));
    let older = listed.next.as_deref().map(here);
    let body = html! {
        h1 { (first_line(&waiting, &listed.items)) }
        p.lead { (rule(people.app.settings.approvals)) }
        @if !filter.group.is_empty() { p.pages { "Only the group " b { (text::plain(&filter.group)) } a href="/changes" { "All groups" } } }
        @if waiting.is_empty() && listed.items.is_empty() { (empty()) }
        @if !waiting.is_empty() {
            h2 #waiting { "Waits for another person" }
            ol.causes { @for change in &waiting { (waits_line(change, now)) } }
        }
        @if !listed.items.is_empty() {
            h2 #history { "Deployments" }
            (table(&listed.items, now))
            (paging::older(newest.as_deref(), older.as_deref()))
        }
    };
    let live = shell::live(
        "changes",
        &here(&filter.after),
        &["change", "verdict", "node"],
        &body,
    );
    Ok(shell::page(&person, "/changes", "Changes", &live))
}

fn first_line(waiting: &[ChangeView], changes: &[ChangeView]) -> Markup {
    let running: Vec<&ChangeView> = changes
        .iter()
        .filter(|change| matches!(change.phase, Phase::RollingOut | Phase::Overdue))
        .collect();
    let (waits, runs) = (whole(waiting.len()), whole(running.len()));
    html! {
        @match (&running[..], waits) {
            ([], 0) => { @if changes.is_empty() { "Nothing was deployed yet." } @else { "No rollout is under way." } }
            ([], waits) => { (text::counted(waits, "change waits", "changes wait")) " for another person." }
            ([one], _) => { "One rollout is under way: " (text::plain(&one.group)) " has " (named(one)) " on " (of(one)) "." }
            _ => { (text::count(runs)) " rollouts are under way." }
        }
    }
}

fn whole(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(super) fn named(change: &ChangeView) -> Markup {
    html! { (text::plain(&change.image.name)) " " (text::plain(&change.image.version)) }
}

pub(super) fn of(change: &ChangeView) -> String {
    let progress = change.progress.unwrap_or_default();
    format!(
        "{} of {}",
        text::count(progress.new),
        text::counted(progress.nodes, "node", "nodes")
    )
}

/// Who must say yes, as it is configured.
pub(super) const fn rule(approvals: Approvals) -> &'static str {
    match approvals {
        Approvals::One => {
            "One person is enough here: who may approve may approve what they asked for themselves, and it is shown so."
        }
        Approvals::Two => {
            "What one person asks for another approves. While only one enabled account may approve, that person’s own word is enough, \
             and it is shown so."
        }
        Approvals::AlwaysTwo => "What one person asks for another approves, always.",
    }
}

fn empty() -> Markup {
    html! {
        div.empty {
            p { b { "Assign an image to a group" } ": its nodes are compared with it from then on." }
            pre { "pristine image publish NAME.mtree.zst\npristine node assign --group GROUP NAME:VERSION --keep-previous 24h" }
        }
    }
}

fn waits_line(change: &ChangeView, now: Timestamp) -> Markup {
    html! {
        li data-row=(change.id) {
            (state::state("pending"))
            span.say {
                a href={ "/changes/" (change.id) } { (text::plain(&change.group)) " is to be " (named(change)) }
                span.note { "Asked for by " (text::plain(&change.requested_by)) " " (text::age(change.requested, now)) @if !change.reason.is_empty() { ": " (text::plain(&change.reason)) } }
            }
            a.act href={ "/changes/" (change.id) } { "Look at it" }
        }
    }
}

/// Where a change stands: a word with its mark.
pub(super) fn mark(phase: Phase) -> Markup {
    let (shape, tone) = match phase {
        Phase::Done => ("pristine", "good"),
        Phase::RollingOut => ("incomplete", "warn"),
        Phase::Overdue => ("drifted", "bad"),
        Phase::Refused => ("lost", "bad"),
        Phase::Waiting | Phase::Withdrawn | Phase::Superseded => ("pending", "quiet"),
    };
    html! { span class={ "state " (tone) } { (state::shape(shape)) (phase.as_str().replace('-', " ")) } }
}

/// How many nodes have it, as a bar with its numbers.
pub(super) fn bar(progress: &Progress) -> Markup {
    html! {
        span.progress {
            progress max=(progress.nodes.max(1)) value=(progress.new) aria-label="nodes that have it" { (progress.new) " of " (progress.nodes) }
            span { (text::count(progress.new)) " of " (text::counted(progress.nodes, "node", "nodes")) }
        }
    }
}

fn table(changes: &[ChangeView], now: Timestamp) -> Markup {
    html! {
        table.changes {
            thead { tr {
                th scope="col" { "State" } th scope="col" { "Group" } th scope="col" { "Image" } th scope="col" { "Commit" } th scope="col" { "Author" }
                th scope="col" { "Asked for by" } th scope="col" { "Approved by" } th scope="col" { "Nodes" }
            } }
            tbody { @for change in changes { (row(change, now)) } }
        }
    }
}

fn row(change: &ChangeView, now: Timestamp) -> Markup {
    html! {
        tr data-row={ (change.id) "-" (change.phase.as_str()) } id={ "c" (change.id) } {
            td data-label="State" { div.cell { (mark(change.phase)) } }
            td data-label="Group" { div.cell { a href=(address("/changes", &[("group", &change.group)])) { (text::plain(&change.group)) } } }
            td data-label="Image" { div.cell { a href={ "/changes/" (change.id) } { b { (named(change)) } } @if let Some(previous) = &change.previous { span.sub { "was " (text::plain(&previous.name)) " " (text::plain(&previous.version)) } } } }
            td data-label="Commit" { div.cell { (node::provenance(&change.image.commit, &change.image.repository)) } }
            td data-label="Author" { div.cell { (author(change)) } }
            td data-label="Asked for by" { div.cell { (text::plain(&change.requested_by)) span.sub { (text::age(change.requested, now)) } } }
            td data-label="Approved by" { div.cell { (asked(change).decided(now)) } }
            td data-label="Nodes" { div.cell { @match &change.progress { Some(progress) => (bar(progress)), None => span.none { "none" } } } }
        }
    }
}

pub(super) fn author(change: &ChangeView) -> Markup {
    html! { @if change.image.author.is_empty() { span.none { "not known" } } @else { (text::plain(&change.image.author)) } }
}

/// Who asked for a change, and who decided.
pub(super) fn asked(change: &ChangeView) -> Request<'_> {
    let ended = matches!(change.phase, Phase::Refused | Phase::Withdrawn);
    Request {
        by: &change.requested_by,
        at: change.requested,
        decided: change.decided_by.as_deref().zip(change.decided),
        said: change.decision.as_deref(),
        same_person: change.is_self_approved(),
        ended: ended.then(|| change.phase.as_str()),
    }
}

/// The rollouts under way, one line each, for the overview.
pub(super) async fn under_way(
    people: &People,
    person: &Person,
    now: Timestamp,
) -> Result<Markup, ProblemResponse> {
    let filter = ChangeFilter {
        holding: true,
        ..ChangeFilter::default()
    };
    let held = changes::list(&people.app, &person.reach, filter, WAITING, now).await?;
    let running: Vec<ChangeView> = held
        .into_iter()
        .filter(|change| matches!(change.phase, Phase::RollingOut | Phase::Overdue))
        .collect();
    let waits = ChangeFilter {
        waiting: Some(true),
        ..ChangeFilter::default()
    };
    let waiting = changes::list(&people.app, &person.reach, waits, WAITING, now).await?;
    Ok(html! {
        @if !(running.is_empty() && waiting.is_empty()) {
            h2 #rollouts { "Rollouts" }
            ol.causes {
                @for change in &waiting { (waits_line(change, now)) }
                @for change in &running {
                    li data-row={ "rollout-" (change.id) } {
                        (mark(change.phase))
                        span.say { a href={ "/changes/" (change.id) } { (text::plain(&change.group)) " becomes " (named(change)) } @if let Some(progress) = &change.progress { (bar(progress)) } }
                        a.act href={ "/changes/" (change.id) } { "Watch it" }
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_a_word_a_shape_and_a_tone() {
        for phase in [
            Phase::Waiting,
            Phase::Refused,
            Phase::Withdrawn,
            Phase::RollingOut,
            Phase::Overdue,
            Phase::Done,
            Phase::Superseded,
        ] {
            let shown = mark(phase).into_string();
            let word = phase.as_str().replace('-', " ");
            assert!(shown.contains("<svg") && shown.contains(&word), "{shown}");
        }
    }

    #[test]
    fn a_bar_says_in_words_what_it_shows() {
        let progress = Progress {
            nodes: 20,
            new: 14,
            differing: 1,
            old: 5,
            neither: 0,
        };
        let shown = bar(&progress).into_string();
        assert!(
            shown.contains("max=\"20\"") && shown.contains("14 of 20 nodes"),
            "{shown}"
        );
    }
}
