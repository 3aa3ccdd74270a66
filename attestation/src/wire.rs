//! The JSON bodies between agent and collector (FORMATS.md 5.4). Readers ignore members that they do not know.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::entry::Line;
use crate::key::{NodeId, PublicKey};
use crate::path::ImagePath;
use crate::time::Timestamp;
use crate::verdict::Verdict;

/// The longest body after decompression.
pub const MAX_BODY: u64 = 8 << 20;
/// The most statements in one request.
pub const MAX_STATEMENTS: usize = 256;
/// The most bytes of statements in one request, counted as the body's.
pub const MAX_STATEMENTS_BYTES: u64 = 4 << 20;
/// How long a challenge is good.
pub const CHALLENGE_SECONDS: i64 = 300;
/// The most open challenges of a node.
pub const MAX_CHALLENGES: usize = 4;
/// The media type of an error's body.
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// `POST /join/v1/enrolment`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentRequest {
    /// Envelope of `enrolment/v1`.
    pub statement: Envelope,
    /// The join token's pair; null asks for a person.
    #[serde(default)]
    pub token: Option<TokenPair>,
}

/// A join token's id and secret. Neither is shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPair {
    /// Which token.
    pub id: String,
    /// What proves it.
    pub secret: String,
}

impl std::fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenPair({} …)", self.id)
    }
}

/// 201: the node is admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentAnswer {
    /// Its id.
    pub node: NodeId,
    /// Its client certificate, PEM.
    pub certificate: String,
    /// The CA's certificate, PEM.
    pub ca: String,
    /// URLs of the agents' door.
    pub agents: Vec<String>,
    /// Origin of the log.
    pub log: String,
    /// Who signs images, by image name.
    #[serde(default)]
    pub publishers: Vec<PublisherKeys>,
    /// The keys that the collector signs with.
    pub keys: CollectorKeys,
    /// Seconds between heartbeats.
    pub interval: u64,
}

/// The collector's keys, one for each role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorKeys {
    /// Signs receipts.
    pub receipt: PublicKey,
    /// Signs assignments.
    pub assignment: PublicKey,
    /// Signs verdicts.
    pub verdict: PublicKey,
}

/// Who signs an image of that name, and how many must.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublisherKeys {
    /// The image's name.
    pub image: String,
    /// The publishers' keys.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: usize,
}

/// 202: a person must admit the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentPending {
    /// Its id.
    pub node: NodeId,
    /// Seconds until it may ask again.
    pub retry_after: u64,
}

/// `POST /join/v1/renewal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalRequest {
    /// Envelope of `renewal/v1`.
    pub statement: Envelope,
}

/// `POST /join/v1/rotation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationRequest {
    /// Envelope of `rotation/v1`, signed by the key that the node had and by the one that it takes.
    pub statement: Envelope,
}

/// 200: the node's new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalAnswer {
    /// Client certificate, PEM.
    pub certificate: String,
}

/// `POST /agent/v1/challenge`: a body without members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRequest {}

/// A challenge, and where the collector stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeAnswer {
    /// Opaque to the agent.
    pub challenge: String,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Seconds between heartbeats.
    pub interval: u64,
    /// SHA-256 of the assignment's payload.
    pub assignment: Option<Digest>,
    /// What the collector asks for.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// The statement that it takes next.
    pub expected: Expected,
}

/// `POST /agent/v1/attestations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationsRequest {
    /// Envelopes of `attestation/v1`, in order.
    pub statements: Vec<Envelope>,
    /// TPM quote over the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<serde_json::Value>,
}

/// What became of the statements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationsAnswer {
    /// Envelopes of `receipt/v1`, one for each statement taken, in their order.
    pub receipts: Vec<Envelope>,
    /// The verdict on the newest; null without an assignment.
    pub verdict: Option<Verdict>,
    /// Whether the newest answered a challenge in time.
    pub fresh: bool,
    /// The next challenge.
    pub challenge: String,
    /// Until when it is good.
    pub expires: Timestamp,
    /// Seconds between heartbeats.
    pub interval: u64,
    /// SHA-256 of the assignment's payload.
    pub assignment: Option<Digest>,
    /// What the collector asks for.
    #[serde(default)]
    pub requests: Vec<Request>,
    /// The first statement not taken, and why; what follows it was not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// The statement that the collector takes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of the payload before it; null at 0.
    pub previous: Option<Digest>,
}

/// A statement that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its place in the request.
    pub index: u64,
    /// Why, in a stable word.
    pub code: String,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
}

/// Something that the collector asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub kind: RequestKind,
    /// Which file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Which path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ImagePath>,
    /// The line that becomes the pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Line>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestKind {
    /// Upload the pinned manifest.
    Pins,
    /// Upload the whole manifest.
    Snapshot,
    /// Read everything again.
    Rescan,
    /// The line found becomes the pin.
    Accept,
    /// A word of a later version, passed over.
    #[serde(other)]
    Unknown,
}

