//! The digest of a file's content.

use std::os::fd::BorrowedFd;

use attestation::digest::Digest;
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::sys;

/// Bytes read at once: what stays in the nearest caches between the kernel's copy and the hash. Warm, on 11,000 small
/// files, 512 KiB took 1.4 times as long, with twice the system time; 16 KiB and 128 KiB about a tenth longer.
const BUFFER: usize = 64 * 1024;
/// Read from storage, each call waits for the device: fewer calls.
const DIRECT_BUFFER: usize = 256 * 1024;
/// Where a buffer must begin, and what lengths and offsets must be multiples of, past the page cache: no device asks for
/// more.
const ALIGNED: usize = 4096;
/// Holes smaller than this are read like data.
const SMALLEST_HOLE: u64 = 64 * 1024;
/// From this size on, reading ahead is asked for.
const LARGE: u64 = 4 * 1024 * 1024;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Why there is no digest.
pub(super) enum ContentError {
    Stopped,
    Kernel(Errno),
}

impl From<Errno> for ContentError {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

/// Room for content, kept from one file to the next.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new(from_storage: bool) -> Self {
        Self(if from_storage {
            vec![0; DIRECT_BUFFER + ALIGNED]
        } else {
            vec![0; BUFFER]
        })
    }

    fn room(&mut self) -> &mut [u8] {
        if self.0.len() <= DIRECT_BUFFER {
            return &mut self.0;
        }
        let start = self.0.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        &mut self.0[start..start + DIRECT_BUFFER]
    }
}

/// A file to be hashed.
#[derive(Clone, Copy)]
pub(super) struct Source<'s> {
    pub(super) file: BorrowedFd<'s>,
    /// Bytes, as `statx` says.
    pub(super) size: u64,
    /// Of 512 bytes, as `statx` says: whether holes are worth looking for.
    pub(super) blocks: u64,
    /// Past the page cache.
    pub(super) from_storage: bool,
}

/// Hashes the first `size` bytes, or fewer if the file ends before; whoever calls compares what `statx` says afterwards.
/// `passed` hears the bytes as they come, and says whether to stop.
pub(super) fn digest(
    source: Source<'_>,
    buffer: &mut Buffer,
    passed: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Digest, ContentError> {
    let Source {
        file,
        size,
        blocks,
        from_storage,
    } = source;
    let way = if from_storage && size > 0 {
        Way::from_storage(file)
    } else {
        Way::Cached
    };
    let mut content = Content {
        file,
        hash: Sha256::new(),
        buffer: buffer.room(),
        direct: matches!(way, Way::Direct),
        passed,
    };
    if size >= LARGE && !content.direct {
        advise(file, Advice::Sequential);
    }
    if size >= SMALLEST_HOLE && blocks.saturating_mul(512) < size {
        content.sparse(0, size)?;
    } else {
        content.data(0, size)?;
    }
    let digest = Digest::from_bytes(content.hash.finalize().into());
    if matches!(way, Way::Dropped { cached: false }) {
        // Nobody had it there before.
        advise(file, Advice::DontNeed);
    }
    Ok(digest)
}

/// How content is come by.
#[derive(Clone, Copy)]
enum Way {
    /// From wherever the kernel has it.
    Cached,
    /// Past the page cache.
    Direct,
    /// Through the page cache, whose pages of the file were dropped.
    Dropped {
        /// Whether there had been any.
        cached: bool,
    },
}

impl Way {
    fn from_storage(file: BorrowedFd<'_>) -> Self {
        let direct = rustix::fs::fcntl_getfl(file)
            .and_then(|flags| rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT));
        if direct.is_ok() {
            return Self::Direct;
        }
        let cached = sys::cached_pages(file).is_some_and(|pages| pages > 0);
        advise(file, Advice::DontNeed);
        Self::Dropped { cached }
    }
}

/// Advice only: a file system that refuses it is read as well.
fn advise(file: BorrowedFd<'_>, advice: Advice) {
    if let Err(errno) = rustix::fs::fadvise(file, 0, None, advice) {
        tracing::trace!(%errno, "no advice taken");
    }
}

/// Hashes on: the bytes of a range into a hash that has all before them. Gives the place where the file ended, if it did before.
pub(super) fn hash_on(
    file: BorrowedFd<'_>,
    hash: Sha256,
    (from, to): (u64, u64),
    size: u64,
    blocks: u64,
) -> Result<(Sha256, u64), ContentError> {
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut buffer = vec![0; BUFFER.min(length.max(1))];
    let mut content = Content {
        file,
        hash,
        buffer: &mut buffer,
        direct: false,
        passed: &mut |_| false,
    };
    let end = if to.saturating_sub(from) >= SMALLEST_HOLE && blocks.saturating_mul(512) < size {
        content.sparse(from, to)?;
        to
    } else {
        content.data(from, to)?
    };
    Ok((content.hash, end))
}

struct Content<'c> {
    file: BorrowedFd<'c>,
    hash: Sha256,
    buffer: &'c mut [u8],
    direct: bool,
    passed: &'c mut dyn FnMut(&[u8]) -> bool,
}

impl Content<'_> {
    /// Reads up to a place, or to the end of the file; tells where it stopped.
    fn data(&mut self, mut from: u64, to: u64) -> Result<u64, ContentError> {
        while from < to {
            let wanted = usize::try_from(to - from)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let room = if self.direct {
                wanted.next_multiple_of(ALIGNED)
            } else {
                wanted
            };
            let read = match rustix::io::pread(self.file, &mut self.buffer[..room], from) {
                Err(Errno::INTR) => continue,
                Err(Errno::INVAL) if self.direct => {
                    self.no_longer_direct()?;
                    continue;
                }
                result => result?,
            };
            if read == 0 {
                return Ok(from);
            }
            let taken = read.min(wanted);
            let bytes = &self.buffer[..taken];
            self.hash.update(bytes);
            from += taken as u64;
            if (self.passed)(bytes) && from < to {
                return Err(ContentError::Stopped);
            }
            if self.direct && read < room && from < to {
                // Cut short; where it went on would not be aligned.
                self.no_longer_direct()?;
            }
        }
        Ok(from)
    }

    /// The file system took the flag, but not this reading: dropped pages then.
    fn no_longer_direct(&mut self) -> Result<(), Errno> {
        self.direct = false;
        let flags = rustix::fs::fcntl_getfl(self.file)?;
        rustix::fs::fcntl_setfl(self.file, flags.difference(OFlags::DIRECT))?;
        advise(self.file, Advice::DontNeed);
        Ok(())
    }

    /// Follows the map of data and holes; a hole is hashed as zeros without being read.
    fn sparse(&mut self, from: u64, size: u64) -> Result<(), ContentError> {
        let mut at = from;
        while at < size {
            let data = match rustix::fs::seek(self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return self.data(at, size).map(drop),
                Err(errno) => return Err(errno.into()),
            };
            self.zeros(data.saturating_sub(at))?;
            if data >= size {
                return Ok(());
            }
            let hole = rustix::fs::seek(self.file, SeekFrom::Hole(data))?.clamp(data + 1, size);
            self.data(data, hole)?;
            at = hole;
        }
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), ContentError> {
        while count > 0 {
            let part = usize::try_from(count)
                .unwrap_or(usize::MAX)
                .min(ZEROS.len());
            self.hash.update(&ZEROS[..part]);
            count -= part as u64;
            if (self.passed)(&ZEROS[..part]) {
                return Err(ContentError::Stopped);
            }
        }
        Ok(())
    }
}
