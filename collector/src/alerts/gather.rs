//! How a step comes into the outbox: at once, or as part of a message that gathers the same change from many nodes.
//!
//! A webhook is told of each step by itself and at once, unless it asks for grouping. Alertmanager is told at once too: what it was told
//! changes when it is told again. Chat and mail cannot take back what they said, so there a change waits until it has settled (no
//! further node for two seconds, a minute at most), unless only one node could have it; what joins later within the minute is one more
//! message at its end. So a change on five hundred nodes within ten seconds is one message, and a lone one is told within seconds.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sqlx::Row as _;

use super::change::change_of;
use super::channel::Channel;
use super::event;
use super::message::{Message, NAMED, Nodes};
use super::route::{About, is_heard};
use super::{Alerting, Told};
use crate::store::nodes::{digest, to_sql};
use crate::store::{StoreError, Writing};
use crate::violations::steps::Change;
use crate::violations::view::{Step, ViolationView};

/// Puts a step into the outbox of every channel that hears of it, inside the transaction that records the step.
pub async fn tell(
    tx: &mut Writing,
    alerting: &Alerting,
    change: &Change,
    step_id: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let violation = &change.violation;
    let is = change_of(violation);
    let was = mark(tx, change, &is).await?;
    if alerting.channels().is_empty() {
        return Ok(());
    }
    let node = tx.node(&violation.node).await?;
    if node.as_ref().is_some_and(|node| !is_heard(node.state)) {
        return Ok(());
    }
    let group = node.map(|node| node.group).unwrap_or_default();
    let about = About::of(violation, &group);
    for channel in alerting.hearing(&about) {
        if !channel.gathers {
            let body = event::event_body(violation, change.step, step_id, at);
            put(tx, step_id, &channel.key, &body, at).await?;
            continue;
        }
        let gathering = Gathering {
            channel,
            alerting,
            step: change.step,
            step_id,
            node: &violation.node,
            at,
        };
        gathering.join(tx, &is).await?;
        // Another finding: what was told before may be over.
        if let Some(was) = was.filter(|was| channel.updates() && *was != is) {
            gathering.join(tx, &was).await?;
        }
    }
    tx.outbox_changed();
    Ok(())
}

/// Writes down which change a violation is; answers which it was.
async fn mark(
    tx: &mut Writing,
    change: &Change,
    is: &Digest,
) -> Result<Option<Digest>, StoreError> {
    let id = &change.violation.id;
    let was = match change.step {
        Step::Opened => None,
        Step::Updated | Step::Resolved => {
            let row = sqlx::query("SELECT change FROM violations WHERE id = ?")
                .bind(id)
                .fetch_optional(&mut tx.connection)
                .await?;
            row.map(|row| digest(&row, "change")).transpose()?.flatten()
        }
    };
    if was != Some(*is) {
        sqlx::query("UPDATE violations SET change = ? WHERE id = ?")
            .bind(is.as_bytes().as_slice())
            .bind(id)
            .execute(&mut tx.connection)
            .await?;
    }
    Ok(was)
}

async fn put(
    tx: &mut Writing,
    id: &str,
    channel: &str,
    body: &[u8],
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox (id, channel, body, created, next_attempt) VALUES (?1, ?2, ?3, ?4, ?4)",
    )
    .bind(id)
    .bind(channel)
    .bind(body)
    .bind(at.as_micros())
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

/// One step for one channel that gathers.
struct Gathering<'a> {
    channel: &'a Channel,
    alerting: &'a Alerting,
    step: Step,
    step_id: &'a str,
    node: &'a str,
    at: Timestamp,
}

/// A message before this one, within the window.
struct Before {
    id: String,
    created: i64,
    nodes: i64,
}

impl Gathering<'_> {
    /// Joins the message that gathers this change, or begins one.
    async fn join(&self, tx: &mut Writing, change: &Digest) -> Result<(), StoreError> {
        let message = match self.gathering(tx, change).await? {
            Some(id) => id,
            None => self.begin(tx, change).await?,
        };
        sqlx::query("INSERT INTO message_steps (message, step, node) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(message)
            .bind(self.step_id)
            .bind(self.node)
            .execute(&mut tx.connection)
            .await?;
        Ok(())
    }

    /// The message that still gathers it; the wait for it to settle begins anew, within the window.
    async fn gathering(
        &self,
        tx: &mut Writing,
        change: &Digest,
    ) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT id, created, follows, next_attempt FROM outbox WHERE channel = ? AND change = ? AND step = ? AND closed IS NULL \
             AND delivered IS NULL AND given_up IS NULL ORDER BY id DESC LIMIT 1",
        )
        .bind(&self.channel.key)
        .bind(change.as_bytes().as_slice())
        .bind(self.step.as_str())
        .fetch_optional(&mut tx.connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get("id")?;
        let (created, due): (i64, i64) = (row.try_get("created")?, row.try_get("next_attempt")?);
        let is_first = row.try_get::<Option<String>, _>("follows")?.is_none();
        // One that was due at once stays so: nobody else could have the change, or it is told again in place.
        let waits = is_first && due > created && !self.channel.updates();
        let later = settled(created, self.at.as_micros(), self.alerting);
        if waits && later > due {
            sqlx::query("UPDATE outbox SET next_attempt = ? WHERE id = ? AND channel = ?")
                .bind(later)
                .bind(&id)
                .bind(&self.channel.key)
                .execute(&mut tx.connection)
                .await?;
        }
        Ok(Some(id))
    }

    async fn begin(&self, tx: &mut Writing, change: &Digest) -> Result<String, StoreError> {
        let before = self.before(tx, change).await?;
        let at = self.at.as_micros();
        let due = match &before {
            Some(_) if self.channel.updates() => at.saturating_add(self.alerting.settle),
            Some(before) => before.created.saturating_add(self.alerting.window).max(at),
            None if self.channel.updates() || is_alone(tx).await? => at,
            None => at.saturating_add(self.alerting.settle),
        };
        let id = uuid::Uuid::now_v7().to_string();
        sqlx::query(
            "INSERT INTO outbox (id, channel, body, created, next_attempt, change, step, follows, told) \
             VALUES (?, ?, X'', ?, ?, ?, ?, ?, ?)",
        )
        .bind(&id)
        .bind(&self.channel.key)
        .bind(at)
        .bind(due)
        .bind(change.as_bytes().as_slice())
        .bind(self.step.as_str())
        .bind(before.as_ref().map(|before| before.id.as_str()))
        .bind(before.as_ref().map_or(0, |before| before.nodes))
        .execute(&mut tx.connection)
        .await?;
        Ok(id)
    }

    /// The last message of this change that is closed, if it began within the window.
    async fn before(
        &self,
        tx: &mut Writing,
        change: &Digest,
    ) -> Result<Option<Before>, StoreError> {
        let row = sqlx::query(
            "SELECT id, created, coalesce(nodes, 0) + told AS nodes FROM outbox WHERE channel = ? AND change = ? AND step = ? \
             AND closed IS NOT NULL AND created > ? ORDER BY id DESC LIMIT 1",
        )
        .bind(&self.channel.key)
        .bind(change.as_bytes().as_slice())
        .bind(self.step.as_str())
        .bind(self.at.as_micros().saturating_sub(self.alerting.window))
        .fetch_optional(&mut tx.connection)
        .await?;
        row.map(|row| {
            Ok(Before {
                id: row.try_get("id")?,
                created: row.try_get("created")?,
                nodes: row.try_get("nodes")?,
            })
        })
        .transpose()
    }
}

