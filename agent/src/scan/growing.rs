//! Reading a file that only grows: the state of the hash is kept where the last reading ended, so that the next one costs what
//! was added.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use attestation::digest::Digest;
use attestation::entry::{Entry, Kind};
use attestation::path::ImagePath;
use attestation::scope::Decision;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256};

use super::attributes::{self, Object, XattrReader};
use super::content::{self, ContentError};
use super::object::{self, FILE};
use super::{Reading, Root, Surveyed, served};

/// The most added bytes of one reading; what is above is read with the next one. The line then is of what was read.
const AT_ONCE: u64 = 64 << 20;
/// A file that is replaced or changes otherwise than by growth while it is read is read again so often.
const RETRIES: usize = 3;

/// The state of a hash after so many bytes of a file.
#[derive(Clone, Debug)]
pub struct Tail {
    size: u64,
    hash: Sha256,
}

impl Tail {
    /// How many bytes it has taken in.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of those bytes.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }

    /// As bytes, for the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.hash.serialize());
        bytes
    }

    /// From the disk. What is damaged is no state, or one of another digest: whoever keeps it compares that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, state) = bytes.split_first_chunk::<8>()?;
        let hash = Sha256::deserialize(state.try_into().ok()?).ok()?;
        Some(Self {
            size: u64::from_le_bytes(*size),
            hash,
        })
    }
}

/// How much of a growing file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What was added: the kernel told of writes, and the file is longer.
    Added,
    /// All of it: something other than growth may have happened.
    Whole,
}

/// What was read.
#[derive(Debug)]
pub struct Growth {
    /// The object; of a file that was read in part, the line of that part.
    pub reading: Reading,
    /// Where the next reading goes on; nothing where no file is.
    pub tail: Option<Tail>,
    /// Whether the bytes that were read before are still there, as far as this reading can say.
    pub kept: bool,
    /// There is more than was read.
    pub more: bool,
}

/// Reads what is at a path that only grows, on from where the last reading ended.
pub fn read_growing(
    root: &Root,
    path: &ImagePath,
    decision: Decision,
    from: Option<&Tail>,
    extent: Extent,
) -> Growth {
    let Some(server) = root.server(path.as_bytes()) else {
        return read_here(root, path, decision, from, extent);
    };
    let (root, path, from) = (root.clone(), path.clone(), from.cloned());
    let read = move || read_here(&root, &path, decision, from.as_ref(), extent);
    served::within(&Arc::clone(server), read).unwrap_or_else(|silence| other(silence.reading()))
}

fn read_here(
    root: &Root,
    path: &ImagePath,
    decision: Decision,
    from: Option<&Tail>,
    extent: Extent,
) -> Growth {
    let opened = open(root, path);
    let file = match opened {
        Ok(Some(file)) => file,
        // Something else is there, or nothing.
        Ok(None) => return other(super::read_entry(root, path, decision)),
        Err(errno) => return other(object::unreadable_errno(errno)),
    };
    let mut looked = None;
    for _ in 0..=RETRIES {
        match look(&file, path, decision, from, extent) {
            Ok(Look::Done(growth)) => return *growth,
            Ok(Look::Changed(growth)) => looked = Some(*growth),
            Ok(Look::Gone) => return other(super::read_entry(root, path, decision)),
            Err(errno) => return other(object::unreadable_errno(errno)),
        }
    }
    looked.unwrap_or_else(|| other(super::read_entry(root, path, decision)))
}

/// Asks `statx` what is at a path.
pub fn survey_path(root: &Root, path: &ImagePath) -> Option<Surveyed> {
    let Some(server) = root.server(path.as_bytes()) else {
        return survey_here(root, path);
    };
    let (root, path) = (root.clone(), path.clone());
    let asked = served::within(&Arc::clone(server), move || survey_here(&root, &path));
    asked.ok().flatten()
}

fn survey_here(root: &Root, path: &ImagePath) -> Option<Surveyed> {
    let parent = path.parent().unwrap_or_else(ImagePath::root);
    let (directory, _) = root.open_directory(parent.as_bytes()).ok()?;
    let stat = if path.is_root() {
        attributes::stat(directory.as_fd())
    } else {
        attributes::stat_name(directory.as_fd(), &CString::new(path.name()).ok()?)
    };
    stat.ok().map(|stat| attributes::surveyed(&stat))
}

