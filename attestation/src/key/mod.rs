//! Keys that sign statements: Ed25519, and ECDSA on P-256 where a TPM or a publisher has one already.
//!
//! Public keys are SPKI PEM, private ones PKCS#8 PEM; both are read in one form only, so that a key has one id.

mod id;
mod pem;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use self::id::hex;
pub use self::id::{KeyId, NodeId};
use self::pem::{decode_pem, encode_pem};
use crate::digest::Digest;

/// SPKI of an Ed25519 key (RFC 8410), before its 32 bytes.
const ED25519_SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// PKCS#8 v1 of an Ed25519 key (RFC 8410), before its 32 bytes: the form that every OpenSSL reads.
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// SPKI of a P-256 key with its named curve (RFC 5480), before the uncompressed point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const PUBLIC_LABEL: &str = "PUBLIC KEY";
const PRIVATE_LABEL: &str = "PRIVATE KEY";

/// What could not be done with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not one PEM block.
    #[error("not one PEM block: {0}")]
    Pem(&'static str),
    /// The PEM block is of another kind.
    #[error("PEM block is {found:?}, wanted {wanted:?}")]
    Label {
        /// The label asked for.
        wanted: &'static str,
        /// The label found.
        found: String,
    },
    /// Not a key of a kind that we use, or not in its one form.
    #[error("not an Ed25519 key, nor one on P-256 with its uncompressed point")]
    Unsupported,
    /// The bytes name a key type of ours but are no key of it.
    #[error("not a point of the curve that the key names")]
    NotAPoint,
    /// A private key that the signature library refuses.
    #[error("private key refused: {0}")]
    Rejected(String),
    /// The system gave no random bytes.
    #[error("no random bytes from the system")]
    Random,
    /// The signature library refused to sign.
    #[error("signing failed")]
    Sign,
    /// Not the text of an id.
    #[error("{0:?} is not {1} lower-case hex digits")]
    Id(String, usize),
}

/// The two algorithms that statements are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Ours, and the default.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, signatures in DER.
    P256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
        })
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text {
            "ed25519" => Ok(Self::Ed25519),
            "p256" => Ok(Self::P256),
            _ => Err(KeyError::Unsupported),
        }
    }
}

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PublicKey {
    /// The 32 bytes of an Ed25519 key.
    Ed25519([u8; 32]),
    /// The uncompressed point, `04 X Y`, of a P-256 key.
    P256([u8; 65]),
}

impl PublicKey {
    /// Reads one SPKI PEM block.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_spki_der(&decode_pem(pem, PUBLIC_LABEL)?)
    }

    /// Reads a DER SPKI, in the one form that each key has.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(raw) = der.strip_prefix(&ED25519_SPKI) {
            return raw
                .try_into()
                .map(Self::Ed25519)
                .map_err(|_| KeyError::Unsupported);
        }
        let point = der.strip_prefix(&P256_SPKI).ok_or(KeyError::Unsupported)?;
        let point: [u8; 65] = point.try_into().map_err(|_| KeyError::Unsupported)?;
        if point[0] != 0x04 {
            return Err(KeyError::Unsupported);
        }
        check_on_curve(&point)?;
        Ok(Self::P256(point))
    }

    /// The SPKI PEM block, with its last newline.
    pub fn to_pem(&self) -> String {
        encode_pem(&self.spki_der(), PUBLIC_LABEL)
    }

    /// The DER SPKI.
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(raw) => [ED25519_SPKI.as_slice(), raw].concat(),
            Self::P256(point) => [P256_SPKI.as_slice(), point].concat(),
        }
    }

    /// SHA-256 of the DER SPKI; a node's id is its first half.
    pub fn spki_digest(&self) -> Digest {
        Digest::of(&self.spki_der())
    }

    /// Which algorithm it is for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::P256(_) => Algorithm::P256,
        }
    }

    /// The id of the TUF convention: SHA-256 of the key's canonical JSON, as securesystemslib writes it (newlines raw).
    pub fn keyid(&self) -> KeyId {
        let (keytype, public, scheme) = match self {
            Self::Ed25519(raw) => ("ed25519", hex(raw), "ed25519"),
            Self::P256(_) => ("ecdsa", self.to_pem(), "ecdsa-sha2-nistp256"),
        };
        let canonical = format!(
            r#"{{"keytype":"{keytype}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}"#
        );
        KeyId::of_canonical(canonical.as_bytes())
    }

    /// Whether `signature` over `message` is this key's.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(raw) => UnparsedPublicKey::new(&ED25519, raw)
                .verify(message, signature)
                .is_ok(),
            Self::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm(), self.keyid())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_pem())
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pem = String::deserialize(deserializer)?;
        Self::from_pem(&pem).map_err(serde::de::Error::custom)
    }
}

