//! `/activity` and `/activity/ID`: who did what to what, from where, and what it was before and after.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde_json::Value;

use super::{address, paging, shell, text};
use crate::access::Person;
use crate::activity::{self, Order, Record};
use crate::api::activity::Query;
use crate::api::{Asked, Listed, Named};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// Records on one page.
const PAGE: u32 = 100;
/// What something can be done to, for the filter.
const KINDS: [&str; 11] = [
    "node",
    "violation",
    "image",
    "assignment",
    "exception",
    "window",
    "account",
    "token",
    "channel",
    "activity",
    "route",
];

/// The page's address with these filters.
fn here(path: &str, query: &Query, more: &[(&str, &str)]) -> String {
    let filters = [
        ("who", query.who.as_str()),
        ("kind", query.kind.as_str()),
        ("target", query.target.as_str()),
        ("action", query.action.as_str()),
        ("from", query.from.as_str()),
        ("to", query.to.as_str()),
        ("q", query.q.as_str()),
    ];
    address(path, &[&filters[..], more].concat())
}

/// `GET /activity`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Result<Markup, ProblemResponse> {
    let filter = query.filter()?;
    let store = &people.app.store;
    let items = activity::list(store, &person, &filter, Order::NewestFirst, PAGE + 1).await?;
    let listed = Listed::of(items, PAGE, |item: &Record| item.id.clone());
    let now = clock::now();
    let filtered = here("/activity", &query, &[]) != "/activity";
    let newest = query
        .cursor
        .as_ref()
        .map(|_later| here("/activity", &query, &[]));
    let older = listed
        .next
        .as_deref()
        .map(|next| here("/activity", &query, &[("cursor", next)]));
    let body = html! {
        h1 { (first_line(&listed, filtered)) }
        p.lead {
            "What people and pipelines did, written down in the same moment and never changed. "
            a href=(here("/api/v1/activity", &query, &[("format", "ndjson")])) download { "Export all of it" @if filtered { " that fits" } } " as lines of JSON, oldest first."
            @if !person.reach.is_all() { " You see what is about the nodes that you reach, and what you did yourself." }
        }
        (form(&query, filtered))
        @if listed.items.is_empty() { (empty(filtered)) } @else {
            (table(&listed.items, now))
            (paging::older(newest.as_deref(), older.as_deref()))
        }
    };
    Ok(shell::page(&person, "/activity", "Activity", &body))
}

fn first_line(listed: &Listed<Record>, filtered: bool) -> Markup {
    let count = u64::try_from(listed.items.len()).unwrap_or(0);
    html! {
        @if count == 0 { @if filtered { "Nothing fits." } @else { "Nothing has been done yet." } }
        @else if let (Some(first), false) = (listed.items.first(), filtered) { "Last, " (sentence(first)) "." }
        @else { @if listed.next.is_some() { "More than " } (text::counted(count, "record fits", "records fit")) "." }
    }
}

fn form(query: &Query, filtered: bool) -> Markup {
    html! {
        form.filters method="get" action="/activity" {
            label { "Search" input type="search" name="q" value=(query.q) maxlength="200"; }
            label { "Person" input name="who" value=(query.who) maxlength="64" autocapitalize="none" spellcheck="false"; }
            label { "Kind" select name="kind" {
                option value="" { "any" }
                @for kind in KINDS { option value=(kind) selected[query.kind == kind] { (kind) } }
            } }
            label { "Object" input name="target" value=(query.target) maxlength="200" autocapitalize="none" spellcheck="false"; }
            label { "From" input type="date" name="from" value=(day(&query.from)); }
            label { "To" input type="date" name="to" value=(day(&query.to)); }
            @if !query.action.is_empty() { input type="hidden" name="action" value=(query.action); }
            button.act type="submit" { "Filter" }
            @if filtered { a.act href="/activity" { "All" } }
        }
    }
}

/// What a field for a day can show.
fn day(text: &str) -> &str {
    text.get(..10).unwrap_or("")
}

fn empty(filtered: bool) -> Markup {
    html! {
        div.empty {
            @if filtered { p { "No record fits these filters. " a href="/activity" { "Show all" } } }
            @else { p { "Signing in, letting a node in, publishing an image: each stands here as soon as it is done." } }
        }
    }
}

