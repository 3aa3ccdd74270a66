//! The collector's own signing keys: one for each role, so that a receipt's key can never sign an assignment.

use std::path::{Path, PathBuf};

use attestation::key::{Algorithm, KeyError, PrivateKey};

use crate::files::{self, FileError};

/// Why the keys are not there.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read, written or trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it is no key.
    #[error("{} is no private key", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// No key could be made.
    #[error("cannot make a key")]
    Make {
        /// Why not.
        #[source]
        source: KeyError,
    },
}

/// One key for each kind of statement that the collector signs.
pub struct CollectorKeys {
    /// Signs receipts.
    pub receipt: PrivateKey,
    /// Signs assignments.
    pub assignment: PrivateKey,
    /// Signs verdicts.
    pub verdict: PrivateKey,
}

impl CollectorKeys {
    /// Reads the keys below a state directory.
    pub fn load(state: &Path) -> Result<Self, KeysError> {
        Ok(Self {
            receipt: load(state, "receipt")?,
            assignment: load(state, "assignment")?,
            verdict: load(state, "verdict")?,
        })
    }

    /// Makes the keys below a state directory.
    pub fn create(state: &Path) -> Result<Self, KeysError> {
        Ok(Self {
            receipt: create(state, "receipt")?,
            assignment: create(state, "assignment")?,
            verdict: create(state, "verdict")?,
        })
    }
}

/// Where the keys lie.
pub fn directory(state: &Path) -> PathBuf {
    state.join("keys")
}

fn file(state: &Path, role: &str) -> PathBuf {
    directory(state).join(format!("{role}.key"))
}

fn load(state: &Path, role: &str) -> Result<PrivateKey, KeysError> {
    let path = file(state, role);
    let pem = zeroize::Zeroizing::new(files::read_secret(&path)?);
    PrivateKey::from_pem(&pem).map_err(|source| KeysError::Parse { path, source })
}

fn create(state: &Path, role: &str) -> Result<PrivateKey, KeysError> {
    let key =
        PrivateKey::generate(Algorithm::Ed25519).map_err(|source| KeysError::Make { source })?;
    files::write_new(&file(state, role), key.to_pem().as_bytes(), 0o600)?;
    files::write_new(
        &directory(state).join(format!("{role}.pub")),
        key.public().to_pem().as_bytes(),
        0o644,
    )?;
    Ok(key)
}
