//! The user's keyring file: which collector, and the token that it gave. Mode 0600, as it is as good as a password.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::exit::{Code, Failure};
use crate::files::read_bounded;

/// A URL, a name and a token.
const LIMIT: u64 = 64 * 1024;

/// What the keyring holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    /// The collector's people's door.
    pub url: String,
    /// Who signed in.
    pub user: String,
    /// The API token.
    pub token: String,
    /// When it ends, as the collector told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// Where the keyring lies.
pub fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".config")))
        .map(|base| base.join("pristine").join("keyring.json"))
        .ok_or_else(|| {
            Failure::new("cannot tell where the keyring lies")
                .why("neither XDG_CONFIG_HOME nor HOME is set")
                .remedy("set HOME, or give PRISTINE_URL and PRISTINE_TOKEN")
                .code(Code::Configuration)
        })
}

/// The keyring, where there is one. One that others may read is refused.
pub fn read() -> Result<Option<Keyring>, Failure> {
    let path = path()?;
    let metadata = match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::io(
                format!("cannot read {}", path.display()),
                &error,
            ));
        }
        Ok(metadata) => metadata,
    };
    let wrong = |why: String| {
        Failure::new(format!("will not use {}", path.display()))
            .why(why)
            .code(Code::Configuration)
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(wrong("others may read it".to_owned()).remedy(format!(
            "chmod 600 {}, and sign in again if somebody may have read it",
            path.display()
        )));
    }
    let bytes = read_bounded(&path, LIMIT)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| wrong(error.to_string()).remedy("sign in again with `pristine login URL`"))
}

/// Puts the keyring in its place.
pub fn write(keyring: &Keyring) -> Result<PathBuf, Failure> {
    let path = path()?;
    let unwritten =
        |error: &std::io::Error| Failure::io(format!("cannot write {}", path.display()), error);
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| unwritten(&error))?;
    }
    let bytes = serde_json::to_vec_pretty(keyring)
        .map_err(|error| Failure::new("cannot write the keyring").because(&error))?;
    atomic::replace(&path, &bytes, 0o600).map_err(|error| unwritten(&error))?;
    Ok(path)
}

/// Removes the keyring; tells whether there was one.
pub fn remove() -> Result<bool, Failure> {
    let path = path()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::io(
            format!("cannot remove {}", path.display()),
            &error,
        )),
    }
}
