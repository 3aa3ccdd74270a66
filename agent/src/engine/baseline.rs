//! The first look at everything: what each scope seals is read once and compared with the images of that scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Scope};
use attestation::statement::Difference;
use attestation::time::Timestamp;
use attestation::tree::Tree;

use super::group::{Compared, Group, Observed};
use super::marks::{Marks, Slot, short};
use crate::event::{AgentEvent, Observer};
use crate::image::{Candidate, LinesError};
use crate::link::Link;
use crate::scan::{Found, Progress, Root, ScanError, ScanOptions, scan};
use crate::service::Service;

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
pub(super) struct Baseline<'a> {
    pub(super) root: &'a Root,
    pub(super) threads: usize,
    pub(super) link: &'a Link,
    pub(super) observer: &'a Observer,
    pub(super) service: &'a Service,
    /// When the statement before was issued: what changed after it and is as expected was touched.
    pub(super) since: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// What the scan threads gather.
#[derive(Default)]
struct Gathered {
    leaves: Vec<(Digest, Digest)>,
    marks: Vec<Slot>,
    unreadable: BTreeMap<ImagePath, String>,
    unsettled: BTreeSet<ImagePath>,
    /// For each image: lines that are not its own, and how many of its paths were there.
    differing: Vec<(Vec<(ImagePath, Line)>, usize)>,
    touched: Vec<ImagePath>,
}

impl Baseline<'_> {
    /// Reads everything that the scope seals; returns the view, and the sealed paths whose inode changed since.
    pub(super) fn read(
        &self,
        scope: Arc<Scope>,
        candidates: Vec<Candidate>,
    ) -> Result<(Group, Vec<ImagePath>), BaselineError> {
        let mut trees = Vec::new();
        for candidate in &candidates {
            trees.push(Tree::from_leaves(candidate.reference.lines.leaves()?));
        }
        // As many as the largest image has: a vector that grows by doubling holds half again at the worst moment.
        let entries = trees.iter().map(Tree::len).max().unwrap_or(0);
        let gathered = Mutex::new(Gathered {
            leaves: Vec::with_capacity(entries),
            marks: Vec::with_capacity(entries),
            differing: vec![(Vec::new(), 0); candidates.len()],
            ..Gathered::default()
        });
        self.scan(&scope, &|found| {
            self.take_in(&gathered, &trees, found);
        })?;
        let gathered = gathered
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut group = Group {
            scope,
            tree: Tree::from_leaves(gathered.leaves),
            marks: Marks::from_slots(gathered.marks),
            unreadable: gathered.unreadable,
            unsettled: gathered.unsettled,
            compared: Vec::new(),
        };
        for ((candidate, image), (differing, present)) in
            candidates.into_iter().zip(&trees).zip(gathered.differing)
        {
            let compared = self.compare(&group, candidate, image, differing, present)?;
            group.compared.push(compared);
        }
        Ok((group, gathered.touched))
    }

    fn scan(&self, scope: &Scope, visit: &(dyn Fn(Found) + Sync)) -> Result<(), ScanError> {
        let mut options = ScanOptions::default();
        if self.threads > 0 {
            options.threads = self.threads;
        }
        let progress = Progress::new();
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                    self.service.alive();
                    let (entries, bytes) = (progress.entries(), progress.bytes());
                    self.observer
                        .tell(AgentEvent::ScanProgress { entries, bytes });
                    if self.link.is_stopping() {
                        progress.stop();
                    }
                }
            });
            let scanned = scan(self.root, scope, &options, &progress, visit);
            over.store(true, Ordering::Relaxed);
            scanned.map(drop)
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

    /// One object that the scan came by; called from its threads. Only what differs is kept as text.
    fn take_in(&self, gathered: &Mutex<Gathered>, trees: &[Tree], found: Found) {
        if found.decision.expect != Expect::Sealed {
            return;
        }
        let key = found.path.key();
        let observed = Observed::of(found.reading, self.now);
        let leaf = observed.line.as_ref().map(Line::leaf);
        let expected: Vec<Option<Digest>> = trees.iter().map(|tree| tree.get(&key)).collect();
        let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = observed.error {
            gathered.unreadable.insert(found.path, error);
            return;
        }
        let (Some(line), Some(leaf), Some(mark)) = (observed.line, leaf, observed.mark) else {
            return;
        };
        gathered.leaves.push((key, leaf));
        gathered.marks.push(Slot::new(short(&key), mark));
        if observed.unsettled {
            gathered.unsettled.insert(found.path.clone());
        }
        let mut as_expected = !expected.is_empty();
        for (image, expected) in expected.iter().enumerate() {
            let Some((differing, present)) = gathered.differing.get_mut(image) else {
                continue;
            };
            *present += usize::from(expected.is_some());
            if *expected != Some(leaf) {
                as_expected = false;
                differing.push((found.path.clone(), line.clone()));
            }
        }
        if as_expected && self.since.is_some_and(|since| mark.changed_after(since)) {
            gathered.touched.push(found.path);
        }
    }
}