fn table(records: &[Record], now: Timestamp) -> Markup {
    html! {
        table.activity {
            thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Before and after" } th scope="col" { "From" } } }
            tbody { @for record in records {
                tr data-row=(record.id) id={ "a" (record.id) } {
                    td data-label="When" { div.cell { a href={ "/activity/" (record.id) } { (text::age(record.at, now)) } } }
                    td data-label="What" { div.cell {
                        (sentence(record))
                        @if record.count > 1 { " " span.soft { (text::count(record.count)) " times within a minute" } }
                        @if let Some(reason) = &record.reason { span.sub { (text::plain(reason)) } }
                    } }
                    td.blank[record.before.is_none() && record.after.is_none()] data-label="Changed" { div.cell { (changes(record)) } }
                    td data-label="From" { div.cell { (from(record)) } }
                }
            } }
        }
    }
}

/// Who did what to what.
pub(super) fn sentence(record: &Record) -> Markup {
    html! {
        @if record.user.is_empty() { "somebody unknown" } @else { a.plain href=(address("/activity", &[("who", &record.user)])) { b { (text::plain(&record.user)) } } }
        " "
        @match record.action.as_str() {
            "session.open" => "signed in",
            "session.close" => "signed out",
            "session.refuse" => "was refused at the sign-in",
            "access.refuse" => "was refused",
            "request.refuse" => { "was refused at " code { (text::plain(&record.target)) } }
            "activity.export" => "exported the activity log",
            "account.password" => { "set another password for " (object(record)) }
            "account.role" => { "changed what " (object(record)) " may do" }
            "node.join" => { "had " (object(record)) " join" }
            "node.replace" => { "replaced " (object(record)) " by one with another key" }
            "node.group" => { "moved " (object(record)) " to another group" }
            "node.rescan" => { "asked " (object(record)) " to look at everything again" }
            "pins.review" => { "reviewed what " (object(record)) " has pinned" }
            other => { (past(other)) " " (object(record)) }
        }
    }
}

/// The verb of an action, as it was done: `node.ban` banned.
fn past(action: &str) -> String {
    let verb = action.rsplit('.').next().unwrap_or(action);
    let irregular = match verb {
        "add" | "create" => Some("made"),
        "ban" => Some("banned"),
        "withdraw" => Some("withdrew"),
        "submit" => Some("submitted"),
        "set" => Some("set"),
        _ => None,
    };
    irregular.map_or_else(
        || {
            if verb.ends_with('e') {
                format!("{verb}d")
            } else {
                format!("{verb}ed")
            }
        },
        str::to_owned,
    )
}

/// What it was done to, with the way there.
fn object(record: &Record) -> Markup {
    let name = if record.name.is_empty() {
        &record.target
    } else {
        &record.name
    };
    let to = match record.kind.as_str() {
        "node" => Some(format!("/nodes/{}", record.target)),
        "violation" => Some(format!("/violations/{}", record.target)),
        "image" => Some("/images".to_owned()),
        "account" | "token" => Some("/settings".to_owned()),
        _ => None,
    };
    let kind = if record.kind.is_empty() {
        String::new()
    } else {
        format!("the {} ", record.kind)
    };
    html! {
        (kind)
        @match to {
            Some(to) => a href=(to) { (text::plain(name)) },
            None => b { (text::plain(name)) },
        }
    }
}

fn from(record: &Record) -> Markup {
    html! {
        @match &record.from {
            Some(from) => code { (text::plain(from)) },
            None => span.none { @if record.by == "local" { "the collector itself" } @else { "not known" } },
        }
        @if let Some((by, _)) = record.by.split_once(' ') { " " span.soft { "by " (by.replace('-', " ")) } }
    }
}

/// Each thing that was so before, and is otherwise since.
fn changes(record: &Record) -> Markup {
    let empty = serde_json::Map::new();
    let of = |value: &'_ Option<Value>| value.as_ref().and_then(Value::as_object).cloned();
    let (before, after) = (of(&record.before), of(&record.after));
    let (before, after) = (
        before.as_ref().unwrap_or(&empty),
        after.as_ref().unwrap_or(&empty),
    );
    let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    html! {
        @for name in names {
            @let (was, is) = (before.get(name.as_str()), after.get(name.as_str()));
            @if was.is_some_and(|was| !was.is_null()) || is.is_some_and(|is| !is.is_null()) {
                span.sub {
                    (name.replace('_', " ")) ": "
                    @if let Some(was) = was { (value(name, was)) @if is.is_some() { " → " } }
                    @if let Some(is) = is { (value(name, is)) }
                }
            }
        }
    }
}

fn value(name: &str, value: &Value) -> Markup {
    html! {
        @match value {
            Value::Null => span.none { "none" },
            Value::String(text) => (text::plain(text)),
            Value::Bool(true) => "yes",
            Value::Bool(false) => "no",
            Value::Array(items) if items.is_empty() => { @if name == "groups" { "all" } @else { span.none { "none" } } }
            Value::Array(items) => { @for (at, item) in items.iter().take(8).enumerate() { @if at > 0 { ", " } (self::value(name, item)) } @if items.len() > 8 { " and " (items.len() - 8) " more" } },
            Value::Number(_) | Value::Object(_) => code { (text::plain(&value.to_string())) },
        }
    }
}

