//! Violations in the store: every step is a row of its own, and waits in the outbox from the same transaction on.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::statement::Touched;
use attestation::time::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};

use super::resolution::Resolution;
use super::steps::Change;
use super::view::{ImageView, Kind, Step, ViolationView};
use crate::alerts::Alerting;
use crate::events::Event;
use crate::log::{self, Leaf};
use crate::metrics::Metrics;
use crate::store::nodes::{digest, number, to_sql, unreadable};
use crate::store::{StoreError, Writing};

/// Violations with the names of their nodes and images; append `WHERE …`, `ORDER BY v.id …`.
pub const SELECT: &str = "SELECT v.*, n.name AS node_name, i.name AS image_name, i.version AS image_version, \
     i.commit_sha AS image_commit, i.repository AS image_repository, i.author AS image_author \
     FROM violations v LEFT JOIN nodes n ON n.id = v.node LEFT JOIN images i ON i.payload = v.image";

/// Open violations of a node that one statement is compared with at most; above a thousand differences there is one for all.
const OPEN: i64 = 16_384;

/// A violation from a row of [`SELECT`].
pub fn view(row: &SqliteRow) -> Result<ViolationView, sqlx::Error> {
    let (kind, severity): (String, String) = (row.try_get("kind")?, row.try_get("severity")?);
    let path: String = row.try_get("path")?;
    let fields: String = row.try_get("fields")?;
    let detail: String = row.try_get("detail")?;
    let expect: Option<String> = row.try_get("expect")?;
    Ok(ViolationView {
        id: row.try_get("id")?,
        node: row.try_get("node")?,
        node_name: row
            .try_get::<Option<String>, _>("node_name")?
            .unwrap_or_default(),
        kind: kind
            .parse()
            .map_err(|_bad| unreadable("violations.kind", &kind))?,
        path: Some(path).filter(|path| !path.is_empty()),
        expect: expect
            .and_then(|expect| serde_json::from_value(serde_json::Value::String(expect)).ok()),
        expected: row.try_get("expected")?,
        found: row.try_get("found")?,
        fields: parse(&fields, "violations.fields")?,
        actor: parse_option(row.try_get("actor")?, "violations.actor")?,
        severity: parse(&format!("\"{severity}\""), "violations.severity")?,
        opened: Timestamp::from_micros(row.try_get("opened")?),
        detected: Timestamp::from_micros(row.try_get("detected")?),
        updated: Timestamp::from_micros(row.try_get("updated")?),
        resolved: crate::store::nodes::time(row, "resolved")?,
        resolution: row.try_get("resolution")?,
        resolved_as: row
            .try_get::<Option<String>, _>("resolved_as")?
            .as_deref()
            .and_then(Resolution::parse),
        image: image(row)?,
        count: number(row, "count")?,
        mount: parse_option(row.try_get("mount")?, "violations.mount")?,
        acknowledged: parse_option(row.try_get("acknowledged")?, "violations.acknowledged")?,
        detail: parse(&detail, "violations.detail")?,
    })
}

fn image(row: &SqliteRow) -> Result<Option<ImageView>, sqlx::Error> {
    let Some(sha256) = digest(row, "image")? else {
        return Ok(None);
    };
    let text = |column: &str| {
        row.try_get::<Option<String>, _>(column)
            .map(Option::unwrap_or_default)
    };
    Ok(Some(ImageView {
        name: text("image_name")?,
        version: text("image_version")?,
        commit: text("image_commit")?,
        repository: text("image_repository")?,
        author: text("image_author")?,
        sha256: sha256.to_string(),
    }))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|_bad| unreadable(column, text))
}

fn parse_option<T: serde::de::DeserializeOwned>(
    text: Option<String>,
    column: &str,
) -> Result<Option<T>, sqlx::Error> {
    text.map(|text| parse(&text, column)).transpose()
}

