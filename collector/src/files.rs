//! Files that decide about trust: written so that nobody else can read them, refused when somebody else could have written them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Why a file cannot be trusted, read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Others may write it, so it says what others want.
    #[error("others may write {} (mode {mode:04o}): chmod go-w it", path.display())]
    Writable {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others may read it, so it is no secret.
    #[error("others may read {} (mode {mode:04o}): chmod o-rwx it, and make a new secret", path.display())]
    Readable {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is larger than anything that belongs there.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
}

impl FileError {
    /// Whether the system said "permission denied".
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Read { source, .. } | Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Configuration, keys and certificates are far below this.
const LIMIT: u64 = 4 << 20;

/// Reads a file that others must not be able to write.
pub fn read_trusted(path: &Path) -> Result<String, FileError> {
    let mode = inspect(path)?;
    if mode & 0o022 != 0 {
        return Err(FileError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    read(path)
}

/// Reads a file that others must not be able to read either.
pub fn read_secret(path: &Path) -> Result<String, FileError> {
    let mode = inspect(path)?;
    if mode & 0o007 != 0 {
        return Err(FileError::Readable {
            path: path.to_owned(),
            mode,
        });
    }
    read_trusted(path)
}

/// Writes a new file, synced, mode 0600 or 0644; one that is there already is an error.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| FileError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Makes a directory, and those above it, that nobody else can enter.
pub fn private_directory(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::Write {
            path: path.to_owned(),
            source,
        })
}

fn inspect(path: &Path) -> Result<u32, FileError> {
    let metadata = fs::metadata(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    if metadata.size() > LIMIT {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit: LIMIT,
        });
    }
    Ok(metadata.permissions().mode() & 0o7777)
}

fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}
