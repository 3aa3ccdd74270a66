//! Four eyes: who must say yes before a request holds. One rule for everything that a person asks for and another approves.
//! The rule is pure, but for one question to the store: who else could say yes. What is kept of a decision is [`Matter`]'s.

mod matter;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use crate::access::{Person, Reach, Right, Role};
use crate::problem::ProblemResponse;
use crate::store::{StoreError, Writing};

pub use self::matter::{Decision, Matter};

/// What people say of a request or a decision is a few sentences; it stands in lists and messages.
const REASON: usize = 1_000;

/// How many persons a change takes, as configured (`approvals` in collector.toml).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approvals {
    /// Whoever may approve may approve their own request.
    One,
    /// Two, as soon as there are two who may approve: one alone is not locked out of their own collector.
    #[default]
    Two,
    /// Two, also while there is only one who may approve.
    AlwaysTwo,
}

/// Whose word a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The requester's own is enough: it holds at once.
    Own(Why),
    /// Another person's.
    Another {
        /// How many accounts there are that could give it.
        of: u64,
    },
}

/// Why a requester's own word is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// One person is what is configured.
    Configured,
    /// There is no other account that may approve here.
    Alone,
}

impl Why {
    /// As it stands beside what holds, and in the activity log.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Configured => "approved by who asked for it: `approvals = \"one\"` is configured",
            Self::Alone => {
                "approved by who asked for it: no other enabled account may approve here; once there is one, another person must"
            }
        }
    }
}

/// How a request ends without holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another person says no.
    Refuse,
    /// Who asked takes it back.
    Withdraw,
}

impl Ending {
    /// How the request stands by it, as it is stored.
    #[must_use]
    pub const fn state(self) -> &'static str {
        match self {
            Self::Refuse => "refused",
            Self::Withdraw => "withdrawn",
        }
    }

    /// Whether this person may end a request so: only who asked takes it back.
    ///
    /// # Errors
    /// 403 `not-own`.
    pub fn allowed(self, requested_by: &str, person: &Person) -> Result<(), ProblemResponse> {
        if self == Self::Refuse || requested_by == person.user {
            return Ok(());
        }
        let detail = format!(
            "{requested_by} asked for this, and may withdraw it; who may approve may refuse it"
        );
        Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "not-own",
            detail,
        ))
    }
}

impl Needed {
    /// What the requester is told while a request waits.
    #[must_use]
    pub fn told(self) -> String {
        match self {
            Self::Own(why) => why.text().to_owned(),
            Self::Another { of: 0 } => {
                "it waits for another person, and no other enabled account may approve here: an administrator adds one with \
                 `pristine-collector user add NAME --role approver`"
                    .to_owned()
            }
            Self::Another { of: 1 } => {
                "it waits for another person: one other account may approve it".to_owned()
            }
            Self::Another { of } => {
                format!("it waits for another person: {of} other accounts may approve it")
            }
        }
    }
}

/// Decides from what is configured, whether the requester may approve at all, and how many other accounts may.
#[must_use]
pub const fn needed(rule: Approvals, may_approve: bool, others: u64) -> Needed {
    match rule {
        Approvals::One if may_approve => Needed::Own(Why::Configured),
        Approvals::Two if may_approve && others == 0 => Needed::Own(Why::Alone),
        _ => Needed::Another { of: others },
    }
}

/// Nobody approves their own request, whichever session or token they use.
///
/// # Errors
/// 403 `own-request`.
pub fn not_ones_own(requested_by: &str, person: &Person) -> Result<(), ProblemResponse> {
    if requested_by == person.user {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "own-request",
            "you asked for this yourself: another person approves or refuses it; you can withdraw it",
        ));
    }
    Ok(())
}

/// What is about nodes beyond reach is answered like what is not there.
///
/// # Errors
/// 404.
pub fn within(person: &Person, group: &str) -> Result<(), ProblemResponse> {
    if person.reaches(group) {
        return Ok(());
    }
    Err(ProblemResponse::not_found(
        "there is no such group among those that you reach",
    ))
}

