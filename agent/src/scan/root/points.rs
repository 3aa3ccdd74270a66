//! The mount points that scope names, and what is mounted there.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::path::ImagePath;
use rustix::fs::{AtFlags, StatxFlags};

use super::filesystem::{DIRECTORY, Filesystem, open_beneath, resolve};
use super::{RootError, STEP_LIMIT};
use crate::scan::served;
use crate::scan::{MountLine, lines_below, mount_lines, mount_table};

/// What is mounted below the root, as far as it matters before anybody there is asked anything.
pub(super) struct Table(BTreeMap<ImagePath, MountLine>);

impl Table {
    pub(super) fn below(root: &Path) -> Self {
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self(lines_below(&table, root.as_os_str().as_bytes()))
    }

    /// Whether a program or a network is asked on the way to this path, or at it.
    pub(super) fn is_served(&self, path: &ImagePath) -> bool {
        let mut lines = self.0.iter();
        lines.any(|(point, line)| served::is_served(&line.fstype) && path.starts_with(point))
    }

    pub(super) fn mount_at(&self, path: &ImagePath) -> Option<u64> {
        self.0.get(path).map(|line| line.id)
    }
}

/// What is mounted at a point that scope names, and the number of the mount.
pub(super) fn open_point(
    plain: &OwnedFd,
    root: &Path,
    point: &ImagePath,
) -> Result<Option<(Filesystem, u64)>, RootError> {
    let Some((there, id)) = mounted_at(plain, root, point)? else {
        return Ok(None);
    };
    let shown = root.join(std::ffi::OsStr::from_bytes(point.as_bytes()));
    Ok(Some((
        Filesystem::open_at(&there, point.clone(), &shown)?,
        id,
    )))
}

/// The directory of the file system mounted at a path that scope names, and the number of its mount, if one is: a
/// directory on another device than the root's.
pub(super) fn mounted_at(
    plain: &OwnedFd,
    root: &Path,
    point: &ImagePath,
) -> Result<Option<(OwnedFd, u64)>, RootError> {
    if point.is_root() || point.as_bytes().len() > STEP_LIMIT {
        return Ok(None);
    }
    let Ok(name) = CString::new(point.as_bytes()) else {
        return Ok(None);
    };
    let Ok(there) = open_beneath(plain.as_fd(), &name, DIRECTORY, resolve(true)) else {
        return Ok(None);
    };
    let device = |fd: &OwnedFd| {
        let stat = rustix::fs::statx(
            fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::TYPE | StatxFlags::MNT_ID,
        )
        .map_err(|errno| RootError::FileSystem {
            path: root.join(std::ffi::OsStr::from_bytes(point.as_bytes())),
            source: errno.into(),
        })?;
        Ok::<_, RootError>(((stat.stx_dev_major, stat.stx_dev_minor), stat.stx_mnt_id))
    };
    let (here, here_mount) = device(&there)?;
    let (above, above_mount) = device(plain)?;
    let listed =
        || mount_table(root).is_ok_and(|table| table.iter().any(|mount| mount.path == *point));
    let another = here != above && here_mount != above_mount && listed();
    Ok(another.then_some((there, here_mount)))
}

/// Whether a directory lies on a file system that a program or a network serves. Where mounts are not told, none does.
pub(super) fn is_served(dir: &OwnedFd) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = rustix::fs::statx(dir, c"", flags, StatxFlags::MNT_ID) else {
        return false;
    };
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_lines(&table).any(|line| line.id == stat.stx_mnt_id && served::is_served(&line.fstype))
}
