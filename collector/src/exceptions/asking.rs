//! Asking for an exception: what may be asked for, and the request as it is kept. It holds at once where the requester's own word is enough.

use attestation::time::Timestamp;

use super::desk::{Decided, Desk, Outcome, settled};
use super::subject::{About, Subject};
use super::{LONGEST, Place};
use crate::access::Person;
use crate::approvals::{self, Needed};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{StoreError, Writing};

/// Characters of a ticket's name and of an owner's.
const NAME: usize = 200;

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// About which difference.
    pub about: About,
    /// Why it may stay.
    pub reason: String,
    /// Where it is tracked.
    pub ticket: String,
    /// Who answers for it; the requester where nobody is named.
    pub owner: String,
    /// Until when.
    pub ends: Timestamp,
}

/// Asks for an exception. It holds at once where the requester's own word is enough.
///
/// # Errors
/// For what cannot be excepted, an end that is none, and what the store refuses.
pub async fn request(state: &AppState, wanted: Wanted, person: &Person) -> Outcome {
    let desk = Desk::new(state, person);
    let wanted = checked(wanted, desk.now, &person.user)?;
    let id = uuid::Uuid::now_v7().to_string();
    let made = id.clone();
    let done = state
        .store
        .write(move |tx| Box::pin(async move { desk.ask(tx, made, wanted).await }))
        .await;
    settled(state, &id, done)
}

fn checked(mut wanted: Wanted, now: Timestamp, user: &str) -> Result<Wanted, ProblemResponse> {
    wanted.reason = approvals::reason(&wanted.reason)?;
    for (name, text) in [("ticket", &mut wanted.ticket), ("owner", &mut wanted.owner)] {
        let trimmed = text.trim().to_owned();
        if trimmed.chars().count() > NAME || trimmed.chars().any(char::is_control) {
            return Err(ProblemResponse::malformed(format!(
                "`{name}` is one line of at most {NAME} characters"
            )));
        }
        *text = trimmed;
    }
    if wanted.owner.is_empty() {
        user.clone_into(&mut wanted.owner);
    }
    if wanted.ends <= now || wanted.ends > now.saturating_add_secs(LONGEST) {
        return Err(ProblemResponse::malformed(
            "`ends` is a time in the next 366 days: what stays longer belongs into the image",
        ));
    }
    wanted.about.checked()?;
    Ok(wanted)
}

impl Desk {
    async fn ask(
        self,
        tx: &mut Writing,
        id: String,
        wanted: Wanted,
    ) -> Result<Outcome, StoreError> {
        let subject = match Subject::of(tx, &wanted.about).await? {
            Ok(subject) => subject,
            Err(refused) => return Ok(Err(refused)),
        };
        let group = subject.group(tx).await?;
        if let Err(beyond) = approvals::within(&self.person, &group) {
            return Ok(Err(beyond));
        }
        if let Some(same) = self.same(tx, &subject).await? {
            let detail = format!("there is one already for this line here: {same}");
            return Ok(Err(ProblemResponse::conflict("exists", detail)));
        }
        self.keep(tx, &id, &subject, &wanted).await?;
        let asked = self.required(tx, &id).await?;
        self.note(tx, "exception.request", &asked, &wanted.reason)
            .await?;
        let needed = approvals::of(tx, self.rule, &self.person, &group).await?;
        let ended = match needed {
            Needed::Own(why) => self.hold(tx, &id, why.text()).await?,
            Needed::Another { .. } => 0,
        };
        let exception = self.required(tx, &id).await?;
        Ok(Ok(Decided {
            exception,
            told: needed.told(),
            ended,
        }))
    }

    /// One for the same line in the same place that waits or holds.
    async fn same(
        &self,
        tx: &mut Writing,
        subject: &Subject,
    ) -> Result<Option<String>, StoreError> {
        let (node, group) = columns(&subject.place);
        Ok(sqlx::query_scalar(
            "SELECT id FROM exceptions WHERE path = ? AND found IS ? AND node IS ? AND grp IS ? \
             AND (state = 'waiting' OR (state = 'approved' AND ends > ?)) LIMIT 1",
        )
        .bind(&subject.path)
        .bind(&subject.found)
        .bind(node)
        .bind(group)
        .bind(self.now.as_micros())
        .fetch_optional(&mut tx.connection)
        .await?)
    }

    async fn keep(
        &self,
        tx: &mut Writing,
        id: &str,
        subject: &Subject,
        wanted: &Wanted,
    ) -> Result<(), StoreError> {
        let (node, group) = columns(&subject.place);
        sqlx::query(
            "INSERT INTO exceptions (id, violation, node, grp, path, expected, found, reason, ticket, owner, ends, requested, \
             requested_by, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
        )
        .bind(id)
        .bind(&subject.violation)
        .bind(node)
        .bind(group)
        .bind(&subject.path)
        .bind(&subject.expected)
        .bind(&subject.found)
        .bind(&wanted.reason)
        .bind(&wanted.ticket)
        .bind(&wanted.owner)
        .bind(wanted.ends.as_micros())
        .bind(self.now.as_micros())
        .bind(&self.person.user)
        .execute(&mut tx.connection)
        .await?;
        Ok(())
    }
}

/// A place as it is stored: a node or a group.
fn columns(place: &Place) -> (Option<&str>, Option<&str>) {
    match place {
        Place::Node(node) => (Some(node), None),
        Place::Group(group) => (None, Some(group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_has_an_end_within_a_year() {
        let now = Timestamp::from_micros(0);
        let asked = |ends: i64| Wanted {
            about: About::Violation {
                id: "v".to_owned(),
                group: false,
            },
            reason: "why".to_owned(),
            ticket: String::new(),
            owner: String::new(),
            ends: now.saturating_add_secs(ends),
        };
        for bad in [0, -1, LONGEST + 1] {
            assert!(checked(asked(bad), now, "ada").is_err(), "{bad}");
        }
        let good = checked(asked(LONGEST), now, "ada").ok();
        assert_eq!(good.map(|good| good.owner).as_deref(), Some("ada"));
    }
}
