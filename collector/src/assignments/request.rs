//! What people do: ask that a group be an image, approve, refuse, withdraw. Each step is in the activity log from the transaction that does it.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::statement::Assignment;
use attestation::time::Timestamp;
use serde_json::json;

use super::Current;
use super::changes::{self, ChangeView};
use super::hold::{self, Standing};
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::approvals::{self, Approvals, Decision, Ending, Matter, Needed};
use crate::clock;
use crate::events::{ChangeEvent, Event};
use crate::keys::CollectorKeys;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::to_sql;
use crate::store::{StoreError, Writing};
use crate::violations::view::ImageView;

/// Groups are named by people; a name is shown everywhere.
const GROUP_NAME: usize = 64;
/// Seconds that the images before stay allowed at most: a rollout that takes longer than a year is none.
const LONGEST: u64 = 366 * 86_400;

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which group.
    pub group: String,
    /// That it be this image, by the SHA-256 of its statement's payload.
    pub image: Digest,
    /// Seconds that what the group may be now stays allowed.
    pub keep_previous_secs: Option<u64>,
    /// Why; may be empty.
    pub reason: String,
}

/// What became of a request or a decision.
pub struct Answer {
    /// As it now is.
    pub change: ChangeView,
    /// The assignment, where it holds now.
    pub assignment: Option<(Digest, Assignment)>,
    /// What follows, for the person.
    pub told: String,
}

/// What a job needs beside the store.
struct Desk {
    person: Person,
    now: Timestamp,
    rule: Approvals,
    keys: Arc<CollectorKeys>,
}

impl Desk {
    fn new(state: &AppState, person: &Person) -> Self {
        Self {
            person: person.clone(),
            now: clock::now(),
            rule: state.settings.approvals,
            keys: Arc::clone(&state.keys),
        }
    }
}

type Outcome = Result<(ChangeView, Option<Current>, String), ProblemResponse>;

/// Asks that a group be an image. It holds at once where the requester's own word is enough.
///
/// # Errors
/// For what cannot be assigned, and while another request of the group waits.
pub async fn request(
    state: &AppState,
    wanted: Wanted,
    person: &Person,
) -> Result<Answer, ProblemResponse> {
    let wanted = checked(wanted)?;
    approvals::within(person, &wanted.group)?;
    // Read whole before anybody relies on it.
    let loaded = state.images.get(&wanted.image).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "image not loaded");
        ProblemResponse::internal()
    })?;
    if loaded.is_none() {
        return Err(no_image());
    }
    let desk = Desk::new(state, person);
    change(state, move |tx| {
        Box::pin(async move { desk.ask(tx, wanted).await })
    })
    .await
}

/// Approves one that waits: it is signed and holds. Nobody approves their own.
///
/// # Errors
/// Where it does not wait, is the person's own, or cannot be assigned any more.
pub async fn approve(
    state: &AppState,
    id: &str,
    reason: Option<&str>,
    person: &Person,
) -> Result<Answer, ProblemResponse> {
    let (desk, id) = (Desk::new(state, person), id.to_owned());
    let said = approvals::reason_or_none(reason)?;
    change(state, move |tx| {
        Box::pin(async move { desk.approve(tx, id, said).await })
    })
    .await
}

/// Ends one that waits.
///
/// # Errors
/// Where it does not wait, or somebody else withdraws it.
pub async fn end(
    state: &AppState,
    id: &str,
    how: Ending,
    reason: &str,
    person: &Person,
) -> Result<Answer, ProblemResponse> {
    let (desk, id) = (Desk::new(state, person), id.to_owned());
    let said = approvals::reason(reason)?;
    change(state, move |tx| {
        Box::pin(async move { desk.end(tx, id, how, said).await })
    })
    .await
}

