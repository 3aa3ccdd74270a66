//! Digests of executables, read when an actor is told: never by the thread that reads events.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use attestation::digest::Digest;
use attestation::path::decode_component_bytes;
use sha2::{Digest as _, Sha256};

use super::doer::Doer;
use super::program::{Executable, Identity};

/// Digests kept: more than a large system runs. When full they are computed anew.
const LIMIT: usize = 4_096;
/// A larger executable is told without its digest: reading it would hold up whoever is told of the change.
const SIZE_LIMIT: i64 = 64 * 1024 * 1024;

/// Digests by device, inode, size and time of change: another state of a file is another file.
#[derive(Debug, Default)]
pub(crate) struct ExeDigests {
    known: HashMap<Identity, Option<Digest>>,
}

impl ExeDigests {
    /// The digest of what somebody ran, while a file of that state can still be read.
    pub(crate) fn of(&mut self, doer: &Doer) -> Option<Digest> {
        let exe = doer.exe.as_ref()?;
        let identity = exe.identity?;
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        let digest = (identity.size <= SIZE_LIMIT)
            .then(|| read(exe, identity, doer.actor.pid))
            .flatten();
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        self.known.insert(identity, digest);
        digest
    }
}

/// By its path, or, where another file is there by now, through the process that still runs it.
fn read(exe: &Executable, identity: Identity, pid: u32) -> Option<Digest> {
    let by_path =
        decode_component_bytes(&exe.path).map(|path| PathBuf::from(OsString::from_vec(path)));
    let places = by_path
        .into_iter()
        .chain([PathBuf::from(format!("/proc/{pid}/exe"))]);
    for place in places {
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(place);
        if let Ok(file) = opened
            && Identity::of_file(&file) == Some(identity)
        {
            return digest(file, identity);
        }
    }
    None
}

fn digest(mut file: File, identity: Identity) -> Option<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 128 * 1024];
    loop {
        let read = file.read(&mut buffer).ok()?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read)?);
    }
    // Written while it was read: then these are not the bytes that ran.
    (Identity::of_file(&file) == Some(identity))
        .then(|| Digest::from_bytes(hasher.finalize().into()))
}
