//! From handles to paths, on the consumer's thread.
//!
//! Handles are resolved relative to the clones that the root is read through. A handle from outside them reads back as
//! `/`, which is believed only of the handle that the root directory really has.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use rustix::fs::{AtFlags, FileType, StatxFlags, makedev};
use rustix::io::Errno;

use self::settled::{Patience, open_settled};
use self::shown::{DELETED, below};
use super::board::{Board, Key, Seen};
use super::keys::{NAMED, OBJECT, WRITTEN, split_named, split_written};
use super::report::{Aliased, Inode};
use super::{EventSet, Place};
use crate::actor::{ExeDigests, Users};
use crate::scan::{Filesystem, Root, split_handle};

mod settled;
mod shown;

/// Directories whose paths are remembered: more than a storm is busy in at once, about 3 MiB. Looking one up again takes 4 µs.
const CACHE_LIMIT: usize = 16_384;
/// Inodes with unknown names that wait to be looked for; more than that is a rescan.
const ALIASED: usize = 16_384;

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
    /// Directories that overlays keep what was written in.
    uppers: Vec<Filesystem>,
    /// The mounts that paths of descriptors are believed on, with where they are and what lies there.
    mounts: Vec<(u64, Vec<u8>, ImagePath)>,
    aliased: Vec<Aliased>,
    patience: Patience,
}

impl Resolver {
    pub(super) fn new(
        root: &Root,
        scope: &Scope,
        board: &Arc<Board>,
        uppers: Vec<Filesystem>,
    ) -> Self {
        let mounts = root.watched().filter_map(|filesystem| {
            let shown = root.shown(&filesystem.prefix);
            let id = super::mount_of(&shown)?;
            Some((
                id,
                shown.into_os_string().into_encoded_bytes(),
                filesystem.prefix.clone(),
            ))
        });
        Self {
            mounts: mounts.collect(),
            uppers,
            aliased: Vec::new(),
            patience: Patience::default(),
            root: root.clone(),
            scope: scope.clone(),
            board: Arc::clone(board),
            directories: HashMap::new(),
            generation: 0,
            users: Users::default(),
            digests: ExeDigests::default(),
        }
    }

    /// The places in scope, one for each path; and inodes to which something was done under names that are not known.
    pub(super) fn resolve(
        &mut self,
        seen: HashMap<Key, Seen>,
        generation: u64,
    ) -> (Vec<Place>, Vec<Aliased>) {
        if generation != self.generation || self.directories.len() > CACHE_LIMIT {
            self.directories.clear();
            self.generation = generation;
        }
        self.patience = Patience::default();
        let mut merged: HashMap<ImagePath, Seen> = HashMap::with_capacity(seen.len());
        let mut add = |path: ImagePath, seen: &Seen| match merged.get_mut(&path) {
            Some(known) => known.absorb(seen),
            None => drop(merged.insert(path, seen.clone())),
        };
        for (key, mut seen) in seen {
            let result = match key.split_first() {
                Some((&NAMED, rest)) => self.named(rest),
                Some((&WRITTEN, rest)) => Ok(self.written(rest, &seen)),
                Some((&OBJECT, handle)) => self.object(handle, &seen),
                _ => continue,
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
        let places = merged
            .into_iter()
            .map(|(path, seen)| self.place(path, seen))
            .collect();
        (places, std::mem::take(&mut self.aliased))
    }

    fn place(&mut self, path: ImagePath, seen: Seen) -> Place {
        let actor = seen.actor.map(|doer| {
            let mut actor = doer.actor.clone();
            actor.exe_sha256 = self.digests.of(&self.root, &doer);
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

    /// A written file by its descriptor: its path is believed on the root's own mount, elsewhere its inode must do.
    fn written(&mut self, rest: &[u8], seen: &Seen) -> Vec<(ImagePath, bool)> {
        let Some((inode, linked, mount, shown)) = split_written(rest) else {
            return Vec::new();
        };
        let place = self
            .mounts
            .iter()
            .filter(|(id, ..)| *id == mount)
            .find_map(|(_, base, prefix)| below(shown, base, prefix))
            .filter(|_| !shown.ends_with(DELETED));
        if linked || place.is_none() {
            self.alias(inode, seen);
        }
        place.into_iter().map(|path| (path, false)).collect()
    }

    fn alias(&mut self, inode: Inode, seen: &Seen) {
        if self.aliased.len() >= ALIASED {
            self.board.lose("backlog");
            return;
        }
        self.aliased.push(Aliased {
            inode,
            events: seen.events,
            actor: seen.actor.as_ref().map(|doer| doer.actor.clone()),
            last: seen.last,
        });
    }

    /// Something was done to the inode itself: if it has so many names, a sealed one may be among those that are not known.
    fn alias_if_named(&mut self, handle: &[u8], least: u32, seen: &Seen) {
        let Some((fsid, kind, bytes)) = split_handle(handle) else {
            return;
        };
        let mount = self.filesystems_of(fsid).next();
        let Some(Ok(object)) = mount
            .map(|filesystem| open_settled(filesystem.dir.as_fd(), kind, bytes, &self.patience))
        else {
            return;
        };
        let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::TYPE;
        let Ok(stat) = rustix::fs::statx(&object, c"", AtFlags::EMPTY_PATH, wanted) else {
            return;
        };
        let is_file = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        if is_file && stat.stx_nlink >= least {
            let dev = makedev(stat.stx_dev_major, stat.stx_dev_minor);
            let ino = stat.stx_ino;
            self.alias(Inode { dev, ino }, seen);
        }
    }

    fn filesystems_of(&self, fsid: [u8; 8]) -> impl Iterator<Item = &Filesystem> {
        self.root
            .watched()
            .chain(&self.uppers)
            .filter(move |filesystem| filesystem.fsid == fsid)
    }

    fn object(&mut self, handle: &[u8], seen: &Seen) -> Result<Vec<(ImagePath, bool)>, Errno> {
        let mut places: Vec<_> = self
            .root
            .links()
            .names(handle)
            .into_iter()
            .map(|path| (path, false))
            .collect();
        let place = self.find(handle)?;
        let names_moved = EventSet::ATTRIB.union(EventSet::CREATE);
        let least = match &place {
            Where::Gone => None,
            // It is called so; or the name that somebody still holds has gone, and another is left.
            Where::At(path) if path.as_bytes().ends_with(DELETED) => Some(1),
            _ if places.is_empty() && seen.events.intersects(names_moved) => Some(2),
            _ => None,
        };
        if let Some(least) = least {
            self.alias_if_named(handle, least, seen);
        }
        match place {
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
        let Some((fsid, kind, bytes)) = split_handle(key) else {
            return Ok(Where::Gone);
        };
        let mut found = Where::Gone;
        for filesystem in self.filesystems_of(fsid) {
            let object = match open_settled(filesystem.dir.as_fd(), kind, bytes, &self.patience) {
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
