//! Ready values: parsed, checked, secrets read. What `config` makes of a file, and what `up` fills by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use attestation::scope::Scope;
use attestation::wire::PublisherKeys;
use lettre::message::Mailbox;
use zeroize::Zeroizing;

use crate::approvals::Approvals;
use crate::violations::view::{Kind, Severity};

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
    /// Programs that are told of each step of a violation.
    pub webhooks: Vec<Webhook>,
    /// The other channels, and what goes to which.
    pub alerts: AlertSettings,
    /// Where people reach the pages, for links in messages; found out from names and addresses where it is not configured.
    pub pages: Option<String>,
    /// How long what says nothing is kept.
    pub retention: Retention,
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
            alerts: AlertSettings::default(),
            pages: None,
            retention: Retention::default(),
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
    /// What routes and pages call it; its host where it has no name.
    pub name: Option<String>,
    /// Where to; also what its rows in the outbox are called where it has no name.
    pub url: String,
    /// `whsec_` and base64, or any text.
    pub secret: Zeroizing<String>,
    /// Whether the same change on many nodes is one event; without it each step of each violation is one.
    pub grouping: bool,
}

impl Webhook {
    /// One without a name that is told of each step of each violation.
    pub fn new(url: impl Into<String>, secret: impl Into<Zeroizing<String>>) -> Self {
        Self {
            name: None,
            url: url.into(),
            secret: secret.into(),
            grouping: false,
        }
    }
}

/// Channels beside webhooks, routes, and how long a message is gathered.
#[derive(Clone)]
pub struct AlertSettings {
    /// Incoming webhooks of Slack, and of what understands the same.
    pub slack: Vec<Slack>,
    /// Alertmanagers (API v2).
    pub alertmanagers: Vec<Alertmanager>,
    /// Mail, by SMTP over TLS.
    pub email: Vec<Email>,
    /// What goes to which channel; without any everything goes to all.
    pub routes: Vec<AlertRoute>,
    /// Seconds without another node after which a change has settled, and is told to a channel that cannot change what it was told.
    pub settle: u64,
    /// Seconds from the first node within which the same change is one message.
    pub window: u64,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            slack: Vec::new(),
            alertmanagers: Vec::new(),
            email: Vec::new(),
            routes: Vec::new(),
            settle: 2,
            window: 60,
        }
    }
}

/// One incoming webhook of Slack.
#[derive(Clone)]
pub struct Slack {
    /// What routes and pages call it.
    pub name: String,
    /// The whole address is a secret.
    pub url: Zeroizing<String>,
}

/// One Alertmanager.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    /// What routes and pages call it.
    pub name: String,
    /// Where its API begins, before `/api/v2`.
    pub url: String,
}

/// One list of people who get mail.
#[derive(Clone)]
pub struct Email {
    /// What routes and pages call it.
    pub name: String,
    /// The server's name, as its certificate has it.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted; there is no way without.
    pub security: MailSecurity,
    /// Whom the mail comes from.
    pub from: Mailbox,
    /// Who gets it.
    pub to: Vec<Mailbox>,
    /// Account and password, where the server asks for them.
    pub login: Option<(String, Zeroizing<String>)>,
    /// PEM of the only authority that is trusted for this server; the system's without.
    pub ca: Option<String>,
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// From the first byte on (port 465).
    Tls,
    /// After `STARTTLS`, which the server must offer.
    StartTls,
}

/// What goes to some channels. Every condition that is there must hold.
#[derive(Clone, Debug)]
pub struct AlertRoute {
    /// Names of channels.
    pub channels: Vec<String>,
    /// At least so grave.
    pub severity: Severity,
    /// Of these groups; of all where none is named.
    pub groups: Vec<String>,
    /// Of these kinds; of all where none is named.
    pub kinds: Vec<Kind>,
    /// At paths that these rules seal; anywhere, and without a path, where there are none.
    pub paths: Option<Scope>,
}

/// Days that something is kept; 0 is for ever. Violations, activity, changes of verdicts and every statement that says something are
/// kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Evidence of quiet attestations.
    pub attestations: u32,
    /// Messages that were accepted.
    pub deliveries: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            attestations: 30,
            deliveries: 90,
        }
    }
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
