//! Executable files: which one, and what the kernel opens beside it to run it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use attestation::path::encode_component_bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::scan::Root;
use crate::sys;
use crate::watch::record::{Handle, Record};

/// Files whose form is remembered: more than a large system runs. When full they are learnt anew.
const FORM_LIMIT: usize = 4_096;
/// Bytes read to tell the form: program headers that lie further on are not looked for.
const HEAD: usize = 4_096;

/// One state of one file: a write or a replacement makes another of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: i64,
    /// Seconds and nanoseconds of the last change of the inode.
    pub(crate) changed: (i64, i64),
}

impl Identity {
    /// Of an object, without asking whoever serves its file system: an answer that never comes must hold up nobody.
    pub(super) fn at(directory: impl AsFd, name: &str) -> Option<Self> {
        let flags = AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS).ok()?;
        Some(Self {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: i64::try_from(stat.stx_size).ok()?,
            changed: (stat.stx_ctime.tv_sec, i64::from(stat.stx_ctime.tv_nsec)),
        })
    }

    fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (
                stat.st_ctime,
                i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
            ),
        }
    }

    pub(super) fn of_file(file: &File) -> Option<Self> {
        rustix::fs::fstat(file).ok().map(|stat| Self::of(&stat))
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A file that was opened to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Its path from the root of the agent's own view, in the mtree encoding.
    pub(crate) path: String,
    /// Absent when it was gone before it could be looked at.
    pub(crate) identity: Option<Identity>,
    /// By which it can be opened again, whatever lies at its path by then.
    pub(super) handle: Option<FileKey>,
    pub(super) form: Form,
}

/// A file handle with its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileKey {
    pub(super) fsid: [u8; 8],
    pub(super) kind: i32,
    pub(super) bytes: Box<[u8]>,
}

impl Executable {
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        match (&self.identity, &other.identity) {
            (Some(one), Some(two)) => one.is_same_file(two),
            _ => self.path == other.path,
        }
    }
}

/// What the kernel opens after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The interpreter that its first line names.
    Script,
    /// An ELF loader, whose device and inode are these where it is found at its place here.
    Dynamic(Option<(u64, u64)>),
    /// Nothing: a whole program, or a loader itself.
    Whole,
    /// It could not be read, or nobody looked.
    Unknown,
}

/// Finds the files of events that tell of an exec.
#[derive(Debug)]
pub(super) struct Programs {
    /// For each file system in scope a directory on it in the agent's own view.
    mounts: Vec<([u8; 8], OwnedFd)>,
    forms: HashMap<Identity, Form>,
}

impl Programs {
    pub(super) fn new(root: &Root) -> Self {
        let mut mounts = Vec::new();
        for filesystem in root.filesystems() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let place = root
                .path()
                .join(OsStr::from_bytes(filesystem.prefix.as_bytes()));
            let plain = rustix::fs::openat(CWD, place, flags, Mode::empty()).ok();
            let device = |fd: &OwnedFd| rustix::fs::fstat(fd).ok().map(|stat| stat.st_dev);
            // Something else may be mounted there: then paths are told as the clone has them.
            let same = plain.filter(|plain| device(plain) == device(&filesystem.dir));
            if let Some(directory) = same.or_else(|| filesystem.dir.try_clone().ok()) {
                mounts.push((filesystem.fsid, directory));
            }
        }
        Self {
            mounts,
            forms: HashMap::new(),
        }
    }

    /// The file that a record tells to be opened for an exec.
    pub(super) fn find(&mut self, record: &Record<'_>) -> Option<Arc<Executable>> {
        let found = record.object.and_then(|object| self.open(&object));
        let executable = match found {
            Some(object) => {
                let stat = rustix::fs::fstat(&object).ok()?;
                let identity = Identity::of(&stat);
                Executable {
                    path: shown(&object)?,
                    identity: Some(identity),
                    handle: record.object.map(|object| FileKey {
                        fsid: object.fsid,
                        kind: object.kind,
                        bytes: object.bytes.into(),
                    }),
                    form: self.form(identity, &object),
                }
            }
            // Gone by now: its directory and its name are left.
            None => {
                let named = record.named?;
                let directory = shown(&self.open(&named.directory)?)?;
                Executable {
                    path: format!(
                        "{}/{}",
                        directory.trim_end_matches('/'),
                        encode_component_bytes(named.name)
                    ),
                    identity: None,
                    handle: None,
                    form: Form::Unknown,
                }
            }
        };
        Some(Arc::new(executable))
    }

    fn open(&self, handle: &Handle<'_>) -> Option<OwnedFd> {
        self.mounts
            .iter()
            .filter(|(fsid, _)| *fsid == handle.fsid)
            .find_map(|(_, mount)| {
                sys::open_by_handle(mount.as_fd(), handle.kind, handle.bytes).ok()
            })
    }

    fn form(&mut self, identity: Identity, object: &OwnedFd) -> Form {
        if let Some(form) = self.forms.get(&identity) {
            return *form;
        }
        let form = head(object).map_or(Form::Unknown, |head| form_of(&head, is_there));
        if self.forms.len() >= FORM_LIMIT {
            self.forms.clear();
        }
        self.forms.insert(identity, form);
        form
    }
}