/// Hashes a part of the file at a path: `bytes` from where `tail` ends, but not beyond `to`. Nothing where no file is.
pub fn hash_part(
    root: &Root,
    path: &ImagePath,
    tail: Option<Tail>,
    bytes: u64,
    to: u64,
) -> Option<Tail> {
    let Some(server) = root.server(path.as_bytes()) else {
        return hash_here(root, path, tail, bytes, to);
    };
    let (root, path) = (root.clone(), path.clone());
    let hash = move || hash_here(&root, &path, tail, bytes, to);
    served::within(&Arc::clone(server), hash).ok().flatten()
}

fn hash_here(
    root: &Root,
    path: &ImagePath,
    tail: Option<Tail>,
    bytes: u64,
    to: u64,
) -> Option<Tail> {
    let file = open(root, path).ok()??;
    let stat = attributes::stat(file.as_fd()).ok()?;
    let tail = tail.unwrap_or_else(nothing_yet);
    let end = to.min(tail.size.saturating_add(bytes));
    if stat.stx_size < end {
        return None;
    }
    hash_on(&file, &stat, tail, end).ok()
}

fn nothing_yet() -> Tail {
    Tail {
        size: 0,
        hash: Sha256::new(),
    }
}

fn other(reading: Reading) -> Growth {
    Growth {
        reading,
        tail: None,
        kept: false,
        more: false,
    }
}

