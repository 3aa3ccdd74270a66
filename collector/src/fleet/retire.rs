//! Nodes that are gone become history: listed under a filter, no longer counted, their open violations ended. One that said goodbye and
//! stays away a day, one whose name came back with another key, one that was decommissioned.

use attestation::time::Timestamp;
use serde_json::{Value, json};

use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::events::{Event, NodeEvent};
use crate::state::AppState;
use crate::store::{NodeRow, NodeState, StoreError, Writing};
use crate::violations::store::{Channels, all_open, apply};
use crate::violations::view::Step;
use crate::violations::{Change, RETIRED, Resolution};

const DAY_MICROS: i64 = 86_400_000_000;
/// Nodes retired at a time; the next look takes the others.
const AT_ONCE: i64 = 256;

/// Whether a node said goodbye and has stayed away a day. Pure.
pub fn is_gone(node: &NodeRow, now: Timestamp) -> bool {
    node.state == NodeState::Active
        && node
            .stopped
            .is_some_and(|at| at.as_micros() < now.as_micros().saturating_sub(DAY_MICROS))
}

/// Retires those that are gone. Each is judged again inside its transaction.
pub async fn retire_gone(state: &AppState, now: Timestamp) -> Result<(), StoreError> {
    let gone: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM nodes WHERE state = 'active' AND stopped IS NOT NULL AND stopped < ? LIMIT ?",
    )
    .bind(now.as_micros().saturating_sub(DAY_MICROS))
    .bind(AT_ONCE)
    .fetch_all(state.store.read_pool())
    .await?;
    for id in gone {
        let retiring = Retiring::new(state);
        state
            .store
            .write(move |tx| {
                Box::pin(async move {
                    match tx.node(&id).await? {
                        // The goodbye is remembered: whoever said it may come back.
                        Some(node) if is_gone(&node, now) => {
                            let after = json!({"state": "retired", "stopped": node.stopped});
                            let who = Person::local("collector");
                            retiring.retire(tx, node.clone(), now).await?;
                            note(tx, &who, "node.retire", &node, after, now).await
                        }
                        _ => Ok(()),
                    }
                })
            })
            .await?;
    }
    Ok(())
}

/// Who is told when violations end with their node.
#[derive(Clone)]
pub(crate) struct Retiring {
    channels: Channels,
}

impl Retiring {
    pub(crate) fn new(state: &AppState) -> Self {
        Self {
            channels: state.channels.clone(),
        }
    }

    async fn retire(
        &self,
        tx: &mut Writing,
        mut node: NodeRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        node.state = NodeState::Retired;
        let id = node.id.clone();
        self.end_violations(tx, &node, now).await?;
        tx.put_node(node).await?;
        tx.event(Event::Node(NodeEvent { id }));
        Ok(())
    }

    /// The node before it gives way to one that came under its name. It does not come back.
    pub(crate) async fn replace(
        &self,
        tx: &mut Writing,
        who: &Person,
        mut node: NodeRow,
        by: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let after = json!({"state": "retired", "replaced_by": by});
        let was = node.clone();
        node.stopped = None;
        self.retire(tx, node, now).await?;
        note(tx, who, "node.replace", &was, after, now).await
    }

    /// Ends what is open of a node that is history; answers how many.
    pub(crate) async fn end_violations(
        &self,
        tx: &mut Writing,
        node: &NodeRow,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut ended = 0;
        for mut violation in all_open(tx, &node.id).await? {
            violation.resolved = Some(now);
            violation.updated = now;
            violation.resolution = Some(RETIRED.to_owned());
            violation.resolved_as = Some(Resolution::Retired);
            self.step(tx, Step::Resolved, violation, now).await?;
            ended += 1;
        }
        Ok(ended)
    }

    /// Tells what stands open of a node that counts again: while it was suspended nobody was told.
    pub(crate) async fn tell_open(
        &self,
        tx: &mut Writing,
        node: &NodeRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for mut violation in all_open(tx, &node.id).await? {
            violation.updated = now;
            self.step(tx, Step::Updated, violation, now).await?;
        }
        Ok(())
    }

    async fn step(
        &self,
        tx: &mut Writing,
        step: Step,
        violation: crate::violations::view::ViolationView,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        apply(tx, &Change { step, violation }, now, None, &self.channels).await
    }
}

async fn note(
    tx: &mut Writing,
    who: &Person,
    action: &'static str,
    node: &NodeRow,
    after: Value,
    at: Timestamp,
) -> Result<(), StoreError> {
    let doing = Doing {
        who,
        at,
        action,
        target: Target::node(node),
        before: json!({"state": node.state.as_str()}),
        after,
        reason: None,
    };
    activity::record(tx, &doing).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_that_lasts_a_day_retires_and_silence_does_not() {
        let at = |hours: i64| Timestamp::from_micros(hours * 3_600_000_000);
        let mut node = NodeRow::new(
            "a".into(),
            "a".into(),
            "default".into(),
            NodeState::Active,
            String::new(),
            at(0),
        );
        assert!(!is_gone(&node, at(1_000)), "a silent node is a violation");
        node.stopped = Some(at(10));
        assert!(!is_gone(&node, at(34)) && is_gone(&node, at(35)));
        assert!(!is_gone(&node, at(0)), "a clock set back retires nobody");
        for state in [NodeState::Suspended, NodeState::Banned, NodeState::Retired] {
            node.state = state;
            assert!(!is_gone(&node, at(35)), "{state:?}");
        }
    }
}
