//! Reading an index: as a whole or not at all.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{BLOCK, FORMAT, Identity, MAGIC, RECORD, Record};

/// Why an index is of no use. None of these is more than a full scan.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It cannot be read, or ends too early.
    #[error("read the index")]
    Read(#[from] io::Error),
    /// It begins like something else.
    #[error("the file is no index")]
    Foreign,
    /// Another version wrote it.
    #[error("the index has format {0}, not {FORMAT}")]
    Format(u32),
    /// It is of another build, scope or root.
    #[error("the index is of another version of the agent, another scope or another root")]
    Other,
    /// Its bytes are not those that were written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}

/// What an index holds, beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// When it was begun.
    pub begun: Timestamp,
    /// How many records there are.
    pub total: u64,
}

/// Reads the index at `path`, if there is one. What was given to `take` counts only if the result is no error.
///
/// # Errors
/// When it is not whole, or not of this identity.
pub fn load(
    path: &Path,
    identity: &Identity,
    take: &mut dyn FnMut(Record),
) -> Result<Option<Contents>, IndexError> {
    match File::open(path) {
        Ok(file) => read(BufReader::with_capacity(128 * 1024, file), identity, take).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads an index from its first byte to its last. What was given to `take` counts only if the result is no error.
///
/// # Errors
/// As [`load`].
pub fn read(
    source: impl Read,
    identity: &Identity,
    take: &mut dyn FnMut(Record),
) -> Result<Contents, IndexError> {
    let mut source = Summed {
        source,
        hash: Sha256::new(),
    };
    if source.array::<16>()? != *MAGIC {
        return Err(IndexError::Foreign);
    }
    let format = u32::from_le_bytes(source.array()?);
    if format != FORMAT {
        return Err(IndexError::Format(format));
    }
    if Digest::from_bytes(source.array()?) != identity.0 {
        return Err(IndexError::Other);
    }
    let begun = Timestamp::from_micros(i64::from_le_bytes(source.array()?));
    let mut total = 0_u64;
    let mut last = None;
    loop {
        let count = u32::from_le_bytes(source.array()?);
        if count == 0 {
            break;
        }
        if usize::try_from(count).map_or(true, |count| count > BLOCK) {
            return Err(IndexError::Damaged("a block is too long"));
        }
        for _ in 0..count {
            let record = record(&source.array()?);
            if last.is_some_and(|last| last >= record.key) {
                return Err(IndexError::Damaged("its keys do not rise"));
            }
            last = Some(record.key);
            take(record);
        }
        total += u64::from(count);
    }
    if u64::from_le_bytes(source.array()?) != total {
        return Err(IndexError::Damaged("records are missing"));
    }
    source.end()?;
    Ok(Contents { begun, total })
}

fn record(bytes: &[u8; RECORD]) -> Record {
    let mut rest = bytes.as_slice();
    Record {
        key: Digest::from_bytes(part(&mut rest)),
        leaf: Digest::from_bytes(part(&mut rest)),
        ino: u64::from_le_bytes(part(&mut rest)),
        ctime_ns: i64::from_le_bytes(part(&mut rest)),
        rest: u32::from_le_bytes(part(&mut rest)),
    }
}

/// The next bytes of a record, which has as many.
fn part<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let mut array = [0; N];
    if let Some((first, after)) = rest.split_first_chunk::<N>() {
        array = *first;
        *rest = after;
    }
    array
}

struct Summed<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Summed<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let mut array = [0; N];
        self.source.read_exact(&mut array)?;
        self.hash.update(array);
        Ok(array)
    }

    /// The sum is right and nothing follows it.
    fn end(mut self) -> Result<(), IndexError> {
        let mut sum = [0; 32];
        self.source.read_exact(&mut sum)?;
        let own: [u8; 32] = self.hash.finalize().into();
        if sum != own {
            return Err(IndexError::Damaged("its checksum is wrong"));
        }
        match self.source.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(IndexError::Damaged("something follows its end")),
        }
    }
}
