#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::{Algorithm, NodeId, PrivateKey};
use attestation::time::Timestamp;
use attestation::verdict::Verdict;
use attestation::wire::{
    AttestationsAnswer, ChallengeAnswer, CollectorKeys, EnrolmentAnswer, EnrolmentPending,
    Expected, PublisherKeys, Refused, RenewalAnswer, Request, RequestKind,
};

use super::*;

fn key() -> PrivateKey {
    PrivateKey::generate(Algorithm::Ed25519).unwrap()
}

fn expected() -> Expected {
    Expected {
        sequence: 4,
        previous: Some(Digest::of(b"3")),
    }
}

fn requests() -> Vec<Request> {
    let line = "./a type=fifo mode=0600 uid=0 gid=0";
    vec![
        Request {
            kind: RequestKind::Pins,
            sha256: Some(Digest::of(b"pins")),
            path: None,
            found: None,
        },
        Request {
            kind: RequestKind::Accept,
            sha256: None,
            path: Some(attestation::path::ImagePath::from_bytes(*b"\xff\n").unwrap()),
            found: Some(attestation::entry::Line::parse(line).unwrap()),
        },
    ]
}

fn replies() -> Vec<Reply> {
    let key = key();
    let public = key.public();
    let envelope = Envelope::sign(b"{}".to_vec(), &key).unwrap();
    vec![
        Reply::Challenge(ChallengeAnswer {
            challenge: "c".to_owned(),
            expires: Timestamp::from_micros(7),
            interval: 30,
            assignment: Some(Digest::ZERO),
            requests: requests(),
            expected: expected(),
        }),
        Reply::Attestations(AttestationsAnswer {
            receipts: vec![envelope.clone(), envelope.clone()],
            verdict: Some(Verdict::UnknownImage),
            fresh: true,
            challenge: "c".to_owned(),
            expires: Timestamp::MAX,
            interval: 1,
            assignment: None,
            requests: Vec::new(),
            refused: Some(Refused {
                index: 2,
                code: "sequence".to_owned(),
                expected: Some(expected()),
            }),
        }),
        Reply::Envelope(envelope),
        Reply::Admitted(Box::new(EnrolmentAnswer {
            node: NodeId::of(&public),
            certificate: "certificate\n".to_owned(),
            ca: "ca\n".to_owned(),
            agents: vec!["https://a:8443".to_owned()],
            log: "a/log".to_owned(),
            publishers: vec![PublisherKeys {
                image: "web".to_owned(),
                keys: vec![public.clone()],
                threshold: 1,
            }],
            keys: CollectorKeys {
                receipt: public.clone(),
                assignment: public.clone(),
                verdict: public.clone(),
            },
            interval: 30,
        })),
        Reply::Pending(EnrolmentPending {
            node: NodeId::of(&public),
            retry_after: 5,
        }),
        Reply::Renewal(RenewalAnswer {
            certificate: "c".to_owned(),
        }),
        Reply::Taken,
    ]
}

#[test]
fn answers_come_through_as_they_are() {
    for reply in replies() {
        let message = FromChild::Answer {
            id: 9,
            reply: reply.clone(),
        };
        match FromChild::decode(&message.encode()).unwrap() {
            FromChild::Answer { id: 9, reply: read } => assert_eq!(read, reply),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn errors_and_pieces_come_through_as_they_are() {
    let problem = Problem::new(409, "sequence", "t")
        .with_detail("d")
        .with_expected(expected());
    let errors = [
        TransportError::NoAnswer {
            reason: "r".to_owned(),
        },
        TransportError::Certificate {
            reason: "r".to_owned(),
        },
        TransportError::TooLong { limit: 5 },
        TransportError::Unreadable {
            reason: "r".to_owned(),
        },
        TransportError::Manifest {
            reason: "r".to_owned(),
        },
        TransportError::Refused(Box::new(problem)),
    ];
    for error in errors {
        let shown = format!("{error:?}");
        let message = FromChild::Failed { id: 1, error };
        match FromChild::decode(&message.encode()).unwrap() {
            FromChild::Failed { id: 1, error } => assert_eq!(format!("{error:?}"), shown),
            other => panic!("{other:?}"),
        }
    }
    for message in [
        FromChild::Piece {
            id: 3,
            bytes: vec![1, 2, 3],
        },
        FromChild::Whole { id: 3 },
        FromChild::Ready {
            missing: vec!["landlock".to_owned()],
        },
        FromChild::Untrusting {
            reason: "no".to_owned(),
        },
    ] {
        let read = FromChild::decode(&message.encode()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
}

#[test]
fn requests_come_through_as_they_are() {
    let messages = [
        ToChild::Trust(Box::new(Trust {
            heard: Some(Timestamp::from_micros(-7)),
            agents: Some(AgentsTrust {
                ca: "ca".to_owned(),
                certificate: "c".to_owned(),
                algorithm: Algorithm::P256,
            }),
            joining: Some(CaTrust::Digest(Digest::ZERO)),
        })),
        ToChild::Trust(Box::default()),
        ToChild::Ask {
            id: 1,
            ask: Ask {
                door: Door::Joining,
                method: Method::Put,
                url: "https://c".to_owned(),
                wanted: Wanted::Renewal,
                body: vec![0; 10],
            },
        },
        ToChild::Manifest {
            id: 2,
            url: "https://c".to_owned(),
            manifest: ManifestRef {
                media_type: ManifestRef::MEDIA_TYPE.to_owned(),
                size: 1,
                sha256: Digest::ZERO,
                uncompressed: 3,
            },
        },
    ];
    for message in messages {
        let read = ToChild::decode(&message.encode()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    for reply in replies() {
        let bytes = FromChild::Answer { id: 9, reply }.encode();
        for length in 0..bytes.len() {
            assert!(FromChild::decode(&bytes[..length]).is_err(), "{length}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(FromChild::decode(&longer).is_err());
    }
}

#[test]
fn a_length_is_a_claim_that_costs_nothing() {
    // A list of 65,535 receipts, a text of four gigabytes: refused by what is there.
    assert!(FromChild::decode(&[2, 1, 0, 0, 0, 2, 0xff, 0xff]).is_err());
    assert!(FromChild::decode(&[6, 0xff, 0xff, 0xff, 0xff, b'x']).is_err());
}

#[test]
fn what_a_terminal_would_act_on_is_escaped() {
    let message = FromChild::Untrusting {
        reason: "a\u{1b}[2Jb\nc".to_owned(),
    };
    match FromChild::decode(&message.encode()).unwrap() {
        FromChild::Untrusting { reason } => assert!(!reason.chars().any(char::is_control)),
        other => panic!("{other:?}"),
    }
}
