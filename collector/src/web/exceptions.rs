//! `/exceptions`: differences that were accepted until an end, and those that wait for another person's word.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::decision::{Request, Said, form};
use super::form::Filled;
use super::value;
use super::violation::side_by_side;
use super::{address, paging, shell, state, text};
use crate::access::{Person, Right};
use crate::api::exceptions::{For, found};
use crate::api::{Asked, Listed, Named};
use crate::approvals::Ending;
use crate::clock;
use crate::door::people::People;
use crate::exceptions::{
    self, About, ExceptionFilter, ExceptionView, Relying, State as Stands, Wanted,
};
use crate::problem::ProblemResponse;
use crate::violations::view::ViolationView;

const ROWS: u32 = 100;
/// Nodes named on the page of one.
const RELYING: u32 = 200;
/// Days that the form proposes: a month to put it right.
const DAYS: u32 = 30;

/// The filters, as they stand in the address.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    state: String,
    #[serde(default)]
    after: String,
}

/// `GET /exceptions`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let (wanted, after) = (some(&filter.state), some(&filter.after));
    let asked = ExceptionFilter {
        state: wanted.as_deref(),
        node: None,
        before: after.as_deref(),
    };
    let items = exceptions::list(&people.app, &person.reach, asked, ROWS + 1, now).await?;
    let listed = Listed::of(items, ROWS, |item| item.id.clone());
    let here = |after: &str| address("/exceptions", &[("state", &filter.state), ("after", after)]);
    let newest = (!filter.after.is_empty()).then(|| here(""));
    let older = listed.next.as_deref().map(here);
    let body = html! {
        h1 { (first_line(&filter, &listed)) }
        p.lead { "An exception accepts the exact line that was found, until its end. The verdict stays what it is; another line at the path is a violation again." }
        (filters(&filter))
        @if listed.items.is_empty() { (empty(&filter)) } @else {
            (table(&listed.items, now))
            (paging::older(newest.as_deref(), older.as_deref()))
        }
    };
    let live = shell::live("exceptions", &here(&filter.after), &["violation"], &body);
    Ok(shell::page(&person, "/exceptions", "Exceptions", &live))
}

fn first_line(filter: &Filter, listed: &Listed<ExceptionView>) -> Markup {
    let count = u64::try_from(listed.items.len()).unwrap_or(0);
    let waiting = listed
        .items
        .iter()
        .filter(|it| it.state == Stands::Waiting)
        .count();
    html! {
        @if count == 0 { "No exceptions." } @else {
            @if listed.next.is_some() { "More than " }
            (text::counted(count, "exception", "exceptions"))
            @if !filter.state.is_empty() { ", " (text::plain(&filter.state)) }
            @else if waiting > 0 { ", " (waiting) (if waiting == 1 { " waits" } else { " wait" }) " for another person" }
            "."
        }
    }
}

fn filters(filter: &Filter) -> Markup {
    html! {
        form.filters method="get" action="/exceptions" {
            label { "State" select name="state" {
                option value="" { "any" }
                @for word in ["waiting", "approved", "ended", "refused", "withdrawn", "revoked"] { option value=(word) selected[filter.state == word] { (word) } }
            } }
            button.act type="submit" { "Filter" }
            @if !filter.state.is_empty() { a.act href="/exceptions" { "All" } }
        }
    }
}

fn empty(filter: &Filter) -> Markup {
    html! {
        div.empty {
            @if filter.state.is_empty() {
                p { "Nothing is excepted. Where a difference may stay for a while, ask for an exception on the page of its violation." }
                p { a href="/violations?kind=difference" { "Open differences" } }
            } @else { p { "No exception fits this filter. " a href="/exceptions" { "Show all" } } }
        }
    }
}

/// Where one stands: a word with its mark.
fn mark(stands: Stands) -> Markup {
    let (shape, tone) = match stands {
        Stands::Approved => ("pristine", "good"),
        Stands::Waiting => ("incomplete", "warn"),
        Stands::Refused | Stands::Revoked => ("lost", "bad"),
        Stands::Withdrawn | Stands::Ended => ("pending", "quiet"),
    };
    html! { span class={ "state " (tone) } { (state::shape(shape)) (stands.as_str()) } }
}

fn place(exception: &ExceptionView) -> Markup {
    html! {
        @match (&exception.node, &exception.group) {
            (Some(node), _) => a href={ "/nodes/" (node) } { (text::plain(exception.node_name.as_deref().unwrap_or(node))) },
            (None, Some(group)) => { "group " a href=(address("/nodes", &[("group", group)])) { (text::plain(group)) } },
            (None, None) => span.none { "nowhere" },
        }
    }
}

