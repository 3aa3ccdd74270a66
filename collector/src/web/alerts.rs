//! `/alerts`: who is told of what, whether it reached them, and what did not. Who is limited to groups sees what tells of their nodes.

use attestation::time::Timestamp;
use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Filled;
use super::{address, shell, state, text};
use crate::access::{Person, Reach, Right};
use crate::alerts::{
    self, Alerting, ChannelView, Delivery, DeliveryFilter, DeliveryState, Trial, route,
};
use crate::api::{Asked, Listed, Named};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;

/// Deliveries on a page.
const ROWS: u32 = 50;
/// Dead letters shown above them.
const DEAD: u32 = 20;

/// The filters, as they stand in the address.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    state: String,
    before: Option<i64>,
}

impl Filter {
    fn state(&self) -> Option<DeliveryState> {
        [
            DeliveryState::Waiting,
            DeliveryState::Delivered,
            DeliveryState::GivenUp,
        ]
        .into_iter()
        .find(|state| state.as_str() == self.state)
    }

    fn wanted(&self) -> DeliveryFilter<'_> {
        DeliveryFilter {
            channel: (!self.channel.is_empty()).then_some(self.channel.as_str()),
            state: self.state(),
            before: self.before,
        }
    }

    fn address(&self, channel: &str, state: &str, before: &str) -> String {
        address(
            "/alerts",
            &[("channel", channel), ("state", state), ("before", before)],
        )
    }
}

/// `GET /alerts`.
pub(super) async fn page(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(filter): Asked<Filter>,
) -> Result<Markup, ProblemResponse> {
    let (app, reach, now) = (&people.app, &person.reach, clock::now());
    let (store, alerting) = (&app.store, &*app.channels.alerting);
    let channels = alerts::channels(store, alerting, reach).await?;
    let told = alerts::deliveries(store, Some(alerting), reach, filter.wanted(), ROWS + 1).await?;
    let listed = Listed::of(told, ROWS, |row| row.cursor.to_string());
    let given_up = DeliveryFilter {
        state: Some(DeliveryState::GivenUp),
        ..DeliveryFilter::default()
    };
    let dead = alerts::deliveries(store, Some(alerting), reach, given_up, DEAD).await?;
    let here = filter.address(
        &filter.channel,
        &filter.state,
        &filter.before.map(|at| at.to_string()).unwrap_or_default(),
    );
    let may = person.may(Right::Respond);
    let body = html! {
        h1 { (first_line(&channels)) }
        @if !reach.is_all() { p.lead { "You see what is told of the nodes that you reach: other deliveries are neither shown nor counted." } }
        @if channels.is_empty() { (nobody(reach, alerting)) } @else {
            (shell::live("channels", &here, &["violation"], &channel_table(&channels, may && reach.is_all(), now)))
            @if may && !reach.is_all() { p.note { "A test reaches everybody whom the channel tells: only who is limited to no group may send one." } }
            h2 #routes { "Routes" }
            (routes(&alerting.routes_within(reach).iter().map(route::words).collect::<Vec<_>>()))
        }
        @if !dead.is_empty() {
            h2 #dead { "Dead letters" small { "given up on; nobody was told" } }
            (deliveries(&dead, may, now))
        }
        h2 #deliveries { "Deliveries" }
        (filters(&filter, &channels))
        @if listed.items.is_empty() { p.none { "Nothing was told yet: a violation enters here as soon as it opens." } }
        @else { (shell::live("deliveries-list", &here, &["violation"], &deliveries(&listed.items, may, now))) }
        @if let Some(next) = &listed.next { p.pages { a href=(filter.address(&filter.channel, &filter.state, next)) { "Older" } } }
    };
    Ok(shell::page(&person, "/alerts", "Alerts", &body))
}

fn first_line(channels: &[ChannelView]) -> String {
    let waiting: u64 = channels.iter().map(|channel| channel.waiting).sum();
    let failing = channels
        .iter()
        .filter(|channel| channel.last_error.is_some() || channel.trouble.is_some())
        .count();
    let dead: u64 = channels.iter().map(|channel| channel.given_up).sum();
    match (channels.len(), failing, waiting, dead) {
        (0, ..) => "Nobody is told of violations.".to_owned(),
        (_, 0, 0, 0) => "Every alert has been delivered.".to_owned(),
        (_, 0, waiting, 0) => format!(
            "{} on the way.",
            text::counted(waiting, "alert is", "alerts are")
        ),
        (_, 0, _, dead) => format!(
            "{} given up on.",
            text::counted(dead, "alert was", "alerts were")
        ),
        (_, failing, waiting, _) => format!(
            "{} not reached; {}.",
            text::counted(
                u64::try_from(failing).unwrap_or(0),
                "channel is",
                "channels are"
            ),
            text::counted(waiting, "alert waits", "alerts wait")
        ),
    }
}

