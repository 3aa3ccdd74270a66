//! Status: computed from stored facts and the time of asking. Pure.

use std::fmt;

use attestation::time::Timestamp;
use serde::Serialize;

use crate::store::{NodeRow, NodeState};

/// After so many intervals without a fresh statement a node is `stale`.
const STALE: u64 = 2;
/// After so many it is `lost`.
const LOST: u64 = 10;

/// What people see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As the image has it, and lately so.
    Pristine,
    /// Nothing differs, but not all was seen.
    Incomplete,
    /// Something is not as expected.
    Drifted,
    /// An image older than all allowed ones.
    Rollback,
    /// An image that is not allowed.
    UnknownImage,
    /// The differences do not give the tree.
    Unexplained,
    /// Two statements with one sequence.
    Forked,
    /// Not heard of for two intervals.
    Stale,
    /// Not heard of for ten intervals.
    Lost,
    /// It said goodbye.
    Stopped,
    /// By a person's decision.
    Suspended,
    /// Waits for a person, for an assignment, or for its first statement.
    Pending,
    /// Banned by a person.
    Banned,
    /// Listed, no longer counted.
    Retired,
}

impl Status {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pristine => "pristine",
            Self::Incomplete => "incomplete",
            Self::Drifted => "drifted",
            Self::Rollback => "rollback",
            Self::UnknownImage => "unknown-image",
            Self::Unexplained => "unexplained",
            Self::Forked => "forked",
            Self::Stale => "stale",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::Pending => "pending",
            Self::Banned => "banned",
            Self::Retired => "retired",
        }
    }

    fn of_verdict(verdict: &str) -> Self {
        match verdict {
            "pristine" => Self::Pristine,
            "incomplete" => Self::Incomplete,
            "drifted" => Self::Drifted,
            "rollback" => Self::Rollback,
            "unknown-image" => Self::UnknownImage,
            "unexplained" => Self::Unexplained,
            _ => Self::Forked,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node's status at `now`. Silence counts from the later of last seen and the collector's start; a clock that was set back
/// makes a node stale, never younger.
pub fn status(
    node: &NodeRow,
    now: Timestamp,
    collector_started: Timestamp,
    interval: u64,
) -> Status {
    match node.state {
        NodeState::Pending => return Status::Pending,
        NodeState::Suspended => return Status::Suspended,
        NodeState::Banned => return Status::Banned,
        NodeState::Retired => return Status::Retired,
        NodeState::Active => {}
    }
    // Sticky until re-enrolment is approved, whatever else is said or not said.
    if node.forked {
        return Status::Forked;
    }
    if node.stopped.is_some() {
        return Status::Stopped;
    }
    let Some(seen) = node.last_fresh else {
        let since = node
            .approved
            .unwrap_or(node.enrolled)
            .max(collector_started);
        return if silent_for(since, now, LOST, interval) {
            Status::Lost
        } else {
            Status::Pending
        };
    };
    if now < seen {
        return Status::Stale;
    }
    let heard = seen.max(collector_started);
    if silent_for(heard, now, LOST, interval) {
        return Status::Lost;
    }
    if silent_for(heard, now, STALE, interval) {
        return Status::Stale;
    }
    node.verdict
        .as_deref()
        .map_or(Status::Pending, Status::of_verdict)
}

fn silent_for(since: Timestamp, now: Timestamp, intervals: u64, interval: u64) -> bool {
    now > crate::clock::after(since, intervals.saturating_mul(interval))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn node() -> NodeRow {
        let mut node = NodeRow::new(
            "a".into(),
            "a".into(),
            "default".into(),
            NodeState::Active,
            String::new(),
            at(0),
        );
        node.approved = Some(at(0));
        node.last_fresh = Some(at(1_000));
        node.verdict = Some("pristine".into());
        node
    }

    #[test]
    fn status_by_facts_and_time() {
        let silent = |seconds: i64| status(&node(), at(1_000 + seconds), at(0), 30);
        assert_eq!(silent(0), Status::Pristine);
        assert_eq!(silent(60), Status::Pristine);
        assert_eq!(silent(61), Status::Stale);
        assert_eq!(silent(300), Status::Stale);
        assert_eq!(silent(301), Status::Lost);
        assert_eq!(silent(-1), Status::Stale, "a clock set back");
    }

    #[test]
    fn the_collectors_own_downtime_is_not_the_nodes() {
        assert_eq!(
            status(&node(), at(100_000), at(99_990), 30),
            Status::Pristine
        );
        assert_eq!(status(&node(), at(100_051), at(99_990), 30), Status::Stale);
    }

    #[test]
    fn what_a_person_or_the_node_said_comes_first() {
        type Change = fn(&mut NodeRow);
        let table: [(Change, Status); 8] = [
            (|node| node.state = NodeState::Pending, Status::Pending),
            (|node| node.state = NodeState::Suspended, Status::Suspended),
            (|node| node.state = NodeState::Banned, Status::Banned),
            (|node| node.state = NodeState::Retired, Status::Retired),
            (|node| node.stopped = Some(at(1_001)), Status::Stopped),
            (|node| node.forked = true, Status::Forked),
            (|node| node.verdict = None, Status::Pending),
            (|node| node.last_fresh = None, Status::Lost),
        ];
        for (change, expected) in table {
            let mut node = node();
            change(&mut node);
            assert_eq!(status(&node, at(1_010), at(0), 30), expected);
        }
    }
}
