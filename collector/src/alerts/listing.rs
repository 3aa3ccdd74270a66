//! Deliveries and channels, for lists, pages and the history of a violation.

use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::channel::{Channel, host};
use super::{Alerting, route};
use crate::access::Person;
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
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter<'a> {
    /// Only to this channel, by name.
    pub channel: Option<&'a str>,
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Only before this place.
    pub before: Option<i64>,
    /// Only what tells of nodes of these groups, as [`crate::access::reach::Reach::to_sql`] writes them; of all without.
    pub reach: Option<String>,
}

const COLUMNS: &str = "o.rowid AS place, o.id, o.channel, coalesce(s.violation, \
     (SELECT f.violation FROM message_steps m JOIN violation_steps f ON f.id = m.step WHERE m.message = o.id ORDER BY f.seq LIMIT 1)) AS violation, \
     coalesce(o.step, s.step) AS step, o.created, o.attempts, o.next_attempt, o.delivered, o.given_up, o.last_error, \
     CASE WHEN o.change IS NULL THEN NULL ELSE coalesce(o.nodes, (SELECT count(DISTINCT node) FROM message_steps WHERE message = o.id)) END AS nodes";

/// Deliveries, newest first, at most `limit`.
///
/// # Errors
/// What the store refuses.
pub async fn deliveries(
    store: &Store,
    alerting: Option<&Alerting>,
    filter: &DeliveryFilter<'_>,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let key = filter.channel.map(|name| {
        alerting
            .and_then(|alerting| alerting.channel(name))
            .map_or(name, |channel| channel.key.as_str())
    });
    let sql = format!(
        "SELECT {COLUMNS} FROM outbox o LEFT JOIN violation_steps s ON s.id = o.id WHERE o.rowid < ?1 AND (?2 IS NULL OR o.channel = ?2) \
         AND (?3 IS NULL OR ?3 = CASE WHEN o.delivered IS NOT NULL THEN 'delivered' WHEN o.given_up IS NOT NULL THEN 'given-up' ELSE 'waiting' END) \
         AND (?5 IS NULL OR EXISTS (SELECT 1 FROM violation_steps t JOIN violations v ON v.id = t.violation JOIN nodes n ON n.id = v.node \
           WHERE (t.id = o.id OR t.id IN (SELECT step FROM message_steps WHERE message = o.id)) AND n.grp IN (SELECT value FROM json_each(?5)))) \
         ORDER BY o.rowid DESC LIMIT ?4"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(filter.before.unwrap_or(i64::MAX))
        .bind(key)
        .bind(filter.state.map(DeliveryState::as_str))
        .bind(limit)
        .bind(filter.reach.as_deref())
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
    violation: &str,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let sql = format!(
        "SELECT t.tells, {COLUMNS} FROM (SELECT v.id AS message, v.id AS tells FROM violation_steps v WHERE v.violation = ?1 UNION ALL \
          SELECT m.message, v.id FROM violation_steps v JOIN message_steps m ON m.step = v.id WHERE v.violation = ?1) t \
         JOIN outbox o ON o.id = t.message LEFT JOIN violation_steps s ON s.id = o.id ORDER BY o.rowid DESC LIMIT ?2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
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

/// A channel as the API lists it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Channel)]
pub struct ChannelView {
    /// What routes and commands call it.
    pub name: String,
    /// `webhook`, `slack`, `alertmanager`, `email`.
    pub kind: &'static str,
    /// Where to, without what may be secret.
    pub place: String,
    /// Whether the same change on many nodes is one message.
    pub gathers: bool,
    /// What it hears of, in words.
    pub hears: Vec<String>,
    /// Why nothing can be sent there, if so.
    pub trouble: Option<String>,
    /// Messages that wait.
    pub waiting: u64,
    /// The oldest of them.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub given_up: u64,
    /// When one was last accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered: Option<Timestamp>,
    /// Why the last attempt of one that waits failed.
    pub last_error: Option<String>,
}

/// All channels with how their deliveries stand.
///
/// # Errors
/// What the store refuses.
pub async fn all_channels(
    store: &Store,
    alerting: &Alerting,
) -> Result<Vec<ChannelView>, StoreError> {
    let mut all = Vec::new();
    for channel in alerting.channels() {
        let row = sqlx::query(
            "SELECT (SELECT count(*) FROM outbox WHERE channel = ?1 AND delivered IS NULL AND given_up IS NULL) AS waiting, \
             (SELECT min(created) FROM outbox WHERE channel = ?1 AND delivered IS NULL AND given_up IS NULL) AS oldest, \
             (SELECT count(*) FROM outbox WHERE channel = ?1 AND delivered IS NULL AND given_up IS NOT NULL) AS given_up, \
             (SELECT max(delivered) FROM outbox WHERE channel = ?1) AS delivered, \
             (SELECT last_error FROM outbox WHERE channel = ?1 AND delivered IS NULL AND given_up IS NULL AND last_error IS NOT NULL \
              ORDER BY id DESC LIMIT 1) AS last_error",
        )
        .bind(&channel.key)
        .fetch_one(store.read_pool())
        .await?;
        let whole = |column: &str| {
            Ok::<_, StoreError>(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
        };
        all.push(ChannelView {
            name: channel.name.clone(),
            kind: channel.kind(),
            place: channel.place.clone(),
            gathers: channel.gathers,
            hears: hears(channel, alerting),
            trouble: channel.trouble(),
            waiting: whole("waiting")?,
            oldest: crate::store::nodes::time(&row, "oldest")?,
            given_up: whole("given_up")?,
            delivered: crate::store::nodes::time(&row, "delivered")?,
            last_error: row.try_get("last_error")?,
        });
    }
    Ok(all)
}

fn hears(channel: &Channel, alerting: &Alerting) -> Vec<String> {
    if alerting.routes().is_empty() {
        return vec!["Everything: there is no route.".to_owned()];
    }
    let named = |route: &&crate::settings::AlertRoute| route.channels.contains(&channel.name);
    let words: Vec<String> = alerting
        .routes()
        .iter()
        .filter(named)
        .map(route::words)
        .collect();
    if words.is_empty() {
        vec!["Nothing: no route names it.".to_owned()]
    } else {
        words
    }
}

/// Has dead letters tried again, under the ids they had: those of one message, to one channel or to all. Answers for how many.
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
                let moved = sqlx::query(
                    "UPDATE outbox SET given_up = NULL, next_attempt = ?1, tried_from = ?1, attempts = 0 \
                     WHERE id = ?2 AND given_up IS NOT NULL AND delivered IS NULL AND (?3 IS NULL OR channel = ?3) \
                     AND (?4 IS NULL OR EXISTS (SELECT 1 FROM violation_steps t JOIN violations v ON v.id = t.violation JOIN nodes n ON n.id = v.node \
                       WHERE (t.id = ?2 OR t.id IN (SELECT step FROM message_steps WHERE message = ?2)) AND n.grp IN (SELECT value FROM json_each(?4))))",
                )
                .bind(at.as_micros())
                .bind(&id)
                .bind(key)
                .bind(by.reach.to_sql())
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
