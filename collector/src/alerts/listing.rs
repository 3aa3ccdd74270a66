//! Deliveries, for lists, pages and the history of a violation; and another try for those that were given up on.

use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::Alerting;
use super::channel::host;
use crate::access::{Person, Reach};
use crate::activity::{self, Doing, Target};
use crate::store::{Store, StoreError};

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// It is tried, or gathers.
    Waiting,
    /// The receiver has it.
    Delivered,
    /// A dead letter.
    GivenUp,
}

impl DeliveryState {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::GivenUp => "given-up",
        }
    }
}

/// A delivery as the API lists it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Delivery {
    /// The message's id: the `webhook-id`, the `Message-ID`.
    pub id: String,
    /// The channel's name; a webhook's host where it has none, as the rest of its URL may be a secret.
    pub channel: String,
    /// How it stands.
    pub state: DeliveryState,
    /// The violation it tells of, the first one where it gathers.
    pub violation: Option<String>,
    /// `opened`, `updated`, `resolved`.
    pub step: Option<String>,
    /// On how many nodes, where it gathers the same change from many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u64>,
    /// When it entered the outbox.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next, while it waits.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt: Option<Timestamp>,
    /// When it was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered: Option<Timestamp>,
    /// When it was given up on.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub given_up: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// Its place in the list: one message may go to several channels under one id.
    #[serde(skip)]
    pub cursor: i64,
    /// The step that it tells of, where that was asked for: a message that gathers tells of many.
    #[serde(skip)]
    pub tells: Option<String>,
}

/// Which deliveries.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeliveryFilter<'a> {
    /// Only to this channel, by name.
    pub channel: Option<&'a str>,
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Only before this place.
    pub before: Option<i64>,
}

/// Rows `o` of the outbox that are tried, or gather.
pub(crate) const WAITING: &str = "o.delivered IS NULL AND o.given_up IS NULL";
/// Rows `o` of the outbox that are dead letters.
pub(crate) const GIVEN_UP: &str = "o.delivered IS NULL AND o.given_up IS NOT NULL";
/// Whether there is any violation within reach. The first parameter is [`Reach::to_sql`]. Where there is none no message is looked into:
/// whoever oversees quiet nodes does not wait for those of others.
const ANY_WITHIN: &str = "(?1 IS NULL OR EXISTS (SELECT 1 FROM nodes n JOIN violations v ON v.node = n.id \
     WHERE n.grp IN (SELECT value FROM json_each(?1))))";
/// Whether a message, a row `o` of the outbox, tells of a node within reach. The first parameter is [`Reach::to_sql`].
pub(crate) const TELLS_WITHIN: &str = "(?1 IS NULL OR ((SELECT EXISTS (SELECT 1 FROM nodes n JOIN violations v ON v.node = n.id \
     WHERE n.grp IN (SELECT value FROM json_each(?1)))) AND EXISTS (SELECT 1 FROM violation_steps t JOIN violations v ON v.id = t.violation \
     JOIN nodes n ON n.id = v.node WHERE (t.id = o.id OR t.id IN (SELECT step FROM message_steps WHERE message = o.id)) \
     AND n.grp IN (SELECT value FROM json_each(?1)))))";

/// What is told of a message: a row `o` of the outbox, with the step `s` that it is where it gathers none. Of a message that gathers,
/// the violation and the nodes within reach. The first parameter is [`Reach::to_sql`].
const COLUMNS: &str = "o.rowid AS place, o.id, o.channel, coalesce(s.violation, \
     (SELECT f.violation FROM message_steps m JOIN violation_steps f ON f.id = m.step LEFT JOIN nodes n ON n.id = m.node WHERE m.message = o.id \
      AND (?1 IS NULL OR n.grp IN (SELECT value FROM json_each(?1))) ORDER BY f.seq LIMIT 1)) AS violation, \
     coalesce(o.step, s.step) AS step, o.created, o.attempts, o.next_attempt, o.delivered, o.given_up, o.last_error, \
     CASE WHEN o.change IS NULL THEN NULL \
      WHEN ?1 IS NULL THEN coalesce(o.nodes, (SELECT count(DISTINCT node) FROM message_steps WHERE message = o.id)) \
      ELSE (SELECT count(DISTINCT m.node) FROM message_steps m JOIN nodes n ON n.id = m.node WHERE m.message = o.id \
       AND n.grp IN (SELECT value FROM json_each(?1))) END AS nodes";

