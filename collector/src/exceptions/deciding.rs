//! What another person says of an exception that was asked for, and what follows: one that holds ends the violations that it accounts for.

use serde_json::json;
use sqlx::AssertSqlSafe;

use super::desk::{Decided, Desk, Outcome, settled};
use super::read::{self, ExceptionView, State};
use super::standing;
use crate::access::Person;
use crate::approvals::{self, Decision, Ending, Matter};
use crate::events::{Event, NodeEvent};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{StoreError, Writing};
use crate::violations::store::{SELECT, apply, view};
use crate::violations::view::{Step, ViolationView};
use crate::violations::{Change, Resolution};

/// Open violations that end in the transaction of an approval; those of further nodes end with their next statements.
const AT_ONCE: u32 = 1_000;

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

impl Desk {
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
            return Ok(Err(ProblemResponse::conflict("ended", detail)));
        }
        let ended = self.hold(tx, &id, &said).await?;
        let exception = self.required(tx, &id).await?;
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
        if let Err(refused) = how.allowed(&asked.requested_by, &self.person) {
            return Ok(Err(refused));
        }
        let action = match how {
            Ending::Refuse => "exception.refuse",
            Ending::Withdraw => "exception.withdraw",
        };
        self.decide(tx, &id, how.state(), &said).await?;
        let exception = self.required(tx, &id).await?;
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
            return Ok(Err(Matter::Exception.unknown()));
        };
        if held.state != State::Approved {
            return Ok(Err(ProblemResponse::conflict(
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
        let exception = self.required(tx, &id).await?;
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
            return Ok(Err(Matter::Exception.unknown()));
        };
        Ok(if asked.waits {
            Ok(asked)
        } else {
            Err(Matter::Exception.not_waiting(asked.state.as_str()))
        })
    }

    async fn decide(
        &self,
        tx: &mut Writing,
        id: &str,
        state: &str,
        said: &str,
    ) -> Result<(), StoreError> {
        let decision = Decision {
            state,
            by: &self.person,
            at: self.now,
            said,
        };
        Matter::Exception.decide(tx, id, decision).await
    }

    /// Makes it hold, and ends the violations that it accounts for; answers how many.
    pub(super) async fn hold(
        &self,
        tx: &mut Writing,
        id: &str,
        said: &str,
    ) -> Result<usize, StoreError> {
        self.decide(tx, id, "approved", said).await?;
        let exception = self.required(tx, id).await?;
        self.note(tx, "exception.approve", &exception, said).await?;
        let row = sqlx::query("SELECT * FROM exceptions WHERE id = ?")
            .bind(id)
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
