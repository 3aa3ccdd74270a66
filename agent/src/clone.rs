//! A disk that was copied to another machine: its key stays with the node that it is of, and the copy joins by itself.
//!
//! What the copy knows of the collector is enough to ask there; a person admits it, as everybody who comes without a
//! token. Until then it says nothing, however often it is started again.

use std::path::Path;

use attestation::key::NodeId;
use serde::{Deserialize, Serialize};

use crate::config::AgentSettings;
use crate::enroll::{Door, EnrolError, EnrolOptions, enroll_on};
use crate::identity::{self, Identity, IdentityError};
use crate::{durable, journal, service};

/// What is kept until the copy has joined.
const FILE: &str = "rejoin.json";
/// The service manager is told that the agent is alive this often while it waits for a person.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(5);

/// Where to join anew, and as what.
#[derive(Debug, Serialize, Deserialize)]
struct Rejoin {
    name: String,
    join: Vec<String>,
    ca: String,
}

/// Ready at once where the state is this machine's own; else when the copy has joined as a node of its own.
pub async fn joined_anew(settings: &AgentSettings) -> Result<(), EnrolError> {
    let machine = settings.machine();
    let rejoin = match identity::load_on(&settings.state, machine.clone()) {
        Err(error @ IdentityError::OtherMachine { .. }) => {
            tracing::error!(error = %journal::chain(&error), "this disk was copied: the agent asks to join as a node of its own");
            let IdentityError::OtherMachine { before, .. } = error else {
                return Ok(());
            };
            keep(&settings.state, &before)?
        }
        Err(IdentityError::NotEnrolled { .. }) => read(&settings.state)?,
        Ok(_) => {
            // Joined in another way meanwhile: by a token.
            drop(std::fs::remove_file(settings.state.join(FILE)));
            None
        }
        // Whatever else is wrong is told by who loads it next.
        Err(_) => None,
    };
    let Some(rejoin) = rejoin else {
        return Ok(());
    };
    let alive = async {
        let service = service::Service::from_environment();
        service.ready();
        loop {
            service.alive();
            tokio::time::sleep(ALIVE).await;
        }
    };
    tokio::select! {
        () = alive => {}
        joined = Box::pin(join(settings, &rejoin, machine)) => joined?,
    }
    let path = settings.state.join(FILE);
    std::fs::remove_file(&path).map_err(|source| IdentityError::File { path, source })?;
    Ok(())
}

/// Under the name it has; where that is a living node's, with the beginning of its own id behind it.
async fn join(
    settings: &AgentSettings,
    rejoin: &Rejoin,
    machine: Option<String>,
) -> Result<(), EnrolError> {
    let Some(url) = rejoin.join.first() else {
        return Err(IdentityError::NotEnrolled {
            state: settings.state.clone(),
        }
        .into());
    };
    let options = |name: String| EnrolOptions {
        state: settings.state.clone(),
        door: Door::Person {
            join: url.clone(),
            ca: rejoin.ca.clone(),
        },
        name: Some(name),
        replaces: None,
    };
    let first = enroll_on(
        options(rejoin.name.clone()),
        &settings.network,
        machine.clone(),
    )
    .await;
    match first {
        Err(EnrolError::NameTaken { .. }) => {}
        other => return other.map(drop),
    }
    let own = NodeId::of(&identity::key(&settings.state)?.public());
    let mark: String = own.as_str().chars().take(8).collect();
    let name = format!("{}-{mark}", rejoin.name);
    enroll_on(options(name), &settings.network, machine)
        .await
        .map(drop)
}

fn keep(state: &Path, before: &Identity) -> Result<Option<Rejoin>, IdentityError> {
    let rejoin = Rejoin {
        name: before.name.clone(),
        join: before.join.clone(),
        ca: before.ca.clone(),
    };
    let path = state.join(FILE);
    let content = |source| IdentityError::Content {
        path: path.clone(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(&rejoin).map_err(content)?;
    durable::replace(&path, &bytes).map_err(|source| IdentityError::File {
        path: path.clone(),
        source,
    })?;
    Ok(Some(rejoin))
}

fn read(state: &Path) -> Result<Option<Rejoin>, IdentityError> {
    let path = state.join(FILE);
    let bytes = durable::read_if_present(&path).map_err(|source| IdentityError::File {
        path: path.clone(),
        source,
    })?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|source| IdentityError::Content { path, source })
}
