//! An image on disk: `NAME.mtree.zst` and, beside it, `NAME.mtree.zst.dsse.json`.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::{Line, LineRef};
use attestation::manifest::{self, LoadedManifest, ManifestReader};
use attestation::path::ImagePath;
use attestation::statement::{Image, Statement};

use crate::exit::Failure;
use crate::files::read_bounded;

/// Compressed, a million entries take some 60 MB.
const MANIFEST_LIMIT: u64 = 1 << 30;
/// A manifest without a statement has no signed size to stop at: what ten million entries take.
const PLAIN_LIMIT: u64 = 4 << 30;
/// A statement is at most 1 MiB; base64 and signatures make it larger.
const STATEMENT_LIMIT: u64 = 4 << 20;

/// An image read from disk. The manifest is held compressed, so that what was hashed is what is read.
pub struct ImageFile {
    /// The manifest's path.
    pub manifest: PathBuf,
    /// The statement's path, whether it is there or not.
    pub statement: PathBuf,
    /// The compressed manifest.
    pub compressed: Vec<u8>,
    /// The envelope beside it.
    pub envelope: Option<Envelope>,
    /// What the envelope says, not verified.
    pub says: Option<Statement<Image>>,
}

/// The statement's path for a manifest.
pub fn statement_path(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".dsse.json");
    PathBuf::from(name)
}

impl ImageFile {
    /// Reads FILE, and the statement beside it where there is one. FILE may name either.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let manifest = match path
            .to_str()
            .and_then(|text| text.strip_suffix(".dsse.json"))
        {
            Some(stripped) => PathBuf::from(stripped),
            None => path.to_owned(),
        };
        let statement = statement_path(&manifest);
        let compressed = read_bounded(&manifest, MANIFEST_LIMIT)?;
        let envelope = match statement.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            _ => Some(read_envelope(&statement)?),
        };
        let says = match &envelope {
            None => None,
            Some(envelope) => Some(envelope.peek::<Image>().map_err(|error| {
                Failure::new(format!("{} is not an image statement", statement.display()))
                    .because(&error)
                    .remedy("build the image again, or fetch the statement again")
            })?),
        };
        Ok(Self {
            manifest,
            statement,
            compressed,
            envelope,
            says,
        })
    }

    /// The envelope, for a command that makes no sense without one.
    pub fn required(&self) -> Result<(&Envelope, &Statement<Image>), Failure> {
        match (&self.envelope, &self.says) {
            (Some(envelope), Some(says)) => Ok((envelope, says)),
            _ => Err(
                Failure::new(format!("cannot read {}", self.statement.display()))
                    .why("there is no statement beside the manifest")
                    .remedy("`pristine image build` writes both; keep them together"),
            ),
        }
    }

    /// The entry lines, one after the other.
    pub fn lines(&self) -> Result<Lines<'_>, Failure> {
        let plain: Box<dyn BufRead + '_> = match &self.says {
            Some(says) => Box::new(manifest::decompressor(
                self.compressed.as_slice(),
                says.predicate.manifest.uncompressed,
            )),
            None => self.unbounded()?,
        };
        Ok(Lines {
            path: &self.manifest,
            reader: ManifestReader::new(plain),
        })
    }

    /// Without a statement nobody has said how large the manifest is.
    fn unbounded(&self) -> Result<Box<dyn BufRead + '_>, Failure> {
        let broken = |error: std::io::Error| unreadable(&self.manifest, &error);
        let mut decoder = zstd::Decoder::with_buffer(self.compressed.as_slice()).map_err(broken)?;
        decoder
            .window_log_max(manifest::MAX_WINDOW_LOG)
            .map_err(broken)?;
        Ok(Box::new(BufReader::new(decoder.take(PLAIN_LIMIT))))
    }

    /// Reads all of the manifest.
    pub fn contents(&self) -> Result<LoadedManifest, Failure> {
        self.contents_with(|_line| {})
    }

    /// The same, and each line is shown on the way.
    pub fn contents_with(&self, show: impl FnMut(&LineRef<'_>)) -> Result<LoadedManifest, Failure> {
        self.lines()?
            .reader
            .load_with(show)
            .map_err(|error| unreadable(&self.manifest, &error))
    }

    /// Why the statement beside the manifest is not about it, if it is not.
    pub fn mismatch(&self, says: &Statement<Image>, contents: &LoadedManifest) -> Option<String> {
        let image = &says.predicate;
        let signed_tree = signed_tree(says);
        if signed_tree != Some(contents.facts.tree) {
            return Some(format!(
                "the statement names the tree {}, the manifest is {}",
                signed_tree.map_or_else(|| "(none)".to_owned(), |tree| tree.to_string()),
                contents.facts.tree
            ));
        }
        if image.manifest.sha256 != Digest::of(&self.compressed) {
            return Some(format!(
                "the statement names the file {}, this one is {}",
                image.manifest.sha256,
                Digest::of(&self.compressed)
            ));
        }
        let length = u64::try_from(self.compressed.len()).unwrap_or(u64::MAX);
        [
            ("compressed bytes", image.manifest.size, length),
            (
                "plain bytes",
                image.manifest.uncompressed,
                contents.facts.uncompressed,
            ),
            ("entries", image.entries, contents.facts.entries),
            ("bytes of content", image.bytes, contents.facts.bytes),
        ]
        .into_iter()
        .find(|(_what, signed, found)| signed != found)
        .map(|(what, signed, found)| {
            format!("the statement says {signed} {what}, the manifest has {found}")
        })
    }

    /// Whether the manifest's digest already tells that it is not the signed one, without reading its lines.
    pub fn is_signed_file(&self, says: &Statement<Image>) -> bool {
        says.predicate.manifest.sha256 == Digest::of(&self.compressed)
    }
}

/// The tree that a statement names.
pub fn signed_tree(says: &Statement<Image>) -> Option<Digest> {
    says.tree()
}

/// The name that a statement gives to its image.
pub fn image_name(says: &Statement<Image>) -> &str {
    says.name().unwrap_or_default()
}

/// A manifest being read.
pub struct Lines<'a> {
    path: &'a Path,
    reader: ManifestReader<Box<dyn BufRead + 'a>>,
}

impl Lines<'_> {
    /// The next entry, in manifest order.
    pub fn advance(&mut self) -> Result<Option<(ImagePath, Line)>, Failure> {
        match self.reader.next_line() {
            Ok(None) => Ok(None),
            Ok(Some(line)) => {
                let line = line.to_line();
                Ok(Some((line.path(), line)))
            }
            Err(error) => Err(unreadable(self.path, &error)),
        }
    }
}

fn unreadable(path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(format!("{} is not a manifest", path.display()))
        .because(error)
        .remedy("a manifest is the .mtree.zst that `pristine image build` writes")
}

/// Reads an envelope.
pub fn read_envelope(path: &Path) -> Result<Envelope, Failure> {
    let bytes = read_bounded(path, STATEMENT_LIMIT)?;
    Envelope::from_json(&bytes).map_err(|error| {
        Failure::new(format!("{} is not a statement", path.display()))
            .because(&error)
            .remedy("a statement is the .dsse.json that `pristine image build` writes beside the manifest")
    })
}