/// A key that signs. Its bytes are wiped when the last clone is dropped.
#[derive(Clone)]
pub struct PrivateKey {
    pair: Arc<Pair>,
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl PrivateKey {
    /// A new key from the system's random bytes.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = match algorithm {
            Algorithm::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                random
                    .fill(seed.as_mut_slice())
                    .map_err(|_| KeyError::Random)?;
                [ED25519_PKCS8.as_slice(), seed.as_slice()].concat()
            }
            Algorithm::P256 => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                    .map_err(|_| KeyError::Random)?
                    .as_ref()
                    .to_vec()
            }
        };
        Self::from_pkcs8_der(pkcs8)
    }

    /// Reads one PKCS#8 PEM block. Who may read the file is the caller's business.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8_der(decode_pem(pem, PRIVATE_LABEL)?)
    }

    /// Reads a PKCS#8 DER key of either algorithm, with or without its public part for Ed25519.
    pub fn from_pkcs8_der(der: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(der.into());
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8) {
            let raw = pair
                .public_key()
                .as_ref()
                .try_into()
                .map_err(|_| KeyError::Unsupported)?;
            return Ok(Self::new(
                Pair::Ed25519(pair),
                pkcs8,
                PublicKey::Ed25519(raw),
            ));
        }
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &pkcs8,
            &SystemRandom::new(),
        )
        .map_err(|refused| KeyError::Rejected(refused.to_string()))?;
        let point = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Unsupported)?;
        Ok(Self::new(Pair::P256(pair), pkcs8, PublicKey::P256(point)))
    }

    fn new(pair: Pair, pkcs8: Zeroizing<Vec<u8>>, public: PublicKey) -> Self {
        Self {
            pair: Arc::new(pair),
            pkcs8: Arc::new(pkcs8),
            public,
        }
    }

    /// The PKCS#8 PEM block, with its last newline.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_pem(&self.pkcs8, PRIVATE_LABEL))
    }

    /// The PKCS#8 DER key.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key that checks this one's signatures.
    pub fn public(&self) -> PublicKey {
        self.public.clone()
    }

    /// Which algorithm it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// Signs: 64 bytes for Ed25519, DER for P-256.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.pair.as_ref() {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => {
                let signature = pair
                    .sign(&SystemRandom::new(), message)
                    .map_err(|_| KeyError::Sign)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PrivateKey({} {})",
            self.algorithm(),
            self.public.keyid()
        )
    }
}

