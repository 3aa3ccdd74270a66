//! Signed statements on disk until they are receipted, and for a while after.
//!
//! What always holds:
//! - a statement that may leave the machine was synced before, or is told as not being on disk ([`Appended::Memory`]);
//! - the newest statement is never given up, so sequence and digest of the chain survive a kill at any byte;
//! - unreceipted ones are never overwritten: when all segments hold some, the spool is full;
//! - what is read back after a crash is a prefix of what was written.
//!
//! Layout: segments of one size, allocated beforehand and used over again ([`segment`]). A record is a statement, the
//! mark that those before a sequence are receipted, or the mark that the chain goes on from another place.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use attestation::digest::Digest;

use self::segment::{Kind, Record, Segment};
use crate::durable;

mod disk;
mod place;
mod segment;

pub use self::segment::SEGMENT_BYTES;

/// Receipted statements kept for a collector that was restored from an older backup.
const RING_STATEMENTS: usize = 4096;
/// And no more than this of them.
const RING_BYTES: u64 = 32 * 1024 * 1024;
/// Segments below which nothing works: one being written, one free, two in between.
const LEAST_SEGMENTS: u64 = 4;
/// What a disk that takes no write leaves in memory, at most.
const MEMORY_STATEMENTS: usize = 256;
/// And no more bytes than this.
const MEMORY_BYTES: usize = 4 * 1024 * 1024;
/// Statements set aside that are kept for a person to look at.
const ASIDE_FILES: usize = 64;

/// Why the spool does not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory or a segment cannot be opened.
    #[error("open the spool {path}", path = path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A statement cannot be read back.
    #[error("read statement {sequence} from the spool")]
    Read {
        /// Its sequence.
        sequence: u64,
        /// Why.
        source: io::Error,
    },
    /// All segments hold statements that are not receipted.
    #[error("the spool is full")]
    Full,
    /// A mark cannot be written.
    #[error("write to the spool")]
    Write(#[source] io::Error),
}

/// Where a statement went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On disk, synced.
    Disk,
    /// Only in memory: the disk takes no write. It is sent all the same.
    Memory,
}

/// The place where the chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next sequence.
    pub sequence: u64,
    /// Digest of the payload before it; absent at 0.
    pub previous: Option<Digest>,
}

/// A statement on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its sequence.
    pub sequence: u64,
    /// Digest of its payload.
    pub payload: Digest,
    /// The envelope as it was signed.
    pub envelope: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    sequence: u64,
    payload: Digest,
    quiet: bool,
    length: u32,
    at: Stored,
}

#[derive(Debug)]
enum Stored {
    Disk { segment: usize, offset: u64 },
    Memory(Vec<u8>),
}

/// The spool of one node.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    segments: Vec<Segment>,
    /// Segments in use, oldest first; the last one is written to.
    used: VecDeque<usize>,
    free: Vec<usize>,
    generation: u64,
    /// By rising sequence: the ring of receipted ones, then the others.
    kept: VecDeque<Kept>,
    position: Position,
    /// The first sequence without a receipt.
    unsent: u64,
    /// Why the disk took no write the last time.
    failing: Option<String>,
    /// Whether the space was set apart beforehand.
    preallocated: bool,
}

