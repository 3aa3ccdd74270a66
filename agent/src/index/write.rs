//! Writing an index: bit by bit, beside the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{BLOCK, FORMAT, Identity, MAGIC, Record};
use crate::durable;

/// An index that is being written; dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    beside: Beside,
    hash: Sha256,
    total: u64,
    last: Option<Digest>,
}

/// A whole index beside the one before, not yet on disk for good.
#[derive(Debug)]
pub struct Unsynced {
    file: File,
    beside: Beside,
}

/// The new file; removed unless it took the place of the old one.
#[derive(Debug)]
struct Beside {
    path: PathBuf,
    place: PathBuf,
    kept: bool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.kept {
            // Left behind it is overwritten the next time.
            drop(fs::remove_file(&self.path));
        }
    }
}

impl Writer {
    /// Begins an index that will stand at `place`.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn create(place: &Path, identity: &Identity, begun: Timestamp) -> io::Result<Self> {
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let path = place.with_file_name(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(128 * 1024, file),
            beside: Beside {
                path,
                place: place.to_owned(),
                kept: false,
            },
            hash: Sha256::new(),
            total: 0,
            last: None,
        };
        writer.put(MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        writer.put(identity.0.as_bytes())?;
        writer.put(&begun.as_micros().to_le_bytes())?;
        Ok(writer)
    }

    /// Adds records; their keys rise, also from one call to the next.
    ///
    /// # Errors
    /// When the file cannot be written, or a key does not rise.
    pub fn add(&mut self, records: &[Record]) -> io::Result<()> {
        for block in records.chunks(BLOCK) {
            let count = u32::try_from(block.len()).unwrap_or(u32::MAX);
            self.put(&count.to_le_bytes())?;
            for record in block {
                if self.last.is_some_and(|last| last >= record.key) {
                    return Err(io::Error::other("the keys of an index do not rise"));
                }
                self.last = Some(record.key);
                self.put(record.key.as_bytes())?;
                self.put(record.leaf.as_bytes())?;
                self.put(&record.ino.to_le_bytes())?;
                self.put(&record.ctime_ns.to_le_bytes())?;
                self.put(&record.rest.to_le_bytes())?;
            }
            self.total += u64::from(count);
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> io::Result<Unsynced> {
        self.put(&0_u32.to_le_bytes())?;
        self.put(&self.total.to_le_bytes())?;
        let sum = self.hash.finalize();
        self.file.write_all(&sum)?;
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Unsynced {
            file,
            beside: self.beside,
        })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }
}

impl Unsynced {
    /// Makes it durable, then lets it take the place of the one before.
    ///
    /// # Errors
    /// When the disk does not take it; the one before stands then.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside.path, &self.beside.place)?;
        self.beside.kept = true;
        durable::sync_directory(self.beside.place.parent().unwrap_or_else(|| Path::new(".")))
    }
}
