//! The names of keys and of nodes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{KeyError, PublicKey};
use crate::digest::Digest;

/// The id of a key in an envelope: a hint, never a proof.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// The id of the key that has this canonical JSON.
    pub(super) fn of_canonical(json: &[u8]) -> Self {
        Self(Digest::of(json).to_string())
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node's id: the first 16 bytes of SHA-256 of the DER SPKI of its first key, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// Hex digits of an id.
    pub const LENGTH: usize = 32;

    /// The id of the node whose first key that is.
    pub fn of(key: &PublicKey) -> Self {
        Self(hex(&key.spki_digest().as_bytes()[..Self::LENGTH / 2]))
    }

    /// The id of the node whose first key has that DER SPKI, as a certificate holds it.
    pub fn of_spki_der(der: &[u8]) -> Self {
        Self(hex(&Digest::of(der).as_bytes()[..Self::LENGTH / 2]))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let is_hex = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != Self::LENGTH || !is_hex {
            return Err(KeyError::Id(text.chars().take(80).collect(), Self::LENGTH));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)])
        .collect()
}
