//! What pages show alike of everything that one person asks for and another decides: who asked, who decided, and the form for the word
//! that is missing.

use attestation::time::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::{state, text};
use crate::access::{Person, Right};

/// What a form with a reason says.
#[derive(Deserialize)]
pub(super) struct Said {
    pub(super) reason: String,
}

/// A reason, and what to do with it.
pub(super) fn form(to: &str, refuse: Option<&str>, word: &str) -> Markup {
    html! {
        form.review method="post" action=(to) {
            label { "Reason" input name="reason" required maxlength="1000" autocomplete="off" placeholder="what was looked at, a ticket"; }
            button.act.first type="submit" { (word) }
            @if let Some(refuse) = refuse { button.act type="submit" formaction=(refuse) { "Refuse" } }
        }
    }
}

/// Something that somebody asked for, by what is told of it.
pub(super) struct Request<'a> {
    /// Who asked.
    pub(super) by: &'a str,
    /// When.
    pub(super) at: Timestamp,
    /// Who decided, and when.
    pub(super) decided: Option<(&'a str, Timestamp)>,
    /// What they said.
    pub(super) said: Option<&'a str>,
    /// Whether who decided is who asked, where it should be told.
    pub(super) same_person: bool,
    /// `refused` or `withdrawn`, where it ended so.
    pub(super) ended: Option<&'a str>,
}

impl Request<'_> {
    /// Who decided, and when.
    pub(super) fn decided(&self, now: Timestamp) -> Markup {
        html! {
            @match self.decided {
                Some((by, at)) => {
                    (text::plain(by))
                    @if self.same_person { " " (state::tag("same person", "warn")) }
                    @if let Some(ended) = self.ended { " " (state::tag(ended, "bad")) }
                    span.sub { (text::age(at, now)) }
                }
                None => span.none { "nobody yet" },
            }
        }
    }

    /// Who asked and who decided, as facts in a list; `why` is the request's reason where it stands there, `word` what became of it.
    pub(super) fn facts(&self, why: &str, word: &str, now: Timestamp) -> Markup {
        html! {
            dt { "Asked for by" } dd { (text::plain(self.by)) ", " (text::age(self.at, now)) @if !why.is_empty() { span.note { (text::plain(why)) } } }
            dt { (word) } dd { (self.decided(now)) @if let Some(said) = self.said.filter(|said| !said.is_empty()) { span.note { (text::plain(said)) } } }
        }
    }

    /// What this person may say of it while it waits: who asked takes it back, another person approves or refuses. `page` is its address,
    /// `effect` what an approval does, `rule` who must say yes, where that is told.
    pub(super) fn answer(
        &self,
        page: &str,
        person: &Person,
        effect: &str,
        rule: Option<&str>,
    ) -> Markup {
        let at = |what: &str| format!("{page}/{what}");
        html! {
            h2 #answer { "What now" }
            @if self.by == person.user {
                p { "You asked for this: another person approves or refuses it." }
                (form(&at("withdraw"), None, "Withdraw"))
            } @else if person.may(Right::Approve) {
                (form(&at("approve"), Some(&at("refuse")), "Approve"))
                p.note { (effect) " Your name and the reason are kept in the activity log." }
            } @else { p.soft { "An approver decides." @if let Some(rule) = rule { " " (rule) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Reach, Role};

    const NOW: Timestamp = Timestamp::from_micros(5_000_000);

    fn request() -> Request<'static> {
        Request {
            by: "ann",
            at: NOW,
            decided: None,
            said: None,
            same_person: false,
            ended: None,
        }
    }

    #[test]
    fn who_asked_may_take_it_back_and_only_another_may_decide() {
        let shown = |user: &str, role| {
            let person = Person {
                role,
                reach: Reach::all(),
                ..Person::local(user)
            };
            let rule = Some("Two persons.");
            request()
                .answer("/changes/1", &person, "It holds.", rule)
                .into_string()
        };
        let own = shown("ann", Role::Admin);
        assert!(
            own.contains("/changes/1/withdraw\"") && !own.contains("/approve\""),
            "{own}"
        );
        let other = shown("bob", Role::Approver);
        assert!(
            other.contains("/changes/1/approve\"") && other.contains("/changes/1/refuse\""),
            "{other}"
        );
        let reader = shown("bob", Role::Viewer);
        assert!(
            reader.contains("An approver decides. Two persons.") && !reader.contains("<form"),
            "{reader}"
        );
    }

    #[test]
    fn a_decision_names_who_made_it_and_what_it_was() {
        assert!(request().decided(NOW).into_string().contains("nobody yet"));
        let refused = Request {
            decided: Some(("<b>bob", NOW)),
            said: Some("not <now>"),
            ended: Some("refused"),
            ..request()
        };
        let shown = refused.facts("", "Refused by", NOW).into_string();
        for part in ["&lt;b&gt;bob", "refused", "not &lt;now&gt;", "Refused by"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("same person"), "{shown}");
    }
}
