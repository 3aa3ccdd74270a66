//! The image that `up` holds this machine to: ROOT as it stands, or a file that was built elsewhere.

use std::path::{Path, PathBuf};

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::key::PrivateKey;
use attestation::mounts;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Rule, Scope};
use attestation::statement::{Image, Statement};
use pristine_agent::scan::{Hearer, Progress};

use super::left_out::{self, Added};
use super::place::{self, Kept, Place};
use crate::exit::{Code, Failure};
use crate::gather::{self, Gathered, Manner};
use crate::image::build::{self, Draft};
use crate::image::file::{ImageFile, image_name};
use crate::image::guard::Guard;
use crate::image::provenance;
use crate::image::show::another_manifest;
use crate::output::Output;
use crate::{clock, files};

/// What is asked for.
pub struct Wish<'a> {
    /// The root, a real path.
    pub root: &'a Path,
    /// `--scope`.
    pub scope: Option<&'a Path>,
    /// `--image`.
    pub image: Option<&'a Path>,
    /// `--rebase`.
    pub rebase: bool,
}

/// An image that has just been taken, with what there is to tell of it.
pub struct Taken {
    /// What to remember of it.
    pub kept: Kept,
    /// Rules that were added.
    pub added: Vec<Added>,
    /// What cannot be seen here, in words.
    pub limits: Vec<String>,
}

/// Takes a new image where there is none, where it is asked for, or where another file is given; else nothing.
pub fn take(
    wish: &Wish<'_>,
    place: &Place,
    kept: Option<&Kept>,
    signer: &PrivateKey,
    progress: &Progress,
    output: Output,
) -> Result<Option<Taken>, Failure> {
    match (wish.image, kept) {
        (Some(path), kept) => given(wish, path, place, kept, signer, progress, output),
        (None, Some(_)) if !wish.rebase => Ok(None),
        (None, kept) => as_found(wish, place, kept, signer, progress, output).map(Some),
    }
}

/// ROOT as it stands.
fn as_found(
    wish: &Wish<'_>,
    place: &Place,
    kept: Option<&Kept>,
    signer: &PrivateKey,
    progress: &Progress,
    output: Output,
) -> Result<Taken, Failure> {
    let scope = files::read_scope(wish.scope.unwrap_or(Path::new("host")))?;
    let mut added: Vec<Added> = left_out::state(wish.root, &place.state)?
        .into_iter()
        .collect();
    let scope = extended(&scope, &added)?;
    // As in `image build`, but for what the scope ignores, our own state with it: this image does not leave the machine.
    let guard = Guard::of_machine(wish.root);
    let hear = |path: &ImagePath, bytes: &[u8]| guard.hear(path, bytes);
    let hearer = Hearer {
        limit: guard.limit(),
        hear: &hear,
    };
    let gathered = scanned(wish.root, &scope, progress, Some(hearer), output);
    if let Some(secret) = guard.found() {
        return Err(secret.into());
    }
    let mut gathered = gathered?;
    let unread = left_out::unread(&gathered.unread, scope.rules().len())?;
    let scope = extended(&scope, &unread)?;
    let found: Vec<ImagePath> = mounts::unexpected(&gathered.mounts, &scope, &[])
        .into_iter()
        .map(|mount| mount.path)
        .collect();
    let sealed = gathered.sorted();
    keep_sealed(sealed, &scope, !unread.is_empty());
    added.extend(unread);
    let epoch = kept.map_or(1, |kept| kept.epoch + 1);
    let draft = Draft {
        name: kept.map_or_else(place::host_name, |kept| kept.name.clone()),
        version: format!("as-found-{epoch}"),
        epoch,
        created: clock::now(),
        expires: None,
        scope,
        mounts: sorted(found),
        source: provenance::none(),
        builder: provenance::builder(),
    };
    let (file, statement) = write(place, &draft, sealed.iter().map(|(_, line)| line), signer)?;
    let kept = remembered(
        wish,
        &draft.name,
        &draft.version,
        epoch,
        statement,
        None,
        file,
        &added,
    )?;
    Ok(Taken {
        kept,
        added,
        limits: gathered.limits,
    })
}

/// An image that was built elsewhere. Whoever runs `up` vouches for it: our own publisher's key signs it too.
fn given(
    wish: &Wish<'_>,
    path: &Path,
    place: &Place,
    kept: Option<&Kept>,
    signer: &PrivateKey,
    progress: &Progress,
    output: Output,
) -> Result<Option<Taken>, Failure> {
    if wish.rebase {
        return Err(
            Failure::usage("--rebase takes ROOT as it stands, --image takes a file")
                .remedy("give one of them"),
        );
    }
    let image = ImageFile::open(path)?;
    let contents = image.contents()?;
    if let Some(reason) = image
        .says
        .as_ref()
        .and_then(|says| image.mismatch(says, &contents))
    {
        return Err(another_manifest(&image, &reason));
    }
    if image.says.is_some() && wish.scope.is_some() {
        return Err(
            Failure::usage("--scope is only for a manifest without a statement")
                .why(format!("{} gives the scope", image.statement.display())),
        );
    }
    let identity = image
        .envelope
        .as_ref()
        .map_or_else(|| Digest::of(&image.compressed), Envelope::payload_digest);
    if kept.is_some_and(|kept| kept.given == Some(identity)) {
        return Ok(None);
    }
    let mut draft = draft_of(wish, image.says.as_ref(), kept)?;
    let mut added: Vec<Added> = left_out::state(wish.root, &place.state)?
        .into_iter()
        .collect();
    draft.scope = extended(&draft.scope, &added)?;
    let mut limits = Vec::new();
    if !place::is_root() {
        let gathered = scanned(wish.root, &draft.scope, progress, None, output)?;
        let unread = left_out::unread(&gathered.unread, draft.scope.rules().len())?;
        draft.scope = extended(&draft.scope, &unread)?;
        added.extend(unread);
        limits = gathered.limits;
    }
    let (file, statement) = match &image.envelope {
        Some(envelope) if added.is_empty() => copy(place, draft.epoch, &image, envelope, signer)?,
        _ => {
            let mut lines = Vec::new();
            let mut reader = image.lines()?;
            while let Some(line) = reader.advance()? {
                lines.push(line);
            }
            keep_sealed(&mut lines, &draft.scope, true);
            write(place, &draft, lines.iter().map(|(_, line)| line), signer)?
        }
    };
    let kept = remembered(
        wish,
        &draft.name,
        &draft.version,
        draft.epoch,
        statement,
        Some(identity),
        file,
        &added,
    )?;
    Ok(Some(Taken {
        kept,
        added,
        limits,
    }))
}

