//! Exceptions as pages, API and command line show them.

use std::collections::HashMap;

use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::access::Reach;
use crate::state::AppState;
use crate::store::nodes::{time, unreadable};
use crate::store::{StoreError, Writing};

/// Where an exception stands, at the time of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ExceptionState)]
pub enum State {
    /// For another person's word.
    Waiting,
    /// It holds.
    Approved,
    /// Another person said no.
    Refused,
    /// Its requester took it back.
    Withdrawn,
    /// It was ended before its end.
    Revoked,
    /// Its end is over.
    Ended,
}

impl State {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
        }
    }

    /// From what is stored and the time.
    fn of(stored: &str, ends: Timestamp, now: Timestamp) -> Option<Self> {
        Some(match stored {
            "waiting" | "approved" if ends < now => Self::Ended,
            "waiting" => Self::Waiting,
            "approved" => Self::Approved,
            "refused" => Self::Refused,
            "withdrawn" => Self::Withdrawn,
            "revoked" => Self::Revoked,
            _ => return None,
        })
    }
}

/// An exception, whole.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Exception)]
pub struct ExceptionView {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The violation at which it was asked for.
    pub violation: Option<String>,
    /// The node that it is for, where it is for one.
    pub node: Option<String>,
    /// That node's name.
    pub node_name: Option<String>,
    /// The group, where it is for one.
    pub group: Option<String>,
    /// The path, as shown.
    pub path: String,
    /// The line that was expected there when it was asked for.
    pub expected: Option<String>,
    /// The line found, which is accepted; null where it is missing.
    pub found: Option<String>,
    /// Why.
    pub reason: String,
    /// Where it is tracked.
    pub ticket: String,
    /// Who answers for it.
    pub owner: String,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub ends: Timestamp,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub requested: Timestamp,
    /// By whom.
    pub requested_by: String,
    /// When it was approved, refused or withdrawn.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub decided: Option<Timestamp>,
    /// By whom.
    pub decided_by: Option<String>,
    /// What they said.
    pub decision: Option<String>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// Why.
    pub revoke_reason: Option<String>,
    /// How many nodes rely on it now.
    pub nodes: u64,
    /// Whether a decision is still to be made, also where its end is over.
    #[serde(skip)]
    pub waits: bool,
}

const ALL: &str = "SELECT e.*, n.name AS node_name, (SELECT count(*) FROM excepted x WHERE x.exception = e.id) AS relying \
     FROM exceptions e LEFT JOIN nodes n ON n.id = e.node";

fn view(row: &SqliteRow, now: Timestamp) -> Result<ExceptionView, sqlx::Error> {
    let stored: String = row.try_get("state")?;
    let ends = Timestamp::from_micros(row.try_get("ends")?);
    let state =
        State::of(&stored, ends, now).ok_or_else(|| unreadable("exceptions.state", &stored))?;
    let relying = u64::try_from(row.try_get::<i64, _>("relying")?).unwrap_or(0);
    Ok(ExceptionView {
        id: row.try_get("id")?,
        state,
        violation: row.try_get("violation")?,
        node: row.try_get("node")?,
        node_name: row.try_get("node_name")?,
        group: row.try_get("grp")?,
        path: row.try_get("path")?,
        expected: row.try_get("expected")?,
        found: row.try_get("found")?,
        reason: row.try_get("reason")?,
        ticket: row.try_get("ticket")?,
        owner: row.try_get("owner")?,
        ends,
        requested: Timestamp::from_micros(row.try_get("requested")?),
        requested_by: row.try_get("requested_by")?,
        decided: time(row, "decided")?,
        decided_by: row.try_get("decided_by")?,
        decision: row.try_get("decision")?,
        revoked: time(row, "revoked")?,
        revoked_by: row.try_get("revoked_by")?,
        revoke_reason: row.try_get("revoke_reason")?,
        nodes: if state == State::Approved { relying } else { 0 },
        waits: stored == "waiting",
    })
}

/// Which exceptions are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExceptionFilter<'a> {
    /// Only those that stand so.
    pub state: Option<&'a str>,
    /// Only those that a node has: its own and its group's.
    pub node: Option<&'a str>,
    /// Older than the one with this id.
    pub before: Option<&'a str>,
}

