//! Who this node is: its key, its certificate, and the collector's keys that it was given when it joined.
//!
//! Bound to the machine: where both sides know a product UUID and they differ, this is a copy of another machine's disk.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::{Algorithm, KeyError, NodeId, PrivateKey};
use attestation::time::Timestamp;
use attestation::wire::{CollectorKeys, EnrolmentAnswer, PublisherKeys};
use serde::{Deserialize, Serialize};

use crate::durable;

const KEY_FILE: &str = "node.key";
const NEXT_KEY_FILE: &str = "node.key.next";
const IDENTITY_FILE: &str = "identity.json";

/// Everything that enrolment gave the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id; it never changes.
    pub node: NodeId,
    /// Its name among people.
    pub name: String,
    /// Client certificate, PEM.
    pub certificate: String,
    /// The CA of the agents' door, PEM.
    pub ca: String,
    /// The agents' doors.
    pub agents: Vec<String>,
    /// The joining doors, for renewals.
    #[serde(default)]
    pub join: Vec<String>,
    /// Origin of the collector's log.
    pub log: String,
    /// Who signs images, as pinned at enrolment.
    pub publishers: Vec<PublisherKeys>,
    /// What the collector signs with.
    pub keys: CollectorKeys,
    /// Seconds between heartbeats.
    pub interval: u64,
    /// The machine that enrolled, where it says which it is.
    #[serde(default)]
    pub machine: Option<String>,
    /// SHA-256 of the SPKI of the key in use; absent while it is the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// The key that is about to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextKey>,
    /// The newest rotations, oldest first: a collector that was restored is shown them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Envelope>,
    /// The newest time in a receipt, kept once an hour: no certificate that was over then is believed, whatever the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
}

/// A key that the collector has taken, and its certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NextKey {
    /// SHA-256 of its SPKI.
    pub key: Digest,
    /// Client certificate, PEM.
    pub certificate: String,
}

impl Identity {
    /// Whether a key is the one in use.
    fn is_of(&self, key: &PrivateKey) -> bool {
        match &self.key {
            None => NodeId::of(&key.public()) == self.node,
            Some(digest) => key.public().spki_digest() == *digest,
        }
    }

    /// The next key is the one in use from now on.
    pub fn take_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.key = Some(next.key);
            self.certificate = next.certificate;
        }
    }
}

/// An identity and the key that speaks for it.
#[derive(Debug)]
pub struct Held {
    /// What enrolment gave.
    pub identity: Identity,
    /// Signs statements and TLS handshakes.
    pub key: PrivateKey,
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory cannot be made or read.
    #[error("use the state directory {path}", path = path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it cannot be read or written.
    #[error("read or write {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file can be read by others.
    #[error("read {path}: group or others may read this key (mode {mode:04o}); chmod 600 {path}", path = path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file is no key.
    #[error("read the key {path}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The identity file is not one of ours.
    #[error("read {path}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Key and identity belong to different nodes.
    #[error("{state}: the key is not the one of node {node}; restore both from one copy, or enrol anew", state = state.display())]
    Mismatch {
        /// The state directory.
        state: PathBuf,
        /// The node that the identity is of.
        node: NodeId,
    },
    /// The node has not joined yet.
    #[error("{state}: this node has not joined a collector; run `pristine-agent enroll --token TOKEN`", state = state.display())]
    NotEnrolled {
        /// The state directory.
        state: PathBuf,
    },
    /// The state was copied from another machine.
    #[error("{state}: this machine ({now}) is not the one that enrolled ({then}); key and spool were set aside: enrol anew", state = state.display())]
    OtherMachine {
        /// The state directory.
        state: PathBuf,
        /// This machine.
        now: String,
        /// The one that enrolled.
        then: String,
        /// What it was, to enrol anew at the same collector.
        before: Box<Identity>,
    },
}

/// Makes the state directory if need be; only its owner may enter it.
pub fn prepare(state: &Path) -> Result<(), IdentityError> {
    durable::private_directory(state).map_err(|source| IdentityError::State {
        path: state.to_owned(),
        source,
    })
}

/// The identity of a node that has joined; an identity of another machine is set aside.
pub fn load(state: &Path) -> Result<Held, IdentityError> {
    load_on(state, machine())
}

/// The same on a machine that is named.
pub fn load_on(state: &Path, machine: Option<String>) -> Result<Held, IdentityError> {
    let found = look_on(state, machine);
    if let Err(IdentityError::OtherMachine { .. }) = &found {
        set_aside(state, crate::clock::now())?;
    }
    found
}

/// The same as [`load`], and nothing is changed.
pub fn look(state: &Path) -> Result<Held, IdentityError> {
    look_on(state, machine())
}

fn look_on(state: &Path, machine: Option<String>) -> Result<Held, IdentityError> {
    let not_enrolled = || IdentityError::NotEnrolled {
        state: state.to_owned(),
    };
    let mut identity = read_identity(state)?.ok_or_else(not_enrolled)?;
    let key = read_key(state, KEY_FILE)?.ok_or_else(not_enrolled)?;
    let digest = key.public().spki_digest();
    if identity
        .next
        .as_ref()
        .is_some_and(|next| next.key == digest)
    {
        identity.take_next();
    }
    if !identity.is_of(&key) {
        return Err(IdentityError::Mismatch {
            state: state.to_owned(),
            node: identity.node,
        });
    }
    if let (Some(then), Some(now)) = (identity.machine.clone(), machine)
        && then != now
    {
        return Err(IdentityError::OtherMachine {
            state: state.to_owned(),
            now,
            then,
            before: Box::new(identity),
        });
    }
    Ok(Held { identity, key })
}

