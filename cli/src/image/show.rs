//! `pristine image show`: what is in an image.

use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::manifest::LoadedManifest;
use attestation::path::ImagePath;
use attestation::statement::{Image, Source, Statement};
use attestation::time::Timestamp;
use attestation::tree::Proof;
use clap::Args;
use serde::Serialize;

use super::build::image_path;
use super::file::{ImageFile, image_name, signed_tree};
use crate::exit::{Failure, Status};
use crate::output::{self, Output, plain};

/// Arguments of `image show`.
#[derive(Args, Debug)]
pub struct Show {
    /// The manifest, with or without a statement beside it.
    file: PathBuf,
    /// A path in the image: its entry, and the proof that it is or is not there.
    path: Option<PathBuf>,
}

/// An image in results. For a bare manifest only what the manifest itself tells.
#[derive(Serialize)]
pub struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    tree: Digest,
    entries: u64,
    bytes: u64,
    #[serde(flatten)]
    signed: Option<SignedPart>,
}

#[derive(Serialize)]
struct SignedPart {
    /// SHA-256 of the statement's payload: how assignments name the image.
    sha256: Digest,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
    source: Source,
    mounts: Vec<ImagePath>,
    rules: usize,
    signatures: Vec<SignatureShown>,
}

#[derive(Serialize)]
struct SignatureShown {
    keyid: String,
}

impl Shown {
    /// An image with its statement.
    pub fn signed(envelope: &Envelope, says: &Statement<Image>) -> Self {
        let image = &says.predicate;
        Self {
            name: Some(image_name(says).to_owned()),
            version: Some(image.version.clone()),
            epoch: Some(image.epoch),
            tree: signed_tree(says).unwrap_or(Digest::ZERO),
            entries: image.entries,
            bytes: image.bytes,
            signed: Some(SignedPart {
                sha256: envelope.payload_digest(),
                created: image.created,
                expires: image.expires,
                source: image.source.clone(),
                mounts: image.mounts.clone(),
                rules: image.scope.rules().len(),
                signatures: envelope
                    .signatures()
                    .iter()
                    .map(|signature| SignatureShown {
                        keyid: signature.keyid.clone(),
                    })
                    .collect(),
            }),
        }
    }

    fn bare(contents: &LoadedManifest) -> Self {
        Self {
            name: None,
            version: None,
            epoch: None,
            tree: contents.facts.tree,
            entries: contents.facts.entries,
            bytes: contents.facts.bytes,
            signed: None,
        }
    }

    /// The image read from disk. The statement must be about this manifest.
    pub fn of(image: &ImageFile) -> Result<Self, Failure> {
        let contents = image.contents()?;
        match (&image.envelope, &image.says) {
            (Some(envelope), Some(says)) => match image.mismatch(says, &contents) {
                None => Ok(Self::signed(envelope, says)),
                Some(reason) => Err(another_manifest(image, &reason)),
            },
            _ => Ok(Self::bare(&contents)),
        }
    }

    /// The name for a heading.
    pub fn title(&self) -> String {
        match (&self.name, &self.version) {
            (Some(name), Some(version)) => plain(&format!("{name} {version}")),
            _ => self.tree.to_string(),
        }
    }

