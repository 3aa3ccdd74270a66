//! DSSE v1.0.2 envelopes: the payload's bytes, kept as they are, and the signatures over them.
//!
//! A `keyid` is only a hint: every given key is tried against every signature, and a key counts once.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{
    STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT,
};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::json::{self, JsonError};
use crate::key::{KeyError, KeyId, PrivateKey, PublicKey};
use crate::statement::{
    Header, MAX_IMAGE_PAYLOAD, PAYLOAD_TYPE, Predicate, Statement, StatementError,
};

/// The most signatures in one envelope: every key is tried on each, so their number is work.
pub const MAX_SIGNATURES: usize = 64;
/// The longest signature that is read; ours are at most 72 bytes, RSA-4096 beside them 512.
const MAX_SIGNATURE: usize = 4096;

/// An envelope whose signatures nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

/// One signature and the hint whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What the signer calls its key; any text, also none.
    pub keyid: String,
    /// The signature's bytes.
    pub sig: Vec<u8>,
}

/// Why a text is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not strict JSON, or not an envelope's.
    #[error("envelope is not readable")]
    Json(#[from] JsonError),
    /// A payload or signature in neither base64 alphabet.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// Too many signatures.
    #[error("{0} signatures, at most {MAX_SIGNATURES} are read")]
    TooManySignatures(usize),
    /// A payload or a signature is too long.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// Why an envelope does not prove its statement.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A threshold of no keys would accept anybody's word.
    #[error("a threshold of 0 proves nothing")]
    ThresholdZero,
    /// Too few of the given keys signed.
    #[error("{valid} of the given keys signed, {threshold} are needed")]
    Signatures {
        /// Given keys that signed, each counted once.
        valid: usize,
        /// How many must have.
        threshold: usize,
    },
    /// Signed well enough, but not the statement asked for.
    #[error("signed payload is refused")]
    Statement(#[from] StatementError),
}

impl Envelope {
    /// An envelope that nobody has signed yet.
    pub fn unsigned(payload: Vec<u8>) -> Self {
        Self {
            payload,
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: Vec::new(),
        }
    }

    /// An envelope with one signature.
    pub fn sign(payload: Vec<u8>, key: &PrivateKey) -> Result<Self, KeyError> {
        let mut envelope = Self::unsigned(payload);
        envelope.add_signature(key)?;
        Ok(envelope)
    }

    /// Adds a signature; one that the same key made before is replaced.
    pub fn add_signature(&mut self, key: &PrivateKey) -> Result<(), KeyError> {
        let sig = key.sign(&self.pae())?;
        let keyid = key.public().keyid().to_string();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(Signature { keyid, sig });
        Ok(())
    }

    /// Reads an envelope from strict JSON.
    pub fn from_json(text: &[u8]) -> Result<Self, EnvelopeError> {
        json::from_slice_strict::<Text>(text)?.try_into()
    }

    /// The envelope as JSON, base64 in the standard alphabet with padding.
    pub fn to_json(&self) -> Vec<u8> {
        // Only a map with keys that are not text can fail here, and there is none.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The bytes that are signed, as they came.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the envelope says its payload is.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// SHA-256 of the payload: the name of a statement everywhere.
    pub fn payload_digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// All signatures, unchecked.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// What is signed: DSSE's pre-authentication encoding of type and payload.
    pub fn pae(&self) -> Vec<u8> {
        let mut pae = Vec::with_capacity(self.payload.len() + self.payload_type.len() + 48);
        pae.extend_from_slice(b"DSSEv1 ");
        pae.extend_from_slice(self.payload_type.len().to_string().as_bytes());
        pae.push(b' ');
        pae.extend_from_slice(self.payload_type.as_bytes());
        pae.push(b' ');
        pae.extend_from_slice(self.payload.len().to_string().as_bytes());
        pae.push(b' ');
        pae.extend_from_slice(&self.payload);
        pae
    }

    /// Reads the statement without checking a signature: for finding out whose it claims to be, and for showing.
    pub fn peek<P: Predicate>(&self) -> Result<Statement<P>, StatementError> {
        self.check_payload_type()?;
        Statement::from_payload(&self.payload)
    }

    /// Reads what every statement has, without checking a signature.
    pub fn peek_header(&self) -> Result<Header, StatementError> {
        self.check_payload_type()?;
        Header::from_payload(&self.payload)
    }

    /// Checks that at least `threshold` of `keys` signed, and that it is a statement, whatever its predicate.
    pub fn check(
        &self,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<(Header, Vec<KeyId>), VerifyError> {
        let signers = self.check_signatures(keys, threshold)?;
        Ok((Header::from_payload(&self.payload)?, signers))
    }

    /// Checks that at least `threshold` of `keys` signed, and reads the statement.
    pub fn verify<P: Predicate>(
        &self,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<VerifiedStatement<P>, VerifyError> {
        let signers = self.check_signatures(keys, threshold)?;
        let statement = Statement::from_payload(&self.payload)?;
        Ok(VerifiedStatement {
            statement,
            payload_digest: self.payload_digest(),
            signers,
            envelope: self.clone(),
        })
    }

    fn check_signatures(
        &self,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<Vec<KeyId>, VerifyError> {
        if threshold == 0 {
            return Err(VerifyError::ThresholdZero);
        }
        self.check_payload_type()?;
        let pae = self.pae();
        let distinct: BTreeSet<&PublicKey> = keys.iter().collect();
        let signed = |key: &&PublicKey| {
            self.signatures
                .iter()
                .any(|signature| key.verify(&pae, &signature.sig))
        };
        let signers: Vec<KeyId> = distinct
            .into_iter()
            .filter(signed)
            .map(PublicKey::keyid)
            .collect();
        if signers.len() < threshold {
            return Err(VerifyError::Signatures {
                valid: signers.len(),
                threshold,
            });
        }
        Ok(signers)
    }

    fn check_payload_type(&self) -> Result<(), StatementError> {
        if self.payload_type == PAYLOAD_TYPE {
            Ok(())
        } else {
            Err(StatementError::PayloadType(
                self.payload_type.chars().take(200).collect(),
            ))
        }
    }
}

/// A statement that enough of the right keys signed. Only [`Envelope::verify`] makes one, so nothing else can be appraised.
#[derive(Clone, Debug)]
pub struct VerifiedStatement<P> {
    statement: Statement<P>,
    payload_digest: Digest,
    signers: Vec<KeyId>,
    envelope: Envelope,
}

impl<P> VerifiedStatement<P> {
    /// The statement.
    pub fn statement(&self) -> &Statement<P> {
        &self.statement
    }

    /// What it says.
    pub fn predicate(&self) -> &P {
        &self.statement.predicate
    }

    /// SHA-256 of the payload.
    pub fn payload_digest(&self) -> Digest {
        self.payload_digest
    }

    /// The given keys that signed, each once.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// The envelope that proves it, to be kept.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }
}

/// An envelope as JSON has it.
#[derive(Serialize, Deserialize)]
struct Text {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<SignatureText>,
}

#[derive(Serialize, Deserialize)]
struct SignatureText {
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

impl TryFrom<Text> for Envelope {
    type Error = EnvelopeError;

    fn try_from(text: Text) -> Result<Self, EnvelopeError> {
        if text.signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures(text.signatures.len()));
        }
        let read = |signature: SignatureText| {
            let sig = decode_base64(&signature.sig, "signature", MAX_SIGNATURE)?;
            Ok(Signature {
                keyid: signature.keyid.unwrap_or_default(),
                sig,
            })
        };
        Ok(Self {
            payload: decode_base64(&text.payload, "payload", MAX_IMAGE_PAYLOAD)?,
            payload_type: text.payload_type,
            signatures: text
                .signatures
                .into_iter()
                .map(read)
                .collect::<Result<_, EnvelopeError>>()?,
        })
    }
}

impl From<Envelope> for Text {
    fn from(envelope: Envelope) -> Self {
        let write = |signature: Signature| SignatureText {
            keyid: Some(signature.keyid),
            sig: STANDARD.encode(signature.sig),
        };
        Self {
            payload: STANDARD.encode(&envelope.payload),
            payload_type: envelope.payload_type,
            signatures: envelope.signatures.into_iter().map(write).collect(),
        }
    }
}

/// Either alphabet, with padding or without; never both alphabets in one text.
fn decode_base64(text: &str, what: &'static str, limit: usize) -> Result<Vec<u8>, EnvelopeError> {
    if text.len() / 4 > limit / 3 + 1 {
        return Err(EnvelopeError::TooLong(what));
    }
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE_PAD_INDIFFERENT
    } else {
        &STANDARD_PAD_INDIFFERENT
    };
    engine.decode(text).map_err(|_| EnvelopeError::Base64(what))
}