/// The node's key, made and synced if there is none: before anybody is asked, so that asking again is the same question.
pub fn key(state: &Path) -> Result<PrivateKey, IdentityError> {
    made_once(state, KEY_FILE)
}

/// The key that the node is to take, made and synced if there is none.
pub fn make_next_key(state: &Path) -> Result<PrivateKey, IdentityError> {
    made_once(state, NEXT_KEY_FILE)
}

/// The key that the node is to take, where somebody wants it to.
pub fn next_key(state: &Path) -> Result<Option<PrivateKey>, IdentityError> {
    read_key(state, NEXT_KEY_FILE)
}

/// The next key takes the place of the one in use, which is gone.
pub fn use_next_key(state: &Path) -> Result<(), IdentityError> {
    let path = state.join(NEXT_KEY_FILE);
    std::fs::rename(&path, state.join(KEY_FILE))
        .and_then(|()| durable::sync_directory(state))
        .map_err(|source| IdentityError::File { path, source })
}

fn made_once(state: &Path, name: &str) -> Result<PrivateKey, IdentityError> {
    if let Some(key) = read_key(state, name)? {
        return Ok(key);
    }
    let path = state.join(name);
    let failed = |source| IdentityError::Key {
        path: path.clone(),
        source,
    };
    let key = PrivateKey::generate(Algorithm::Ed25519).map_err(failed)?;
    durable::replace(&path, key.to_pem().as_bytes()).map_err(|source| IdentityError::File {
        path: path.clone(),
        source,
    })?;
    Ok(key)
}

/// Keeps what the collector answered.
pub fn keep(
    state: &Path,
    name: &str,
    join: Vec<String>,
    machine: Option<String>,
    answer: EnrolmentAnswer,
) -> Result<Identity, IdentityError> {
    let identity = Identity {
        node: answer.node,
        name: name.to_owned(),
        certificate: answer.certificate,
        ca: answer.ca,
        agents: answer.agents,
        join,
        log: answer.log,
        publishers: answer.publishers,
        keys: answer.keys,
        interval: answer.interval,
        machine,
        key: None,
        next: None,
        rotations: Vec::new(),
        heard: None,
    };
    write_identity(state, &identity)?;
    Ok(identity)
}

/// Replaces the identity file.
pub fn write_identity(state: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let path = state.join(IDENTITY_FILE);
    let bytes = serde_json::to_vec_pretty(identity).map_err(|source| IdentityError::Content {
        path: path.clone(),
        source,
    })?;
    durable::replace(&path, &bytes).map_err(|source| IdentityError::File { path, source })
}

/// The identity as kept, whosever machine it is of.
pub fn read_identity(state: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = state.join(IDENTITY_FILE);
    let bytes = durable::read_if_present(&path).map_err(|source| IdentityError::File {
        path: path.clone(),
        source,
    })?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|source| IdentityError::Content { path, source })
}

/// Moves key, identity, images and spool into a directory named by the time: nothing of them is used again, or lost.
pub fn set_aside(state: &Path, now: Timestamp) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::State {
        path: state.to_owned(),
        source,
    };
    let aside = state.join(format!("aside-{}", now.as_micros()));
    durable::private_directory(&aside).map_err(failed)?;
    for name in [
        IDENTITY_FILE,
        KEY_FILE,
        NEXT_KEY_FILE,
        "spool",
        "assignment.json",
    ] {
        match std::fs::rename(state.join(name), aside.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    durable::sync_directory(state).map_err(failed)?;
    tracing::error!(aside = %aside.display(), "identity and spool set aside");
    Ok(())
}

/// The machine, as its firmware names it; nothing where that cannot be read or is a placeholder.
pub fn machine() -> Option<String> {
    let text = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
    let uuid = text.trim().to_ascii_lowercase();
    let digits: Vec<u8> = uuid.bytes().filter(|byte| *byte != b'-').collect();
    let placeholder = digits
        .first()
        .is_none_or(|first| digits.iter().all(|digit| digit == first));
    (!placeholder && uuid.len() <= 64).then_some(uuid)
}

fn read_key(state: &Path, name: &str) -> Result<Option<PrivateKey>, IdentityError> {
    let path = state.join(name);
    let failed = |source| IdentityError::File {
        path: path.clone(),
        source,
    };
    let Some(bytes) = durable::read_if_present(&path).map_err(failed)? else {
        return Ok(None);
    };
    let bytes = zeroize::Zeroizing::new(bytes);
    let mode = std::fs::metadata(&path)
        .map_err(failed)?
        .permissions()
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyMode { path, mode });
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    PrivateKey::from_pem(text)
        .map(Some)
        .map_err(|source| IdentityError::Key { path, source })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let scratch = tempfile::tempdir().unwrap();
        let first = key(scratch.path()).unwrap();
        let second = key(scratch.path()).unwrap();
        assert_eq!(first.public(), second.public());
        let path = scratch.path().join(KEY_FILE);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            key(scratch.path()),
            Err(IdentityError::KeyMode { mode: 0o640, .. })
        ));
    }

    #[test]
    fn without_an_identity_the_node_has_not_joined() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(scratch.path()),
            Err(IdentityError::NotEnrolled { .. })
        ));
        key(scratch.path()).unwrap();
        assert!(matches!(
            load(scratch.path()),
            Err(IdentityError::NotEnrolled { .. })
        ));
    }

    #[test]
    fn what_is_set_aside_is_kept_but_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let before = key(scratch.path()).unwrap();
        set_aside(scratch.path(), Timestamp::from_micros(7)).unwrap();
        let after = key(scratch.path()).unwrap();
        assert_ne!(before.public(), after.public());
        assert!(scratch.path().join("aside-7").join(KEY_FILE).exists());
    }
}
