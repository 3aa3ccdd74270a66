//! Files that appear whole or not at all: written beside their place, synced, then renamed.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Puts `bytes` at `path` with `mode`, replacing what was there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let pending = Pending::write(path, bytes, mode)?;
    pending.publish()
}

/// Puts `bytes` at `path` with `mode`; an existing file is never touched.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let pending = Pending::write(path, bytes, mode)?;
    // A link, unlike a rename, fails where the name is taken.
    fs::hard_link(&pending.beside, path)?;
    sync_directory(path)
}

/// A file that is written and synced, but does not yet have its name. Dropped without being published it is removed.
pub struct Pending {
    beside: PathBuf,
    path: PathBuf,
}

impl Pending {
    /// Writes and syncs `bytes` beside `path`.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let beside = path.with_file_name(hidden);
        // One left behind by a killed process of the same number is ours to replace.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        let pending = Self {
            beside,
            path: path.to_owned(),
        };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(pending)
    }

    /// Gives the file its name.
    pub fn publish(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        sync_directory(&self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _removed = fs::remove_file(&self.beside);
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_file_has_its_mode_and_is_never_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        create(&path, b"one", 0o600).unwrap();
        assert_eq!(
            create(&path, b"two", 0o600).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_published_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        drop(Pending::write(&place.path().join("a"), b"x", 0o644).unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