fn table(all: &[ExceptionView], now: Timestamp) -> Markup {
    html! {
        table.exceptions {
            thead { tr { th scope="col" { "State" } th scope="col" { "Path" } th scope="col" { "On" } th scope="col" { "Reason" } th scope="col" { "Owner" } th scope="col" { "Asked for by" } th scope="col" { "Approved by" } th scope="col" { "Ends" } th.num scope="col" { "Nodes" } } }
            tbody { @for one in all {
                tr data-row={ (one.id) "-" (one.state.as_str()) } id={ "e" (one.id) } {
                    td data-label="State" { div.cell { (mark(one.state)) } }
                    td data-label="Path" { div.cell { a href={ "/exceptions/" (one.id) } { (text::path(&one.path)) } } }
                    td data-label="On" { div.cell { (place(one)) } }
                    td data-label="Reason" { div.cell { (text::plain(&one.reason)) @if !one.ticket.is_empty() { span.sub { (text::plain(&one.ticket)) } } } }
                    td data-label="Owner" { div.cell { (text::plain(&one.owner)) } }
                    td data-label="Asked for by" { div.cell { (text::plain(&one.requested_by)) span.sub { (text::age(one.requested, now)) } } }
                    td data-label="Approved by" { div.cell { (asked(one).decided(now)) } }
                    td data-label="Ends" { div.cell { (text::moment(one.ends)) } }
                    td.num data-label="Nodes" { div.cell { (text::count(one.nodes)) } }
                }
            } }
        }
    }
}

/// Who asked for one, and who decided.
fn asked(one: &ExceptionView) -> Request<'_> {
    let ended = matches!(one.state, Stands::Refused | Stands::Withdrawn);
    let own = one.decided_by.as_ref() == Some(&one.requested_by);
    Request {
        by: &one.requested_by,
        at: one.requested,
        decided: one.decided_by.as_deref().zip(one.decided),
        said: one.decision.as_deref(),
        same_person: own && one.state != Stands::Withdrawn,
        ended: ended.then(|| one.state.as_str()),
    }
}

