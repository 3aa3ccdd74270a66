//! A copy of everything that a collector is, made while it runs, and put back: store, keys, authorities and manifests in one
//! compressed archive (POSIX tar, zstd).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::files;
use crate::init::{exists, store_file};

/// The archive's first member: what it is.
const LABEL: &str = "pristine-backup.json";
const STORE: &str = "store.db";
/// Where an archive is unpacked, below the state.
const STAGED: &str = ".restoring";
/// Directories of the state that are copied whole.
const DIRECTORIES: [&str; 2] = ["keys", "manifests"];
/// The form of the archive; another one is not read.
const FORM: u32 = 1;
/// The label is a line; what is longer is none.
const LABEL_LIMIT: u64 = 4096;
/// zstd's own default: the store shrinks to a fifth, at the speed of a disk.
const LEVEL: i32 = 3;

/// Why there is no copy, or nothing was put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to copy.
    #[error("{} holds no collector", .0.display())]
    Nothing(PathBuf),
    /// A collector is where one should be put back.
    #[error("{} holds a collector: move it away, nothing was changed", .0.display())]
    Occupied(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was done.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The store cannot be copied.
    #[error("cannot copy the store")]
    Store(#[source] sqlx::Error),
    /// The file is no backup of a collector.
    #[error("{} is no backup that this version can put back: {why}", path.display())]
    NoBackup {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A thread was broken off.
    #[error("the work was broken off")]
    Interrupted,
}

fn failed<'p>(step: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> BackupError + 'p {
    move |source| BackupError::File {
        step,
        path: path.to_owned(),
        source,
    }
}

/// The label of an archive, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The form of the archive.
    pub form: u32,
    /// When the store was copied.
    pub made: Timestamp,
    /// Of the collector that made it.
    pub version: String,
}

/// What was copied or put back.
#[derive(Debug, Serialize)]
pub struct Copied {
    /// The archive.
    pub file: PathBuf,
    /// Its label.
    #[serde(flatten)]
    pub label: Label,
    /// Members beside the label.
    pub files: u64,
    /// Their bytes, before compression.
    pub bytes: u64,
}

/// Copies a collector's state into a new file of mode 0600: it holds the keys. The store is copied as of one moment, while a
/// collector may run; manifests, which come before the images that need them, are copied after it.
pub async fn make(state: &Path, file: &Path, now: Timestamp) -> Result<Copied, BackupError> {
    if !store_file(state).exists() {
        return Err(BackupError::Nothing(state.to_owned()));
    }
    let beside = file.parent().filter(|it| !it.as_os_str().is_empty());
    let beside = beside.unwrap_or_else(|| Path::new("."));
    // Nobody else can enter it, whatever the mode of what SQLite makes.
    let workshop = tempfile::Builder::new()
        .prefix(".pristine-backup-")
        .tempdir_in(beside)
        .map_err(failed("make a directory in", beside))?;
    let store = workshop.path().join(STORE);
    copy_store(&store_file(state), &store).await?;
    let label = Label {
        form: FORM,
        made: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (state, file) = (state.to_owned(), file.to_owned());
    tokio::task::spawn_blocking(move || {
        let partial = workshop.path().join("archive");
        let (files, bytes) = pack(&state, &store, &label, &partial)?;
        // Never over a file that is there: it may be the only other copy.
        fs::hard_link(&partial, &file).map_err(failed("write", &file))?;
        let parent = workshop.path().parent().unwrap_or(&file).to_owned();
        sync(&parent)?;
        Ok(Copied {
            file,
            label,
            files,
            bytes,
        })
    })
    .await
    .map_err(|_gone| BackupError::Interrupted)?
}

async fn copy_store(from: &Path, to: &Path) -> Result<(), BackupError> {
    let mut connection = SqliteConnectOptions::new()
        .filename(from)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging()
        .connect()
        .await
        .map_err(BackupError::Store)?;
    sqlx::query("VACUUM INTO ?")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await
        .map_err(BackupError::Store)?;
    sqlx::Connection::close(connection)
        .await
        .map_err(BackupError::Store)
}

/// Writes the archive; answers how many files and bytes it holds.
fn pack(state: &Path, store: &Path, label: &Label, to: &Path) -> Result<(u64, u64), BackupError> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(failed("write", to))?;
    let writing = || failed("write", to);
    let encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(writing())?;
    let mut archive = tar::Builder::new(encoder);
    archive.mode(tar::HeaderMode::Deterministic);
    let text = serde_json::to_vec(label)
        .map_err(io::Error::other)
        .map_err(writing())?;
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    archive
        .append_data(&mut header, LABEL, text.as_slice())
        .map_err(writing())?;
    let (mut files, mut bytes) = (0, 0);
    let members = members(state)?;
    let members = members
        .iter()
        .map(|(name, path)| (name.as_path(), path.as_path()));
    for (name, path) in std::iter::once((Path::new(STORE), store)).chain(members) {
        let reading = || failed("read", path);
        let mut from = File::open(path).map_err(reading())?;
        let size = from.metadata().map_err(reading())?.len();
        archive.append_file(name, &mut from).map_err(reading())?;
        files += 1;
        bytes += size;
    }
    let encoder = archive.into_inner().map_err(writing())?;
    let buffered = encoder.finish().map_err(writing())?;
    let file = buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .map_err(writing())?;
    file.sync_all().map_err(writing())?;
    Ok((files, bytes))
}

/// The files of a state beside its store, with their names in the archive, sorted.
fn members(state: &Path) -> Result<Vec<(PathBuf, PathBuf)>, BackupError> {
    let mut members = Vec::new();
    for directory in std::iter::once("").chain(DIRECTORIES) {
        let at = state.join(directory);
        let listed = match fs::read_dir(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed.map_err(failed("list", &at))?,
        };
        for entry in listed {
            let entry = entry.map_err(failed("list", &at))?;
            let name = Path::new(directory).join(entry.file_name());
            let regular = entry.file_type().map_err(failed("look at", &at))?.is_file();
            if regular && is_member(&name) && name != Path::new(STORE) {
                members.push((name, entry.path()));
            }
        }
    }
    members.sort();
    Ok(members)
}

/// Whether an archive may hold a file of that name: the store, certificates, and what lies directly in the two directories.
fn is_member(name: &Path) -> bool {
    let parts: Vec<_> = name.components().collect();
    let plain = parts.iter().all(|it| matches!(it, Component::Normal(_)));
    let hidden = name
        .file_name()
        .is_none_or(|it| it.as_encoded_bytes().starts_with(b"."));
    if !plain || hidden {
        return false;
    }
    match parts.as_slice() {
        [_] => name == Path::new(STORE) || name.extension().is_some_and(|it| it == "pem"),
        [directory, _] => DIRECTORIES.iter().any(|it| directory.as_os_str() == *it),
        _ => false,
    }
}

/// Puts a copy back where no collector is. Everything is unpacked beside its place first and moved there at the end, the store
/// last: a broken-off run leaves no collector that could start, and can be repeated.
pub fn put_back(file: &Path, state: &Path) -> Result<Copied, BackupError> {
    if exists(state) {
        return Err(BackupError::Occupied(state.to_owned()));
    }
    let reading = File::open(file).map_err(failed("read", file))?;
    let no_backup = |why: String| BackupError::NoBackup {
        path: file.to_owned(),
        why,
    };
    let bad = |error: io::Error| no_backup(error.to_string());
    let mut archive = tar::Archive::new(BufReader::new(zstd::Decoder::new(reading).map_err(bad)?));
    let mut entries = archive.entries().map_err(bad)?;
    let label = match entries.next() {
        Some(entry) => label(entry.map_err(bad)?).map_err(no_backup)?,
        None => return Err(no_backup("it is empty".to_owned())),
    };
    let staged = state.join(STAGED);
    if staged.exists() {
        fs::remove_dir_all(&staged).map_err(failed("remove", &staged))?;
    }
    let (mut files, mut bytes) = (0, 0);
    for entry in entries {
        let mut entry = entry.map_err(bad)?;
        let name = entry.path().map_err(bad)?.into_owned();
        if !entry.header().entry_type().is_file() || !is_member(&name) {
            return Err(no_backup(format!("{} does not belong", name.display())));
        }
        bytes += unpack(&mut entry, &staged.join(&name))?;
        files += 1;
    }
    if !staged.join(STORE).exists() {
        return Err(no_backup("it ends before the store".to_owned()));
    }
    own(&staged, state)?;
    settle(&staged, state)?;
    Ok(Copied {
        file: file.to_owned(),
        label,
        files,
        bytes,
    })
}

/// Moves what was unpacked to its place, the store last.
fn settle(staged: &Path, state: &Path) -> Result<(), BackupError> {
    let mut names = children(staged)?;
    names.sort_by_key(|path| path.ends_with(STORE));
    for from in names {
        let to = state.join(from.file_name().unwrap_or_default());
        fs::rename(&from, &to).map_err(failed("write", &to))?;
    }
    fs::remove_dir(staged).map_err(failed("remove", staged))?;
    sync(state)
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, BackupError> {
    fs::read_dir(directory)
        .and_then(|listed| listed.map(|it| it.map(|it| it.path())).collect())
        .map_err(failed("list", directory))
}

/// Gives what was unpacked to whom the state directory belongs: root may restore for the service's user.
fn own(staged: &Path, state: &Path) -> Result<(), BackupError> {
    let owner = fs::metadata(state).map_err(failed("look at", state))?;
    let mut waiting = vec![staged.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).map_err(failed("look at", &path))?;
        if found.uid() != owner.uid() || found.gid() != owner.gid() {
            chown(&path, Some(owner.uid()), Some(owner.gid()))
                .map_err(failed("change the owner of", &path))?;
        }
        if found.is_dir() {
            waiting.extend(children(&path)?);
        }
    }
    Ok(())
}

fn label(entry: tar::Entry<'_, impl Read>) -> Result<Label, String> {
    if entry.path().map_err(|error| error.to_string())?.as_ref() != Path::new(LABEL) {
        return Err(format!("it does not begin with {LABEL}"));
    }
    let mut text = Vec::new();
    entry
        .take(LABEL_LIMIT)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    let label: Label =
        serde_json::from_slice(&text).map_err(|error| format!("its label: {error}"))?;
    if label.form == FORM {
        Ok(label)
    } else {
        Err(format!("it has form {}, not {FORM}", label.form))
    }
}

/// Writes one file, synced.
fn unpack(from: &mut impl Read, to: &Path) -> Result<u64, BackupError> {
    if let Some(parent) = to.parent() {
        files::private_directory(parent)
            .map_err(io::Error::other)
            .map_err(failed("make", parent))?;
    }
    let mut write = || -> io::Result<u64> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        let bytes = io::copy(from, &mut file)?;
        file.sync_all()?;
        Ok(bytes)
    };
    write().map_err(failed("write", to))
}

