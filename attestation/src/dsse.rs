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

    /// An envelope of parts that came some other way than as JSON; the same limits hold.
    pub fn from_parts(
        payload: Vec<u8>,
        payload_type: String,
        signatures: Vec<Signature>,
    ) -> Result<Self, EnvelopeError> {
        if signatures.len() > MAX_SIGNATURES {
            return Err(EnvelopeError::TooManySignatures(signatures.len()));
        }
        if payload.len() > MAX_IMAGE_PAYLOAD {
            return Err(EnvelopeError::TooLong("payload"));
        }
        if signatures.iter().any(|one| one.sig.len() > MAX_SIGNATURE) {
            return Err(EnvelopeError::TooLong("signature"));
        }
        Ok(Self {
            payload,
            payload_type,
            signatures,
        })
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::key::Algorithm;
    use crate::statement::{Assignment, Renewal, Subject};

    fn key() -> PrivateKey {
        PrivateKey::generate(Algorithm::Ed25519).unwrap()
    }

    fn statement() -> Statement<Renewal> {
        let subject = Subject::of_bytes("node", &Digest::of(b"key"));
        Statement::about(
            subject,
            Renewal {
                csr: "request".to_owned(),
            },
        )
    }

    /// A payload that is right but for what `change` does to it.
    fn payload(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(&statement().to_payload()).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    fn verifies(payload: Vec<u8>) -> bool {
        let key = key();
        let envelope = Envelope::sign(payload, &key).unwrap();
        envelope.verify::<Renewal>(&[key.public()], 1).is_ok()
    }

    #[test]
    fn what_is_signed_is_the_encoding_of_the_specification() {
        let envelope = Envelope {
            payload: b"hello world".to_vec(),
            payload_type: "http://example.com/HelloWorld".to_owned(),
            signatures: vec![],
        };
        assert_eq!(
            envelope.pae(),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn a_signed_statement_comes_back_with_its_signers_and_its_bytes() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let payload = statement().to_payload();
            let envelope = Envelope::sign(payload.clone(), &key).unwrap();
            let read = Envelope::from_json(&envelope.to_json()).unwrap();
            assert_eq!(read, envelope);
            let verified = read.verify::<Renewal>(&[key.public()], 1).unwrap();
            assert_eq!(verified.statement(), &statement());
            assert_eq!(verified.signers(), [key.public().keyid()]);
            assert_eq!(verified.payload_digest(), Digest::of(&payload));
            assert_eq!(verified.envelope().payload(), payload);
            let (header, signers) = read.check(&[key.public()], 1).unwrap();
            assert_eq!(header.predicate_type, "https://pristine.dev/renewal/v1");
            assert_eq!(signers.len(), 1);
        }
    }

    #[test]
    fn a_keyid_is_only_a_hint() {
        let (a, b) = (key(), key());
        let mut envelope = Envelope::sign(statement().to_payload(), &a).unwrap();
        for hint in ["", "anything", b.public().keyid().as_str()] {
            envelope.signatures[0].keyid = hint.to_owned();
            assert!(
                envelope
                    .verify::<Renewal>(&[b.public(), a.public()], 1)
                    .is_ok(),
                "{hint}"
            );
            assert!(
                envelope.verify::<Renewal>(&[b.public()], 1).is_err(),
                "{hint}"
            );
        }
    }

    #[test]
    fn a_key_counts_once_however_often_it_signed_or_was_given() {
        let (a, b) = (key(), PrivateKey::generate(Algorithm::P256).unwrap());
        let mut envelope = Envelope::sign(statement().to_payload(), &a).unwrap();
        let again = Signature {
            keyid: "other".to_owned(),
            sig: envelope.signatures[0].sig.clone(),
        };
        envelope.signatures.push(again);
        let twice = [a.public(), a.public(), b.public()];
        assert!(matches!(
            envelope.verify::<Renewal>(&twice, 2),
            Err(VerifyError::Signatures {
                valid: 1,
                threshold: 2
            })
        ));
        // ECDSA signs the same message differently each time.
        envelope.add_signature(&b).unwrap();
        let pae = envelope.pae();
        envelope.signatures.push(Signature {
            keyid: "third".to_owned(),
            sig: b.sign(&pae).unwrap(),
        });
        assert!(envelope.verify::<Renewal>(&twice, 3).is_err());
        let verified = envelope.verify::<Renewal>(&twice, 2).unwrap();
        assert_eq!(verified.signers().len(), 2);
    }

    #[test]
    fn signing_again_replaces_the_first_signature() {
        let key = key();
        let mut envelope = Envelope::sign(statement().to_payload(), &key).unwrap();
        envelope.add_signature(&key).unwrap();
        assert_eq!(envelope.signatures().len(), 1);
    }

    #[test]
    fn no_threshold_no_keys_and_no_signatures_prove_nothing() {
        let key = key();
        let envelope = Envelope::sign(statement().to_payload(), &key).unwrap();
        assert!(matches!(
            envelope.verify::<Renewal>(&[key.public()], 0),
            Err(VerifyError::ThresholdZero)
        ));
        assert!(envelope.verify::<Renewal>(&[], 1).is_err());
        assert!(matches!(
            envelope.verify::<Renewal>(&[], 0),
            Err(VerifyError::ThresholdZero)
        ));
        let unsigned = Envelope::unsigned(statement().to_payload());
        assert!(unsigned.verify::<Renewal>(&[key.public()], 1).is_err());
        assert_eq!(
            unsigned.peek::<Renewal>().unwrap(),
            statement(),
            "to be shown, not believed"
        );
        assert_eq!(Envelope::from_json(&unsigned.to_json()).unwrap(), unsigned);
    }

    #[test]
    fn only_the_payload_type_of_in_toto_is_taken() {
        let key = key();
        let other = [
            "application/json",
            "application/vnd.in-toto+json ",
            "APPLICATION/VND.IN-TOTO+JSON",
            "",
        ];
        for payload_type in other {
            let mut envelope = Envelope::unsigned(statement().to_payload());
            envelope.payload_type = payload_type.to_owned();
            envelope.add_signature(&key).unwrap();
            let refused = envelope.verify::<Renewal>(&[key.public()], 1);
            assert!(
                matches!(
                    refused,
                    Err(VerifyError::Statement(StatementError::PayloadType(_)))
                ),
                "{payload_type}"
            );
            assert!(envelope.peek::<Renewal>().is_err());
        }
    }

    #[test]
    fn only_the_statement_asked_for_is_taken() {
        assert!(verifies(payload(|_| {})));
        assert!(
            verifies(payload(|value| value["unknown"] = json!({"x": [1, 2.5]}))),
            "unknown members are ignored"
        );
        assert!(verifies(payload(
            |value| value["predicate"]["unknown"] = json!(1)
        )));
        assert!(verifies(payload(
            |value| value["subject"][0]["unknown"] = json!(1)
        )));
        let other_type =
            |value: &mut Value| value["_type"] = json!("https://in-toto.io/Statement/v0.1");
        assert!(!verifies(payload(other_type)));
        let other_predicate =
            |value: &mut Value| value["predicateType"] = json!("https://pristine.dev/image/v1");
        assert!(!verifies(payload(other_predicate)));
        assert!(!verifies(payload(
            |value| value["predicateType"] = json!("https://pristine.dev/renewal/v2")
        )));
        assert!(!verifies(payload(|value| value["subject"] = json!([]))));
        assert!(!verifies(payload(|value| value["predicate"] = json!({}))));
        assert!(!verifies(payload(
            |value| value["unknown"] = json!(9_007_199_254_740_992_u64)
        )));
        assert!(!verifies(b"{}".to_vec()));
        assert!(!verifies(Vec::new()));
    }

    #[test]
    fn a_member_named_twice_in_a_payload_is_refused() {
        let text = String::from_utf8(statement().to_payload()).unwrap();
        assert!(!verifies(
            text.replace("\"csr\":", "\"csr\":\"x\",\"csr\":")
                .into_bytes()
        ));
        assert!(!verifies(
            text.replace("\"subject\":", "\"x\":1,\"x\":1,\"subject\":")
                .into_bytes()
        ));
        assert!(!verifies(
            text.replace("\"_type\":", "\"\\u005ftype\":\"\",\"_type\":")
                .into_bytes()
        ));
        assert!(!verifies(format!("{text} x").into_bytes()));
        assert!(!verifies(format!("\u{feff}{text}").into_bytes()));
    }

    #[test]
    fn another_role_is_named_as_such() {
        let key = key();
        let envelope = Envelope::sign(statement().to_payload(), &key).unwrap();
        let refused = envelope.verify::<Assignment>(&[key.public()], 1);
        assert!(matches!(
            refused,
            Err(VerifyError::Statement(StatementError::PredicateType { .. }))
        ));
    }

    #[test]
    fn a_payload_above_its_limit_is_refused() {
        let long = payload(|value| value["predicate"]["csr"] = json!("x".repeat(1 << 20)));
        let key = key();
        let envelope = Envelope::sign(long, &key).unwrap();
        let read = Envelope::from_json(&envelope.to_json()).unwrap();
        let refused = read.verify::<Renewal>(&[key.public()], 1);
        assert!(matches!(
            refused,
            Err(VerifyError::Statement(StatementError::TooLong { .. }))
        ));
    }

    #[test]
    fn both_alphabets_are_read_and_the_standard_one_is_written() {
        let bytes = [0xfb, 0xef, 0xbe, 0xff];
        for text in ["++++/w==", "----_w==", "++++/w", "----_w"] {
            assert_eq!(
                decode_base64(text, "x", 100).unwrap()[3],
                bytes[3],
                "{text}"
            );
        }
        for bad in ["++--/w==", "++++/x==", "+ +++/w==", "++++/w==\n", "+", "é"] {
            assert!(decode_base64(bad, "x", 100).is_err(), "{bad}");
        }
        let envelope = Envelope {
            payload: bytes.to_vec(),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signature {
                keyid: String::new(),
                sig: bytes.to_vec(),
            }],
        };
        let json: Value = serde_json::from_slice(&envelope.to_json()).unwrap();
        assert_eq!(json["payload"], "++++/w==");
        assert_eq!(json["signatures"][0]["sig"], json["payload"]);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let good = json!({"payload": "e30=", "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": "AA=="}], "extra": 1});
        let read = |value: &Value| Envelope::from_json(&serde_json::to_vec(value).unwrap());
        assert_eq!(
            read(&good).unwrap().signatures()[0].keyid,
            "",
            "a keyid may be missing"
        );
        let mut null = good.clone();
        null["signatures"][0]["keyid"] = Value::Null;
        assert!(read(&null).is_ok());
        for missing in ["payload", "payloadType", "signatures"] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(missing);
            assert!(read(&bad).is_err(), "{missing}");
        }
        let mut many = good.clone();
        many["signatures"] = vec![json!({"sig": "AA=="}); MAX_SIGNATURES + 1].into();
        assert!(matches!(
            read(&many),
            Err(EnvelopeError::TooManySignatures(65))
        ));
        let mut long = good;
        long["signatures"][0]["sig"] = json!("A".repeat(10_000));
        assert!(matches!(
            read(&long),
            Err(EnvelopeError::TooLong("signature"))
        ));
        let twice = br#"{"payload":"e30=","payload":"e30=","payloadType":"x","signatures":[]}"#;
        assert!(Envelope::from_json(twice).is_err());
    }
}
