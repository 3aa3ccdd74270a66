//! The first look at everything: what each scope seals is read and compared with the images of that scope. It runs beside
//! the engine, which goes on with the view it has. Of what is known from before only what moved is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::entry::{Entry, Kind, Line};
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect, Scope};
use attestation::statement::Difference;
use attestation::time::Timestamp;
use attestation::tree::Tree;

use super::group::{Compared, Group, Observed};
use super::kept::{Known, Source};
use super::marks::{Mark, Marks, Slot, short};
use super::pins::see;
use super::wanted::Wanted;
use crate::event::{AgentEvent, Observer};
use crate::image::{Candidate, LinesError};
use crate::pins::{Came, Seen, TRACKED, Tracked};
use crate::scan::{
    Extent, Found, Manner, Progress, Reading, Root, ScanError, ScanOptions, ScanSummary, Surveyed,
    Writers, scan_moved,
};

/// `local` and `growing` paths that are gathered; more are not even counted.
const CAME: usize = 2 * TRACKED;

/// Why there is no first view.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The scan ended early.
    #[error("scan the root")]
    Scan(#[from] ScanError),
    /// The lines of an image cannot be read.
    #[error("compare with the image")]
    Lines(#[from] LinesError),
}

/// What a baseline is made with.
pub(super) struct Baseline {
    pub(super) root: Root,
    pub(super) threads: usize,
    pub(super) observer: Observer,
    pub(super) progress: Arc<Progress>,
    /// What is known of `local` and `growing` paths.
    pub(super) own: BTreeMap<ImagePath, Tracked>,
    /// When the statement before was issued: what changed after it and is as expected was touched.
    pub(super) since: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// What a baseline came to, for one scope.
#[derive(Debug)]
pub(super) struct View {
    pub(super) group: Group,
    /// What is at `local` and `growing` paths.
    pub(super) own: Vec<Came>,
    /// Sealed paths whose inode changed since the statement before.
    pub(super) touched: Vec<ImagePath>,
    /// Entries that were known from before.
    pub(super) known: usize,
    /// Content bytes that were read.
    pub(super) bytes: u64,
}

/// What the scan threads gather.
#[derive(Default)]
struct Gathered {
    leaves: Vec<(Digest, Digest)>,
    marks: Vec<Slot>,
    unreadable: BTreeMap<ImagePath, String>,
    unsettled: BTreeSet<ImagePath>,
    /// For each image: lines that are not its own.
    differing: Vec<Vec<(ImagePath, Line)>>,
    touched: Vec<ImagePath>,
    own: Vec<Came>,
}

/// What the scan threads share.
struct Gathering<'b> {
    baseline: &'b Baseline,
    /// Of each image.
    trees: &'b [Tree],
    /// Paths of each image that are there.
    present: Vec<AtomicUsize>,
    /// What is known, and the number of this look at it.
    known: Option<(&'b Known, u32)>,
    passed: AtomicUsize,
    gathered: Mutex<Gathered>,
}

impl Baseline {
    /// Reads everything that the scope seals and that is not known.
    pub(super) fn read(
        &self,
        scope: Arc<Scope>,
        candidates: Vec<Candidate>,
        source: Source,
    ) -> Result<View, BaselineError> {
        let mut trees = Vec::new();
        for candidate in &candidates {
            trees.push(candidate.reference.tree()?);
        }
        let known = source.known();
        let round = known.as_ref().map_or(0, |known| known.marks.begin());
        let gathering = Gathering::new(self, &trees, known.as_ref().map(|known| (known, round)));
        let wanted = Wanted::of(Arc::clone(&scope), &candidates);
        let summary = self.scan(&scope, &wanted, &gathering)?;
        let Gathering {
            present,
            passed,
            gathered,
            ..
        } = gathering;
        let gathered = gathered
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let (tree, marks) = match known {
            Some(known) => known.completed(round, gathered.leaves, gathered.marks),
            None => (
                Tree::from_leaves(gathered.leaves),
                Marks::from_slots(gathered.marks),
            ),
        };
        let mut group = Group {
            scope,
            tree,
            marks,
            unreadable: gathered.unreadable,
            unsettled: gathered.unsettled,
            compared: Vec::new(),
        };
        let present = present.into_iter().map(AtomicUsize::into_inner);
        let images = trees.iter().zip(gathered.differing).zip(present);
        for (candidate, ((image, differing), present)) in candidates.into_iter().zip(images) {
            let compared = self.compare(&group, candidate, image, differing, present)?;
            group.compared.push(compared);
        }
        Ok(View {
            group,
            own: gathered.own,
            touched: gathered.touched,
            known: passed.into_inner(),
            bytes: summary.bytes,
        })
    }

    fn scan(
        &self,
        scope: &Scope,
        wanted: &Wanted,
        gathering: &Gathering<'_>,
    ) -> Result<ScanSummary, ScanError> {
        let mut options = ScanOptions {
            manner: Manner {
                from_storage: false,
                writers: Writers::Recent,
            },
            ..ScanOptions::default()
        };
        if self.threads > 0 {
            options.threads = self.threads;
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                    let (entries, bytes) = (self.progress.entries(), self.progress.bytes());
                    self.observer
                        .tell(AgentEvent::ScanProgress { entries, bytes });
                }
            });
            let scanned = scan_moved(
                &self.root,
                scope,
                &options,
                &self.progress,
                &|path, decision, stat| gathering.passes(path, decision, stat),
                &|path, size| wanted.content(path, size),
                &|found| gathering.take_in(found),
            );
            over.store(true, Ordering::Relaxed);
            scanned
        })
    }

    fn compare(
        &self,
        group: &Group,
        candidate: Candidate,
        image: &Tree,
        differing: Vec<(ImagePath, Line)>,
        present: usize,
    ) -> Result<Compared, BaselineError> {
        let mut compared = Compared::new(candidate);
        let lines = &compared.candidate.reference.lines;
        let mut differences = BTreeMap::new();
        let differ = |path: ImagePath, expected, found| Difference {
            path,
            expect: Expect::Sealed,
            expected,
            found,
            actor: None,
            at: self.now,
        };
        for (path, line) in differing {
            let expected = lines.find(&path)?;
            differences.insert(path.clone(), differ(path, expected, Some(line)));
        }
        if present != image.len() {
            lines.below(&ImagePath::root(), &mut |path, line| {
                if group.tree.get(&path.key()).is_none() {
                    differences.insert(path.clone(), differ(path, Some(line), None));
                }
            })?;
        }
        compared.differences = differences;
        Ok(compared)
    }
}

