//! A node that sends more than its budget.

use attestation::time::Timestamp;
use serde_json::json;

use super::Office;
use super::again::once;
use crate::state::AppState;
use crate::store::{NodeRow, StoreError};
use crate::violations::store::open_of_kind;
use crate::violations::view::Kind;

/// The node sends more than its budget: told once, until it keeps within it again.
pub async fn flood(
    state: &AppState,
    node: &NodeRow,
    received: Timestamp,
) -> Result<(), StoreError> {
    let office = Office::new(state, node, received, false);
    let node = node.clone();
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                if open_of_kind(tx, &node.id, Kind::Flood).await?.is_some() {
                    return Ok(());
                }
                let limits = &office.settings.limits;
                let mut detail = serde_json::Map::new();
                detail.insert(
                    "statements_per_second".to_owned(),
                    json!(limits.statements_per_second),
                );
                detail.insert("bytes_per_day".to_owned(), json!(limits.bytes_per_day));
                once(tx, &office, &node, Kind::Flood, detail, None).await
            })
        })
        .await
}
