//! Reading one object: look, read, look again.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use attestation::digest::Digest;
use attestation::entry::Kind;
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect};
use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno;

pub(super) use self::finished::unreadable_errno;
use self::finished::{finish, unreadable};
pub use self::hearer::Hearer;
use self::hearer::Hearing;
use super::attributes::{self, Object, Unlisted, XattrReader};
use super::content::{self, Buffer, ContentError, Source};
use super::links::handle_key;
use super::root::Filesystem;
use super::{Manner, Progress, Reading, Root, Surveyed, Writers};
use crate::{clock, sys};

mod at_path;
mod finished;
mod hearer;

/// How often an object is read again that changed meanwhile.
const RETRIES: usize = 3;
/// A store through a mapping into a page that is dirty already leaves ctime alone until the page was written back, which
/// the kernel does within a minute or so: an inode that has not changed for this long has none.
const WRITTEN_BACK_NS: i64 = 10 * 60 * 1_000_000_000;

pub(super) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const NAME: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Says for a path and a size whether the content is to be read.
pub type Wanted<'w> = dyn Fn(&ImagePath, u64) -> bool + Sync + 'w;

/// Says whether what `statx` tells of a path shows that nothing has happened to it since it was read.
pub type Unmoved<'u> = dyn Fn(&ImagePath, Decision, &Surveyed) -> bool + Sync + 'u;

/// An open directory and the file system it lies on.
#[derive(Clone, Copy)]
pub(super) struct Directory<'d> {
    pub(super) fd: BorrowedFd<'d>,
    pub(super) filesystem: &'d Filesystem,
}

/// Reads objects one after the other with buffers of its own.
pub(super) struct ObjectReader<'r> {
    root: &'r Root,
    progress: &'r Progress,
    wanted: &'r Wanted<'r>,
    manner: Manner,
    hearing: Option<Hearing<'r>>,
    /// Whether this is the thread that asks a server.
    asking: bool,
    buffer: Buffer,
    xattrs: XattrReader,
}

/// What came of one look at a name.
enum Look {
    Done(Reading),
    /// It is of this type now, not of the one that was expected.
    Other(FileType),
    /// It was replaced or changed meanwhile.
    Again,
}

/// Why a look has no result.
enum Trouble {
    Kernel(Errno),
    Attributes(Unlisted),
    Stopped,
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<ContentError> for Trouble {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Stopped => Self::Stopped,
            ContentError::Kernel(errno) => Self::Kernel(errno),
        }
    }
}

impl<'r> ObjectReader<'r> {
    pub(super) fn new(
        root: &'r Root,
        progress: &'r Progress,
        wanted: &'r Wanted<'r>,
        manner: Manner,
    ) -> Self {
        Self {
            root,
            progress,
            wanted,
            manner,
            hearing: None,
            asking: false,
            buffer: Buffer::new(manner.from_storage),
            xattrs: XattrReader::new(),
        }
    }

    /// As the thread that asks a server, or not.
    pub(super) fn asking(mut self, asking: bool) -> Self {
        self.asking = asking;
        self
    }

    /// With somebody who hears what is read.
    pub(super) fn hearing(mut self, hearer: Option<Hearer<'r>>) -> Self {
        self.hearing = hearer.map(Hearing::new);
        self
    }

    pub(super) fn wanted(&self) -> &'r Wanted<'r> {
        self.wanted
    }

    /// Reads `name` in `directory`; `expected` is what the directory said it is.
    pub(super) fn read(
        &mut self,
        directory: Directory<'_>,
        name: &CStr,
        path: &ImagePath,
        decision: Decision,
        expected: FileType,
    ) -> Reading {
        let mut kind = expected;
        // Every second look may find another type; whoever swaps for longer than this is told as unreadable.
        for _ in 0..=2 * RETRIES {
            let look = match kind {
                FileType::RegularFile => self.file(directory, name, path, decision),
                FileType::Directory => self.directory_by_name(directory, name, path, decision),
                FileType::Unknown => attributes::stat_name(directory.fd, name)
                    .map(|stat| Look::Other(attributes::file_type(&stat)))
                    .map_err(Trouble::from),
                _ => self.special(directory, name, path, decision),
            };
            match look {
                Ok(Look::Done(reading)) => return reading,
                Ok(Look::Other(found)) => kind = found,
                Ok(Look::Again) => {}
                Err(trouble) => return unreadable(&trouble),
            }
        }
        Reading::Unreadable {
            error: "replaced again and again while being read".into(),
        }
    }

