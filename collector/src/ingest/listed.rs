//! The differences that a statement lists, for those that name it by `as`.

use std::sync::Arc;

use attestation::dsse::Envelope;
use attestation::statement::{Attestation, Difference};
use sqlx::Row;

use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::{number, to_sql};
use crate::store::{Store, StoreError};

/// Differences in memory, of all nodes: about a kilobyte each.
const IN_MEMORY: u64 = 128 << 10;

/// A list, and the sequence of its statement.
type Newest = (u64, Arc<Vec<Difference>>);

/// The newest list of each node: no statement names an older one but after a restore, and then it is read from the store.
#[derive(Clone)]
pub struct Listed {
    lists: moka::sync::Cache<String, Newest>,
}

impl Default for Listed {
    fn default() -> Self {
        let weigh = |_: &String, (_, list): &Newest| {
            u32::try_from(list.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1)
        };
        Self {
            lists: moka::sync::Cache::builder()
                .max_capacity(IN_MEMORY)
                .weigher(weigh)
                .build(),
        }
    }
}

impl Listed {
    /// Remembers a list that was stored.
    pub fn keep(&self, node: &str, sequence: u64, list: Arc<Vec<Difference>>) {
        self.lists.insert(node.to_owned(), (sequence, list));
    }

    fn kept(&self, node: &str, sequence: u64) -> Option<Arc<Vec<Difference>>> {
        let (of, list) = self.lists.get(node)?;
        (of == sequence).then_some(list)
    }

    /// The list of a receipted statement; none where there is no such statement, or it names another one itself.
    pub async fn of(
        &self,
        store: &Store,
        node: &str,
        sequence: u64,
    ) -> Result<Option<Arc<Vec<Difference>>>, StoreError> {
        if let Some(list) = self.kept(node, sequence) {
            return Ok(Some(list));
        }
        let row = sqlx::query(
            "SELECT e.bytes FROM attestations a JOIN receipts r ON r.payload = a.payload JOIN evidence e ON e.sha256 = a.payload \
             WHERE a.node = ? AND a.sequence = ?",
        )
        .bind(node)
        .bind(to_sql(sequence))
        .fetch_optional(store.read_pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let bytes: Vec<u8> = row.try_get("bytes")?;
        let said = Envelope::from_json(&bytes)
            .map_err(|error| StoreError::corrupt(format!("evidence.bytes: {error}")))?
            .peek::<Attestation>()
            .map_err(|error| StoreError::corrupt(format!("evidence.bytes: {error}")))?
            .predicate;
        if said.r#as.is_some() {
            return Ok(None);
        }
        let list = Arc::new(said.differences);
        self.keep(node, sequence, Arc::clone(&list));
        Ok(Some(list))
    }
}

/// The differences of a node that still stand, all that were listed.
pub async fn current_differences(
    state: &AppState,
    node: &str,
) -> Result<Vec<Difference>, ProblemResponse> {
    let row = sqlx::query("SELECT differences_at FROM nodes WHERE id = ?")
        .bind(node)
        .fetch_optional(state.store.read_pool())
        .await?
        .ok_or_else(|| ProblemResponse::not_found("no node has that id"))?;
    let Some(sequence) = number(&row, "differences_at")? else {
        return Ok(Vec::new());
    };
    let list = state.listed.of(&state.store, node, sequence).await?;
    Ok(list.map_or_else(Vec::new, |list| list.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_changes_all_the_time_has_one_list_in_memory() {
        let listed = Listed::default();
        for sequence in 0..1_000 {
            listed.keep("a", sequence, Arc::default());
        }
        listed.keep("b", 7, Arc::default());
        listed.lists.run_pending_tasks();
        assert_eq!(listed.lists.entry_count(), 2);
        assert!(listed.kept("a", 999).is_some() && listed.kept("b", 7).is_some());
        assert!(listed.kept("a", 998).is_none() && listed.kept("c", 0).is_none());
    }
}
