//! `/`: is the fleet well, and if not, what needs a person now.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::{sentence, shell, state, text};
use crate::access::{Person, Reach};
use crate::api::reads::{self, Cause, NodeFacts, Summary};
use crate::clock;
use crate::door::people::People;
use crate::logins;
use crate::problem::ProblemResponse;
use crate::store::{NodeRow, NodeState};
use crate::violations::view::ViolationView;

/// Causes shown: what does not fit in ten lines is a list.
const CAUSES: u32 = 10;
/// Logins of root named, and how far back.
const ROOTS: u32 = 5;
const DAY: i64 = 86_400_000_000;
/// Silent nodes, and nodes with the oldest read, that are named.
const NAMED: usize = 5;

/// `GET /`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let reach = &person.reach;
    let nodes = reads::all_nodes(&people.app, reach).await?;
    let summary = reads::summary(&people.app, reach, &nodes).await?;
    let (causes, all_causes) = reads::causes(&people.app.store, reach, CAUSES).await?;
    let blind = blind_spots(&people, reach, &nodes).await?;
    let days = days(&people, reach, now).await?;
    let since = Timestamp::from_micros(now.as_micros().saturating_sub(DAY));
    let roots = logins::of_root(&people.app, reach, since, ROOTS).await?;
    let rollouts = super::changes::under_way(&people, &person, now).await?;
    let body = html! {
        h1 { (first_line(&summary)) }
        @if summary.nodes == 0 { (empty()) } @else {
            (counted(&summary, &blind))
            (needs_a_person(&causes, all_causes, &nodes, now))
            (rollouts)
            @if !roots.is_empty() { h2 #roots { "Logins of root" small { "begun within a day" } } (super::logins::table(&roots, true, now)) }
        }
        div.cols {
            @if summary.nodes > 0 { div { (blind_section(&blind, now)) } }
            div { (collector(&people, reach, &summary, now)) }
        }
        @if summary.nodes > 0 { (month(&days)) }
    };
    Ok(shell::page(
        &person,
        "/",
        "Overview",
        &shell::live(
            "overview",
            "/",
            &["violation", "verdict", "session", "change", "node"],
            &body,
        ),
    ))
}

fn first_line(summary: &Summary) -> Markup {
    let of = |word: &str| summary.statuses.get(word).copied().unwrap_or(0);
    let well = of("pristine");
    if summary.nodes == 0 {
        return html! { "No nodes yet." };
    }
    if well == summary.nodes {
        return match summary.nodes {
            1 => html! { "The one node is pristine." },
            many => html! { "All " (text::count(many)) " nodes are pristine." },
        };
    }
    match summary.nodes {
        1 => {
            let word = summary
                .statuses
                .keys()
                .next()
                .map_or("not known", String::as_str);
            html! { "The one node is " (word.replace('-', " ")) "." }
        }
        many => {
            html! { (text::count(well)) " of " (text::count(many)) " nodes " (if well == 1 { "is" } else { "are" }) " pristine." }
        }
    }
}

fn empty() -> Markup {
    html! {
        div.empty {
            p { b { "Make a join token" } ", then enrol a machine with it:" }
            pre { "pristine token create --join\npristine-agent enroll --token TOKEN\npristine-agent run" }
            p.soft { "Nodes attest from their first minute; they have a verdict once an image is published and assigned to their group." }
        }
    }
}

fn counted(summary: &Summary, blind: &Blind) -> Markup {
    let mut counts: Vec<(String, u64)> = summary
        .statuses
        .iter()
        .map(|(word, count)| (word.clone(), *count))
        .collect();
    counts.sort_by_key(|(word, _)| state::rank(word));
    html! {
        (state::bar(&counts))
        p.lead {
            (text::counted(summary.nodes, "node", "nodes")) " enrolled; how many there should be is not known here. "
            @if summary.violations > 0 { a href="/violations" { (text::counted(summary.violations, "open violation", "open violations")) } } @else { "No open violations" }
            @if summary.unreviewed > 0 { ", " (text::counted(summary.unreviewed, "touched or pinned path", "touched or pinned paths")) " unreviewed" }
            ". " (text::count(blind.entries)) " entries attested."
        }
    }
}

