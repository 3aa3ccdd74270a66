//! A tree as it is now: the agent's scan, gathered in manifest order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use attestation::digest::Digest;
use attestation::entry::{Kind, Line};
use attestation::mounts::Mount;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use pristine_agent::scan::{self, Found, Hearer, Progress, Reading, Root, RootError, ScanOptions};
use serde::Serialize;

use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::progress;

/// A path that could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The path.
    pub path: ImagePath,
    /// The reason in words.
    pub error: String,
    /// What was expected there: only a sealed path makes a comparison incomplete.
    #[serde(skip)]
    pub expect: Expect,
}

/// What a scan found.
pub struct Gathered {
    /// The sealed entries, in no order.
    sealed: Vec<(ImagePath, Line)>,
    /// Key and leaf of each of them, in no order.
    leaves: Vec<(Digest, Digest)>,
    /// Number of `local` entries.
    pub local: u64,
    /// Number of `growing` entries.
    pub growing: u64,
    /// Sizes of the sealed files, added up.
    pub bytes: u64,
    /// What could not be read, or did not keep still, by path.
    pub unread: Vec<Unread>,
    /// The mounts under the root.
    pub mounts: Vec<Mount>,
    /// What this scan cannot see here, in words.
    pub limits: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Gathered {
    /// How many sealed entries there are.
    pub fn entries(&self) -> u64 {
        u64::try_from(self.sealed.len()).unwrap_or(u64::MAX)
    }

    /// The sealed entries in manifest order.
    pub fn sorted(&mut self) -> &mut Vec<(ImagePath, Line)> {
        self.sealed
            .sort_unstable_by(|one, other| one.0.cmp(&other.0));
        &mut self.sealed
    }

    /// The keys and leaves of the sealed entries, which make their tree.
    pub fn take_leaves(&mut self) -> Vec<(Digest, Digest)> {
        std::mem::take(&mut self.leaves)
    }

    /// Whether something sealed could not be read.
    pub fn is_whole(&self) -> bool {
        !self
            .unread
            .iter()
            .any(|unread| unread.expect == Expect::Sealed)
    }
}

/// What the scan's threads put together under one lock.
#[derive(Default)]
struct Heap {
    sealed: Vec<(ImagePath, Line)>,
    leaves: Vec<(Digest, Digest)>,
    local: u64,
    growing: u64,
    bytes: u64,
    unread: Vec<Unread>,
}

/// How a scan is made.
#[derive(Default)]
pub struct Manner<'a> {
    /// A file that keeps changing counts as unread, as nothing can be said of it, unless the line just read is good enough.
    pub takes_unsettled: bool,
    /// Sizes that are expected of files above [`READ_ANYWAY`], by the key of their path: the content of one with another size is not read,
    /// as it differs already.
    pub sizes: Option<&'a Sizes>,
    /// Told how far the scan has come; can stop it.
    pub progress: Option<&'a Progress>,
    /// Hears what is in small files, also in those that are only counted.
    pub hearer: Option<Hearer<'a>>,
}

/// Sizes that are not known yet when the scan begins: whoever asks waits for them.
#[derive(Default)]
pub struct Sizes(OnceLock<HashMap<Digest, u64>>);

/// Who tells them: when it is let go of they are none, so that nobody waits for ever.
pub struct Telling<'s>(&'s Sizes);

impl Sizes {
    /// For the one who tells them.
    pub fn telling(&self) -> Telling<'_> {
        Telling(self)
    }

    fn of(&self, path: &ImagePath) -> Option<u64> {
        self.0.wait().get(&path.key()).copied()
    }
}

impl Telling<'_> {
    /// These they are; only the first that are told count.
    pub fn tell(&self, sizes: HashMap<Digest, u64>) {
        self.0.0.get_or_init(|| sizes);
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.tell(HashMap::new());
    }
}

/// Up to this size a file is read even where its difference is certain: the digest helps to say what it is.
pub const READ_ANYWAY: u64 = 64 << 20;