/// One page of deliveries: its rows first, and what is told of each then.
fn page(state: Option<DeliveryState>) -> String {
    let (stands, row) = that_stand(state);
    format!(
        "WITH page (place) AS (SELECT o.rowid FROM outbox o WHERE {stands} AND {row} < ?2 AND (?3 IS NULL OR o.channel = ?3) \
          AND {TELLS_WITHIN} ORDER BY {row} DESC LIMIT CASE WHEN {ANY_WITHIN} THEN ?4 ELSE 0 END) \
         SELECT {COLUMNS} FROM page JOIN outbox o ON o.rowid = page.place LEFT JOIN violation_steps s ON s.id = o.id ORDER BY o.rowid DESC"
    )
}

/// Which rows of the outbox stand so, and by what they are gone through: all and what is delivered, which is most, by their number; what
/// waits and what was given up on, few among many, by the index of these, for which the `+` takes the number away from the planner.
const fn that_stand(state: Option<DeliveryState>) -> (&'static str, &'static str) {
    match state {
        None => ("true", "o.rowid"),
        Some(DeliveryState::Delivered) => ("o.delivered IS NOT NULL", "o.rowid"),
        Some(DeliveryState::GivenUp) => (GIVEN_UP, "+o.rowid"),
        Some(DeliveryState::Waiting) => (WAITING, "+o.rowid"),
    }
}

/// Deliveries that tell of nodes within reach, newest first, at most `limit`.
///
/// # Errors
/// What the store refuses.
pub async fn deliveries(
    store: &Store,
    alerting: Option<&Alerting>,
    reach: &Reach,
    filter: DeliveryFilter<'_>,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let key = filter.channel.map(|name| {
        alerting
            .and_then(|alerting| alerting.channel(name))
            .map_or(name, |channel| channel.key.as_str())
    });
    let rows = sqlx::query(AssertSqlSafe(page(filter.state)))
        .bind(reach.to_sql())
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(key)
        .bind(limit)
        .fetch_all(store.read_pool())
        .await?;
    rows.iter().map(|row| delivery(row, alerting)).collect()
}

