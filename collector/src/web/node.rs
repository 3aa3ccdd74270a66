//! `/nodes/ID`: what one machine is, why we believe it, and what we do not know of it.

mod facts;

use attestation::scope::Expect;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use self::facts::Facts;
use super::{
    address, bands, logins as login_pages, node_decisions, sentence, shell, state, text, violations,
};
use crate::access::Person;
use crate::api::{Asked, Named};
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// Violations listed on the page; the rest is one click away.
const LISTED: u32 = 50;
/// Reasons of a verdict told in its sentence; what differs stands below it.
const REASONS: usize = 3;
/// Touched paths, verdicts and earlier images listed.
const RECENT: u32 = 20;

/// What the address says beside the node.
#[derive(serde::Deserialize)]
pub(super) struct Query {
    span: Option<String>,
}

/// `GET /nodes/{id}`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Asked(query): Asked<Query>,
) -> Result<Markup, ProblemResponse> {
    let span = bands::Span::parse(query.span.as_deref());
    let facts = facts::read(&people, &person.reach, &id, span).await?;
    let own = format!("/nodes/{id}");
    let body = html! {
        p.crumbs { a href="/nodes" { "Nodes" } " / " (text::plain(&facts.node.row.group)) }
        h1 { (first_line(&facts)) }
        (lead(&facts))
        (beside(&facts))
        (differs(&facts))
        (review(&facts))
        div.cols {
            div { h2 #image { "What it must be" } (image(&facts)) }
            div { h2 #agent { "What it says of itself" } (agent(&facts)) }
        }
        (bands::shown(&facts.bands, span, facts.range, &own, facts.now))
        (sessions(&facts))
        (not_seen(&facts))
        (history(&facts))
        (node_decisions::section(&facts.node.row, &person))
    };
    let title = facts.node.row.name.clone();
    let live = shell::live(
        "node",
        &address(&own, &[("span", query.span.as_deref().unwrap_or_default())]),
        &["verdict", "violation", "session", "node"],
        &body,
    );
    Ok(shell::page(&person, "/nodes", &title, &live))
}

fn first_line(facts: &Facts) -> Markup {
    let row = &facts.node.row;
    let status = facts.node.status.as_str();
    html! {
        (text::plain(&row.name)) " is " (state::state(status))
        @match status {
            "drifted" if row.differences > 0 => { ": " (text::counted(row.differences, "path differs", "paths differ")) "." }
            "drifted" => { ": something is mounted that should not be." }
            "stopped" => { ": its agent said goodbye." }
            "pending" if row.sequence.is_none() && row.approved.is_none() => { ": it waits for a person to approve it." }
            "pending" if facts.assigned.is_none() => { ": its group has no image yet." }
            _ => { "." }
        }
    }
}

fn lead(facts: &Facts) -> Markup {
    let row = &facts.node.row;
    html! {
        p.lead {
            @if let Some(since) = row.verdict_since {
                "The verdict became " b { (row.verdict.as_deref().unwrap_or("none").replace('-', " ")) } " " (text::age(since, facts.now))
                @if !row.verdict_reasons.is_empty() {
                    ", because of "
                    @for (at, reason) in row.verdict_reasons.iter().take(REASONS).enumerate() { @if at > 0 { "; " } (text::encoded(reason)) }
                    @if row.verdict_reasons.len() > REASONS { " and " (row.verdict_reasons.len() - REASONS) " more" }
                }
                ". "
            }
            @match row.last_received {
                Some(at) => { "Attested " (text::age(at, facts.now)) ". " }
                None => { "It has not attested yet. " }
            }
            @if facts.node.excepted > 0 { a href="/exceptions?state=approved" { (text::counted(facts.node.excepted, "difference", "differences")) " excepted" } ". " }
            @if facts.node.touched > 0 { a href="#review" { (text::counted(facts.node.touched, "touched path", "touched paths")) " unreviewed" } ". " }
            @if facts.node.pins.unreviewed > 0 { a href={ "/nodes/" (row.id) "/pins?waiting=1" } { (text::counted(facts.node.pins.unreviewed, "pinned line", "pinned lines")) " unreviewed" } "." }
        }
    }
}

/// The numbers that stand beside every green.
fn beside(facts: &Facts) -> Markup {
    let row = &facts.node.row;
    let coverage = facts.coverage.as_ref();
    let ignored = facts.image.as_ref().map(|image| {
        image
            .statement
            .scope
            .rules()
            .iter()
            .filter(|rule| rule.expect == Expect::Ignored)
            .count()
    });
    let mounts = facts
        .image
        .as_ref()
        .map(|image| image.statement.mounts.len());
    let unexpected = coverage.map_or(0, |coverage| coverage.mounts.unexpected.len());
    html! {
        dl.beside.sheet {
            div { dt { "Signed" } dd { @match facts.node.issued().or(row.last_received) { Some(at) => (text::age(at, facts.now)), None => "never" } } }
            div { dt { "Content last read" } dd { @match coverage.and_then(|coverage| coverage.read) { Some(at) => (text::age(at, facts.now)), None => "not yet in full" } } }
            div { dt { "Entries attested" } dd { @match facts.node.entries() { Some(entries) => (text::count(entries)), None => "none" } } }
            div { dt { "Paths ignored" } dd { @match ignored { Some(rules) => { (rules) " " small { "rules of the image" } } None => "not known" } } }
            div { dt { "Mounts not attested" } dd {
                @match mounts { Some(mounts) => { (mounts) } None => "not known" }
                @if unexpected > 0 { " " span.bad { "+ " (unexpected) " unexpected" } }
            } }
            div { dt { "Assurance" } dd { (row.assurance) small { (assurance(&row.assurance)) } } }
            div { dt { "Standing limits" } dd { @match coverage.map(|coverage| coverage.watch.limits.len()) {
                Some(0) => "none",
                Some(limits) => a href="#limits" { (limits) },
                None => "not known",
            } } }
            div { dt { "Pinned lines" } dd {
                @if facts.node.pins.entries == 0 { "none" } @else { a href={ "/nodes/" (row.id) "/pins" } { (text::count(facts.node.pins.entries)) } }
            } }
            div { dt { "Unreviewed" } dd { (facts.node.unreviewed()) } }
        }
    }
}

fn assurance(word: &str) -> &'static str {
    match word {
        "tpm" => "the key cannot be copied",
        "kernel" => "limits a lying root",
        _ => "once root, its word",
    }
}

fn differs(facts: &Facts) -> Markup {
    let more = facts.open.len() > usize::try_from(LISTED).unwrap_or(usize::MAX);
    let listed = &facts.open[..facts
        .open
        .len()
        .min(usize::try_from(LISTED).unwrap_or(usize::MAX))];
    html! {
        h2 #differs { "What differs" }
        @if listed.is_empty() { p.none { "Nothing is open on this node." } } @else {
            (violations::table(listed, false, facts.now))
            @if more || facts.node.violations > 0 {
                p.pages { a href=(address("/violations", &[("node", &facts.node.row.id)])) { "All " (facts.node.violations) " open ones" }
                    a href=(address("/violations", &[("node", &facts.node.row.id), ("status", "all")])) { "Resolved ones too" } }
            }
        }
    }
}

fn review(facts: &Facts) -> Markup {
    html! {
        @if !facts.touched.is_empty() {
            h2 #review { "For review" small { "sealed paths that were written and left as they should be" } }
            table.touched {
                thead { tr { th scope="col" { "Path" } th scope="col" { "Event" } th.num scope="col" { "Writes" } th scope="col" { "Who" } th scope="col" { "Last" } th scope="col" { "Reviewed" } } }
                tbody { @for touched in &facts.touched {
                    tr data-row=(touched.id) id={ "t" (touched.id) } {
                        td data-label="Path" { div.cell { (text::path_to_copy(&touched.path)) } }
                        td data-label="Event" { div.cell { (text::plain(&touched.event.replace(',', ", "))) } }
                        td.num data-label="Writes" { div.cell { (touched.count) } }
                        td data-label="Who" { div.cell { (sentence::who(touched.actor.as_ref())) } }
                        td data-label="Last" { div.cell { (text::age(touched.last, facts.now)) } }
                        td data-label="Reviewed" { div.cell { @match touched.reviewed { Some(at) => (text::age(at, facts.now)), None => (state::tag("unreviewed", "warn")) } } }
                    }
                } }
            }
        }
    }
}

fn image(facts: &Facts) -> Markup {
    html! {
        dl.facts {
            dt { "Assigned" }
            dd { @match &facts.assigned {
                Some(assigned) => {
                    (text::plain(assigned.name.as_deref().unwrap_or("an image no longer here"))) " " (text::plain(assigned.version.as_deref().unwrap_or("")))
                    @if let Some(image) = &assigned.image { " " (text::digest(image)) }
                    span.note { "asked for by " (text::plain(&assigned.requested_by)) ", approved by " (text::plain(&assigned.approved_by))
                        @if assigned.requested_by == assigned.approved_by { " (the same person)" } ", " (text::age(assigned.from, facts.now)) }
                }
                None => { "Nothing: assign an image to the group " b { (text::plain(&facts.node.row.group)) } "." pre { "pristine node assign --group " (facts.node.row.group) " IMAGE" } }
            } }
            @match (&facts.node.image, &facts.image) {
                (Some(image), about) => {
                    dt { "Compared with" } dd { a href={ "/images/" (image.sha256) } { (text::plain(&image.name)) " " (text::plain(&image.version)) } " " (text::hex(&image.sha256)) }
                    dt { "Commit" } dd { (provenance(&image.commit, &image.repository)) }
                    dt { "Author" } dd { @if image.author.is_empty() { span.none { "not known" } } @else { (text::plain(&image.author)) } }
                    @if let Some(about) = about {
                        dt { "Built" } dd { (text::age(about.statement.created, facts.now)) ", epoch " (about.statement.epoch) ", published by " (text::plain(&about.published_by)) }
                        @if let Some(expires) = about.statement.expires { dt { "Expires" } dd { (text::moment(expires)) } }
                    }
                }
                (None, _) => { dt { "Compared with" } dd { span.none { "no image yet" } } }
            }
            dt { "Attested tree" } dd { @match &facts.node.row.tree { Some(tree) => (text::digest(tree)), None => span.none { "none" } } }
        }
    }
}

/// A commit with its repository.
pub(super) fn provenance(commit: &str, repository: &str) -> Markup {
    html! {
        @if commit.is_empty() { span.none { "not known" } } @else { (text::hex(commit)) }
        @if !repository.is_empty() { span.note { (text::place(repository)) } }
    }
}

fn agent(facts: &Facts) -> Markup {
    let row = &facts.node.row;
    let agent = row.stated.get("agent");
    let said = |name: &str| {
        agent
            .and_then(|agent| agent.get(name))
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    };
    html! {
        dl.facts {
            dt { "Node id" } dd { span.mono { (row.id) } (text::copy(&row.id, "id")) }
            dt { "Enrolled" } dd { (text::age(row.enrolled, facts.now)) @if let Some(by) = &row.approved_by { ", approved by " (text::plain(by)) } @else if row.token_id.is_some() { ", with a join token" } }
            dt { "Agent" } dd { @if said("version").is_empty() { span.none { "not told yet" } } @else { (text::plain(said("version"))) " " (text::hex(said("exe_sha256"))) } }
            dt { "Configuration" } dd { @if said("config_sha256").is_empty() { span.none { "not told yet" } } @else { (text::hex(said("config_sha256"))) } }
            dt { "Watches" } dd {
                @match &facts.coverage { Some(coverage) => {
                    "rung " (coverage.watch.rung)
                    @if let Some(since) = coverage.since { ", without a gap since " (text::age(since, facts.now)) }
                } None => span.none { "not told yet" } }
            }
            dt { "Last statement" } dd {
                @match (row.sequence, &row.previous) {
                    (Some(sequence), Some(payload)) => {
                        "number " (text::count(sequence)) " " (text::digest(payload)) " " a href={ "/api/v1/evidence/" (payload) } { "download" }
                        @if row.last_fresh != row.last_received { span.note { "fresh " @match row.last_fresh { Some(at) => (text::age(at, facts.now)), None => "never" } } }
                    }
                    _ => span.none { "none yet" },
                }
            }
            @if row.forked { dt { "Forked" } dd { span.bad { "two statements with one number were seen; it stays so until it is enrolled anew" } } }
        }
    }
}

fn sessions(facts: &Facts) -> Markup {
    html! {
        @if !facts.sessions.is_empty() {
            h2 #sessions { "Logins" }
            (login_pages::table(&facts.sessions, false, facts.now))
            p.pages { a href=(address("/sessions", &[("node", &facts.node.row.id)])) { "All of this node" } }
        }
    }
}

fn not_seen(facts: &Facts) -> Markup {
    let Some(coverage) = &facts.coverage else {
        return html! {};
    };
    let nothing = coverage.gaps.is_empty()
        && coverage.unreadable.is_empty()
        && coverage.unsettled.is_empty()
        && coverage.watch.limits.is_empty();
    let more = |total: Option<u64>, listed: usize| {
        total
            .and_then(|total| total.checked_sub(u64::try_from(listed).unwrap_or(0)))
            .filter(|more| *more > 0)
    };
    html! {
        h2 #limits { "What was not seen" }
        @if nothing { p.none { "No open gap, no unreadable or unsettled path, no standing limit." } } @else {
            dl.facts {
                @if !coverage.watch.limits.is_empty() { dt { "Standing limits" } dd { ul.plain { @for limit in &coverage.watch.limits { li { (text::plain(limit)) } } } } }
                @if !coverage.gaps.is_empty() {
                    dt { "Open gaps" }
                    dd { ul.plain { @for gap in &coverage.gaps {
                        li { b { (text::plain(&gap.cause)) } " from " (text::moment(gap.from)) @if let Some(to) = gap.to { " to " (text::moment(to)) } @else { " on" }
                            @if gap.paths.is_empty() { ", everywhere" } @else { ": " @for path in gap.paths.iter().take(10) { (text::path(&path.to_string())) " " } } }
                    } @if let Some(more) = more(coverage.gaps_total, coverage.gaps.len()) { li { "and " (more) " more" } } } }
                }
                @if !coverage.unreadable.is_empty() {
                    dt { "Unreadable" }
                    dd { ul.plain { @for unreadable in coverage.unreadable.iter().take(50) { li { (text::path(&unreadable.path.to_string())) " " span.soft { (text::plain(&unreadable.error)) } } }
                        @if let Some(more) = more(coverage.unreadable_total.or_else(|| u64::try_from(coverage.unreadable.len()).ok()), coverage.unreadable.len().min(50)) { li { "and " (more) " more" } } } }
                }
                @if !coverage.unsettled.is_empty() {
                    dt { "Being written" }
                    dd { ul.plain { @for path in coverage.unsettled.iter().take(50) { li { (text::path(&path.to_string())) } }
                        @if let Some(more) = more(coverage.unsettled_total.or_else(|| u64::try_from(coverage.unsettled.len()).ok()), coverage.unsettled.len().min(50)) { li { "and " (more) " more" } } } }
                }
            }
        }
    }
}

fn history(facts: &Facts) -> Markup {
    html! {
        h2 #history { "Verdicts" }
        @if facts.verdicts.is_empty() { p.none { "None yet: a verdict needs a statement and an assigned image." } } @else {
            ol.steps { @for change in &facts.verdicts {
                li data-row={ "s" (change.sequence) } {
                    span.soft { (text::moment(change.at)) }
                    span {
                        (state::state(change.verdict.as_deref().unwrap_or("pending")))
                        @if !change.reasons.is_empty() { span.soft { " · " @for (at, reason) in change.reasons.iter().enumerate() { @if at > 0 { "; " } (text::encoded(reason)) } } }
                        span.soft { " · statement " (change.sequence) }
                    }
                }
            } }
        }
    }
}
