#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use attestation::dsse::Envelope;
use attestation::key::Algorithm;
use tokio::task::JoinHandle;

use super::spawn::Ends;
use super::*;
use crate::transport::inside::frame;
use crate::transport::message::{FromChild, ToChild};
use crate::transport::{Door, Method, Wanted};

/// A network process played by the test, and the agent's side that lives with it.
struct Played {
    child: Child,
    requests: UnixStream,
    signing: UnixStream,
    key: PrivateKey,
    life: JoinHandle<life::End>,
}

fn play() -> Played {
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let state = Arc::new(State {
        status: Mutex::default(),
        identity: Mutex::new((Trust::default(), key.clone())),
        hangs: Notify::new(),
    });
    let (orders, mut coming) = mpsc::channel(ORDERS);
    let (requests, its_requests) = UnixStream::pair().unwrap();
    let (signing, its_signing) = UnixStream::pair().unwrap();
    let ends = Ends {
        pid: std::process::id(),
        requests,
        signing,
        complaints: None,
    };
    let living = Arc::clone(&state);
    let life = tokio::spawn(async move { life::live(&living, &mut coming, ends).await });
    Played {
        child: Child(Arc::new(Shared { orders, state })),
        requests: its_requests,
        signing: its_signing,
        key,
        life,
    }
}

impl Played {
    /// Asks for something, as the uplink does.
    fn ask(&self) -> JoinHandle<Result<Reply, TransportError>> {
        let child = self.child.clone();
        let ask = Ask {
            door: Door::Agents,
            method: Method::Put,
            url: "https://c/x".to_owned(),
            wanted: Wanted::Taken,
            body: vec![1, 2],
        };
        tokio::spawn(async move { child.ask(ask).await })
    }

    /// What the agent says next.
    fn heard(&mut self) -> ToChild {
        let mut length = [0; 4];
        self.requests.read_exact(&mut length).unwrap();
        let mut message = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.requests.read_exact(&mut message).unwrap();
        ToChild::decode(&message).unwrap()
    }

    fn say(&mut self, message: &FromChild) {
        self.requests
            .write_all(&frame(&message.encode()).unwrap())
            .unwrap();
    }

    /// The request that was made, its id.
    fn asked(&mut self) -> u32 {
        assert!(matches!(self.heard(), ToChild::Trust(_)));
        match self.heard() {
            ToChild::Ask { id, ask } => {
                assert_eq!(ask.body, [1, 2]);
                id
            }
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) -> String {
        match self.life.await.unwrap() {
            life::End::Failed(reason) => reason,
            life::End::Unused => panic!("it was needed"),
        }
    }
}

fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_its_answer() {
    let mut played = play();
    let asked = played.ask();
    let id = blocking(|| played.asked());
    blocking(|| {
        played.say(&FromChild::Answer {
            id,
            reply: Reply::Taken,
        });
    });
    assert_eq!(asked.await.unwrap().unwrap(), Reply::Taken);
    assert_eq!(played.child.status().starts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_hostile_process_says_ends_it_and_nothing_else() {
    let too_long = u32::MAX.to_le_bytes().to_vec();
    let no_message = frame(b"\xff\xff").unwrap();
    let unasked = FromChild::Answer {
        id: 77,
        reply: Reply::Taken,
    };
    let unasked = frame(&unasked.encode()).unwrap();
    let whole = frame(&FromChild::Whole { id: 0 }.encode()).unwrap();
    for said in [too_long, no_message, unasked, whole] {
        let mut played = play();
        let asked = played.ask();
        let id = blocking(|| played.asked());
        assert_eq!(id, 0);
        blocking(|| played.requests.write_all(&said).unwrap());
        let error = asked.await.unwrap().unwrap_err();
        assert!(error.is_away(), "{error}");
        assert!(!played.end().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_leaves_nobody_waiting() {
    let mut played = play();
    let asked = played.ask();
    blocking(|| played.asked());
    let Played {
        requests,
        signing,
        life,
        child,
        ..
    } = played;
    drop((requests, signing));
    assert!(asked.await.unwrap().unwrap_err().is_away());
    assert!(matches!(life.await.unwrap(), life::End::Failed(_)));
    drop(child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_another_question_is_none() {
    let mut played = play();
    let asked = played.ask();
    let id = blocking(|| played.asked());
    let reply = Reply::Envelope(Envelope::unsigned(b"{}".to_vec()));
    blocking(|| played.say(&FromChild::Answer { id, reply }));
    assert!(matches!(
        asked.await.unwrap(),
        Err(TransportError::Unreadable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_signed_and_a_statement_never() {
    let mut played = play();
    let content = [
        &[b' '; 64][..],
        b"TLS 1.3, client CertificateVerify\0",
        &[9; 32],
    ]
    .concat();
    let ask = |stream: &mut UnixStream, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_le_bytes();
        stream.write_all(&length).unwrap();
        stream.write_all(content).unwrap();
    };
    let signature = blocking(|| {
        ask(&mut played.signing, &content);
        let mut length = [0; 2];
        played.signing.read_exact(&mut length).unwrap();
        let mut signature = vec![0; usize::from(u16::from_le_bytes(length))];
        played.signing.read_exact(&mut signature).unwrap();
        signature
    });
    assert!(played.key.public().verify(&content, &signature));
    let statement = Envelope::unsigned(b"{}".to_vec()).pae();
    blocking(|| ask(&mut played.signing, &statement));
    let mut rest = Vec::new();
    blocking(|| played.signing.read_to_end(&mut rest).ok());
    assert_eq!(rest, b"", "nothing was signed");
    assert!(played.end().await.contains("no handshake"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_never_longer_than_was_signed() {
    let mut played = play();
    let manifest = ManifestRef {
        media_type: ManifestRef::MEDIA_TYPE.to_owned(),
        size: 1,
        sha256: attestation::digest::Digest::ZERO,
        uncompressed: 5,
    };
    let (pieces, mut plain) = mpsc::channel(8);
    let child = played.child.clone();
    let asked = tokio::spawn(async move {
        child
            .manifest("https://c/m".to_owned(), manifest, pieces)
            .await
    });
    blocking(|| {
        assert!(matches!(played.heard(), ToChild::Trust(_)));
        let ToChild::Manifest { id, .. } = played.heard() else {
            panic!("no manifest is asked for");
        };
        for bytes in [b"abc", b"def"] {
            let bytes = bytes.to_vec();
            played.say(&FromChild::Piece { id, bytes });
        }
    });
    assert_eq!(plain.recv().await.unwrap(), b"abc");
    assert!(asked.await.unwrap().unwrap_err().is_away());
    assert_eq!(plain.recv().await, None);
    drop(played.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_does_not_stay_is_started_again_and_told_of() {
    let program = Program {
        path: "/bin/false".into(),
        arguments: Vec::new(),
    };
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let child = Child::start(program, Trust::default(), key).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while child.status().starts < 3 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(child.status().error.is_some());
    assert!(!child.status().confined);
}
