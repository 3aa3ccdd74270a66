//! What pages and API read alike.

use std::collections::{BTreeMap, HashMap};

use attestation::digest::Digest;
use attestation::statement::{Actor, Coverage};
use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::clock;
use crate::fleet;
use crate::state::AppState;
use crate::store::{NodeRow, StoreError};
use crate::violations::store as violation_store;
use crate::violations::view::{ImageView, ViolationView};

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
    pub unreviewed: u64,
    /// The image that it compares with.
    pub image: Option<ImageView>,
}

/// A node as the API gives it.
#[derive(Clone, Debug, Serialize)]
pub struct NodeView {
    id: String,
    name: String,
    group: String,
    state: &'static str,
    status: String,
    verdict: Option<String>,
    reasons: Vec<String>,
    since: Option<Timestamp>,
    assurance: String,
    image: Option<ImageView>,
    tree: Option<Digest>,
    coverage: Option<serde_json::Value>,
    agent: Option<serde_json::Value>,
    entries: Option<u64>,
    sequence: Option<u64>,
    statement: Option<Digest>,
    last_attested: Option<Timestamp>,
    last_fresh: Option<Timestamp>,
    enrolled: Timestamp,
    approved_by: Option<String>,
    violations: u64,
    differences: u64,
    unreviewed: u64,
}

impl NodeFacts {
    /// As the API gives it.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let row = &self.row;
        let stated = |name: &str| row.stated.get(name).filter(|value| !value.is_null()).cloned();
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
            unreviewed: self.unreviewed,
        }
    }

    /// How many sealed entries it attests.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        self.row.stated.get("entries").and_then(serde_json::Value::as_u64)
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

/// The columns that a status is computed from, for all nodes at once.
const LIGHT: &str = "SELECT id, name, grp, state, '' AS public_key, NULL AS machine, NULL AS token_id, replaces, enrolled, approved, \
    approved_by, sequence, NULL AS previous, last_received, last_fresh, verdict, '[]' AS verdict_reasons, verdict_since, verdict_at, \
    assurance, NULL AS tree, image, '{}' AS stated, stopped, forked, differences_at, differences, jump_taken FROM nodes";

/// Every node with its status, without what only its own page shows.
///
/// # Errors
/// What the store refuses.
pub async fn all_nodes(app: &AppState) -> Result<Vec<(NodeRow, String)>, StoreError> {
    let rows: Vec<NodeRow> = sqlx::query_as(LIGHT).fetch_all(app.store.read_pool()).await?;
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
    let rows: Vec<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id IN (SELECT value FROM json_each(?))")
        .bind(serde_json::to_string(ids).unwrap_or_default())
        .fetch_all(app.store.read_pool())
        .await?;
    let mut by_id: HashMap<String, NodeRow> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    with_facts(app, ids.iter().filter_map(|id| by_id.remove(id)).collect()).await
}

/// One node.
///
/// # Errors
/// What the store refuses.
pub async fn node(app: &AppState, id: &str) -> Result<Option<NodeFacts>, StoreError> {
    Ok(nodes_by_id(app, &[id.to_owned()]).await?.into_iter().next())
}

/// Nodes in the order of their ids, after a cursor.
///
/// # Errors
/// What the store refuses.
pub async fn nodes_after(app: &AppState, cursor: Option<&str>, limit: u32) -> Result<Vec<NodeFacts>, StoreError> {
    let rows: Vec<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id > ? ORDER BY id LIMIT ?")
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
            unreviewed: touched.get(&row.id).copied().unwrap_or(0),
            image: row.image.and_then(|payload| images.get(&payload).cloned().flatten()),
            row,
        })
        .collect())
}

async fn counts(app: &AppState, sql: &'static str, ids: &str) -> Result<HashMap<String, u64>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(ids).fetch_all(app.store.read_pool()).await?;
    Ok(rows.into_iter().map(|(node, count)| (node, u64::try_from(count).unwrap_or(0))).collect())
}

