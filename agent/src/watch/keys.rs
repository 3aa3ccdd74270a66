//! The keys under which places wait on the board, and what is read out of them again.

use super::descriptors::Written;
use super::record::{Handle, Named};
use super::report::Inode;
use crate::scan::handle_key;

pub(super) const OBJECT: u8 = 0;
pub(super) const NAMED: u8 = 1;
pub(super) const INODE: u8 = 2;
pub(super) const WRITTEN: u8 = 3;

/// The key of an object that came without a name.
pub(super) fn object_key(handle: &Handle<'_>) -> Vec<u8> {
    let mut key = vec![OBJECT];
    key.extend(handle_key(handle.fsid, handle.kind, handle.bytes));
    key
}

/// The key of a name in a directory.
pub(super) fn named_key(named: &Named<'_>) -> Vec<u8> {
    let directory = handle_key(
        named.directory.fsid,
        named.directory.kind,
        named.directory.bytes,
    );
    let mut key = vec![NAMED, u8::try_from(directory.len()).unwrap_or(u8::MAX)];
    key.extend(directory);
    key.extend(named.name);
    key
}

/// The key of a file that was written, by what its descriptor tells.
pub(super) fn written_key(written: &Written) -> Vec<u8> {
    let mut key = vec![WRITTEN, u8::from(written.linked)];
    key.extend(written.inode.dev.to_le_bytes());
    key.extend(written.inode.ino.to_le_bytes());
    key.extend(written.mount.to_le_bytes());
    key.extend(&written.shown);
    key
}

/// The key of an object whose file system has no handles.
pub(super) fn inode_key(dev: u64, ino: u64) -> Vec<u8> {
    let mut key = vec![INODE];
    key.extend(dev.to_le_bytes());
    key.extend(ino.to_le_bytes());
    key
}

/// The directory in a key of a name, and the name.
pub(super) fn split_named(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Inode, whether it has several names, mount and shown path in the key of a written file.
pub(super) fn split_written(rest: &[u8]) -> Option<(Inode, bool, u64, &[u8])> {
    let (linked, rest) = rest.split_first()?;
    let (dev, rest) = rest.split_first_chunk()?;
    let (ino, rest) = rest.split_first_chunk()?;
    let (mount, shown) = rest.split_first_chunk()?;
    let inode = Inode {
        dev: u64::from_le_bytes(*dev),
        ino: u64::from_le_bytes(*ino),
    };
    Some((inode, *linked != 0, u64::from_le_bytes(*mount), shown))
}
