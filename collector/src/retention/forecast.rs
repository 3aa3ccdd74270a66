//! How large the store is, and when its disk will be full.

use attestation::time::Timestamp;
use serde::Serialize;

use crate::store::{Store, StoreError};

const DAY: i64 = 86_400_000_000;
/// Days that the growth is taken from.
const DAYS: i64 = 7;

/// The store's size and what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Forecast {
    /// Bytes now.
    pub bytes: u64,
    /// What the disk has left; none where the system does not say.
    pub free: Option<u64>,
    /// Growth in bytes a day over the last week; none before there is a day to compare with.
    pub per_day: Option<i64>,
    /// Days until the disk is full, if it goes on so.
    pub full_in_days: Option<u64>,
}

/// From the sizes of earlier days (days since 1970, bytes), oldest first. Pure.
pub fn forecast(sizes: &[(i64, i64)], bytes: u64, free: Option<u64>, now: Timestamp) -> Forecast {
    let today = now.as_micros().div_euclid(DAY);
    let now_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let per_day = sizes
        .iter()
        .find(|(day, _)| *day >= today - DAYS && *day < today)
        .map(|(day, then)| (now_bytes - then) / (today - day).max(1));
    let full_in_days = match (per_day.and_then(|growth| u64::try_from(growth).ok()), free) {
        (Some(growth), Some(free)) if growth > 0 => Some(free / growth),
        _ => None,
    };
    Forecast {
        bytes,
        free,
        per_day,
        full_in_days,
    }
}

/// Bytes of the database.
async fn bytes(store: &Store) -> Result<u64, StoreError> {
    let bytes: i64 = sqlx::query_scalar(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
    )
    .fetch_one(store.read_pool())
    .await?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The forecast as things stand.
///
/// # Errors
/// What the store refuses.
pub async fn read(
    store: &Store,
    free: Option<u64>,
    now: Timestamp,
) -> Result<Forecast, StoreError> {
    let sizes: Vec<(i64, i64)> =
        sqlx::query_as("SELECT day, bytes FROM store_sizes WHERE day >= ? ORDER BY day")
            .bind(now.as_micros().div_euclid(DAY) - DAYS)
            .fetch_all(store.read_pool())
            .await?;
    Ok(forecast(&sizes, bytes(store).await?, free, now))
}

/// Writes the size of today down, once.
///
/// # Errors
/// What the store refuses.
pub async fn note_size(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let today = now.as_micros().div_euclid(DAY);
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM store_sizes WHERE day = ?")
        .bind(today)
        .fetch_optional(store.read_pool())
        .await?;
    if known.is_some() {
        return Ok(());
    }
    let bytes = i64::try_from(bytes(store).await?).unwrap_or(i64::MAX);
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO store_sizes (day, bytes) VALUES (?, ?) ON CONFLICT DO NOTHING",
                )
                .bind(today)
                .bind(bytes)
                .execute(&mut tx.connection)
                .await?;
                Ok(())
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(100 * DAY + 5);

    #[test]
    fn growth_is_the_last_weeks_and_says_when_the_disk_is_full() {
        let sizes = [(80, 0), (95, 1_000), (99, 9_000)];
        let said = forecast(&sizes, 11_000, Some(20_000), NOW);
        assert_eq!((said.per_day, said.full_in_days), (Some(2_000), Some(10)));
    }

    #[test]
    fn what_shrinks_or_is_new_is_never_full() {
        assert_eq!(
            forecast(&[(99, 9_000)], 8_000, Some(1), NOW).full_in_days,
            None
        );
        assert_eq!(forecast(&[(100, 9_000)], 9_000, Some(1), NOW).per_day, None);
        assert_eq!(forecast(&[(99, 1)], 9_000, None, NOW).full_in_days, None);
    }
}