impl Spool {
    /// Opens the spool, repairs a torn end, and sets apart space for `limit` bytes.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Open {
            path: directory.to_owned(),
            source,
        };
        durable::private_directory(directory).map_err(failed)?;
        let wanted =
            usize::try_from((limit / SEGMENT_BYTES).clamp(LEAST_SEGMENTS, 4096)).unwrap_or(16);
        let mut spool = Self {
            directory: directory.to_owned(),
            segments: Vec::new(),
            used: VecDeque::new(),
            free: Vec::new(),
            generation: 0,
            kept: VecDeque::new(),
            position: Position {
                sequence: 0,
                previous: None,
            },
            unsent: 0,
            failing: None,
            preallocated: true,
        };
        let mut in_use = Vec::new();
        for number in 0.. {
            let path = directory.join(format!("segment-{number:04}"));
            if number >= wanted && !path.exists() {
                break;
            }
            let segment = Segment::open(&path).map_err(failed)?;
            if let Some(reason) = segment.not_preallocated() {
                spool.preallocated = false;
                tracing::warn!(path = %path.display(), %reason, "no space set apart for the spool");
            }
            match segment.generation() {
                Some(generation) => in_use.push((generation, number)),
                None => spool.free.push(number),
            }
            spool.segments.push(segment);
        }
        durable::sync_directory(directory).map_err(failed)?;
        spool.order_free();
        in_use.sort_unstable();
        for (generation, number) in in_use {
            spool.generation = generation;
            spool.used.push_back(number);
            spool.replay(number).map_err(failed)?;
        }
        spool.trim_ring();
        Ok(spool)
    }

    /// Where the chain goes on.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The first sequence without a receipt; equal to the next one when nothing waits.
    pub fn unsent_from(&self) -> u64 {
        self.unsent
    }

    /// Statements without a receipt.
    pub fn waiting(&self) -> usize {
        self.kept.len() - self.first_unsent()
    }

    /// Bytes of them.
    pub fn waiting_bytes(&self) -> u64 {
        self.kept
            .iter()
            .skip(self.first_unsent())
            .map(|kept| u64::from(kept.length))
            .sum()
    }

    /// Whether the newest unsent statement says nothing new: then no other such one is made.
    pub fn quiet_waits(&self) -> bool {
        self.waiting() > 0 && self.kept.back().is_some_and(|kept| kept.quiet)
    }

    /// What the disk said when it took no write; nothing while all is well.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_deref()
    }

    /// Whether the whole space was set apart beforehand.
    pub fn is_preallocated(&self) -> bool {
        self.preallocated
    }

    /// Whether a statement of that many bytes fits.
    pub fn has_room(&self, bytes: usize) -> bool {
        let needed = segment::record_bytes(bytes);
        if needed > segment::ROOM {
            return false;
        }
        if self.failing.is_some() && !self.memory_has_room(bytes) {
            return false;
        }
        self.current_has_room(needed) || !self.free.is_empty() || self.oldest_is_receipted()
    }

    /// Keeps the next statement of the chain: synced when this returns [`Appended::Disk`].
    pub fn append(
        &mut self,
        payload: Digest,
        quiet: bool,
        envelope: Vec<u8>,
    ) -> Result<Appended, SpoolError> {
        if !self.has_room(envelope.len()) {
            return Err(SpoolError::Full);
        }
        let sequence = self.position.sequence;
        let length = u32::try_from(envelope.len()).map_err(|_| SpoolError::Full)?;
        self.kept.push_back(Kept {
            sequence,
            payload,
            quiet,
            length,
            at: Stored::Memory(envelope),
        });
        self.position = Position {
            sequence: sequence + 1,
            previous: Some(payload),
        };
        let outcome = self.settle();
        self.trim_ring();
        match outcome {
            Ok(()) => {
                self.failing = None;
                Ok(Appended::Disk)
            }
            Err(error) => {
                self.failing = Some(error.to_string());
                Ok(Appended::Memory)
            }
        }
    }

    /// The next statements to send, oldest first, within both limits; always at least one if any waits.
    pub fn batch(&self, statements: usize, bytes: usize) -> Result<Vec<Outgoing>, SpoolError> {
        let mut batch = Vec::new();
        let mut total = 0_usize;
        for kept in self.kept.iter().skip(self.first_unsent()).take(statements) {
            let length = usize::try_from(kept.length).unwrap_or(usize::MAX);
            if !batch.is_empty() && total.saturating_add(length) > bytes {
                break;
            }
            total = total.saturating_add(length);
            batch.push(self.outgoing(kept)?);
        }
        Ok(batch)
    }

    /// The newest statement, receipted or not.
    pub fn newest(&self) -> Result<Option<Outgoing>, SpoolError> {
        self.kept.back().map(|kept| self.outgoing(kept)).transpose()
    }

    /// The digest of the payload with that sequence, while it is kept.
    pub fn payload(&self, sequence: u64) -> Option<Digest> {
        let index = self
            .kept
            .binary_search_by_key(&sequence, |kept| kept.sequence)
            .ok()?;
        self.kept.get(index).map(|kept| kept.payload)
    }

    /// Marks everything before `sequence` as receipted. The mark is synced with the next statement: lost, it costs
    /// sending again what the collector has, which changes nothing.
    pub fn receipted_before(&mut self, sequence: u64) {
        self.unsent = sequence.min(self.position.sequence);
        let record = Record {
            kind: Kind::Receipted,
            quiet: false,
            sequence: self.unsent,
            digest: Digest::ZERO,
        };
        if let Err(error) = self.write(&record, &[]) {
            tracing::debug!(%error, "mark statements as receipted");
        }
        self.trim_ring();
    }

    /// Offers receipted statements again, from `sequence` on; `false` where they are no longer kept in one run.
    pub fn resend_from(&mut self, sequence: u64) -> bool {
        let Ok(index) = self
            .kept
            .binary_search_by_key(&sequence, |kept| kept.sequence)
        else {
            return false;
        };
        let whole = self
            .kept
            .iter()
            .skip(index)
            .zip(sequence..)
            .all(|(kept, wanted)| kept.sequence == wanted);
        if whole {
            self.receipted_before(sequence);
        }
        whole
    }

    fn outgoing(&self, kept: &Kept) -> Result<Outgoing, SpoolError> {
        let failed = |source| SpoolError::Read {
            sequence: kept.sequence,
            source,
        };
        let envelope = match &kept.at {
            Stored::Memory(bytes) => bytes.clone(),
            Stored::Disk { segment, offset } => self
                .segments
                .get(*segment)
                .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?
                .read(*offset, kept.length)
                .map_err(failed)?,
        };
        Ok(Outgoing {
            sequence: kept.sequence,
            payload: kept.payload,
            envelope,
        })
    }

    /// Forgets receipted statements beyond the ring; their segments are used over again when space is needed.
    fn trim_ring(&mut self) {
        let mut receipted = self.first_unsent();
        let mut bytes: u64 = self
            .kept
            .iter()
            .take(receipted)
            .map(|kept| u64::from(kept.length))
            .sum();
        while receipted > 1 && (receipted > RING_STATEMENTS || bytes > RING_BYTES) {
            let Some(kept) = self.kept.pop_front() else {
                break;
            };
            bytes = bytes.saturating_sub(u64::from(kept.length));
            receipted -= 1;
        }
    }

    fn first_unsent(&self) -> usize {
        self.kept
            .partition_point(|kept| kept.sequence < self.unsent)
    }
}

#[cfg(test)]
mod tests;
