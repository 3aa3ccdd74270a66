//! Nodes that say nothing. Whether a node is silent is decided again inside the transaction that opens the violation.

use std::time::Instant;

use attestation::time::Timestamp;
use serde_json::json;

use super::steps::{Change, event};
use super::store::{Channels, apply, open_of_kind};
use super::view::{Kind, Step};
use crate::clock;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// After so many intervals without a fresh statement.
const INTERVALS: u64 = 3;
/// A node that has never attested and asks for challenges reads its root for the first time: so long at most, which is enough for
/// terabytes.
const FIRST_READING: u64 = 3600;
/// Nodes looked at in one transaction; the next look takes the others.
const AT_ONCE: i64 = 256;

/// Opens `silence` for each node that has been silent for three intervals; answers for how many.
pub async fn watch(state: &AppState, now: Timestamp) -> Result<usize, StoreError> {
    let limit = now
        .as_micros()
        .saturating_sub(micros(state.settings.interval.saturating_mul(INTERVALS)));
    if state.started.as_micros() > limit {
        return Ok(0);
    }
    let silent: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM nodes n WHERE state = 'active' AND stopped IS NULL AND coalesce(last_fresh, approved, enrolled) < ? \
         AND NOT EXISTS (SELECT 1 FROM violations v WHERE v.node = n.id AND v.kind = 'silence' AND v.path = '' AND v.resolved IS NULL) \
         LIMIT ?",
    )
    .bind(limit)
    .bind(AT_ONCE)
    .fetch_all(state.store.read_pool())
    .await?;
    if silent.is_empty() {
        return Ok(0);
    }
    let (started, interval, channels, challenges) = (
        state.started,
        state.settings.interval,
        state.channels.clone(),
        std::sync::Arc::clone(&state.challenges),
    );
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let mut opened = 0;
                for id in silent {
                    let Some(node) = tx.node(&id).await? else {
                        continue;
                    };
                    let waits = challenges.waits(&id, Instant::now());
                    if is_silent(&node, waits, now, started, interval)
                        && open(tx, &node, now, &channels).await?
                    {
                        opened += 1;
                    }
                }
                Ok(opened)
            })
        })
        .await
}

/// Whether a node has said nothing fresh for three intervals, counted from the later of last seen and the collector's start. A
/// node that said goodbye is not silent; nor is one that has not attested yet and waits with a challenge in hand: it reads.
pub fn is_silent(
    node: &NodeRow,
    waits: bool,
    now: Timestamp,
    started: Timestamp,
    interval: u64,
) -> bool {
    let seen = node
        .last_fresh
        .or(node.approved)
        .unwrap_or(node.enrolled)
        .max(started);
    let reads = waits && node.last_fresh.is_none() && now <= clock::after(seen, FIRST_READING);
    !reads
        && node.state == NodeState::Active
        && node.stopped.is_none()
        && now > clock::after(seen, interval.saturating_mul(INTERVALS))
}

async fn open(
    tx: &mut Writing,
    node: &NodeRow,
    now: Timestamp,
    channels: &Channels,
) -> Result<bool, StoreError> {
    if open_of_kind(tx, &node.id, Kind::Silence).await?.is_some() {
        return Ok(false);
    }
    let mut detail = serde_json::Map::new();
    detail.insert("last_fresh".to_owned(), json!(node.last_fresh));
    detail.insert("last_received".to_owned(), json!(node.last_received));
    let violation = event(
        &node.id,
        &node.name,
        Kind::Silence,
        now,
        detail,
        uuid::Uuid::now_v7().to_string(),
    );
    apply(
        tx,
        &Change {
            step: Step::Opened,
            violation,
        },
        now,
        None,
        channels,
    )
    .await?;
    Ok(true)
}

fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn silence_counts_from_the_last_fresh_statement_and_a_first_reading_is_none() {
        let mut node = NodeRow::new(
            "a".to_owned(),
            "web-1".to_owned(),
            "default".to_owned(),
            NodeState::Active,
            String::new(),
            at(0),
        );
        let silent = |node: &NodeRow, waits, now| is_silent(node, waits, at(now), at(0), 30);
        assert!(!silent(&node, false, 90) && silent(&node, false, 91));
        assert!(!silent(&node, true, 3_600), "it reads");
        assert!(silent(&node, true, 3_601), "for too long");
        node.last_fresh = Some(at(100));
        assert!(!silent(&node, true, 190) && silent(&node, true, 191));
        node.stopped = Some(at(150));
        assert!(!silent(&node, false, 191));
    }
}
