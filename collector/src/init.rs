//! `init`: keys and authorities made, store created, the first administrator told once.

use attestation::digest::Digest;
use serde::Serialize;

use crate::access::{self, AccessError};
use crate::authority::{self, Authority, AuthorityError};
use crate::clock;
use crate::files::{self, FileError};
use crate::keys::{self, CollectorKeys, KeysError};
use crate::settings::CollectorSettings;
use crate::store::{Store, StoreError};

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It was made before.
    #[error("{} holds a collector already; nothing was changed", state.display())]
    Again {
        /// The state directory.
        state: std::path::PathBuf,
    },
    /// A directory or file cannot be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signing keys cannot be made.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The authorities cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The store cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first administrator cannot be made.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// What is told once.
#[derive(Serialize)]
pub struct Initialised {
    /// The first administrator.
    pub user: String,
    /// Its password; nowhere stored.
    pub password: String,
    /// A token for the API; nowhere stored.
    pub token: String,
    /// File of the agents' authority's certificate.
    pub ca: String,
    /// SHA-256 of that certificate's DER.
    pub ca_sha256: Digest,
}

/// Makes everything that `serve` needs. The store is made first and last: a broken-off `init` leaves no complete collector, and
/// is told by what it left.
pub async fn init(settings: &CollectorSettings) -> Result<Initialised, InitError> {
    let state = &settings.state;
    if exists(state) {
        return Err(InitError::Again {
            state: state.clone(),
        });
    }
    files::private_directory(state)?;
    files::private_directory(&keys::directory(state))?;
    files::private_directory(&state.join("manifests"))?;
    CollectorKeys::create(state)?;
    let now = clock::now();
    let agents = Authority::create(state, AGENTS, now)?;
    Authority::create(state, PEOPLE, now)?;
    let store = Store::open(&store_file(state)).await?;
    let first = access::create_first_administrator(&store).await?;
    store.close().await;
    Ok(Initialised {
        user: first.user,
        password: first.password.to_string(),
        token: first.token.to_string(),
        ca: absolute(&authority::certificate_file(state, AGENTS))
            .display()
            .to_string(),
        ca_sha256: agents.sha256(),
    })
}

/// A path that means the same wherever it is read.
fn absolute(path: &std::path::Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_unknown| path.to_owned())
}

/// The role, and file name, of the agents' authority.
pub const AGENTS: &str = "agents";
/// The role, and file name, of the people's authority.
pub const PEOPLE: &str = "people";

/// Whether a state directory holds a collector.
pub fn exists(state: &std::path::Path) -> bool {
    store_file(state).exists() || authority::certificate_file(state, AGENTS).exists()
}

/// Where the store lies.
pub fn store_file(state: &std::path::Path) -> std::path::PathBuf {
    state.join("store.db")
}