/// An error's body (RFC 9457), with a stable `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {title}")]
pub struct Problem {
    /// What kind of problem, a URI.
    #[serde(default = "about_blank")]
    pub r#type: String,
    /// What went wrong, in general.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What went wrong this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The stable word to act on.
    #[serde(default)]
    pub code: String,
    /// The statement that the collector takes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// Which request, for the server's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with its stable word.
    pub fn new(status: u16, code: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            r#type: about_blank(),
            title: title.into(),
            status,
            detail: None,
            code: code.into(),
            expected: None,
            request_id: None,
        }
    }

    /// The same, with what went wrong this time.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same, with where to go on.
    #[must_use]
    pub fn with_expected(mut self, expected: Expected) -> Self {
        self.expected = Some(expected);
        self
    }
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json::from_slice_strict;
    use crate::key::{Algorithm, PrivateKey};

    fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        from_slice_strict(&serde_json::to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn an_envelope_in_a_body_is_dsse() {
        let envelope = Envelope::unsigned(b"{}".to_vec());
        let request = EnrolmentRequest {
            statement: envelope.clone(),
            token: None,
        };
        let value = serde_json::to_value(&request).unwrap();
        assert_eq!(
            value,
            json!({
                "statement": {"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []},
                "token": null,
            })
        );
        assert_eq!(read::<EnrolmentRequest>(&value), request);
        let attestations = AttestationsRequest {
            statements: vec![envelope],
            quote: None,
        };
        let value = serde_json::to_value(&attestations).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 1, "no quote, no member");
        assert_eq!(read::<AttestationsRequest>(&value), attestations);
        let twice =
            br#"{"statements":[{"payload":"","payload":"","payloadType":"x","signatures":[]}]}"#;
        assert!(from_slice_strict::<AttestationsRequest>(twice).is_err());
        assert!(
            from_slice_strict::<AttestationsRequest>(br#"{"statements":[],"statements":[]}"#)
                .is_err()
        );
    }

    #[test]
    fn keys_in_answers_are_pem() {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap().public();
        let keys = CollectorKeys {
            receipt: key.clone(),
            assignment: key.clone(),
            verdict: key.clone(),
        };
        let answer = EnrolmentAnswer {
            node: NodeId::of(&key),
            certificate: "c".to_owned(),
            ca: "ca".to_owned(),
            agents: vec!["https://a:8443".to_owned()],
            log: "a/log".to_owned(),
            publishers: vec![PublisherKeys {
                image: "web".to_owned(),
                keys: vec![key.clone()],
                threshold: 1,
            }],
            keys,
            interval: 30,
        };
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(value["keys"]["verdict"], key.to_pem());
        assert_eq!(value["publishers"][0]["keys"][0], key.to_pem());
        assert_eq!(read::<EnrolmentAnswer>(&value), answer);
    }

    #[test]
    fn an_answer_has_the_members_of_the_format() {
        let answer: AttestationsAnswer = read(&json!({
            "receipts": [], "verdict": "unknown-image", "fresh": true, "challenge": "c",
            "expires": "2026-01-01T00:00:00.000000Z", "interval": 30, "assignment": null,
            "requests": [{"kind": "rescan"}, {"kind": "later", "x": 1},
                         {"kind": "accept", "path": "./a", "found": "./a type=fifo mode=0600 uid=0 gid=0"}],
            "refused": {"index": 1, "code": "sequence", "expected": {"sequence": 4, "previous": null}},
            "unknown": {},
        }));
        assert_eq!(answer.verdict, Some(Verdict::UnknownImage));
        assert_eq!(answer.requests[0].kind, RequestKind::Rescan);
        assert_eq!(answer.requests[1].kind, RequestKind::Unknown);
        assert_eq!(answer.requests[2].path.as_ref().unwrap().to_string(), "./a");
        assert_eq!(
            answer.refused.unwrap().expected.unwrap(),
            Expected {
                sequence: 4,
                previous: None
            }
        );
        assert_eq!(read::<ChallengeRequest>(&json!({})), ChallengeRequest {});
    }

    #[test]
    fn a_problem_is_the_body_of_rfc_9457() {
        let problem = Problem::new(409, "sequence", "out of sequence")
            .with_detail("wanted 4")
            .with_expected(Expected {
                sequence: 4,
                previous: Some(Digest::ZERO),
            });
        let value = serde_json::to_value(&problem).unwrap();
        assert_eq!(value["type"], "about:blank");
        assert_eq!(value["status"], 409);
        assert_eq!(value["code"], "sequence");
        assert_eq!(value["expected"]["sequence"], 4);
        assert_eq!(read::<Problem>(&value), problem);
        assert_eq!(
            read::<Problem>(&json!({})).code,
            "",
            "what a proxy answers is readable too"
        );
    }
}
