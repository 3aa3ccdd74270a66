//! What a node says to join, to have its certificate renewed, and to take another key (FORMATS.md 5.4).

use serde::{Deserialize, Serialize};

use super::{Predicate, Statement, Subject};
use crate::key::{NodeId, PublicKey};

/// A node asks to join; signed by the key that it will attest with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// What people call it.
    pub name: String,
    /// Certificate request (PEM) for the same key.
    pub csr: String,
    /// The machine it is bound to (product UUID), where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The node (id) that this one takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl Predicate for Enrolment {
    const NAME: &'static str = "enrolment";
}

impl Statement<Enrolment> {
    /// The statement of the node that has this key.
    pub fn of_node(key: &PublicKey, predicate: Enrolment) -> Self {
        Self::about(key_subject(key), predicate)
    }
}

/// A node asks for a new certificate; its old one may have expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Certificate request (PEM) for the node's key.
    pub csr: String,
}

impl Predicate for Renewal {
    const NAME: &'static str = "renewal";
}

impl Statement<Renewal> {
    /// The statement of a node, by the key that it has now: its id is that of its first one.
    pub fn of_node(node: &NodeId, key: &PublicKey, predicate: Renewal) -> Self {
        let subject = Subject::of_bytes(node.to_string(), &key.spki_digest());
        Self::about(subject, predicate)
    }
}

/// A node takes another key; signed by the one it had and by the one it takes. Its id stays that of its first key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Certificate request (PEM) for the key that it takes.
    pub csr: String,
}

impl Predicate for Rotation {
    const NAME: &'static str = "rotation";
}

impl Statement<Rotation> {
    /// The statement of a node whose key was `old` until now.
    pub fn of_node(node: &NodeId, old: &PublicKey, predicate: Rotation) -> Self {
        let subject = Subject::of_bytes(node.to_string(), &old.spki_digest());
        Self::about(subject, predicate)
    }
}

/// A node named by its id, with the digest that the id is the beginning of.
fn key_subject(key: &PublicKey) -> Subject {
    Subject::of_bytes(NodeId::of(key).to_string(), &key.spki_digest())
}
