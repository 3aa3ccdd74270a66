//! The index on disk: of each entry the leaf, and what `statx` said when it was read, so that a restart reads only what
//! differs.
//!
//! A record is true by itself: "when `statx` said this, the leaf was that". So an old index is as good as a new one, it
//! only saves less, and one that is written bit by bit while the view changes is right too. A file is written beside the
//! one before, synced and renamed, so a crash leaves either. What is not whole, of another version, scope or root is
//! refused as a whole, and everything is read.
//!
//! Layout, integers little-endian: `pristine index\n\0`, format (u32), identity (32 bytes), when it was begun
//! (microseconds since 1970, i64); blocks of a count (u32, not 0) and so many records; a count of 0, the number of all
//! records (u64), and SHA-256 of everything before. A record is key (32), leaf (32), inode (u64), ctime (nanoseconds,
//! i64), hash and states of what else `statx` said (u32); keys rise.

mod read;
mod write;

use attestation::digest::Digest;

pub use self::read::{Contents, IndexError, load, read};
pub use self::write::{Unsynced, Writer};

const MAGIC: &[u8; 16] = b"pristine index\n\0";
/// Raised whenever a byte of the file means something else.
const FORMAT: u32 = 1;
/// Bytes of a record.
const RECORD: usize = 84;
/// The same, to tell from the length of a file about how many there are.
pub const RECORD_BYTES: u64 = 84;
/// Records in a block: what is held while a file is read.
const BLOCK: usize = 4096;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// SHA-256 of the path.
    pub key: Digest,
    /// Leaf of the line that was read.
    pub leaf: Digest,
    /// Inode number.
    pub ino: u64,
    /// Time of the last change of anything, nanoseconds since 1970.
    pub ctime_ns: i64,
    /// A hash of what else `statx` said; the lowest bits are states.
    pub rest: u32,
}

/// What an index is of: it is of use to nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(Digest);

impl Identity {
    /// Of this build (another may read other attributes), a scope, and the file systems that are read: where each lies in
    /// the root, device and inode of its root directory.
    pub fn of(scope: &Digest, filesystems: &[(&[u8], u64, u64)]) -> Self {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(scope.as_bytes());
        for (prefix, device, inode) in filesystems {
            let length = u64::try_from(prefix.len()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(prefix);
            bytes.extend_from_slice(&device.to_le_bytes());
            bytes.extend_from_slice(&inode.to_le_bytes());
        }
        Self(Digest::of_parts(&[
            crate::VERSION.as_bytes(),
            b"\0",
            &bytes,
        ]))
    }
}

#[cfg(test)]
mod tests;