fn sync(directory: &Path) -> Result<(), BackupError> {
    File::open(directory)
        .and_then(|it| it.sync_all())
        .map_err(failed("sync", directory))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn only_a_states_own_files_are_members() {
        for name in [
            "store.db",
            "agents-ca.pem",
            "keys/receipt.key",
            "manifests/a.mtree.zst",
        ] {
            assert!(is_member(Path::new(name)), "{name}");
        }
        for name in [
            "",
            "/store.db",
            "../store.db",
            "keys/../store.db",
            "keys/a/b",
            "other/a",
            "store.db-wal",
            "manifests/.partial",
            "keys",
        ] {
            assert!(!is_member(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn what_is_no_backup_is_refused_and_leaves_no_collector() {
        let work = tempfile::tempdir().unwrap();
        let state = work.path().join("state");
        let file = work.path().join("file");
        let packed = |members: &[(&str, &[u8])]| {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL).unwrap());
            for (name, bytes) in members {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                // As a hostile archive has it: set_path refuses what leaves the directory.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                archive.append(&header, *bytes).unwrap();
            }
            archive.into_inner().unwrap().finish().unwrap()
        };
        let good =
            br#"{"form": 1, "made": "2026-01-01T00:00:00.000000Z", "version": "0"}"#.as_slice();
        let other =
            br#"{"form": 2, "made": "2026-01-01T00:00:00.000000Z", "version": "0"}"#.as_slice();
        let cases: [(Vec<u8>, &str); 6] = [
            (b"no archive".to_vec(), "is no backup"),
            (packed(&[("store.db", b"x")]), "does not begin with"),
            (packed(&[(LABEL, other)]), "form 2"),
            (packed(&[(LABEL, good)]), "ends before the store"),
            (
                packed(&[(LABEL, good), ("../../etc/x", b"x")]),
                "does not belong",
            ),
            (
                packed(&[(LABEL, good), ("keys/a", b"x"), ("store.db-wal", b"x")]),
                "does not belong",
            ),
        ];
        for (bytes, why) in cases {
            fs::write(&file, bytes).unwrap();
            let refused = put_back(&file, &state).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
            assert!(!exists(&state), "{why}");
        }
    }
}
