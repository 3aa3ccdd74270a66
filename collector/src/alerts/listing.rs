//! Deliveries, for lists and for the history of a violation.

use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;

use crate::store::{Store, StoreError};

/// A delivery as the API lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// The step's id, which is the `webhook-id`.
    pub id: String,
    /// The host of the channel; the rest of a webhook's URL may be a secret.
    pub channel: String,
    /// The violation it tells of.
    pub violation: Option<String>,
    /// `opened`, `updated`, `resolved`.
    pub step: Option<String>,
    /// When it entered the outbox.
    pub created: Timestamp,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next, while it waits.
    pub next_attempt: Option<Timestamp>,
    /// When it was accepted.
    pub delivered: Option<Timestamp>,
    /// When it was given up on.
    pub given_up: Option<Timestamp>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// Deliveries, newest first, at most `limit`, before the id `before`; of one violation or of all.
///
/// # Errors
/// What the store refuses.
pub async fn deliveries(
    store: &Store,
    violation: Option<&str>,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    let rows = sqlx::query(
        "SELECT o.id, o.channel, s.violation, s.step, o.created, o.attempts, o.next_attempt, o.delivered, o.given_up, o.last_error \
         FROM outbox o LEFT JOIN violation_steps s ON s.id = o.id \
         WHERE o.id < ?1 AND (?2 IS NULL OR s.violation = ?2) ORDER BY o.id DESC LIMIT ?3",
    )
    .bind(before.unwrap_or("~"))
    .bind(violation)
    .bind(limit)
    .fetch_all(store.read_pool())
    .await?;
    rows.iter()
        .map(|row| {
            let time = |column: &str| {
                Ok::<_, StoreError>(
                    row.try_get::<Option<i64>, _>(column)?
                        .map(Timestamp::from_micros),
                )
            };
            let (delivered, given_up) = (time("delivered")?, time("given_up")?);
            let url: String = row.try_get("channel")?;
            let waits = delivered.is_none() && given_up.is_none();
            Ok(Delivery {
                id: row.try_get("id")?,
                channel: host(&url),
                violation: row.try_get("violation")?,
                step: row.try_get("step")?,
                created: Timestamp::from_micros(row.try_get("created")?),
                attempts: row.try_get("attempts")?,
                next_attempt: if waits { time("next_attempt")? } else { None },
                delivered,
                given_up,
                last_error: row.try_get("last_error")?,
            })
        })
        .collect()
}

fn host(url: &str) -> String {
    reqwest::Url::parse(url)
        .ok()
        .and_then(|url| {
            let host = url.host_str()?.to_owned();
            Some(
                url.port()
                    .map_or(host.clone(), |port| format!("{host}:{port}")),
            )
        })
        .unwrap_or_else(|| "webhook".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_named_without_what_may_be_secret() {
        assert_eq!(
            host("https://hooks.example/services/T0/SECRET?token=x"),
            "hooks.example"
        );
        assert_eq!(host("http://127.0.0.1:9000/"), "127.0.0.1:9000");
    }
}