/// What a person says of a request: one line, not empty.
///
/// # Errors
/// 400 where it is empty, long, or more than a line.
pub fn reason(text: &str) -> Result<String, ProblemResponse> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > REASON || text.chars().any(char::is_control) {
        return Err(ProblemResponse::malformed(format!(
            "`reason` says why, in one line of at most {REASON} characters"
        )));
    }
    Ok(text.to_owned())
}

/// Where the reason may be left out.
///
/// # Errors
/// 400 where it is long, or more than a line.
pub fn reason_or_none(text: Option<&str>) -> Result<String, ProblemResponse> {
    match text.map(str::trim) {
        None | Some("") => Ok(String::new()),
        Some(text) => reason(text),
    }
}

/// Whether somebody may approve what is about the nodes of a group.
#[must_use]
pub fn may_approve(person: &Person, group: &str) -> bool {
    person.may(Right::Approve) && person.reaches(group)
}

/// Whose word a request of this person about a group needs, as the accounts are now.
///
/// # Errors
/// What the store refuses.
pub async fn of(
    tx: &mut Writing,
    rule: Approvals,
    person: &Person,
    group: &str,
) -> Result<Needed, StoreError> {
    let others = others(tx, &person.user, group).await?;
    Ok(needed(rule, may_approve(person, group), others))
}

/// How many enabled accounts beside `user` may approve in a group.
async fn others(tx: &mut Writing, user: &str, group: &str) -> Result<u64, StoreError> {
    let rows = sqlx::query("SELECT role, reach FROM accounts WHERE disabled IS NULL AND user <> ?")
        .bind(user)
        .fetch_all(&mut tx.connection)
        .await?;
    let mut others = 0;
    for row in rows {
        let (role, reach): (String, String) = (row.try_get("role")?, row.try_get("reach")?);
        let may = Role::parse(&role).is_some_and(|role| role.may(Right::Approve));
        if may && Reach::parse(&reach)?.reaches(group) {
            others += 1;
        }
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_is_not_locked_out_and_two_watch_each_other() {
        use Approvals::{AlwaysTwo, One, Two};
        let table = [
            (One, true, 5, Needed::Own(Why::Configured)),
            (One, false, 5, Needed::Another { of: 5 }),
            (Two, true, 0, Needed::Own(Why::Alone)),
            (Two, true, 1, Needed::Another { of: 1 }),
            // Who may not approve gains nothing by being alone.
            (Two, false, 0, Needed::Another { of: 0 }),
            (AlwaysTwo, true, 0, Needed::Another { of: 0 }),
        ];
        for (rule, may_approve, others, expected) in table {
            assert_eq!(needed(rule, may_approve, others), expected, "{rule:?}");
        }
        assert!(Needed::Another { of: 0 }.told().contains("user add"));
    }

    #[test]
    fn nobody_approves_what_they_asked_for_and_only_they_take_it_back() {
        let ann = Person::local("ann");
        let code = |done: Result<(), ProblemResponse>| done.err().map(|refused| refused.code);
        assert_eq!(code(not_ones_own("ann", &ann)), Some("own-request"));
        assert_eq!(code(not_ones_own("bob", &ann)), None);
        for (how, asked_by, refused) in [
            (Ending::Withdraw, "ann", None),
            (Ending::Withdraw, "bob", Some("not-own")),
            (Ending::Refuse, "bob", None),
        ] {
            assert_eq!(
                code(how.allowed(asked_by, &ann)),
                refused,
                "{how:?} {asked_by}"
            );
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason(" why ").ok().as_deref(), Some("why"));
        for bad in ["", "  ", "a\nb", &"x".repeat(1_001)] {
            assert!(reason(bad).is_err(), "{bad:?}");
        }
        assert_eq!(reason_or_none(None).ok().as_deref(), Some(""));
        assert!(reason_or_none(Some("a\u{7}")).is_err());
    }
}
