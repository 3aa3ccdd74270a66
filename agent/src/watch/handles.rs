//! From handles to paths, on the consumer's thread.
//!
//! Handles are resolved relative to the clones that the root is read through. A handle from outside them reads back as
//! `/`, which is believed only of the handle that the root directory really has.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::board::{Board, Key, Seen};
use super::record::{Handle, Named};
use super::{EventSet, Place};
use crate::actor::{ExeDigests, Users};
use crate::scan::{Filesystem, Root, handle_key};
use crate::sys;

/// Directories whose paths are remembered: more than most systems have in use, about 20 MiB.
const CACHE_LIMIT: usize = 100_000;
/// How far up a path longer than the kernel tells is followed, in levels.
const CLIMB_LIMIT: usize = 65_536;

/// How often, and how far apart, an inode that is being made is asked for again.
const BEING_MADE_TRIES: u32 = 5;
const BEING_MADE: Duration = Duration::from_micros(500);

const OBJECT: u8 = 0;
const NAMED: u8 = 1;
const INODE: u8 = 2;

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

/// The key of an object whose file system has no handles.
pub(super) fn inode_key(dev: u64, ino: u64) -> Vec<u8> {
    let mut key = vec![INODE];
    key.extend(dev.to_le_bytes());
    key.extend(ino.to_le_bytes());
    key
}

