//! One path that is followed: what was read there, what is pinned, and what a look at it came to.

use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::Decision;
use attestation::statement::Actor;
use attestation::time::Timestamp;

use crate::scan::{Fingerprint, Reading, Tail};

/// A path as it was read.
#[derive(Debug, Default)]
pub struct Seen {
    /// What is there.
    pub line: Option<Line>,
    /// What `statx` said of it.
    pub fingerprint: Option<Fingerprint>,
    /// Where the hash of a growing file goes on.
    pub tail: Option<Tail>,
    /// Whether the bytes that were there before still are.
    pub kept: bool,
    /// Why it could not be read.
    pub error: Option<String>,
    /// It had a writer, or more to read: it is looked at again.
    pub again: bool,
}

impl Seen {
    /// Of a reading of the whole object.
    pub fn of(reading: Reading) -> Self {
        let (entry, fingerprint, again) = match reading {
            Reading::Absent => return Self::default(),
            Reading::Unreadable { error } => {
                return Self {
                    error: Some(error),
                    ..Self::default()
                };
            }
            Reading::Entry(entry, fingerprint) => (entry, fingerprint, false),
            Reading::Unsettled(entry, fingerprint) => (entry, fingerprint, true),
        };
        match entry.line() {
            Ok(line) => Self {
                line: Some(line),
                fingerprint: Some(fingerprint),
                again,
                ..Self::default()
            },
            Err(error) => Self {
                error: Some(error.to_string()),
                ..Self::default()
            },
        }
    }
}

/// Who and when, for a difference.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// By whom, as far as it is known.
    pub actor: Option<&'a Actor>,
    /// When it was seen.
    pub at: Timestamp,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Something that a statement must tell is new.
    pub changed: bool,
    /// A line moved on: told with the next statement, whenever that is.
    pub grew: bool,
}

/// One path that is followed.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) decision: Decision,
    /// The pinned line.
    pub(crate) pin: Option<Line>,
    /// The line that is there.
    pub(crate) found: Option<Line>,
    /// What `statx` said when that was read.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The hash of a growing file, where `found` ends.
    pub(crate) tail: Option<Tail>,
    pub(crate) error: Option<String>,
    pub(crate) again: bool,
    pub(super) actor: Option<Actor>,
    pub(super) at: Timestamp,
}

/// A path as a baseline found it.
#[derive(Debug)]
pub struct Came {
    /// Where.
    pub path: ImagePath,
    /// What the scope says of it.
    pub decision: Decision,
    /// What is there.
    pub seen: Seen,
}
