//! What the agent runs with, and why a configuration is refused.

mod file;
mod trusted;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use attestation::digest::Digest;
use attestation::key::PublicKey;

use crate::actor::Collect;
use crate::transport::Network;

pub use self::file::AgentConfig;
pub use self::trusted::who_may_write;

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/pristine/agent.toml";

/// What the agent runs with. `up` fills it without a file.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// The attested root.
    pub root: PathBuf,
    /// The state directory, 0700.
    pub state: PathBuf,
    /// The agents' doors, tried in turn; empty: those given at enrolment.
    pub collectors: Vec<String>,
    /// A CA certificate (PEM) that the agents' door must show; absent: the one given at enrolment.
    pub ca: Option<PathBuf>,
    /// Who may sign which image; for names that are not here the keys pinned at enrolment count.
    pub publishers: Vec<Publisher>,
    /// Shorter than the collector's interval, or nothing.
    pub interval: Option<Duration>,
    /// Time between two looks at the metadata of everything, or nothing: ten minutes.
    pub rescan: Option<Duration>,
    /// Whether command lines of actors are attested.
    pub cmdline: bool,
    /// What is collected of logins.
    pub sessions: Collect,
    /// Whether the arguments of commands in them are: they can hold secrets.
    pub arguments: bool,
    /// Bytes of disk for the spool.
    pub spool_limit: u64,
    /// Resident bytes that the agent allows itself, or nothing: what its control group allows.
    pub memory_limit: Option<u64>,
    /// Threads of a scan; 0: as many as there are processors.
    pub scan_threads: usize,
    /// How much of one processor, in percent, reading all content again may take.
    pub reread_cpu: f64,
    /// What this machine is called by its firmware, instead of asking; no file sets it.
    pub machine: Option<String>,
    /// SHA-256 of the configuration file, for the statement, where there is one.
    pub config_sha256: Option<Digest>,
    /// Where the network's words are parsed: the daemon has a process for that.
    pub network: Network,
}

/// The keys that may sign images of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The image's name.
    pub image: String,
    /// Their keys.
    pub keys: Vec<PublicKey>,
    /// How many of them must have signed.
    pub threshold: usize,
}

impl AgentSettings {
    /// The defaults for a root and a state directory.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
            collectors: Vec::new(),
            ca: None,
            publishers: Vec::new(),
            interval: None,
            rescan: None,
            cmdline: true,
            sessions: Collect::default(),
            arguments: false,
            spool_limit: 64 * 1024 * 1024,
            memory_limit: None,
            scan_threads: 0,
            reread_cpu: 1.0,
            machine: None,
            config_sha256: None,
            network: Network::InProcess,
        }
    }

    /// The machine that this is, where it says which.
    pub fn machine(&self) -> Option<String> {
        self.machine.clone().or_else(crate::identity::machine)
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else than its owner may write it.
    #[error("read {path}: group or others may write it (mode {mode:04o}); chmod go-w {path}", path = path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else may put another file in its place.
    #[error("read {path}: others may replace it, for {directory} is {why}; give that directory to root, mode 0755", path = path.display(), directory = directory.display())]
    Replaceable {
        /// The file.
        path: PathBuf,
        /// The directory on the way to it.
        directory: PathBuf,
        /// Who may write that.
        why: String,
    },
    /// It is larger than any configuration.
    #[error("read {path}: larger than 1 MiB", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line of it is wrong.
    #[error("read {path}: line {line}: {reason}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// A value cannot be used.
    #[error("read {path}: {key}: {reason}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Why.
        reason: String,
    },
}

/// `/var/lib/pristine/agent` for root; without root a directory below `$XDG_STATE_HOME`.
pub fn default_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pristine/agent");
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("."));
    base.join("pristine/agent")
}
