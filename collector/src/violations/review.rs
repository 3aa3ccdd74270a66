//! What people say of violations: that they have seen one, or that it is over. What a later statement decides by itself no
//! person can end while it lasts.

use attestation::time::Timestamp;
use serde::Deserialize;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::resolution::Resolution;
use super::steps::Change;
use super::store::{Channels, SELECT, apply, view};
use super::view::{Acknowledged, Kind, Step, ViolationView};
use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::approvals;
use crate::clock;
use crate::events::{Event, NodeEvent};
use crate::pins;
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};

/// Marks a violation as seen, as it now is: another finding clears the mark.
pub async fn acknowledge(
    state: &AppState,
    id: &str,
    reason: &str,
    person: &Person,
) -> Result<ViolationView, ProblemResponse> {
    decide(state, id, reason, person, Decision::Acknowledge).await
}

/// Ends a violation that a person must judge: it was looked at, or nothing was wrong.
pub async fn resolve(
    state: &AppState,
    id: &str,
    reason: &str,
    judged: Judged,
    person: &Person,
) -> Result<ViolationView, ProblemResponse> {
    decide(state, id, reason, person, Decision::Resolve(judged)).await
}

/// Takes what was found at a `local` or `growing` path for right: the violation is marked as seen, and ends when the node says that
/// what was found is its pin. Whoever calls asks the node.
pub async fn accept(
    state: &AppState,
    id: &str,
    reason: &str,
    person: &Person,
) -> Result<ViolationView, ProblemResponse> {
    decide(state, id, reason, person, Decision::Accept).await
}

/// What a person says of a violation that they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Judgement)]
pub enum Judged {
    /// They have looked at it, and it is settled.
    #[default]
    Reviewed,
    /// Nothing was wrong.
    FalseAlarm,
}

