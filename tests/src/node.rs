//! A node written by somebody else: it speaks the joining and the agents' door by the formats alone, so that it can also lie, stutter
//! and shout.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use attestation::{
    digest::Digest,
    dsse::Envelope,
    join_token::JoinToken,
    key::{Algorithm, NodeId, PrivateKey},
    statement::{
        AgentFacts, Assurance, Attestation, Coverage, Enrolment, Mounts, Rung, Statement, Subject,
        WatchCoverage,
    },
    time::Timestamp,
    wire::{AttestationsRequest, ChallengeAnswer, EnrolmentAnswer, EnrolmentRequest, Expected},
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;

use crate::{RUNTIME, people::Answer, world::World};

/// A node that joined by a token.
pub struct Node {
    /// Its key: it signs statements and is the TLS client key.
    pub key: PrivateKey,
    /// Its id.
    pub id: NodeId,
    /// `https://…` of the agents' door.
    pub door: String,
    log: String,
    tls: ClientConfig,
    client: reqwest::Client,
}

impl Node {
    /// Joins with a fresh token.
    pub fn join(world: &World, name: &str) -> Self {
        Self::join_with(world, name, &world.join_token())
    }

    /// Joins with a token that was made for many.
    pub fn join_with(world: &World, name: &str, token: &str) -> Self {
        let token: JoinToken = token.parse().expect("a join token");
        let key = PrivateKey::generate(Algorithm::Ed25519).expect("a key");
        let request = enrolment(&key, name, &token);
        let ca = authority(world);
        let client = client(tls(&ca, None));
        let url = format!("{}/join/v1/enrolment", token.join[0].trim_end_matches('/'));
        let answer = post(
            &client,
            &url,
            &[],
            serde_json::to_vec(&request).expect("JSON"),
        )
        .expect("an answer");
        assert_eq!(
            answer.status,
            201,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        let joined: EnrolmentAnswer =
            serde_json::from_slice(&answer.body).expect("an enrolment answer");
        let tls = tls(&ca, Some((&joined.certificate, &key)));
        let client = self::client(tls.clone());
        let door = joined.agents[0].trim_end_matches('/').to_owned();
        Self {
            id: NodeId::of(&key.public()),
            key,
            door,
            log: joined.log,
            tls,
            client,
        }
    }

    /// Asks for a challenge.
    pub fn challenge(&self) -> ChallengeAnswer {
        let answer = self
            .post("/agent/v1/challenge", &[], b"{}".to_vec())
            .expect("an answer");
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        serde_json::from_slice(&answer.body).expect("a challenge")
    }

    /// A statement that is right in every way, answering a fresh challenge, before `change` has its way with it.
    pub fn statement(&self, change: impl FnOnce(&mut Statement<Attestation>)) -> Envelope {
        let challenge = self.challenge();
        self.statement_after(&challenge.expected, Some(challenge.challenge), change)
    }

    /// The same at a given place in the sequence.
    pub fn statement_after(
        &self,
        at: &Expected,
        challenge: Option<String>,
        change: impl FnOnce(&mut Statement<Attestation>),
    ) -> Envelope {
        let mut statement = self.plain(at, challenge);
        change(&mut statement);
        Envelope::sign(statement.to_payload(), &self.key).expect("a signature")
    }

    /// Sends statements; `None` where the connection ends without an answer.
    pub fn send(&self, statements: &[Envelope]) -> Option<Answer> {
        let request = AttestationsRequest {
            statements: statements.to_vec(),
            quote: None,
        };
        self.post(
            "/agent/v1/attestations",
            &[],
            serde_json::to_vec(&request).expect("JSON"),
        )
    }

    /// Sends any body with any headers.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Option<Answer> {
        post(&self.client, &format!("{}{path}", self.door), headers, body)
    }

    /// `PUT` of any body at the agents' door.
    pub fn put(&self, path: &str, body: Vec<u8>) -> Option<Answer> {
        let request = self.client.put(format!("{}{path}", self.door)).body(body);
        RUNTIME.block_on(answer_of(request))
    }

    /// `GET` at any door with this node's certificate.
    pub fn get(&self, url: &str) -> Option<Answer> {
        RUNTIME.block_on(answer_of(self.client.get(url)))
    }

