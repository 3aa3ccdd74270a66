//! Asking for an exception, and what another person says of it. Each step is in the activity log from the transaction that does it.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::time::Timestamp;
use http::StatusCode;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::read::{self, ExceptionView, State};
use super::{Exceptions, LONGEST, Place, standing};
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::approvals::{self, Approvals, Ending, Needed};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{StoreError, Writing};
use crate::violations::store::{Channels, SELECT, apply, view};
use crate::violations::view::{Kind, Step, ViolationView};
use crate::violations::{Change, Resolution};

/// Characters of a ticket's name and of an owner's.
const NAME: usize = 200;
/// Open violations that end in the transaction of an approval; those of further nodes end with their next statements.
const AT_ONCE: u32 = 1_000;

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

/// The difference.
#[derive(Clone, Debug)]
pub enum About {
    /// The one of a violation, on its node or in its node's group.
    Violation {
        /// The violation's id.
        id: String,
        /// On all nodes of the group.
        group: bool,
    },
    /// One that is described.
    Described {
        /// Where.
        place: Place,
        /// The path.
        path: ImagePath,
        /// The line that is found there; none where it is missing.
        found: Option<Line>,
    },
}

/// What became of a request or of a decision.
#[derive(Debug)]
pub struct Decided {
    /// As it now is.
    pub exception: ExceptionView,
    /// What follows, for the person.
    pub told: String,
    /// Violations that ended by it.
    pub ended: usize,
}

/// What a job needs beside the store.
struct Desk {
    person: Person,
    now: Timestamp,
    rule: Approvals,
    channels: Channels,
    exceptions: Arc<Exceptions>,
}

impl Desk {
    fn new(state: &AppState, person: &Person) -> Self {
        Self {
            person: person.clone(),
            now: clock::now(),
            rule: state.settings.approvals,
            channels: state.channels.clone(),
            exceptions: Arc::clone(&state.exceptions),
        }
    }
}

type Outcome = Result<Decided, ProblemResponse>;

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

/// Approves one that waits. Nobody approves their own.
///
/// # Errors
/// Where it does not wait, is the person's own, or its end is over.
pub async fn approve(state: &AppState, id: &str, reason: Option<&str>, person: &Person) -> Outcome {
    let desk = Desk::new(state, person);
    let (row, said) = (id.to_owned(), approvals::reason_or_none(reason)?);
    let done = state
        .store
        .write(move |tx| Box::pin(async move { desk.approve(tx, row, said).await }))
        .await;
    settled(state, id, done)
}

/// Ends one that waits: refused by another person, or withdrawn by who asked.
///
/// # Errors
/// Where it does not wait, or somebody else withdraws it.
pub async fn end(
    state: &AppState,
    id: &str,
    how: Ending,
    reason: &str,
    person: &Person,
) -> Outcome {
    let desk = Desk::new(state, person);
    let (row, said) = (id.to_owned(), approvals::reason(reason)?);
    state
        .store
        .write(move |tx| Box::pin(async move { desk.end(tx, row, how, said).await }))
        .await?
}

/// Ends one that holds, before its end.
///
/// # Errors
/// Where it does not hold.
pub async fn revoke(state: &AppState, id: &str, reason: &str, person: &Person) -> Outcome {
    let desk = Desk::new(state, person);
    let (row, said) = (id.to_owned(), approvals::reason(reason)?);
    let done = state
        .store
        .write(move |tx| Box::pin(async move { desk.revoke(tx, row, said).await }))
        .await??;
    let row = sqlx::query("SELECT * FROM exceptions WHERE id = ?")
        .bind(id)
        .fetch_one(state.store.read_pool())
        .await?;
    state.exceptions.put(standing::from_row(&row)?);
    Ok(done)
}

/// What was not committed is not remembered either.
fn settled(state: &AppState, id: &str, done: Result<Outcome, StoreError>) -> Outcome {
    match done {
        Ok(outcome) => outcome,
        Err(error) => {
            state.exceptions.forget(id);
            Err(error.into())
        }
    }
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
    if let About::Described { path, found, .. } = &wanted.about {
        if found.as_ref().is_some_and(|line| line.path() != *path) {
            return Err(ProblemResponse::malformed(
                "`found` is the entry line of another path",
            ));
        }
        readable(found.as_ref())?;
    }
    Ok(wanted)
}

fn readable(found: Option<&Line>) -> Result<(), ProblemResponse> {
    if found.is_some_and(|line| line.borrowed().is_unread()) {
        return Err(conflict(
            "unread",
            "the content of what was found was not read: nobody knows what would be accepted",
        ));
    }
    Ok(())
}

