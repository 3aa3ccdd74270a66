//! What may be sent now, and when there will be more.

use std::time::Duration;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sqlx::Row as _;

use crate::store::{Store, StoreError};

/// How long nothing is looked for when nothing is known to be due.
const IDLE: Duration = Duration::from_secs(30);

/// A message that may be sent.
pub(super) struct Due {
    pub(super) id: String,
    /// The channel's number.
    pub(super) channel: usize,
    pub(super) body: Vec<u8>,
    /// Whether it still gathers.
    pub(super) gathers: bool,
    /// What it gathers, or gathered.
    pub(super) change: Option<Digest>,
    /// Since when it has been tried.
    pub(super) tried_from: Timestamp,
    pub(super) attempts: i64,
}

/// Reads along the index, so that it costs what it finds however much waits. Rows of one moment come in the order in which they were
/// recorded: a row's number only grows.
const DUE: &str = "SELECT o.id, o.body, coalesce(o.tried_from, o.created) AS tried_from, o.attempts, o.change, o.closed \
     FROM outbox o INDEXED BY outbox_due LEFT JOIN violation_steps s ON s.id = o.id \
     WHERE o.delivered IS NULL AND o.given_up IS NULL AND o.next_attempt <= ?1 AND o.channel = ?2 \
     AND NOT EXISTS (SELECT 1 FROM violation_steps b JOIN outbox p ON p.id = b.id AND p.channel = o.channel \
       WHERE b.violation = s.violation AND b.seq < s.seq AND p.delivered IS NULL AND p.given_up IS NULL) \
     AND NOT EXISTS (SELECT 1 FROM outbox p WHERE p.channel = o.channel AND p.change = o.change AND p.id < o.id \
       AND p.delivered IS NULL AND p.given_up IS NULL) \
     ORDER BY o.next_attempt, o.rowid LIMIT ?3";

/// What may be sent to a channel now, at most so many. A step waits for the steps of its violation before it, and a gathered message
/// for those of its change, so that they arrive in order.
pub(super) async fn due(
    store: &Store,
    index: usize,
    key: &str,
    now: Timestamp,
    most: usize,
) -> Result<Vec<Due>, StoreError> {
    let rows = sqlx::query(DUE)
        .bind(now.as_micros())
        .bind(key)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(store.read_pool())
        .await?;
    rows.iter()
        .map(|row| {
            let change = crate::store::nodes::digest(row, "change")?;
            let closed: Option<i64> = row.try_get("closed")?;
            Ok(Due {
                id: row.try_get("id")?,
                channel: index,
                body: row.try_get("body")?,
                gathers: change.is_some() && closed.is_none(),
                change,
                tried_from: Timestamp::from_micros(row.try_get("tried_from")?),
                attempts: row.try_get("attempts")?,
            })
        })
        .collect()
}

/// How long nothing more will be due.
pub(super) async fn next_due(store: &Store, now: Timestamp) -> Result<Duration, StoreError> {
    let next: Option<i64> =
        sqlx::query_scalar("SELECT min(next_attempt) FROM outbox WHERE delivered IS NULL AND given_up IS NULL AND next_attempt > ?")
            .bind(now.as_micros())
            .fetch_one(store.read_pool())
            .await?;
    let wait = next
        .and_then(|next| u64::try_from(next - now.as_micros()).ok())
        .map_or(IDLE, Duration::from_micros);
    Ok(wait.clamp(Duration::from_millis(5), IDLE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    async fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(&directory.path().join("store.db"))
            .await
            .unwrap()
    }

    /// Rows for a channel, each due at its number of seconds, written in the order given.
    async fn waiting(store: &Store, channel: &'static str, rows: &'static [(&'static str, i64)]) {
        store
            .write(move |tx| {
                Box::pin(async move {
                    for (id, seconds) in rows {
                        sqlx::query("INSERT INTO outbox (id, channel, body, created, next_attempt) VALUES (?, ?, x'', 0, ?)")
                            .bind(id)
                            .bind(channel)
                            .bind(seconds * 1_000_000)
                            .execute(&mut tx.connection)
                            .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[tokio::test]
    async fn the_longest_due_comes_first_and_then_what_was_recorded_first() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        waiting(&store, "one", &[("c", 2), ("a", 2), ("b", 1), ("later", 9)]).await;
        waiting(&store, "another", &[("x", 1)]).await;
        let ids = async |most| -> Vec<String> {
            let due = due(&store, 0, "one", at(5), most).await.unwrap();
            due.into_iter().map(|due| due.id).collect()
        };
        assert_eq!(ids(9).await, ["b", "c", "a"]);
        assert_eq!(ids(2).await, ["b", "c"]);
        let wait = next_due(&store, at(5)).await.unwrap();
        assert_eq!(wait, Duration::from_secs(4));
    }

    /// A storm left 65,000 messages waiting, and each that was sent had all of them sorted: one a second.
    #[tokio::test]
    async fn looking_for_what_is_due_sorts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory).await;
        let plan: Vec<String> =
            sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {DUE}")))
                .bind(0_i64)
                .bind("one")
                .bind(16_i64)
                .fetch_all(store.read_pool())
                .await
                .unwrap()
                .iter()
                .map(|row| row.try_get("detail").unwrap())
                .collect();
        assert!(
            plan.iter()
                .any(|step| step.contains("outbox_due (channel=? AND next_attempt<?)")),
            "{plan:#?}"
        );
        assert!(
            !plan
                .iter()
                .any(|step| step.contains("TEMP B-TREE") || step.starts_with("SCAN")),
            "{plan:#?}"
        );
    }
}