/// Runs one change, and lets memory follow.
async fn change<F>(state: &AppState, job: F) -> Result<Answer, ProblemResponse>
where
    F: for<'t> FnOnce(
            &'t mut Writing,
        ) -> futures_util::future::BoxFuture<'t, Result<Outcome, StoreError>>
        + Send
        + 'static,
{
    let _one_at_a_time = state.assignments.changing.lock().await;
    let (change, current, told) = state.store.write(job).await??;
    let assignment = current.map(|current| {
        let made = (current.payload, current.assignment.clone());
        state.assignments.set(&change.group, current);
        made
    });
    Ok(Answer {
        change,
        assignment,
        told,
    })
}

fn checked(mut wanted: Wanted) -> Result<Wanted, ProblemResponse> {
    let group = &wanted.group;
    if group.is_empty() || group.len() > GROUP_NAME || group.chars().any(char::is_control) {
        return Err(ProblemResponse::malformed(format!(
            "a group's name has 1 to {GROUP_NAME} characters"
        )));
    }
    if wanted.keep_previous_secs.is_some_and(|keep| keep > LONGEST) {
        return Err(ProblemResponse::malformed(
            "`keep_previous_secs` is at most a year: it is a rollout, not a second image",
        ));
    }
    wanted.reason = approvals::reason_or_none(Some(&wanted.reason))?;
    Ok(wanted)
}

fn no_image() -> ProblemResponse {
    ProblemResponse::conflict(
        "no-image",
        "no such image, or its manifest has not been sent",
    )
}

