//! The exceptions that were approved, in memory, so that a statement asks no table; and which nodes rely on which.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use attestation::path::ImagePath;
use attestation::statement::Difference;
use attestation::time::Timestamp;
use sqlx::Row as _;

use super::{Exception, Place};
use crate::store::{Store, StoreError, Writing};
use crate::violations::Accounted;

/// Exceptions in memory: the newest, about half a kilobyte each. More than so many open at once is no exception any more.
const HELD: i64 = 20_000;

/// All that were approved, by path.
#[derive(Default)]
pub struct Exceptions {
    by_path: RwLock<HashMap<ImagePath, Vec<Arc<Exception>>>>,
    /// Nodes that may have rows in `excepted`: those that have, and some that had.
    relying: RwLock<HashSet<String>>,
}

impl Exceptions {
    /// Reads them from the store.
    ///
    /// # Errors
    /// What the store refuses.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM exceptions WHERE state IN ('approved', 'revoked') AND decided IS NOT NULL ORDER BY id DESC LIMIT ?",
        )
        .bind(HELD)
        .fetch_all(store.read_pool())
        .await?;
        let held = Self::default();
        for row in rows.iter().rev() {
            held.put(from_row(row)?);
        }
        let relying: Vec<String> = sqlx::query_scalar("SELECT DISTINCT node FROM excepted")
            .fetch_all(store.read_pool())
            .await?;
        held.relying
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(relying);
        Ok(held)
    }

    /// Takes one that was approved, or as it now is.
    pub fn put(&self, exception: Exception) {
        let mut by_path = self.by_path.write().unwrap_or_else(PoisonError::into_inner);
        let at = by_path.entry(exception.path.clone()).or_default();
        at.retain(|it| it.id != exception.id);
        at.push(Arc::new(exception));
    }

    /// Drops one whose approval was not committed.
    pub fn forget(&self, id: &str) {
        let mut by_path = self.by_path.write().unwrap_or_else(PoisonError::into_inner);
        by_path.retain(|_, at| {
            at.retain(|it| it.id != id);
            !at.is_empty()
        });
    }

    /// What they say of a node's differences at `now`.
    #[must_use]
    pub fn accounted(
        &self,
        node: &str,
        group: &str,
        differences: &[Difference],
        now: Timestamp,
    ) -> HashMap<ImagePath, Accounted> {
        let by_path = self.by_path.read().unwrap_or_else(PoisonError::into_inner);
        if by_path.is_empty() {
            return HashMap::new();
        }
        let mut accounted = HashMap::new();
        for difference in differences {
            if let Some(at) = by_path.get(&difference.path) {
                let one = std::slice::from_ref(difference);
                accounted.extend(super::accounted(at, node, group, one, now));
            }
        }
        accounted
    }

    fn may_rely(&self, node: &str) -> bool {
        let relying = self.relying.read().unwrap_or_else(PoisonError::into_inner);
        relying.contains(node)
    }

    fn note_relying(&self, node: &str) {
        let mut relying = self.relying.write().unwrap_or_else(PoisonError::into_inner);
        relying.insert(node.to_owned());
    }
}

/// Keeps which of a node's differences are excepted, where that is not what was kept.
///
/// # Errors
/// What the store refuses.
pub async fn rely(
    tx: &mut Writing,
    exceptions: &Exceptions,
    node: &str,
    accounted: &HashMap<ImagePath, Accounted>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let wanted: HashMap<String, &str> = accounted
        .iter()
        .filter_map(|(path, how)| match how {
            Accounted::Excepted { exception, .. } => Some((path.to_string(), exception.as_str())),
            Accounted::RollingOut { .. } | Accounted::Lapsed { .. } => None,
        })
        .collect();
    if wanted.is_empty() && !exceptions.may_rely(node) {
        return Ok(());
    }
    exceptions.note_relying(node);
    let kept: Vec<(String, String)> =
        sqlx::query_as("SELECT path, exception FROM excepted WHERE node = ?")
            .bind(node)
            .fetch_all(&mut tx.connection)
            .await?;
    for (path, exception) in &kept {
        if wanted.get(path) != Some(&exception.as_str()) {
            sqlx::query("DELETE FROM excepted WHERE node = ? AND path = ?")
                .bind(node)
                .bind(path)
                .execute(&mut tx.connection)
                .await?;
        }
    }
    let kept: HashMap<&str, &str> = kept
        .iter()
        .map(|(path, exception)| (path.as_str(), exception.as_str()))
        .collect();
    for (path, exception) in &wanted {
        if kept.get(path.as_str()) != Some(exception) {
            insert(tx, node, path, exception, now).await?;
        }
    }
    Ok(())
}

/// One more difference of a node that an exception accounts for.
pub(super) async fn insert(
    tx: &mut Writing,
    node: &str,
    path: &str,
    exception: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO excepted (node, path, exception, since) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (node, path) DO UPDATE SET exception = ?3, since = ?4",
    )
    .bind(node)
    .bind(path)
    .bind(exception)
    .bind(now.as_micros())
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

/// Remembers that a node relies on one, before the transaction that writes it down is over.
pub(super) fn note(exceptions: &Exceptions, node: &str) {
    exceptions.note_relying(node);
}

/// An approved exception from its row.
pub(super) fn from_row(row: &sqlx::sqlite::SqliteRow) -> Result<Exception, StoreError> {
    let (node, group): (Option<String>, Option<String>) =
        (row.try_get("node")?, row.try_get("grp")?);
    let path: String = row.try_get("path")?;
    Ok(Exception {
        id: row.try_get("id")?,
        place: match (node, group) {
            (Some(node), _) => Place::Node(node),
            (None, Some(group)) => Place::Group(group),
            (None, None) => return Err(StoreError::corrupt("exceptions: neither node nor group")),
        },
        path: path
            .parse()
            .map_err(|_bad| StoreError::corrupt(format!("exceptions.path: {path}")))?,
        found: row.try_get("found")?,
        from: Timestamp::from_micros(row.try_get::<Option<i64>, _>("decided")?.unwrap_or(0)),
        ends: Timestamp::from_micros(row.try_get("ends")?),
        revoked: crate::store::nodes::time(row, "revoked")?,
        approved_by: row
            .try_get::<Option<String>, _>("decided_by")?
            .unwrap_or_default(),
        reason: row.try_get("reason")?,
    })
}