fn needs_a_person(
    causes: &[Cause],
    all: u64,
    nodes: &[(NodeRow, String)],
    now: Timestamp,
) -> Markup {
    let more = all > u64::from(CAUSES);
    let pending: Vec<&NodeRow> = nodes
        .iter()
        .map(|(row, _)| row)
        .filter(|row| row.state == NodeState::Pending)
        .collect();
    html! {
        h2 #causes { "Needs a person now" @if more { small { "the worst " (CAUSES) " of " (text::count(all)) } } }
        @if causes.is_empty() && pending.is_empty() {
            p.none { "Nothing. When something changes on a node it stands here within a second, worst first." }
        } @else {
            ol.causes {
                @for row in pending.iter().take(3) {
                    li data-row={ "pending-" (row.id) } {
                        (state::state("pending"))
                        span.say { (text::plain(&row.name)) " asks to join the group " (text::plain(&row.group)) " without a token, first " (text::age(row.enrolled, now)) "." }
                        a.act href={ "/nodes/" (row.id) } { "Look at it" }
                    }
                }
                @for cause in causes { (cause_line(cause, now)) }
            }
            @if more { p.pages { a href="/violations" { "All open violations" } } }
        }
    }
}

fn cause_line(cause: &Cause, now: Timestamp) -> Markup {
    let violation = &cause.first;
    let path = violation.path.as_deref().unwrap_or_default();
    html! {
        li data-row=(violation.id) {
            (state::state(violation.severity.as_str()))
            span.say {
                a href={ "/violations/" (violation.id) } { (sentence::what_on(violation, cause.nodes)) }
                span.note {
                    @if violation.actor.is_some() { "By " (sentence::who(violation.actor.as_ref())) ", " }
                    @else if violation.path.is_some() { "By whom is not known, " }
                    (text::age(cause.since, now))
                }
            }
            @if cause.nodes > 1 {
                a.act href=(super::address("/violations", &[("q", path)])) { "See the " (cause.nodes) " nodes" }
            } @else {
                a.act href={ "/violations/" (violation.id) } { (next_action(violation)) }
            }
        }
    }
}

fn next_action(violation: &ViolationView) -> &'static str {
    use crate::violations::view::Kind;
    match violation.kind {
        Kind::Difference | Kind::Many | Kind::Mount | Kind::Unexplained => "Compare",
        Kind::Touched => "Review",
        Kind::Silence | Kind::Gap | Kind::Flood => "Look at the node",
        Kind::Fork | Kind::Replay | Kind::Rewind | Kind::Downgrade => "Look at the proof",
        Kind::Rollback | Kind::UnknownImage => "Look at the image",
    }
}

/// What is not seen.
struct Blind {
    silent: Vec<(String, String, Option<Timestamp>)>,
    silent_total: usize,
    gaps: u64,
    unreadable: u64,
    unreadable_on: u64,
    limited: u64,
    oldest: Vec<(String, String, Option<Timestamp>)>,
    entries: u64,
}

/// Reads what only whole rows tell, for the nodes that have it.
async fn blind_spots(
    people: &People,
    reach: &Reach,
    nodes: &[(NodeRow, String)],
) -> Result<Blind, ProblemResponse> {
    let mut silent: Vec<(String, String, Option<Timestamp>)> = nodes
        .iter()
        .filter(|(_, status)| matches!(status.as_str(), "stale" | "lost"))
        .map(|(row, _)| (row.id.clone(), row.name.clone(), row.last_fresh))
        .collect();
    silent.sort_by_key(|(_, _, at)| *at);
    let silent_total = silent.len();
    silent.truncate(NAMED);
    let pool = people.app.store.read_pool();
    let (gaps, unreadable, unreadable_on, limited, entries): (i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(coalesce(json_extract(stated, '$.coverage.gaps_total'), json_array_length(stated, '$.coverage.gaps'), 0)), 0), \
         coalesce(sum(coalesce(json_extract(stated, '$.coverage.unreadable_total'), json_array_length(stated, '$.coverage.unreadable'), 0)), 0), \
         coalesce(sum(coalesce(json_array_length(stated, '$.coverage.unreadable'), 0) > 0), 0), \
         coalesce(sum(coalesce(json_array_length(stated, '$.coverage.watch.limits'), 0) > 0), 0), \
         coalesce(sum(coalesce(json_extract(stated, '$.entries'), 0)), 0) FROM nodes WHERE state = 'active' \
         AND (?1 IS NULL OR grp IN (SELECT value FROM json_each(?1)))",
    )
    .bind(reach.to_sql())
    .fetch_one(pool)
    .await?;
    let oldest: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT id, name, json_extract(stated, '$.coverage.read') AS read FROM nodes WHERE state = 'active' AND sequence IS NOT NULL \
         AND (?1 IS NULL OR grp IN (SELECT value FROM json_each(?1))) ORDER BY read IS NOT NULL, read LIMIT 1",
    )
    .bind(reach.to_sql())
    .fetch_all(pool)
    .await?;
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Blind {
        silent,
        silent_total,
        gaps: whole(gaps),
        unreadable: whole(unreadable),
        unreadable_on: whole(unreadable_on),
        limited: whole(limited),
        oldest: oldest
            .into_iter()
            .map(|(id, name, read)| (id, name, read.and_then(|read| read.parse().ok())))
            .collect(),
        entries: whole(entries),
    })
}

