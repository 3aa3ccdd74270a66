//! Nodes with what stands in other tables.

use std::collections::HashMap;

use attestation::digest::Digest;
use attestation::statement::Coverage;
use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;

use super::WITHIN;
use crate::access::Reach;
use crate::clock;
use crate::exceptions;
use crate::fleet;
use crate::state::AppState;
use crate::store::{NodeRow, StoreError};
use crate::violations::view::ImageView;

/// A node with what stands in other tables.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its row.
    pub row: NodeRow,
    /// What people see, computed now.
    pub status: String,
    /// Its open violations.
    pub violations: u64,
    /// Touched paths that nobody has reviewed.
    pub touched: u64,
    /// Differences that are accepted for now.
    pub excepted: u64,
    /// Its pinned lines.
    pub pins: Pinned,
    /// The image that it compares with.
    pub image: Option<ImageView>,
}

/// What a node has pinned, in numbers.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Pinned {
    /// Pinned lines.
    pub entries: u64,
    /// New or changed ones that nobody has reviewed.
    pub unreviewed: u64,
    /// SHA-256 of the plain lines that are held.
    #[schema(value_type = Option<String>)]
    pub sha256: Option<Digest>,
}

/// A node as the API gives it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    id: String,
    name: String,
    group: String,
    state: &'static str,
    status: String,
    verdict: Option<String>,
    reasons: Vec<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    assurance: String,
    image: Option<ImageView>,
    #[schema(value_type = Option<String>)]
    tree: Option<Digest>,
    coverage: Option<serde_json::Value>,
    agent: Option<serde_json::Value>,
    entries: Option<u64>,
    sequence: Option<u64>,
    #[schema(value_type = Option<String>)]
    statement: Option<Digest>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_attested: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_fresh: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    enrolled: Timestamp,
    approved_by: Option<String>,
    violations: u64,
    differences: u64,
    excepted: u64,
    unreviewed: u64,
    pins: Pinned,
    public_key: String,
}

impl NodeFacts {
    /// As the API gives it.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let row = &self.row;
        let stated = |name: &str| {
            row.stated
                .get(name)
                .filter(|value| !value.is_null())
                .cloned()
        };
        NodeView {
            id: row.id.clone(),
            name: row.name.clone(),
            group: row.group.clone(),
            state: row.state.as_str(),
            status: self.status.clone(),
            verdict: row.verdict.clone(),
            reasons: row.verdict_reasons.clone(),
            since: row.verdict_since,
            assurance: row.assurance.clone(),
            image: self.image.clone(),
            tree: row.tree,
            coverage: stated("coverage"),
            agent: stated("agent"),
            entries: self.entries(),
            sequence: row.sequence,
            statement: row.previous,
            last_attested: row.last_received,
            last_fresh: row.last_fresh,
            enrolled: row.enrolled,
            approved_by: row.approved_by.clone(),
            violations: self.violations,
            differences: row.differences,
            excepted: self.excepted,
            unreviewed: self.unreviewed(),
            pins: self.pins,
            public_key: row.public_key.clone(),
        }
    }

    /// What waits for a person beside violations: touched paths, new and changed pins.
    #[must_use]
    pub fn unreviewed(&self) -> u64 {
        self.touched.saturating_add(self.pins.unreviewed)
    }

    /// How many sealed entries it attests.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        self.row
            .stated
            .get("entries")
            .and_then(serde_json::Value::as_u64)
    }

    /// What it saw and what it did not.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        serde_json::from_value(self.row.stated.get("coverage")?.clone()).ok()
    }

    /// When it signed its last statement, by its own clock.
    #[must_use]
    pub fn issued(&self) -> Option<Timestamp> {
        serde_json::from_value(self.row.stated.get("issued")?.clone()).ok()
    }
}

impl AsRef<NodeRow> for NodeFacts {
    fn as_ref(&self) -> &NodeRow {
        &self.row
    }
}

/// The columns that a status is computed from, for all nodes at once.
const LIGHT: &str = "SELECT id, name, grp, state, '' AS public_key, NULL AS machine, NULL AS token_id, replaces, enrolled, approved, \
    approved_by, sequence, NULL AS previous, last_received, last_fresh, verdict, '[]' AS verdict_reasons, verdict_since, verdict_at, \
    assurance, NULL AS tree, image, '{}' AS stated, stopped, forked, differences_at, differences, jump_taken, NULL AS pins FROM nodes";

/// Every node within reach with its status, without what only its own page shows.
///
/// # Errors
/// What the store refuses.
pub async fn all_nodes(
    app: &AppState,
    reach: &Reach,
) -> Result<Vec<(NodeRow, String)>, StoreError> {
    let sql = format!("{LIGHT} n WHERE {WITHIN}");
    let rows: Vec<NodeRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .fetch_all(app.store.read_pool())
        .await?;
    let now = clock::now();
    Ok(rows
        .into_iter()
        .map(|row| {
            let status = status(app, &row, now);
            (row, status)
        })
        .collect())
}

