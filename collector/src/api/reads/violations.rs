//! Violations, their history, and what was touched.

use attestation::statement::Actor;
use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::WITHIN;
use crate::access::Reach;
use crate::state::AppState;
use crate::store::StoreError;
use crate::violations::store as violation_store;
use crate::violations::view::ViolationView;

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

/// Violations within reach, newest first.
///
/// # Errors
/// What the store refuses.
pub async fn violations(
    app: &AppState,
    reach: &Reach,
    filter: &ViolationFilter<'_>,
    limit: u32,
) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE {WITHIN} AND v.id < ?2 AND (?3 IS NULL OR (v.resolved IS NULL) = ?3) AND (?4 IS NULL OR v.node = ?4) \
         AND (?5 IS NULL OR v.kind = ?5) AND (?6 IS NULL OR v.severity = ?6) \
         AND (?7 IS NULL OR instr(v.path, ?7) > 0 OR instr(n.name, ?7) > 0) ORDER BY v.id DESC LIMIT ?8",
        violation_store::SELECT
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(filter.before.unwrap_or("~"))
        .bind(filter.open)
        .bind(filter.node)
        .bind(filter.kind)
        .bind(filter.severity)
        .bind(filter.text)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows
        .iter()
        .map(violation_store::view)
        .collect::<Result<_, _>>()?)
}

/// One violation.
///
/// # Errors
/// What the store refuses.
pub async fn violation(app: &AppState, id: &str) -> Result<Option<ViolationView>, StoreError> {
    let sql = format!("{} WHERE v.id = ?", violation_store::SELECT);
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(app.store.read_pool())
        .await?;
    Ok(row.as_ref().map(violation_store::view).transpose()?)
}

/// Other open violations within reach with the same cause: same kind, path and finding, on other nodes.
///
/// # Errors
/// What the store refuses.
pub async fn elsewhere(
    app: &AppState,
    reach: &Reach,
    violation: &ViolationView,
    limit: u32,
) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!(
        "{} WHERE {WITHIN} AND v.resolved IS NULL AND v.kind = ?2 AND v.path = ?3 AND v.found IS ?4 AND v.node <> ?5 \
         ORDER BY v.id DESC LIMIT ?6",
        violation_store::SELECT
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(violation.kind.as_str())
        .bind(violation.path.as_deref().unwrap_or(""))
        .bind(violation.found.as_deref())
        .bind(&violation.node)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows
        .iter()
        .map(violation_store::view)
        .collect::<Result<_, _>>()?)
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
pub async fn history(
    app: &AppState,
    violation: &str,
    limit: u32,
) -> Result<Vec<HistoryStep>, StoreError> {
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
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Touched)]
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
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// The last time.
    #[schema(value_type = String, format = DateTime)]
    pub last: Timestamp,
    /// Who, where the kernel told.
    #[schema(value_type = Option<Object>)]
    pub actor: Option<Actor>,
    /// When a person reviewed it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reviewed: Option<Timestamp>,
}

/// What was touched within reach, newest first, of one node or of all.
///
/// # Errors
/// What the store refuses.
pub async fn touched(
    app: &AppState,
    reach: &Reach,
    node: Option<&str>,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<TouchedView>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, node, path, event, count, first, last, actor, reviewed FROM touched \
         WHERE id < ?2 AND (?3 IS NULL OR node = ?3) \
         AND (?1 IS NULL OR node IN (SELECT n.id FROM nodes n JOIN json_each(?1) g ON g.value = n.grp)) ORDER BY id DESC LIMIT ?4",
    )
    .bind(reach.to_sql())
    .bind(before.unwrap_or("~"))
    .bind(node)
    .bind(limit)
    .fetch_all(app.store.read_pool())
    .await?;
    Ok(rows.iter().map(touched_view).collect::<Result<_, _>>()?)
}

/// A touched path from a row.
pub(crate) fn touched_view(row: &SqliteRow) -> Result<TouchedView, sqlx::Error> {
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
        reviewed: row
            .try_get::<Option<i64>, _>("reviewed")?
            .map(Timestamp::from_micros),
    })
}
