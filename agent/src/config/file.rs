//! The configuration file: as it is written, then made into values that are ready for use, keys loaded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use attestation::configuration;
use attestation::digest::Digest;
use attestation::key::PublicKey;
use serde::Deserialize;

use super::trusted::read;
use super::{AgentSettings, ConfigError, Publisher, default_state};
use crate::actor::Collect;

/// The least that holds a few of the largest statements.
const SPOOL_LEAST: u64 = 16 * 1024 * 1024;

/// The longest time between two rescans: what no event tells is found no later.
const RESCAN_MOST: u64 = 600;

/// The configuration of the agent.
pub struct AgentConfig;

impl AgentConfig {
    /// Reads, checks and completes a configuration file.
    pub fn load(path: &Path) -> Result<AgentSettings, ConfigError> {
        let text = read(path)?;
        let raw: Raw = toml::from_str(&text).map_err(|error| ConfigError::Line {
            path: path.to_owned(),
            line: configuration::line_of(&text, error.span().map_or(0, |span| span.start)),
            reason: configuration::reason(error.message()),
        })?;
        let mut settings = raw
            .ready()
            .map_err(|(key, reason)| value(path, key, reason))?;
        settings.config_sha256 = Some(Digest::of(text.as_bytes()));
        for publisher in raw.publishers {
            settings.publishers.push(ready_publisher(path, publisher)?);
        }
        Ok(settings)
    }
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

/// A key whose value cannot be used, and why.
type Unusable = (&'static str, String);

impl Raw {
    /// The values, but for the publishers, whose keys are files of their own.
    fn ready(&self) -> Result<AgentSettings, Unusable> {
        let mut settings = AgentSettings::new(
            self.root.clone().unwrap_or_else(|| PathBuf::from("/")),
            self.state.clone().unwrap_or_else(default_state),
        );
        let other = |collector: &&String| !collector.starts_with("https://");
        if let Some(collector) = self.collectors.iter().find(other) {
            return Err(("collectors", format!("{collector:?} is no https:// URL")));
        }
        settings.collectors.clone_from(&self.collectors);
        settings.ca.clone_from(&self.ca);
        if self.interval == Some(0) {
            return Err(("interval", "must be at least 1 second".to_owned()));
        }
        settings.interval = self.interval.map(Duration::from_secs);
        if self
            .rescan
            .is_some_and(|seconds| !(1..=RESCAN_MOST).contains(&seconds))
        {
            return Err(("rescan", format!("must be 1 to {RESCAN_MOST} seconds")));
        }
        settings.rescan = self.rescan.map(Duration::from_secs);
        settings.cmdline = self.cmdline.unwrap_or(true);
        settings.sessions = self.sessions.unwrap_or_default();
        settings.arguments = self.arguments.unwrap_or(false);
        if settings.arguments && settings.sessions != Collect::Commands {
            let reason = "is for `sessions = \"commands\"` only".to_owned();
            return Err(("arguments", reason));
        }
        self.limits.set(&mut settings)?;
        Ok(settings)
    }
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

impl RawLimits {
    fn set(&self, settings: &mut AgentSettings) -> Result<(), Unusable> {
        if let Some(limit) = &self.spool {
            let bytes = limit.bytes().map_err(|reason| ("limits.spool", reason))?;
            if bytes < SPOOL_LEAST {
                return Err(("limits.spool", "must be at least 16MiB".to_owned()));
            }
            settings.spool_limit = bytes;
        }
        if let Some(limit) = &self.memory {
            let bytes = limit.bytes().map_err(|reason| ("limits.memory", reason))?;
            settings.memory_limit = Some(bytes);
        }
        if let Some(percent) = self.reread_cpu {
            if !(0.0..=100.0).contains(&percent) {
                let reason = "is a percentage of one core".to_owned();
                return Err(("limits.reread_cpu", reason));
            }
            settings.reread_cpu = percent;
        }
        Ok(())
    }
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

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
}