/// `GET /exceptions/{id}`.
pub(super) async fn one(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Markup, ProblemResponse> {
    let now = clock::now();
    let exception = found(&people, &id).await?;
    let relying = exceptions::relying(&people.app, &id, RELYING).await?;
    let body = html! {
        p.crumbs { a href="/exceptions" { "Exceptions" } " / " (place(&exception)) }
        h1 { (sentence(&exception)) }
        p.lead { (mark(exception.state)) ", " @if exception.ends > now { "ends " } @else { "ended " } (text::moment(exception.ends)) "." }
        h2 #what { "What is accepted" small { (text::path_to_copy(&exception.path)) } }
        (lines(&exception))
        div.cols {
            div { h2 #why { "Why" } (why(&exception)) }
            div { h2 #who { "Who" } (who(&exception, now)) }
        }
        (answer(&exception, &person))
        @if exception.state == Stands::Approved { (nodes(&exception, &relying, now)) }
    };
    let title = format!("Exception for {}", exception.path);
    let live = shell::live(
        "exception",
        &format!("/exceptions/{id}"),
        &["violation"],
        &body,
    );
    Ok(shell::page(&person, "/exceptions", &title, &live))
}

fn sentence(one: &ExceptionView) -> Markup {
    let path = text::path(&one.path);
    let on = place(one);
    html! {
        @match one.state {
            Stands::Waiting => { (path) " on " (on) " is asked to be accepted as it was found." }
            Stands::Approved => { (path) " on " (on) " is accepted as it was found." }
            Stands::Refused => { (path) " on " (on) " was not accepted." }
            Stands::Withdrawn => { "The request to accept " (path) " on " (on) " was withdrawn." }
            Stands::Revoked => { (path) " on " (on) " is accepted no more: the exception was revoked." }
            Stands::Ended => { (path) " on " (on) " is accepted no more: the exception has ended." }
        }
    }
}

fn lines(one: &ExceptionView) -> Markup {
    let (expected, found) = (one.expected.as_deref(), one.found.as_deref());
    let fields = value::fields(expected, found);
    let rows = value::compare(&fields, expected, found);
    html! {
        @if rows.is_empty() { p { @match found { Some(line) => code { (text::encoded(line)) }, None => "that nothing is there" } } }
        @else { (side_by_side(&rows, expected.is_some(), expected.is_some() && found.is_none())) }
    }
}

fn why(one: &ExceptionView) -> Markup {
    html! {
        dl.facts {
            dt { "Reason" } dd { (text::plain(&one.reason)) }
            dt { "Ticket" } dd { @if one.ticket.is_empty() { span.none { "none" } } @else { (text::plain(&one.ticket)) } }
            dt { "Owner" } dd { (text::plain(&one.owner)) }
            @if let Some(violation) = &one.violation { dt { "Asked for at" } dd { a href={ "/violations/" (violation) } { "its violation" } } }
        }
    }
}

fn who(one: &ExceptionView, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            (asked(one).facts("", "Approved by", now))
            @if let (Some(by), Some(at)) = (&one.revoked_by, one.revoked) {
                dt { "Revoked by" } dd { (text::plain(by)) ", " (text::age(at, now)) @if let Some(said) = &one.revoke_reason { span.note { (text::plain(said)) } } }
            }
        }
    }
}

/// What this person may say of it.
fn answer(one: &ExceptionView, person: &Person) -> Markup {
    let page = format!("/exceptions/{}", one.id);
    html! {
        @if one.waits {
            (asked(one).answer(&page, person, "Approving ends the violations that it is about, until its end.", None))
        } @else if one.state == Stands::Approved && person.may(Right::Approve) {
            h2 #answer { "What now" }
            (form(&format!("{page}/revoke"), None, "Revoke"))
            p.note { "Revoking makes the difference a violation again with each node’s next statement." }
        }
    }
}

fn nodes(one: &ExceptionView, relying: &[Relying], now: Timestamp) -> Markup {
    html! {
        h2 #nodes { "Relies on it" small { (text::counted(one.nodes, "node", "nodes")) } }
        @if relying.is_empty() { p.none { "No node: nothing is found as it was accepted." } } @else {
            p {
                @for (at, node) in relying.iter().enumerate() {
                    @if at > 0 { ", " }
                    a href={ "/nodes/" (node.node) } { (text::plain(&node.name)) } " " span.soft { (text::age(node.since, now)) }
                }
                @if one.nodes > u64::from(RELYING) { " and more" }
            }
        }
    }
}

/// What was asked for at a violation, and the form that asks.
pub(super) fn section(
    violation: &ViolationView,
    asked: &[ExceptionView],
    person: &Person,
    now: Timestamp,
) -> Markup {
    let waiting = asked.iter().any(|one| one.waits);
    let form = exceptions::refused(violation).is_none() && person.may(Right::Request) && !waiting;
    html! {
        @if form || !asked.is_empty() {
            h2 #exception { "Exception" }
            @for one in asked {
                p { (mark(one.state)) " " a href={ "/exceptions/" (one.id) } { "asked for by " (text::plain(&one.requested_by)) } " " (text::age(one.requested, now)) ", until " (text::moment(one.ends)) ": " (text::plain(&one.reason)) }
            }
            @if form { (request_form(violation)) }
        }
    }
}

fn request_form(violation: &ViolationView) -> Markup {
    html! {
        form.review method="post" action={ "/violations/" (violation.id) "/except" } {
            label { "Reason" input name="reason" required maxlength="1000" autocomplete="off" placeholder="why it may stay"; }
            label { "Ticket" input name="ticket" maxlength="200" autocomplete="off"; }
            label { "Owner" input name="owner" maxlength="200" autocomplete="off" placeholder="who answers for it"; }
            label { "Days" input name="days" type="number" min="1" max="366" value=(DAYS) required; }
            label { "On" select name="for" { option value="node" { "this node" } option value="group" { "its whole group" } } }
            button.act type="submit" { "Ask for an exception" }
        }
        p.note { "It accepts exactly the line that was found, until its end. Another person approves it; another line at this path is a violation again." }
    }
}

/// What the form of a violation's page says.
#[derive(Deserialize)]
pub(super) struct Asking {
    reason: String,
    #[serde(default)]
    ticket: String,
    #[serde(default)]
    owner: String,
    days: u32,
    #[serde(default)]
    r#for: For,
}

/// `POST /violations/{id}/except`.
pub(super) async fn request(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(asking): Filled<Asking>,
) -> Result<Redirect, ProblemResponse> {
    let wanted = Wanted {
        about: About::Violation {
            id,
            group: asking.r#for == For::Group,
        },
        reason: asking.reason,
        ticket: asking.ticket,
        owner: asking.owner,
        ends: clock::after(clock::now(), u64::from(asking.days) * 86_400),
    };
    let decided = exceptions::request(&people.app, wanted, &person).await?;
    Ok(Redirect::to(&format!(
        "/exceptions/{}",
        decided.exception.id
    )))
}

/// `POST /exceptions/{id}/approve`.
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    exceptions::approve(&people.app, &id, Some(&said.reason), &person).await?;
    Ok(Redirect::to(&format!("/exceptions/{id}")))
}

/// `POST /exceptions/{id}/refuse`.
pub(super) async fn refuse(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    exceptions::end(&people.app, &id, Ending::Refuse, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/exceptions/{id}")))
}

/// `POST /exceptions/{id}/withdraw`.
pub(super) async fn withdraw(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    exceptions::end(&people.app, &id, Ending::Withdraw, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/exceptions/{id}")))
}

/// `POST /exceptions/{id}/revoke`.
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    exceptions::revoke(&people.app, &id, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/exceptions/{id}")))
}
