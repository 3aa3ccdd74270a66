//! What a person may say of a violation, as a form that works without script.

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};

use super::decision::Said;
use super::form::Filled;
use super::text;
use super::violation::capital;
use crate::access::Person;
use crate::access::roles::{Right, Role};
use crate::api::Named;
use crate::door::people::People;
use crate::pins;
use crate::problem::ProblemResponse;
use crate::store::NodeRow;
use crate::violations::review::{self, Judged};
use crate::violations::view::ViolationView;
use attestation::time::Timestamp;

/// What was said, and what may be: nothing more once it is resolved.
pub(super) fn section(
    violation: &ViolationView,
    node: Option<&NodeRow>,
    role: Role,
    now: Timestamp,
) -> Markup {
    if violation.resolved.is_some() {
        return Markup::default();
    }
    let lasts = review::lasting(violation.kind, node);
    let acceptable = pins::refused(violation, node).is_none();
    let at = |what: &str| format!("/violations/{}/{what}", violation.id);
    html! {
        h2 #now { "What now" }
        @if let Some(seen) = &violation.acknowledged {
            p { "Acknowledged by " b { (text::plain(&seen.by)) } " " (text::age(seen.at, now)) ": " (text::plain(&seen.reason)) }
        }
        @if let Some(why) = lasts { p.soft { "It ends by itself, not by hand. " (capital(why)) "." } }
        @if !role.may(Right::Respond) { p.soft { "An operator may acknowledge it." } } @else {
            form.review method="post" action=(at("acknowledge")) {
                label { "Reason" input name="reason" required maxlength="1000" autocomplete="off" placeholder="what you found, a ticket, who was asked"; }
                button.act.first[lasts.is_some()] type="submit" { @if violation.acknowledged.is_some() { "Acknowledge again" } @else { "Acknowledge" } }
                @if lasts.is_none() {
                    button.act.first type="submit" formaction=(at("resolve")) { "Resolve" }
                    button.act type="submit" formaction=(at("false-alarm")) { "False alarm" }
                }
                @if acceptable { button.act.first type="submit" formaction=(at("accept")) { "Accept what was found" } }
            }
            p.note {
                "Acknowledging says that you have seen it as it now is; another finding at this path clears that. "
                @if lasts.is_none() { "Resolving ends this one violation; a false alarm says that nothing was wrong. " }
                @if acceptable { "Accepting asks the node to hold to what it found from now on; this ends when it says that it does. " }
                "Your name and the reason are kept in the history and told to every channel."
            }
        }
    }
}

/// `POST /violations/{id}/acknowledge`.
pub(super) async fn acknowledge(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    let seen = review::acknowledge(&people.app, &id, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/violations/{}", seen.id)))
}

/// `POST /violations/{id}/resolve`.
pub(super) async fn resolve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    settle(&people, &id, &said.reason, Judged::Reviewed, &person).await
}

/// `POST /violations/{id}/false-alarm`.
pub(super) async fn false_alarm(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    settle(&people, &id, &said.reason, Judged::FalseAlarm, &person).await
}

async fn settle(
    people: &People,
    id: &str,
    reason: &str,
    judged: Judged,
    person: &Person,
) -> Result<Redirect, ProblemResponse> {
    let ended = review::resolve(&people.app, id, reason, judged, person).await?;
    Ok(Redirect::to(&format!("/violations/{}", ended.id)))
}

/// `POST /violations/{id}/accept`.
pub(super) async fn accept(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    let seen = pins::accept(&people.app, &id, &said.reason, &person).await?;
    Ok(Redirect::to(&format!("/violations/{}", seen.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::violations::view::{Acknowledged, Kind};
    use crate::web::sample;

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);

    #[test]
    fn only_what_a_person_may_end_has_the_button_for_it() {
        let mut violation = sample::violation();
        violation.kind = Kind::Touched;
        let shown = section(&violation, None, Role::Admin, NOW).into_string();
        assert!(
            shown.contains("/resolve\"") && shown.contains("/acknowledge\""),
            "{shown}"
        );
        let viewer = section(&violation, None, Role::Viewer, NOW).into_string();
        assert!(!viewer.contains("<form"), "{viewer}");
        violation.resolved = Some(NOW);
        assert_eq!(
            section(&violation, None, Role::Admin, NOW).into_string(),
            ""
        );
    }

    #[test]
    fn what_was_said_stays_text() {
        let mut violation = sample::violation();
        violation.acknowledged = Some(Acknowledged {
            by: "ada".to_owned(),
            at: NOW,
            reason: "<b>fine</b>".to_owned(),
        });
        let shown = section(&violation, None, Role::Admin, NOW).into_string();
        assert!(
            shown.contains("&lt;b&gt;fine") && shown.contains("Acknowledge again"),
            "{shown}"
        );
    }
}
