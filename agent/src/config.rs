//! The configuration in two stages: the file as written, then values that are ready for use, keys loaded.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::key::PublicKey;
use serde::Deserialize;

use crate::actor::Collect;
use crate::transport::Network;

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/pristine/agent.toml";

/// No configuration of ours is longer; a larger file is not one.
const FILE_LIMIT: u64 = 1024 * 1024;

/// The least that holds a few of the largest statements.
const SPOOL_LEAST: u64 = 16 * 1024 * 1024;

/// The longest time between two rescans: what no event tells is found no later.
const RESCAN_MOST: u64 = 600;

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

/// The configuration of the agent.
pub struct AgentConfig;

impl AgentConfig {
    /// Reads, checks and completes a configuration file.
    pub fn load(path: &Path) -> Result<AgentSettings, ConfigError> {
        let text = read(path)?;
        let raw: Raw = toml::from_str(&text).map_err(|error| refusal(path, &text, &error))?;
        let mut settings = AgentSettings::new(
            raw.root.unwrap_or_else(|| PathBuf::from("/")),
            raw.state.unwrap_or_else(default_state),
        );
        settings.config_sha256 = Some(Digest::of(text.as_bytes()));
        settings.collectors = raw.collectors;
        for collector in &settings.collectors {
            if !collector.starts_with("https://") {
                return Err(value(
                    path,
                    "collectors",
                    format!("{collector:?} is no https:// URL"),
                ));
            }
        }
        settings.ca = raw.ca;
        for publisher in raw.publishers {
            settings.publishers.push(ready_publisher(path, publisher)?);
        }
        settings.interval = raw.interval.map(Duration::from_secs);
        if settings.interval == Some(Duration::ZERO) {
            return Err(value(
                path,
                "interval",
                "must be at least 1 second".to_owned(),
            ));
        }
        settings.rescan = raw.rescan.map(Duration::from_secs);
        if raw
            .rescan
            .is_some_and(|seconds| !(1..=RESCAN_MOST).contains(&seconds))
        {
            let reason = format!("must be 1 to {RESCAN_MOST} seconds");
            return Err(value(path, "rescan", reason));
        }
        settings.cmdline = raw.cmdline.unwrap_or(true);
        settings.sessions = raw.sessions.unwrap_or_default();
        settings.arguments = raw.arguments.unwrap_or(false);
        if settings.arguments && settings.sessions != Collect::Commands {
            let reason = "is for `sessions = \"commands\"` only".to_owned();
            return Err(value(path, "arguments", reason));
        }
        if let Some(limit) = raw.limits.spool {
            settings.spool_limit = limit
                .bytes()
                .map_err(|reason| value(path, "limits.spool", reason))?;
            if settings.spool_limit < SPOOL_LEAST {
                return Err(value(
                    path,
                    "limits.spool",
                    "must be at least 16MiB".to_owned(),
                ));
            }
        }
        if let Some(limit) = raw.limits.memory {
            let bytes = limit
                .bytes()
                .map_err(|reason| value(path, "limits.memory", reason))?;
            settings.memory_limit = Some(bytes);
        }
        if let Some(percent) = raw.limits.reread_cpu {
            if !(0.0..=100.0).contains(&percent) {
                return Err(value(
                    path,
                    "limits.reread_cpu",
                    "is a percentage of one core".to_owned(),
                ));
            }
            settings.reread_cpu = percent;
        }
        Ok(settings)
    }
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    root: Option<PathBuf>,
    state: Option<PathBuf>,
    #[serde(default)]
    collectors: Vec<String>,
    ca: Option<PathBuf>,
    #[serde(default)]
    publishers: Vec<RawPublisher>,
    interval: Option<u64>,
    rescan: Option<u64>,
    sessions: Option<Collect>,
    arguments: Option<bool>,
    cmdline: Option<bool>,
    #[serde(default)]
    limits: RawLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublisher {
    image: String,
    keys: Vec<PathBuf>,
    #[serde(default = "one")]
    threshold: usize,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    spool: Option<Size>,
    reread_cpu: Option<f64>,
    memory: Option<Size>,
}

/// A number of bytes, or one with a binary unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Shown(String),
}

impl Size {
    fn bytes(&self) -> Result<u64, String> {
        let text = match self {
            Size::Bytes(bytes) => return Ok(*bytes),
            Size::Shown(text) => text.trim(),
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text.get(digits.len()..).unwrap_or_default() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            unit => return Err(format!("unknown unit {unit:?}; write KiB, MiB or GiB")),
        };
        digits
            .trim_end()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or_else(|| format!("{text:?} is no size; write for example \"64MiB\""))
    }
}

const fn one() -> usize {
    1
}

fn value(path: &Path, key: &'static str, reason: String) -> ConfigError {
    ConfigError::Value {
        path: path.to_owned(),
        key,
        reason,
    }
}

/// Whether only its owner may write a file, and only its owner and root may put another in its place.
pub fn who_may_write(path: &Path) -> Result<(), ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(ConfigError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    // The way that was named, and the one that its links lead to.
    let named = std::path::absolute(path).map_err(failed)?;
    let real = fs::canonicalize(path).map_err(failed)?;
    for directory in named.ancestors().skip(1).chain(real.ancestors().skip(1)) {
        let metadata = fs::metadata(directory).map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o7777;
        let why = if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            format!("writable by group or others (mode {mode:04o})")
        } else if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
            format!("user {}'s", metadata.uid())
        } else {
            continue;
        };
        return Err(ConfigError::Replaceable {
            path: path.to_owned(),
            directory: directory.to_owned(),
            why,
        });
    }
    Ok(())
}

/// Reads a file that nobody else may write or replace.
fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    who_may_write(path)?;
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.len() > FILE_LIMIT {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    fs::read_to_string(path).map_err(failed)
}

