//! The attested root: a private clone of its mount, in which nothing is mounted and nothing mounted later appears.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::scope::Scope;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use thiserror::Error;

use self::filesystem::DIRECTORY;
pub(crate) use self::filesystem::Filesystem;
use self::points::{Table, is_served, mounted_at, open_point};
use super::served::{self, Server, Silence};
use super::{Links, handle_key, mount_table, split_handle};
use crate::sys;

mod filesystem;
mod points;

/// Bytes of a path given to the kernel at once: below `PATH_MAX`.
const STEP_LIMIT: usize = 4_000;
/// Mounts named in a limit; more are only counted.
const NAMED_MOUNTS: usize = 16;

/// Why the root cannot be read at all.
#[derive(Debug, Error)]
pub enum RootError {
    /// The directory cannot be opened.
    #[error("cannot open the root {}", path.display())]
    Open {
        /// The root.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Its file system does not say what it is.
    #[error("cannot tell the file system of {}", path.display())]
    FileSystem {
        /// The root, or a mount below it.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It lies on a file system that a program or a network serves, and that does not answer.
    #[error("cannot open the root {}", path.display())]
    Silent {
        /// The root.
        path: PathBuf,
        /// How it fails to answer.
        #[source]
        source: Silence,
    },
}

/// The attested root, and the file systems below it that scope names. Clones share descriptors.
#[derive(Clone)]
pub struct Root {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    main: Filesystem,
    /// By the raw path of their mount points.
    mounted: BTreeMap<Box<[u8]>, Filesystem>,
    /// The mount points that scope names, each with the number of the mount that was there.
    points: Vec<(ImagePath, Option<u64>)>,
    /// Those of them whose file system did not answer when it was opened.
    silent: Vec<(ImagePath, Arc<Server>)>,
    limits: Vec<String>,
    links: Links,
}

impl Root {
    /// Opens the root at `path`, with a clone of its own for each file system whose mount point `scope` names literally.
    ///
    /// # Errors
    /// When `path` is not a directory that can be read. Less than a clone is no error but a limit.
    pub fn open(path: &Path, scope: &Scope) -> Result<Self, RootError> {
        let given = path.to_path_buf();
        let (plain, main, path) = served::within(&Arc::default(), move || open_main(&given))
            .map_err(|source| RootError::Silent {
                path: path.into(),
                source,
            })??;
        let mut inner = Inner {
            path,
            main,
            mounted: BTreeMap::new(),
            points: Vec::new(),
            silent: Vec::new(),
            limits: Vec::new(),
            links: Links::default(),
        };
        if inner.main.is_clone() {
            inner.open_points(&Arc::new(plain), scope)?;
        } else {
            inner.limits.push(plain_limit(&inner.path));
        }
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Where the root was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where a path of the root lies for everybody, while nothing is mounted over it.
    pub(crate) fn shown(&self, path: &ImagePath) -> PathBuf {
        if path.is_root() {
            return self.inner.path.clone();
        }
        self.inner
            .path
            .join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }

    /// Whether it is read through a private clone of its mount, below whatever is mounted over it.
    #[must_use]
    pub fn is_clone(&self) -> bool {
        self.inner.main.is_clone()
    }

    /// What is not read here, in words, as standing limits.
    #[must_use]
    pub fn limits(&self) -> Vec<String> {
        let mut limits = self.inner.limits.clone();
        if self.inner.links.overflowed() {
            limits.push("there are more hard links than are followed: a write through one of them may be told late".into());
        }
        limits
    }

    /// The mount points of scope at which something else is mounted now than when the root was opened, and those that did
    /// not answer then and may now.
    pub(crate) fn outdated(&self) -> Vec<ImagePath> {
        if self.inner.points.is_empty() {
            return Vec::new();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = &self.inner.path;
        let table = Table::below(path);
        // A root that is gone, or does not answer, is told of when it is looked at.
        let plain = match self.inner.main.server {
            None => rustix::fs::openat(CWD, path, flags, Mode::empty()).ok(),
            Some(_) => None,
        };
        let now = |point: &ImagePath| match &plain {
            _ if table.is_served(point) => Some(table.mount_at(point)),
            Some(plain) => Some(
                mounted_at(plain, path, point)
                    .ok()
                    .flatten()
                    .map(|(_, id)| id),
            ),
            None => None,
        };
        let points = self.inner.points.iter();
        let moved = points.filter(|(point, before)| now(point).is_some_and(|now| now != *before));
        let mut outdated: Vec<ImagePath> = moved.map(|(point, _)| point.clone()).collect();
        let silent = self.inner.silent.iter();
        let answering = silent.filter(|(_, server)| !server.is_silent());
        outdated.extend(answering.map(|(point, _)| point.clone()));
        outdated
    }

    /// Who answers for the file system that a path lies on, where that is a program or a network.
    pub(crate) fn server(&self, path: &[u8]) -> Option<&Arc<Server>> {
        self.split(path).0.server.as_ref()
    }

    /// Whether a path lies at or below a mount point whose file system did not answer when it was opened.
    pub(super) fn is_silent(&self, path: &[u8]) -> bool {
        let mut silent = self.inner.silent.iter();
        silent.any(|(point, _)| below(path, point.as_bytes()).is_some())
    }

    /// The file systems whose changes are told: nobody waits for what a program or a network serves, but for a root's own.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Filesystem> {
        self.filesystems()
            .filter(|filesystem| filesystem.server.is_none() || filesystem.prefix.is_root())
    }

    /// The mount points of scope whose changes are found by rescans alone.
    pub(crate) fn unwatched(&self) -> impl Iterator<Item = &ImagePath> {
        let served = self.inner.mounted.values();
        let served = served.filter(|filesystem| filesystem.server.is_some());
        let silent = self.inner.silent.iter().map(|(point, _)| point);
        served.map(|filesystem| &filesystem.prefix).chain(silent)
    }

    pub(crate) fn links(&self) -> &Links {
        &self.inner.links
    }

    pub(crate) fn filesystems(&self) -> impl Iterator<Item = &Filesystem> {
        std::iter::once(&self.inner.main).chain(self.inner.mounted.values())
    }

    /// The other names in scope of the file at this path.
    pub(crate) fn names_beside(&self, path: &ImagePath) -> Vec<ImagePath> {
        let find = || {
            if self.server(path.as_bytes()).is_some() {
                return None;
            }
            let (directory, filesystem) = self.open_directory(path.parent()?.as_bytes()).ok()?;
            let name = CString::new(path.name()).ok()?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let object = filesystem
                .open_child(directory.as_fd(), &name, flags)
                .ok()?;
            let handle = sys::name_to_handle(object.as_fd()).ok()?;
            Some(
                self.links()
                    .names(&handle_key(filesystem.fsid, handle.kind, &handle.bytes)),
            )
        };
        let mut names = find().unwrap_or_default();
        names.retain(|name| name != path);
        names
    }

    /// Whether the file of a handle still has more than one name, as far as that can be told.
    pub(super) fn has_several_names(&self, key: &[u8]) -> bool {
        let Some((fsid, kind, bytes)) = split_handle(key) else {
            return false;
        };
        let Some(filesystem) = self.filesystems().find(|one| one.fsid == fsid) else {
            return false;
        };
        // Nobody waits here for one that may not answer.
        if filesystem.server.is_some() {
            return true;
        }
        let object = match sys::open_by_handle(filesystem.dir.as_fd(), kind, bytes) {
            Ok(object) => object,
            Err(error) => {
                let gone = [Errno::STALE, Errno::NOENT].map(Some);
                return !gone.contains(&Errno::from_io_error(&error));
            }
        };
        let wanted = StatxFlags::NLINK;
        rustix::fs::statx(&object, c"", AtFlags::EMPTY_PATH, wanted)
            .map_or(true, |stat| stat.stx_nlink > 1)
    }

    /// The file system that is mounted exactly at this path and belongs to the root.
    pub(super) fn mounted_at(&self, path: &[u8]) -> Option<&Filesystem> {
        if path.is_empty() {
            Some(&self.inner.main)
        } else {
            self.inner.mounted.get(path)
        }
    }

    /// Opens a directory by its path, without following a link or crossing a mount.
    pub(crate) fn open_directory(&self, path: &[u8]) -> Result<(OwnedFd, &Filesystem), Errno> {
        if self.is_silent(path) {
            return Err(Errno::TIMEDOUT);
        }
        let (filesystem, mut rest) = self.split(path);
        let mut directory = filesystem.open(c".", DIRECTORY, filesystem.dir.as_fd())?;
        while !rest.is_empty() {
            let step = step(rest);
            let name = CString::new(&rest[..step]).map_err(|_| Errno::INVAL)?;
            directory = filesystem.open(&name, DIRECTORY, directory.as_fd())?;
            rest = rest.get(step + 1..).unwrap_or_default();
        }
        Ok((directory, filesystem))
    }

    /// The file system that a path lies on, and the path in it.
    fn split<'p>(&self, path: &'p [u8]) -> (&Filesystem, &'p [u8]) {
        let deepest = self
            .inner
            .mounted
            .iter()
            .filter_map(|(point, filesystem)| Some((filesystem, below(path, point)?)));
        deepest
            .min_by_key(|(_, rest)| rest.len())
            .unwrap_or((&self.inner.main, path))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Root")
            .field("path", &self.inner.path)
            .field("clone", &self.is_clone())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Opens what is mounted at the points that scope names.
    fn open_points(&mut self, plain: &Arc<OwnedFd>, scope: &Scope) -> Result<(), RootError> {
        let table = Table::below(&self.path);
        for point in scope.literal_mounts() {
            if !table.is_served(&point) {
                let mount = open_point(plain, &self.path, &point)?;
                let id = mount.as_ref().map(|(_, id)| *id);
                self.mounted
                    .extend(mount.map(|(filesystem, _)| (point.as_bytes().into(), filesystem)));
                self.points.push((point, id));
                continue;
            }
            let server = Arc::new(Server::default());
            let (plain, path, at) = (Arc::clone(plain), self.path.clone(), point.clone());
            match served::within(&server, move || open_point(&plain, &path, &at)) {
                Ok(Ok(Some((mut filesystem, _)))) => {
                    filesystem.server = Some(server);
                    self.mounted.insert(point.as_bytes().into(), filesystem);
                }
                Ok(Ok(None)) => {}
                // One that fails is told as one that does not answer: what lies there is not known either way.
                Ok(Err(_)) | Err(_) => self.silent.push((point.clone(), server)),
            }
            let id = table.mount_at(&point);
            self.points.push((point, id));
        }
        Ok(())
    }
}

/// The root's directory, its file system, and where it really lies.
fn open_main(path: &Path) -> Result<(OwnedFd, Filesystem, PathBuf), RootError> {
    let failed = |source| RootError::Open {
        path: path.into(),
        source,
    };
    let plain = rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| failed(errno.into()))?;
    let mut main = Filesystem::open_at(&plain, ImagePath::root(), path)?;
    main.server = is_served(&plain).then(Arc::default);
    let real = std::fs::canonicalize(path).map_err(failed)?;
    Ok((plain, main, real))
}

/// What is left of a path at or below a point.
fn below<'p>(path: &'p [u8], point: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(point)? {
        [] => Some(&path[..0]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// How many bytes of a path to give to the kernel at once: whole components, at least one.
fn step(path: &[u8]) -> usize {
    if path.len() <= STEP_LIMIT {
        return path.len();
    }
    path[..STEP_LIMIT]
        .iter()
        .rposition(|byte| *byte == b'/')
        .unwrap_or_else(|| {
            path.iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(path.len())
        })
}

fn plain_limit(root: &Path) -> String {
    let mounts = mount_table(root).unwrap_or_default();
    let mut limit =
        String::from("the root's mount could not be cloned: what lies under a mount is not read");
    if !mounts.is_empty() {
        let named: Vec<_> = mounts
            .iter()
            .take(NAMED_MOUNTS)
            .map(|mount| mount.path.to_string())
            .collect();
        let more = if mounts.len() > NAMED_MOUNTS {
            ", …"
        } else {
            ""
        };
        limit.push_str(&format!(
            " ({} mounts: {}{more})",
            mounts.len(),
            named.join(", ")
        ));
    }
    limit
}
