//! What `pristine-agent status` shows, over a socket in the state directory that only its owner may open.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::key::NodeId;
use attestation::statement::{Gap, WatchCoverage};
use attestation::time::Timestamp;
use attestation::verdict::Verdict;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::chain::ChainState;
use crate::transport::Transport;
use crate::transport::child::ChildStatus;
use crate::watch::Attributed;

/// The socket's name in the state directory.
pub const SOCKET: &str = "agent.sock";
/// No status is longer.
const STATUS_BYTES: u64 = 1024 * 1024;
/// A reader that takes longer is left alone.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of the agent. Members may be added, none is renamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version and commit.
    pub version: String,
    /// The node's id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// The last verdict heard.
    pub verdict: Option<Verdict>,
    /// Whether the last answer called the node fresh.
    pub fresh: bool,
    /// The image it compares with.
    pub image: Option<ImageStatus>,
    /// The attested tree.
    pub tree: Digest,
    /// Sealed entries.
    pub entries: u64,
    /// Differences from the image.
    pub differences: u64,
    /// How it watches.
    pub coverage: Option<WatchCoverage>,
    /// How it is found out who did something.
    #[serde(default)]
    pub attribution: Option<Attributed>,
    /// Watching without a gap since.
    pub since: Option<Timestamp>,
    /// All content read since.
    pub read: Option<Timestamp>,
    /// How the view began.
    #[serde(default)]
    pub baseline: Option<BaselineStatus>,
    /// Gaps not closed yet.
    pub gaps: Vec<Gap>,
    /// Objects that cannot be read.
    pub unreadable: u64,
    /// The next sequence.
    pub sequence: u64,
    /// The spool.
    pub spool: SpoolStatus,
    /// The collector spoken to.
    pub collector: CollectorStatus,
    /// What the agent costs.
    pub cost: Cost,
    /// The agent's process.
    #[serde(default)]
    pub pid: Option<u32>,
    /// The process that speaks with the network, where there is one.
    #[serde(default)]
    pub network: Option<ChildStatus>,
}

/// What the agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing is assigned to it.
    Pending,
    /// It reads the root for the first time.
    Scanning,
    /// It watches.
    Watching,
    /// It cannot look at its root.
    Blind,
    /// It says goodbye.
    Stopping,
}

/// The image compared with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its payload.
    pub payload: Digest,
}

/// The look at everything that the view began with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BaselineStatus {
    /// Sealed entries.
    pub entries: u64,
    /// Those of them that were known from before, by the index or the view before, and not read.
    pub known: u64,
    /// Content bytes that were read.
    pub bytes: u64,
}

/// What waits to be sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Statements without a receipt.
    pub waiting: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why the disk takes no write.
    pub failing: Option<String>,
}

impl From<ChainState> for SpoolStatus {
    fn from(state: ChainState) -> Self {
        Self {
            waiting: state.waiting,
            bytes: state.waiting_bytes,
            failing: state.failing,
        }
    }
}

/// The connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// The door spoken to.
    pub url: Option<String>,
    /// The last answer.
    pub last_contact: Option<Timestamp>,
    /// Why there is none at the moment.
    pub error: Option<String>,
}

/// What the agent has cost since it started, its network process included.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds of processor time.
    pub cpu_seconds: f64,
    /// Resident bytes.
    pub memory_bytes: u64,
    /// Bytes read by system calls.
    pub read_bytes: u64,
}

/// The status as it is kept up to date.
#[derive(Clone, Debug)]
pub struct Board {
    status: Arc<Mutex<Status>>,
    network: Arc<OnceLock<Transport>>,
}

