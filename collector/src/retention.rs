//! What is kept, and for how long.
//!
//! Violations, their steps, the activity log, changes of verdicts, logins, and every statement that says something are kept. What grows
//! without saying anything is the evidence of quiet attestations: nothing but time, sequence and challenge changed in them since the one
//! before. After its time it is pruned, in whole batches of each node, and with it the receipt, which is made again from what stays: the
//! statement's row (a second statement with its sequence still is a fork), its leaf in the log, its payload's digest, which the next
//! statement names. One statement of each batch stays as it is. A leaf of the log stands for each batch.
//!
//! Since when a node compares with its image is a row that lists ask for. What it compared with before is said by the statements that
//! changed it, which are never quiet: that row goes once the node has been something else for as long.

mod forecast;

use std::collections::HashSet;
use std::path::Path;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::Attestation;
use attestation::time::Timestamp;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};

use crate::log::{self, Leaf};
use crate::settings::Retention;
use crate::state::AppState;
use crate::store::{Store, StoreError, Writing};

pub use self::forecast::{Forecast, note_size, read as read_forecast};

/// Statements of a node that are looked at together. The last of them stays: the next batch begins with it.
const BATCH: usize = 256;
/// Nodes looked at in one round; the next round takes the others.
const NODES: i64 = 16;
/// Deliveries removed in one round.
const DELIVERIES: i64 = 2_000;
/// Rows of what nodes compared with before, removed in one round.
const IMAGES: i64 = 2_000;
const DAY: i64 = 86_400_000_000;

/// One round: what is over its time at `now`, a bounded part of it. Answers for how many statements.
///
/// # Errors
/// What the store refuses.
pub async fn prune(app: &AppState, now: Timestamp) -> Result<u64, StoreError> {
    let Retention {
        attestations,
        deliveries,
    } = app.settings.retention;
    if deliveries > 0 {
        delivered(&app.store, before(now, deliveries)).await?;
    }
    let mut pruned = 0;
    if attestations > 0 {
        let until = before(now, attestations);
        images_before(&app.store, until).await?;
        for node in due(&app.store, until).await? {
            let some = of_node(&app.store, &node, until, now).await?;
            app.metrics.pruned.inc_by(some);
            pruned += some;
        }
    }
    Ok(pruned)
}

fn before(now: Timestamp, days: u32) -> i64 {
    now.as_micros()
        .saturating_sub(i64::from(days).saturating_mul(DAY))
}

/// What the disk of a directory has left, in bytes.
pub fn free(directory: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(directory).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Messages that were accepted long ago; dead letters stay until somebody has looked at them.
async fn delivered(store: &Store, until: i64) -> Result<(), StoreError> {
    let old: Option<i64> = sqlx::query_scalar("SELECT 1 FROM outbox WHERE delivered < ? LIMIT 1")
        .bind(until)
        .fetch_optional(store.read_pool())
        .await?;
    if old.is_none() {
        return Ok(());
    }
    store
        .write(move |tx| {
            Box::pin(async move {
                for sql in [
                    "DELETE FROM message_steps WHERE message IN (SELECT id FROM outbox WHERE delivered < ? ORDER BY delivered, rowid LIMIT ?)",
                    "DELETE FROM outbox WHERE rowid IN (SELECT rowid FROM outbox WHERE delivered < ? ORDER BY delivered, rowid LIMIT ?)",
                ] {
                    sqlx::query(sql)
                        .bind(until)
                        .bind(DELIVERIES)
                        .execute(&mut tx.connection)
                        .await?;
                }
                Ok(())
            })
        })
        .await
}

/// What nodes compared with before another image that they came to have before then. Nothing reads but the newest row of each node.
async fn images_before(store: &Store, until: i64) -> Result<(), StoreError> {
    const OVER: &str = "FROM node_images m WHERE EXISTS (SELECT 1 FROM node_images l WHERE l.node = m.node AND l.since > m.since AND l.since < ?1)";
    let some: Option<i64> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT 1 {OVER} LIMIT 1")))
        .bind(until)
        .fetch_optional(store.read_pool())
        .await?;
    if some.is_none() {
        return Ok(());
    }
    store
        .write(move |tx| {
            Box::pin(async move {
                let sql = format!(
                    "DELETE FROM node_images WHERE (node, since) IN (SELECT m.node, m.since {OVER} LIMIT ?2)"
                );
                sqlx::query(AssertSqlSafe(sql))
                    .bind(until)
                    .bind(IMAGES)
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await
}

/// Nodes with a whole batch that is over its time.
async fn due(store: &Store, until: i64) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar(
        "SELECT n.id FROM nodes n LEFT JOIN retained r ON r.node = n.id \
         WHERE (SELECT a.received FROM attestations a WHERE a.node = n.id AND a.sequence >= coalesce(r.sequence, 0) + ? \
                ORDER BY a.sequence LIMIT 1) < ? LIMIT ?",
    )
    .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
    .bind(until)
    .bind(NODES)
    .fetch_all(store.read_pool())
    .await?)
}

/// A statement as it is stored.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its sequence.
    pub sequence: i64,
    /// SHA-256 of its payload.
    pub payload: Digest,
    /// When it was received.
    pub received: i64,
    /// Whether it made its node fresh.
    pub fresh: bool,
    /// What it was appraised as.
    pub verdict: Option<String>,
    /// What it says; none where its evidence is pruned, or cannot be read.
    pub said: Option<Attestation>,
}

/// Which statements of a batch may go: pure. `told` are the times at which a step of a violation was recorded, `named` is the
/// statement whose differences still stand.
pub fn quiet<'a>(batch: &'a [Kept], told: &HashSet<i64>, named: Option<i64>) -> Vec<&'a Kept> {
    let Some((_, rest)) = batch.split_last() else {
        return Vec::new();
    };
    let may_go = |(at, one): &(usize, &Kept)| {
        let Some(before) = at.checked_sub(1).and_then(|at| batch.get(at)) else {
            return false;
        };
        let after = batch.get(at + 1).map(|after| after.sequence);
        let (Some(said), Some(said_before)) = (&one.said, &before.said) else {
            return false;
        };
        // A second statement with its sequence: proof of a fork.
        let is_alone = before.sequence != one.sequence && after != Some(one.sequence);
        let follows = said.previous == Some(before.payload);
        is_alone
            && follows
            && one.fresh
            && one.verdict == before.verdict
            && said.differences.is_empty()
            && said.is_quiet(said_before)
            && !told.contains(&one.received)
            && named != Some(one.sequence)
    };
    rest.iter()
        .enumerate()
        .filter(may_go)
        .map(|(_, one)| one)
        .collect()
}