/// Where nobody is told: what to do about it.
fn nobody(reach: &Reach, alerting: &Alerting) -> Markup {
    html! {
        @if alerting.channels().is_empty() { (none_configured()) } @else {
            div.empty { p { "No route sends what is found on " (text::nodes_of(reach)) " to a channel. Whoever keeps the collector’s configuration adds one there: " code { "[[route]]" } " with the channels, and these groups or none." } }
        }
    }
}

fn none_configured() -> Markup {
    html! {
        div.empty {
            p { b { "Add a channel" } " to the collector’s configuration and restart it; each secret lies in a file of its own that others cannot read:" }
            pre { "[[webhook]]\nurl = \"https://alerts.example/pristine\"\nsecret_file = \"webhook.secret\"\n\n[[slack]]\nname = \"chat\"\nurl_file = \"slack.url\"\n\n[[email]]\nname = \"mail\"\nserver = \"smtp.example\"\nfrom = \"pristine@example.org\"\nto = [\"ops@example.org\"]" }
        }
    }
}

fn channel_table(channels: &[ChannelView], may: bool, now: Timestamp) -> Markup {
    html! {
        table.channels {
            thead { tr { th scope="col" { "Channel" } th scope="col" { "Kind" } th scope="col" { "Where to" } th scope="col" { "Last accepted" } th.num scope="col" { "Waiting" } th.num scope="col" { "Given up" } th scope="col" { "Is told" } @if may { th scope="col" { "Try" } } } }
            tbody { @for channel in channels { tr data-row={ "c" (channel.name) } {
                td data-label="Channel" { div.cell { b { (text::plain(&channel.name)) }
                    @if let Some(trouble) = &channel.trouble { span.sub.bad { (text::plain(trouble)) } }
                    @else if let Some(error) = &channel.last_error { span.sub.warn { (text::plain(error)) } }
                } }
                td data-label="Kind" { div.cell { (channel.kind) } }
                td data-label="Where to" { div.cell { (text::plain(&channel.place)) } }
                td data-label="Last accepted" { div.cell { @if let Some(at) = channel.delivered { (text::age(at, now)) } @else { span.none { "never" } } } }
                td.num data-label="Waiting" { div.cell { (text::count(channel.waiting)) @if let Some(at) = channel.oldest { span.sub { "oldest " (text::age(at, now)) } } } }
                td.num data-label="Given up" { div.cell { (text::count(channel.given_up)) } }
                td data-label="Is told" { div.cell { @if channel.gathers { "the same change on many nodes as one message" } @else { "each step of each violation" } } }
                @if may { td data-label="Try" { div.cell { form method="post" action={ "/alerts/channels/" (channel.name) "/test" } { button.act type="submit" { "Send a test" } } } } }
            } } }
        }
    }
}

fn routes(words: &[String]) -> Markup {
    html! {
        @if words.is_empty() {
            p { "There is none: every channel is told of everything." }
        } @else {
            ul { @for route in words { li { (text::plain(route)) } } }
        }
        p.note { "Nobody is told of a suspended node; what happens there is recorded." }
    }
}

fn filters(filter: &Filter, channels: &[ChannelView]) -> Markup {
    html! {
        form.filters method="get" action="/alerts" {
            label { "Channel" select name="channel" {
                option value="" { "all" }
                @for channel in channels { option value=(channel.name) selected[channel.name == filter.channel] { (text::plain(&channel.name)) } }
            } }
            label { "State" select name="state" {
                option value="" { "all" }
                @for (word, shown) in [("waiting", "waiting"), ("delivered", "delivered"), ("given-up", "given up")] { option value=(word) selected[word == filter.state] { (shown) } }
            } }
            button.act type="submit" { "Filter" }
        }
    }
}

fn deliveries(rows: &[Delivery], may: bool, now: Timestamp) -> Markup {
    html! {
        table.deliveries {
            thead { tr { th scope="col" { "When" } th scope="col" { "Channel" } th scope="col" { "State" } th scope="col" { "Tells" } th.num scope="col" { "Attempts" } th scope="col" { "Message" } } }
            tbody { @for row in rows { tr data-row={ "d" (row.cursor) } {
                td data-label="When" { div.cell { (text::age(row.created, now)) } }
                td data-label="Channel" { div.cell { (text::plain(&row.channel)) } }
                td data-label="State" { div.cell { (stands(row, now))
                    @if may && row.state == DeliveryState::GivenUp {
                        form method="post" action={ "/alerts/" (row.id) "/retry" } {
                            input type="hidden" name="channel" value=(row.channel);
                            button.act type="submit" { "Try again" }
                        }
                    }
                } }
                td data-label="Tells" { div.cell {
                    (row.step.as_deref().unwrap_or("")) " "
                    @if let Some(violation) = &row.violation { a href={ "/violations/" (violation) } { "violation" } }
                    @if let Some(nodes) = row.nodes { span.sub { "on " (text::counted(nodes, "node", "nodes")) } }
                } }
                td.num data-label="Attempts" { div.cell { (row.attempts) } }
                td data-label="Message" { div.cell { span.digest title=(row.id) { "…" (text::plain(end_of(&row.id))) } } }
            } } }
        }
    }
}

