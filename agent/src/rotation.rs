//! Another key under the same id: made and synced first, then vouched for by the old one at the joining door, then used.
//!
//! A crash at any moment leaves either the old key with its certificate, or the new one with its own: the next key lies
//! beside the one in use until the collector has taken it, and asking again is the same question.

use std::path::Path;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::{KeyId, NodeId, PrivateKey};
use attestation::statement::{Rotation, Statement};
use attestation::wire::RotationRequest;

use crate::agent::{self, RunError};
use crate::certificate;
use crate::config::AgentSettings;
use crate::identity::{self, Held, Identity, IdentityError, NextKey};
use crate::joining::{self, JoiningError};
use crate::renewal::RequestError;
use crate::tls::TlsError;
use crate::transport::Transport;

/// Rotations that are kept for a collector that was restored from a backup of before.
pub const KEPT: usize = 16;
/// A running agent is given so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// And looked at this often.
const LOOK: Duration = Duration::from_millis(100);

/// Why the node keeps its key.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Keys or identity cannot be read or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nothing to ask with.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No door answered, or the collector does not agree.
    #[error(transparent)]
    Joining(#[from] JoiningError),
}

/// The statement by which the old key vouches for the new one, signed by both.
pub fn statement(
    node: &NodeId,
    old: &PrivateKey,
    new: &PrivateKey,
) -> Result<Envelope, RequestError> {
    let csr = certificate::request(new, node)?;
    let statement = Statement::<Rotation>::of_node(node, &old.public(), Rotation { csr });
    let mut envelope = Envelope::sign(statement.to_payload(), old)?;
    envelope.add_signature(new)?;
    Ok(envelope)
}

/// Has the next key taken by the collector and uses it from now on. Returns what the node then holds.
pub async fn rotate(
    transport: &Transport,
    state: &Path,
    identity: &Identity,
    old: &PrivateKey,
    new: PrivateKey,
) -> Result<Held, RotationError> {
    let envelope = statement(&identity.node, old, &new)?;
    let certificate = present(transport, identity, &envelope).await?;
    let mut identity = identity.clone();
    if identity.rotations.len() >= KEPT {
        identity.rotations.remove(0);
    }
    identity.rotations.push(envelope);
    identity.key = Some(old.public().spki_digest());
    identity.next = Some(NextKey {
        key: new.public().spki_digest(),
        certificate,
    });
    // From here on the identity has both certificates, and the key file decides which one counts.
    identity::write_identity(state, &identity)?;
    identity::use_next_key(state)?;
    identity.take_next();
    identity::write_identity(state, &identity)?;
    tracing::info!(node = %identity.node, "the node signs with a new key");
    Ok(Held { identity, key: new })
}

/// What a node's key was, and is.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The node; its id stays.
    pub node: NodeId,
    /// The keyid of the key that it gave up.
    pub from: KeyId,
    /// The keyid of the key that it has now.
    pub to: KeyId,
}

/// Why the key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateKeyError {
    /// Keys or identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] RunError),
    /// TLS cannot be set up.
    #[error("set up the connection to the joining door")]
    Tls(#[from] TlsError),
    /// The collector did not take it.
    #[error("change the key")]
    Rotation(#[from] RotationError),
    /// The running agent has not changed it.
    #[error(
        "the running agent has not changed its key within {0} seconds; it goes on trying, and its journal says why"
    )]
    Late(u64),
}

/// Changes the node's key: at once where no agent runs, else by the one that runs, which looks for it every few seconds.
pub async fn rotate_key(settings: &AgentSettings) -> Result<Rotated, RotateKeyError> {
    let state = &settings.state;
    let held = identity::load_on(state, settings.machine())?;
    let trust = agent::trust(settings, &held)?;
    let Held { identity, key } = held;
    let new = identity::make_next_key(state)?;
    let rotated = Rotated {
        node: identity.node.clone(),
        from: key.public().keyid(),
        to: new.public().keyid(),
    };
    match agent::lock(state) {
        Ok(_lock) => {
            let transport = Transport::open(&settings.network, trust, &key)?;
            rotate(&transport, state, &identity, &key, new).await?;
        }
        Err(RunError::Locked { .. }) => wait_for_it(state, &new.public().spki_digest()).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(rotated)
}

/// Until the running agent has the new key.
async fn wait_for_it(state: &Path, key: &Digest) -> Result<(), RotateKeyError> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let held = identity::read_identity(state)?;
        if held.is_some_and(|held| held.next.is_none() && held.key == Some(*key)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(RotateKeyError::Late(PATIENCE.as_secs()))
}

/// Shows a rotation at the joining door; the same one again gets a certificate again.
pub async fn present(
    transport: &Transport,
    identity: &Identity,
    envelope: &Envelope,
) -> Result<String, JoiningError> {
    let request = RotationRequest {
        statement: envelope.clone(),
    };
    let ask = |url, body| transport.renewal(url, body);
    let answer = joining::ask(&identity.join, "/join/v1/rotation", &request, ask).await?;
    Ok(answer.certificate)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::key::Algorithm;

    use super::*;

    #[test]
    fn a_rotation_is_signed_by_both_keys_and_names_the_node_by_its_first() {
        let old = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let new = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let node = NodeId::of(&old.public());
        let envelope = statement(&node, &old, &new).unwrap();
        let keys = [old.public(), new.public()];
        let verified = envelope.verify::<Rotation>(&keys, 2).unwrap();
        assert_eq!(verified.statement().name(), Some(node.as_str()));
        for key in &keys {
            assert!(
                envelope
                    .verify::<Rotation>(std::slice::from_ref(key), 2)
                    .is_err()
            );
        }
    }
}