/// Name, version and provenance of an image, by the digest of its statement.
///
/// # Errors
/// What the store refuses.
pub async fn image(app: &AppState, payload: &Digest) -> Result<Option<ImageView>, StoreError> {
    let row = sqlx::query("SELECT name, version, commit_sha, repository, author FROM images WHERE payload = ?")
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

/// Which violations are asked for.
#[derive(Clone, Debug, Default)]
pub struct ViolationFilter<'a> {
    /// Open ones, resolved ones, or all (`None`).
    pub open: Option<bool>,
    /// Of this node.
    pub node: Option<&'a str>,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// Of this severity.
    pub severity: Option<&'a str>,
    /// With this in the path or the node's name.
    pub text: Option<&'a str>,
    /// Older than the one with this id.
    pub before: Option<&'a str>,
}

/// Violations, newest first.
///
/// # Errors
/// What the store refuses.
pub async fn violations(app: &AppState, filter: &ViolationFilter<'_>, limit: u32) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE v.id < ?1 AND (?2 IS NULL OR (v.resolved IS NULL) = ?2) AND (?3 IS NULL OR v.node = ?3) AND (?4 IS NULL OR v.kind = ?4) \
         AND (?5 IS NULL OR v.severity = ?5) AND (?6 IS NULL OR instr(v.path, ?6) > 0 OR instr(n.name, ?6) > 0) ORDER BY v.id DESC LIMIT ?7",
        violation_store::SELECT
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(filter.before.unwrap_or("~"))
        .bind(filter.open)
        .bind(filter.node)
        .bind(filter.kind)
        .bind(filter.severity)
        .bind(filter.text)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows.iter().map(violation_store::view).collect::<Result<_, _>>()?)
}

/// The open violations, worst first.
///
/// # Errors
/// What the store refuses.
pub async fn worst(app: &AppState, limit: u32) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE v.resolved IS NULL ORDER BY CASE v.severity WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END, v.id DESC LIMIT ?",
        violation_store::SELECT
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(limit).fetch_all(app.store.read_pool()).await?;
    Ok(rows.iter().map(violation_store::view).collect::<Result<_, _>>()?)
}

/// One violation.
///
/// # Errors
/// What the store refuses.
pub async fn violation(app: &AppState, id: &str) -> Result<Option<ViolationView>, StoreError> {
    let sql = format!("{} WHERE v.id = ?", violation_store::SELECT);
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(app.store.read_pool()).await?;
    Ok(row.as_ref().map(violation_store::view).transpose()?)
}

/// Other open violations with the same cause: same kind, path and finding, on other nodes.
///
/// # Errors
/// What the store refuses.
pub async fn elsewhere(app: &AppState, violation: &ViolationView, limit: u32) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE v.resolved IS NULL AND v.kind = ? AND v.path = ? AND v.found IS ? AND v.node <> ? ORDER BY v.id DESC LIMIT ?",
        violation_store::SELECT
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(violation.kind.as_str())
        .bind(violation.path.as_deref().unwrap_or(""))
        .bind(violation.found.as_deref())
        .bind(&violation.node)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows.iter().map(violation_store::view).collect::<Result<_, _>>()?)
}

/// One step of a violation's history.
#[derive(Clone, Debug)]
pub struct HistoryStep {
    /// Its id, which is the `webhook-id`.
    pub id: String,
    /// `opened`, `updated`, `resolved`.
    pub step: String,
    /// When.
    pub at: Timestamp,
    /// The violation as it then was.
    pub record: Option<ViolationView>,
}

