//! What people and provisioners decide about nodes: who belongs to the fleet, what it is called, which group it is in, whether it counts.

use http::StatusCode;
use serde_json::{Value, json};

use super::names;
use super::retire::Retiring;
use super::status::{Status, status};
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// A reason is a few sentences.
const REASON: usize = 1_000;

/// What may be decided about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Lets one in that waits, or one that was banned.
    Approve,
    /// Does not count it for a while: what it says is kept, nobody is told of it.
    Suspend,
    /// Counts it again.
    Resume,
    /// Refuses it at the doors from now on; its certificate is no good.
    Ban,
    /// It is gone for good: history.
    Decommission,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Approve,
        Self::Suspend,
        Self::Resume,
        Self::Ban,
        Self::Decommission,
    ];

    const fn action(self) -> &'static str {
        match self {
            Self::Approve => "node.approve",
            Self::Suspend => "node.suspend",
            Self::Resume => "node.resume",
            Self::Ban => "node.ban",
            Self::Decommission => "node.decommission",
        }
    }

    /// Whether it says something of a machine that somebody may ask about later. A provisioner that takes a server away has said it.
    const fn needs_reason(self) -> bool {
        matches!(self, Self::Suspend | Self::Ban)
    }
}

/// The state that a decision leads to, or why it cannot be made. Pure.
pub fn decided(state: NodeState, decision: Decision) -> Result<NodeState, &'static str> {
    use NodeState::{Active, Banned, Pending, Retired, Suspended};
    match (decision, state) {
        (Decision::Approve, Pending | Banned) => Ok(Active),
        (Decision::Approve, _) => Err("it does not wait for approval"),
        (Decision::Suspend, Active) => Ok(Suspended),
        (Decision::Suspend, Suspended) => Err("it is suspended already"),
        (Decision::Suspend, _) => Err("only a node that attests can be suspended"),
        (Decision::Resume, Suspended) => Ok(Active),
        (Decision::Resume, Banned) => {
            Err("it is banned: who may approve nodes can let it in again")
        }
        (Decision::Resume, _) => Err("it is not suspended"),
        (Decision::Ban, Banned) => Err("it is banned already"),
        (Decision::Ban, _) => Ok(Banned),
        (Decision::Decommission, _) => Ok(Retired),
    }
}

/// Makes a decision about a node.
///
/// # Errors
/// 404 for none within reach, 409 where it cannot be made, 400 where a reason is missing, and what the store refuses.
pub async fn decide(
    state: &AppState,
    who: &Person,
    id: &str,
    decision: Decision,
    reason: &str,
) -> Result<NodeRow, ProblemResponse> {
    let reason = reason_of(reason, decision.needs_reason())?;
    let desk = Desk::new(state, who, id);
    state
        .store
        .write(move |tx| Box::pin(desk.decide(tx, decision, reason)))
        .await?
}

/// Moves a node to a group, and with it to that group's assignment.
///
/// # Errors
/// 404 for none within reach, 403 for a group beyond it, and what the store refuses.
pub async fn move_to_group(
    state: &AppState,
    who: &Person,
    id: &str,
    group: &str,
) -> Result<NodeRow, ProblemResponse> {
    let group = checked(group)?;
    if !who.reaches(&group) {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "beyond",
            format!("the group {group:?} is beyond your reach"),
        ));
    }
    let desk = Desk::new(state, who, id);
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let mut node = match desk.found(tx).await? {
                    Ok(node) => node,
                    Err(refused) => return Ok(Err(refused)),
                };
                let before = json!({"group": node.group});
                node.group = group;
                let after = json!({"group": node.group});
                desk.put(tx, &node, "node.group", before, after, None)
                    .await?;
                Ok(Ok(node))
            })
        })
        .await?
}

/// Gives a node another name; its id stays.
///
/// # Errors
/// 404 for none within reach, 409 where another node has the name, and what the store refuses.
pub async fn rename(
    state: &AppState,
    who: &Person,
    id: &str,
    name: &str,
) -> Result<NodeRow, ProblemResponse> {
    let name = checked(name)?;
    let desk = Desk::new(state, who, id);
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                let mut node = match desk.found(tx).await? {
                    Ok(node) => node,
                    Err(refused) => return Ok(Err(refused)),
                };
                if holders(tx, &name).await?.iter().any(|it| it.id != node.id) {
                    return Ok(Err(taken(&name)));
                }
                let before = json!({"name": node.name});
                node.name = name;
                let after = json!({"name": node.name});
                desk.put(tx, &node, "node.rename", before, after, None)
                    .await?;
                Ok(Ok(node))
            })
        })
        .await?
}

/// What a decision needs inside the transaction.
struct Desk {
    who: Person,
    id: String,
    retiring: Retiring,
    started: attestation::time::Timestamp,
    interval: u64,
}

impl Desk {
    fn new(state: &AppState, who: &Person, id: &str) -> Self {
        Self {
            who: who.clone(),
            id: id.to_owned(),
            retiring: Retiring::new(state),
            started: state.started,
            interval: state.settings.interval,
        }
    }

    async fn found(
        &self,
        tx: &mut Writing,
    ) -> Result<Result<NodeRow, ProblemResponse>, StoreError> {
        Ok(self.who.reach.within(tx.node(&self.id).await?))
    }

