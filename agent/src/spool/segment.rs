//! One segment file: a header, then records one behind the other. A record counts only if its checksum, which
//! includes the segment's generation, is right: the rest of a file that is used over again is never taken for new.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use attestation::digest::Digest;

/// Bytes of a segment; holds two of the largest statements.
pub const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes for records in an empty segment, the mark at its beginning taken off.
pub(super) const ROOM: u64 = SEGMENT_BYTES - HEADER - RECORD as u64;

const MAGIC: &[u8; 8] = b"PRSPOOL1";
const HEADER: u64 = 24;
const HEADER_BYTES: usize = 24;
/// Checksum 4, length 4, kind 1, flags 1, two zero bytes, sequence 8, digest 32.
const RECORD: usize = 52;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Statement,
    Receipted,
    Repositioned,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Of a statement: it says nothing new. Of a reposition: the digest is there.
    pub(super) quiet: bool,
    pub(super) sequence: u64,
    pub(super) digest: Digest,
}

/// How much a body of that length takes.
pub(super) fn record_bytes(body: usize) -> u64 {
    u64::try_from(body.saturating_add(RECORD)).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    generation: Option<u64>,
    end: u64,
    not_preallocated: Option<String>,
}

/// A record as read back: head, where its body lies, how long it is, and the number in the body of a reposition.
pub(super) type Replayed = (Record, u64, u32, u64);

impl Segment {
    /// Opens or makes the file and sets its space apart; a disk without space is no reason to stop.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut not_preallocated = None;
        if file.metadata()?.len() < SEGMENT_BYTES {
            let flags = rustix::fs::FallocateFlags::empty();
            if let Err(error) = rustix::fs::fallocate(&file, flags, 0, SEGMENT_BYTES) {
                not_preallocated = Some(error.to_string());
            }
        }
        let generation = read_header(&file)?;
        Ok(Self {
            file,
            generation,
            end: HEADER,
            not_preallocated,
        })
    }

    pub(super) fn generation(&self) -> Option<u64> {
        self.generation
    }

    pub(super) fn not_preallocated(&self) -> Option<&str> {
        self.not_preallocated.as_deref()
    }

    pub(super) fn room(&self) -> u64 {
        SEGMENT_BYTES.saturating_sub(self.end)
    }

    /// Where the last record ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Makes the segment empty and the newest.
    pub(super) fn begin(&mut self, generation: u64) -> io::Result<()> {
        let mut header = [0_u8; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&generation.to_le_bytes());
        let sum = crc32fast::hash(&header[..16]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&header, 0)?;
        self.file.sync_data()?;
        self.generation = Some(generation);
        self.end = HEADER;
        Ok(())
    }

    /// Writes a record behind the last; nothing is moved forward when the disk does not take it.
    pub(super) fn append(&mut self, record: &Record, body: &[u8]) -> io::Result<()> {
        let generation = self.generation.ok_or(io::ErrorKind::NotFound)?;
        let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut bytes = vec![0_u8; RECORD];
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8] = match record.kind {
            Kind::Statement => 1,
            Kind::Receipted => 2,
            Kind::Repositioned => 3,
        };
        bytes[9] = u8::from(record.quiet);
        bytes[12..20].copy_from_slice(&record.sequence.to_le_bytes());
        bytes[20..52].copy_from_slice(record.digest.as_bytes());
        bytes.extend_from_slice(body);
        let sum = checksum(generation, &bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all_at(&bytes, self.end)?;
        self.end += record_bytes(body.len());
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn read(&self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let mut bytes =
            vec![0_u8; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads all whole records; the first that is not ends the segment, and the next write goes there.
    pub(super) fn replay(&mut self) -> io::Result<Vec<Replayed>> {
        let Some(generation) = self.generation else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        let length = self.file.metadata()?.len().min(SEGMENT_BYTES);
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        self.file.read_exact_at(&mut bytes, 0)?;
        let mut records = Vec::new();
        self.end = HEADER;
        while let Some(replayed) = usize::try_from(self.end)
            .ok()
            .and_then(|start| bytes.get(start..))
            .and_then(|rest| parse(generation, rest))
        {
            let (record, length, number) = replayed;
            let body = self.end + RECORD as u64;
            records.push((record, body, length, number));
            self.end = body + u64::from(length);
        }
        Ok(records)
    }
}

fn checksum(generation: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn read_header(file: &File) -> io::Result<Option<u64>> {
    let mut header = [0_u8; HEADER_BYTES];
    if file.metadata()?.len() < HEADER {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let right = &header[..8] == MAGIC
        && number_u32(&header[16..20]) == Some(crc32fast::hash(&header[..16]));
    Ok(if right {
        number_u64(&header[8..16])
    } else {
        None
    })
}

/// The record at the beginning of `bytes`, if it is whole.
fn parse(generation: u64, bytes: &[u8]) -> Option<(Record, u32, u64)> {
    let sum = number_u32(bytes.get(..4)?)?;
    let length = number_u32(bytes.get(4..8)?)?;
    let end = RECORD.checked_add(usize::try_from(length).ok()?)?;
    let rest = bytes.get(4..end)?;
    if checksum(generation, rest) != sum {
        return None;
    }
    let kind = match bytes.get(8)? {
        1 => Kind::Statement,
        2 => Kind::Receipted,
        3 => Kind::Repositioned,
        _ => return None,
    };
    let record = Record {
        kind,
        quiet: *bytes.get(9)? == 1,
        sequence: number_u64(bytes.get(12..20)?)?,
        digest: Digest::from_bytes(bytes.get(20..52)?.try_into().ok()?),
    };
    let number = bytes
        .get(RECORD..RECORD + 8)
        .and_then(number_u64)
        .unwrap_or(0);
    Some((record, length, number))
}

fn number_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn number_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