impl Board {
    /// A board for a node that has just started.
    pub fn new(node: NodeId, name: String) -> Self {
        let status = Status {
            version: crate::VERSION.to_owned(),
            node,
            name,
            state: State::Pending,
            verdict: None,
            fresh: false,
            image: None,
            tree: Digest::ZERO,
            entries: 0,
            differences: 0,
            coverage: None,
            attribution: None,
            since: None,
            read: None,
            baseline: None,
            gaps: Vec::new(),
            unreadable: 0,
            sequence: 0,
            spool: SpoolStatus::default(),
            collector: CollectorStatus::default(),
            cost: Cost::default(),
            pid: Some(std::process::id()),
            network: None,
        };
        Self {
            status: Arc::new(Mutex::new(status)),
            network: Arc::default(),
        }
    }

    /// Whose process is shown, and counted among what the agent costs.
    pub fn show_network(&self, transport: Transport) {
        // The first stays: there is one way to the network as long as the agent runs.
        drop(self.network.set(transport));
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The state at this moment, cost included.
    pub fn snapshot(&self) -> Status {
        let mut status = self
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        status.network = self.network.get().and_then(Transport::status);
        let child = status.network.as_ref().and_then(|network| network.pid);
        status.cost = cost(child);
        status
    }
}

/// Why the status is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No agent listens, or this user may not ask it.
    #[error("ask the agent at {path} (is it running?)", path = path.display())]
    Ask {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What came is no status.
    #[error("read the agent's status")]
    Content(#[source] serde_json::Error),
    /// The socket cannot be made.
    #[error("listen at {path}", path = path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Answers everyone who connects, until dropped.
pub async fn serve(state: &Path, board: Board) -> Result<std::convert::Infallible, StatusError> {
    let path = state.join(SOCKET);
    let failed = |source| StatusError::Listen {
        path: path.clone(),
        source,
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // The state directory lets nobody else in, also in the moment before the mode is set.
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, answer(stream, &board)).await
                {
                    tracing::debug!(%error, "answer a question for the status");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the status socket");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Asks a running agent.
pub async fn ask(state: &Path) -> Result<Status, StatusError> {
    let path = state.join(SOCKET);
    let failed = |source| StatusError::Ask {
        path: path.clone(),
        source,
    };
    let stream = UnixStream::connect(&path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.take(STATUS_BYTES).read_to_end(&mut bytes))
        .await
        .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(StatusError::Content)
}

/// The status for people.
pub fn text(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    let ago = |at: Option<Timestamp>| {
        at.map_or_else(
            || "never".to_owned(),
            |at| format!("{} s ago", now.micros_since(at) / 1_000_000),
        )
    };
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let mut row = |name: &str, value: String| {
        out.push_str(&format!("{name:<13}{value}\n"));
    };
    row("node", format!("{} ({})", status.name, status.node));
    row("state", format!("{:?}", status.state).to_lowercase());
    row(
        "verdict",
        status
            .verdict
            .map_or_else(|| "none yet".to_owned(), |verdict| verdict.to_string()),
    );
    if let Some(image) = &status.image {
        row(
            "image",
            format!("{} {} ({})", image.name, image.version, image.payload),
        );
    }
    row(
        "tree",
        format!(
            "{} ({} entries, {} differences)",
            status.tree, status.entries, status.differences
        ),
    );
    if let Some(coverage) = &status.coverage {
        row("watch", format!("rung {}", coverage.rung));
        let told = status.attribution.iter().flat_map(|who| &who.limits);
        let told: Vec<&String> = told.collect();
        for limit in coverage.limits.iter().filter(|it| !told.contains(it)) {
            row("  limit", limit.clone());
        }
    }
    if let Some(attribution) = &status.attribution {
        row("who", who(attribution).to_owned());
        for limit in &attribution.limits {
            row("  limit", limit.clone());
        }
    }
    row(
        "watching",
        format!("without a gap since {}", moment(status.since)),
    );
    row("read", format!("all content since {}", moment(status.read)));
    row("unreadable", status.unreadable.to_string());
    for gap in &status.gaps {
        row("  gap", format!("from {} ({})", gap.from, gap.cause));
    }
    row("sequence", status.sequence.to_string());
    row(
        "spool",
        format!(
            "{} waiting, {} bytes",
            status.spool.waiting, status.spool.bytes
        ),
    );
    if let Some(failing) = &status.spool.failing {
        row("  disk", failing.clone());
    }
    row(
        "collector",
        format!(
            "{}, last answer {}",
            status.collector.url.as_deref().unwrap_or("none"),
            ago(status.collector.last_contact)
        ),
    );
    if let Some(error) = &status.collector.error {
        row("  error", error.clone());
    }
    if let Some(network) = &status.network {
        row("network", network_line(network));
        for missing in &network.missing {
            row("  limit", missing.clone());
        }
    }
    let megabytes = |bytes: u64| bytes / (1024 * 1024);
    row(
        "cost",
        format!(
            "{:.2} s of CPU, {} MiB resident, {} MiB read",
            status.cost.cpu_seconds,
            megabytes(status.cost.memory_bytes),
            megabytes(status.cost.read_bytes)
        ),
    );
    out
}

fn who(attribution: &Attributed) -> &'static str {
    if attribution.followed {
        "processes are followed from their start (cn_proc)"
    } else {
        "processes are not followed (no cn_proc)"
    }
}

/// The network process in a line.
fn network_line(network: &ChildStatus) -> String {
    match (network.pid, &network.error) {
        (Some(pid), _) => {
            let uid = network
                .uid
                .map_or_else(|| "?".to_owned(), |uid| uid.to_string());
            let confined = if network.confined {
                "confined"
            } else {
                "not confined"
            };
            format!(
                "process {pid}, uid {uid}, {confined}, started {} times",
                network.starts
            )
        }
        (None, Some(error)) => format!("no process: {error}"),
        (None, None) => "no process yet".to_owned(),
    }
}

async fn answer(mut stream: UnixStream, board: &Board) -> io::Result<()> {
    let bytes = serde_json::to_vec(&board.snapshot())?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Of this process, and of the one that speaks with the network.
fn cost(child: Option<u32>) -> Cost {
    use procfs::process::Process;
    let child = child
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(|pid| Process::new(pid).ok());
    let mut cost = Cost::default();
    for process in Process::myself().ok().into_iter().chain(child) {
        if let Ok(stat) = process.stat() {
            let ticks = u32::try_from(stat.utime.saturating_add(stat.stime)).unwrap_or(u32::MAX);
            let per_second = u32::try_from(procfs::ticks_per_second())
                .unwrap_or(100)
                .max(1);
            cost.cpu_seconds += f64::from(ticks) / f64::from(per_second);
            cost.memory_bytes += stat.rss.saturating_mul(procfs::page_size());
        }
        if let Ok(io) = process.io() {
            cost.read_bytes += io.rchar;
        }
    }
    cost
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use attestation::statement::Rung;

    use super::*;

    #[test]
    fn who_cannot_be_told_stands_once_and_below_who() {
        let node = serde_json::from_str(&format!("\"{}\"", "ab".repeat(16))).unwrap();
        let board = Board::new(node, "web-1".to_owned());
        let shown = |followed, limits: &[&str]| {
            let limits: Vec<String> = limits.iter().map(|it| (*it).to_owned()).collect();
            board.update(|status| {
                status.coverage = Some(WatchCoverage {
                    rung: Rung::A,
                    limits: [vec!["of the watch".to_owned()], limits.clone()].concat(),
                    limits_total: None,
                });
                status.attribution = Some(Attributed { followed, limits });
            });
            let text = text(&board.snapshot(), Timestamp::from_micros(0));
            let rows = text.lines().skip_while(|row| !row.starts_with("watch "));
            let rows = rows.take_while(|row| !row.starts_with("watching"));
            rows.map(str::to_owned).collect::<Vec<_>>()
        };
        let rows = shown(true, &[]);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(
            rows[2].starts_with("who ") && rows[2].contains("are followed"),
            "{rows:?}"
        );
        let rows = shown(false, &["nobody after he is gone"]);
        assert_eq!(rows.len(), 4, "{rows:?}");
        assert!(rows[2].contains("not followed"), "{rows:?}");
        assert_eq!(rows[3], "  limit      nobody after he is gone");
    }
}