/// Opens a regular file; nothing where there is none.
fn open(root: &Root, path: &ImagePath) -> Result<Option<OwnedFd>, Errno> {
    let parent = path.parent().unwrap_or_else(ImagePath::root);
    let Ok(name) = CString::new(path.name()) else {
        return Ok(None);
    };
    if path.is_root() || root.mounted_at(path.as_bytes()).is_some() {
        return Ok(None);
    }
    let (directory, filesystem) = match root.open_directory(parent.as_bytes()) {
        Ok(opened) => opened,
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let stat = match attributes::stat_name(directory.as_fd(), &name) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if attributes::file_type(&stat) != FileType::RegularFile {
        return Ok(None);
    }
    match filesystem.open_child(directory.as_fd(), &name, FILE) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

enum Look {
    Done(Box<Growth>),
    /// More than growth happened meanwhile.
    Changed(Box<Growth>),
    /// It is no file, or no longer there.
    Gone,
}

fn look(
    file: &OwnedFd,
    path: &ImagePath,
    decision: Decision,
    from: Option<&Tail>,
    extent: Extent,
) -> Result<Look, Errno> {
    let before = attributes::stat(file.as_fd())?;
    if attributes::file_type(&before) != FileType::RegularFile {
        return Ok(Look::Gone);
    }
    let size = before.stx_size;
    let (tail, kept) = match from {
        Some(from) if extent == Extent::Added && from.size <= size => {
            let end = size.min(from.size.saturating_add(AT_ONCE));
            (hash_on(file, &before, from.clone(), end)?, true)
        }
        Some(from) if from.size <= size => {
            let old = hash_on(file, &before, nothing_yet(), from.size)?;
            let kept = old.digest() == from.digest();
            (hash_on(file, &before, old, size)?, kept)
        }
        from => (hash_on(file, &before, nothing_yet(), size)?, from.is_none()),
    };
    let xattrs = XattrReader::new()
        .read(Object::Open(file.as_fd()))
        .map_err(|unlisted| unlisted.errno)?;
    let after = attributes::stat(file.as_fd())?;
    if after.stx_nlink == 0 {
        return Ok(Look::Gone);
    }
    let entry = Entry {
        path: path.clone(),
        mode: attributes::mode(&before),
        uid: before.stx_uid,
        gid: before.stx_gid,
        time: attributes::time(&before, decision),
        flags: attributes::flags(&before),
        kind: Kind::File {
            size: tail.size,
            sha256: Some(tail.digest()),
        },
        xattrs,
    };
    let settled = only_grew(&before, &after) && tail.size <= after.stx_size;
    let growth = Box::new(Growth {
        reading: Reading::Entry(entry, attributes::fingerprint(&before)),
        more: tail.size < after.stx_size,
        tail: Some(tail),
        kept,
    });
    Ok(if settled {
        Look::Done(growth)
    } else {
        Look::Changed(growth)
    })
}

/// Whether nothing but its length changed: what was read is a beginning of what is there.
fn only_grew(before: &Statx, after: &Statx) -> bool {
    let of = |stat: &Statx| (stat.stx_mode, stat.stx_uid, stat.stx_gid, stat.stx_nlink);
    of(before) == of(after)
        && attributes::flags(before) == attributes::flags(after)
        && before.stx_size <= after.stx_size
}

fn hash_on(file: &OwnedFd, stat: &Statx, tail: Tail, to: u64) -> Result<Tail, Errno> {
    let hashed = content::hash_on(
        file.as_fd(),
        tail.hash,
        (tail.size, to),
        stat.stx_size,
        stat.stx_blocks,
    );
    match hashed {
        Ok((hash, size)) => Ok(Tail { size, hash }),
        Err(ContentError::Kernel(errno)) => Err(errno),
        // Nobody stops this one.
        Err(ContentError::Stopped) => Err(Errno::INTR),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::io::Write as _;

    use attestation::scope::{Expect, Scope};

    use super::*;

    struct World {
        folder: tempfile::TempDir,
        root: Root,
    }

    impl World {
        fn new(content: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("log"), content).unwrap();
            let root = Root::open(folder.path(), &Scope::sealed_all()).unwrap();
            Self { folder, root }
        }

        fn read(&self, from: Option<&Tail>, extent: Extent) -> Growth {
            let decision = Decision {
                expect: Expect::Growing,
                time: false,
            };
            read_growing(
                &self.root,
                &"./log".parse().unwrap(),
                decision,
                from,
                extent,
            )
        }

        fn append(&self, content: &[u8]) {
            let path = self.folder.path().join("log");
            let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(content).unwrap();
        }
    }

    #[test]
    fn what_is_added_is_read_on_and_gives_the_digest_of_all() {
        let world = World::new(b"one\n");
        let first = world.read(None, Extent::Whole);
        let tail = first.tail.unwrap();
        assert_eq!(tail.digest(), Digest::of(b"one\n"));
        world.append(b"two\n");
        for extent in [Extent::Added, Extent::Whole] {
            let grown = world.read(Some(&tail), extent);
            assert!(grown.kept && !grown.more);
            assert_eq!(grown.tail.unwrap().digest(), Digest::of(b"one\ntwo\n"));
        }
        let kept = Tail::from_bytes(&tail.to_bytes()).unwrap();
        assert_eq!((kept.size(), kept.digest()), (4, tail.digest()));
        assert!(Tail::from_bytes(b"short").is_none());
    }

    #[test]
    fn an_old_byte_that_changed_is_found_by_reading_it_and_not_where_only_what_was_added_is_read() {
        let world = World::new(b"one\n");
        let tail = world.read(None, Extent::Whole).tail.unwrap();
        std::fs::write(world.folder.path().join("log"), b"0ne\ntwo\n").unwrap();
        let added = world.read(Some(&tail), Extent::Added);
        assert!(added.kept);
        assert_eq!(added.tail.unwrap().digest(), Digest::of(b"one\ntwo\n"));
        let read = world.read(Some(&tail), Extent::Whole);
        assert!(!read.kept);
        assert_eq!(read.tail.unwrap().digest(), Digest::of(b"0ne\ntwo\n"));
        std::fs::write(world.folder.path().join("log"), b"on").unwrap();
        let cut = world.read(Some(&tail), Extent::Added);
        assert!(!cut.kept);
        assert_eq!(cut.tail.unwrap().size(), 2);
    }

    #[test]
    fn parts_add_up_and_nothing_is_read_where_no_file_is() {
        let world = World::new(b"one\ntwo\n");
        let path: ImagePath = "./log".parse().unwrap();
        let part = hash_part(&world.root, &path, None, 3, 8).unwrap();
        assert_eq!(part.size(), 3);
        let all = hash_part(&world.root, &path, Some(part), 100, 8).unwrap();
        assert_eq!((all.size(), all.digest()), (8, Digest::of(b"one\ntwo\n")));
        assert!(hash_part(&world.root, &path, None, 9, 9).is_none());
        std::fs::remove_file(world.folder.path().join("log")).unwrap();
        assert!(matches!(
            world.read(None, Extent::Whole).reading,
            Reading::Absent
        ));
        assert!(survey_path(&world.root, &path).is_none());
    }
}