/// The difference, as it is kept.
struct Subject {
    violation: Option<String>,
    place: Place,
    path: String,
    expected: Option<String>,
    found: Option<String>,
}

impl Desk {
    async fn ask(
        self,
        tx: &mut Writing,
        id: String,
        wanted: Wanted,
    ) -> Result<Outcome, StoreError> {
        let subject = match self.subject(tx, &wanted.about).await? {
            Ok(subject) => subject,
            Err(refused) => return Ok(Err(refused)),
        };
        let (node, group) = match &subject.place {
            Place::Node(node) => (Some(node.clone()), None),
            Place::Group(group) => (None, Some(group.clone())),
        };
        let group_of = group_of(tx, &subject.place).await?;
        if let Err(beyond) = approvals::within(&self.person, &group_of) {
            return Ok(Err(beyond));
        }
        let same: Option<String> = sqlx::query_scalar(
            "SELECT id FROM exceptions WHERE path = ? AND found IS ? AND node IS ? AND grp IS ? \
             AND (state = 'waiting' OR (state = 'approved' AND ends > ?)) LIMIT 1",
        )
        .bind(&subject.path)
        .bind(&subject.found)
        .bind(&node)
        .bind(&group)
        .bind(self.now.as_micros())
        .fetch_optional(&mut tx.connection)
        .await?;
        if let Some(same) = same {
            let detail = format!("there is one already for this line here: {same}");
            return Ok(Err(conflict("exists", detail)));
        }
        sqlx::query(
            "INSERT INTO exceptions (id, violation, node, grp, path, expected, found, reason, ticket, owner, ends, requested, \
             requested_by, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
        )
        .bind(&id)
        .bind(&subject.violation)
        .bind(&node)
        .bind(&group)
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
        let asked = required(tx, &id, self.now).await?;
        self.note(tx, "exception.request", &asked, &wanted.reason)
            .await?;
        let needed = approvals::of(tx, self.rule, &self.person, &group_of).await?;
        let ended = match needed {
            Needed::Own(why) => self.hold(tx, &asked, why.text()).await?,
            Needed::Another { .. } => 0,
        };
        let exception = required(tx, &id, self.now).await?;
        Ok(Ok(Decided {
            exception,
            told: needed.told(),
            ended,
        }))
    }

