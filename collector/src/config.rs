//! The configuration file: raw TOML first, then ready values. An unknown key is refused with its line and the nearest right one.

mod alerts;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use attestation::configuration;
use attestation::key::PublicKey;
use attestation::wire::PublisherKeys;
use serde::Deserialize;

use crate::approvals::Approvals;
use crate::files::{self, FileError};
use crate::settings::{CollectorSettings, Limits, Retention, TlsFiles};

#[cfg(test)]
pub(crate) use self::alerts::path_rules;

/// Where the configuration is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/pristine/collector.toml";

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no TOML, or a value has the wrong type, or a key is unknown.
    #[error("read {}: line {line}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value makes no sense.
    #[error("read {}: {key}: {reason}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// Why not.
        reason: String,
    },
}

/// Seconds: below this a node would do little but renew.
const LEAST_CERTIFICATE: u64 = 5;
/// And no certificate outlives its authority.
const MOST_CERTIFICATE: u64 = 3_650 * 86_400;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    state: Option<PathBuf>,
    agents: Option<String>,
    join: Option<String>,
    ops: Option<String>,
    names: Option<Vec<String>>,
    origin: Option<String>,
    tls: Option<RawTls>,
    publishers: Vec<RawPublisher>,
    interval: Option<u64>,
    approvals: Approvals,
    pages: Option<String>,
    webhook: Vec<alerts::RawWebhook>,
    slack: Vec<alerts::RawSlack>,
    alertmanager: Vec<alerts::RawAlertmanager>,
    email: Vec<alerts::RawEmail>,
    route: Vec<alerts::RawRoute>,
    alerts: alerts::RawTiming,
    retention: RawRetention,
    limits: RawLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
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
#[serde(deny_unknown_fields, default)]
struct RawRetention {
    attestations: Option<u32>,
    deliveries: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    connections: Option<usize>,
    statements_per_second: Option<u32>,
    statements_burst: Option<u32>,
    bytes_per_day: Option<u64>,
    manifest: Option<u64>,
    joins_per_second: Option<u32>,
    joins_burst: Option<u32>,
    node_certificate: Option<u64>,
}

fn one() -> usize {
    1
}

/// Reads a configuration file; the default one may be absent, which means the defaults.
pub fn load(path: Option<&Path>) -> Result<CollectorSettings, ConfigError> {
    let named = path.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    if path.is_none() && !named.exists() {
        return Ok(CollectorSettings::new(default_state()));
    }
    let text = files::read_trusted(named)?;
    let raw: Raw = toml::from_str(&text).map_err(|error| syntax(named, &text, &error))?;
    ready(named, raw)
}

/// `/var/lib/pristine/collector`, or below `$XDG_STATE_HOME` where that cannot be ours.
pub fn default_state() -> PathBuf {
    let system = PathBuf::from("/var/lib/pristine/collector");
    let root_owned = std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if root_owned || system.exists() {
        return system;
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    std::env::var_os("XDG_STATE_HOME")
        .map_or_else(|| home.join(".local/state"), PathBuf::from)
        .join("pristine/collector")
}

fn ready(path: &Path, raw: Raw) -> Result<CollectorSettings, ConfigError> {
    let base = path.parent().unwrap_or_else(|| Path::new("."));
    let bad = |key: &str, reason: String| ConfigError::Value {
        path: path.to_owned(),
        key: key.to_owned(),
        reason,
    };
    let mut settings = CollectorSettings::new(
        raw.state
            .map_or_else(default_state, |state| base.join(state)),
    );
    for (key, text, into) in [
        ("agents", raw.agents, &mut settings.agents),
        ("join", raw.join, &mut settings.join),
        ("ops", raw.ops, &mut settings.ops),
    ] {
        if let Some(text) = text {
            *into = address(&text).map_err(|reason| bad(key, reason))?;
        }
    }
    if let Some(names) = raw.names {
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(bad("names", "at least one name, none empty".to_owned()));
        }
        settings.names = names;
    }
    settings.origin = raw.origin.unwrap_or_else(|| {
        format!(
            "{}/log",
            settings.names.first().map_or("localhost", String::as_str)
        )
    });
    if settings.origin.contains("://") || settings.origin.is_empty() {
        return Err(bad("origin", "a URL without its scheme".to_owned()));
    }
    settings.interval = raw.interval.unwrap_or(settings.interval);
    if !(1..=86_400).contains(&settings.interval) {
        return Err(bad("interval", "between 1 and 86400 seconds".to_owned()));
    }
    settings.approvals = raw.approvals;
    settings.tls = raw.tls.map(|tls| TlsFiles {
        certificate: base.join(tls.certificate),
        key: base.join(tls.key),
    });
    if let Some(tls) = &settings.tls {
        files::read_secret(&tls.key)?;
    }
    for publisher in raw.publishers {
        settings
            .publishers
            .push(self::publisher(path, base, publisher)?);
    }
    if let Some(pages) = raw.pages {
        if !(pages.starts_with("https://") || pages.starts_with("http://")) {
            return Err(bad("pages", "an http or https URL".to_owned()));
        }
        settings.pages = Some(pages);
    }
    let told = alerts::Raw {
        webhook: raw.webhook,
        slack: raw.slack,
        alertmanager: raw.alertmanager,
        email: raw.email,
        route: raw.route,
        timing: raw.alerts,
    };
    alerts::ready(path, base, told, &mut settings)?;
    let usual = settings.retention;
    settings.retention = Retention {
        attestations: raw.retention.attestations.unwrap_or(usual.attestations),
        deliveries: raw.retention.deliveries.unwrap_or(usual.deliveries),
    };
    settings.limits = limits(&raw.limits);
    Ok(settings)
}

