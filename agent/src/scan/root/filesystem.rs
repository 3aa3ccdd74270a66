//! One mounted file system of the root, and how what lies in it is opened.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use attestation::path::ImagePath;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use super::RootError;
use crate::scan::mount_lines;
use crate::scan::served::Server;
use crate::sys::{self, FileHandle};

/// What `statfs` says of a btrfs.
const BTRFS_MAGIC: i64 = 0x9123_683e;
/// What `statfs` calls file systems that are kept in memory.
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME);

/// One mounted file system of the root.
#[derive(Debug)]
pub(crate) struct Filesystem {
    pub(crate) dir: OwnedFd,
    /// Where it lies in the root.
    pub(crate) prefix: ImagePath,
    pub(crate) fsid: [u8; 8],
    /// Handle of its root directory, where it has handles.
    pub(crate) handle: Option<FileHandle>,
    /// It is kept in memory alone: what a mapping changes is never written back, so no ctime tells of it.
    pub(crate) volatile: bool,
    /// Device and inode of its root directory.
    pub(crate) root: (u64, u64),
    /// The top of a btrfs of which only a subvolume is mounted: the kernel marks the whole by nothing less, and tells of
    /// it by the top's identifier.
    top: Option<OwnedFd>,
    /// Who answers for it, where that is a program or a network: then it is only asked through [`served`](crate::scan::served).
    pub(crate) server: Option<Arc<Server>>,
    /// The clone itself: while it is open the mount counts as a mounted one, for which the kernel takes no lock at each close.
    tree: Option<OwnedFd>,
}

impl Filesystem {
    pub(crate) fn is_clone(&self) -> bool {
        self.tree.is_some()
    }

    pub(super) fn open(
        &self,
        name: &CStr,
        flags: OFlags,
        directory: BorrowedFd<'_>,
    ) -> Result<OwnedFd, Errno> {
        open_beneath(directory, name, flags, resolve(self.is_clone()))
    }

    /// Opens one name of a directory of this file system as a directory.
    pub(in crate::scan) fn open_child_directory(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<OwnedFd, Errno> {
        self.open_child(directory, name, DIRECTORY)
    }

    /// Opens one name of a directory; in a clone there is no mount to cross, elsewhere the kernel is asked to see to it.
    pub(in crate::scan) fn open_child(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        flags: OFlags,
    ) -> Result<OwnedFd, Errno> {
        if !self.is_clone() {
            return self.open(name, flags, directory);
        }
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => rustix::fs::openat(
                directory,
                name,
                flags.difference(OFlags::NOATIME),
                Mode::empty(),
            ),
            result => result,
        }
    }

    fn open_clone(plain: &OwnedFd) -> Result<(OwnedFd, OwnedFd), Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(plain, c"", flags)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&tree, c".", flags, Mode::empty())?;
        Ok((directory, tree))
    }

    /// A directory of another file system, whose events are those of a place in the root. Only as a clone: elsewhere paths
    /// cannot be told from each other.
    pub(crate) fn beside(plain: &OwnedFd, prefix: ImagePath) -> std::io::Result<Self> {
        let (dir, tree) = Self::open_clone(plain)?;
        Ok(Self::describe(dir, Some(tree), None, prefix)?)
    }

    fn describe(
        dir: OwnedFd,
        tree: Option<OwnedFd>,
        top: Option<OwnedFd>,
        prefix: ImagePath,
    ) -> Result<Self, Errno> {
        let marked = top.as_ref().unwrap_or(&dir);
        let fsid = fsid_bytes(rustix::fs::fstatvfs(marked)?.f_fsid);
        let handle = sys::name_to_handle(dir.as_fd()).ok();
        let volatile = [TMPFS, RAMFS].contains(&rustix::fs::fstatfs(&dir)?.f_type);
        let stat = rustix::fs::fstat(&dir)?;
        Ok(Self {
            dir,
            prefix,
            fsid,
            handle,
            volatile,
            root: (stat.st_dev, stat.st_ino),
            top,
            server: None,
            tree,
        })
    }

    /// What a mark of the whole file system is put on.
    pub(crate) fn marked_at(&self) -> BorrowedFd<'_> {
        self.top.as_ref().unwrap_or(&self.dir).as_fd()
    }

    /// `shown` is for errors only.
    pub(super) fn open_at(
        plain: &OwnedFd,
        prefix: ImagePath,
        shown: &Path,
    ) -> Result<Self, RootError> {
        let failed = |errno: Errno| RootError::FileSystem {
            path: shown.into(),
            source: errno.into(),
        };
        let (dir, tree) = match Self::open_clone(plain) {
            Ok((dir, tree)) => (dir, Some(tree)),
            Err(_) => {
                let dir = plain.try_clone().map_err(|source| RootError::Open {
                    path: shown.into(),
                    source,
                })?;
                (dir, None)
            }
        };
        let top = btrfs_top(&dir, shown);
        Self::describe(dir, tree, top, prefix).map_err(failed)
    }
}

/// The identifier as event records have it: two integers in the machine's order.
fn fsid_bytes(fsid: u64) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h] = fsid.to_le_bytes();
    let (first, second) = (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    );
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

/// The top directory of the btrfs that a directory lies on, through a mount that nobody else sees; nothing where it is
/// mounted from the top, or cannot be.
fn btrfs_top(dir: &OwnedFd, shown: &Path) -> Option<OwnedFd> {
    let is_btrfs = rustix::fs::fstatfs(dir).is_ok_and(|told| told.f_type == BTRFS_MAGIC);
    if !is_btrfs {
        return None;
    }
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let stat = rustix::fs::statx(CWD, shown, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    let line = mount_lines(&table).find(|line| line.id == stat.stx_mnt_id)?;
    let open = || {
        let context = rustix::mount::fsopen(c"btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let source = CString::new(line.source.clone()).map_err(|_| Errno::INVAL)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), c"source", &source)?;
        rustix::mount::fsconfig_set_string(context.as_fd(), c"subvolid", c"5")?;
        rustix::mount::fsconfig_create(context.as_fd())?;
        let mount = rustix::mount::fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&mount, c".", flags, Mode::empty())
    };
    let top = open()
        .inspect_err(|errno: &Errno| tracing::info!(%errno, "the top of a btrfs cannot be opened"))
        .ok()?;
    let fsid = |dir| rustix::fs::fstatvfs(dir).map(|told| told.f_fsid);
    (fsid(&top).ok()? != fsid(dir).ok()?).then_some(top)
}

pub(super) fn resolve(cloned: bool) -> ResolveFlags {
    let always = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    if cloned {
        always
    } else {
        always | ResolveFlags::NO_XDEV
    }
}

pub(super) fn open_beneath(
    at: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat2(at, name, flags, Mode::empty(), resolve) {
        Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => rustix::fs::openat2(
            at,
            name,
            flags.difference(OFlags::NOATIME),
            Mode::empty(),
            resolve,
        ),
        result => result,
    }
}
