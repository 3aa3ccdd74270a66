//! Reading files that people name on the command line, never more of them than makes sense.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use attestation::scope::{Scope, host};

use crate::exit::{Code, Failure};

/// A scope file has at most 1,000 rules of 1 KiB.
const SCOPE_LIMIT: u64 = 4 * 1024 * 1024;

/// All of a file that may have at most `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let unread =
        |error: &std::io::Error| Failure::io(format!("cannot read {}", path.display()), error);
    let file = File::open(path).map_err(|error| unread(&error))?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unread(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(bytes);
    }
    Err(Failure::new(format!("cannot read {}", path.display()))
        .why(format!("it is larger than {limit} bytes")))
}

/// The scope that `--scope FILE|host` names.
pub fn read_scope(given: &Path) -> Result<Scope, Failure> {
    if given.as_os_str() == "host" {
        return Ok(host::scope());
    }
    let bytes = read_bounded(given, SCOPE_LIMIT)?;
    Scope::from_json(&bytes).map_err(|error| {
        Failure::new(format!("{} is not a scope", given.display()))
            .because(&error)
            .remedy("a scope file is a JSON array of {\"match\": GLOB, \"expect\": \"sealed|local|growing|ignored\"}")
            .code(Code::Configuration)
    })
}
