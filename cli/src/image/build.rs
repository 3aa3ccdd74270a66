//! `pristine image build`: the manifest of a tree and its statement.

use std::ffi::OsStr;
use std::io::{self, BufWriter, PipeWriter};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::manifest::{self, ManifestFacts, ManifestWriter};
use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::statement::{Builder, Image, ManifestRef, Source, Statement, Subject};
use attestation::time::Timestamp;
use attestation::tree::Tree;
use clap::Args;
use pristine_agent::scan::Hearer;

use super::guard::Guard;
use super::{file, provenance};
use crate::atomic::Pending;
use crate::exit::{Failure, Status};
use crate::gather::{self, Gathered, Manner};
use crate::image::show::Shown;
use crate::output::Output;
use crate::{clock, files, key};

/// Shown below the help.
pub const EXAMPLE: &str = "Example:\n  pristine image build dir:/srv/root --name web --version 1.4.2 \
    --scope host --key release.pem -o web.mtree.zst\nwrites web.mtree.zst and its statement web.mtree.zst.dsse.json.";

/// Arguments of `image build`.
#[derive(Args, Debug)]
pub struct Build {
    /// The tree: `dir:PATH` or a bare path.
    source: PathBuf,
    /// Name of the image.
    #[arg(long)]
    name: String,
    /// Version, in the publisher's own words.
    #[arg(long)]
    version: String,
    /// Where the manifest goes, by custom NAME.mtree.zst; the statement goes beside it.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: PathBuf,
    /// A number that never falls for one name: an older image is a rollback.
    #[arg(long, default_value_t = 1)]
    epoch: u64,
    /// Rules for what differs from node to node: a JSON file, or `host` for the built-in ones. Without it everything is sealed.
    #[arg(long, value_name = "FILE|host")]
    scope: Option<PathBuf>,
    /// Paths where something may be mounted, beside the kernel's own.
    #[arg(long = "mount", value_name = "PATH", num_args = 1..)]
    mounts: Vec<PathBuf>,
    #[command(flatten)]
    given: provenance::Given,
    /// When the image stops being allowed (RFC 3339).
    #[arg(long, value_name = "T")]
    expires: Option<String>,
    /// Sign with this private key. Without it the statement is written unsigned, for `image sign`.
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
}

/// As much as a pipe holds.
const PIPE: usize = 64 << 10;

/// All that a statement says beside what the scan found.
pub struct Draft {
    /// Name of the image.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops being allowed.
    pub expires: Option<Timestamp>,
    /// Its scope.
    pub scope: Scope,
    /// Where something may be mounted.
    pub mounts: Vec<ImagePath>,
    /// Where it comes from.
    pub source: Source,
    /// What made it.
    pub builder: Builder,
}

/// Builds the image and writes both files.
pub fn run(arguments: &Build, output: Output) -> Result<Status, Failure> {
    let root = directory(&arguments.source)?;
    let draft = draft(arguments, output)?;
    let signer = arguments
        .key
        .as_deref()
        .map(key::read_private)
        .transpose()?;
    refuse_output_inside(&root, &arguments.output)?;
    let gathered = scan_guarded(&root, &draft, output)?;
    if !gathered.is_whole() {
        return Err(gather::unread_failure(
            &format!("cannot build an image of {}", root.display()),
            &gathered.unread,
        ));
    }
    for limit in &gathered.limits {
        output.note(format_args!("note: {limit}"));
    }
    let seconds = gathered.seconds;
    let (compressed, facts) = write_gathered(gathered)?;
    let payload = statement(&draft, &compressed, &facts).to_payload();
    let envelope = match &signer {
        None => Envelope::unsigned(payload),
        Some(signer) => Envelope::sign(payload, signer)
            .map_err(|error| Failure::new("cannot sign the statement").because(&error))?,
    };
    publish_files(&arguments.output, &compressed, &envelope)?;
    tell(arguments, &envelope, seconds, output)?;
    Ok(Status::Clean)
}

fn tell(
    arguments: &Build,
    envelope: &Envelope,
    seconds: f64,
    output: Output,
) -> Result<(), Failure> {
    let written = file::ImageFile::open(&arguments.output)?;
    let shown = Shown::signed(envelope, written.required()?.1);
    if output.is_json() {
        return output.document(&shown);
    }
    output.line(shown.text())?;
    output.note(format_args!(
        "{} and {} written in {:.1} s{}",
        arguments.output.display(),
        file::statement_path(&arguments.output).display(),
        seconds,
        if arguments.key.is_none() {
            "; the statement is not signed yet"
        } else {
            ""
        }
    ));
    Ok(())
}