    /// What is to be excepted, or why it cannot be.
    async fn subject(
        &self,
        tx: &mut Writing,
        about: &About,
    ) -> Result<Result<Subject, ProblemResponse>, StoreError> {
        let (id, group) = match about {
            About::Described { place, path, found } => {
                if let Place::Node(id) = place
                    && tx.node(id).await?.is_none()
                {
                    return Ok(Err(ProblemResponse::not_found("no node has that id")));
                }
                return Ok(Ok(Subject {
                    violation: None,
                    place: place.clone(),
                    path: path.to_string(),
                    expected: None,
                    found: found.as_ref().map(|line| line.as_str().to_owned()),
                }));
            }
            About::Violation { id, group } => (id, *group),
        };
        let sql = format!("{SELECT} WHERE v.id = ?");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut tx.connection)
            .await?;
        let Some(violation) = row.as_ref().map(view).transpose()? else {
            return Ok(Err(ProblemResponse::not_found(
                "there is no violation with this id",
            )));
        };
        if let Some(why) = refused(&violation) {
            return Ok(Err(conflict("no-exception", why)));
        }
        let place = if group {
            match tx.node(&violation.node).await? {
                Some(node) => Place::Group(node.group),
                None => return Ok(Err(ProblemResponse::not_found("its node is gone"))),
            }
        } else {
            Place::Node(violation.node.clone())
        };
        Ok(Ok(Subject {
            violation: Some(violation.id),
            place,
            path: violation.path.unwrap_or_default(),
            expected: violation.expected,
            found: violation.found,
        }))
    }

    async fn approve(
        self,
        tx: &mut Writing,
        id: String,
        said: String,
    ) -> Result<Outcome, StoreError> {
        let asked = match self.waiting(tx, &id).await? {
            Ok(asked) => asked,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Err(refused) = approvals::not_ones_own(&asked.requested_by, &self.person) {
            return Ok(Err(refused));
        }
        if asked.ends <= self.now {
            let detail = "its end is over: refuse it, and ask for a later one";
            return Ok(Err(conflict("ended", detail)));
        }
        let ended = self.hold(tx, &asked, &said).await?;
        let exception = required(tx, &id, self.now).await?;
        let told = format!("it holds until {}", exception.ends);
        Ok(Ok(Decided {
            exception,
            told,
            ended,
        }))
    }

    async fn end(
        self,
        tx: &mut Writing,
        id: String,
        how: Ending,
        said: String,
    ) -> Result<Outcome, StoreError> {
        let asked = match self.waiting(tx, &id).await? {
            Ok(asked) => asked,
            Err(refused) => return Ok(Err(refused)),
        };
        let (state, action) = match how {
            Ending::Refuse => ("refused", "exception.refuse"),
            Ending::Withdraw => ("withdrawn", "exception.withdraw"),
        };
        if how == Ending::Withdraw
            && let Err(refused) = approvals::ones_own(&asked.requested_by, &self.person)
        {
            return Ok(Err(refused));
        }
        self.decide(tx, &asked, state, &said).await?;
        let exception = required(tx, &id, self.now).await?;
        self.note(tx, action, &exception, &said).await?;
        Ok(Ok(Decided {
            exception,
            told: "the difference stays a violation".to_owned(),
            ended: 0,
        }))
    }

    async fn revoke(
        self,
        tx: &mut Writing,
        id: String,
        said: String,
    ) -> Result<Outcome, StoreError> {
        let Some(held) = read::in_transaction(tx, &id, self.now).await? else {
            return Ok(Err(unknown()));
        };
        if held.state != State::Approved {
            return Ok(Err(conflict(
                "not-held",
                format!(
                    "this exception is {}: there is nothing to revoke",
                    held.state.as_str()
                ),
            )));
        }
        sqlx::query("UPDATE exceptions SET state = 'revoked', revoked = ?, revoked_by = ?, revoke_reason = ? WHERE id = ?")
            .bind(self.now.as_micros())
            .bind(&self.person.user)
            .bind(&said)
            .bind(&id)
            .execute(&mut tx.connection)
            .await?;
        let exception = required(tx, &id, self.now).await?;
        self.note(tx, "exception.revoke", &exception, &said).await?;
        Ok(Ok(Decided {
            exception,
            told: "where the difference stands it is a violation again with each node's next statement"
                .to_owned(),
            ended: 0,
        }))
    }

    /// One that waits, or why there is nothing to decide.
    async fn waiting(
        &self,
        tx: &mut Writing,
        id: &str,
    ) -> Result<Result<ExceptionView, ProblemResponse>, StoreError> {
        let Some(asked) = read::in_transaction(tx, id, self.now).await? else {
            return Ok(Err(unknown()));
        };
        Ok(if asked.waits {
            Ok(asked)
        } else {
            Err(conflict(
                "not-waiting",
                format!(
                    "this exception is {}: there is nothing to decide",
                    asked.state.as_str()
                ),
            ))
        })
    }

    async fn decide(
        &self,
        tx: &mut Writing,
        asked: &ExceptionView,
        state: &str,
        said: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE exceptions SET state = ?, decided = ?, decided_by = ?, decision = ? WHERE id = ?")
            .bind(state)
            .bind(self.now.as_micros())
            .bind(&self.person.user)
            .bind(said)
            .bind(&asked.id)
            .execute(&mut tx.connection)
            .await?;
        Ok(())
    }

    /// Makes it hold, and ends the violations that it accounts for; answers how many.
    async fn hold(
        &self,
        tx: &mut Writing,
        asked: &ExceptionView,
        said: &str,
    ) -> Result<usize, StoreError> {
        self.decide(tx, asked, "approved", said).await?;
        let exception = required(tx, &asked.id, self.now).await?;
        self.note(tx, "exception.approve", &exception, said).await?;
        let row = sqlx::query("SELECT * FROM exceptions WHERE id = ?")
            .bind(&asked.id)
            .fetch_one(&mut tx.connection)
            .await?;
        let held = standing::from_row(&row)?;
        // Before the commit: a statement that is taken right after it must not open again what ends here. Who called forgets it
        // where the commit fails.
        self.exceptions.put(held.clone());
        let open = open(tx, &exception).await?;
        let ended = open.len();
        for violation in open {
            let node = violation.node.clone();
            standing::note(&self.exceptions, &node);
            standing::insert(tx, &node, &exception.path, &exception.id, self.now).await?;
            let mut violation = violation.ended(self.now, Resolution::Excepted, held.told());
            violation
                .detail
                .insert("exception".to_owned(), json!(exception.id));
            let change = Change {
                step: Step::Resolved,
                violation,
            };
            apply(tx, &change, self.now, None, &self.channels).await?;
            tx.event(Event::Node(NodeEvent { id: node }));
        }
        Ok(ended)
    }

    async fn note(
        &self,
        tx: &mut Writing,
        action: &'static str,
        exception: &ExceptionView,
        reason: &str,
    ) -> Result<(), StoreError> {
        let record = serde_json::to_vec(exception)
            .map_err(|error| StoreError::corrupt(error.to_string()))?;
        let digest = Digest::of(&record);
        log::keep(tx, "exception", &digest, &record, self.now).await?;
        let leaf = Leaf {
            kind: "exception",
            at: self.now,
            node: exception.node.as_deref(),
            sequence: None,
            digest,
            more: json!({"exception": exception.id, "action": action, "by": self.person.user}),
        };
        log::append(tx, &leaf).await?;
        let node = match &exception.node {
            Some(id) => tx.node(id).await?,
            None => None,
        };
        let target = Target::new("exception", &exception.id, &exception.path);
        let target = match (&node, &exception.group) {
            (Some(node), _) => target.on(node),
            (None, Some(group)) => target.in_group(group),
            (None, None) => target,
        };
        let doing = Doing {
            who: &self.person,
            at: self.now,
            action,
            target,
            before: json!({"expected": exception.expected}),
            after: json!({
                "state": exception.state, "node": exception.node, "group": exception.group, "path": exception.path,
                "found": exception.found, "ends": exception.ends, "ticket": exception.ticket, "owner": exception.owner,
                "requested_by": exception.requested_by,
            }),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
        };
        activity::record(tx, &doing).await
    }
}

