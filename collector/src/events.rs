//! What happened, for pages, server-sent events and `up`: sent after the commit that made it true.

use attestation::appraisal::Verdict;
use attestation::time::Timestamp;
use serde::Serialize;

use crate::logins::LoginView;
use crate::violations::view::ViolationView;

/// How many events a slow listener may lag behind before it misses some and must read anew.
pub const EVENTS_KEPT: usize = 1024;

/// One event. Its JSON is the object with an `event` member that names it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A node's verdict changed.
    Verdict(VerdictEvent),
    /// A violation was opened, updated or resolved. Boxed: it is many times the size of the others.
    Violation(Box<ViolationView>),
    /// Somebody logged in on a node.
    Session(LoginView),
    /// A deployment was asked for, approved, refused or withdrawn.
    Change(ChangeEvent),
    /// Something else about a node changed: it enrolled, attested, stopped, moved.
    Node(NodeEvent),
}

/// A node's verdict changed.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictEvent {
    /// The node's id.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// What it is now.
    pub verdict: Option<Verdict>,
    /// What it was before.
    pub was: Option<Verdict>,
    /// Why.
    pub reasons: Vec<String>,
    /// Received time of the statement that says so.
    pub at: Timestamp,
    /// The statement's sequence.
    pub sequence: u64,
}

/// A deployment changed.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeEvent {
    /// The deployment's id.
    pub id: String,
    /// The group's name.
    pub group: String,
}

/// A node changed.
#[derive(Clone, Debug, Serialize)]
pub struct NodeEvent {
    /// The node's id.
    pub id: String,
}

impl Event {
    /// The node that it is about, where it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Verdict(verdict) => Some(&verdict.node),
            Self::Violation(violation) => Some(&violation.node),
            Self::Session(session) => Some(&session.node),
            Self::Node(node) => Some(&node.id),
            Self::Change(_) => None,
        }
    }

    /// The group that it is about, where it is about one as a whole.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Change(change) => Some(&change.group),
            Self::Verdict(_) | Self::Violation(_) | Self::Session(_) | Self::Node(_) => None,
        }
    }

    /// `verdict`, `violation`, `session`, `change` or `node`: the event's name in the stream.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verdict(_) => "verdict",
            Self::Violation(_) => "violation",
            Self::Session(_) => "session",
            Self::Change(_) => "change",
            Self::Node(_) => "node",
        }
    }
}