/// Deliveries that tell of one violation, newest first, at most `limit`.
///
/// # Errors
/// What the store refuses.
pub async fn of_violation(
    store: &Store,
    alerting: &Alerting,
    reach: &Reach,
    violation: &str,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let sql = format!(
        "SELECT t.tells, {COLUMNS} FROM (SELECT v.id AS message, v.id AS tells FROM violation_steps v WHERE v.violation = ?2 UNION ALL \
          SELECT m.message, v.id FROM violation_steps v JOIN message_steps m ON m.step = v.id WHERE v.violation = ?2) t \
         JOIN outbox o ON o.id = t.message LEFT JOIN violation_steps s ON s.id = o.id ORDER BY o.rowid DESC LIMIT ?3"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(violation)
        .bind(limit)
        .fetch_all(store.read_pool())
        .await?;
    rows.iter()
        .map(|row| {
            let tells: String = row.try_get("tells")?;
            Ok(Delivery {
                tells: Some(tells),
                ..delivery(row, Some(alerting))?
            })
        })
        .collect()
}

fn delivery(row: &SqliteRow, alerting: Option<&Alerting>) -> Result<Delivery, StoreError> {
    let time = |column: &str| {
        Ok::<_, StoreError>(
            row.try_get::<Option<i64>, _>(column)?
                .map(Timestamp::from_micros),
        )
    };
    let (delivered, given_up) = (time("delivered")?, time("given_up")?);
    let state = match (delivered, given_up) {
        (Some(_), _) => DeliveryState::Delivered,
        (None, Some(_)) => DeliveryState::GivenUp,
        (None, None) => DeliveryState::Waiting,
    };
    let key: String = row.try_get("channel")?;
    let nodes: Option<i64> = row.try_get("nodes")?;
    Ok(Delivery {
        id: row.try_get("id")?,
        channel: name_of(&key, alerting),
        state,
        violation: row.try_get("violation")?,
        step: row.try_get("step")?,
        nodes: nodes.and_then(|nodes| u64::try_from(nodes).ok()),
        created: Timestamp::from_micros(row.try_get("created")?),
        attempts: row.try_get("attempts")?,
        next_attempt: if state == DeliveryState::Waiting {
            time("next_attempt")?
        } else {
            None
        },
        delivered,
        given_up,
        last_error: row.try_get("last_error")?,
        cursor: row.try_get("place")?,
        tells: None,
    })
}

fn name_of(key: &str, alerting: Option<&Alerting>) -> String {
    let known = alerting
        .into_iter()
        .flat_map(Alerting::channels)
        .find(|channel| channel.key == key);
    match known {
        Some(channel) => channel.name.clone(),
        None if key.contains("://") => host(key),
        None => key.to_owned(),
    }
}

/// Has dead letters tried again, under the ids they had: those of one message that tells of a node within reach, to one channel or to all.
/// Answers for how many.
///
/// # Errors
/// What the store refuses.
pub async fn try_again(
    store: &Store,
    alerting: &Alerting,
    id: &str,
    channel: Option<&str>,
    by: &Person,
    at: Timestamp,
) -> Result<u64, StoreError> {
    let key = channel.map(|name| {
        alerting
            .channel(name)
            .map_or_else(|| name.to_owned(), |channel| channel.key.clone())
    });
    let (id, by, channel) = (id.to_owned(), by.clone(), channel.map(str::to_owned));
    store
        .write(move |tx| {
            Box::pin(async move {
                let sql = format!(
                    "UPDATE outbox AS o SET given_up = NULL, next_attempt = ?2, tried_from = ?2, attempts = 0 \
                     WHERE o.id = ?3 AND {GIVEN_UP} AND (?4 IS NULL OR o.channel = ?4) AND {TELLS_WITHIN}"
                );
                let moved = sqlx::query(AssertSqlSafe(sql))
                    .bind(by.reach.to_sql())
                    .bind(at.as_micros())
                    .bind(&id)
                    .bind(key)
                    .execute(&mut tx.connection)
                    .await?
                    .rows_affected();
                if moved > 0 {
                    let name = channel.as_deref().unwrap_or("every channel");
                    let doing = Doing {
                        who: &by,
                        at,
                        action: "alert.retry",
                        target: Target::new("channel", name, name),
                        before: serde_json::json!({"state": "given-up"}),
                        after: serde_json::json!({"message": id, "deliveries": moved}),
                        reason: None,
                    };
                    activity::record(tx, &doing).await?;
                    tx.outbox_changed();
                }
                Ok(moved)
            })
        })
        .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    /// How the store would go through a query.
    async fn plan(store: &Store, sql: &str) -> String {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(store.read_pool())
            .await
            .unwrap();
        let lines = rows.iter().map(|row| row.get::<String, _>("detail"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn what_waits_and_dead_letters_are_read_by_their_index_among_any_number_of_deliveries() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db"))
            .await
            .unwrap();
        for (state, condition, indexes) in [
            (
                DeliveryState::Waiting,
                WAITING,
                &["outbox_waiting", "outbox_due"][..],
            ),
            (DeliveryState::GivenUp, GIVEN_UP, &["outbox_given_up"]),
        ] {
            let count =
                format!("SELECT count(*) FROM outbox o WHERE {condition} AND {TELLS_WITHIN}");
            for sql in [count, page(Some(state))] {
                let plan = plan(&store, &sql).await;
                let by_index = indexes
                    .iter()
                    .any(|index| plan.contains(&format!("INDEX {index}")));
                assert!(by_index, "{sql}\n{plan}");
            }
        }
    }
}