impl Judged {
    fn ends(self, by: &str, reason: &str) -> (Resolution, String) {
        match self {
            Self::Reviewed => (Resolution::Reviewed, format!("reviewed by {by}: {reason}")),
            Self::FalseAlarm => (
                Resolution::FalseAlarm,
                format!("a false alarm, says {by}: {reason}"),
            ),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision {
    Acknowledge,
    Accept,
    Resolve(Judged),
}

/// Why no person can end a violation now; nothing where one can. Pure.
pub fn lasting(kind: Kind, node: Option<&NodeRow>) -> Option<&'static str> {
    let speaks = node.is_some_and(|node| {
        matches!(
            node.state,
            NodeState::Active | NodeState::Suspended | NodeState::Pending
        )
    });
    if !speaks {
        // Nothing that the node says will ever end it.
        return None;
    }
    match kind {
        Kind::Touched | Kind::Replay | Kind::Rewind | Kind::Downgrade => None,
        Kind::Gap => node
            .is_some_and(has_open_gap)
            .then_some("the gap is still open: a rescan of the node closes it"),
        Kind::Difference => Some(
            "the path still differs: once it is as it should be, the node's next attestation ends this; what was found at a path that scope calls local or growing can be accepted",
        ),
        Kind::Many => Some(
            "more than a thousand paths still differ: the node's next attestation with fewer ends this",
        ),
        Kind::Mount => {
            Some("it is still mounted: once it is not, the node's next attestation ends this")
        }
        Kind::Silence => Some("the node is still silent: its next fresh attestation ends this"),
        Kind::Fork => Some(
            "two speak with this node's key: it stays forked until it is enrolled anew, with a new key, and this one is retired or banned",
        ),
        Kind::Flood => {
            Some("the node has not kept within its budget since: once it does, this ends")
        }
        Kind::Unexplained => Some(
            "the node's differences still do not give its tree: its next explained attestation ends this",
        ),
        Kind::Rollback | Kind::UnknownImage => Some(
            "the node still is no image that its group's assignment allows: once it is, its next attestation ends this",
        ),
    }
}

fn has_open_gap(node: &NodeRow) -> bool {
    node.stated
        .pointer("/coverage/gaps")
        .and_then(serde_json::Value::as_array)
        .is_some_and(|gaps| !gaps.is_empty())
}

async fn decide(
    state: &AppState,
    id: &str,
    reason: &str,
    person: &Person,
    decision: Decision,
) -> Result<ViolationView, ProblemResponse> {
    let reason = approvals::reason(reason)?;
    let desk = Desk {
        id: id.to_owned(),
        reason,
        person: person.clone(),
        at: clock::now(),
        decision,
        channels: state.channels.clone(),
    };
    state.store.write(move |tx| Box::pin(desk.job(tx))).await?
}

struct Desk {
    id: String,
    reason: String,
    person: Person,
    at: Timestamp,
    decision: Decision,
    channels: Channels,
}

type Decided = Result<ViolationView, ProblemResponse>;

impl Desk {
    async fn job(self, tx: &mut Writing) -> Result<Decided, StoreError> {
        let sql = format!("{SELECT} WHERE v.id = ?");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.id)
            .fetch_optional(&mut tx.connection)
            .await?;
        let Some(violation) = row.as_ref().map(view).transpose()? else {
            return Ok(Err(ProblemResponse::not_found(
                "there is no violation with this id",
            )));
        };
        if let Some(at) = violation.resolved {
            let detail = format!("this violation ended at {at}");
            return Ok(Err(ProblemResponse::conflict("resolved", detail)));
        }
        let node = tx.node(&violation.node).await?;
        let violation = match self.decision {
            Decision::Acknowledge => self.acknowledged(violation),
            Decision::Accept => {
                if let Some(why) = pins::refused(&violation, node.as_ref()) {
                    return Ok(Err(ProblemResponse::conflict("not-a-pin", why)));
                }
                if !pins::keep(tx, &violation, &self.person.user, &self.reason, self.at).await? {
                    return Ok(Err(ProblemResponse::conflict(
                        "many",
                        "the node has not confirmed what was accepted before: wait until it has",
                    )));
                }
                self.acknowledged(violation)
            }
            Decision::Resolve(judged) => {
                if let Some(why) = lasting(violation.kind, node.as_ref()) {
                    return Ok(Err(ProblemResponse::conflict("lasts", why)));
                }
                self.settle(tx, &violation, node).await?;
                let (how, told) = judged.ends(&self.person.user, &self.reason);
                violation.ended(self.at, how, told)
            }
        };
        self.tell(tx, &violation).await?;
        Ok(Ok(violation))
    }

    fn acknowledged(&self, mut violation: ViolationView) -> ViolationView {
        violation.updated = self.at;
        violation.acknowledged = Some(Acknowledged {
            by: self.person.user.clone(),
            at: self.at,
            reason: self.reason.clone(),
        });
        violation
    }

    /// What else is settled with it.
    async fn settle(
        &self,
        tx: &mut Writing,
        violation: &ViolationView,
        node: Option<NodeRow>,
    ) -> Result<(), StoreError> {
        match (violation.kind, node) {
            (Kind::Touched, _) => {
                sqlx::query("UPDATE touched SET reviewed = ?, reviewed_by = ? WHERE node = ? AND path = ? AND reviewed IS NULL")
                    .bind(self.at.as_micros())
                    .bind(&self.person.user)
                    .bind(&violation.node)
                    .bind(violation.path.as_deref().unwrap_or_default())
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            }
            // A jump over lost statements is taken once for each time that a person has judged one.
            (Kind::Rewind, Some(mut node)) if node.jump_taken => {
                node.jump_taken = false;
                tx.put_node(node).await
            }
            _ => Ok(()),
        }
    }

    async fn tell(&self, tx: &mut Writing, violation: &ViolationView) -> Result<(), StoreError> {
        let (step, action) = match self.decision {
            Decision::Acknowledge => (Step::Updated, "violation.acknowledge"),
            Decision::Accept => (Step::Updated, "violation.accept"),
            Decision::Resolve(_) => (Step::Resolved, "violation.resolve"),
        };
        let change = Change {
            step,
            violation: violation.clone(),
        };
        apply(tx, &change, self.at, None, &self.channels).await?;
        let node = tx.node(&violation.node).await?;
        let name = violation.summary();
        let target = Target::new("violation", &violation.id, &name);
        let doing = Doing {
            who: &self.person,
            at: self.at,
            action,
            target: node.as_ref().map_or(target, |node| target.on(node)),
            before: json!({"kind": violation.kind, "path": violation.path, "expected": violation.expected, "found": violation.found}),
            after: json!({"step": step, "resolved_as": violation.resolved_as}),
            reason: Some(&self.reason),
        };
        activity::record(tx, &doing).await?;
        tx.event(Event::Node(NodeEvent {
            id: violation.node.clone(),
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: NodeState) -> NodeRow {
        let at = Timestamp::from_micros(0);
        NodeRow::new(
            "a".into(),
            "a".into(),
            "default".into(),
            state,
            String::new(),
            at,
        )
    }

    #[test]
    fn what_lasts_no_person_ends() {
        let active = node(NodeState::Active);
        let by_hand = [
            Kind::Touched,
            Kind::Replay,
            Kind::Rewind,
            Kind::Downgrade,
            Kind::Gap,
        ];
        for kind in Kind::ALL {
            assert_eq!(
                lasting(kind, Some(&active)).is_none(),
                by_hand.contains(&kind),
                "{kind}"
            );
            for state in [NodeState::Retired, NodeState::Banned] {
                assert_eq!(lasting(kind, Some(&node(state))), None, "{kind}");
            }
            assert_eq!(lasting(kind, None), None, "{kind}");
        }
        let mut gap = active;
        gap.stated = json!({"coverage": {"gaps": [{"cause": "overflow"}]}});
        assert!(lasting(Kind::Gap, Some(&gap)).is_some());
    }
}
