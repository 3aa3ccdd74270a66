//! The rules of FORMATS.md 5.4 against a real store: what is taken, what is told again, what is refused, what is proof.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::key::{Algorithm, NodeId, PrivateKey};
use attestation::statement::{Attestation, Enrolment, Gap, Statement, Subject};
use attestation::wire::{AttestationsAnswer, AttestationsRequest, EnrolmentRequest};
use pristine_collector::enrolment::{self, Enrolled};
use pristine_collector::problem::ProblemResponse;
use pristine_collector::settings::CollectorSettings;
use pristine_collector::state::AppState;
use pristine_collector::{Running, clock, fleet, ingest};

struct Bed {
    running: Running,
    _directory: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = CollectorSettings::new(directory.path().join("state"));
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        (
            settings.agents,
            settings.join,
            settings.ops,
            settings.journal,
        ) = (any, any, any, false);
        pristine_collector::init(&settings).await.unwrap();
        assert!(
            pristine_collector::init(&settings).await.is_err(),
            "a second init changes nothing"
        );
        let running = pristine_collector::start(settings, std::future::pending())
            .await
            .unwrap();
        Self {
            running,
            _directory: directory,
        }
    }

    fn state(&self) -> &AppState {
        &self.running.state
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(self.state().store.read_pool())
            .await
            .unwrap()
    }

    async fn open(&self, kind: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM violations WHERE kind = ? AND resolved IS NULL")
            .bind(kind)
            .fetch_one(self.state().store.read_pool())
            .await
            .unwrap()
    }
}

struct Node {
    key: PrivateKey,
    id: NodeId,
}

impl Node {
    async fn enrolled(bed: &Bed, name: &str) -> Self {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let pair = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&pair)
            .unwrap()
            .pem()
            .unwrap();
        let said = Enrolment {
            name: name.to_owned(),
            csr,
            machine: None,
            replaces: None,
        };
        let statement = Statement::<Enrolment>::of_node(&key.public(), said);
        let statement = Envelope::sign(statement.to_payload(), &key).unwrap();
        let token = fleet::create_join_token(bed.state(), "default", 1, 60, "test")
            .await
            .unwrap_or_else(|_| panic!("no token"));
        let request = EnrolmentRequest {
            statement,
            token: Some(token.token.pair()),
        };
        let first = enrolment::enrol(bed.state(), request.clone())
            .await
            .unwrap();
        let again = enrolment::enrol(bed.state(), request).await.unwrap();
        let (Enrolled::Admitted(first), Enrolled::Admitted(again)) = (first, again) else {
            panic!("not admitted")
        };
        assert_eq!(
            first.certificate, again.certificate,
            "the same key again: the same answer, the token is not counted twice"
        );
        Self {
            id: NodeId::of(&key.public()),
            key,
        }
    }

    async fn challenge(&self, bed: &Bed) -> Option<String> {
        Some(
            ingest::challenge(bed.state(), self.id.as_str())
                .await
                .unwrap()
                .challenge,
        )
    }

    async fn send(
        &self,
        bed: &Bed,
        statements: Vec<Envelope>,
    ) -> Result<AttestationsAnswer, ProblemResponse> {
        ingest::submit(
            bed.state(),
            self.id.as_str(),
            AttestationsRequest {
                statements,
                quote: None,
            },
            1_000,
        )
        .await
    }

    fn sign(&self, said: &serde_json::Value) -> Envelope {
        let said: Attestation = serde_json::from_value(said.clone()).unwrap();
        let statement =
            Statement::about(Subject::of_tree(self.id.to_string(), &Digest::ZERO), said);
        Envelope::sign(statement.to_payload(), &self.key).unwrap()
    }
}