fn draft_of(
    wish: &Wish<'_>,
    says: Option<&Statement<Image>>,
    kept: Option<&Kept>,
) -> Result<Draft, Failure> {
    if let Some(says) = says {
        let image = says.predicate.clone();
        return Ok(Draft {
            name: image_name(says).to_owned(),
            version: image.version,
            epoch: image.epoch,
            created: image.created,
            expires: image.expires,
            scope: image.scope,
            mounts: image.mounts,
            source: image.source,
            builder: image.builder,
        });
    }
    let epoch = kept.map_or(1, |kept| kept.epoch + 1);
    Ok(Draft {
        name: place::host_name(),
        version: format!("given-{epoch}"),
        epoch,
        created: clock::now(),
        expires: None,
        scope: wish
            .scope
            .map_or_else(|| Ok(Scope::sealed_all()), files::read_scope)?,
        mounts: Vec::new(),
        source: provenance::none(),
        builder: provenance::builder(),
    })
}

fn scanned(
    root: &Path,
    scope: &Scope,
    progress: &Progress,
    hearer: Option<Hearer<'_>>,
    output: Output,
) -> Result<Gathered, Failure> {
    let manner = Manner {
        takes_unsettled: true,
        sizes: None,
        progress: Some(progress),
        hearer,
    };
    gather::gather(root, scope, &manner, output)
}

/// The scope with rules at its end, where they win.
fn extended(scope: &Scope, added: &[Added]) -> Result<Scope, Failure> {
    if added.is_empty() {
        return Ok(scope.clone());
    }
    let rules: Vec<Rule> = scope
        .rules()
        .iter()
        .cloned()
        .chain(added.iter().map(Added::rule))
        .collect();
    Scope::new(rules).map_err(|error| {
        Failure::new("cannot add rules to the scope")
            .because(&error)
            .code(Code::Configuration)
    })
}

/// Drops what the scope no longer seals.
fn keep_sealed(entries: &mut Vec<(ImagePath, Line)>, scope: &Scope, has_changed: bool) {
    if has_changed {
        entries.retain(|(path, _)| scope.decide(path).expect == Expect::Sealed);
    }
}

fn sorted(mut paths: Vec<ImagePath>) -> Vec<ImagePath> {
    paths.sort();
    paths.dedup();
    paths
}

/// Writes and signs an image below the state directory.
fn write<'a>(
    place: &Place,
    draft: &Draft,
    lines: impl Iterator<Item = &'a Line>,
    signer: &PrivateKey,
) -> Result<(String, Digest), Failure> {
    let (compressed, facts) = build::write_manifest(lines)?;
    let payload = build::statement(draft, &compressed, &facts).to_payload();
    let envelope = Envelope::sign(payload, signer)
        .map_err(|error| Failure::new("cannot sign the image").because(&error))?;
    let file = file_name(draft.epoch);
    build::publish_files(&place.state.join(&file), &compressed, &envelope)?;
    Ok((file, envelope.payload_digest()))
}

/// Copies an image as it is, with our signature beside those that it has.
fn copy(
    place: &Place,
    epoch: u64,
    image: &ImageFile,
    envelope: &Envelope,
    signer: &PrivateKey,
) -> Result<(String, Digest), Failure> {
    let mut envelope = envelope.clone();
    envelope
        .add_signature(signer)
        .map_err(|error| Failure::new("cannot sign the image").because(&error))?;
    let file = file_name(epoch);
    build::publish_files(&place.state.join(&file), &image.compressed, &envelope)?;
    Ok((file, envelope.payload_digest()))
}

fn file_name(epoch: u64) -> String {
    format!("image-{epoch}.mtree.zst")
}

#[expect(
    clippy::too_many_arguments,
    reason = "each becomes one field of what is remembered"
)]
fn remembered(
    wish: &Wish<'_>,
    name: &str,
    version: &str,
    epoch: u64,
    statement: Digest,
    given: Option<Digest>,
    file: String,
    added: &[Added],
) -> Result<Kept, Failure> {
    Ok(Kept {
        root: place::shown_root(wish.root)?,
        name: name.to_owned(),
        version: version.to_owned(),
        epoch,
        statement,
        given,
        file,
        added: added.iter().map(Into::into).collect(),
        assigned: false,
    })
}

/// The image in force, as a file.
pub fn file_of(place: &Place, kept: &Kept) -> PathBuf {
    place.state.join(&kept.file)
}