    /// The commit that it came from, where one is known.
    pub fn commit(&self) -> &str {
        self.signed
            .as_ref()
            .and_then(|signed| signed.source.commit.as_deref())
            .unwrap_or_default()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut rows = Vec::new();
        let mut row = |what: &str, text: String| rows.push(vec![what.to_owned(), text]);
        if let (Some(name), Some(version), Some(epoch)) = (&self.name, &self.version, self.epoch) {
            row(
                "image",
                format!("{} {} (epoch {epoch})", plain(name), plain(version)),
            );
        }
        row("tree", self.tree.to_string());
        row(
            "entries",
            format!(
                "{}, {} of content",
                output::count(self.entries),
                output::bytes(self.bytes)
            ),
        );
        if let Some(signed) = &self.signed {
            row("statement", signed.sha256.to_string());
            row("created", signed.created.to_string());
            if let Some(expires) = signed.expires {
                row("expires", expires.to_string());
            }
            row("source", source_text(&signed.source));
            row(
                "scope",
                if signed.rules == 0 {
                    "everything sealed".to_owned()
                } else {
                    format!("{} rules", signed.rules)
                },
            );
            for mount in &signed.mounts {
                row("mount", mount.to_string());
            }
            match signed.signatures.as_slice() {
                [] => row("signed by", "nobody".to_owned()),
                signatures => signatures
                    .iter()
                    .for_each(|one| row("signed by", plain(&one.keyid))),
            }
        }
        output::table(&rows)
    }
}

fn source_text(source: &Source) -> String {
    let parts = [
        &source.repository,
        &source.commit,
        &source.r#ref,
        &source.author,
    ];
    let told: Vec<String> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .map(|part| plain(part))
        .collect();
    if told.is_empty() {
        "as found".to_owned()
    } else {
        told.join("  ")
    }
}

/// The failure of a command whose statement and manifest do not belong together.
pub fn another_manifest(image: &ImageFile, reason: &str) -> Failure {
    Failure::new(format!(
        "{} is about another manifest",
        image.statement.display()
    ))
    .why(reason)
    .remedy("fetch manifest and statement again, together; they are one image")
}

#[derive(Serialize)]
struct EntryShown {
    path: ImagePath,
    entry: Option<Line>,
    proof: Proof,
}

/// Shows the image, or one entry of it; an entry that is not there is exit code 1, with the proof of absence.
pub fn run(arguments: &Show, output: Output) -> Result<Status, Failure> {
    let image = ImageFile::open(&arguments.file)?;
    if let Some(path) = &arguments.path {
        return show_entry(&image, path, output);
    }
    let shown = Shown::of(&image)?;
    if output.is_json() {
        output.document(&shown)?;
    } else {
        output.line(shown.text())?;
    }
    Ok(Status::Clean)
}

fn show_entry(image: &ImageFile, given: &Path, output: Output) -> Result<Status, Failure> {
    let contents = image.contents()?;
    if let Some(reason) = image
        .says
        .as_ref()
        .and_then(|says| image.mismatch(says, &contents))
    {
        return Err(another_manifest(image, &reason));
    }
    let path = wanted_path(given, &contents)?;
    let proof = contents.tree.prove(&path, |key| line_of(image, *key));
    let entry = proof.entry.clone().filter(|line| line.path() == path);
    let present = entry.is_some();
    if output.is_json() {
        output.document(&EntryShown { path, entry, proof })?;
    } else {
        match &entry {
            Some(line) => output.line(line.as_str())?,
            None => output.line(format_args!("{path} is not in the image"))?,
        }
        output.line(format_args!(
            "proof  {} siblings up to the tree {}",
            proof.siblings.len(),
            contents.facts.tree
        ))?;
    }
    Ok(if present {
        Status::Clean
    } else {
        Status::NotSo
    })
}

/// The line with this key, looked for in the manifest: a proof needs one line, so none is kept.
fn line_of(image: &ImageFile, key: Digest) -> Option<Line> {
    let mut lines = image.lines().ok()?;
    while let Some((path, line)) = lines.advance().ok()? {
        if path.key() == key {
            return Some(line);
        }
    }
    None
}

/// The path as given; if that is not there, the path that it shows in the mtree encoding, as results print it.
fn wanted_path(given: &Path, contents: &LoadedManifest) -> Result<ImagePath, Failure> {
    let raw = image_path(given)?;
    if contents.tree.get(&raw.key()).is_some() {
        return Ok(raw);
    }
    let shown = given.to_str().and_then(|text| ImagePath::parse(text).ok());
    Ok(shown
        .filter(|path| contents.tree.get(&path.key()).is_some())
        .unwrap_or(raw))
}
