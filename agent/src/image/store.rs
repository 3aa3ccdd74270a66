//! Images in the state directory: `images/PAYLOAD.json` is the signed statement, `images/PAYLOAD.mtree` the plain lines.
//! A restart goes on with them without asking the collector; signatures and digests are checked each time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestation::digest::Digest;
use attestation::dsse::{Envelope, EnvelopeError, VerifiedStatement};
use attestation::manifest::{ManifestError, ManifestReader};
use attestation::statement::Image;
use attestation::tree::Tree;

use super::checked::Last;
use super::{Lines, LinesError, Publishers, Reference, UntrustedImage};
use crate::durable;

/// Why an image is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store cannot be used.
    #[error("use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kept statement is no envelope.
    #[error("read the kept image statement")]
    Envelope(#[from] EnvelopeError),
    /// Its publishers did not sign it.
    #[error("trust image {payload}")]
    Untrusted {
        /// SHA-256 of its payload.
        payload: Digest,
        /// Why not.
        source: UntrustedImage,
    },
    /// It is another image.
    #[error("image {found} was found where {wanted} should be")]
    OtherImage {
        /// What was asked for.
        wanted: Digest,
        /// What was there.
        found: Digest,
    },
    /// A line of the manifest is wrong.
    #[error("read the manifest")]
    Manifest(#[from] ManifestError),
    /// The lines cannot be looked up.
    #[error("read the kept lines")]
    Lines(#[from] LinesError),
    /// The manifest is not the one that was signed.
    #[error("the manifest has tree {found} and {entries} entries, {signed} was signed")]
    OtherTree {
        /// The tree of the lines.
        found: Digest,
        /// How many there are.
        entries: u64,
        /// The signed tree.
        signed: Digest,
    },
    /// The statement names no tree.
    #[error("the image statement names no tree")]
    NoTree,
}

/// The store of images.
#[derive(Clone, Debug)]
pub struct ImageStore {
    directory: PathBuf,
    last: Arc<Last>,
}

impl ImageStore {
    /// The store in a state directory.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let directory = state.join("images");
        durable::private_directory(&directory).map_err(|source| StoreError::File {
            path: directory.clone(),
            source,
        })?;
        Ok(Self {
            directory,
            last: Arc::default(),
        })
    }

    /// The image, if it is kept here and still right.
    pub fn load(
        &self,
        payload: Digest,
        publishers: &Publishers,
    ) -> Result<Option<Reference>, StoreError> {
        let path = self.statement_path(payload);
        let bytes = durable::read_if_present(&path).map_err(|source| StoreError::File {
            path: path.clone(),
            source,
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let image = trust(&Envelope::from_json(&bytes)?, payload, publishers)?;
        let plain = self.lines_path(payload);
        let file = File::open(&plain).map_err(|source| StoreError::File {
            path: plain,
            source,
        })?;
        let lines = Lines::open(file)?;
        let tree = check_tree(&image, lines.leaves()?)?;
        Ok(Some(self.reference(&image, lines, tree)))
    }

    /// Takes an image whose manifest comes as plain bytes; everything is checked before anything is kept.
    pub fn install(
        &self,
        envelope: &Envelope,
        payload: Digest,
        publishers: &Publishers,
        manifest: impl Read,
    ) -> Result<Reference, StoreError> {
        let image = trust(envelope, payload, publishers)?;
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        let plain = self.lines_path(payload);
        let beside = plain.with_extension("mtree.new");
        let leaves = write_plain(&image, manifest, &beside).inspect_err(|_| {
            // Half a manifest is of no use to anybody.
            drop(fs::remove_file(&beside));
        })?;
        let tree = check_tree(&image, leaves)?;
        fs::rename(&beside, &plain).map_err(file_error(&plain))?;
        let path = self.statement_path(payload);
        // The statement last: it says that the lines are there.
        durable::replace(&path, &envelope.to_json()).map_err(file_error(&path))?;
        let file = File::open(&plain).map_err(file_error(&plain))?;
        Ok(self.reference(&image, Lines::open(file)?, tree))
    }

    /// Removes what is not among `wanted`.
    pub fn keep_only(&self, wanted: &[Digest]) {
        let Ok(files) = fs::read_dir(&self.directory) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let name = name.to_string_lossy();
            let stem = name.split('.').next().unwrap_or_default();
            let kept = stem
                .parse::<Digest>()
                .is_ok_and(|digest| wanted.contains(&digest));
            if !kept && let Err(error) = fs::remove_file(file.path()) {
                tracing::warn!(%name, %error, "remove an image that is no longer allowed");
            }
        }
    }

    fn reference(&self, image: &VerifiedStatement<Image>, lines: Lines, tree: Tree) -> Reference {
        Reference {
            payload: image.payload_digest(),
            statement: image.statement().clone(),
            lines,
            checked: self.last.keep(tree),
        }
    }

    fn statement_path(&self, payload: Digest) -> PathBuf {
        self.directory.join(format!("{payload}.json"))
    }

    fn lines_path(&self, payload: Digest) -> PathBuf {
        self.directory.join(format!("{payload}.mtree"))
    }
}

/// The image that was asked for, signed by who may.
fn trust(
    envelope: &Envelope,
    payload: Digest,
    publishers: &Publishers,
) -> Result<VerifiedStatement<Image>, StoreError> {
    let found = envelope.payload_digest();
    if found != payload {
        return Err(StoreError::OtherImage {
            wanted: payload,
            found,
        });
    }
    publishers
        .verify(envelope)
        .map_err(|source| StoreError::Untrusted { payload, source })
}

/// Checks each line and writes them without the comments; never more bytes than were signed.
fn write_plain(
    image: &VerifiedStatement<Image>,
    manifest: impl Read,
    plain: &Path,
) -> Result<Vec<(Digest, Digest)>, StoreError> {
    let to = |source| StoreError::File {
        path: plain.to_owned(),
        source,
    };
    let bounded = manifest.take(image.predicate().manifest.uncompressed);
    let mut reader = ManifestReader::new(BufReader::with_capacity(64 * 1024, bounded));
    let output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(plain)
        .map_err(to)?;
    let mut output = BufWriter::with_capacity(256 * 1024, output);
    output.write_all(b"#mtree\n").map_err(to)?;
    let mut leaves = Vec::new();
    while let Some(line) = reader.next_line()? {
        output.write_all(line.as_str().as_bytes()).map_err(to)?;
        output.write_all(b"\n").map_err(to)?;
        leaves.push((line.key(), line.leaf()));
    }
    let output = output
        .into_inner()
        .map_err(|error| to(error.into_error()))?;
    output.sync_all().map_err(to)?;
    Ok(leaves)
}

fn check_tree(
    image: &VerifiedStatement<Image>,
    leaves: Vec<(Digest, Digest)>,
) -> Result<Tree, StoreError> {
    let signed = image.statement().tree().ok_or(StoreError::NoTree)?;
    let entries = u64::try_from(leaves.len()).unwrap_or(u64::MAX);
    let tree = Tree::from_leaves(leaves);
    let found = tree.root();
    if found != signed || entries != image.predicate().entries {
        return Err(StoreError::OtherTree {
            found,
            entries,
            signed,
        });
    }
    Ok(tree)
}
