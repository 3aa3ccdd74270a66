//! A node that said goodbye and stays away a day is retired: listed, no longer counted.

use attestation::time::Timestamp;

use crate::events::{Event, NodeEvent};
use crate::store::{NodeState, Store, StoreError};

const DAY_MICROS: i64 = 86_400_000_000;
/// Nodes retired at a time; the next look takes the others.
const AT_ONCE: i64 = 256;

/// Retires them.
pub async fn retire_gone(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let gone: Vec<String> =
        sqlx::query_scalar("SELECT id FROM nodes WHERE state = 'active' AND stopped IS NOT NULL AND stopped < ? LIMIT ?")
            .bind(now.as_micros().saturating_sub(DAY_MICROS))
            .bind(AT_ONCE)
            .fetch_all(store.read_pool())
            .await?;
    for id in gone {
        store
            .write(move |tx| {
                Box::pin(async move {
                    let Some(mut node) = tx.node(&id).await? else {
                        return Ok(());
                    };
                    let still_gone = node.stopped.is_some_and(|at| {
                        at.as_micros() < now.as_micros().saturating_sub(DAY_MICROS)
                    });
                    if node.state == NodeState::Active && still_gone {
                        node.state = NodeState::Retired;
                        tx.put_node(node).await?;
                        tx.event(Event::Node(NodeEvent { id }));
                    }
                    Ok(())
                })
            })
            .await?;
    }
    Ok(())
}
