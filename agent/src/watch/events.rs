//! Kinds of events and their words.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// Kinds of events, merged. Shown as words joined by commas: the text of `touched.event`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventSet(u8);

impl EventSet {
    /// Content was written or the size changed.
    pub const MODIFY: Self = Self(1);
    /// A descriptor that could write was closed, or the last writable mapping went.
    pub const CLOSE_WRITE: Self = Self(1 << 1);
    /// Mode, owner, times, extended attributes or the link count changed.
    pub const ATTRIB: Self = Self(1 << 2);
    /// The name came to be.
    pub const CREATE: Self = Self(1 << 3);
    /// The name was removed.
    pub const DELETE: Self = Self(1 << 4);
    /// The name was moved, from here or to here.
    pub const RENAME: Self = Self(1 << 5);

    const WORDS: [(Self, &'static str); 6] = [
        (Self::MODIFY, "modify"),
        (Self::CLOSE_WRITE, "close_write"),
        (Self::ATTRIB, "attrib"),
        (Self::CREATE, "create"),
        (Self::DELETE, "delete"),
        (Self::RENAME, "rename"),
    ];

    /// No event.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and those.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The word for each, in a fixed order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS
            .into_iter()
            .filter(move |(kind, _)| self.contains(*kind))
            .map(|(_, word)| word)
    }
}

impl BitOr for EventSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for EventSet {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Display for EventSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            out.write_str(word)?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "EventSet({self})")
    }
}

/// What the mask of a fanotify event says.
pub(super) fn events_of(mask: u64) -> EventSet {
    let kinds = [
        (libc::FAN_MODIFY, EventSet::MODIFY),
        (libc::FAN_CLOSE_WRITE, EventSet::CLOSE_WRITE),
        (libc::FAN_ATTRIB, EventSet::ATTRIB),
        (libc::FAN_CREATE, EventSet::CREATE),
        (libc::FAN_DELETE, EventSet::DELETE),
        (libc::FAN_RENAME, EventSet::RENAME),
        (libc::FAN_MOVED_FROM, EventSet::RENAME),
        (libc::FAN_MOVED_TO, EventSet::RENAME),
    ];
    let mut events = EventSet::empty();
    for (bit, kind) in kinds {
        if mask & bit != 0 {
            events |= kind;
        }
    }
    events
}
