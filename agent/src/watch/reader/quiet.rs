//! Marks that keep the writes of a busy file unsaid for a moment.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use nix::sys::fanotify::{MarkFlags, MaskFlags};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::Reader;
use crate::scan::{Root, split_handle};
use crate::sys;
use crate::watch::ladder::Source;

/// A file that was written where scope does not look, and has no name in scope that is known.
pub(super) struct Elsewhere {
    pub(super) key: Vec<u8>,
    pub(super) closed: bool,
}

impl Reader {
    /// Asks the kernel to say nothing for a moment of files that are written again and again where scope does not look.
    pub(super) fn hush(&mut self, source: usize, elsewhere: &[Elsewhere]) {
        let now = Instant::now();
        for Elsewhere { key, closed } in elsewhere {
            let Ok(byte) = u8::try_from(source) else {
                return;
            };
            let key = [&[byte], &key[..]].concat();
            if *closed {
                self.busy.closed(&key);
            } else if self.busy.written(&key, now) {
                self.mark_quiet(&key, libc::FAN_MARK_ADD);
            }
        }
    }

    pub(super) fn speak_again(&mut self) {
        while let Some(key) = self.busy.take_over(Instant::now()) {
            self.mark_quiet(&key, libc::FAN_MARK_REMOVE);
        }
    }

    /// A kernel that knows no such marks, or a file that is gone, is heard as before.
    fn mark_quiet(&self, key: &[u8], what: libc::c_uint) {
        let Some((source, handle)) = key.split_first() else {
            return;
        };
        let Some(source) = self.sources.get(usize::from(*source)) else {
            return;
        };
        if let Err(error) = quiet(&self.root, source, handle, what) {
            tracing::trace!(%error, "a busy file stays heard");
        }
    }
}

/// Adds or removes the mark that keeps writes of a file unsaid. One with several names is never quiet: any may be sealed.
fn quiet(root: &Root, source: &Source, key: &[u8], what: libc::c_uint) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let (fsid, kind, bytes) = split_handle(key).ok_or_else(gone)?;
    let filesystem = root
        .watched()
        .find(|filesystem| filesystem.fsid == fsid)
        .ok_or_else(gone)?;
    let file = sys::open_by_handle(filesystem.dir.as_fd(), kind, bytes)?;
    let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
    if stat.stx_nlink != 1 && what == libc::FAN_MARK_ADD {
        return Err(io::Error::other("it has several names"));
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = what
        | libc::FAN_MARK_IGNORE
        | libc::FAN_MARK_IGNORED_SURV_MODIFY
        | libc::FAN_MARK_EVICTABLE;
    Ok(source.group.mark(
        MarkFlags::from_bits_retain(flags),
        MaskFlags::FAN_MODIFY,
        CWD,
        Some(path.as_str()),
    )?)
}