fn ready_publisher(path: &Path, raw: RawPublisher) -> Result<Publisher, ConfigError> {
    let mut keys = Vec::new();
    for file in &raw.keys {
        let pem = read(file)?;
        let key = PublicKey::from_pem(&pem).map_err(|error| {
            value(
                path,
                "publishers",
                format!("{}: {}", file.display(), crate::journal::chain(&error)),
            )
        })?;
        keys.push(key);
    }
    if raw.threshold == 0 || raw.threshold > keys.len() {
        let reason = format!(
            "image {:?}: threshold {} of {} keys",
            raw.image,
            raw.threshold,
            keys.len()
        );
        return Err(value(path, "publishers", reason));
    }
    Ok(Publisher {
        image: raw.image,
        keys,
        threshold: raw.threshold,
    })
}

/// The line and the reason, in words that name the nearest right key.
fn refusal(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = 1 + text
        .as_bytes()
        .iter()
        .take(start)
        .filter(|byte| **byte == b'\n')
        .count();
    ConfigError::Line {
        path: path.to_owned(),
        line,
        reason: unknown_key(error.message()).unwrap_or_else(|| error.message().to_owned()),
    }
}

/// Turns serde's "unknown field `a`, expected one of `b`, `c`" into a question.
fn unknown_key(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, expected) = rest.split_once('`')?;
    let nearest = expected
        .split('`')
        .skip(1)
        .step_by(2)
        .min_by_key(|candidate| edits(key, candidate))?;
    if edits(key, nearest) > nearest.len().div_ceil(2) {
        return Some(format!("unknown key {key:?}"));
    }
    Some(format!("unknown key {key:?}; did you mean {nearest:?}?"))
}

/// How many letters must be put in, taken out or replaced.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = index;
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
        for column in 0..to.len() {
            let above = row.get(column + 1).copied().unwrap_or(0);
            let left = row.get(column).copied().unwrap_or(0);
            let replaced = diagonal + usize::from(to.get(column) != Some(&letter));
            let best = replaced.min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(column + 1) {
                *cell = best;
            }
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<AgentSettings, String> {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        AgentConfig::load(&path).map_err(|error| {
            error
                .to_string()
                .replace(&path.display().to_string(), "agent.toml")
        })
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_right_one() {
        let error = load("root = \"/\"\n\nintervall = 30\n").unwrap_err();
        assert_eq!(
            error,
            "read agent.toml: line 3: unknown key \"intervall\"; did you mean \"interval\"?"
        );
        let error = load("root = \"/\"\n[limits]\nspol = 1\n").unwrap_err();
        assert_eq!(
            error,
            "read agent.toml: line 3: unknown key \"spol\"; did you mean \"spool\"?"
        );
        let error = load("zzzzzzzz = 1\n").unwrap_err();
        assert_eq!(error, "read agent.toml: line 1: unknown key \"zzzzzzzz\"");
    }

    #[test]
    fn a_wrong_value_names_its_line() {
        let error = load("root = \"/\"\ninterval = \"soon\"\n").unwrap_err();
        assert!(
            error.starts_with("read agent.toml: line 2: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("agent.toml");
        fs::write(&path, "root = \"/\"\n").unwrap();
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(
                AgentConfig::load(&path),
                Err(ConfigError::Writable { .. })
            ));
        }
    }

    #[test]
    fn a_file_that_others_may_replace_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let open = scratch.path().join("open");
        let inner = open.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let path = inner.join("agent.toml");
        fs::write(&path, "root = \"/\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let link = scratch.path().join("linked.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (mode, refused) in [
            (0o755, false),
            (0o775, true),
            (0o777, true),
            (0o1777, false),
        ] {
            fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
            for path in [&path, &link] {
                let loaded = AgentConfig::load(path);
                assert_eq!(
                    matches!(loaded, Err(ConfigError::Replaceable { .. })),
                    refused,
                    "{mode:o}"
                );
            }
        }
    }

    #[test]
    fn values_become_ready_ones() {
        let settings = load(
            "root = \"/srv\"\nstate = \"/var/lib/x\"\ncollectors = [\"https://c:8443\"]\n\
             interval = 5\ncmdline = false\n[limits]\nspool = \"32MiB\"\n",
        )
        .unwrap();
        assert_eq!(settings.root, PathBuf::from("/srv"));
        assert_eq!(settings.interval, Some(Duration::from_secs(5)));
        assert_eq!(settings.spool_limit, 32 << 20);
        assert!(!settings.cmdline && !settings.arguments);
        assert_eq!(settings.sessions, Collect::Commands);
        let settings = load("sessions = \"logins\"\n").unwrap();
        assert_eq!(settings.sessions, Collect::Logins);
        assert!(load("arguments = true\n").unwrap().arguments);
        let refused = load("sessions = \"logins\"\narguments = true\n").unwrap_err();
        assert!(refused.contains("arguments"));
        assert_eq!(
            load("rescan = 5\n").unwrap().rescan,
            Some(Duration::from_secs(5))
        );
        for wrong in ["rescan = 0\n", "rescan = 601\n"] {
            assert!(load(wrong).unwrap_err().contains("1 to 600"));
        }
        assert!(
            load("collectors = [\"http://c\"]\n")
                .unwrap_err()
                .contains("https://")
        );
        assert!(
            load("[limits]\nspool = \"3 parsecs\"\n")
                .unwrap_err()
                .contains("unknown unit")
        );
        assert!(
            load("[limits]\nspool = \"1MiB\"\n")
                .unwrap_err()
                .contains("at least")
        );
    }

    #[test]
    fn edit_distance_counts_letters() {
        assert_eq!(edits("intervall", "interval"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