/// When a change that began at `created` and was seen again at `at` is told.
fn settled(created: i64, at: i64, alerting: &Alerting) -> i64 {
    at.saturating_add(alerting.settle)
        .min(created.saturating_add(alerting.window))
}

/// Whether there is one active node: nobody else could have the change.
async fn is_alone(tx: &mut Writing) -> Result<bool, StoreError> {
    let active: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM nodes WHERE state = 'active' LIMIT 2)",
    )
    .fetch_one(&mut tx.connection)
    .await?;
    Ok(active <= 1)
}

/// Closes a message: from now on it is the same bytes, and what comes later is another one. None when it has been moved meanwhile.
pub async fn close(
    tx: &mut Writing,
    alerting: &Alerting,
    channel: &Channel,
    id: &str,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query(
        "SELECT told, body, closed FROM outbox WHERE id = ? AND channel = ? AND next_attempt <= ? \
         AND delivered IS NULL AND given_up IS NULL",
    )
    .bind(id)
    .bind(&channel.key)
    .bind(now.as_micros())
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<Option<i64>, _>("closed")?.is_some() {
        return Ok(Some(row.try_get("body")?));
    }
    let told = u64::try_from(row.try_get::<i64, _>("told")?).unwrap_or(0);
    let Some(told) = first_and_nodes(tx, id, told).await? else {
        return Err(StoreError::corrupt("message_steps: a message of nothing"));
    };
    let message = Message::of(id, &told.violation, told.step, &told.nodes, &alerting.pages);
    let made = channel.body(&message, || {
        event::gathered_body(
            &told.violation,
            told.step,
            id,
            told.violation.updated,
            &told.nodes,
        )
    });
    let body = made.map_err(|error| StoreError::corrupt(error.to_string()))?;
    sqlx::query("UPDATE outbox SET closed = ?, nodes = ?, body = ? WHERE id = ? AND channel = ?")
        .bind(now.as_micros())
        .bind(to_sql(told.nodes.count))
        .bind(&body)
        .bind(id)
        .bind(&channel.key)
        .execute(&mut tx.connection)
        .await?;
    Ok(Some(body))
}

/// The violation that a message began with, its step, and the nodes that joined.
pub(super) async fn first_and_nodes(
    tx: &mut Writing,
    message: &str,
    told: u64,
) -> Result<Option<Told>, StoreError> {
    let first = sqlx::query(
        "SELECT s.step, s.record FROM message_steps m JOIN violation_steps s ON s.id = m.step WHERE m.message = ? ORDER BY s.seq LIMIT 1",
    )
    .bind(message)
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(first) = first else { return Ok(None) };
    let (step, record): (String, String) = (first.try_get("step")?, first.try_get("record")?);
    let violation: ViolationView = serde_json::from_str(&record)
        .map_err(|error| StoreError::corrupt(format!("violation_steps.record: {error}")))?;
    let count: i64 =
        sqlx::query_scalar("SELECT count(DISTINCT node) FROM message_steps WHERE message = ?")
            .bind(message)
            .fetch_one(&mut tx.connection)
            .await?;
    let named: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT coalesce(n.name, m.node) AS name FROM message_steps m LEFT JOIN nodes n ON n.id = m.node \
         WHERE m.message = ? ORDER BY name LIMIT ?",
    )
    .bind(message)
    .bind(NAMED)
    .fetch_all(&mut tx.connection)
    .await?;
    Ok(Some(Told {
        step: Step::parse(&step).unwrap_or(Step::Updated),
        violation,
        nodes: Nodes {
            count: u64::try_from(count).unwrap_or(0),
            told,
            named,
        },
    }))
}

#[cfg(test)]
#[path = "gather/tests.rs"]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests;
