//! `pristine scan`: a tree now, on its own or against an image, without any collector.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::thread;

use attestation::digest::Digest;
use attestation::mounts::{self, Mount};
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use attestation::tree::Tree;
use attestation::verdict::Verdict;
use clap::Args;
use pristine_agent::scan::Progress;
use serde::Serialize;

use crate::exit::{Code, Failure, Status};
use crate::gather::{self, Gathered, Manner, READ_ANYWAY, Sizes, Telling, Unread};
use crate::image::diff::Change;
use crate::image::file::{ImageFile, image_name};
use crate::image::{show, verify};
use crate::output::{self, Colour, Output, plain};
use crate::{files, key};

/// Arguments of `scan`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pristine scan / --scope host\n  \
    pristine scan /srv/root --image web.mtree.zst --publisher release.pem.pub")]
pub struct Scan {
    /// The directory to read.
    root: PathBuf,
    /// Compare with this image; the statement beside it gives the scope.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Rules: a JSON file, or `host` for the built-in ones. With --image only for a manifest without a statement.
    #[arg(long, value_name = "FILE|host")]
    scope: Option<PathBuf>,
    /// Public keys of the publishers, one of whom must have signed the image.
    #[arg(long = "publisher", value_name = "PUB", num_args = 1.., requires = "image")]
    publishers: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Scanned {
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    tree: Digest,
    entries: u64,
    bytes: u64,
    seconds: f64,
    local: u64,
    growing: u64,
    unreadable: Vec<Unread>,
    mounts: Vec<MountShown>,
    limits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageShown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<DifferenceShown>>,
}

#[derive(Serialize)]
struct MountShown {
    path: ImagePath,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    violation: bool,
}

#[derive(Serialize)]
struct ImageShown {
    name: Option<String>,
    version: Option<String>,
    tree: Digest,
}

#[derive(Serialize)]
struct DifferenceShown {
    expect: Expect,
    #[serde(flatten)]
    change: Change,
}

/// Scans and, with an image, compares.
pub fn run(arguments: &Scan, output: Output) -> Result<Status, Failure> {
    match &arguments.image {
        None => alone(arguments, output),
        Some(image) => against(arguments, image, output),
    }
}

fn alone(arguments: &Scan, output: Output) -> Result<Status, Failure> {
    let scope = arguments
        .scope
        .as_deref()
        .map_or_else(|| Ok(Scope::sealed_all()), files::read_scope)?;
    let mut gathered = gather::gather(&arguments.root, &scope, &Manner::default(), output)?;
    let status = if gathered.unread.is_empty() {
        Status::Clean
    } else {
        Status::NotWhole
    };
    let tree = tree(&mut gathered);
    tell(&scanned(&gathered, tree, &[]), output)?;
    Ok(status)
}

fn against(arguments: &Scan, image: &Path, output: Output) -> Result<Status, Failure> {
    let file = ImageFile::open(image)?;
    let (scope, mounts) = agreed(arguments, &file, output)?;
    let (image, mut gathered) = read_both(&arguments.root, &scope, &file, output)?;
    let tree = tree(&mut gathered);
    let differences = if tree == image.tree {
        Vec::new()
    } else {
        differences(&file, &mut gathered)?
    };
    let unexpected = mounts::unexpected(&gathered.mounts, &scope, &mounts);
    let (verdict, status) = match (
        differences.is_empty() && unexpected.is_empty(),
        gathered.is_whole(),
    ) {
        (false, _) => (Verdict::Drifted, Status::NotSo),
        (true, false) => (Verdict::Incomplete, Status::NotWhole),
        (true, true) => (Verdict::Pristine, Status::Clean),
    };
    let mut scanned = scanned(&gathered, tree, &unexpected);
    scanned.verdict = Some(verdict);
    scanned.image = Some(image);
    scanned.differences = Some(
        differences
            .into_iter()
            .map(|change| DifferenceShown {
                expect: Expect::Sealed,
                change,
            })
            .collect(),
    );
    tell(&scanned, output)?;
    Ok(status)
}

/// Scope, and where something may be mounted: of the statement, whose signatures are checked, or without one of `--scope`.
fn agreed(
    arguments: &Scan,
    file: &ImageFile,
    output: Output,
) -> Result<(Scope, Vec<ImagePath>), Failure> {
    let Some(says) = &file.says else {
        if !arguments.publishers.is_empty() {
            return Err(Failure::new("cannot check signatures")
                .why(format!(
                    "there is no statement at {}",
                    file.statement.display()
                ))
                .remedy("fetch the .dsse.json beside the manifest, or leave --publisher out"));
        }
        let scope = arguments
            .scope
            .as_deref()
            .map_or_else(|| Ok(Scope::sealed_all()), files::read_scope)?;
        return Ok((scope, Vec::new()));
    };
    if arguments.scope.is_some() {
        return Err(
            Failure::usage("--scope is only for a manifest without a statement")
                .why(format!("{} gives the scope", file.statement.display()))
                .remedy("leave --scope out"),
        );
    }
    check_signatures(file, &arguments.publishers, output)?;
    Ok((says.predicate.scope.clone(), says.predicate.mounts.clone()))
}

/// Reads the image beside the tree: the one reading takes about half as long as the other.
fn read_both(
    root: &Path,
    scope: &Scope,
    file: &ImageFile,
    output: Output,
) -> Result<(ImageShown, Gathered), Failure> {
    let (sizes, progress) = (Sizes::default(), Progress::default());
    let manner = Manner {
        sizes: Some(&sizes),
        progress: Some(&progress),
        ..Manner::default()
    };
    thread::scope(|threads| {
        let reading = threads.spawn(|| {
            let told = sizes.telling();
            let image = read_image(file, &told);
            if image.is_err() {
                // Nothing is compared with it.
                progress.stop();
            }
            image
        });
        let gathered = gather::gather(root, scope, &manner, output);
        let image = reading
            .join()
            .map_err(|_panic| Failure::new(format!("cannot read {}", file.manifest.display())))??;
        Ok((image, gathered?))
    })
}

/// Reads the image, tells the sizes of its large files, and checks that the statement is about this manifest.
fn read_image(file: &ImageFile, sizes: &Telling<'_>) -> Result<ImageShown, Failure> {
    let mut large = HashMap::new();
    let contents = file.contents_with(|line| {
        if line.size() > READ_ANYWAY {
            large.insert(line.key(), line.size());
        }
    })?;
    if let Some(reason) = (file.says.as_ref()).and_then(|says| file.mismatch(says, &contents)) {
        return Err(show::another_manifest(file, &reason));
    }
    sizes.tell(large);
    let says = file.says.as_ref();
    Ok(ImageShown {
        name: says.map(|says| image_name(says).to_owned()),
        version: says.map(|says| says.predicate.version.clone()),
        tree: contents.facts.tree,
    })
}

/// The tree of what was found.
fn tree(gathered: &mut Gathered) -> Digest {
    Tree::from_leaves(gathered.take_leaves()).root()
}

fn check_signatures(
    file: &ImageFile,
    publishers: &[PathBuf],
    output: Output,
) -> Result<(), Failure> {
    let (envelope, _says) = file.required()?;
    if publishers.is_empty() {
        output.note("note: signatures are not checked; name the publisher's key with --publisher");
        return Ok(());
    }
    let keys = key::read_public(publishers)?;
    verify::signers(envelope, &keys, 1)
        .map(|_signers| ())
        .map_err(|reason| {
            Failure::new(format!("will not compare with {}", file.manifest.display()))
                .why(reason)
                .remedy("find out who made this image, or name the right key with --publisher")
                .code(Code::NotSo)
        })
}

/// Both sides are in manifest order. What lies at or below an unread path is not known, so it is no difference.
fn differences(image: &ImageFile, gathered: &mut Gathered) -> Result<Vec<Change>, Failure> {
    let unread: Vec<ImagePath> = (gathered.unread.iter())
        .map(|unread| unread.path.clone())
        .collect();
    let mut differences = Vec::new();
    let mut lines = image.lines()?;
    let mut found = gathered.sorted().iter().peekable();
    while let Some((path, line)) = lines.advance()? {
        while let Some((added, now)) =
            found.next_if(|(other, _)| other.cmp(&path) == Ordering::Less)
        {
            differences.push(Change::new(added.clone(), None, Some(now.clone())));
        }
        match found.next_if(|(other, _)| *other == path) {
            Some((_, now)) if *now == line => {}
            Some((_, now)) => differences.push(Change::new(path, Some(line), Some(now.clone()))),
            None if is_below(&path, &unread) => {}
            None => differences.push(Change::new(path, Some(line), None)),
        }
    }
    differences
        .extend(found.map(|(added, now)| Change::new(added.clone(), None, Some(now.clone()))));
    Ok(differences)
}

/// Whether a path, or a directory above it, is in the sorted list.
fn is_below(path: &ImagePath, sorted: &[ImagePath]) -> bool {
    let mut next = Some(path.clone());
    while let Some(here) = next {
        if sorted.binary_search(&here).is_ok() {
            return true;
        }
        next = here.parent();
    }
    false
}

fn scanned(gathered: &Gathered, tree: Digest, unexpected: &[Mount]) -> Scanned {
    let shown = |mount: &Mount| MountShown {
        path: mount.path.clone(),
        source: mount.source.clone(),
        r#type: mount.fstype.clone(),
        violation: unexpected.contains(mount),
    };
    Scanned {
        verdict: None,
        tree,
        entries: gathered.entries(),
        bytes: gathered.bytes,
        seconds: gathered.seconds,
        local: gathered.local,
        growing: gathered.growing,
        unreadable: gathered.unread.clone(),
        mounts: gathered.mounts.iter().map(shown).collect(),
        limits: gathered.limits.clone(),
        image: None,
        differences: None,
    }
}

fn tell(scanned: &Scanned, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.document(scanned);
    }
    if let Some(verdict) = &scanned.verdict {
        let colour = match verdict {
            Verdict::Pristine => Colour::Good,
            Verdict::Incomplete => Colour::Unsure,
            _ => Colour::Bad,
        };
        output.line(output.paint(colour, &verdict.to_string()))?;
    }
    output.stream(|out| {
        for difference in scanned.differences.iter().flatten() {
            writeln!(out, "{}", difference.change.text())?;
            if output.is_verbose() {
                for (what, line) in [
                    ("expected", &difference.change.expected),
                    ("found   ", &difference.change.found),
                ] {
                    writeln!(
                        out,
                        "    {what}  {}",
                        line.as_ref().map_or("nothing", |line| line.as_str())
                    )?;
                }
            }
        }
        for mount in scanned.mounts.iter().filter(|mount| mount.violation) {
            writeln!(
                out,
                "! {}  mount of {} ({})",
                mount.path,
                plain(&mount.source),
                plain(&mount.r#type)
            )?;
        }
        scanned
            .unreadable
            .iter()
            .try_for_each(|one| writeln!(out, "? {}  {}", one.path, plain(&one.error)))
    })?;
    output.line(summary(scanned))?;
    for limit in &scanned.limits {
        output.note(format_args!("note: {limit}"));
    }
    Ok(())
}

fn summary(scanned: &Scanned) -> String {
    let rate = if scanned.seconds > 0.0 {
        as_rate(scanned.bytes, scanned.seconds)
    } else {
        String::new()
    };
    let mut rows = vec![
        vec!["tree".to_owned(), scanned.tree.to_string()],
        vec!["entries".to_owned(), output::count(scanned.entries)],
        vec![
            "bytes".to_owned(),
            format!(
                "{} in {:.2} s{rate}",
                output::bytes(scanned.bytes),
                scanned.seconds
            ),
        ],
    ];
    if scanned.local + scanned.growing > 0 {
        rows.push(vec![
            "counted".to_owned(),
            format!(
                "{} local, {} growing, not compared",
                output::count(scanned.local),
                output::count(scanned.growing)
            ),
        ]);
    }
    if !scanned.unreadable.is_empty() {
        rows.push(vec![
            "unread".to_owned(),
            scanned.unreadable.len().to_string(),
        ]);
    }
    output::table(&rows)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people needs no exact figure"
)]
fn as_rate(bytes: u64, seconds: f64) -> String {
    format!(", {:.0} MB/s", bytes as f64 / seconds / 1e6)
}