fn status(app: &AppState, row: &NodeRow, now: Timestamp) -> String {
    fleet::status(row, now, app.started, app.settings.interval).to_string()
}

/// Nodes by id, whole and in this order.
///
/// # Errors
/// What the store refuses.
pub async fn nodes_by_id(app: &AppState, ids: &[String]) -> Result<Vec<NodeFacts>, StoreError> {
    let rows: Vec<NodeRow> =
        sqlx::query_as("SELECT * FROM nodes WHERE id IN (SELECT value FROM json_each(?))")
            .bind(serde_json::to_string(ids).unwrap_or_default())
            .fetch_all(app.store.read_pool())
            .await?;
    let mut by_id: HashMap<String, NodeRow> =
        rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    with_facts(app, ids.iter().filter_map(|id| by_id.remove(id)).collect()).await
}

/// One node.
///
/// # Errors
/// What the store refuses.
pub async fn node(app: &AppState, id: &str) -> Result<Option<NodeFacts>, StoreError> {
    Ok(nodes_by_id(app, &[id.to_owned()]).await?.into_iter().next())
}

/// Nodes within reach in the order of their ids, after a cursor.
///
/// # Errors
/// What the store refuses.
pub async fn nodes_after(
    app: &AppState,
    reach: &Reach,
    cursor: Option<&str>,
    limit: u32,
) -> Result<Vec<NodeFacts>, StoreError> {
    let sql = format!("SELECT * FROM nodes n WHERE {WITHIN} AND id > ?2 ORDER BY id LIMIT ?3");
    let rows: Vec<NodeRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(cursor.unwrap_or(""))
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    with_facts(app, rows).await
}

async fn with_facts(app: &AppState, rows: Vec<NodeRow>) -> Result<Vec<NodeFacts>, StoreError> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let ids = serde_json::to_string(&ids).unwrap_or_default();
    let violations = counts(app, "SELECT node, count(*) FROM violations WHERE resolved IS NULL AND node IN (SELECT value FROM json_each(?)) GROUP BY node", &ids).await?;
    let touched = counts(app, "SELECT node, count(*) FROM touched WHERE reviewed IS NULL AND node IN (SELECT value FROM json_each(?)) GROUP BY node", &ids).await?;
    let excepted = exceptions::counts(app, &ids, clock::now()).await?;
    let entries = counts(
        app,
        "SELECT node, count(*) FROM pins WHERE node IN (SELECT value FROM json_each(?)) GROUP BY node",
        &ids,
    )
    .await?;
    let waiting = counts(app, "SELECT node, count(*) FROM pins WHERE reviewed IS NULL AND node IN (SELECT value FROM json_each(?)) GROUP BY node", &ids).await?;
    let mut images: HashMap<Digest, Option<ImageView>> = HashMap::new();
    for row in &rows {
        if let Some(payload) = row.image
            && let std::collections::hash_map::Entry::Vacant(place) = images.entry(payload)
        {
            place.insert(image(app, &payload).await?);
        }
    }
    let now = clock::now();
    Ok(rows
        .into_iter()
        .map(|row| NodeFacts {
            status: status(app, &row, now),
            violations: violations.get(&row.id).copied().unwrap_or(0),
            touched: touched.get(&row.id).copied().unwrap_or(0),
            excepted: excepted.get(&row.id).copied().unwrap_or(0),
            pins: Pinned {
                entries: entries.get(&row.id).copied().unwrap_or(0),
                unreviewed: waiting.get(&row.id).copied().unwrap_or(0),
                sha256: row.pins,
            },
            image: row
                .image
                .and_then(|payload| images.get(&payload).cloned().flatten()),
            row,
        })
        .collect())
}

async fn counts(
    app: &AppState,
    sql: &'static str,
    ids: &str,
) -> Result<HashMap<String, u64>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(sql)
        .bind(ids)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows
        .into_iter()
        .map(|(node, count)| (node, u64::try_from(count).unwrap_or(0)))
        .collect())
}

/// Name, version and provenance of an image, by the digest of its statement.
///
/// # Errors
/// What the store refuses.
pub async fn image(app: &AppState, payload: &Digest) -> Result<Option<ImageView>, StoreError> {
    let row = sqlx::query(
        "SELECT name, version, commit_sha, repository, author FROM images WHERE payload = ?",
    )
    .bind(payload.as_bytes().as_slice())
    .fetch_optional(app.store.read_pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ImageView {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        commit: row.try_get("commit_sha")?,
        repository: row.try_get("repository")?,
        author: row.try_get("author")?,
        sha256: payload.to_string(),
    }))
}