impl Desk {
    async fn ask(self, tx: &mut Writing, wanted: Wanted) -> Result<Outcome, StoreError> {
        let standing = match self.standing(tx, &wanted.group, wanted.image).await? {
            Ok(standing) => standing,
            Err(refused) => return Ok(Err(refused)),
        };
        let waiting: Option<String> =
            sqlx::query_scalar("SELECT id FROM deployments WHERE grp = ? AND state = 'waiting'")
                .bind(&wanted.group)
                .fetch_optional(&mut tx.connection)
                .await?;
        if let Some(waiting) = waiting {
            let detail = format!(
                "a change of {} waits for another person already: {waiting}; it is approved, refused or withdrawn first",
                wanted.group
            );
            return Ok(Err(ProblemResponse::conflict("waiting", detail)));
        }
        let id = uuid::Uuid::now_v7().to_string();
        sqlx::query(
            "INSERT INTO deployments (id, grp, image, keep_previous, reason, requested, requested_by, state, previous) \
             VALUES (?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
        )
        .bind(&id)
        .bind(&wanted.group)
        .bind(wanted.image.as_bytes().as_slice())
        .bind(wanted.keep_previous_secs.map(to_sql))
        .bind(&wanted.reason)
        .bind(self.now.as_micros())
        .bind(&self.person.user)
        .bind(first(&standing))
        .execute(&mut tx.connection)
        .await?;
        let asked = self.required(tx, &id).await?;
        self.note(tx, "assignment.request", &asked, &wanted.reason)
            .await?;
        let needed = approvals::of(tx, self.rule, &self.person, &wanted.group).await?;
        let current = match needed {
            Needed::Own(why) => Some(self.hold(tx, &asked, &standing, why.text()).await?),
            Needed::Another { .. } => None,
        };
        let change = self.required(tx, &id).await?;
        Ok(Ok((change, current, needed.told())))
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
        let standing = match self.standing(tx, &asked.group, asked.sha256()).await? {
            Ok(standing) => standing,
            Err(refused) => return Ok(Err(refused)),
        };
        let current = self.hold(tx, &asked, &standing, &said).await?;
        let change = self.required(tx, &id).await?;
        let told = format!(
            "the nodes of {} hear of it with their next contact",
            change.group
        );
        Ok(Ok((change, Some(current), told)))
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
            Ending::Refuse => "assignment.refuse",
            Ending::Withdraw => "assignment.withdraw",
        };
        self.decide(tx, &id, how.state(), &said).await?;
        let change = self.required(tx, &id).await?;
        self.note(tx, action, &change, &said).await?;
        let told = format!("{} stays what it was", change.group);
        Ok(Ok((change, None, told)))
    }

    async fn standing(
        &self,
        tx: &mut Writing,
        group: &str,
        image: Digest,
    ) -> Result<Result<Standing, ProblemResponse>, StoreError> {
        let Some(standing) = hold::standing(tx, group, image).await? else {
            return Ok(Err(no_image()));
        };
        Ok(match hold::refused(&standing, self.now) {
            Some((code, detail)) => Err(ProblemResponse::conflict(code, detail)),
            None => Ok(standing),
        })
    }

    /// One that waits, or why there is nothing to decide.
    async fn waiting(
        &self,
        tx: &mut Writing,
        id: &str,
    ) -> Result<Result<ChangeView, ProblemResponse>, StoreError> {
        let Some(asked) = changes::in_transaction(tx, id, self.now).await? else {
            return Ok(Err(Matter::Change.unknown()));
        };
        Ok(if asked.waits() {
            Ok(asked)
        } else {
            Err(Matter::Change.not_waiting(&asked.phase.as_str().replace('-', " ")))
        })
    }

    async fn required(&self, tx: &mut Writing, id: &str) -> Result<ChangeView, StoreError> {
        changes::in_transaction(tx, id, self.now)
            .await?
            .ok_or_else(|| StoreError::corrupt("deployments: the one just written is gone"))
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
        Matter::Change.decide(tx, id, decision).await
    }

    /// Signs it, makes it hold, and closes the change before it with how far that had come.
    async fn hold(
        &self,
        tx: &mut Writing,
        asked: &ChangeView,
        standing: &Standing,
        said: &str,
    ) -> Result<Current, StoreError> {
        let keep = asked.keep_previous_secs;
        let assignment = Assignment {
            group: asked.group.clone(),
            allowed: hold::allowed(standing, keep, self.now),
            from: self.now,
            requested_by: asked.requested_by.clone(),
            approved_by: self.person.user.clone(),
        };
        let until = assignment.allowed.iter().filter_map(|it| it.until).max();
        changes::close_before(tx, &asked.group, self.now).await?;
        let current = hold::sign(tx, &self.keys, assignment, standing.image).await?;
        self.decide(tx, &asked.id, "approved", said).await?;
        sqlx::query("UPDATE deployments SET assignment = ?, until = ?, previous = ? WHERE id = ?")
            .bind(current.payload.as_bytes().as_slice())
            .bind(until.map(Timestamp::as_micros))
            .bind(first(standing))
            .bind(&asked.id)
            .execute(&mut tx.connection)
            .await?;
        let change = self.required(tx, &asked.id).await?;
        self.note(tx, "assignment.approve", &change, said).await?;
        Ok(current)
    }

    async fn note(
        &self,
        tx: &mut Writing,
        action: &'static str,
        change: &ChangeView,
        reason: &str,
    ) -> Result<(), StoreError> {
        let named = |image: &ImageView| json!({"name": image.name, "version": image.version, "commit": image.commit, "sha256": image.sha256});
        let name = format!("{} {}", change.image.name, change.image.version);
        let doing = Doing {
            who: &self.person,
            at: self.now,
            action,
            target: Target::new("assignment", &change.id, &name).in_group(&change.group),
            before: json!({"group": change.group, "image": change.previous.as_ref().map(named)}),
            after: json!({
                "group": change.group, "image": named(&change.image), "state": change.phase, "requested_by": change.requested_by,
                "keep_previous_secs": change.keep_previous_secs, "assignment": change.assignment,
            }),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
        };
        activity::record(tx, &doing).await?;
        tx.event(Event::Change(ChangeEvent {
            id: change.id.clone(),
            group: change.group.clone(),
        }));
        Ok(())
    }
}

/// What the group must be now: the image that the assignment before was made for.
fn first(standing: &Standing) -> Option<Vec<u8>> {
    let before = standing.before.as_ref()?;
    let image = before.allowed.first()?.image;
    Some(image.as_bytes().to_vec())
}
