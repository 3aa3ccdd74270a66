//! Accepting what was found at a `local` or `growing` path: the node is asked to make it its pin, and the violation ends when the
//! node says that it has.

use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::Expect;
use sqlx::Row as _;

use super::ACCEPTS;
use crate::access::Person;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, Store, StoreError, Writing};
use crate::violations::review;
use crate::violations::view::{Kind, ViolationView};

/// Accepts in memory at a start: what a node has not confirmed by then is asked again.
const LOADED: i64 = 65_536;

/// A line that a person accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Of which violation.
    pub violation: String,
    /// Where.
    pub path: ImagePath,
    /// What becomes the pin; nothing where what was pinned may be gone.
    pub found: Option<Line>,
}

/// Asks the node to make what it found its pin.
pub async fn accept(
    state: &AppState,
    id: &str,
    reason: &str,
    person: &Person,
) -> Result<ViolationView, ProblemResponse> {
    let violation = review::accept(state, id, reason, person).await?;
    if let Some(accept) = of(&violation) {
        state.pins.wait_for(&violation.node, accept);
    }
    Ok(violation)
}

/// What accepting a violation asks of its node; nothing where there is nothing to accept.
fn of(violation: &ViolationView) -> Option<Accept> {
    let found = violation.found.as_deref().map(Line::parse).transpose();
    Some(Accept {
        violation: violation.id.clone(),
        path: violation.path.as_deref()?.parse().ok()?,
        found: found.ok()?,
    })
}

/// Why a violation cannot be accepted; nothing where it can. Pure.
pub fn refused(violation: &ViolationView, node: Option<&NodeRow>) -> Option<&'static str> {
    if violation.kind != Kind::Difference
        || !matches!(violation.expect, Some(Expect::Local | Expect::Growing))
    {
        return Some(
            "only what was found at a path that scope calls local or growing can be accepted: a sealed path is what its image says",
        );
    }
    let speaks =
        node.is_some_and(|node| matches!(node.state, NodeState::Active | NodeState::Suspended));
    if !speaks {
        return Some("the node says nothing any more: resolve it without accepting");
    }
    if violation.fields.iter().any(|field| field == "unreadable") {
        return Some("what is there could not be read, so there is nothing to accept");
    }
    match of(violation) {
        None => Some("what was found cannot be read as an entry line"),
        Some(Accept {
            found: Some(found), ..
        }) if found.borrowed().is_unread() => {
            Some("the content of what was found was not read: nobody knows what would be accepted")
        }
        Some(_) => None,
    }
}

/// Keeps what was accepted, inside the transaction that marks the violation.
pub async fn keep(
    tx: &mut Writing,
    violation: &ViolationView,
    by: &str,
    reason: &str,
    at: attestation::time::Timestamp,
) -> Result<bool, StoreError> {
    let path = violation.path.as_deref().unwrap_or_default();
    // A later word on the same path takes the place of the one before.
    sqlx::query("UPDATE accepts SET done = ? WHERE node = ? AND path = ? AND done IS NULL")
        .bind(at.as_micros())
        .bind(&violation.node)
        .bind(path)
        .execute(&mut tx.connection)
        .await?;
    let waiting: i64 =
        sqlx::query_scalar("SELECT count(*) FROM accepts WHERE node = ? AND done IS NULL")
            .bind(&violation.node)
            .fetch_one(&mut tx.connection)
            .await?;
    if usize::try_from(waiting).unwrap_or(usize::MAX) >= ACCEPTS {
        return Ok(false);
    }
    sqlx::query("INSERT INTO accepts (id, node, violation, path, found, at, by_user, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(&violation.node)
        .bind(&violation.id)
        .bind(path)
        .bind(&violation.found)
        .bind(at.as_micros())
        .bind(by)
        .bind(reason)
        .execute(&mut tx.connection)
        .await?;
    Ok(true)
}

/// How a violation that is over was accepted, if it was: who, and why.
pub async fn word(
    tx: &mut Writing,
    violation: &ViolationView,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT by_user, reason FROM accepts WHERE violation = ? AND found IS ? ORDER BY id DESC LIMIT 1")
        .bind(&violation.id)
        .bind(&violation.found)
        .fetch_optional(&mut tx.connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (by, reason): (String, String) = (row.try_get("by_user")?, row.try_get("reason")?);
    Ok(Some(format!("accepted by {by}: {reason}")))
}

/// What no node has confirmed yet and is still found as it was accepted.
pub(super) async fn waiting(store: &Store) -> Result<Vec<(String, Accept)>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.node, a.violation, a.path, a.found FROM accepts a JOIN violations v ON v.id = a.violation \
         WHERE a.done IS NULL AND v.resolved IS NULL AND v.found IS a.found ORDER BY a.id LIMIT ?",
    )
    .bind(LOADED)
    .fetch_all(store.read_pool())
    .await?;
    let mut waiting = Vec::with_capacity(rows.len());
    for row in rows {
        let (path, found): (String, Option<String>) = (row.try_get("path")?, row.try_get("found")?);
        let parsed = (path.parse(), found.as_deref().map(Line::parse).transpose());
        if let (Ok(path), Ok(found)) = parsed {
            let accept = Accept {
                violation: row.try_get("violation")?,
                path,
                found,
            };
            waiting.push((row.try_get("node")?, accept));
        }
    }
    Ok(waiting)
}
