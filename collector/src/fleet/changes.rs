//! What people decide about nodes.

use http::StatusCode;

use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState};

/// Names and groups are shown everywhere.
const NAME: usize = 253;

/// Lets a node in that waits for a person.
pub async fn approve(state: &AppState, id: &str, by: &str) -> Result<NodeRow, ProblemResponse> {
    let (now, by) = (clock::now(), by.to_owned());
    change(state, id, "approve", move |node| {
        if node.state != NodeState::Pending {
            return Err(ProblemResponse::new(
                StatusCode::CONFLICT,
                "not-pending",
                "that node does not wait for approval",
            ));
        }
        node.state = NodeState::Active;
        node.approved = Some(now);
        node.approved_by = Some(by);
        Ok(())
    })
    .await
}

/// Moves a node to a group, and with it to that group's assignment.
pub async fn move_to_group(
    state: &AppState,
    id: &str,
    group: &str,
) -> Result<NodeRow, ProblemResponse> {
    let group = checked(group)?;
    change(state, id, "group", move |node| {
        node.group = group;
        Ok(())
    })
    .await
}

/// Gives a node another name; its id stays.
pub async fn rename(state: &AppState, id: &str, name: &str) -> Result<NodeRow, ProblemResponse> {
    let name = checked(name)?;
    change(state, id, "rename", move |node| {
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
) -> Result<NodeRow, ProblemResponse> {
    change(state, id, to.as_str(), move |node| {
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
    change: F,
) -> Result<NodeRow, ProblemResponse>
where
    F: FnOnce(&mut NodeRow) -> Result<(), ProblemResponse> + Send + 'static,
{
    let (id, now) = (id.to_owned(), clock::now());
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
                let more = serde_json::json!({"action": action, "name": node.name, "group": node.group, "state": node.state.as_str()});
                let digest = attestation::digest::Digest::of(more.to_string().as_bytes());
                log::append(tx, &Leaf { kind: "action", at: now, node: Some(&id), sequence: None, digest, more }).await?;
                tx.event(Event::Node(NodeEvent { id }));
                Ok(Ok(node))
            })
        })
        .await?
}

fn checked(name: &str) -> Result<String, ProblemResponse> {
    if name.is_empty() || name.len() > NAME || name.chars().any(char::is_control) {
        return Err(ProblemResponse::malformed(format!(
            "a name has 1 to {NAME} characters, none of them control characters"
        )));
    }
    Ok(name.to_owned())
}
