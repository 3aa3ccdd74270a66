//! Who made a change, and who was logged in (FORMATS.md 5.2).

use serde::{Deserialize, Serialize};

use super::is_zero;
use crate::digest::Digest;
use crate::time::Timestamp;

/// Who made a change, and how sure we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Process id on the node.
    pub pid: u32,
    /// Its executable, in the mtree encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// SHA-256 of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<Digest>,
    /// Its command line, up to 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Real user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Effective user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    /// Login user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auid: Option<u32>,
    /// Name of the login user (of the real one without a login), from the root's own `passwd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The kernel's login session id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Container id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Its parents, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
    /// How sure we are.
    #[serde(default)]
    pub confidence: Confidence,
}

/// A parent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Process id on the node.
    pub pid: u32,
    /// Its executable, in the mtree encoding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
}

/// How sure we are of an actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Read from `/proc` when the event was read, or guessed at in part.
    #[default]
    Low,
    /// Some of it was seen as it happened.
    Medium,
    /// Followed from the start of the process.
    High,
}

/// One login on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The kernel's session id.
    pub session: u32,
    /// Login user id.
    pub auid: u32,
    /// Its name, from the root's own `passwd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The peer's address, where the login service tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended, where it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// What was run, or ended, since this session was last told: `at` and `pid` name a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<SessionCommand>,
    /// How many commands of the whole session were too many to be told at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

/// One command of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCommand {
    /// When.
    pub at: Timestamp,
    /// Process id on the node.
    pub pid: u32,
    /// The executable, in the mtree encoding, or `unknown (exited)`.
    pub exe: String,
    /// Its arguments, only where the configuration asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// Its exit status as shells show it, where it has ended: 128 and the signal's number for one that was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
}
