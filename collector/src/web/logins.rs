//! `/sessions` and `/sessions/ID`: who logged in where, what was run, and what else this login did.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::{address, shell, state, text, violations};
use crate::access::Person;
use crate::api::reads::TouchedView;
use crate::api::{Asked, Named};
use crate::clock;
use crate::door::people::People;
use crate::logins::{self, CommandView, Filter, LoginView};
use crate::problem::ProblemResponse;
use crate::violations::view::ViolationView;

/// Sessions on one page.
const PAGE: u32 = 100;
/// Commands and changes on a session's page: as many as are kept.
const WHOLE: u32 = 1_000;

#[derive(Deserialize)]
pub(super) struct Query {
    /// Only this node's.
    #[serde(default)]
    node: String,
    /// Older than this one.
    #[serde(default)]
    before: String,
}

/// `GET /sessions`.
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Result<Markup, ProblemResponse> {
    let some = |text: &'_ str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (node, before) = (some(&query.node), some(&query.before));
    let filter = Filter {
        node: node.as_deref(),
        before: before.as_deref(),
    };
    let mut sessions = logins::list(&people.app, &person.reach, filter, PAGE + 1).await?;
    let most = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let next = (sessions.len() > most).then(|| {
        sessions.truncate(most);
        sessions.last().map(|it| it.id.clone()).unwrap_or_default()
    });
    let now = clock::now();
    let body = html! {
        h1 { @if sessions.is_empty() { "No login has been told." } @else { "Logins, the newest first." } }
        p.lead { "On a server that is an image, a login is an event. What the kernel calls one session stands in one line; services’ own processes are not among them." }
        @if !query.node.is_empty() { p.pages { a href="/sessions" { "Those of all nodes" } } }
        @if sessions.is_empty() { p.none { "An agent tells of logins where the kernel lets it follow processes; its node’s page says whether it can." } } @else { (table(&sessions, true, now)) }
        @if let Some(next) = next { p.pages { a href=(address("/sessions", &[("node", query.node.as_str()), ("before", next.as_str())])) { "Older ones" } } }
    };
    let live = shell::live(
        "sessions",
        &address(
            "/sessions",
            &[
                ("node", query.node.as_str()),
                ("before", query.before.as_str()),
            ],
        ),
        &["session"],
        &body,
    );
    Ok(shell::page(&person, "/sessions", "Sessions", &live))
}

/// Sessions as a table.
pub(super) fn table(sessions: &[LoginView], with_node: bool, now: Timestamp) -> Markup {
    html! {
        table.sessions {
            thead { tr { th scope="col" { "User" } @if with_node { th scope="col" { "Node" } } th scope="col" { "From" } th scope="col" { "Began" } th scope="col" { "Ended" } th.num scope="col" { "Commands" } } }
            tbody { @for session in sessions {
                tr data-row=(session.id) id={ "l" (session.id) } {
                    td data-label="User" { div.cell { a href={ "/sessions/" (session.id) } { b { (text::plain(&session.who())) } } @if session.is_root() { " " (state::tag("root", "warn")) } } }
                    @if with_node { td data-label="Node" { div.cell { a href={ "/nodes/" (session.node) } { (text::plain(&session.node_name)) } } } }
                    td data-label="From" { div.cell { (from(session)) } }
                    td data-label="Began" { div.cell { (text::age(session.started, now)) } }
                    td data-label="Ended" { div.cell { @match session.ended { Some(at) => (text::age(at, now)), None => "not yet" } } }
                    td.num data-label="Commands" { div.cell { (text::count(session.commands + session.dropped)) } }
                }
            } }
        }
    }
}

fn from(session: &LoginView) -> Markup {
    html! {
        @match &session.from { Some(from) => code { (text::plain(from)) }, None => span.none { "not told" } }
        @if let Some(tty) = &session.tty { " " span.soft { (text::plain(tty)) } }
    }
}

/// `GET /sessions/{id}`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Markup, ProblemResponse> {
    let session = logins::named(&people.app, &id).await?.ok_or_else(|| {
        ProblemResponse::not_found(
            "no login session has this id; of each node the newest thousand are kept",
        )
    })?;
    let ran = logins::commands(&people.app, &id, WHOLE).await?;
    let (changed, touched) = logins::changes(&people.app, &session, WHOLE).await?;
    let now = clock::now();
    let body = html! {
        p.crumbs { a href="/sessions" { "Sessions" } " / " a href={ "/nodes/" (session.node) } { (text::plain(&session.node_name)) } }
        h1 { (first_line(&session, changed.len() + touched.len())) }
        (facts(&session, now))
        h2 #changed { "What it changed" }
        (changes(&changed, &touched, now))
        h2 #ran { "What it ran" @if session.dropped > 0 { small { (text::count(session.dropped)) " more are counted, not listed" } } }
        (commands(&ran))
    };
    let live = shell::live(
        "session",
        &format!("/sessions/{id}"),
        &["node", "violation"],
        &body,
    );
    let title = format!("{} on {}", session.who(), session.node_name);
    Ok(shell::page(&person, "/sessions", &title, &live))
}