/// `GET /activity/{id}`.
pub(super) async fn record(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Markup, ProblemResponse> {
    let record = activity::named(&people.app.store, &person, &id)
        .await?
        .ok_or_else(|| {
            ProblemResponse::not_found(
                "no record has this id, or it is about nodes beyond your reach",
            )
        })?;
    let now = clock::now();
    let body = html! {
        p.crumbs { a href="/activity" { "Activity" } " / " (text::utc(record.at)) }
        h1 { (sentence(&record)) "." }
        dl.facts {
            dt { "When" } dd { (text::moment(record.at)) " " span.soft { (text::age(record.at, now)) } }
            dt { "Who" } dd { @if record.user.is_empty() { "somebody unknown" } @else { (text::plain(&record.user)) } @if !record.by.is_empty() { " " span.soft { (text::plain(&record.by)) } } }
            dt { "From" } dd { (from(&record)) }
            dt { "Action" } dd { a href=(address("/activity", &[("action", &record.action)])) { code { (text::plain(&record.action)) } } @if record.count > 1 { " " (text::count(record.count)) " times within a minute" } }
            @if !record.target.is_empty() {
                dt { "Object" } dd { (object(&record)) " " code { (text::plain(&record.target)) } (text::copy(&record.target, "id")) " " a href=(address("/activity", &[("target", &record.target)])) { "all about it" } }
            }
            @if let Some(node) = &record.node { dt { "Node" } dd { a href={ "/nodes/" (node) } { (text::hex(node)) } } }
            @if let Some(group) = &record.group { dt { "Group" } dd { (text::plain(group)) } }
            @if let Some(reason) = &record.reason { dt { "Reason" } dd { (text::plain(reason)) } }
            @if record.before.is_some() || record.after.is_some() { dt { "Before and after" } dd { (changes(&record)) } }
            dt { "Record" } dd { code { (record.id) } (text::copy(&record.id, "id")) }
        }
    };
    Ok(shell::page(&person, "/activity", "Activity", &body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(action: &str, kind: &str) -> Record {
        Record {
            id: "0199".to_owned(),
            at: Timestamp::from_micros(1_000_000),
            user: "ann".to_owned(),
            by: "session 00".to_owned(),
            from: Some("192.0.2.1".to_owned()),
            action: action.to_owned(),
            kind: kind.to_owned(),
            target: "n1".to_owned(),
            name: "web-<1>".to_owned(),
            node: None,
            group: None,
            before: None,
            after: None,
            reason: None,
            count: 1,
        }
    }

    /// What stands between the tags.
    fn read(markup: Markup) -> String {
        let mut text = String::new();
        let mut inside = false;
        for letter in markup.into_string().chars() {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                _ if !inside => text.push(letter),
                _ => {}
            }
        }
        text
    }

    #[test]
    fn a_record_is_a_sentence() {
        for (action, kind, said) in [
            ("session.open", "account", "ann signed in"),
            ("node.ban", "node", "ann banned the node web-&lt;1&gt;"),
            (
                "node.suspend",
                "node",
                "ann suspended the node web-&lt;1&gt;",
            ),
            (
                "account.add",
                "account",
                "ann made the account web-&lt;1&gt;",
            ),
            (
                "image.publish",
                "image",
                "ann published the image web-&lt;1&gt;",
            ),
            (
                "assignment.approve",
                "assignment",
                "ann approved the assignment web-&lt;1&gt;",
            ),
            (
                "exception.withdraw",
                "exception",
                "ann withdrew the exception web-&lt;1&gt;",
            ),
            ("request.refuse", "route", "ann was refused at n1"),
        ] {
            assert_eq!(read(sentence(&record(action, kind))), said, "{action}");
        }
    }

    #[test]
    fn what_changed_stands_side_by_side_and_stays_text() {
        let mut changed = record("account.role", "account");
        changed.before = Some(json!({"role": "viewer", "groups": ["web"]}));
        changed.after = Some(json!({"role": "admin", "groups": [], "note": "<b>"}));
        let shown = read(changes(&changed));
        assert!(shown.contains("role: viewer → admin"), "{shown}");
        assert!(shown.contains("groups: web → all"), "{shown}");
        assert!(shown.contains("note: &lt;b&gt;"), "{shown}");
    }
}
