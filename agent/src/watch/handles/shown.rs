//! The path of an open object as the kernel shows it below `/proc/self/fd`.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use attestation::path::ImagePath;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::{Resolver, Where};
use crate::scan::Filesystem;

/// How far up a path longer than the kernel tells is followed, in levels.
const CLIMB_LIMIT: usize = 65_536;

/// What the kernel shows behind a path whose name has gone.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// The path in the root of what is shown below a mounted file system of it.
pub(super) fn below(shown: &[u8], base: &[u8], prefix: &ImagePath) -> Option<ImagePath> {
    let base = base.strip_suffix(b"/").unwrap_or(base);
    let relative = shown.strip_prefix(base)?.strip_prefix(b"/")?;
    let prefix = prefix.as_bytes();
    let whole = if prefix.is_empty() {
        relative.to_vec()
    } else {
        [prefix, relative].join(&b'/')
    };
    ImagePath::from_bytes(whole).ok()
}

impl Resolver {
    pub(super) fn path_of(
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
                        Err(Errno::NOTDIR) => return Ok(Where::Outside),
                        Err(Errno::NOENT) => return Ok(Where::Gone),
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
        if shown.ends_with(DELETED) && is_unlinked(object)? {
            return Ok(Where::Gone);
        }
        let relative = if filesystem.is_clone() {
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
