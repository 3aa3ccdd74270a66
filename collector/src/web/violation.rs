//! `/violations/ID`: what changed, is it bad, who did it, and what now.

use attestation::digest::Digest;
use attestation::statement::Actor;
use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::value::{self, Compared, Item};
use super::{address, exceptions, node, review, sentence, shell, state, text};
use crate::access::Person;
use crate::alerts::{self, Delivery};
use crate::api::Named;
use crate::api::reads::{self, HistoryStep};
use crate::clock;
use crate::door::people::People;
use crate::logins::{self, LoginView};
use crate::problem::ProblemResponse;
use crate::violations::view::{Kind, ViolationView};

/// Steps shown: a file that changes every second has thousands.
const STEPS: u32 = 100;
/// Other nodes named.
const ELSEWHERE: u32 = 20;

/// `GET /violations/{id}`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Markup, ProblemResponse> {
    let app = &people.app;
    let violation = reads::violation(app, &id).await?.ok_or_else(|| {
        ProblemResponse::not_found(
            "no violation has this id; the list of violations shows all there are",
        )
    })?;
    let steps = reads::history(app, &id, STEPS).await?;
    let alerting = &app.channels.alerting;
    let deliveries = alerts::of_violation(&app.store, alerting, &person.reach, &id, STEPS).await?;
    let elsewhere = reads::elsewhere(app, &person.reach, &violation, ELSEWHERE).await?;
    let assigned = assigned(&people, &violation).await?;
    let asked = crate::exceptions::at_violation(app, &id, ELSEWHERE, clock::now()).await?;
    let node = reads::node(app, &violation.node).await?;
    let actor = violation.actor.as_ref();
    let login = logins::of_actor(app, &violation.node, actor, violation.detected).await?;
    let now = clock::now();
    let body = html! {
        p.crumbs { a href="/violations" { "Violations" } " / " a href={ "/nodes/" (violation.node) } { (text::plain(sentence::node_name(&violation))) } }
        h1 { (sentence::what(&violation)) }
        (lead(&violation, now))
        (what(&violation))
        div.cols {
            div { h2 #who { "Who" } (who(&violation, login.as_ref())) }
            div { h2 #from { "Expected from" } (expected_from(&violation, assigned.as_ref(), now)) }
        }
        h2 #when { "When" }
        (when(&violation, &deliveries, alerting.channels().is_empty()))
        (review::section(&violation, node.as_ref().map(|node| &node.row), person.role, now))
        (exceptions::section(&violation, &asked, &person, now))
        (others(&elsewhere, now))
        h2 #history { "History" }
        (history(&steps, &deliveries))
    };
    let title = violation.summary();
    let live = shell::live(
        "violation",
        &format!("/violations/{id}"),
        &["violation"],
        &body,
    );
    Ok(shell::page(&person, "/violations", &title, &live))
}

fn lead(violation: &ViolationView, now: Timestamp) -> Markup {
    html! {
        p.lead {
            @match violation.resolved {
                Some(at) => { (state::state("resolved")) @if let Some(how) = violation.resolved_as { ", " b { (how.words()) } } " " (text::age(at, now)) @if let Some(how) = &violation.resolution { ": " (text::plain(how)) } ". It was " }
                None => { (state::state("open")) ", seen " (text::age(violation.detected, now)) ", " }
            }
            (state::state(violation.severity.as_str())) "."
            @if violation.detail.get("late").is_some() { " Reported late: the statement that told it answered no open challenge." }
            @if let Some(path) = &violation.path { " " button.copy type="button" data-copy=(path) { "copy the path" } }
        }
    }
}

fn what(violation: &ViolationView) -> Markup {
    let rows = value::compare(
        &violation.fields,
        violation.expected.as_deref(),
        violation.found.as_deref(),
    );
    let known = violation.expected.is_some();
    let gone = known && violation.found.is_none();
    html! {
        h2 #what { "What" @if let Some(expect) = violation.expect { small { "the path is " (expect_word(expect)) } } }
        @if rows.is_empty() { (other(violation)) } @else {
            (side_by_side(&rows, known, gone))
            @if violation.fields.iter().any(|field| field == "unreadable") { p.note { "What is there could not be read; it counts as missing until it can be." } }
        }
    }
}

/// Expected and found beside each other; `known` where something was expected, `gone` where it is missing.
pub(super) fn side_by_side(rows: &[Compared], known: bool, gone: bool) -> Markup {
    html! {
        table.compare {
            colgroup { col.field; col; col; }
            thead { tr { th scope="col" { "Field" } th scope="col" { "Expected" } th scope="col" { "Found" } } }
            tbody { @for row in rows {
                tr {
                    th scope="row" { (text::encoded(&row.label)) }
                    td.was.blank[!known] data-label="Expected" { div.cell { (side(row, row.expected.as_ref(), "not there")) } }
                    td.blank[gone] data-label="Found" { div.cell { (side(row, row.found.as_ref(), if gone { "missing" } else { "not there" })) } }
                }
            } }
        }
    }
}

fn expect_word(expect: attestation::scope::Expect) -> &'static str {
    use attestation::scope::Expect;
    match expect {
        Expect::Sealed => "sealed: it must be the image’s",
        Expect::Local => "local: each node has its own, which may not change",
        Expect::Growing => "growing: it may only get longer",
        Expect::Ignored => "ignored",
    }
}