/// Exceptions within reach, newest first.
///
/// # Errors
/// What the store refuses.
pub async fn list(
    app: &AppState,
    reach: &Reach,
    filter: ExceptionFilter<'_>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<ExceptionView>, StoreError> {
    let sql = format!(
        "{ALL} WHERE e.id < ?1 AND (?2 IS NULL OR e.node = ?2 OR e.grp = (SELECT grp FROM nodes WHERE id = ?2)) AND (?3 IS NULL OR \
         CASE WHEN e.state IN ('waiting', 'approved') AND e.ends < ?4 THEN 'ended' ELSE e.state END = ?3) \
         AND (?6 IS NULL OR coalesce(e.grp, n.grp) IN (SELECT value FROM json_each(?6))) ORDER BY e.id DESC LIMIT ?5"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(filter.before.unwrap_or("~"))
        .bind(filter.node)
        .bind(filter.state)
        .bind(now.as_micros())
        .bind(limit)
        .bind(reach.to_sql())
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows
        .iter()
        .map(|row| view(row, now))
        .collect::<Result<_, _>>()?)
}

/// One.
///
/// # Errors
/// What the store refuses.
pub async fn one(
    app: &AppState,
    id: &str,
    now: Timestamp,
) -> Result<Option<ExceptionView>, StoreError> {
    let row = sqlx::query(AssertSqlSafe(format!("{ALL} WHERE e.id = ?")))
        .bind(id)
        .fetch_optional(app.store.read_pool())
        .await?;
    Ok(row.as_ref().map(|row| view(row, now)).transpose()?)
}

/// Those asked for at a violation, newest first.
///
/// # Errors
/// What the store refuses.
pub async fn at_violation(
    app: &AppState,
    violation: &str,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<ExceptionView>, StoreError> {
    let sql = format!("{ALL} WHERE e.violation = ? ORDER BY e.id DESC LIMIT ?");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(violation)
        .bind(limit)
        .fetch_all(app.store.read_pool())
        .await?;
    Ok(rows
        .iter()
        .map(|row| view(row, now))
        .collect::<Result<_, _>>()?)
}

/// The same inside a transaction.
pub(super) async fn in_transaction(
    tx: &mut Writing,
    id: &str,
    now: Timestamp,
) -> Result<Option<ExceptionView>, StoreError> {
    let row = sqlx::query(AssertSqlSafe(format!("{ALL} WHERE e.id = ?")))
        .bind(id)
        .fetch_optional(&mut tx.connection)
        .await?;
    Ok(row.as_ref().map(|row| view(row, now)).transpose()?)
}

/// How many differences of each of these nodes (a JSON list of ids) are accepted now.
///
/// # Errors
/// What the store refuses.
pub async fn counts(
    app: &AppState,
    nodes: &str,
    now: Timestamp,
) -> Result<HashMap<String, u64>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT x.node, count(*) FROM excepted x JOIN exceptions e ON e.id = x.exception AND e.state = 'approved' AND e.ends >= ?2 \
         WHERE x.node IN (SELECT value FROM json_each(?1)) GROUP BY x.node",
    )
    .bind(nodes)
    .bind(now.as_micros())
    .fetch_all(app.store.read_pool())
    .await?;
    Ok(rows
        .into_iter()
        .map(|(node, count)| (node, u64::try_from(count).unwrap_or(0)))
        .collect())
}

/// A node that relies on an exception.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Relying {
    /// The node's id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

/// The nodes that rely on an exception, at most `limit`.
///
/// # Errors
/// What the store refuses.
pub async fn relying(app: &AppState, id: &str, limit: u32) -> Result<Vec<Relying>, StoreError> {
    let rows = sqlx::query(
        "SELECT x.node, n.name, x.since FROM excepted x JOIN nodes n ON n.id = x.node WHERE x.exception = ? ORDER BY n.name, n.id LIMIT ?",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(app.store.read_pool())
    .await?;
    let relying = rows.iter().map(|row| {
        Ok(Relying {
            node: row.try_get("node")?,
            name: row.try_get("name")?,
            since: Timestamp::from_micros(row.try_get("since")?),
        })
    });
    Ok(relying.collect::<Result<_, sqlx::Error>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_over_is_told_whatever_was_decided_before() {
        let at = Timestamp::from_micros;
        let now = |stored, time| State::of(stored, at(10), at(time));
        assert_eq!(now("approved", 10), Some(State::Approved));
        assert_eq!(now("approved", 11), Some(State::Ended));
        assert_eq!(now("waiting", 11), Some(State::Ended));
        assert_eq!(now("refused", 11), Some(State::Refused));
        assert_eq!(now("other", 1), None);
    }
}
