//! What the agent tells whoever embeds it, as it happens.

use attestation::digest::Digest;
use attestation::statement::WatchCoverage;
use attestation::verdict::Verdict;
use tokio::sync::mpsc;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// A scan goes on.
    ScanProgress {
        /// Objects visited until now.
        entries: u64,
        /// Content bytes read until now.
        bytes: u64,
    },
    /// The scan that a view begins with is over, and changes are told from now on.
    Watching {
        /// The rung of the watch and its standing limits.
        coverage: WatchCoverage,
        /// Sealed entries.
        entries: u64,
        /// Differences found.
        differences: u64,
    },
    /// The node cannot look at its root.
    Blind {
        /// Why.
        error: String,
    },
    /// A statement was signed and kept.
    Attested {
        /// Its sequence.
        sequence: u64,
        /// Whether it says nothing new.
        quiet: bool,
        /// Differences that it tells of.
        differences: u64,
    },
    /// Statements have their receipts.
    Receipted {
        /// The newest of them.
        through: u64,
        /// The verdict on the newest.
        verdict: Option<Verdict>,
        /// Whether it answered a challenge in time.
        fresh: bool,
    },
    /// The images to compare with have changed.
    Assigned {
        /// SHA-256 of their payloads; empty without an assignment.
        images: Vec<Digest>,
    },
    /// The collector does not answer.
    CollectorAway {
        /// Why.
        error: String,
    },
    /// It answers again.
    CollectorBack,
    /// The collector does not know this node: it must enrol again.
    UnknownNode,
}

/// Where events go; what the receiver is too slow for is left out, for these are only shown.
#[derive(Clone, Debug, Default)]
pub struct Observer(Option<mpsc::Sender<AgentEvent>>);

impl Observer {
    /// An observer of nothing, or of everything.
    pub fn new(sender: Option<mpsc::Sender<AgentEvent>>) -> Self {
        Self(sender)
    }

    /// Tells.
    pub fn tell(&self, event: AgentEvent) {
        if let Some(sender) = &self.0 {
            // Full or gone: nothing depends on it.
            drop(sender.try_send(event));
        }
    }
}