fn blind_section(blind: &Blind, now: Timestamp) -> Markup {
    html! {
        h2 #blind { "Blind spots" small { "what a green node does not speak of" } }
        dl.facts {
            dt { "Silent nodes" }
            dd {
                @if blind.silent.is_empty() { "none" } @else {
                    b { (blind.silent_total) } ": "
                    @for (at, (id, name, seen)) in blind.silent.iter().enumerate() {
                        @if at > 0 { ", " }
                        a href={ "/nodes/" (id) } { (text::plain(name)) } " "
                        span.soft { @if let Some(seen) = seen { (text::age(*seen, now)) } @else { "never heard" } }
                    }
                    @if blind.silent_total > blind.silent.len() { " and " a href="/nodes?status=lost" { "more" } }
                }
            }
            dt { "Open gaps" } dd { @if blind.gaps == 0 { "none" } @else { b { (text::counted(blind.gaps, "gap", "gaps")) } " not yet closed by a rescan" } }
            dt { "Oldest full read" }
            dd {
                @for (id, name, read) in &blind.oldest {
                    @if let Some(read) = read { (text::age(*read, now)) } @else { "not finished yet" }
                    " on " a href={ "/nodes/" (id) } { (text::plain(name)) }
                }
                @if blind.oldest.is_empty() { span.none { "no node has attested yet" } }
            }
            dt { "Unreadable files" }
            dd { @if blind.unreadable == 0 { "none" } @else { b { (text::count(blind.unreadable)) } " on " (text::counted(blind.unreadable_on, "node", "nodes")) } }
            dt { "Standing limits" }
            dd { @if blind.limited == 0 { "none" } @else { (text::counted(blind.limited, "node watches", "nodes watch")) " with limits, told on the node’s page" } }
        }
    }
}

fn collector(people: &People, reach: &Reach, summary: &Summary, now: Timestamp) -> Markup {
    let alerting = &people.app.channels.alerting;
    let channels = alerting.channels_within(reach).len();
    html! {
        h2 #collector { "The collector itself" }
        dl.facts {
            dt { "Running" } dd { "started " (text::age(people.app.started, now)) ", version " (env!("CARGO_PKG_VERSION")) }
            dt { "Alerts" }
            dd {
                @if alerting.channels().is_empty() { span.warn { "Nobody is told: no channel is configured." } }
                @else if channels == 0 { span.warn { "Nobody is told of " (text::nodes_of(reach)) ": no route sends what is found there to a channel." } }
                @else {
                    a href="/alerts" { (text::counted(u64::try_from(channels).unwrap_or(0), "channel", "channels")) } ", "
                    @if summary.alerts_waiting == 0 { "nothing waits" } @else { (text::counted(summary.alerts_waiting, "delivery waits", "deliveries wait")) }
                    @if summary.alerts_given_up > 0 { ", " span.bad { (text::count(summary.alerts_given_up)) " given up on" } }
                }
            }
            dt { "Store" }
            dd { (text::count(summary.store_bytes / 1024)) " KiB" (grows(&summary.store)) @if people.app.store.is_full() { ", " span.bad { "its disk is full: statements are refused until there is space" } } }
        }
    }
}

/// How the store grows, as far as that is known.
fn grows(store: &crate::retention::Forecast) -> Markup {
    html! {
        @if let Some(growth) = store.per_day.filter(|growth| *growth > 0) { ", " (text::count(growth.unsigned_abs() / 1024)) " KiB more a day" }
        @if let Some(free) = store.free { ", " (text::count(free / 1024 / 1024)) " MiB left on its disk" }
        @if let Some(days) = store.full_in_days { @if days < 30 { ", " span.warn { "full in " (text::counted(days, "day", "days")) } } }
    }
}