fn draft(arguments: &Build, output: Output) -> Result<Draft, Failure> {
    if arguments.name.is_empty() {
        return Err(Failure::usage("an image needs a name that is not empty"));
    }
    if arguments.epoch > attestation::json::MAX_INTEGER {
        return Err(Failure::usage("the epoch is larger than 2^53 - 1")
            .why("other readers could not hold it"));
    }
    let created = clock::now();
    let expires = arguments.expires.as_deref().map(clock::parse).transpose()?;
    if expires.is_some_and(|at| at <= created) {
        output.warn("the image has expired already: no node can be it");
    }
    Ok(Draft {
        name: arguments.name.clone(),
        version: arguments.version.clone(),
        epoch: arguments.epoch,
        created,
        expires,
        scope: arguments
            .scope
            .as_deref()
            .map_or_else(|| Ok(Scope::sealed_all()), files::read_scope)?,
        mounts: mounts(&arguments.mounts)?,
        source: provenance::source(&arguments.given, output),
        builder: provenance::builder(),
    })
}

/// Mount points as image paths, in order and each once.
fn mounts(given: &[PathBuf]) -> Result<Vec<ImagePath>, Failure> {
    let mut paths = given
        .iter()
        .map(|path| image_path(path))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A path that a person gives, from the root with or without a leading `/` or `./`.
pub fn image_path(given: &Path) -> Result<ImagePath, Failure> {
    let names = given.as_os_str().as_bytes();
    let bare: Vec<&[u8]> = names
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    ImagePath::from_bytes(bare.join(&b'/')).map_err(|error| {
        Failure::usage(format!("{} is not a path in an image", given.display()))
            .because(&error)
            .remedy("give it from the root of the tree, like /usr/sbin/nginx")
            .code(crate::exit::Code::Usage)
    })
}

/// The directory that SOURCE names.
fn directory(source: &Path) -> Result<PathBuf, Failure> {
    let bytes = source.as_os_str().as_bytes();
    if let Some(path) = bytes.strip_prefix(b"dir:") {
        return Ok(PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())));
    }
    match scheme(bytes) {
        Some(scheme) if source.symlink_metadata().is_err() => Err(Failure::new(format!(
            "cannot read a source of kind `{scheme}:`"
        ))
        .why("this build reads `dir:` only")
        .remedy("unpack it and give the directory as dir:PATH")),
        _ => Ok(source.to_owned()),
    }
}

fn scheme(source: &[u8]) -> Option<&str> {
    let end = source.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(source.get(..end)?).ok()?;
    let is_scheme = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_scheme.then_some(name)
}

/// An output inside the source would be in the next build of the same tree, and half written in this one.
fn refuse_output_inside(root: &Path, output: &Path) -> Result<(), Failure> {
    let real = |path: &Path| {
        path.canonicalize()
            .map_err(|error| Failure::io(format!("cannot open {}", path.display()), &error))
    };
    let root = real(root)?;
    let directory = output
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if output
        .file_name()
        .is_none_or(|name| name == OsStr::new(".."))
    {
        return Err(Failure::usage(format!(
            "{} is not a file name",
            output.display()
        )));
    }
    if real(directory)?.starts_with(&root) {
        return Err(
            Failure::new(format!("{} lies inside the source", output.display()))
                .why("the image would have to contain its own manifest")
                .remedy("write it to a directory outside the tree"),
        );
    }
    Ok(())
}

/// Scans, and looks for secrets in what is read. What the scope ignores the scan does not read, but it is shipped too.
fn scan_guarded(root: &Path, draft: &Draft, output: Output) -> Result<Gathered, Failure> {
    let guard = Guard::of_image(root);
    let hear = |path: &ImagePath, bytes: &[u8]| guard.hear(path, bytes);
    let manner = Manner {
        hearer: Some(Hearer {
            limit: guard.limit(),
            hear: &hear,
        }),
        ..Manner::default()
    };
    let gathered = thread::scope(|threads| {
        let ignored = threads.spawn(|| guard.walk_ignored(&draft.scope));
        let gathered = gather::gather(root, &draft.scope, &manner, output);
        ignored
            .join()
            .map_err(|_panic| Failure::new("cannot look for secrets in the source"))
            .and(gathered)
    });
    guard.found().map_or(gathered, |secret| Err(secret.into()))
}