fn said(
    sequence: u64,
    previous: Option<&Envelope>,
    challenge: Option<String>,
) -> serde_json::Value {
    serde_json::json!({
        "log": "localhost/log", "sequence": sequence, "previous": previous.map(Envelope::payload_digest), "boot": "b",
        "issued": clock::now(), "monotonic": 1, "challenge": challenge, "entries": 0, "local": Digest::ZERO, "growing": Digest::ZERO,
        "coverage": {"watch": {"rung": "D"}, "mounts": {"sha256": Digest::ZERO}}, "agent": {"version": "0"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_told_again_refused_and_proof() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;

    let first = node.sign(&said(0, None, node.challenge(&bed).await));
    let taken = node.send(&bed, vec![first.clone()]).await.unwrap();
    assert!(
        taken.fresh
            && taken.receipts.len() == 1
            && taken.refused.is_none()
            && taken.verdict.is_none()
    );

    let again = node.send(&bed, vec![first.clone()]).await.unwrap();
    assert_eq!(
        again.receipts, taken.receipts,
        "the same bytes: the same receipt"
    );
    assert_eq!(
        bed.count("SELECT count(*) FROM attestations").await,
        1,
        "and nothing new"
    );

    let history = node.sign(&said(1, Some(&first), Some("0".repeat(64))));
    let taken = node.send(&bed, vec![history.clone()]).await.unwrap();
    assert!(
        !taken.fresh && taken.receipts.len() == 1,
        "an unknown challenge: history, receipted"
    );

    let jump = node.sign(&said(7, Some(&history), None));
    let refused = node.send(&bed, vec![jump]).await.unwrap().refused.unwrap();
    let expected = refused.expected.unwrap();
    assert_eq!(
        (refused.code.as_str(), expected.sequence, expected.previous),
        ("sequence", 2, Some(history.payload_digest()))
    );

    let other = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let forged = Envelope::sign(
        node.sign(&said(2, Some(&history), None)).payload().to_vec(),
        &other,
    )
    .unwrap();
    assert_eq!(
        node.send(&bed, vec![forged])
            .await
            .unwrap()
            .refused
            .unwrap()
            .code,
        "signature"
    );
    assert_eq!(
        bed.count("SELECT count(*) FROM attestations").await,
        2,
        "what is refused is not stored"
    );

    let neighbour = Node::enrolled(&bed, "two").await;
    let theirs = neighbour.sign(&said(0, None, None));
    assert_eq!(
        node.send(&bed, vec![theirs])
            .await
            .unwrap()
            .refused
            .unwrap()
            .code,
        "replay"
    );
    assert_eq!(bed.open("replay").await, 1);

    let rewound = {
        let mut said = said(2, Some(&history), node.challenge(&bed).await);
        said["rewound"] = true.into();
        node.sign(&said)
    };
    assert!(
        node.send(&bed, vec![rewound.clone()]).await.unwrap().fresh,
        "the node goes on afterwards"
    );
    assert_eq!(bed.open("rewind").await, 1);

    let forked = node.sign(&said(1, Some(&first), None));
    assert_eq!(
        node.send(&bed, vec![forked.clone()])
            .await
            .unwrap()
            .refused
            .unwrap()
            .code,
        "fork"
    );
    assert_eq!(bed.open("fork").await, 1);
    assert_eq!(
        bed.count("SELECT count(*) FROM attestations WHERE sequence = 1")
            .await,
        2,
        "both are kept as proof"
    );
    assert_eq!(
        bed.count("SELECT count(*) FROM nodes WHERE forked = 1")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_over_what_is_lost_is_taken_once() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let jump = |sequence| {
        let mut said = said(sequence, None, None);
        said["coverage"]["gaps"] = serde_json::json!([Gap {
            from: clock::now(),
            to: None,
            cause: "lost".to_owned(),
            paths: Vec::new(),
            paths_total: None
        }]);
        node.sign(&said)
    };
    assert!(
        node.send(&bed, vec![jump(5)])
            .await
            .unwrap()
            .refused
            .is_none()
    );
    assert_eq!(bed.open("rewind").await, 1);
    assert_eq!(
        node.send(&bed, vec![jump(9)])
            .await
            .unwrap()
            .refused
            .unwrap()
            .code,
        "sequence"
    );
}