fn stands(row: &Delivery, now: Timestamp) -> Markup {
    html! {
        @match row.state {
            DeliveryState::Delivered => { (state::tag("delivered", "good")) @if let Some(at) = row.delivered { " " (text::age(at, now)) } }
            DeliveryState::GivenUp => { (state::tag("given up", "bad")) @if let Some(at) = row.given_up { " " (text::age(at, now)) } }
            DeliveryState::Waiting => {
                (state::tag("waiting", "warn"))
                @if let Some(at) = row.next_attempt { " " @if at > now { "next in " (text::span(at.as_micros().saturating_sub(now.as_micros()))) } @else { "due" } }
            }
        }
        @if row.state != DeliveryState::Delivered { @if let Some(error) = &row.last_error { span.sub { (text::plain(error)) } } }
    }
}

/// `POST /alerts/channels/{name}/test`: what became of it is a page of its own.
pub(super) async fn test(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(name): Named<String>,
) -> Result<Markup, ProblemResponse> {
    let trial = alerts::trial(&people.app, &name, &person).await?;
    Ok(shell::page(&person, "/alerts", "Test", &outcome(&trial)))
}

fn outcome(trial: &Trial) -> Markup {
    html! {
        p.crumbs { a href="/alerts" { "Alerts" } }
        h1 { (text::plain(&trial.channel)) @if trial.accepted { " has taken the test message." } @else { " has not taken the test message." } }
        dl.facts {
            dt { "Kind" } dd { (trial.kind) }
            dt { "Where to" } dd { (text::plain(&trial.place)) }
            @if let Some(error) = &trial.error { dt { "Why not" } dd { span.bad { (text::plain(error)) } } }
            dt { "Took" } dd { (text::count(trial.milliseconds)) " ms" }
            dt { "Message" } dd { (text::plain(&trial.id)) }
        }
        @if trial.accepted { p.note { "Taken by the receiver; look there whether it reached people." } }
    }
}

#[derive(Deserialize)]
pub(super) struct Which {
    channel: String,
}

/// `POST /alerts/{id}/retry`.
pub(super) async fn retry(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(which): Filled<Which>,
) -> Result<Redirect, ProblemResponse> {
    crate::api::alerts::again(&people, &id, Some(&which.channel), &person).await?;
    Ok(Redirect::to("/alerts"))
}

/// The last digits of an id: the first ones are its time, and are the same for all that happened at once.
fn end_of(id: &str) -> &str {
    id.char_indices()
        .rev()
        .nth(11)
        .map_or(id, |(at, _)| &id[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelView {
        ChannelView {
            name: name.to_owned(),
            kind: "slack",
            place: "hooks.example".to_owned(),
            gathers: true,
            hears: Vec::new(),
            trouble: None,
            waiting: 0,
            oldest: None,
            given_up: 0,
            delivered: None,
            last_error: None,
        }
    }

    #[test]
    fn the_first_line_answers() {
        assert_eq!(first_line(&[]), "Nobody is told of violations.");
        let mut one = channel("chat");
        assert_eq!(
            first_line(std::slice::from_ref(&one)),
            "Every alert has been delivered."
        );
        one.waiting = 3;
        assert_eq!(
            first_line(std::slice::from_ref(&one)),
            "3 alerts are on the way."
        );
        one.last_error = Some("not reached".to_owned());
        assert_eq!(
            first_line(std::slice::from_ref(&one)),
            "1 channel is not reached; 3 alerts wait."
        );
        let mut dead = channel("chat");
        dead.given_up = 1;
        assert_eq!(first_line(&[dead]), "1 alert was given up on.");
    }

    #[test]
    fn where_nobody_is_told_the_page_says_what_to_do() {
        let mut settings = crate::settings::CollectorSettings::new("/tmp".into());
        let shown = |settings: &_, reach: &Reach| {
            let alerting = Alerting::new(settings, ([127, 0, 0, 1], 1).into());
            nobody(reach, &alerting).into_string()
        };
        let web = Reach::of(["<web>".to_owned()]);
        assert!(shown(&settings, &web).contains("Add a channel"));
        settings.webhooks = vec![crate::settings::Webhook::new(
            "http://127.0.0.1/",
            "s".to_owned(),
        )];
        let limited = shown(&settings, &web);
        assert!(
            limited.contains("&lt;web&gt;") && limited.contains("[[route]]"),
            "{limited}"
        );
    }

    #[test]
    fn only_who_may_has_buttons() {
        let channels = [channel("chat")];
        let now = Timestamp::from_micros(0);
        assert!(
            channel_table(&channels, true, now)
                .into_string()
                .contains("/alerts/channels/chat/test")
        );
        assert!(
            !channel_table(&channels, false, now)
                .into_string()
                .contains("<form")
        );
    }
}