/// The compressed manifest of what a scan found; its tree is made at the same time.
fn write_gathered(mut gathered: Gathered) -> Result<(Vec<u8>, ManifestFacts), Failure> {
    let leaves = gathered.take_leaves();
    thread::scope(|threads| {
        let tree = threads.spawn(|| Tree::from_leaves(leaves).root());
        let sealed = gathered.sorted();
        compressed(|writer| {
            let mut writer = writer.without_tree();
            for (_path, line) in sealed {
                writer.line(line).map_err(|error| unwritten(&error))?;
            }
            let tree = tree
                .join()
                .map_err(|_panic| Failure::new("cannot make the tree of the image"))?;
            writer.finish(tree).map_err(|error| unwritten(&error))
        })
    })
}

/// The compressed manifest of lines that are in order.
pub fn write_manifest<'a>(
    lines: impl Iterator<Item = &'a Line>,
) -> Result<(Vec<u8>, ManifestFacts), Failure> {
    compressed(|mut writer| {
        for line in lines {
            writer.line(line).map_err(|error| unwritten(&error))?;
        }
        writer.finish().map_err(|error| unwritten(&error))
    })
}

/// A manifest that is compressed while it is written.
fn compressed(
    write: impl FnOnce(ManifestWriter<BufWriter<PipeWriter>>) -> Result<ManifestFacts, Failure>,
) -> Result<(Vec<u8>, ManifestFacts), Failure> {
    let (plain, into) = io::pipe().map_err(|error| unwritten(&error))?;
    thread::scope(|threads| {
        let compressing = threads.spawn(|| {
            let mut compressed = Vec::new();
            manifest::compress(plain, &mut compressed).map(|_| compressed)
        });
        let into = BufWriter::with_capacity(PIPE, into);
        let writer = ManifestWriter::new(into, &[]).map_err(|error| unwritten(&error))?;
        let facts = write(writer)?;
        let compressed = compressing
            .join()
            .map_err(|_panic| Failure::new("cannot compress the manifest"))?
            .map_err(|error| unwritten(&error))?;
        Ok((compressed, facts))
    })
}

fn unwritten(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new("cannot write the manifest").because(error)
}

/// The statement of a manifest.
pub fn statement(draft: &Draft, compressed: &[u8], facts: &ManifestFacts) -> Statement<Image> {
    Statement::about(
        Subject::of_tree(draft.name.clone(), &facts.tree),
        Image {
            version: draft.version.clone(),
            epoch: draft.epoch,
            created: draft.created,
            expires: draft.expires,
            entries: facts.entries,
            bytes: facts.bytes,
            scope: draft.scope.clone(),
            mounts: draft.mounts.clone(),
            source: draft.source.clone(),
            builder: draft.builder.clone(),
            manifest: ManifestRef {
                media_type: ManifestRef::MEDIA_TYPE.to_owned(),
                size: u64::try_from(compressed.len()).unwrap_or(u64::MAX),
                sha256: Digest::of(compressed),
                uncompressed: facts.uncompressed,
            },
        },
    )
}

/// Both files written and synced before either has its name; the statement is named last, so that it never stands beside
/// another manifest than its own for longer than a moment.
pub fn publish_files(
    manifest: &Path,
    compressed: &[u8],
    envelope: &Envelope,
) -> Result<(), Failure> {
    let beside = file::statement_path(manifest);
    let unwritten = |path: &Path, error: &std::io::Error| {
        Failure::io(format!("cannot write {}", path.display()), error)
    };
    let first =
        Pending::write(manifest, compressed, 0o644).map_err(|error| unwritten(manifest, &error))?;
    let second = Pending::write(&beside, &envelope.to_json(), 0o644)
        .map_err(|error| unwritten(&beside, &error))?;
    first
        .publish()
        .map_err(|error| unwritten(manifest, &error))?;
    second.publish().map_err(|error| unwritten(&beside, &error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_directory_or_a_kind_that_is_named() {
        assert_eq!(
            directory(Path::new("dir:/srv/root")).unwrap(),
            Path::new("/srv/root")
        );
        assert_eq!(
            directory(Path::new("/srv/a:b")).unwrap(),
            Path::new("/srv/a:b")
        );
        let refusal = directory(Path::new("oci-archive:web.tar"))
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("oci-archive:") && refusal.contains("`dir:` only"),
            "{refusal}"
        );
    }

    #[test]
    fn people_give_paths_in_several_ways() {
        for given in [
            "/usr/bin/ping",
            "usr/bin/ping",
            "./usr/bin/ping",
            "/usr//bin/ping/",
        ] {
            assert_eq!(
                image_path(Path::new(given)).unwrap().to_string(),
                "./usr/bin/ping"
            );
        }
        assert!(image_path(Path::new("/")).unwrap().is_root());
        assert!(image_path(Path::new("../etc")).is_err());
    }
}
