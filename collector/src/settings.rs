//! Ready values: parsed, checked, secrets read. What `config` makes of a file, and what `up` fills by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use attestation::wire::PublisherKeys;
use zeroize::Zeroizing;

use crate::approvals::Approvals;

/// Everything the collector needs to know to start.
#[derive(Clone)]
pub struct CollectorSettings {
    /// Keys, database and manifests lie below this directory.
    pub state: PathBuf,
    /// The agents' door (mutual TLS). Port 0 is allowed: the bound address is told.
    pub agents: SocketAddr,
    /// The joining door (TLS without client certificates).
    pub join: SocketAddr,
    /// The people's door.
    pub ops: SocketAddr,
    /// Names of this server, for certificates and for URLs in tokens and answers.
    pub names: Vec<String>,
    /// The log's origin: its scheme-less URL.
    pub origin: String,
    /// Certificate and key of the people's door; plain HTTP without, which only loopback may have.
    pub tls: Option<TlsFiles>,
    /// Whose images are accepted, by image name.
    pub publishers: Vec<PublisherKeys>,
    /// Seconds between two heartbeats of a node.
    pub interval: u64,
    /// Who is told of each step of a violation.
    pub webhooks: Vec<Webhook>,
    /// Bounds that a big fleet or a small disk may need to move.
    pub limits: Limits,
    /// How many persons an assignment or an exception takes.
    pub approvals: Approvals,
    /// Whether the journal is printed on standard output; `up` prints its own lines.
    pub journal: bool,
}

impl CollectorSettings {
    /// The defaults of COMMANDS.md over a state directory.
    pub fn new(state: PathBuf) -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            state,
            agents: SocketAddr::new(any, 8443),
            join: SocketAddr::new(any, 8444),
            ops: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            origin: "localhost/log".to_owned(),
            tls: None,
            publishers: Vec::new(),
            interval: 30,
            webhooks: Vec::new(),
            limits: Limits::default(),
            approvals: Approvals::default(),
            journal: true,
        }
    }
}

/// Files of the people's door certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key, readable by the collector alone.
    pub key: PathBuf,
}

/// One webhook: where to, and the secret that signs (Standard Webhooks).
#[derive(Clone)]
pub struct Webhook {
    /// Where to; also the name of the channel in the outbox.
    pub url: String,
    /// `whsec_` and base64, or any text.
    pub secret: Zeroizing<String>,
}

/// Bounds, with the defaults of DESIGN.md.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections at a door.
    pub connections: usize,
    /// Statements a node may send per second, sustained.
    pub statements_per_second: u32,
    /// Statements a node may send at once.
    pub statements_burst: u32,
    /// Uncompressed bytes a node may send a day.
    pub bytes_per_day: u64,
    /// The largest compressed manifest that is taken.
    pub manifest: u64,
    /// Requests that one address may send to the joining door per second, sustained.
    pub joins_per_second: u32,
    /// And at once: a rack that starts behind one address.
    pub joins_burst: u32,
    /// Seconds that a node's certificate is good; agents renew when two thirds are over.
    pub node_certificate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            statements_per_second: 10,
            statements_burst: 600,
            bytes_per_day: 64 << 20,
            manifest: 1 << 30,
            joins_per_second: 10,
            joins_burst: 50,
            node_certificate: 90 * 86_400,
        }
    }
}