    fn file(
        &mut self,
        directory: Directory<'_>,
        name: &CStr,
        path: &ImagePath,
        decision: Decision,
    ) -> Result<Look, Trouble> {
        let file = match directory.filesystem.open_child(directory.fd, name, FILE) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => {
                return Ok(Look::Other(FileType::Unknown));
            }
            Err(errno) => return Err(errno.into()),
        };
        let mut before = attributes::stat(file.as_fd())?;
        if attributes::file_type(&before) != FileType::RegularFile {
            return Ok(Look::Other(attributes::file_type(&before)));
        }
        if before.stx_nlink > 1 && decision.expect != Expect::Ignored {
            self.note_link(file.as_fd(), directory.filesystem, path);
        }
        let mut attempt = 0;
        loop {
            let sha256 = self.digest(&file, &before, path)?;
            let xattrs = self
                .xattrs
                .read(Object::Open(file.as_fd()))
                .map_err(Trouble::Attributes)?;
            let after = attributes::stat(file.as_fd())?;
            if after.stx_nlink == 0 && before.stx_nlink > 0 && attempt < RETRIES {
                return Ok(Look::Again);
            }
            let same = attributes::same(&before, &after);
            if same || attempt >= RETRIES {
                let settled = same && !self.has_writer(&file, &after, directory.filesystem);
                let kind = Kind::File {
                    size: before.stx_size,
                    sha256,
                };
                return Ok(Look::Done(finish(
                    path, &before, decision, kind, xattrs, settled,
                )));
            }
            before = after;
            attempt += 1;
        }
    }

    fn digest(
        &mut self,
        file: &OwnedFd,
        stat: &Statx,
        path: &ImagePath,
    ) -> Result<Option<Digest>, Trouble> {
        if !(self.wanted)(path, stat.stx_size) {
            return Ok(None);
        }
        let progress = self.progress;
        let size = stat.stx_size;
        let counted = progress.count(path, size);
        let mut heard = (self.hearing.as_mut()).and_then(|hearing| hearing.begin(path, size));
        let mut passed = |bytes: &[u8]| {
            let count = bytes.len() as u64;
            counted.add(count);
            progress.rest(count);
            if let Some(heard) = &mut heard {
                heard.hear(bytes);
            }
            progress.is_stopped()
        };
        let source = Source {
            file: file.as_fd(),
            size,
            blocks: stat.stx_blocks,
            from_storage: self.manner.from_storage,
        };
        let digest = content::digest(source, &mut self.buffer, &mut passed)?;
        if let Some(heard) = heard {
            heard.end();
        }
        Ok(Some(digest))
    }

    /// Whether what was read may change without `statx` telling.
    fn has_writer(&self, file: &OwnedFd, stat: &Statx, filesystem: &Filesystem) -> bool {
        let asked = match self.manner.writers {
            Writers::Unasked => false,
            Writers::Always => true,
            Writers::Recent => {
                let now_ns = clock::now().as_micros().saturating_mul(1000);
                let ctime_ns = attributes::fingerprint(stat).ctime_ns;
                filesystem.volatile || ctime_ns > now_ns.saturating_sub(WRITTEN_BACK_NS)
            }
        };
        asked && sys::has_writer(file.as_fd()) == Some(true)
    }

    /// Takes down a name of a file that has several, without opening it.
    pub(super) fn note_name(&self, directory: Directory<'_>, name: &CStr, path: &ImagePath) {
        // What is gone meanwhile needs no note.
        if let Ok(object) = directory.filesystem.open_child(directory.fd, name, NAME) {
            self.note_link(object.as_fd(), directory.filesystem, path);
        }
    }

    fn note_link(&self, file: BorrowedFd<'_>, filesystem: &Filesystem, path: &ImagePath) {
        // Without handles there is no watch by handles that could make use of them.
        if let Ok(handle) = sys::name_to_handle(file) {
            let key = handle_key(filesystem.fsid, handle.kind, &handle.bytes);
            let has_several = |key: &[u8]| self.root.has_several_names(key);
            self.root.links().note(&key, path, has_several);
        }
    }

    fn directory_by_name(
        &mut self,
        directory: Directory<'_>,
        name: &CStr,
        path: &ImagePath,
        decision: Decision,
    ) -> Result<Look, Trouble> {
        match directory
            .filesystem
            .open_child_directory(directory.fd, name)
        {
            Ok(opened) => Ok(Look::Done(self.opened_directory(
                opened.as_fd(),
                path,
                decision,
            ))),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(Look::Other(FileType::Unknown)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads a directory by its descriptor.
    pub(super) fn opened_directory(
        &mut self,
        opened: BorrowedFd<'_>,
        path: &ImagePath,
        decision: Decision,
    ) -> Reading {
        let mut look = || {
            let stat = attributes::stat(opened)?;
            let xattrs = self
                .xattrs
                .read(Object::Open(opened))
                .map_err(Trouble::Attributes)?;
            Ok(finish(path, &stat, decision, Kind::Dir, xattrs, true))
        };
        look().unwrap_or_else(|trouble| unreadable(&trouble))
    }

    /// Links, devices, pipes and sockets: by an `O_PATH` descriptor, which opens none of them.
    fn special(
        &mut self,
        directory: Directory<'_>,
        name: &CStr,
        path: &ImagePath,
        decision: Decision,
    ) -> Result<Look, Trouble> {
        let object = directory.filesystem.open_child(directory.fd, name, NAME)?;
        let stat = attributes::stat(object.as_fd())?;
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let kind = match attributes::file_type(&stat) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&object, c"", Vec::new())?;
                Kind::Link {
                    target: target.into_bytes(),
                }
            }
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            other => return Ok(Look::Other(other)),
        };
        let xattrs = self
            .xattrs
            .read(Object::Path(object.as_fd()))
            .map_err(Trouble::Attributes)?;
        let settled = attributes::same(&stat, &attributes::stat(object.as_fd())?);
        if !settled {
            return Ok(Look::Again);
        }
        Ok(Look::Done(finish(
            path, &stat, decision, kind, xattrs, true,
        )))
    }
}
