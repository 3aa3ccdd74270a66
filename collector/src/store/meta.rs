//! Small values by name, and when this collector ran.

use attestation::time::Timestamp;

use super::{Store, StoreError, Writing};

/// A stored value.
pub async fn meta_get(store: &Store, key: &str) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
        .bind(key)
        .fetch_optional(store.read_pool())
        .await?)
}

/// Sets a value inside a transaction.
pub async fn meta_set(tx: &mut Writing, key: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
    )
    .bind(key)
    .bind(value)
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

/// Records that the collector has started; silence counts from here at the earliest.
pub async fn run_started(store: &Store, at: Timestamp) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO collector_runs (started, last_alive, version) VALUES (?1, ?1, ?2) ON CONFLICT DO NOTHING")
                    .bind(at.as_micros())
                    .bind(env!("CARGO_PKG_VERSION"))
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
}

/// Records that the run that began at `started` still goes on.
pub async fn heartbeat(
    store: &Store,
    started: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("UPDATE collector_runs SET last_alive = ? WHERE started = ?")
                    .bind(now.as_micros())
                    .bind(started.as_micros())
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
}

/// Records an orderly end.
pub async fn run_stopped(
    store: &Store,
    started: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "UPDATE collector_runs SET last_alive = ?1, stopped = ?1 WHERE started = ?2",
                )
                .bind(now.as_micros())
                .bind(started.as_micros())
                .execute(&mut tx.connection)
                .await?;
                Ok(())
            })
        })
        .await
}
