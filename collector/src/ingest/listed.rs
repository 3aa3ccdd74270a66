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

/// Lists by node and sequence.
#[derive(Clone)]
pub struct Listed {
    lists: moka::sync::Cache<(String, u64), Arc<Vec<Difference>>>,
}

impl Default for Listed {
    fn default() -> Self {
        let weigh = |_: &(String, u64), list: &Arc<Vec<Difference>>| {
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
        self.lists.insert((node.to_owned(), sequence), list);
    }

    /// The list of a receipted statement; none where there is no such statement, or it names another one itself.
    pub async fn of(
        &self,
        store: &Store,
        node: &str,
        sequence: u64,
    ) -> Result<Option<Arc<Vec<Difference>>>, StoreError> {
        if let Some(list) = self.lists.get(&(node.to_owned(), sequence)) {
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