/// Scans `root` under `scope`.
pub fn gather(
    root: &Path,
    scope: &Scope,
    manner: &Manner<'_>,
    output: Output,
) -> Result<Gathered, Failure> {
    let started = Instant::now();
    let opened = open(root, scope)?;
    let table = scan::mount_table(root).map_err(|error| {
        Failure::io(
            format!("cannot read the mount table below {}", root.display()),
            &error,
        )
    })?;
    let own = Progress::default();
    let progress = manner.progress.unwrap_or(&own);
    let heap = Mutex::new(Heap::default());
    let wanted = |path: &ImagePath, size: u64| is_wanted(scope, manner, path, size);
    let visit = |found: Found| put(&heap, found, manner.takes_unsettled);
    progress::shown(output, "reading", progress, || {
        scan::scan_heard(
            &opened,
            scope,
            &ScanOptions::default(),
            progress,
            &wanted,
            manner.hearer,
            &visit,
        )
    })
    .map_err(|error| Failure::new(format!("cannot scan {}", root.display())).because(&error))?;
    let mut heap = heap.into_inner().unwrap_or_else(PoisonError::into_inner);
    heap.unread
        .sort_unstable_by(|one, other| one.path.cmp(&other.path));
    Ok(Gathered {
        sealed: heap.sealed,
        leaves: heap.leaves,
        local: heap.local,
        growing: heap.growing,
        bytes: heap.bytes,
        unread: heap.unread,
        mounts: table,
        limits: opened.limits(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Content is read where it is compared, recorded or heard: not what is only counted, nor a large file whose size is wrong.
fn is_wanted(scope: &Scope, manner: &Manner<'_>, path: &ImagePath, size: u64) -> bool {
    if size > READ_ANYWAY
        && manner
            .sizes
            .is_some_and(|sizes| sizes.of(path) != Some(size))
    {
        return false;
    }
    scope.rules().is_empty()
        || manner.hearer.is_some_and(|hearer| size <= hearer.limit)
        || scope.decide(path).expect == Expect::Sealed
}

fn open(root: &Path, scope: &Scope) -> Result<Root, Failure> {
    let what = format!("cannot open {}", root.display());
    let error = match Root::open(root, scope) {
        Ok(opened) => return Ok(opened),
        // Nothing more is asked of it: the next question would not be answered either.
        Err(error @ RootError::Silent { .. }) => {
            return Err(Failure::new(what)
                .because(&error)
                .remedy("see to whoever serves that file system, or unmount it"));
        }
        Err(error) => error,
    };
    Err(match root.metadata() {
        Err(error) => Failure::io(what, &error).remedy("name the directory that holds the tree"),
        Ok(found) if !found.is_dir() => Failure::new(what)
            .why("it is not a directory")
            .remedy("name the directory that holds the tree"),
        Ok(_directory) => Failure::new(what).because(&error),
    })
}

fn put(heap: &Mutex<Heap>, found: Found, takes_unsettled: bool) {
    let expect = found.decision.expect;
    let ready = match found.reading {
        Reading::Absent => return,
        Reading::Unreadable { error } => Err(error),
        Reading::Unsettled(..) if !takes_unsettled => {
            Err("it was being written to while it was read".to_owned())
        }
        Reading::Entry(entry, _) | Reading::Unsettled(entry, _) => {
            let size = if let Kind::File { size, .. } = entry.kind {
                size
            } else {
                0
            };
            entry
                .line()
                .map(|line| (line, size))
                .map_err(|error| error.to_string())
        }
    };
    let leaf = match &ready {
        Ok((line, _)) if expect == Expect::Sealed => Some((found.path.key(), line.leaf())),
        _ => None,
    };
    let mut heap = heap.lock().unwrap_or_else(PoisonError::into_inner);
    heap.leaves.extend(leaf);
    match (ready, expect) {
        (Err(error), _) => heap.unread.push(Unread {
            path: found.path,
            error,
            expect,
        }),
        (Ok((line, size)), Expect::Sealed) => {
            heap.bytes = heap.bytes.saturating_add(size);
            heap.sealed.push((found.path, line));
        }
        (Ok(_), Expect::Local) => heap.local = heap.local.saturating_add(1),
        (Ok(_), Expect::Growing) => heap.growing = heap.growing.saturating_add(1),
        (Ok(_), Expect::Ignored) => {}
    }
}

/// The failure of a command that needs every file: the first few that could not be read.
pub fn unread_failure(what: &str, unread: &[Unread]) -> Failure {
    /// Enough to see the pattern; the rest is a number.
    const SHOWN: usize = 10;
    let mut listed: Vec<String> = unread
        .iter()
        .take(SHOWN)
        .map(|one| format!("\n  {}: {}", one.path, one.error))
        .collect();
    if unread.len() > SHOWN {
        listed.push(format!("\n  … and {} more", unread.len() - SHOWN));
    }
    Failure::new(what)
        .why(format!(
            "{} could not be read{}",
            paths(unread.len()),
            listed.concat()
        ))
        .remedy("run it as a user who may read them, or leave them out with a scope rule")
        .code(Code::NotDone)
}

fn paths(number: usize) -> String {
    if number == 1 {
        "1 path".to_owned()
    } else {
        format!("{number} paths")
    }
}