/// ring parses a point when it is used: a key agreement is the use that fails for nothing but a bad point.
fn check_on_curve(point: &[u8; 65]) -> Result<(), KeyError> {
    use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())
        .map_err(|_| KeyError::Random)?;
    agree_ephemeral(ours, &UnparsedPublicKey::new(&ECDH_P256, point), |_| ())
        .map_err(|_| KeyError::NotAPoint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::pem::MAX_PEM;
    use super::*;

    const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAQ2anpJUNLG1Zg3tL0D5hcN+x+/inVr6gSLDCFlpNyr0=\n\
        -----END PUBLIC KEY-----\n";
    const P256_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFFtA4ucJ5tthFJ5sz/Oaa/3WgFzR\n\
        krWuK3V7t8i3zK8sQdI+rOQj3MZnegUT0e03t3DUAlQa8PG4T+qFX77JfA==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn keyids_are_those_of_the_tuf_convention() {
        let ed25519 = PublicKey::from_pem(ED25519_PEM).unwrap();
        assert_eq!(
            ed25519.keyid().as_str(),
            "25efdb5c6fd03adb2b0f444fc7db734cd646d95e937a22b06cc5aa6745103803"
        );
        let p256 = PublicKey::from_pem(P256_PEM).unwrap();
        assert_eq!(
            p256.keyid().as_str(),
            "be1a1e7a59588fd5d7d8fe99e69b9556e585112806d8b351322d0c6e8e23348c"
        );
    }

    #[test]
    fn a_key_has_one_pem_however_it_was_wrapped() {
        for pem in [ED25519_PEM, P256_PEM] {
            let key = PublicKey::from_pem(pem).unwrap();
            assert_eq!(key.to_pem(), pem);
            let windows = pem.replace('\n', "\r\n");
            assert_eq!(PublicKey::from_pem(&windows).unwrap().keyid(), key.keyid());
            let without_end = pem.trim_end();
            assert_eq!(PublicKey::from_pem(without_end).unwrap(), key);
            let json = serde_json::to_string(&key).unwrap();
            assert_eq!(serde_json::from_str::<PublicKey>(&json).unwrap(), key);
        }
    }

    #[test]
    fn a_public_key_that_is_not_in_its_one_form_is_refused() {
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let body = "MCowBQYDK2VwAyEAQ2anpJUNLG1Zg3tL0D5hcN+x+/inVr6gSLDCFlpNyr0=";
        let url_safe = body.replace('+', "-").replace('/', "_");
        for bad in [
            String::new(),
            body.to_owned(),
            format!("note\n{ED25519_PEM}"),
            format!("{ED25519_PEM}{P256_PEM}"),
            block("PRIVATE KEY", body),
            block("CERTIFICATE", body),
            block("PUBLIC KEY", &url_safe),
            block("PUBLIC KEY", body.trim_end_matches('=')),
            block("PUBLIC KEY", ""),
            ED25519_PEM.replace("END PUBLIC", "END PRIVATE"),
            ED25519_PEM.replace("-----END PUBLIC KEY-----\n", ""),
            "A".repeat(MAX_PEM + 1),
        ] {
            assert!(PublicKey::from_pem(&bad).is_err(), "{bad}");
        }
        for good in [ED25519_PEM, P256_PEM] {
            let der = PublicKey::from_pem(good).unwrap().spki_der();
            assert!(PublicKey::from_spki_der(&der[..der.len() - 1]).is_err());
            assert!(PublicKey::from_spki_der(&[der.as_slice(), &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_point_beside_the_curve_is_refused() {
        let mut der = PublicKey::from_pem(P256_PEM).unwrap().spki_der();
        *der.last_mut().unwrap() ^= 1;
        assert!(matches!(
            PublicKey::from_spki_der(&der),
            Err(KeyError::NotAPoint)
        ));
        let mut compressed = PublicKey::from_pem(P256_PEM).unwrap().spki_der();
        compressed[P256_SPKI.len()] = 0x02;
        assert!(matches!(
            PublicKey::from_spki_der(&compressed),
            Err(KeyError::Unsupported)
        ));
    }

    #[test]
    fn a_private_key_comes_back_from_its_pem_and_signs_alike() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.public(), key.public());
            let signature = again.sign(b"message").unwrap();
            assert!(key.public().verify(b"message", &signature));
            assert!(!key.public().verify(b"massage", &signature));
            assert!(!key.public().verify(b"message", &signature[1..]));
            assert!(!key.public().verify(b"message", &[]));
            let other = PrivateKey::generate(algorithm).unwrap();
            assert!(!other.public().verify(b"message", &signature));
            assert!(PrivateKey::from_pem(&key.public().to_pem()).is_err());
            assert!(PrivateKey::from_pkcs8_der(&key.pkcs8_der()[1..]).is_err());
        }
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("PrivateKey(ed25519 {})", key.public().keyid())
        );
    }

    #[test]
    fn a_node_is_named_by_half_the_digest_of_its_key() {
        let key = PublicKey::from_pem(ED25519_PEM).unwrap();
        let id = NodeId::of(&key);
        assert_eq!(id.as_str(), &Digest::of(&key.spki_der()).to_string()[..32]);
        assert_eq!(NodeId::of_spki_der(&key.spki_der()), id);
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        for bad in [
            &id.as_str()[1..],
            &id.as_str().to_uppercase(),
            "",
            &"g".repeat(32),
            &format!("{id}0"),
        ] {
            assert!(
                bad.parse::<NodeId>().is_err() || *bad == *id.as_str(),
                "{bad}"
            );
        }
        assert!(serde_json::from_str::<NodeId>("\"no\"").is_err());
    }
}