    /// Writes raw bytes into a TLS session with this node's certificate and gives what comes back until the door closes or is silent.
    pub fn shout(&self, bytes: &[u8]) -> String {
        let address = self.door.trim_start_matches("https://");
        let stream = TcpStream::connect(address).expect("the door");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let session = ClientConnection::new(Arc::new(self.tls.clone()), name).expect("a session");
        let mut session = StreamOwned::new(session, stream);
        let mut said = Vec::new();
        if session
            .write_all(bytes)
            .and_then(|()| session.flush())
            .is_ok()
        {
            session.read_to_end(&mut said).ok();
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    fn plain(&self, at: &Expected, challenge: Option<String>) -> Statement<Attestation> {
        let now = now();
        let watch = WatchCoverage {
            rung: Rung::A,
            limits: Vec::new(),
            limits_total: None,
        };
        let coverage = Coverage {
            watch,
            since: Some(now),
            read: Some(now),
            gaps: Vec::new(),
            gaps_total: None,
            unreadable: Vec::new(),
            unreadable_total: None,
            unsettled: Vec::new(),
            unsettled_total: None,
            mounts: Mounts {
                sha256: Digest::of(b"[]"),
                unexpected: Vec::new(),
                unexpected_total: None,
            },
        };
        let predicate = Attestation {
            log: self.log.clone(),
            sequence: at.sequence,
            previous: at.previous,
            boot: "00000000-0000-4000-8000-000000000000".to_owned(),
            issued: now,
            monotonic: 1,
            goodbye: false,
            rewound: false,
            challenge,
            checkpoint: None,
            image: None,
            entries: 0,
            local: Digest::ZERO,
            growing: Digest::ZERO,
            pins: None,
            coverage,
            differences: Vec::new(),
            differences_total: None,
            r#as: None,
            grown: Vec::new(),
            grown_total: None,
            touched: Vec::new(),
            touched_total: None,
            sessions: Vec::new(),
            sessions_total: None,
            agent: AgentFacts {
                version: "0".to_owned(),
                ..AgentFacts::default()
            },
            claims: vec![Assurance::Software],
            snapshot: None,
        };
        Statement::about(
            Subject::of_tree(self.id.to_string(), &Digest::ZERO),
            predicate,
        )
    }
}

/// What a statement was refused for, however it was said; `None` where it was taken.
pub fn refusal(answer: &Answer) -> Option<String> {
    let body = answer.json();
    let code = |value: &Value| value["code"].as_str().map(str::to_owned);
    if answer.status == 200 {
        code(&body["refused"])
    } else {
        Some(code(&body).unwrap_or_else(|| format!("HTTP {}", answer.status)))
    }
}

/// The clock, as statements have it.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    Timestamp::from_micros(i64::try_from(since.as_micros()).expect("before the year 294,000"))
}

/// A client without a certificate that trusts the agents' certificate authority.
pub fn anonymous(world: &World) -> reqwest::Client {
    client(tls(&authority(world), None))
}

/// A client with a certificate that nobody of importance signed.
pub fn self_signed(world: &World) -> reqwest::Client {
    let key = PrivateKey::generate(Algorithm::Ed25519).expect("a key");
    let pair = pair(&key);
    let parameters = rcgen::CertificateParams::new(vec![NodeId::of(&key.public()).to_string()])
        .expect("parameters");
    let certificate = parameters.self_signed(&pair).expect("a certificate").pem();
    client(tls(&authority(world), Some((&certificate, &key))))
}

/// Any `POST` with a client of one's own.
pub fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Option<Answer> {
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    RUNTIME.block_on(answer_of(request))
}

fn enrolment(key: &PrivateKey, name: &str, token: &JoinToken) -> EnrolmentRequest {
    let csr = rcgen::CertificateParams::new(vec![NodeId::of(&key.public()).to_string()])
        .and_then(|parameters| parameters.serialize_request(&pair(key)))
        .and_then(|request| request.pem())
        .expect("a certificate request");
    let predicate = Enrolment {
        name: name.to_owned(),
        csr,
        machine: None,
        replaces: None,
    };
    let statement = Statement::<Enrolment>::of_node(&key.public(), predicate);
    let statement = Envelope::sign(statement.to_payload(), key).expect("a signature");
    EnrolmentRequest {
        statement,
        token: Some(token.pair()),
    }
}

fn pair(key: &PrivateKey) -> rcgen::KeyPair {
    rcgen::KeyPair::try_from(key.pkcs8_der()).expect("a key pair")
}

fn authority(world: &World) -> RootCertStore {
    let pem = std::fs::read(&world.collector.first.ca)
        .expect("the certificate authority that init named");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    roots
}

fn tls(roots: &RootCertStore, identity: Option<(&str, &PrivateKey)>) -> ClientConfig {
    std::sync::LazyLock::force(&RUNTIME);
    let builder = ClientConfig::builder().with_root_certificates(roots.clone());
    match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .expect("PEM");
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec()));
            builder
                .with_client_auth_cert(chain, key)
                .expect("a client certificate")
        }
    }
}

fn client(tls: ClientConfig) -> reqwest::Client {
    let _runtime = RUNTIME.enter();
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(Duration::from_secs(30));
    builder.no_gzip().build().expect("a client")
}

async fn answer_of(request: reqwest::RequestBuilder) -> Option<Answer> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let content_type = kind.to_owned();
    Some(Answer {
        status,
        content_type,
        body: response.bytes().await.ok()?,
    })
}
