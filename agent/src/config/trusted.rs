//! Files that decide about trust: nobody but their owner may write them, nobody but their owner and root may replace them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::ConfigError;

/// No configuration of ours is longer; a larger file is not one.
const FILE_LIMIT: u64 = 1024 * 1024;

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
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::super::AgentConfig;
    use super::*;

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
}