fn side(row: &Compared, items: Option<&Vec<Item>>, nothing: &str) -> Markup {
    let Some(items) = items else {
        return html! { span.nil { (nothing) } };
    };
    html! {
        @for item in items {
            span.item { @for piece in item {
                @let shown = if row.digest { text::digits(&piece.text) } else { text::encoded(&piece.text) };
                @if piece.differs { mark.piece { (shown) } } @else { span.piece { (shown) } }
                @if row.digest { (text::copy(&piece.text, "digest")) }
            } }
        }
    }
}

/// What the kinds without entry lines have to show.
fn other(violation: &ViolationView) -> Markup {
    let detail = |name: &str| violation.detail.get(name);
    let list = |name: &str| {
        detail(name)
            .and_then(serde_json::Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    html! {
        dl.facts {
            @match violation.kind {
                Kind::Mount => {
                    @if let Some(mount) = &violation.mount { dt { "Mounted" } dd { code { (text::plain(&mount.source)) } } dt { "Type" } dd { code { (text::plain(&mount.r#type)) } } }
                    dt { "Expected" } dd { "nothing mounted here; what lies below is still attested" }
                }
                Kind::Many => {
                    dt { "Paths" } dd { (text::count(violation.count.unwrap_or(0))) }
                    dt { "The gravest" } dd { ul.plain { @for path in list("gravest") { @if let Some(path) = path.as_str() { li { (text::path(path)) } } } } }
                }
                Kind::Touched => {
                    dt { "Event" } dd { (text::plain(detail("event").and_then(serde_json::Value::as_str).unwrap_or("write"))) @if let Some(count) = violation.count { ", " (text::counted(count, "time", "times")) } }
                    dt { "Now" } dd { "as the image says; what it was in between is not known" }
                }
                _ => {
                    @for (name, value) in &violation.detail {
                        dt { (text::plain(&name.replace('_', " "))) }
                        dd.mono { (value_in_words(value)) }
                    }
                    @if violation.detail.is_empty() { dt { "Kind" } dd { (violation.kind.as_str().replace('-', " ")) } }
                }
            }
        }
    }
}

fn value_in_words(value: &serde_json::Value) -> Markup {
    use serde_json::Value;
    match value {
        Value::String(text)
            if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            text::hex(text)
        }
        Value::String(text) => text::encoded(text),
        Value::Array(items) => {
            html! { ul.plain { @for item in items { li { (value_in_words(item)) } } } }
        }
        Value::Object(members) => html! {
            @for (at, (name, value)) in members.iter().enumerate() { @if at > 0 { ", " } (text::plain(name)) " " (value_in_words(value)) }
        },
        Value::Bool(true) => html! { "yes" },
        Value::Bool(false) => html! { "no" },
        Value::Null => html! { "none" },
        Value::Number(number) => html! { (number) },
    }
}

fn who(violation: &ViolationView, login: Option<&LoginView>) -> Markup {
    let Some(actor) = &violation.actor else {
        return html! {
            p.none {
                @if violation.path.is_some() { "Not known: no process was seen making this change. It was found by looking, or the process was gone before it could be named." }
                @else { "This is about the node itself, not about a process on it." }
            }
        };
    };
    html! {
        dl.facts {
            dt { "Processes" } dd { (sentence::chain(actor)) }
            dt { "User" }
            dd {
                b { (sentence::user(actor)) }
                span.note { (identity(actor).join(", ")) }
            }
            @if let Some(login) = login {
                dt { "Login" }
                dd { "began " (text::moment(login.started)) @if let Some(from) = &login.from { " from " code { (text::plain(from)) } }
                    span.note { a href={ "/sessions/" (login.id) } { "Everything this session did" } } }
            }
            @if let Some(cmdline) = &actor.cmdline { dt { "Command" } dd { code { (text::plain(cmdline)) } } }
            @if let Some(exe) = &actor.exe { dt { "Executable" } dd { (text::path(exe)) @if let Some(digest) = &actor.exe_sha256 { " " (text::digest(digest)) } } }
            @if let Some(unit) = &actor.unit { dt { "Unit" } dd { code { (text::plain(unit)) } } }
            @if let Some(container) = &actor.container { dt { "Container" } dd { (text::hex(container)) } }
            dt { "How sure" } dd { (sentence::confidence(actor)) }
        }
    }
}

/// The numbers behind the user.
fn identity(actor: &Actor) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(uid) = actor.uid {
        parts.push(format!("uid {uid}"));
    }
    if let Some(euid) = actor.euid.filter(|euid| actor.uid != Some(*euid)) {
        let name = if euid == 0 { " (root)" } else { "" };
        parts.push(format!("acting as {euid}{name}"));
    }
    match actor.auid {
        Some(auid) => parts.push(format!("logged in as {auid}")),
        None if actor.uid.is_some() => parts.push("no login".to_owned()),
        None => parts.push("its user was not seen".to_owned()),
    }
    if let Some(session) = actor.session {
        parts.push(format!("login session {session}"));
    }
    parts
}

fn when(violation: &ViolationView, deliveries: &[Delivery], nobody: bool) -> Markup {
    let alerted = deliveries
        .iter()
        .filter(|delivery| delivery.step.as_deref() == Some("opened"))
        .filter_map(|delivery| delivery.delivered)
        .min();
    let since = |from: Timestamp, to: Timestamp| {
        text::delay(to.as_micros().saturating_sub(from.as_micros()))
    };
    html! {
        ol.line-of-time.sheet {
            li { b { "Changed" } @if violation.actor.is_some() { (text::moment(violation.detected)) span.delay { "told by the kernel as it happened" } } @else { "at the latest when seen" span.delay { "the kernel did not tell" } } }
            li { b { "Seen by the agent" } (text::moment(violation.detected)) }
            li { b { "Reported" } (text::moment(violation.opened)) span.delay { (since(violation.detected, violation.opened)) " after it was seen" } }
            li { b { "Alerted" }
                @match alerted {
                    Some(at) => { (text::moment(at)) span.delay { (since(violation.opened, at)) " after it was reported" } }
                    None if nobody => { "nobody" span.delay { "no channel is configured" } }
                    None => { "not yet" span.delay { "see the history below" } }
                }
            }
            @if let Some(at) = violation.resolved { li { b { "Resolved" } (text::moment(at)) span.delay { "open for " (since(violation.opened, at)) } } }
        }
    }
}

/// Who said that the node must be this image: the newest assignment of it to the node's group.
struct Assigned {
    change: Option<String>,
    group: String,
    requested_by: String,
    approved_by: String,
    from: Timestamp,
}

async fn assigned(
    people: &People,
    violation: &ViolationView,
) -> Result<Option<Assigned>, ProblemResponse> {
    let Some(image) = violation
        .image
        .as_ref()
        .and_then(|image| image.sha256.parse::<Digest>().ok())
    else {
        return Ok(None);
    };
    let row: Option<(String, String, String, i64, Option<String>)> = sqlx::query_as(
        "SELECT a.grp, a.requested_by, a.approved_by, a.from_time, d.id FROM assignments a \
         LEFT JOIN deployments d ON d.assignment = a.payload \
         WHERE a.image = ? AND a.grp = (SELECT grp FROM nodes WHERE id = ?) ORDER BY a.from_time DESC LIMIT 1",
    )
    .bind(image.as_bytes().as_slice())
    .bind(&violation.node)
    .fetch_optional(people.app.store.read_pool())
    .await?;
    Ok(row.map(
        |(group, requested_by, approved_by, from, change)| Assigned {
            change,
            group,
            requested_by,
            approved_by,
            from: Timestamp::from_micros(from),
        },
    ))
}

fn expected_from(violation: &ViolationView, assigned: Option<&Assigned>, now: Timestamp) -> Markup {
    html! {
        @match &violation.image {
            Some(image) => dl.facts {
                dt { "Image" } dd { a href={ "/images/" (image.sha256) } { (text::plain(&image.name)) " " (text::plain(&image.version)) } " " (text::hex(&image.sha256)) }
                dt { "Repository" } dd { @if image.repository.is_empty() { span.none { "not told by the image" } } @else { (repository(&image.repository)) } }
                dt { "Commit" } dd { (node::provenance(&image.commit, "")) }
                dt { "Author" } dd { @if image.author.is_empty() { span.none { "not told by the image" } } @else { (text::plain(&image.author)) } }
                @if let Some(assigned) = assigned {
                    dt { "Assigned" }
                    dd {
                        "to the group " (text::plain(&assigned.group)) " by " (text::plain(&assigned.requested_by)) ", " (text::age(assigned.from, now))
                        @if assigned.approved_by != assigned.requested_by { ", approved by " (text::plain(&assigned.approved_by)) }
                        @if let Some(change) = &assigned.change { span.note { a href={ "/changes/" (change) } { "The deployment" } } }
                    }
                }
            },
            None => p.none { "No image: this is not about a file of one." },
        }
    }
}

/// A repository, as a link where a browser can follow it.
fn repository(address: &str) -> Markup {
    html! {
        @if address.starts_with("https://") { a href=(address) rel="noopener noreferrer" { (text::place(address)) } }
        @else { (text::place(address)) }
    }
}

fn others(elsewhere: &[ViolationView], now: Timestamp) -> Markup {
    html! {
        @if !elsewhere.is_empty() {
            h2 #elsewhere { "Elsewhere" small { "the same on other nodes" } }
            p {
                @for (at, other) in elsewhere.iter().enumerate() {
                    @if at > 0 { ", " }
                    a href={ "/violations/" (other.id) } { (text::plain(sentence::node_name(other))) } " " span.soft { (text::age(other.detected, now)) }
                }
                @if let Some(path) = &elsewhere[0].path { " · " a href=(address("/violations", &[("q", path)])) { "all of them" } }
            }
        }
    }
}

fn history(steps: &[HistoryStep], deliveries: &[Delivery]) -> Markup {
    html! {
        @if steps.is_empty() { p.none { "No step is recorded." } } @else {
            ol.steps { @for step in steps {
                li data-row=(step.id) id={ "s" (step.id) } {
                    span.soft { (text::moment(step.at)) }
                    span {
                        b { (capital(&step.step)) }
                        @if let Some(record) = &step.record { (told(step, record)) }
                        @for delivery in deliveries.iter().filter(|delivery| delivery.tells.as_deref() == Some(&step.id)) { (delivered(delivery)) }
                    }
                }
            } }
        }
    }
}

fn told(step: &HistoryStep, record: &ViolationView) -> Markup {
    html! {
        @match step.step.as_str() {
            "resolved" => { @if let Some(how) = &record.resolution { ": " (text::plain(how)) } }
            _ if !record.fields.is_empty() => { ": " (sentence::fields(&record.fields)) }
            _ => { @if let Some(count) = record.count { ": " (text::count(count)) } }
        }
        @if step.step != "resolved" { @if record.actor.is_some() { span.soft { ", by " (sentence::who(record.actor.as_ref())) } } }
    }
}

fn delivered(delivery: &Delivery) -> Markup {
    html! {
        span.note {
            @if let Some(at) = delivery.delivered { "told " (text::plain(&delivery.channel)) " " (text::moment(at)) @if delivery.attempts > 1 { ", at attempt " (delivery.attempts) } }
            @else if delivery.given_up.is_some() { span.bad { "given up on telling " (text::plain(&delivery.channel)) } " after " (delivery.attempts) " attempts: " (text::plain(delivery.last_error.as_deref().unwrap_or("no reason kept"))) }
            @else { span.warn { "waits for " (text::plain(&delivery.channel)) } @if let Some(error) = &delivery.last_error { ": " (text::plain(error)) } }
        }
    }
}

pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample;

    #[test]
    fn what_differs_is_marked_inside_the_value() {
        let shown = what(&sample::violation()).into_string();
        assert!(
            shown.contains("<mark class=\"piece\">4</mark>")
                && shown.contains("<mark class=\"piece\">s</mark>"),
            "{shown}"
        );
        assert!(shown.contains("sealed"));
    }

    #[test]
    fn who_shows_the_chain_the_user_and_how_sure_we_are() {
        let shown = who(&sample::violation(), None).into_string();
        assert!(
            shown.contains("mallory")
                && shown.contains("chmod u+s")
                && shown.contains("fairly sure"),
            "{shown}"
        );
        let mut nobody = sample::violation();
        nobody.actor = None;
        assert!(who(&nobody, None).into_string().contains("Not known"));
    }

    #[test]
    fn a_hostile_command_line_stays_text() {
        let mut violation = sample::violation();
        if let Some(actor) = &mut violation.actor {
            actor.cmdline = Some("sh -c '<script>alert(1)</script>'\u{1b}[31m".to_owned());
        }
        let shown = who(&violation, None).into_string();
        assert!(
            !shown.contains("<script>") && shown.contains("\\u{1b}"),
            "{shown}"
        );
    }
}
