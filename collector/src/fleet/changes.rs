//! What people decide about nodes.

use http::StatusCode;

use super::names;
use crate::activity::{self, Action};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState};

/// Lets a node in that waits for a person.
pub async fn approve(state: &AppState, id: &str, by: &str) -> Result<NodeRow, ProblemResponse> {
    let (now, approved_by) = (clock::now(), by.to_owned());
    change(state, id, "node.approve", by, move |node| {
        if node.state != NodeState::Pending {
            return Err(ProblemResponse::new(
                StatusCode::CONFLICT,
                "not-pending",
                "that node does not wait for approval",
            ));
        }
        node.state = NodeState::Active;
        node.approved = Some(now);
        node.approved_by = Some(approved_by);
        Ok(())
    })
    .await
}

/// Moves a node to a group, and with it to that group's assignment.
pub async fn move_to_group(
    state: &AppState,
    id: &str,
    group: &str,
    by: &str,
) -> Result<NodeRow, ProblemResponse> {
    let group = checked(group)?;
    change(state, id, "node.group", by, move |node| {
        node.group = group;
        Ok(())
    })
    .await
}

/// Gives a node another name; its id stays.
pub async fn rename(
    state: &AppState,
    id: &str,
    name: &str,
    by: &str,
) -> Result<NodeRow, ProblemResponse> {
    let name = checked(name)?;
    change(state, id, "node.rename", by, move |node| {
        node.name = name;
        Ok(())
    })
    .await
}

/// Suspends, bans, retires a node, or takes it back.
pub async fn set_state(
    state: &AppState,
    id: &str,
    to: NodeState,
    by: &str,
) -> Result<NodeRow, ProblemResponse> {
    change(state, id, "node.state", by, move |node| {
        if node.state == NodeState::Pending && to != NodeState::Banned {
            return Err(ProblemResponse::new(
                StatusCode::CONFLICT,
                "pending",
                "that node waits for approval",
            ));
        }
        node.state = to;
        Ok(())
    })
    .await
}

async fn change<F>(
    state: &AppState,
    id: &str,
    action: &'static str,
    by: &str,
    change: F,
) -> Result<NodeRow, ProblemResponse>
where
    F: FnOnce(&mut NodeRow) -> Result<(), ProblemResponse> + Send + 'static,
{
    let (id, by, now) = (id.to_owned(), by.to_owned(), clock::now());
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let Some(mut node) = tx.node(&id).await? else {
                    return Ok(Err(ProblemResponse::not_found("no node has that id")));
                };
                if let Err(refused) = change(&mut node) {
                    return Ok(Err(refused));
                }
                tx.put_node(node.clone()).await?;
                let detail = serde_json::json!({"name": node.name, "group": node.group, "state": node.state.as_str()});
                activity::note(tx, &Action { at: now, by: &by, action, target: &id, node: Some(&id), detail }).await?;
                tx.event(Event::Node(NodeEvent { id }));
                Ok(Ok(node))
            })
        })
        .await?
}

fn checked(name: &str) -> Result<String, ProblemResponse> {
    names::checked(name)
        .map(str::to_owned)
        .map_err(|error| ProblemResponse::malformed(error.to_string()))
}