async fn of_node(store: &Store, node: &str, until: i64, now: Timestamp) -> Result<u64, StoreError> {
    let batch = batch(store, node, until).await?;
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(0);
    };
    let (from, to) = (first.received, last.received);
    let told: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT s.at FROM violations v JOIN violation_steps s ON s.violation = v.id WHERE v.node = ? AND s.at BETWEEN ? AND ?",
    )
    .bind(node)
    .bind(from)
    .bind(to)
    .fetch_all(store.read_pool())
    .await?;
    let named: Option<i64> = sqlx::query_scalar("SELECT differences_at FROM nodes WHERE id = ?")
        .bind(node)
        .fetch_optional(store.read_pool())
        .await?
        .flatten();
    let going: Vec<(i64, Digest)> = quiet(&batch, &told.into_iter().collect(), named)
        .into_iter()
        .map(|one| (one.sequence, one.payload))
        .collect();
    let (node, upto) = (node.to_owned(), last.sequence);
    store
        .write(move |tx| Box::pin(async move { remove(tx, &node, &going, upto, now).await }))
        .await
}

/// The next batch of a node, with what it says.
async fn batch(store: &Store, node: &str, until: i64) -> Result<Vec<Kept>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.sequence, a.payload, a.received, a.fresh, a.verdict, e.bytes FROM attestations a LEFT JOIN evidence e ON e.sha256 = a.payload \
         WHERE a.node = ?1 AND a.sequence >= coalesce((SELECT sequence FROM retained WHERE node = ?1), 0) AND a.received < ?2 \
         ORDER BY a.sequence LIMIT ?3",
    )
    .bind(node)
    .bind(until)
    .bind(i64::try_from(BATCH + 1).unwrap_or(i64::MAX))
    .fetch_all(store.read_pool())
    .await?;
    rows.iter()
        .map(|row| {
            let bytes: Option<Vec<u8>> = row.try_get("bytes")?;
            let said = bytes.and_then(|bytes| {
                let envelope = Envelope::from_json(&bytes).ok()?;
                Some(envelope.peek::<Attestation>().ok()?.predicate)
            });
            Ok(Kept {
                sequence: row.try_get("sequence")?,
                payload: crate::store::nodes::digest(row, "payload")?.unwrap_or(Digest::ZERO),
                received: row.try_get("received")?,
                fresh: row.try_get("fresh")?,
                verdict: row.try_get("verdict")?,
                said,
            })
        })
        .collect()
}

/// The digest that a batch's leaf stands for.
pub(crate) fn digest_of<'a>(payloads: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let all: Vec<u8> = payloads
        .into_iter()
        .flat_map(|payload| payload.as_bytes().to_vec())
        .collect();
    Digest::of(&all)
}

async fn remove(
    tx: &mut Writing,
    node: &str,
    going: &[(i64, Digest)],
    upto: i64,
    now: Timestamp,
) -> Result<u64, StoreError> {
    if let (Some((from, _)), Some((to, _))) = (going.first(), going.last()) {
        let leaf = Leaf {
            kind: "collector",
            at: now,
            node: Some(node),
            sequence: None,
            digest: digest_of(going.iter().map(|(_, payload)| payload)),
            more: json!({"pruned": going.len(), "from": from, "to": to}),
        };
        log::append(tx, &leaf).await?;
        let leaf: i64 = sqlx::query_scalar("SELECT last_insert_rowid()")
            .fetch_one(&mut tx.connection)
            .await?;
        for (sequence, payload) in going {
            one(tx, node, *sequence, payload, leaf).await?;
        }
    }
    sqlx::query("INSERT INTO retained (node, sequence) VALUES (?1, ?2) ON CONFLICT (node) DO UPDATE SET sequence = ?2")
        .bind(node)
        .bind(upto)
        .execute(&mut tx.connection)
        .await?;
    Ok(u64::try_from(going.len()).unwrap_or(0))
}

async fn one(
    tx: &mut Writing,
    node: &str,
    sequence: i64,
    payload: &Digest,
    leaf: i64,
) -> Result<(), StoreError> {
    let payload = payload.as_bytes().as_slice();
    for sql in [
        "INSERT INTO pruning (payload) VALUES (?)",
        "DELETE FROM evidence WHERE sha256 = ?",
        "DELETE FROM receipts WHERE payload = ?",
        "DELETE FROM pruning WHERE payload = ?",
    ] {
        sqlx::query(sql)
            .bind(payload)
            .execute(&mut tx.connection)
            .await?;
    }
    sqlx::query(
        "UPDATE attestations SET pruned = ? WHERE node = ? AND sequence = ? AND payload = ?",
    )
    .bind(leaf)
    .bind(node)
    .bind(sequence)
    .bind(payload)
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

#[cfg(test)]
#[path = "retention/tests.rs"]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests;