impl<'b> Gathering<'b> {
    fn new(baseline: &'b Baseline, trees: &'b [Tree], known: Option<(&'b Known, u32)>) -> Self {
        // As many as the largest image has: a vector that grows by doubling holds half again at the worst moment.
        let entries = match known {
            Some(_) => 0,
            None => trees.iter().map(Tree::len).max().unwrap_or(0),
        };
        let gathered = Gathered {
            leaves: Vec::with_capacity(entries),
            marks: Vec::with_capacity(entries),
            differing: vec![Vec::new(); trees.len()],
            ..Gathered::default()
        };
        Self {
            baseline,
            trees,
            present: trees.iter().map(|_| AtomicUsize::new(0)).collect(),
            known,
            passed: AtomicUsize::new(0),
            gathered: Mutex::new(gathered),
        }
    }

    /// Whether what is known of a path from before stands, and is as all images have it: of what differs the line is
    /// needed.
    fn passes(&self, path: &ImagePath, decision: Decision, stat: &Surveyed) -> bool {
        if decision.expect == Expect::Growing {
            return self.passes_own(path, decision, stat);
        }
        let Some((known, round)) = self.known else {
            return false;
        };
        if decision.expect != Expect::Sealed {
            return false;
        }
        let key = path.key();
        let leaf = known.tree.get(&key);
        if leaf.is_none() || self.trees.iter().any(|tree| tree.get(&key) != leaf) {
            return false;
        }
        let mark = Mark::surveyed(stat);
        if !known.marks.pass_unmoved(&short(&key), round, &mark) {
            return false;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        for present in &self.present {
            present.fetch_add(1, Ordering::Relaxed);
        }
        if self.changed_since(&mark) {
            self.lock().touched.push(path.clone());
        }
        true
    }

    /// One object that was read. Only what differs is kept as text.
    fn take_in(&self, found: Found) {
        match found.decision.expect {
            Expect::Sealed => {}
            Expect::Local | Expect::Growing => return self.take_in_own(found),
            Expect::Ignored => return,
        }
        let key = found.path.key();
        let observed = Observed::of(found.reading, self.baseline.now);
        let leaf = observed.line.as_ref().map(Line::leaf);
        let expected: Vec<Option<Digest>> = self.trees.iter().map(|tree| tree.get(&key)).collect();
        if let Some(error) = observed.error {
            self.lock().unreadable.insert(found.path, error);
            return;
        }
        let (Some(line), Some(leaf), Some(mark)) = (observed.line, leaf, observed.mark) else {
            return;
        };
        for (present, expected) in self.present.iter().zip(&expected) {
            present.fetch_add(usize::from(expected.is_some()), Ordering::Relaxed);
        }
        let mut gathered = self.lock();
        gathered.leaves.push((key, leaf));
        gathered.marks.push(Slot::new(short(&key), mark));
        if observed.unsettled {
            gathered.unsettled.insert(found.path.clone());
        }
        let mut as_expected = !expected.is_empty();
        for (differing, expected) in gathered.differing.iter_mut().zip(&expected) {
            if *expected != Some(leaf) {
                as_expected = false;
                differing.push((found.path.clone(), line.clone()));
            }
        }
        if as_expected && self.changed_since(&mark) {
            gathered.touched.push(found.path);
        }
    }

    /// A growing file that has not moved since its hash was kept.
    fn passes_own(&self, path: &ImagePath, decision: Decision, stat: &Surveyed) -> bool {
        let known = self.baseline.own.get(path);
        let unmoved = known.filter(|known| {
            known.fingerprint == Some(stat.fingerprint) && known.tail.is_some() && !known.again
        });
        let Some(known) = unmoved else { return false };
        let seen = Seen {
            line: known.found.clone(),
            fingerprint: known.fingerprint,
            tail: known.tail.clone(),
            kept: true,
            ..Seen::default()
        };
        self.came(path.clone(), decision, seen);
        true
    }

    /// One object at a `local` or `growing` path. A growing file was not read yet: whoever reads it keeps the state of the hash.
    fn take_in_own(&self, found: Found) {
        let Found {
            path,
            decision,
            reading,
        } = found;
        if self.lock().own.len() >= CAME {
            return;
        }
        let is_file = |entry: &Entry| matches!(entry.kind, Kind::File { .. });
        let seen = match (decision.expect, &reading) {
            (Expect::Growing, Reading::Entry(entry, _) | Reading::Unsettled(entry, _))
                if is_file(entry) =>
            {
                let known = self.baseline.own.get(&path);
                let tail = known.and_then(|known| known.tail.as_ref());
                see(&self.baseline.root, &path, decision, tail, Extent::Whole)
            }
            _ => Seen::of(reading),
        };
        self.came(path, decision, seen);
    }

    fn came(&self, path: ImagePath, decision: Decision, seen: Seen) {
        self.lock().own.push(Came {
            path,
            decision,
            seen,
        });
    }

    fn changed_since(&self, mark: &Mark) -> bool {
        let since = self.baseline.since;
        since.is_some_and(|since| mark.changed_after(since))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