/// The steps of a violation, first to last, the newest `limit` of them.
///
/// # Errors
/// What the store refuses.
pub async fn history(app: &AppState, violation: &str, limit: u32) -> Result<Vec<HistoryStep>, StoreError> {
    let rows = sqlx::query("SELECT id, step, at, record FROM violation_steps WHERE violation = ? ORDER BY seq DESC LIMIT ?")
        .bind(violation)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    let mut steps = rows
        .iter()
        .map(|row| {
            let record: String = row.try_get("record")?;
            Ok(HistoryStep {
                id: row.try_get("id")?,
                step: row.try_get("step")?,
                at: Timestamp::from_micros(row.try_get("at")?),
                record: serde_json::from_str(&record).ok(),
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    steps.reverse();
    Ok(steps)
}

/// A path that was written and put back.
#[derive(Clone, Debug, Serialize)]
pub struct TouchedView {
    /// Its id.
    pub id: String,
    /// The node's id.
    pub node: String,
    /// As shown (mtree encoding).
    pub path: String,
    /// What happened, in a word.
    pub event: String,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// Who, where the kernel told.
    pub actor: Option<Actor>,
    /// When a person reviewed it.
    pub reviewed: Option<Timestamp>,
}

/// What was touched, newest first, of one node or of all.
///
/// # Errors
/// What the store refuses.
pub async fn touched(app: &AppState, node: Option<&str>, before: Option<&str>, limit: u32) -> Result<Vec<TouchedView>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, node, path, event, count, first, last, actor, reviewed FROM touched \
         WHERE id < ?1 AND (?2 IS NULL OR node = ?2) ORDER BY id DESC LIMIT ?3",
    )
    .bind(before.unwrap_or("~"))
    .bind(node)
    .bind(limit)
    .fetch_all(app.store.read_pool())
    .await?;
    Ok(rows.iter().map(touched_view).collect::<Result<_, _>>()?)
}

fn touched_view(row: &SqliteRow) -> Result<TouchedView, sqlx::Error> {
    let actor: Option<String> = row.try_get("actor")?;
    Ok(TouchedView {
        id: row.try_get("id")?,
        node: row.try_get("node")?,
        path: row.try_get("path")?,
        event: row.try_get("event")?,
        count: u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(0),
        first: Timestamp::from_micros(row.try_get("first")?),
        last: Timestamp::from_micros(row.try_get("last")?),
        actor: actor.and_then(|actor| serde_json::from_str(&actor).ok()),
        reviewed: row.try_get::<Option<i64>, _>("reviewed")?.map(Timestamp::from_micros),
    })
}

/// Nodes and violations in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Nodes that are counted: all but retired and banned ones.
    pub nodes: u64,
    /// How many are in which status.
    pub statuses: BTreeMap<String, u64>,
    /// Open violations.
    pub violations: u64,
    /// How many are of which severity.
    pub severities: BTreeMap<String, u64>,
    /// Touched paths that nobody has reviewed.
    pub unreviewed: u64,
    /// Deliveries that wait, and those given up on.
    pub alerts_waiting: u64,
    /// Deliveries given up on.
    pub alerts_given_up: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
}

/// The numbers over all, from nodes whose status is known already.
///
/// # Errors
/// What the store refuses.
pub async fn summary(app: &AppState, nodes: &[(NodeRow, String)]) -> Result<Summary, StoreError> {
    let mut summary = Summary::default();
    for (_, status) in nodes.iter().filter(|(row, _)| is_counted(row)) {
        summary.nodes += 1;
        *summary.statuses.entry(status.clone()).or_default() += 1;
    }
    let pool = app.store.read_pool();
    let severities: Vec<(String, i64)> =
        sqlx::query_as("SELECT severity, count(*) FROM violations WHERE resolved IS NULL GROUP BY severity").fetch_all(pool).await?;
    for (severity, count) in severities {
        let count = u64::try_from(count).unwrap_or(0);
        summary.violations += count;
        summary.severities.insert(severity, count);
    }
    let numbers: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM touched WHERE reviewed IS NULL), \
         (SELECT count(*) FROM outbox WHERE delivered IS NULL AND given_up IS NULL), \
         (SELECT count(*) FROM outbox WHERE given_up IS NOT NULL), \
         (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)",
    )
    .fetch_one(pool)
    .await?;
    let [unreviewed, waiting, given_up, bytes] = [numbers.0, numbers.1, numbers.2, numbers.3].map(|number| u64::try_from(number).unwrap_or(0));
    summary.unreviewed = unreviewed;
    summary.alerts_waiting = waiting;
    summary.alerts_given_up = given_up;
    summary.store_bytes = bytes;
    Ok(summary)
}

/// Whether a node is part of the fleet that is counted.
#[must_use]
pub fn is_counted(row: &NodeRow) -> bool {
    !matches!(row.state, crate::store::NodeState::Retired | crate::store::NodeState::Banned)
}
