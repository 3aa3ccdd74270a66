//! Pinned lines in the store: one row each, and what persons made of them.

use std::collections::HashMap;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::pins::{Pinned, grew};
use attestation::scope::{Expect, Scope};
use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::Held;
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::time;
use crate::store::{NodeRow, StoreError, Writing};

/// A pinned line as people see it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Pin)]
pub struct PinView {
    /// As shown (mtree encoding).
    pub path: String,
    /// What is expected of the path by the image that the node compares with; null where that is not known.
    #[schema(value_type = Option<String>)]
    pub expect: Option<Expect>,
    /// The pinned line.
    pub line: String,
    /// The line before a change that neither growth nor a person explains.
    pub was: Option<String>,
    /// When the path was first pinned.
    #[schema(value_type = String, format = DateTime)]
    pub first: Timestamp,
    /// When the line last changed otherwise than by growth.
    #[schema(value_type = String, format = DateTime)]
    pub changed: Timestamp,
    /// When a person reviewed it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reviewed: Option<Timestamp>,
    /// Who.
    pub reviewed_by: Option<String>,
}

/// What a person accepted, as the transaction sees it.
struct Accepted {
    id: String,
    found: Option<String>,
    by: String,
}

/// Makes the rows of a node what is held now. Growth moves a line on; what a person accepted counts as reviewed; anything else waits
/// for review.
pub async fn put(
    tx: &mut Writing,
    node: &mut NodeRow,
    held: Option<&Held>,
    scope: Option<&Scope>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let wanted = held.map(|held| held.file.sha256);
    if node.pins == wanted {
        return Ok(());
    }
    let before = rows(tx, &node.id).await?;
    let accepted = accepted(tx, &node.id).await?;
    let nothing = Pinned::default();
    let now = held.map_or(&nothing, |held| &held.lines);
    for (path, line) in now.iter() {
        let shown = path.to_string();
        let was = before.get(&shown);
        if was.is_some_and(|was| was == line.as_str()) {
            continue;
        }
        let accept = accepted
            .get(&shown)
            .filter(|accept| accept.found.as_deref() == Some(line.as_str()));
        let change = Change {
            path: &shown,
            line,
            was: was.map(String::as_str),
            grows: scope.is_some_and(|scope| scope.decide(path).expect == Expect::Growing),
            by: accept.map(|accept| accept.by.as_str()),
            at,
        };
        change.write(tx, &node.id).await?;
        if let Some(accept) = accept {
            done(tx, &accept.id, at).await?;
        }
    }
    for shown in before.keys() {
        let still = shown.parse().is_ok_and(|path| now.get(&path).is_some());
        if still {
            continue;
        }
        sqlx::query("DELETE FROM pins WHERE node = ? AND path = ?")
            .bind(&node.id)
            .bind(shown)
            .execute(&mut tx.connection)
            .await?;
        if let Some(accept) = accepted.get(shown).filter(|it| it.found.is_none()) {
            done(tx, &accept.id, at).await?;
        }
    }
    node.pins = wanted;
    Ok(())
}

/// A line that is not what it was.
struct Change<'a> {
    path: &'a str,
    line: &'a Line,
    was: Option<&'a str>,
    grows: bool,
    by: Option<&'a str>,
    at: Timestamp,
}

impl Change<'_> {
    async fn write(&self, tx: &mut Writing, node: &str) -> Result<(), StoreError> {
        let only_grew = self.grows
            && self
                .was
                .and_then(|was| Line::parse(was).ok())
                .is_some_and(|was| grew(&was, self.line));
        let sql = if only_grew {
            "UPDATE pins SET line = ?3 WHERE node = ?1 AND path = ?2"
        } else {
            "INSERT INTO pins (node, path, line, was, first, changed, reviewed, reviewed_by) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7) \
             ON CONFLICT (node, path) DO UPDATE SET line = ?3, was = ?4, changed = ?5, reviewed = ?6, reviewed_by = ?7"
        };
        let was = self.was.filter(|_| self.by.is_none());
        sqlx::query(sql)
            .bind(node)
            .bind(self.path)
            .bind(self.line.as_str())
            .bind(was)
            .bind(self.at.as_micros())
            .bind(self.by.map(|_| self.at.as_micros()))
            .bind(self.by)
            .execute(&mut tx.connection)
            .await?;
        Ok(())
    }
}

