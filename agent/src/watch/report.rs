//! What the watch has to say beside places: mounts, clocks, devices, mappings, and whether it works at all.

use attestation::mounts::Mount;
use attestation::path::ImagePath;
use attestation::statement::Actor;
use attestation::time::Timestamp;

/// Something that concerns more than one path.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Somebody mounted something at this path.
    Mounted {
        /// Where, in the root.
        path: ImagePath,
        /// Who.
        actor: Actor,
    },
    /// All mounts of other mount namespaces that may show other content than this one does, as they are now.
    Foreign(Vec<ForeignMount>),
    /// The wall clock was set: times of change may lie.
    ClockSet,
    /// The machine slept, and nothing was watched.
    Slept,
    /// A block device under a file system in scope was written past the file system.
    RawWrite(RawWrite),
    /// Files that have a writable shared mapping now: their device and inode.
    Mapped(Vec<Inode>),
    /// Something was done to these inodes under a name that is not known.
    Inodes(Vec<Aliased>),
    /// Test writes no longer come back as events: from then on the watch does not work.
    Deaf {
        /// When a test write last came back, or when the watch began.
        since: Timestamp,
        /// Where, in words.
        place: String,
    },
    /// They come back again.
    Hears,
}

impl Report {
    /// Everybody that is told of.
    pub(super) fn actors(&mut self) -> Vec<&mut Actor> {
        match self {
            Self::Mounted { actor, .. } | Self::RawWrite(RawWrite { actor, .. }) => vec![actor],
            Self::Foreign(mounts) => mounts.iter_mut().map(|mount| &mut mount.actor).collect(),
            Self::Inodes(aliased) => aliased
                .iter_mut()
                .filter_map(|alias| alias.actor.as_mut())
                .collect(),
            Self::ClockSet | Self::Slept | Self::Mapped(_) | Self::Deaf { .. } | Self::Hears => {
                Vec::new()
            }
        }
    }
}

/// A mount in another mount namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct ForeignMount {
    /// As it would be in our own table.
    pub mount: Mount,
    /// A process that lives in that namespace: not always who made it.
    pub actor: Actor,
}

/// A write to a block device.
#[derive(Clone, Debug, PartialEq)]
pub struct RawWrite {
    /// The node that was written through, relative to `/`.
    pub node: ImagePath,
    /// Who wrote.
    pub actor: Actor,
    /// When it was first heard of.
    pub first: Timestamp,
    /// When it was last heard of.
    pub last: Timestamp,
}

/// What tells files apart on one machine: device, major in the upper half as in a fingerprint, and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    /// Device of the file system.
    pub dev: u64,
    /// Number of the inode.
    pub ino: u64,
}

/// An inode to which something was done under another name than the known ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Aliased {
    /// Which.
    pub inode: Inode,
    /// The words for what was done.
    pub events: super::EventSet,
    /// Who did it.
    pub actor: Option<Actor>,
    /// When the last of it was read.
    pub last: Timestamp,
}
