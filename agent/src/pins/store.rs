//! The pins on disk: one file in the state directory, checksummed, either the old or the new one after a crash.

use std::io;
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::entry::{Kind, Line};
use attestation::scope::Scope;
use serde::{Deserialize, Serialize};

use super::{PinBoard, Tracked};
use crate::durable;
use crate::scan::{Fingerprint, Tail};

/// The file's name in the state directory.
const NAME: &str = "pins";
/// What it begins with.
const MAGIC: &str = "pristine-pins 1 ";

/// Why there are no pins of the run before.
#[derive(Debug, thiserror::Error)]
pub enum PinFileError {
    /// The file cannot be used.
    #[error("use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it was not written by an agent, or was changed since.
    #[error("the pins in {path} are damaged: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: &'static str,
    },
}

/// A pin as it is kept.
#[derive(Clone, Debug)]
pub struct KeptPin {
    pub(super) line: Line,
    pub(super) tail: Option<Tail>,
    pub(super) fingerprint: Option<Fingerprint>,
}

impl KeptPin {
    /// Whether a hash state is that of the pinned line.
    pub(super) fn is_of(&self, tail: &Tail) -> bool {
        match self.line.entry().kind {
            Kind::File { size, sha256 } => size == tail.size() && sha256 == Some(tail.digest()),
            _ => false,
        }
    }
}

/// All that is kept.
#[derive(Clone, Debug, Default)]
pub struct PinFile {
    pub(super) scopes: Vec<Scope>,
    pub(super) pins: Vec<KeptPin>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    scopes: Vec<Scope>,
    pins: Vec<WrittenPin>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPin {
    line: Line,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Device, inode, size, mtime, ctime, links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stat: Option<(u64, u64, u64, i64, i64, u64)>,
}

impl PinFile {
    /// What a board holds. The hash and what `statx` said are kept only where the file is as pinned.
    pub(super) fn of(board: &PinBoard) -> Self {
        let kept = |tracked: &Tracked| {
            let line = tracked.pin.clone()?;
            let as_pinned = tracked.found.as_ref() == Some(&line) && !tracked.again;
            Some(KeptPin {
                line,
                tail: tracked.tail.clone().filter(|_| as_pinned),
                fingerprint: tracked.fingerprint.filter(|_| as_pinned),
            })
        };
        Self {
            scopes: board.scopes.iter().map(|it| (**it).clone()).collect(),
            pins: board.entries.values().filter_map(kept).collect(),
        }
    }

    /// What the run before left; nothing where nothing was ever pinned.
    pub fn load(state: &Path) -> Result<Self, PinFileError> {
        let path = state.join(NAME);
        let bytes = durable::read_if_present(&path).map_err(|source| PinFileError::File {
            path: path.clone(),
            source,
        })?;
        match bytes {
            None => Ok(Self::default()),
            Some(bytes) => read(&bytes).map_err(|reason| PinFileError::Damaged { path, reason }),
        }
    }

    /// Sets a file that cannot be used aside, for whoever wants to know why.
    pub fn set_aside(state: &Path, now: i64) -> io::Result<()> {
        std::fs::rename(state.join(NAME), state.join(format!("{NAME}-{now}")))?;
        durable::sync_directory(state)
    }

    /// Puts it in the place of what was there; synced when this returns.
    pub fn save(&self, state: &Path) -> Result<(), PinFileError> {
        let path = state.join(NAME);
        durable::replace(&path, &self.write()).map_err(|source| PinFileError::File { path, source })
    }

    fn write(&self) -> Vec<u8> {
        let pins = self.pins.iter().map(|kept| WrittenPin {
            line: kept.line.clone(),
            hash: kept.tail.as_ref().map(|tail| hex(&tail.to_bytes())),
            stat: kept
                .fingerprint
                .map(|it| (it.dev, it.ino, it.size, it.mtime_ns, it.ctime_ns, it.nlink)),
        });
        let written = Written {
            scopes: self.scopes.clone(),
            pins: pins.collect(),
        };
        let body = serde_json::to_vec(&written).unwrap_or_default();
        let mut bytes = format!("{MAGIC}{}\n", Digest::of(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }
}

fn read(bytes: &[u8]) -> Result<PinFile, &'static str> {
    let rest = bytes
        .strip_prefix(MAGIC.as_bytes())
        .ok_or("it is no such file")?;
    let end = rest.iter().position(|byte| *byte == b'\n');
    let (digest, body) = end
        .and_then(|end| Some((rest.get(..end)?, rest.get(end + 1..)?)))
        .ok_or("it ends too early")?;
    if Digest::of(body).to_string().as_bytes() != digest {
        return Err("its checksum is another");
    }
    let written: Written = serde_json::from_slice(body).map_err(|_| "its content is unreadable")?;
    let pins = written.pins.into_iter().map(|pin| KeptPin {
        tail: pin.hash.and_then(|hash| Tail::from_bytes(&unhex(&hash)?)),
        fingerprint: pin
            .stat
            .map(|(dev, ino, size, mtime_ns, ctime_ns, nlink)| Fingerprint {
                dev,
                ino,
                size,
                mtime_ns,
                ctime_ns,
                nlink,
            }),
        line: pin.line,
    });
    Ok(PinFile {
        pins: pins.collect(),
        scopes: written.scopes,
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}
