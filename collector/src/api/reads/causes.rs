//! Open violations by cause: the same finding at the same place, on one node or many.

use super::WITHIN;
use crate::access::Reach;
use crate::store::{Store, StoreError};
use crate::violations::store as violation_store;
use crate::violations::view::ViolationView;
use attestation::time::Timestamp;

/// One cause.
#[derive(Clone, Debug)]
pub struct Cause {
    /// The newest violation of it.
    pub first: ViolationView,
    /// Nodes that have it.
    pub nodes: u64,
    /// When the first of them was seen.
    pub since: Timestamp,
}

/// What makes violations one cause; where a kind has no path, each node is a cause of its own.
const CAUSES: &str = "SELECT max(v.id) AS id, count(*) AS nodes, min(v.detected) AS since, \
     min(CASE v.severity WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END) AS rank \
     FROM violations v LEFT JOIN nodes n ON n.id = v.node";
const SAME: &str =
    "GROUP BY v.kind, CASE v.path WHEN '' THEN v.node ELSE v.path END, v.found, v.fields";

/// The worst causes of open violations within reach, the worst and newest first, and how many there are in all; not those of
/// suspended nodes.
///
/// # Errors
/// What the store refuses.
pub async fn causes(
    store: &Store,
    reach: &Reach,
    limit: u32,
) -> Result<(Vec<Cause>, u64), StoreError> {
    let sql = format!(
        "WITH causes AS ({CAUSES} WHERE {WITHIN} AND v.resolved IS NULL AND coalesce(n.state, '') <> 'suspended' {SAME}) \
         SELECT id, nodes, since, count(*) OVER () FROM causes ORDER BY rank, id DESC LIMIT ?2"
    );
    let worst: Vec<(String, i64, i64, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(limit)
        .fetch_all(store.read_pool())
        .await?;
    let firsts = firsts(store, worst.iter().map(|(id, ..)| id.as_str())).await?;
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    let all = worst.first().map_or(0, |(.., all)| whole(*all));
    let causes = worst.into_iter().filter_map(|(id, nodes, since, _)| {
        Some(Cause {
            first: firsts.iter().find(|first| first.id == id)?.clone(),
            nodes: whole(nodes),
            since: Timestamp::from_micros(since),
        })
    });
    Ok((causes.collect(), all))
}

async fn firsts(
    store: &Store,
    ids: impl Iterator<Item = &str>,
) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE v.id IN (SELECT value FROM json_each(?1))",
        violation_store::SELECT
    );
    let ids = serde_json::Value::from_iter(ids);
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(ids.to_string())
        .fetch_all(store.read_pool())
        .await?;
    let views: Result<Vec<ViolationView>, sqlx::Error> =
        rows.iter().map(violation_store::view).collect();
    Ok(views?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_change_on_two_nodes_is_one_cause() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let rows = [
            ("a", "n1", "difference", "./usr/x", "one", "low", 3),
            ("b", "n2", "difference", "./usr/x", "one", "high", 2),
            ("c", "n3", "difference", "./usr/x", "other", "low", 4),
            ("d", "n1", "silence", "", "", "critical", 5),
            ("e", "n2", "silence", "", "", "critical", 6),
        ];
        store
            .write(move |tx| {
                Box::pin(async move {
                    for (id, node, kind, path, found, severity, at) in rows {
                        sqlx::query(
                            "INSERT INTO violations (id, node, kind, path, found, severity, opened, detected, updated) \
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)",
                        )
                        .bind(id)
                        .bind(node)
                        .bind(kind)
                        .bind(path)
                        .bind(found)
                        .bind(severity)
                        .bind(at)
                        .execute(&mut tx.connection)
                        .await?;
                    }
                    Ok(())
                })
            })
            .await
            .unwrap();
        let (found, all) = causes(&store, &Reach::all(), 3).await.unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|cause| {
                let since = cause.since.as_micros();
                (cause.first.id.as_str(), cause.nodes, since)
            })
            .collect();
        assert_eq!(told, [("e", 1, 6), ("d", 1, 5), ("b", 2, 2)]);
        assert_eq!(all, 4);
    }
}
