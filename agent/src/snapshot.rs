//! The whole manifest of what is there, while a statement cannot list every difference: the newest one, compressed, until
//! the collector asks for it.
//!
//! It is made of the image's lines and the differences, not read again: it is the view that the statement attests.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::manifest::Compressor;
use attestation::path::ImagePath;
use attestation::scope::Expect;
use attestation::statement::{Difference, FileRef};

use crate::durable;
use crate::image::{Lines, LinesError};

/// A larger file is not uploaded: a million entries are below this.
pub const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be written or read.
    #[error("write the snapshot {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The image's lines cannot be read.
    #[error("read the image that the snapshot is made from")]
    Lines(#[from] LinesError),
}

/// Where snapshots lie below the state directory.
pub fn directory(state: &Path) -> PathBuf {
    state.join("snapshots")
}

/// The file of a snapshot, by the digest of its plain lines.
pub fn file(state: &Path, sha256: &Digest) -> PathBuf {
    directory(state).join(format!("{sha256}.mtree.zst"))
}

/// Writes the sealed lines of what is there, and forgets the snapshot before it.
pub fn write(
    state: &Path,
    image: &Lines,
    differences: &BTreeMap<ImagePath, Difference>,
) -> Result<FileRef, SnapshotError> {
    let directory = directory(state);
    let beside = directory.join("new");
    let failed = |source| SnapshotError::File {
        path: beside.clone(),
        source,
    };
    durable::private_directory(&directory).map_err(failed)?;
    let out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed)?;
    let mut out = Compressor::new(BufWriter::new(out)).map_err(failed)?;
    out.write_all(b"#mtree\n").map_err(failed)?;
    merge(image, differences, |line| {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")
    })
    .map_err(|error| match error {
        MergeError::Lines(error) => error.into(),
        MergeError::Write(source) => failed(source),
    })?;
    let (mut out, sha256, size) = out.finish().map_err(failed)?;
    out.flush().map_err(failed)?;
    forget(state);
    fs::rename(&beside, file(state, &sha256)).map_err(failed)?;
    Ok(FileRef { sha256, size })
}

/// Removes what is kept: everything is listed again, or there is a newer one.
pub fn forget(state: &Path) {
    let Ok(held) = fs::read_dir(directory(state)) else {
        return;
    };
    for entry in held.flatten() {
        if entry.file_name() != "new"
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(%error, "an old snapshot");
        }
    }
}

#[derive(Debug)]
enum MergeError {
    Lines(LinesError),
    Write(io::Error),
}

/// Every line of what is there, in the order of a manifest.
fn merge(
    image: &Lines,
    differences: &BTreeMap<ImagePath, Difference>,
    mut give: impl FnMut(&str) -> io::Result<()>,
) -> Result<(), MergeError> {
    let mut written = Ok(());
    let mut different = differences
        .values()
        .filter(|difference| difference.expect == Expect::Sealed)
        .peekable();
    let mut tell = |line: &str| {
        if written.is_ok() {
            written = give(line);
        }
    };
    image
        .below(&ImagePath::root(), &mut |path, line| {
            while let Some(before) = different.next_if(|difference| difference.path < path) {
                if let Some(found) = &before.found {
                    tell(found.as_str());
                }
            }
            match different.next_if(|difference| difference.path == path) {
                None => tell(line.as_str()),
                Some(difference) => {
                    if let Some(found) = &difference.found {
                        tell(found.as_str());
                    }
                }
            }
        })
        .map_err(MergeError::Lines)?;
    for after in different {
        if let Some(found) = &after.found {
            tell(found.as_str());
        }
    }
    written.map_err(MergeError::Write)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::entry::Line;
    use attestation::manifest::{ManifestReader, decompressor};
    use attestation::time::Timestamp;

    use super::*;

    fn line(path: &str, mode: &str) -> Line {
        format!("{path} type=dir mode={mode} uid=0 gid=0")
            .parse()
            .unwrap()
    }

    fn difference(expected: Option<Line>, found: Option<Line>) -> (ImagePath, Difference) {
        let path = expected.as_ref().or(found.as_ref()).unwrap().path();
        let difference = Difference {
            path: path.clone(),
            expect: Expect::Sealed,
            expected,
            found,
            actor: None,
            at: Timestamp::from_micros(1),
        };
        (path, difference)
    }

    #[test]
    fn a_snapshot_is_the_image_with_its_differences_in_place() {
        let scratch = tempfile::tempdir().unwrap();
        let paths = [".", "./a", "./b", "./b/x", "./c"];
        let mut plain = tempfile::tempfile().unwrap();
        writeln!(plain, "#mtree").unwrap();
        for path in paths {
            writeln!(plain, "{}", line(path, "0755")).unwrap();
        }
        let image = Lines::open(plain).unwrap();
        let unread = "./b/y type=file mode=0600 uid=0 gid=0 size=5"
            .parse()
            .unwrap();
        let differences: BTreeMap<_, _> = [
            difference(Some(line("./a", "0755")), None),
            difference(Some(line("./b", "0755")), Some(line("./b", "0700"))),
            difference(None, Some(unread)),
            difference(None, Some(line("./d", "0755"))),
        ]
        .into();
        let first = write(scratch.path(), &image, &BTreeMap::new()).unwrap();
        let named = write(scratch.path(), &image, &differences).unwrap();
        assert!(
            !file(scratch.path(), &first.sha256).exists(),
            "only the newest is kept"
        );
        let packed = fs::read(file(scratch.path(), &named.sha256)).unwrap();
        let mut reader = ManifestReader::of_snapshot(decompressor(packed.as_slice(), named.size));
        let mut found = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            found.push(line.path().to_string());
        }
        assert_eq!(found, [".", "./b", "./b/x", "./b/y", "./c", "./d"]);
        let mut text = Vec::new();
        io::Read::read_to_end(&mut decompressor(packed.as_slice(), named.size), &mut text).unwrap();
        assert_eq!(Digest::of(&text), named.sha256);
        forget(scratch.path());
        assert!(!file(scratch.path(), &named.sha256).exists());
    }
}