/// The directory in a key of a name, and the name.
fn split_named(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Where a handle leads.
#[derive(Clone, Debug)]
enum Where {
    At(ImagePath),
    /// At or below this directory, at a path longer than the kernel tells.
    Below(ImagePath),
    Outside,
    Gone,
}

/// What is remembered of a directory.
#[derive(Clone, Debug)]
struct Known {
    place: Where,
    /// Nothing below is in scope.
    ignored: bool,
}

#[derive(Debug)]
pub(super) struct Resolver {
    root: Root,
    scope: Scope,
    board: Arc<Board>,
    directories: HashMap<Key, Known>,
    generation: u64,
    users: Users,
    digests: ExeDigests,
}

impl Resolver {
    pub(super) fn new(root: &Root, scope: &Scope, board: &Arc<Board>) -> Self {
        Self {
            root: root.clone(),
            scope: scope.clone(),
            board: Arc::clone(board),
            directories: HashMap::new(),
            generation: 0,
            users: Users::default(),
            digests: ExeDigests::default(),
        }
    }

    /// The places in scope, one for each path.
    pub(super) fn resolve(&mut self, seen: HashMap<Key, Seen>, generation: u64) -> Vec<Place> {
        if generation != self.generation || self.directories.len() > CACHE_LIMIT {
            self.directories.clear();
            self.generation = generation;
        }
        let mut merged: HashMap<ImagePath, Seen> = HashMap::with_capacity(seen.len());
        let mut add = |path: ImagePath, seen: &Seen| match merged.get_mut(&path) {
            Some(known) => known.absorb(seen),
            None => drop(merged.insert(path, seen.clone())),
        };
        for (key, mut seen) in seen {
            let result = match key.split_first() {
                Some((&NAMED, rest)) => self.named(rest),
                Some((_, handle)) => self.object(handle),
                None => continue,
            };
            match result {
                Ok(places) => {
                    for (path, below) in places {
                        seen.subtree |= below;
                        if in_scope(&self.scope, &path, seen.subtree) {
                            add(path, &seen);
                        }
                    }
                }
                Err(errno) => self.board.lose(&format!(
                    "a place could not be found: {}",
                    std::io::Error::from(errno)
                )),
            }
        }
        merged
            .into_iter()
            .map(|(path, seen)| self.place(path, seen))
            .collect()
    }

    fn place(&mut self, path: ImagePath, seen: Seen) -> Place {
        let actor = seen.actor.map(|doer| {
            let mut actor = doer.actor.clone();
            actor.exe_sha256 = self.digests.of(&doer);
            self.users.name(&self.root, &mut actor);
            actor
        });
        let Seen {
            events,
            subtree,
            first,
            last,
            count,
            ..
        } = seen;
        Place {
            path,
            subtree,
            events,
            actor,
            first,
            last,
            count,
        }
    }

    fn named(&mut self, rest: &[u8]) -> Result<Vec<(ImagePath, bool)>, Errno> {
        let Some((directory, name)) = split_named(rest) else {
            return Ok(Vec::new());
        };
        let known = self.directory(directory)?;
        Ok(match known.place {
            Where::At(path) if name == b"." => vec![(path, false)],
            // The directory itself may be in scope, what lies in it is not.
            Where::At(_) if known.ignored => Vec::new(),
            Where::At(path) => match path.child(name) {
                Ok(child) => vec![(child, false)],
                // A name that makes the path too long: the directory is told as too deep when it is looked at.
                Err(_) => vec![(path, true)],
            },
            Where::Below(path) => vec![(path, true)],
            Where::Outside | Where::Gone => Vec::new(),
        })
    }

    fn object(&mut self, handle: &[u8]) -> Result<Vec<(ImagePath, bool)>, Errno> {
        let mut places: Vec<_> = self
            .root
            .links()
            .names(handle)
            .into_iter()
            .map(|path| (path, false))
            .collect();
        match self.find(handle)? {
            Where::At(path) => places.push((path, false)),
            Where::Below(path) => places.push((path, true)),
            Where::Outside | Where::Gone => {}
        }
        Ok(places)
    }

    fn directory(&mut self, handle: &[u8]) -> Result<Known, Errno> {
        if let Some(known) = self.directories.get(handle) {
            return Ok(known.clone());
        }
        let place = self.find(handle)?;
        let ignored = match &place {
            Where::At(path) => ignores_all_below(&self.scope, path),
            Where::Below(path) => !in_scope(&self.scope, path, true),
            Where::Outside => true,
            // Not remembered: its parent tells that it went, and its handle never comes again.
            Where::Gone => {
                return Ok(Known {
                    place,
                    ignored: false,
                });
            }
        };
        if ignored {
            self.board.ignore(handle, self.generation);
        }
        let known = Known { place, ignored };
        self.directories.insert(handle.into(), known.clone());
        Ok(known)
    }

    fn find(&self, key: &[u8]) -> Result<Where, Errno> {
        let Some((fsid, rest)) = key.split_first_chunk::<8>() else {
            return Ok(Where::Gone);
        };
        let Some((kind, bytes)) = rest.split_first_chunk::<4>() else {
            return Ok(Where::Gone);
        };
        let kind = i32::from_le_bytes(*kind);
        let mut found = Where::Gone;
        for filesystem in self
            .root
            .filesystems()
            .filter(|filesystem| filesystem.fsid == *fsid)
        {
            let object = match open_settled(filesystem.dir.as_fd(), kind, bytes) {
                Ok(object) => object,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::STALE | Errno::NOENT) => continue,
                    errno => return Err(errno.unwrap_or(Errno::IO)),
                },
            };
            let is_root = filesystem
                .handle
                .as_ref()
                .is_some_and(|root| root.kind == kind && root.bytes == bytes);
            match self.path_of(filesystem, object, is_root)? {
                Where::Outside => found = Where::Outside,
                place => return Ok(place),
            }
        }
        Ok(found)
    }

    fn path_of(
        &self,
        filesystem: &Filesystem,
        object: OwnedFd,
        is_root: bool,
    ) -> Result<Where, Errno> {
        if is_root {
            return Ok(Where::At(filesystem.prefix.clone()));
        }
        let mut object = object;
        for level in 0..CLIMB_LIMIT {
            let link = format!("/proc/self/fd/{}", object.as_raw_fd());
            match rustix::fs::readlinkat(CWD, link, Vec::new()) {
                Ok(shown) => {
                    let place = self.as_shown(filesystem, &object, shown.as_bytes())?;
                    return Ok(match place {
                        Where::At(path) if level > 0 => Where::Below(path),
                        place => place,
                    });
                }
                // Longer than a page: the nearest directory above that can be told stands for it.
                Err(Errno::NAMETOOLONG) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    match rustix::fs::openat(&object, c"..", flags, Mode::empty()) {
                        Ok(parent) => object = parent,
                        // Not a directory, so there is no way up: its directory tells of the change.
                        Err(Errno::NOTDIR | Errno::NOENT) => return Ok(Where::Gone),
                        Err(errno) => return Err(errno),
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(Where::Gone)
    }

    /// The place of a path as the kernel shows it, relative to the clone or, without one, absolute.
    fn as_shown(
        &self,
        filesystem: &Filesystem,
        object: &OwnedFd,
        shown: &[u8],
    ) -> Result<Where, Errno> {
        if shown.ends_with(b" (deleted)") && is_unlinked(object)? {
            return Ok(Where::Gone);
        }
        let relative = if self.root.is_clone() {
            shown.strip_prefix(b"/")
        } else {
            let base = self.root.path();
            std::path::Path::new(OsStr::from_bytes(shown))
                .strip_prefix(base)
                .ok()
                .map(|relative| relative.as_os_str().as_bytes())
        };
        // Only the root directory itself has the empty path, and its handle was compared before.
        let Some(relative) = relative.filter(|relative| !relative.is_empty()) else {
            return Ok(Where::Outside);
        };
        let prefix = filesystem.prefix.as_bytes();
        let whole = if prefix.is_empty() {
            relative.to_vec()
        } else {
            [prefix, relative].join(&b'/')
        };
        Ok(ImagePath::from_bytes(whole).map_or(Where::Outside, Where::At))
    }
}

fn is_unlinked(object: &OwnedFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statx(object, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
    Ok(stat.stx_nlink == 0)
}

fn ignores_all_below(scope: &Scope, path: &ImagePath) -> bool {
    let mut state = scope.start();
    for name in path.components() {
        if state.ignores_all_below() {
            return true;
        }
        state = state.child(name);
    }
    state.ignores_all_below()
}

/// Whether a place is of interest: by itself, or for what may lie below.
pub(super) fn in_scope(scope: &Scope, path: &ImagePath, subtree: bool) -> bool {
    scope.decide(path).expect != Expect::Ignored || (subtree && !ignores_all_below(scope, path))
}

/// What the mask of an event says.
pub(super) fn events_of(mask: u64) -> EventSet {
    let kinds = [
        (libc::FAN_MODIFY, EventSet::MODIFY),
        (libc::FAN_CLOSE_WRITE, EventSet::CLOSE_WRITE),
        (libc::FAN_ATTRIB, EventSet::ATTRIB),
        (libc::FAN_CREATE, EventSet::CREATE),
        (libc::FAN_DELETE, EventSet::DELETE),
        (libc::FAN_RENAME, EventSet::RENAME),
    ];
    let mut events = EventSet::empty();
    for (bit, kind) in kinds {
        if mask & bit != 0 {
            events |= kind;
        }
    }
    events
}

/// Opens the object of a handle; waits out an inode number that is just being given to a new file.
///
/// While that lasts (microseconds) ext4's `iget` finds the number taken by an inode that is not ready, and the kernel
/// makes of it `ENOMEM`, the one error besides `ESTALE` that `exportfs_decode_fh` lets through.
fn open_settled(mount: BorrowedFd<'_>, kind: i32, bytes: &[u8]) -> io::Result<OwnedFd> {
    for _ in 0..BEING_MADE_TRIES {
        match sys::open_by_handle(mount, kind, bytes) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOMEM) => {
                std::thread::sleep(BEING_MADE);
            }
            done => return done,
        }
    }
    sys::open_by_handle(mount, kind, bytes)
}