fn shown(object: &OwnedFd) -> Option<String> {
    let link = format!("/proc/self/fd/{}", object.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new()).ok()?;
    Some(encode_component_bytes(path.as_bytes()))
}

/// The first bytes of a regular file.
fn head(object: &OwnedFd) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/self/fd/{}", object.as_raw_fd())).ok()?;
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// Device and inode of a loader at its place in the agent's own view. Whoever made the program named that place: no mount is
/// crossed on the way, for it may lead to a file system that never answers.
fn is_there(path: &[u8]) -> Option<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let within = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let object = rustix::fs::openat2(CWD, path, flags, Mode::empty(), within).ok()?;
    let stat = rustix::fs::fstat(&object).ok()?;
    path.starts_with(b"/").then_some((stat.st_dev, stat.st_ino))
}

/// The form of a file by its first bytes.
fn form_of(head: &[u8], find: impl Fn(&[u8]) -> Option<(u64, u64)>) -> Form {
    if head.starts_with(b"#!") {
        return Form::Script;
    }
    if !head.starts_with(b"\x7fELF") {
        // Whatever runs it (`binfmt_misc`) is opened next.
        return Form::Script;
    }
    match loader(head) {
        Loader::None => Form::Whole,
        Loader::At(path) => Form::Dynamic(find(path)),
        Loader::Unknown => Form::Unknown,
    }
}

enum Loader<'h> {
    None,
    At(&'h [u8]),
    Unknown,
}

/// The program header of an ELF file that names its loader; both widths, little-endian as this program is.
fn loader(head: &[u8]) -> Loader<'_> {
    let wide = match head.get(4) {
        Some(1) => false,
        Some(2) => true,
        _ => return Loader::Unknown,
    };
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let field = head.get(at..at.checked_add(bytes)?)?;
        let mut whole = [0_u8; 8];
        whole.get_mut(..bytes)?.copy_from_slice(field);
        usize::try_from(u64::from_le_bytes(whole)).ok()
    };
    let headers = if wide {
        (number(0x20, 8), number(0x36, 2), number(0x38, 2))
    } else {
        (number(0x1c, 4), number(0x2a, 2), number(0x2c, 2))
    };
    let (Some(table), Some(each), Some(count)) = headers else {
        return Loader::Unknown;
    };
    for index in 0..count.min(64) {
        let at = table.saturating_add(index.saturating_mul(each));
        let field = |offset, bytes| number(at.saturating_add(offset), bytes);
        let fields = if wide {
            (field(0, 4), field(8, 8), field(32, 8))
        } else {
            (field(0, 4), field(4, 4), field(16, 4))
        };
        let (Some(kind), Some(place), Some(length)) = fields else {
            return Loader::Unknown;
        };
        // PT_INTERP
        if kind == 3 {
            let path = head.get(place..place.saturating_add(length));
            return path.map_or(Loader::Unknown, |path| {
                Loader::At(path.strip_suffix(b"\0").unwrap_or(path))
            });
        }
    }
    Loader::None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_told_apart() {
        let sleep = std::fs::read("/bin/sleep").unwrap();
        let form = form_of(&sleep[..HEAD.min(sleep.len())], is_there);
        assert!(matches!(form, Form::Dynamic(Some(_))), "{form:?}");
        let loader = std::fs::read("/lib64/ld-linux-x86-64.so.2").unwrap();
        assert_eq!(form_of(&loader[..HEAD], is_there), Form::Whole);
        assert_eq!(form_of(b"#!/bin/sh\n", is_there), Form::Script);
        assert_eq!(form_of(b"\x7fELF", is_there), Form::Unknown);
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(mut head in proptest::collection::vec(any::<u8>(), 0..256)) {
            form_of(&head, |_| None);
            head.splice(0..0, *b"\x7fELF\x02");
            form_of(&head, |_| None);
        }

        #[test]
        fn no_header_makes_it_panic(table in any::<u64>(), each in any::<u16>(), count in any::<u16>()) {
            let mut head = vec![0; 512];
            head[..5].copy_from_slice(b"\x7fELF\x02");
            head[0x20..0x28].copy_from_slice(&table.to_le_bytes());
            head[0x36..0x38].copy_from_slice(&each.to_le_bytes());
            head[0x38..0x3a].copy_from_slice(&count.to_le_bytes());
            form_of(&head, |_| None);
        }
    }
}
