//! What a person may decide about a node, as forms that work without script: each says what will happen, and asks for the reason.

use axum::Extension;
use axum::extract::State;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Filled;
use super::text;
use crate::access::{Person, Right};
use crate::api::Named;
use crate::door::people::People;
use crate::fleet::{self, Decision, decided};
use crate::problem::ProblemResponse;
use crate::store::{NodeRow, NodeState};

#[derive(Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
pub(super) struct Called {
    name: String,
}

#[derive(Deserialize)]
pub(super) struct Moved {
    group: String,
}

/// What may be decided about this node by this person; nothing where that is nothing.
pub(super) fn section(node: &NodeRow, person: &Person) -> Markup {
    let (steward, approver) = (person.may(Right::Steward), person.may(Right::Approve));
    if !steward && !approver && !person.may(Right::Respond) {
        return Markup::default();
    }
    let can = |decision, right: bool| right && decided(node.state, decision).is_ok();
    let speaks = matches!(node.state, NodeState::Active | NodeState::Suspended);
    html! {
        h2 #decide { "What may be done" }
        @if can(Decision::Approve, approver) {
            (form(node, "approve", "Let it in", None, "It gets a certificate at its next request, and attests. Whoever had its name and is gone becomes history."))
        }
        @if can(Decision::Resume, steward) {
            (form(node, "resume", "Resume", None, "It counts again, and what stands open of it is told now."))
        }
        @if can(Decision::Suspend, steward) {
            (form(node, "suspend", "Suspend", Some(true), "What it says is kept, and nobody is told of it, until somebody resumes it."))
        }
        @if speaks && person.may(Right::Respond) {
            (form(node, "rescan", "Rescan", None, "It is asked at its next contact to look at everything again."))
        }
        @if steward {
            form.review method="post" action={ "/nodes/" (node.id) "/rename" } {
                label { "Name" input name="name" required maxlength="253" value=(node.name) autocomplete="off" spellcheck="false"; }
                button.act type="submit" { "Rename" }
            }
            form.review method="post" action={ "/nodes/" (node.id) "/group" } {
                label { "Group" input name="group" required maxlength="253" value=(node.group) autocomplete="off" spellcheck="false"; }
                button.act type="submit" { "Move" }
            }
        }
        @if node.state != NodeState::Retired && can(Decision::Decommission, steward) {
            (form(node, "decommission", "Decommission", Some(false), "The machine is gone for good: this one node becomes history, its open violations end, and its certificate is no good any more."))
        }
        @if can(Decision::Ban, approver) {
            (form(node, "ban", "Ban", Some(true), "This one node is refused at every door from now on. Its open violations stay for a person to judge."))
        }
    }
}

/// One decision; `reason` says whether one is asked for, and whether it must be given.
fn form(node: &NodeRow, what: &str, name: &str, reason: Option<bool>, effect: &str) -> Markup {
    html! {
        form.review method="post" action={ "/nodes/" (node.id) "/" (what) } {
            @if let Some(required) = reason {
                label { "Reason to " (name.to_lowercase()) " " (text::plain(&node.name)) input name="reason" required[required] maxlength="1000" autocomplete="off"; }
            }
            button.act type="submit" { (name) }
            span.note { (effect) }
        }
    }
}

async fn decide(
    people: People,
    person: Person,
    id: String,
    said: Said,
    decision: Decision,
) -> Result<Redirect, ProblemResponse> {
    fleet::decide(&people.app, &person, &id, decision, &said.reason).await?;
    Ok(back(&id))
}

fn back(id: &str) -> Redirect {
    Redirect::to(&format!("/nodes/{id}"))
}

/// `POST /nodes/{id}/approve`.
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    decide(people, person, id, said, Decision::Approve).await
}

/// `POST /nodes/{id}/suspend`.
pub(super) async fn suspend(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    decide(people, person, id, said, Decision::Suspend).await
}

/// `POST /nodes/{id}/resume`.
pub(super) async fn resume(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    decide(people, person, id, said, Decision::Resume).await
}

/// `POST /nodes/{id}/ban`.
pub(super) async fn ban(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    decide(people, person, id, said, Decision::Ban).await
}

/// `POST /nodes/{id}/decommission`.
pub(super) async fn decommission(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(said): Filled<Said>,
) -> Result<Redirect, ProblemResponse> {
    decide(people, person, id, said, Decision::Decommission).await
}

/// `POST /nodes/{id}/rename`.
pub(super) async fn rename(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(called): Filled<Called>,
) -> Result<Redirect, ProblemResponse> {
    fleet::rename(&people.app, &person, &id, &called.name).await?;
    Ok(back(&id))
}

/// `POST /nodes/{id}/group`.
pub(super) async fn group(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    Filled(moved): Filled<Moved>,
) -> Result<Redirect, ProblemResponse> {
    fleet::move_to_group(&people.app, &person, &id, &moved.group).await?;
    Ok(back(&id))
}

/// `POST /nodes/{id}/rescan`.
pub(super) async fn rescan(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Result<Redirect, ProblemResponse> {
    fleet::rescan(&people.app, &person, &id).await?;
    Ok(back(&id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Reach, Role};
    use attestation::time::Timestamp;

    #[test]
    fn each_role_is_shown_what_it_may_do_and_no_more() {
        let node = |state| {
            let at = Timestamp::from_micros(0);
            let text = || "a".to_owned();
            NodeRow::new(text(), text(), text(), state, String::new(), at)
        };
        let shown = |state, role| {
            let person = Person {
                role,
                reach: Reach::all(),
                ..Person::local("ann")
            };
            section(&node(state), &person).into_string()
        };
        let active = shown(NodeState::Active, Role::Operator);
        for (what, there) in [
            ("suspend", true),
            ("decommission", true),
            ("rename", true),
            ("rescan", true),
            ("resume", false),
            ("approve", false),
            ("ban", false),
        ] {
            let action = format!("/nodes/a/{what}\"");
            assert_eq!(active.contains(&action), there, "{what}: {active}");
        }
        assert!(shown(NodeState::Pending, Role::Approver).contains("/nodes/a/approve\""));
        assert_eq!(shown(NodeState::Active, Role::Viewer), "");
    }
}
