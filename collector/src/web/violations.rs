//! `/violations`: what a person must judge, and what was judged.

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::{address, paging, sentence, shell, state, text};
use crate::access::Person;
use crate::api::reads::{self, ViolationFilter};
use crate::api::{Asked, Listed};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::violations::view::{Kind, Severity, ViolationView};
use attestation::time::Timestamp;

const ROWS: u32 = 100;

/// The filters, as they stand in the address.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    q: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    after: String,
}

impl Filter {
    fn address(&self, after: &str) -> String {
        address(
            "/violations",
            &[
                ("q", &self.q),
                ("status", &self.status),
                ("node", &self.node),
                ("kind", &self.kind),
                ("severity", &self.severity),
                ("after", after),
            ],
        )
    }
}

/// `GET /violations`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (text, node, kind, severity, after) = (
        some(filter.q.trim()),
        some(&filter.node),
        some(&filter.kind),
        some(&filter.severity),
        some(&filter.after),
    );
    let asked = ViolationFilter {
        open: match filter.status.as_str() {
            "resolved" => Some(false),
            "all" => None,
            _ => Some(true),
        },
        node: node.as_deref(),
        kind: kind.as_deref(),
        severity: severity.as_deref(),
        // People type `/etc/passwd`; it is stored as `./etc/passwd`, which contains that.
        text: text.as_deref(),
        before: after.as_deref(),
    };
    let items = reads::violations(&people.app, &person.reach, &asked, ROWS + 1).await?;
    let listed = Listed::of(items, ROWS, |item| item.id.clone());
    let of_node = match &node {
        Some(id) => reads::node(&people.app, id)
            .await?
            .filter(|node| person.reaches(&node.row.group))
            .map(|node| node.row.name),
        None => None,
    };
    let newest = (!filter.after.is_empty()).then(|| filter.address(""));
    let older = listed.next.as_deref().map(|next| filter.address(next));
    let body = html! {
        h1 { (first_line(&filter, &listed, of_node.as_deref())) }
        (form(&filter))
        @if listed.items.is_empty() { (empty(&filter)) } @else {
            (table(&listed.items, true, now))
            (paging::older(newest.as_deref(), older.as_deref()))
        }
    };
    let live = shell::live(
        "violations",
        &filter.address(&filter.after),
        &["violation"],
        &body,
    );
    Ok(shell::page(&person, "/violations", "Violations", &live))
}

fn first_line(filter: &Filter, listed: &Listed<ViolationView>, node: Option<&str>) -> Markup {
    let count = u64::try_from(listed.items.len()).unwrap_or(0);
    let more = if listed.next.is_some() {
        "More than "
    } else {
        ""
    };
    let word = match filter.status.as_str() {
        "resolved" => "resolved ",
        "all" => "",
        _ => "open ",
    };
    html! {
        @if count == 0 { "No " (word) "violations" } @else { (more) (text::count(count)) " " (word) (if count == 1 { "violation" } else { "violations" }) }
        @if let Some(name) = node { " on " (text::plain(name)) }
        "."
    }
}

fn form(filter: &Filter) -> Markup {
    let kinds = Kind::ALL;
    let severities = [
        Severity::Critical,
        Severity::High,
        Severity::Medium,
        Severity::Low,
    ];
    html! {
        form.filters method="get" action="/violations" {
            label { "Path or node" input type="search" name="q" value=(filter.q) maxlength="200"; }
            label { "Status" select name="status" {
                @for word in ["open", "resolved", "all"] { option value=(word) selected[filter.status == word] { (word) } }
            } }
            label { "Severity" select name="severity" {
                option value="" { "any" }
                @for severity in severities { option value=(severity.as_str()) selected[filter.severity == severity.as_str()] { (severity.as_str()) } }
            } }
            label { "Kind" select name="kind" {
                option value="" { "any" }
                @for kind in kinds { option value=(kind.as_str()) selected[filter.kind == kind.as_str()] { (kind.as_str().replace('-', " ")) } }
            } }
            @if !filter.node.is_empty() { input type="hidden" name="node" value=(filter.node); }
            button.act type="submit" { "Filter" }
            @if filter.address("") != "/violations" { a.act href="/violations" { "All open" } }
        }
    }
}

fn empty(filter: &Filter) -> Markup {
    html! {
        div.empty {
            @if filter.address("") == "/violations" {
                p { "Nothing is open. A change on a node stands here within a second, with what was expected and what was found." }
                p { a href="/violations?status=resolved" { "What was resolved" } }
            } @else { p { "No violation fits these filters. " a href="/violations" { "Show all open ones" } } }
        }
    }
}

/// Rows of violations; a node's page shows the same.
/// There, on a node's page, every row is the same node's: `nodes` says whether to name it.
pub(super) fn table(violations: &[ViolationView], nodes: bool, now: Timestamp) -> Markup {
    html! {
        table.violations {
            thead { tr {
                th scope="col" { "Severity" } th scope="col" { "What" } @if nodes { th scope="col" { "Node" } } th scope="col" { "Who" } th scope="col" { "Seen" } th scope="col" { "Status" }
            } }
            tbody { @for violation in violations { (row(violation, nodes, now)) } }
        }
    }
}

fn row(violation: &ViolationView, nodes: bool, now: Timestamp) -> Markup {
    html! {
        tr data-row=(violation.id) id={ "v" (violation.id) } {
            td data-label="Severity" { div.cell { (state::state(violation.severity.as_str())) } }
            td data-label="What" { div.cell { a href={ "/violations/" (violation.id) } { (what(violation)) } (sub(violation)) } }
            @if nodes { td data-label="Node" { div.cell { a href={ "/nodes/" (violation.node) } { (text::plain(sentence::node_name(violation))) } } } }
            td data-label="Who" { div.cell {
                @if violation.actor.is_some() { (sentence::who(violation.actor.as_ref())) } @else { span.none { "not known" } }
            } }
            td data-label="Seen" { div.cell { (text::age(violation.detected, now)) } }
            td data-label="Status" { div.cell {
                @match violation.resolved { Some(at) => { (state::state("resolved")) " " span.soft { (text::age(at, now)) } @if let Some(how) = violation.resolved_as { span.sub { (how.words()) } } } None => (state::state("open")) }
            } }
        }
    }
}

fn what(violation: &ViolationView) -> Markup {
    match &violation.path {
        Some(path) => text::path(path),
        None => sentence::what(violation),
    }
}

fn sub(violation: &ViolationView) -> Markup {
    html! {
        span.sub {
            @match violation.kind {
                Kind::Difference => (sentence::fields(&violation.fields)),
                Kind::Mount => { @if let Some(mount) = &violation.mount { (text::plain(&mount.r#type)) " mounted here: " (text::plain(&mount.source)) } }
                Kind::Touched => { "changed and put back" @if let Some(count) = violation.count { ", " (text::counted(count, "write", "writes")) } }
                kind => (kind.as_str().replace('-', " ")),
            }
        }
    }
}
