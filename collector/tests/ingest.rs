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
use attestation::wire::{AttestationsAnswer, AttestationsRequest, EnrolmentRequest, TokenPair};
use pristine_collector::access::Person;
use pristine_collector::enrolment::{self, Enrolled};
use pristine_collector::problem::ProblemResponse;
use pristine_collector::settings::CollectorSettings;
use pristine_collector::state::AppState;
use pristine_collector::{Running, clock, fleet, ingest, retention};

struct Bed {
    running: Running,
    _directory: tempfile::TempDir,
}

impl Bed {
    async fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap()).await
    }

    async fn within(directory: tempfile::TempDir) -> Self {
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

/// What a node with this key sends to join.
fn request(key: &PrivateKey, mut said: Enrolment, token: Option<TokenPair>) -> EnrolmentRequest {
    let pair = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
    said.csr = rcgen::CertificateParams::default()
        .serialize_request(&pair)
        .unwrap()
        .pem()
        .unwrap();
    let statement = Statement::<Enrolment>::of_node(&key.public(), said);
    EnrolmentRequest {
        statement: Envelope::sign(statement.to_payload(), key).unwrap(),
        token,
    }
}

struct Node {
    key: PrivateKey,
    id: NodeId,
}

impl Node {
    async fn enrolled(bed: &Bed, name: &str) -> Self {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let said = Enrolment {
            name: name.to_owned(),
            csr: String::new(),
            machine: None,
            replaces: None,
        };
        let token = fleet::create_join_token(bed.state(), "default", 1, 60, &Person::local("test"))
            .await
            .unwrap_or_else(|_| panic!("no token"));
        let request = request(&key, said, Some(token.token.pair()));
        let first = enrolment::enrol(bed.state(), request.clone(), None)
            .await
            .unwrap();
        let again = enrolment::enrol(bed.state(), request, None).await.unwrap();
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

fn code(problem: &ProblemResponse) -> (u16, &'static str) {
    (problem.status.as_u16(), problem.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_good_once_and_history_fills_no_silence() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let challenge = node.challenge(&bed).await;
    let first = node.sign(&said(0, None, challenge.clone()));
    assert!(node.send(&bed, vec![first.clone()]).await.unwrap().fresh);
    let fresh_at = bed.count("SELECT last_fresh FROM nodes").await;

    let again = node.sign(&said(1, Some(&first), challenge));
    let answer = node.send(&bed, vec![again.clone()]).await.unwrap();
    assert!(!answer.fresh && answer.receipts.len() == 1, "used");
    let none = node.sign(&said(2, Some(&again), None));
    assert!(!node.send(&bed, vec![none.clone()]).await.unwrap().fresh);
    assert_eq!(
        bed.count("SELECT last_fresh FROM nodes").await,
        fresh_at,
        "history makes nobody fresh"
    );
    assert!(
        bed.count("SELECT last_received > last_fresh FROM nodes")
            .await
            == 1
    );

    let mut elsewhere = said(3, Some(&none), node.challenge(&bed).await);
    elsewhere["log"] = "another.example/log".into();
    let elsewhere = node.sign(&elsewhere);
    let answer = node.send(&bed, vec![elsewhere]).await.unwrap();
    assert!(
        !answer.fresh && answer.receipts.len() == 1,
        "for another log: stored and receipted, but it was not said to us"
    );
    assert_eq!(
        bed.count("SELECT count(*) FROM attestations WHERE reasons LIKE '%another-log another.example/log%'")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_wrong_key_signs_is_counted_and_not_stored() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let other = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let honest = node.sign(&said(0, None, None));
    let forged = Envelope::sign(honest.payload().to_vec(), &other).unwrap();
    let evidence = bed.count("SELECT count(*) FROM evidence").await;
    let answer = node.send(&bed, vec![forged]).await.unwrap();
    assert_eq!(answer.refused.unwrap().code, "signature");
    assert!(answer.receipts.is_empty());
    assert_eq!(bed.count("SELECT count(*) FROM evidence").await, evidence);
    assert_eq!(bed.count("SELECT count(*) FROM receipts").await, 0);
    assert!(
        bed.state()
            .metrics
            .encode()
            .contains("pristine_ingest_refused_total{code=\"signature\"} 1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_node_is_heard_and_a_banned_one_is_not() {
    use pristine_collector::fleet::Decision;
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let ann = Person::local("ann");
    let decide = |what| fleet::decide(bed.state(), &ann, node.id.as_str(), what, "a reason");
    decide(Decision::Suspend).await.unwrap();
    let first = node.sign(&said(0, None, node.challenge(&bed).await));
    assert!(node.send(&bed, vec![first.clone()]).await.unwrap().fresh);
    decide(Decision::Ban).await.unwrap();
    let second = node.sign(&said(1, Some(&first), None));
    let refused = node.send(&bed, vec![second]).await.unwrap_err();
    assert_eq!(code(&refused), (403, "banned"));
    assert_eq!(bed.count("SELECT count(*) FROM attestations").await, 1);
    assert_eq!(
        bed.count("SELECT count(*) FROM actions WHERE action IN ('node.suspend', 'node.ban') AND user = 'ann' AND reason = 'a reason'")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescan_is_told_once_with_the_next_answer() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let ann = Person::local("ann");
    let wanted = || fleet::rescan(bed.state(), &ann, node.id.as_str());
    wanted().await.unwrap();
    wanted().await.unwrap();
    let first = node.sign(&said(0, None, None));
    let answer = node.send(&bed, vec![first]).await.unwrap();
    assert_eq!(
        serde_json::to_value(&answer.requests).unwrap(),
        serde_json::json!([{"kind": "rescan"}])
    );
    let next = ingest::challenge(bed.state(), node.id.as_str())
        .await
        .unwrap();
    assert!(next.requests.is_empty(), "once");
    wanted().await.unwrap();
    let next = ingest::challenge(bed.state(), node.id.as_str())
        .await
        .unwrap();
    assert_eq!(next.requests.len(), 1, "and once more when asked again");
    assert_eq!(
        bed.count("SELECT count(*) FROM actions WHERE action = 'node.rescan'")
            .await,
        3
    );
    let nobody = fleet::rescan(bed.state(), &ann, "nobody").await;
    assert_eq!(code(&nobody.unwrap_err()), (404, "not-found"));
}

async fn open_id(bed: &Bed, kind: &str) -> String {
    sqlx::query_scalar("SELECT id FROM violations WHERE kind = ? AND resolved IS NULL")
        .bind(kind)
        .fetch_one(bed.state().store.read_pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_ends_what_was_touched_and_not_what_lasts() {
    use pristine_collector::violations::review::{Judged, acknowledge, resolve};
    let ann = Person::local("ann");
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let mut first = said(0, None, node.challenge(&bed).await);
    first["touched"] = serde_json::json!([
        {"path": "./usr/bin/ping", "event": "modify", "count": 2, "first": clock::now(), "last": clock::now()}
    ]);
    first["coverage"]["mounts"]["unexpected"] =
        serde_json::json!([{"path": "./usr", "source": "tmpfs", "type": "tmpfs"}]);
    let first = node.sign(&first);
    node.send(&bed, vec![first]).await.unwrap();

    let (touched, mount) = (open_id(&bed, "touched").await, open_id(&bed, "mount").await);
    let lasts = resolve(bed.state(), &mount, "it is mine", Judged::Reviewed, &ann).await;
    let lasts = lasts.unwrap_err();
    assert_eq!(code(&lasts), (409, "lasts"));
    assert!(lasts.detail.contains("still mounted"));
    let seen = acknowledge(bed.state(), &mount, "on it", &ann).await;
    let seen = seen.unwrap();
    assert_eq!(seen.acknowledged.unwrap().by, "ann");
    assert_eq!(bed.open("mount").await, 1, "seen is not over");

    for bad in ["", "  ", "two\nlines", &"a".repeat(1_001)] {
        let refused = resolve(bed.state(), &touched, bad, Judged::Reviewed, &ann).await;
        assert_eq!(code(&refused.unwrap_err()), (400, "malformed"));
    }
    let over = resolve(bed.state(), &touched, "an update", Judged::Reviewed, &ann).await;
    assert_eq!(
        over.unwrap().resolution.unwrap(),
        "reviewed by ann: an update"
    );
    assert_eq!(bed.open("touched").await, 0);
    assert_eq!(
        bed.count(
            "SELECT count(*) FROM touched WHERE reviewed_by = 'ann' AND reviewed IS NOT NULL"
        )
        .await,
        1
    );
    let twice = resolve(bed.state(), &touched, "again", Judged::Reviewed, &ann).await;
    assert_eq!(code(&twice.unwrap_err()), (409, "resolved"));
    assert_eq!(
        bed.count("SELECT count(*) FROM violation_steps WHERE step = 'resolved'")
            .await,
        1
    );
    assert_eq!(
        bed.count("SELECT count(*) FROM actions WHERE action LIKE 'violation.%'")
            .await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_touched_counts_on_where_it_is_and_another_path_begins_its_own() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let mut previous = None;
    for (sequence, path) in ["./usr/bin/ping", "./usr/bin/ping", "./usr/bin/tar"]
        .into_iter()
        .enumerate()
    {
        let sequence = u64::try_from(sequence).unwrap();
        // One without a word between them: then the node is known to have nothing that a statement ends.
        for (place, touched) in [(2 * sequence, false), (2 * sequence + 1, true)] {
            let mut said = said(place, previous.as_ref(), node.challenge(&bed).await);
            if touched {
                said["touched"] = serde_json::json!([
                    {"path": path, "event": "modify", "count": 2, "first": clock::now(), "last": clock::now()}
                ]);
            }
            let signed = node.sign(&said);
            node.send(&bed, vec![signed.clone()]).await.unwrap();
            previous = Some(signed);
        }
    }
    assert_eq!(bed.open("touched").await, 2);
    let counted = "SELECT count FROM violations WHERE path = './usr/bin/ping'";
    assert_eq!(bed.count(counted).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judged_jump_allows_another_one() {
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let jump = |sequence| {
        let mut said = said(sequence, None, None);
        said["coverage"]["gaps"] = serde_json::json!([{"from": clock::now(), "cause": "lost"}]);
        node.sign(&said)
    };
    let refused = |answer: AttestationsAnswer| answer.refused.map(|refused| refused.code);
    assert_eq!(refused(node.send(&bed, vec![jump(5)]).await.unwrap()), None);
    let second = node.send(&bed, vec![jump(9)]).await.unwrap();
    assert_eq!(refused(second).as_deref(), Some("sequence"));
    let rewind = open_id(&bed, "rewind").await;
    pristine_collector::violations::review::resolve(
        bed.state(),
        &rewind,
        "the disk was restored",
        pristine_collector::violations::review::Judged::Reviewed,
        &pristine_collector::access::Person::local("ann"),
    )
    .await
    .unwrap();
    assert_eq!(refused(node.send(&bed, vec![jump(9)]).await.unwrap()), None);
    assert_eq!(bed.open("rewind").await, 1, "and is told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_enrolments_are_refused() {
    let bed = Bed::new().await;
    for (name, machine, replaces) in [
        ("web\u{202e}1", None, None),
        ("web\n1", None, None),
        ("", None, None),
        ("web", Some("x".repeat(129)), None),
        ("web", None, Some("../../etc".to_owned())),
    ] {
        let said = Enrolment {
            name: name.to_owned(),
            csr: String::new(),
            machine,
            replaces,
        };
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let refused = enrolment::enrol(bed.state(), request(&key, said, None), None).await;
        assert_eq!(
            code(&refused.err().unwrap()),
            (400, "malformed"),
            "{name:?}"
        );
    }
    assert_eq!(bed.count("SELECT count(*) FROM nodes").await, 0);
}

/// What a program prints that is killed between commit and print is printed by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_were_not_printed_are_printed_at_the_next_start() {
    let mut bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let mut rewound = said(0, None, None);
    rewound["rewound"] = true.into();
    node.send(&bed, vec![node.sign(&rewound)]).await.unwrap();
    let state = bed.state().settings.state.clone();
    bed.running.stop();
    let stopped = std::mem::replace(&mut bed.running, restart(&state).await);
    drop(stopped);
    assert_eq!(bed.open("rewind").await, 1);

    let mut printed = Vec::new();
    let store = bed.state().store.clone();
    pristine_collector::journal::print_new(&store, &mut printed)
        .await
        .unwrap();
    let text = String::from_utf8(printed).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (line["event"].as_str(), line["kind"].as_str()),
        (Some("violation.opened"), Some("rewind"))
    );
    let mut again = Vec::new();
    pristine_collector::journal::print_new(&store, &mut again)
        .await
        .unwrap();
    assert!(again.is_empty(), "and once");
}

async fn restart(state: &std::path::Path) -> Running {
    let mut settings = CollectorSettings::new(state.to_owned());
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    (
        settings.agents,
        settings.join,
        settings.ops,
        settings.journal,
    ) = (any, any, any, false);
    pristine_collector::start(settings, std::future::pending())
        .await
        .unwrap()
}

/// A small file system of its own; none where the test may not mount.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &std::path::Path) -> Option<Self> {
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        done.is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(
            std::process::Command::new("umount")
                .arg("-l")
                .arg(&self.0)
                .status(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_before_any_receipt_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(directory.path()) else {
        eprintln!("not root: no small disk to fill");
        return;
    };
    let bed = Bed::within(directory).await;
    let node = Node::enrolled(&bed, "one").await;
    let first = node.sign(&said(0, None, node.challenge(&bed).await));
    node.send(&bed, vec![first.clone()]).await.unwrap();

    let ballast = disk.0.join("ballast");
    drop(std::fs::write(&ballast, vec![1_u8; 8 << 20]));
    let (mut before, mut sequence) = (first, 1);
    let challenge = node.challenge(&bed).await;
    let refused = loop {
        let mut said = said(sequence, Some(&before), challenge.clone());
        said["boot"] = "b".repeat(64 << 10).into();
        let next = node.sign(&said);
        match node.send(&bed, vec![next.clone()]).await {
            Ok(answer) => {
                assert!(answer.refused.is_none());
                (before, sequence) = (next, sequence + 1);
            }
            Err(problem) => break (problem, next),
        }
        assert!(sequence < 400, "the disk is full by now");
    };
    assert_eq!(code(&refused.0), (503, "store-full"));
    assert!(refused.0.retry_after.is_some() && bed.state().store.is_full());
    let stored = i64::try_from(sequence).unwrap();
    for table in [
        "SELECT count(*) FROM attestations",
        "SELECT count(*) FROM receipts",
        "SELECT count(*) FROM log WHERE type = 'attestation'",
        "SELECT count(*) FROM evidence WHERE kind = 'attestation'",
        "SELECT sequence + 1 FROM nodes",
    ] {
        assert_eq!(bed.count(table).await, stored, "nothing half: {table}");
    }

    std::fs::remove_file(&ballast).unwrap();
    let taken = node.send(&bed, vec![refused.1]).await.unwrap();
    assert_eq!(taken.receipts.len(), 1, "the same bytes, now receipted");
    assert!(!bed.state().store.is_full());
    // The directory can be removed once nothing is mounted on it.
    drop(disk);
    drop(bed);
}

/// Two hundred nodes at once: every statement is receipted in its order, and commits are shared, or this would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn many_nodes_at_once_share_commits() {
    const NODES: usize = 200;
    const EACH: u64 = 10;
    let bed = std::sync::Arc::new(Bed::new().await);
    let enrolling = (0..NODES).map(|at| {
        let bed = std::sync::Arc::clone(&bed);
        tokio::spawn(async move { Node::enrolled(&bed, &format!("node-{at}")).await })
    });
    let mut nodes = Vec::new();
    for enrolled in enrolling.collect::<Vec<_>>() {
        nodes.push(enrolled.await.unwrap());
    }
    let began = std::time::Instant::now();
    let speaking = nodes.into_iter().map(|node| {
        let bed = std::sync::Arc::clone(&bed);
        tokio::spawn(async move {
            let (mut before, mut challenge) = (None, node.challenge(&bed).await);
            for sequence in 0..EACH {
                let next = node.sign(&said(sequence, before.as_ref(), challenge));
                let answer = node.send(&bed, vec![next.clone()]).await.unwrap();
                assert!(answer.fresh && answer.receipts.len() == 1);
                (before, challenge) = (Some(next), Some(answer.challenge));
            }
        })
    });
    for spoken in speaking.collect::<Vec<_>>() {
        spoken.await.unwrap();
    }
    let taken = bed.count("SELECT count(*) FROM attestations").await;
    let rate = f64::from(u32::try_from(taken).unwrap()) / began.elapsed().as_secs_f64();
    eprintln!("{taken} statements, {rate:.0} a second, signed and taken");
    assert_eq!(
        taken,
        i64::try_from(NODES).unwrap() * i64::try_from(EACH).unwrap()
    );
}

/// What says nothing goes after its time; what proves order and forks stays, and nothing that was promised is broken.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_statements_are_pruned_and_the_chain_the_receipts_and_forks_stay() {
    const COUNT: u64 = 300;
    let bed = Bed::new().await;
    let node = Node::enrolled(&bed, "one").await;
    let (mut before, mut all, mut receipts) = (None, Vec::new(), Vec::new());
    // What was touched comes alone: what is received with it is kept with it.
    for some in [0..100, 100..101, 101..COUNT] {
        let challenge = node.challenge(&bed).await;
        let mut statements = Vec::new();
        for sequence in some {
            let mut next = said(sequence, before.as_ref(), challenge.clone());
            if sequence == 100 {
                next["touched"] = serde_json::json!([{"path": "./etc/motd", "event": "modify", "count": 1,
                    "first": clock::now(), "last": clock::now(), "actor": null}]);
            }
            let next = node.sign(&next);
            statements.push(next.clone());
            before = Some(next);
        }
        let answer = node.send(&bed, statements.clone()).await.unwrap();
        assert!(answer.fresh, "{:?}", answer.refused);
        all.extend(statements);
        receipts.extend(answer.receipts);
    }
    let later = |days: i64| clock::now().saturating_add_secs(days * 86_400);
    let pruned = retention::prune(bed.state(), later(29)).await.unwrap();
    assert_eq!(pruned, 0, "not before its time");
    let pruned = retention::prune(bed.state(), later(31)).await.unwrap();
    // Of 257 the first and the last stay, and what was touched. The others wait until their batch is whole.
    assert_eq!(pruned, 254);
    assert_eq!(retention::prune(bed.state(), later(31)).await.unwrap(), 0);
    let kept = i64::try_from(COUNT - pruned).unwrap();
    assert_eq!(
        bed.count("SELECT count(*) FROM evidence WHERE kind = 'attestation'")
            .await,
        kept
    );
    assert_eq!(bed.count("SELECT count(*) FROM attestations").await, 300);
    assert_eq!(bed.count("SELECT count(*) FROM pruning").await, 0);

    let checked = pristine_collector::check::check(&bed.state().settings.state)
        .await
        .unwrap();
    assert!(checked.agrees(), "{:?}", checked.findings);
    assert_eq!((checked.statements, checked.pruned), (COUNT, pruned));

    let again = node.send(&bed, vec![all[50].clone()]).await.unwrap();
    assert_eq!(
        again.receipts,
        [receipts[50].clone()],
        "the same receipt, made again"
    );
    let other = node.sign(&said(50, Some(&all[49]), None));
    let refused = node.send(&bed, vec![other]).await.unwrap().refused.unwrap();
    assert_eq!(
        refused.code, "fork",
        "a second statement with its sequence still is one"
    );

    let deleted = bed
        .state()
        .store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM evidence")
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await;
    assert!(deleted.is_err(), "the guard still stands");
    let lost = bed
        .state()
        .store
        .write(|tx| {
            Box::pin(async move {
                sqlx::query("UPDATE attestations SET pruned = 1 WHERE sequence = 299")
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await;
    assert!(lost.is_ok());
    let checked = pristine_collector::check::check(&bed.state().settings.state)
        .await
        .unwrap();
    assert!(
        checked
            .findings
            .iter()
            .any(|finding| finding.check == "pruned"),
        "no leaf stands for it"
    );
}
