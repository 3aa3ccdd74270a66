//! A configuration that is read again while the agent runs: what of it takes effect at once, and what at the next start.
//! Pure: two configurations go in, what is to be done comes out.

use std::time::Duration;

use attestation::digest::Digest;

use crate::actor::Collect;
use crate::config::{AgentSettings, Publisher};

/// What the engine changes as it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Shorter than the collector's interval, or nothing.
    pub interval: Option<Duration>,
    /// Time between two looks at the metadata of everything.
    pub rescan: Option<Duration>,
    /// Whether command lines of actors are attested.
    pub cmdline: bool,
    /// What is collected of logins.
    pub sessions: Collect,
    /// Whether the arguments of commands in them are.
    pub arguments: bool,
    /// How much of one processor, in percent, reading all content again may take.
    pub reread_cpu: f64,
    /// The file that every statement names.
    pub config_sha256: Option<Digest>,
}

/// What the uplink changes as it runs.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    /// The agents' doors; empty: those given at enrolment.
    pub collectors: Vec<String>,
    /// Who may sign which image.
    pub publishers: Vec<Publisher>,
}

/// What a configuration says to the engine.
#[must_use]
pub fn of_engine(settings: &AgentSettings) -> EngineSettings {
    EngineSettings {
        interval: settings.interval,
        rescan: settings.rescan,
        cmdline: settings.cmdline,
        sessions: settings.sessions,
        arguments: settings.arguments,
        reread_cpu: settings.reread_cpu,
        config_sha256: settings.config_sha256,
    }
}

/// What a configuration says to the uplink.
#[must_use]
pub fn of_uplink(settings: &AgentSettings) -> UplinkSettings {
    UplinkSettings {
        collectors: settings.collectors.clone(),
        publishers: settings.publishers.clone(),
    }
}

/// The keys whose values differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They hold from now on.
    pub now: Vec<&'static str>,
    /// They hold from the next start on.
    pub at_next_start: Vec<&'static str>,
}

/// What a new configuration changes.
#[must_use]
pub fn changes(old: &AgentSettings, new: &AgentSettings) -> Changes {
    let differing = |keys: &[(&'static str, bool)]| {
        keys.iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| *key)
            .collect()
    };
    Changes {
        now: differing(&[
            ("collectors", old.collectors != new.collectors),
            ("publishers", old.publishers != new.publishers),
            ("interval", old.interval != new.interval),
            ("rescan", old.rescan != new.rescan),
            ("cmdline", old.cmdline != new.cmdline),
            ("sessions", old.sessions != new.sessions),
            ("arguments", old.arguments != new.arguments),
            (
                "limits.reread_cpu",
                old.reread_cpu.to_bits() != new.reread_cpu.to_bits(),
            ),
            ("limits.memory", old.memory_limit != new.memory_limit),
        ]),
        at_next_start: differing(&[
            ("root", old.root != new.root),
            ("state", old.state != new.state),
            ("ca", old.ca != new.ca),
            ("limits.spool", old.spool_limit != new.spool_limit),
        ]),
    }
}

/// The settings to go on with: what waits for the next start stays as it is, so that it is told again at each reload.
#[must_use]
pub fn merged(old: &AgentSettings, new: AgentSettings) -> AgentSettings {
    AgentSettings {
        root: old.root.clone(),
        state: old.state.clone(),
        ca: old.ca.clone(),
        spool_limit: old.spool_limit,
        network: old.network.clone(),
        ..new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_named_and_what_cannot_change_stays() {
        let old = AgentSettings::new("/", "/state");
        assert_eq!(changes(&old, &old), Changes::default());
        let mut new = AgentSettings::new("/srv", "/state");
        new.interval = Some(Duration::from_secs(5));
        new.collectors = vec!["https://c:8443".to_owned()];
        new.cmdline = false;
        new.spool_limit += 1;
        let found = changes(&old, &new);
        assert_eq!(found.now, ["collectors", "interval", "cmdline"]);
        assert_eq!(found.at_next_start, ["root", "limits.spool"]);
        let merged = merged(&old, new);
        assert_eq!(merged.root, old.root);
        assert_eq!(merged.spool_limit, old.spool_limit);
        assert!(!of_engine(&merged).cmdline);
        assert_eq!(of_uplink(&merged).collectors.len(), 1);
    }
}
