//! What the agent is started with: configuration, privileges, directories, identity.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use caps::CapSet;

use super::Finding;
use crate::config::{AgentSettings, ConfigError};
use crate::identity::{self, Held};
use crate::journal::chain;
use crate::privileges;

pub(super) fn configuration(
    path: Option<&Path>,
    settings: Result<&AgentSettings, &ConfigError>,
) -> Finding {
    const NAME: &str = "configuration";
    match (path, settings) {
        (_, Err(error)) => Finding::fail(NAME, chain(error), "correct it and reload the agent"),
        (Some(path), Ok(_)) => Finding::ok(NAME, path.display().to_string()),
        (None, Ok(_)) => Finding::ok(NAME, "none; the defaults hold"),
    }
}

/// Who may replace the configuration writes what the agent does.
pub(super) fn permissions(path: Option<&Path>) -> Option<Finding> {
    const NAME: &str = "permissions";
    let path = path?;
    Some(match crate::config::who_may_write(path) {
        Ok(()) => Finding::ok(NAME, "only its owner may write the configuration"),
        Err(error) => Finding::fail(NAME, chain(&error), "let only root write it"),
    })
}

pub(super) fn privileges() -> Finding {
    const NAME: &str = "privileges";
    let held = match caps::read(None, CapSet::Effective) {
        Ok(held) => held,
        Err(error) => return Finding::unknown(NAME, error.to_string()),
    };
    let lacking = privileges::lacking(&held);
    if lacking.is_empty() {
        return Finding::ok(NAME, "all that the agent needs");
    }
    let named: Vec<String> = lacking
        .iter()
        .map(|(capability, what)| format!("{capability} ({what})"))
        .collect();
    let found = format!("without {}", named.join(", "));
    let remedy = "run as root, or give the unit these capabilities";
    let essential = [
        caps::Capability::CAP_SYS_ADMIN,
        caps::Capability::CAP_DAC_READ_SEARCH,
    ];
    if lacking.iter().any(|(one, _)| essential.contains(one)) {
        Finding::fail(NAME, found, remedy)
    } else {
        Finding::limit(NAME, found, remedy)
    }
}

pub(super) fn root(root: &Path) -> Finding {
    const NAME: &str = "root";
    match std::fs::read_dir(root) {
        Ok(_) => Finding::ok(NAME, root.display().to_string()),
        Err(error) => Finding::fail(
            NAME,
            format!("{}: {error}", root.display()),
            "name the attested root in the configuration",
        ),
    }
}

pub(super) fn state(state: &Path) -> Finding {
    const NAME: &str = "state";
    let metadata = match std::fs::metadata(state) {
        Ok(metadata) => metadata,
        Err(error) => {
            let found = format!("{}: {error}", state.display());
            return Finding::fail(NAME, found, "it is made by `pristine-agent enroll`");
        }
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Finding::fail(
            NAME,
            format!("{}: others may enter it (mode {mode:04o})", state.display()),
            "give it to the agent's user with mode 0700",
        );
    }
    match tempfile_in(state) {
        Ok(()) => Finding::ok(NAME, state.display().to_string()),
        Err(error) => Finding::fail(
            NAME,
            format!("{}: takes no write: {error}", state.display()),
            "make room on its file system, or mount it for writing",
        ),
    }
}

/// An unnamed file, written and gone again.
fn tempfile_in(directory: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let file = rustix::fs::open(directory, flags | rustix::fs::OFlags::CLOEXEC, mode)?;
    std::fs::File::from(file).write_all(b"x")
}

pub(super) fn identity(settings: &AgentSettings) -> Result<(Held, Finding), Finding> {
    const NAME: &str = "identity";
    match identity::look(&settings.state) {
        Ok(held) => {
            let found = format!("node {} ({})", held.identity.node, held.identity.name);
            Ok((held, Finding::ok(NAME, found)))
        }
        Err(error) => Err(Finding::fail(
            NAME,
            chain(&error),
            "`pristine token create --join` makes a token, and `pristine-agent enroll --token TOKEN` joins with it",
        )),
    }
}