async fn rows(tx: &mut Writing, node: &str) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT path, line FROM pins WHERE node = ?")
        .bind(node)
        .fetch_all(&mut tx.connection)
        .await?;
    Ok(rows.into_iter().collect())
}

async fn accepted(tx: &mut Writing, node: &str) -> Result<HashMap<String, Accepted>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, path, found, by_user FROM accepts WHERE node = ? AND done IS NULL ORDER BY id",
    )
    .bind(node)
    .fetch_all(&mut tx.connection)
    .await?;
    let mut accepted = HashMap::new();
    for row in rows {
        let accept = Accepted {
            id: row.try_get("id")?,
            found: row.try_get("found")?,
            by: row.try_get("by_user")?,
        };
        accepted.insert(row.try_get("path")?, accept);
    }
    Ok(accepted)
}

async fn done(tx: &mut Writing, id: &str, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query("UPDATE accepts SET done = ? WHERE id = ?")
        .bind(at.as_micros())
        .bind(id)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

/// A node's pinned lines by path, after a cursor; only those that no person has reviewed, or all.
pub async fn list(
    app: &AppState,
    node: &NodeRow,
    only_waiting: bool,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<PinView>, StoreError> {
    let rows = sqlx::query("SELECT * FROM pins WHERE node = ? AND path > ? AND (NOT ? OR reviewed IS NULL) ORDER BY path LIMIT ?")
        .bind(&node.id)
        .bind(after.unwrap_or(""))
        .bind(only_waiting)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    let image = match &node.image {
        // An image that cannot be read is told where it matters; here only a word is missing.
        Some(image) => app.images.get(image).await.ok().flatten(),
        None => None,
    };
    let scope = image.as_ref().map(|image| &image.statement.predicate.scope);
    Ok(rows
        .iter()
        .map(|row| view(row, scope))
        .collect::<Result<_, _>>()?)
}

fn view(row: &SqliteRow, scope: Option<&Scope>) -> Result<PinView, sqlx::Error> {
    let path: String = row.try_get("path")?;
    let expect = scope
        .zip(path.parse().ok())
        .map(|(scope, path)| scope.decide(&path).expect);
    Ok(PinView {
        expect,
        line: row.try_get("line")?,
        was: row.try_get("was")?,
        first: Timestamp::from_micros(row.try_get("first")?),
        changed: Timestamp::from_micros(row.try_get("changed")?),
        reviewed: time(row, "reviewed")?,
        reviewed_by: row.try_get("reviewed_by")?,
        path,
    })
}

/// What a review came to.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Reviewed {
    /// The node's id.
    pub node: String,
    /// How many lines were reviewed with it.
    pub reviewed: u64,
}

/// Marks lines as reviewed as they now are: those named, or all that wait. `pins` is the digest that the person saw, so that what
/// came meanwhile still waits.
pub async fn mark_reviewed(
    state: &AppState,
    id: &str,
    paths: Option<Vec<String>>,
    pins: Option<Digest>,
    who: &Person,
) -> Result<Reviewed, ProblemResponse> {
    let (id, who, at) = (id.to_owned(), who.clone(), clock::now());
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let node = match who.reach.within(tx.node(&id).await?) {
                    Ok(node) => node,
                    Err(refused) => return Ok(Err(refused)),
                };
                if pins.is_some() && pins != node.pins {
                    return Ok(Err(ProblemResponse::conflict(
                        "changed",
                        "the pinned lines have changed since they were shown: look at them again",
                    )));
                }
                let names = paths.as_ref().map(|paths| json!(paths).to_string());
                let done = sqlx::query(
                    "UPDATE pins SET reviewed = ?1, reviewed_by = ?2, was = NULL WHERE node = ?3 AND reviewed IS NULL \
                     AND (?4 IS NULL OR path IN (SELECT value FROM json_each(?4)))",
                )
                .bind(at.as_micros())
                .bind(&who.user)
                .bind(&id)
                .bind(names)
                .execute(&mut tx.connection)
                .await?;
                let reviewed = done.rows_affected();
                let doing = Doing {
                    who: &who,
                    at,
                    action: "pins.review",
                    target: Target::node(&node),
                    before: Value::Null,
                    after: json!({"pins": node.pins, "reviewed": reviewed, "paths": paths}),
                    reason: None,
                };
                activity::record(tx, &doing).await?;
                tx.event(Event::Node(NodeEvent { id: id.clone() }));
                Ok(Ok(Reviewed { node: id, reviewed }))
            })
        })
        .await?
}