    async fn decide(
        self,
        tx: &mut Writing,
        decision: Decision,
        reason: Option<String>,
    ) -> Result<Result<NodeRow, ProblemResponse>, StoreError> {
        let mut node = match self.found(tx).await? {
            Ok(node) => node,
            Err(refused) => return Ok(Err(refused)),
        };
        let now = clock::now();
        let was = node.state;
        let to = match decided(was, decision) {
            Ok(to) => to,
            Err(why) => {
                let detail = format!("{:?} is {}: {why}", node.name, was.as_str());
                return Ok(Err(ProblemResponse::conflict("state", detail)));
            }
        };
        if decision == Decision::Approve {
            if let Err(refused) = self.make_room(tx, &node).await? {
                return Ok(Err(refused));
            }
            node.approved = Some(now);
            node.approved_by = Some(self.who.user.clone());
        }
        node.state = to;
        let ended = if decision == Decision::Decommission {
            // It does not come back: a goodbye that is remembered would let it.
            node.stopped = None;
            self.retiring.end_violations(tx, &node, now).await?
        } else {
            0
        };
        let before = json!({"state": was.as_str()});
        let mut after = json!({"state": to.as_str()});
        if ended > 0 {
            after["violations_ended"] = ended.into();
        }
        self.put(
            tx,
            &node,
            decision.action(),
            before,
            after,
            reason.as_deref(),
        )
        .await?;
        if decision == Decision::Resume {
            self.retiring.tell_open(tx, &node, now).await?;
        }
        Ok(Ok(node))
    }

    /// Who had the name before gives way when it is gone; one that lives does not.
    async fn make_room(
        &self,
        tx: &mut Writing,
        node: &NodeRow,
    ) -> Result<Result<(), ProblemResponse>, StoreError> {
        let now = clock::now();
        let holders = holders(tx, &node.name).await?;
        let holders: Vec<NodeRow> = holders.into_iter().filter(|it| it.id != node.id).collect();
        let lives = |it: &NodeRow| {
            let gone = matches!(
                status(it, now, self.started, self.interval),
                Status::Lost | Status::Stopped
            );
            !gone && node.replaces.as_deref() != Some(it.id.as_str())
        };
        if holders.iter().any(lives) {
            return Ok(Err(taken(&node.name)));
        }
        for holder in holders {
            self.retiring
                .replace(tx, &self.who, holder, &node.id, now)
                .await?;
        }
        Ok(Ok(()))
    }

    async fn put(
        &self,
        tx: &mut Writing,
        node: &NodeRow,
        action: &'static str,
        before: Value,
        after: Value,
        reason: Option<&str>,
    ) -> Result<(), StoreError> {
        tx.put_node(node.clone()).await?;
        let doing = Doing {
            who: &self.who,
            at: clock::now(),
            action,
            target: Target::node(node),
            before,
            after,
            reason,
        };
        activity::record(tx, &doing).await?;
        tx.event(Event::Node(NodeEvent {
            id: self.id.clone(),
        }));
        Ok(())
    }
}

/// Nodes that have a name and may not share it.
pub(crate) async fn holders(tx: &mut Writing, name: &str) -> Result<Vec<NodeRow>, StoreError> {
    let rows = sqlx::query_as(
        "SELECT * FROM nodes WHERE name = ? AND state IN ('active', 'suspended', 'banned')",
    )
    .bind(name)
    .fetch_all(&mut tx.connection)
    .await?;
    Ok(rows)
}

fn taken(name: &str) -> ProblemResponse {
    ProblemResponse::conflict(
        "name-taken",
        format!("another node is named {name:?}: rename or decommission that one first"),
    )
}

/// Why, in one line; nothing where nobody has to say.
fn reason_of(reason: &str, needed: bool) -> Result<Option<String>, ProblemResponse> {
    let reason = reason.trim();
    let good = reason.chars().count() <= REASON && !reason.chars().any(char::is_control);
    if !good || (needed && reason.is_empty()) {
        return Err(ProblemResponse::malformed(format!(
            "`reason` says why, in one line of at most {REASON} characters"
        )));
    }
    Ok((!reason.is_empty()).then(|| reason.to_owned()))
}

fn checked(name: &str) -> Result<String, ProblemResponse> {
    names::checked(name)
        .map(str::to_owned)
        .map_err(|error| ProblemResponse::malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_decided_about_a_node() {
        use NodeState::{Active, Banned, Pending, Retired, Suspended};
        let table = [
            // approve, suspend, resume, ban, decommission
            (
                Pending,
                [Some(Active), None, None, Some(Banned), Some(Retired)],
            ),
            (
                Active,
                [None, Some(Suspended), None, Some(Banned), Some(Retired)],
            ),
            (
                Suspended,
                [None, None, Some(Active), Some(Banned), Some(Retired)],
            ),
            (Banned, [Some(Active), None, None, None, Some(Retired)]),
            (Retired, [None, None, None, Some(Banned), Some(Retired)]),
        ];
        for (state, expected) in table {
            for (decision, to) in Decision::ALL.into_iter().zip(expected) {
                assert_eq!(decided(state, decision).ok(), to, "{state:?} {decision:?}");
            }
        }
    }

    #[test]
    fn a_reason_is_asked_for_where_somebody_may_ask_later() {
        assert!(reason_of("  ", true).is_err() && reason_of("a\nb", false).is_err());
        assert_eq!(
            reason_of(" disk \u{1f4a5} ", true)
                .ok()
                .flatten()
                .as_deref(),
            Some("disk \u{1f4a5}")
        );
        assert_eq!(reason_of("", false).ok(), Some(None));
    }
}