/// Thirty days of violations opened and resolved, oldest first.
async fn days(
    people: &People,
    reach: &Reach,
    now: Timestamp,
) -> Result<Vec<(i64, i64, i64)>, ProblemResponse> {
    const DAY: i64 = 86_400_000_000;
    let today = now.as_micros().div_euclid(DAY);
    let from = today - 29;
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(
        "SELECT at / 86400000000, step, count(*) FROM violation_steps WHERE step IN ('opened', 'resolved') AND at >= ?2 \
         AND (?1 IS NULL OR violation IN (SELECT v.id FROM violations v JOIN nodes n ON n.id = v.node JOIN json_each(?1) g ON g.value = n.grp)) \
         GROUP BY 1, 2",
    )
    .bind(reach.to_sql())
    .bind(from * DAY)
    .fetch_all(people.app.store.read_pool())
    .await?;
    let of = |day: i64, step: &str| {
        rows.iter()
            .find(|(at, name, _)| *at == day && name == step)
            .map_or(0, |(_, _, count)| *count)
    };
    Ok((from..=today)
        .map(|day| (day * DAY, of(day, "opened"), of(day, "resolved")))
        .collect())
}

fn month(days: &[(i64, i64, i64)]) -> Markup {
    const HEIGHT: i64 = 64;
    let most = days
        .iter()
        .map(|(_, opened, resolved)| (*opened).max(*resolved))
        .max()
        .unwrap_or(0);
    let high = |count: i64| {
        if count == 0 {
            0
        } else {
            (count * HEIGHT / most.max(1)).max(2)
        }
    };
    let date = |at: i64| {
        Timestamp::from_micros(at)
            .to_string()
            .chars()
            .take(10)
            .collect::<String>()
    };
    let told: Vec<&(i64, i64, i64)> = days
        .iter()
        .rev()
        .filter(|(_, opened, resolved)| opened + resolved > 0)
        .collect();
    html! {
        h2 #month { "Thirty days" small { "violations opened and resolved" } }
        @if told.is_empty() { p.none { "None opened, none resolved." } } @else {
            svg.month viewBox={ "0 0 600 " (HEIGHT + 2) } preserveAspectRatio="none" role="img" aria-label="violations opened and resolved on each of thirty days; the table below says the same" {
                @for (at, (day, opened, resolved)) in days.iter().enumerate() {
                    @let x = at * 20;
                    g { title { (date(*day)) ": " (opened) " opened, " (resolved) " resolved" }
                        rect.bad x=(x + 2) width="7" y=(HEIGHT - high(*opened)) height=(high(*opened)) {}
                        rect.good x=(x + 10) width="7" y=(HEIGHT - high(*resolved)) height=(high(*resolved)) {}
                        rect.base x=(x + 2) width="15" y=(HEIGHT) height="1" {}
                    }
                }
            }
            details { summary { "As a table" }
                table.narrow { thead { tr { th { "Day" } th.num { "Opened" } th.num { "Resolved" } } }
                    tbody { @for (day, opened, resolved) in told { tr { td data-label="Day" { (date(*day)) } td.num data-label="Opened" { (opened) } td.num data-label="Resolved" { (resolved) } } } } }
            }
        }
    }
}

/// Kept for the node list: how a node's coverage reads in one line.
pub(super) fn signed_and_read(node: &NodeFacts, now: Timestamp) -> Markup {
    let read = node.coverage().and_then(|coverage| coverage.read);
    html! {
        @if let Some(at) = node.row.last_received { "signed " (text::age(at, now)) } @else { "never attested" }
        @if let Some(read) = read { ", content last read " (text::age(read, now)) } @else if node.row.last_received.is_some() { ", first full read not finished" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(counts: &[(&str, u64)]) -> Summary {
        let mut summary = Summary::default();
        for (word, count) in counts {
            summary.nodes += count;
            summary.statuses.insert((*word).to_owned(), *count);
        }
        summary
    }

    #[test]
    fn the_first_line_answers() {
        let line = |counts: &[(&str, u64)]| first_line(&summary(counts)).into_string();
        assert_eq!(line(&[]), "No nodes yet.");
        assert_eq!(line(&[("pristine", 1)]), "The one node is pristine.");
        assert_eq!(
            line(&[("unknown-image", 1)]),
            "The one node is unknown image."
        );
        assert_eq!(line(&[("pristine", 250)]), "All 250 nodes are pristine.");
        assert_eq!(
            line(&[("pristine", 247), ("drifted", 3)]),
            "247 of 250 nodes are pristine."
        );
    }
}