/// Why a violation cannot be excepted; nothing where it can. Pure.
#[must_use]
pub fn refused(violation: &ViolationView) -> Option<&'static str> {
    if violation.kind != Kind::Difference {
        return Some(
            "only a difference can be excepted: what else is found needs an end of its own",
        );
    }
    if violation.resolved.is_some() {
        return Some("this violation is over: there is nothing to except");
    }
    if violation.fields.iter().any(|field| field == "unreadable") {
        return Some("what is there could not be read, so there is nothing to accept");
    }
    match violation.found.as_deref().map(Line::parse).transpose() {
        Err(_) => Some("what was found cannot be read as an entry line"),
        Ok(Some(found)) if found.borrowed().is_unread() => {
            Some("the content of what was found was not read: nobody knows what would be accepted")
        }
        Ok(_) => None,
    }
}

/// The open violations that an exception accounts for, at most [`AT_ONCE`].
async fn open(
    tx: &mut Writing,
    exception: &ExceptionView,
) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE v.resolved IS NULL AND v.kind = 'difference' AND v.path = ? AND v.found IS ? \
         AND (v.node = ? OR n.grp = ?) ORDER BY v.id LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(&exception.path)
        .bind(&exception.found)
        .bind(&exception.node)
        .bind(&exception.group)
        .bind(AT_ONCE)
        .fetch_all(&mut tx.connection)
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// The group whose approvers may decide.
async fn group_of(tx: &mut Writing, place: &Place) -> Result<String, StoreError> {
    match place {
        Place::Group(group) => Ok(group.clone()),
        Place::Node(node) => Ok(tx
            .node(node)
            .await?
            .map(|node| node.group)
            .unwrap_or_default()),
    }
}

async fn required(tx: &mut Writing, id: &str, now: Timestamp) -> Result<ExceptionView, StoreError> {
    read::in_transaction(tx, id, now)
        .await?
        .ok_or_else(|| StoreError::corrupt("exceptions: the one just written is gone"))
}

fn unknown() -> ProblemResponse {
    ProblemResponse::not_found("there is no exception with this id")
}

fn conflict(code: &'static str, detail: impl Into<String>) -> ProblemResponse {
    ProblemResponse::new(StatusCode::CONFLICT, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::sample;

    #[test]
    fn only_a_difference_that_stands_and_was_read_can_be_excepted() {
        let open = sample::violation();
        assert_eq!(refused(&open), None);
        let mut gap = open.clone();
        gap.kind = Kind::Gap;
        assert!(refused(&gap).is_some());
        let over = open
            .clone()
            .ended(open.opened, Resolution::Reverted, String::new());
        assert!(refused(&over).is_some());
        let mut unread = open.clone();
        unread.found = Some("./usr/bin/ping type=file mode=0755 uid=0 gid=0 size=3".to_owned());
        assert!(refused(&unread).is_some());
        let mut missing = open;
        missing.found = None;
        assert_eq!(refused(&missing), None, "what is missing can be accepted");
    }

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
