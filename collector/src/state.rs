//! What every door shares.

use std::net::SocketAddr;
use std::sync::Arc;

use attestation::time::Timestamp;
use tokio::sync::Semaphore;

use crate::access::refused::Tally;
use crate::assignments::Assignments;
use crate::authority::Authority;
use crate::enrolment::Former;
use crate::exceptions::Exceptions;
use crate::fleet::Asked;
use crate::images::ImageCache;
use crate::ingest::{Budgets, Challenges, Listed};
use crate::keys::CollectorKeys;
use crate::metrics::Metrics;
use crate::pins::Pins;
use crate::settings::CollectorSettings;
use crate::snapshots::Snapshots;
use crate::store::Store;
use crate::violations::store::Channels;

/// Cheap to clone; one for the whole process.
#[derive(Clone)]
pub struct AppState {
    /// The store, its writer and the stream of events (`store.events()`).
    pub store: Store,
    /// As configured.
    pub settings: Arc<CollectorSettings>,
    /// Images with their trees.
    pub images: ImageCache,
    /// The collector's own signing keys.
    pub keys: Arc<CollectorKeys>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who is told of violations.
    pub channels: Channels,
    /// The agents' certificate authority.
    pub authority: Arc<Authority>,
    /// What each group must be.
    pub assignments: Arc<Assignments>,
    /// Differences that were accepted.
    pub exceptions: Arc<Exceptions>,
    /// What each node may send.
    pub budgets: Arc<Budgets>,
    /// Open challenges.
    pub challenges: Arc<Challenges>,
    /// Differences of statements that later ones name by `as`.
    pub listed: Listed,
    /// What nodes are to be told with their next answer.
    pub asked: Arc<Asked>,
    /// Snapshots that nodes have named and that are not here yet.
    pub snapshots: Snapshots,
    /// Keys that nodes gave up.
    pub former: Arc<Former>,
    /// Who was refused at the people's door.
    pub refused: Arc<Tally>,
    /// What nodes have pinned.
    pub pins: Arc<Pins>,
    /// Requests that are verified and appraised on blocking threads at once.
    pub bench: Arc<Semaphore>,
    /// When this run began.
    pub started: Timestamp,
    /// What was really bound.
    pub bound: Bound,
}

/// The addresses really bound.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The agents' door.
    pub agents: SocketAddr,
    /// The joining door.
    pub join: SocketAddr,
    /// The people's door.
    pub ops: SocketAddr,
}

impl AppState {
    /// URLs of the joining door, by every name of this server: what a join token carries.
    pub fn join_urls(&self) -> Vec<String> {
        urls(&self.settings.names, self.bound.join.port())
    }

    /// URLs of the agents' door.
    pub fn agents_urls(&self) -> Vec<String> {
        urls(&self.settings.names, self.bound.agents.port())
    }
}

fn urls(names: &[String], port: u16) -> Vec<String> {
    names
        .iter()
        .map(|name| {
            if name.contains(':') {
                format!("https://[{name}]:{port}")
            } else {
                format!("https://{name}:{port}")
            }
        })
        .collect()
}
