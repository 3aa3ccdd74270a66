//! Login sessions on nodes: what statements tell of them piece by piece, put together, so that "what else did this login do" has an
//! answer.

mod read;
mod write;

use attestation::time::Timestamp;
use serde::Serialize;

pub use self::read::{CommandView, Filter, changes, commands, list, named, of_actor, of_root};
pub use self::write::record;

/// Sessions kept of one node; the oldest go first. The statements that told them stay.
pub const KEPT: i64 = 1_000;
/// Commands kept of one session; more are counted.
pub const COMMANDS: i64 = 1_000;

/// A login session as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = LoginSession)]
pub struct LoginView {
    /// UUIDv7.
    pub id: String,
    /// The node's id.
    pub node: String,
    /// The node's name.
    pub node_name: String,
    /// The kernel's boot id.
    pub boot: String,
    /// The kernel's session id.
    pub session: u32,
    /// Login user id.
    pub auid: u32,
    /// Its name.
    pub user: Option<String>,
    /// The peer's address, where the login service tells it.
    pub from: Option<String>,
    /// The terminal.
    pub tty: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// When it ended, where it has.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// Commands that are kept.
    pub commands: u64,
    /// Commands that are not.
    pub dropped: u64,
    /// When the collector first heard of it.
    #[schema(value_type = String, format = DateTime)]
    pub told: Timestamp,
}

impl LoginView {
    /// Who logged in, in a word.
    pub fn who(&self) -> String {
        match (&self.user, self.auid) {
            (Some(user), _) => user.clone(),
            (None, 0) => "root".to_owned(),
            (None, auid) => format!("user {auid}"),
        }
    }

    /// Whether it is a login of root itself.
    pub fn is_root(&self) -> bool {
        self.auid == 0
    }
}