/// `IP:PORT`, or `:PORT` for every address, or a name that resolves.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    full.to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| format!("{text:?} is no address and port"))
}

fn publisher(path: &Path, base: &Path, raw: RawPublisher) -> Result<PublisherKeys, ConfigError> {
    let bad = |reason: String| ConfigError::Value {
        path: path.to_owned(),
        key: format!("publishers ({})", raw.image),
        reason,
    };
    if raw.keys.is_empty() || raw.threshold == 0 || raw.threshold > raw.keys.len() {
        return Err(bad(
            "a threshold between 1 and the number of keys".to_owned()
        ));
    }
    let mut keys = Vec::new();
    for file in &raw.keys {
        let file = base.join(file);
        let pem = files::read_trusted(&file)?;
        let key = PublicKey::from_pem(&pem)
            .map_err(|error| bad(format!("{}: {error}", file.display())))?;
        keys.push(key);
    }
    Ok(PublisherKeys {
        image: raw.image,
        keys,
        threshold: raw.threshold,
    })
}

fn limits(raw: &RawLimits) -> Limits {
    let usual = Limits::default();
    Limits {
        connections: raw.connections.unwrap_or(usual.connections).max(1),
        statements_per_second: raw
            .statements_per_second
            .unwrap_or(usual.statements_per_second)
            .max(1),
        statements_burst: raw
            .statements_burst
            .unwrap_or(usual.statements_burst)
            .max(1),
        bytes_per_day: raw.bytes_per_day.unwrap_or(usual.bytes_per_day),
        manifest: raw.manifest.unwrap_or(usual.manifest),
        joins_per_second: raw
            .joins_per_second
            .unwrap_or(usual.joins_per_second)
            .max(1),
        joins_burst: raw.joins_burst.unwrap_or(usual.joins_burst).max(1),
        node_certificate: raw
            .node_certificate
            .unwrap_or(usual.node_certificate)
            .clamp(LEAST_CERTIFICATE, MOST_CERTIFICATE),
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    ConfigError::Syntax {
        path: path.to_owned(),
        line: configuration::line_of(text, error.span().map_or(0, |span| span.start)),
        message: configuration::reason(error.message()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("collector.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn an_unknown_key_is_named_with_line_and_nearest() {
        let (_dir, path) = written("state = \"s\"\nintervall = 3\n", 0o644);
        let message = load(Some(&path)).err().unwrap().to_string();
        assert!(
            message.ends_with(": line 2: unknown key \"intervall\"; did you mean \"interval\"?"),
            "{message}"
        );
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let (_dir, path) = written("", 0o666);
        assert!(matches!(
            load(Some(&path)),
            Err(ConfigError::File(FileError::Writable { .. }))
        ));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let (dir, path) = written(
            "[[webhook]]\nurl = \"https://a.example/\"\nsecret_file = \"secret\"\n",
            0o644,
        );
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "s").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load(Some(&path)),
            Err(ConfigError::File(FileError::Readable { .. }))
        ));
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(load(Some(&path)).unwrap().webhooks.len(), 1);
    }

    #[test]
    fn addresses_may_leave_out_the_host() {
        let (_dir, path) = written(
            "agents = \":9000\"\nops = \"127.0.0.1:0\"\nnames = [\"c.example\"]\n",
            0o644,
        );
        let settings = load(Some(&path)).unwrap();
        assert_eq!(settings.agents.port(), 9000);
        assert_eq!(settings.origin, "c.example/log");
    }
}