fn first_line(session: &LoginView, changes: usize) -> Markup {
    html! {
        b { (text::plain(&session.who())) } " logged in on " (text::plain(&session.node_name))
        @if let Some(from) = &session.from { " from " code { (text::plain(from)) } }
        @match changes { 0 => " and changed nothing that is attested.", 1 => " and changed one path.", more => { " and changed " (more) " paths." } }
    }
}

fn facts(session: &LoginView, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            dt { "Login user" } dd { (text::plain(&session.who())) " " span.soft { "login uid " (session.auid) } }
            dt { "From" } dd { (from(session)) }
            dt { "Began" } dd { (text::moment(session.started)) " " span.soft { (text::age(session.started, now)) } }
            dt { "Ended" } dd { @match session.ended { Some(at) => { (text::moment(at)) }, None => "not yet" } }
            dt { "Session" } dd { (session.session) " " span.soft { "of boot " (text::plain(&session.boot)) } }
            dt { "Reported" } dd { (text::moment(session.told)) }
        }
    }
}

fn changes(changed: &[ViolationView], touched: &[TouchedView], now: Timestamp) -> Markup {
    html! {
        @if changed.is_empty() && touched.is_empty() { p.none { "No difference and no touched path names this session." } }
        @if !changed.is_empty() { (violations::table(changed, false, now)) }
        @if !touched.is_empty() {
            table.touched {
                thead { tr { th scope="col" { "Touched path" } th scope="col" { "Event" } th.num scope="col" { "Writes" } th scope="col" { "Last" } } }
                tbody { @for it in touched {
                    tr data-row=(it.id) {
                        td data-label="Touched path" { div.cell { (text::path_to_copy(&it.path)) } }
                        td data-label="Event" { div.cell { (text::plain(&it.event.replace(',', ", "))) } }
                        td.num data-label="Writes" { div.cell { (it.count) } }
                        td data-label="Last" { div.cell { (text::age(it.last, now)) } }
                    }
                } }
            }
        }
    }
}

fn commands(ran: &[CommandView]) -> Markup {
    html! {
        @if ran.is_empty() { p.none { "No command of it has been told." } } @else {
            table.commands {
                thead { tr { th scope="col" { "When" } th scope="col" { "Program" } th scope="col" { "Arguments" } th.num scope="col" { "Process" } th.num scope="col" { "Exit" } } }
                tbody { @for command in ran {
                    tr {
                        td data-label="When" { div.cell { (text::moment(command.at)) } }
                        td data-label="Program" { div.cell { (text::path(&command.exe)) } }
                        td data-label="Arguments" { div.cell { @match &command.arguments { Some(arguments) => code { (text::plain(arguments)) }, None => span.none { "not told" } } } }
                        td.num data-label="Process" { div.cell { (command.pid) } }
                        td.num data-label="Exit" { div.cell { @match command.exit { Some(exit) => (exit), None => span.none { "runs" } } } }
                    }
                } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> LoginView {
        let at = Timestamp::from_micros(1_000_000);
        LoginView {
            id: "0199".to_owned(),
            node: "n".to_owned(),
            node_name: "web-<17>".to_owned(),
            boot: "b".to_owned(),
            session: 7,
            auid: 0,
            user: None,
            from: Some("192.0.2.1".to_owned()),
            tty: Some("pts/0".to_owned()),
            started: at,
            ended: None,
            commands: 2,
            dropped: 3,
            told: at,
        }
    }

    #[test]
    fn a_login_of_root_stands_out_and_names_stay_text() {
        let now = Timestamp::from_micros(2_000_000);
        let shown = table(&[session()], true, now).into_string();
        assert!(
            shown.contains("root") && shown.contains("web-&lt;17&gt;"),
            "{shown}"
        );
        assert!(shown.contains(">5<"), "commands and those dropped: {shown}");
        let line = first_line(&session(), 2).into_string();
        assert!(line.ends_with("and changed 2 paths."), "{line}");
    }
}