/// The open violations of a node that a statement may move, as the transaction sees them: all but `touched`, which no
/// statement ends and which only grow until a person has looked at them.
pub async fn open_of(tx: &mut Writing, node: &str) -> Result<Vec<ViolationView>, StoreError> {
    // In two ranges, so that the index passes over the touched ones.
    let sql = format!(
        "{SELECT} WHERE v.node = ? AND (v.kind < 'touched' OR v.kind > 'touched') AND v.resolved IS NULL LIMIT ?"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(node)
        .bind(OPEN)
        .fetch_all(&mut tx.connection)
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// All open violations of a node, also those that no statement ends.
pub async fn all_open(tx: &mut Writing, node: &str) -> Result<Vec<ViolationView>, StoreError> {
    let sql = format!("{SELECT} WHERE v.node = ? AND v.resolved IS NULL LIMIT ?");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(node)
        .bind(OPEN)
        .fetch_all(&mut tx.connection)
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Those of a node's open `touched` violations that are about one of the paths.
pub async fn open_touched(
    tx: &mut Writing,
    node: &str,
    touched: &[Touched],
) -> Result<Vec<ViolationView>, StoreError> {
    if touched.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<String> = touched.iter().map(|it| it.path.to_string()).collect();
    let sql = format!(
        "{SELECT} WHERE v.node = ? AND v.kind = 'touched' AND v.path IN (SELECT value FROM json_each(?)) \
         AND v.resolved IS NULL"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(node)
        .bind(serde_json::json!(paths).to_string())
        .fetch_all(&mut tx.connection)
        .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// The open violation of a node of one kind without a path.
pub async fn open_of_kind(
    tx: &mut Writing,
    node: &str,
    kind: Kind,
) -> Result<Option<ViolationView>, StoreError> {
    let sql =
        format!("{SELECT} WHERE v.node = ? AND v.kind = ? AND v.path = '' AND v.resolved IS NULL");
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(node)
        .bind(kind.as_str())
        .fetch_optional(&mut tx.connection)
        .await?;
    Ok(row.as_ref().map(view).transpose()?)
}

/// Who is told of steps. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    /// The channels, and what goes to which.
    pub alerting: Arc<Alerting>,
    /// Counted here.
    pub metrics: Arc<Metrics>,
}

/// Writes a step: the violation, the step, the leaf, and what each channel is told in the outbox. `evidence` is the
/// payload that it comes from; a step without one stands for itself.
pub async fn apply(
    tx: &mut Writing,
    change: &Change,
    at: Timestamp,
    evidence: Option<Digest>,
    channels: &Channels,
) -> Result<(), StoreError> {
    let violation = &change.violation;
    put(tx, violation).await?;
    tx.nodes.set_clean(&violation.node, false);
    let record =
        serde_json::to_string(violation).map_err(|error| StoreError::corrupt(error.to_string()))?;
    let step_id = uuid::Uuid::now_v7().to_string();
    sqlx::query(
        "INSERT INTO violation_steps (id, violation, step, at, record) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&step_id)
    .bind(&violation.id)
    .bind(change.step.as_str())
    .bind(at.as_micros())
    .bind(&record)
    .execute(&mut tx.connection)
    .await?;
    let leaf = Leaf {
        kind: match (change.step, violation.kind) {
            (Step::Resolved, _) => "resolution",
            (_, Kind::Silence) => "silence",
            _ => "violation",
        },
        at,
        node: Some(&violation.node),
        sequence: None,
        digest: evidence.unwrap_or_else(|| Digest::of(record.as_bytes())),
        more: serde_json::json!({"violation": violation.id, "step": change.step, "kind": violation.kind}),
    };
    log::append(tx, &leaf).await?;
    crate::alerts::tell(tx, &channels.alerting, change, &step_id, at).await?;
    let label = crate::metrics::StepLabel {
        kind: violation.kind.as_str(),
        step: change.step.as_str(),
    };
    channels.metrics.steps.get_or_create(&label).inc();
    tx.journal_changed();
    tx.event(Event::Violation(Box::new(violation.clone())));
    Ok(())
}

async fn put(tx: &mut Writing, violation: &ViolationView) -> Result<(), StoreError> {
    let image: Option<Digest> = violation
        .image
        .as_ref()
        .and_then(|image| image.sha256.parse().ok());
    sqlx::query(
        "INSERT INTO violations (id, node, kind, path, expect, expected, found, fields, actor, severity, opened, detected, updated, \
         resolved, resolution, image, count, mount, detail, acknowledged, resolved_as) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21) \
         ON CONFLICT (id) DO UPDATE SET expect = ?5, expected = ?6, found = ?7, fields = ?8, actor = ?9, severity = ?10, \
         updated = ?13, resolved = ?14, resolution = ?15, image = ?16, count = ?17, mount = ?18, detail = ?19, acknowledged = ?20, resolved_as = ?21",
    )
    .bind(&violation.id)
    .bind(&violation.node)
    .bind(violation.kind.as_str())
    .bind(violation.path.as_deref().unwrap_or_default())
    .bind(violation.expect.and_then(|expect| serde_json::to_value(expect).ok()?.as_str().map(str::to_owned)))
    .bind(&violation.expected)
    .bind(&violation.found)
    .bind(json(&violation.fields))
    .bind(violation.actor.as_ref().map(json))
    .bind(violation.severity.as_str())
    .bind(violation.opened.as_micros())
    .bind(violation.detected.as_micros())
    .bind(violation.updated.as_micros())
    .bind(violation.resolved.map(Timestamp::as_micros))
    .bind(&violation.resolution)
    .bind(image.map(|image| image.as_bytes().to_vec()))
    .bind(violation.count.map(to_sql))
    .bind(violation.mount.as_ref().map(json))
    .bind(json(&violation.detail))
    .bind(violation.acknowledged.as_ref().map(json))
    .bind(violation.resolved_as.map(Resolution::as_str))
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_never| "null".to_owned())
}
