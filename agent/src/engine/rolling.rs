//! Reading all content again and again, from storage, beside everything else: what no event and no metadata tells is
//! found so, and how old the oldest reading is can be said.
//!
//! A thread with the lowest claims reads what the engine gives it, at the pace of [`super::pace`]; what is as it was it
//! keeps to itself. The engine knows the order ([`super::rounds`]) and takes differences in as it does a sweep's.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::Decision;
use attestation::time::Timestamp;

use super::Engine;
use super::group::{Group, Observed};
use super::marks::{Mark, short};
use super::pace::Pacer;
use super::rounds::{Place, Rounds};
use super::sweep::{CLOSELY, Swept, There};
use super::wanted::Wanted;
use crate::image::LinesError;
use crate::link::Link;
use crate::scan::{Progress, Root, read_entries};
use crate::{clock, sys};

/// Paths given to the thread at a time.
const BATCH: usize = 512;
/// Where reading stands is kept this often.
const KEPT: Duration = Duration::from_secs(600);
/// An entry counts as so many bytes beside its content.
const ENTRY: u64 = 4096;

/// What is known of a path that is to be read again.
struct Known {
    key: Digest,
    leaf: Option<Digest>,
    mark: Option<Mark>,
}

struct Batch {
    items: Vec<(ImagePath, Decision, Known)>,
    wanted: Wanted,
    started: Timestamp,
    /// Bytes of the round that begins with this batch, and whether it is the first of this run.
    round: Option<(u64, bool)>,
}

enum Outcome {
    /// It is not as it was.
    Differs(Swept),
    /// The batch is read; how long a round takes within the budget.
    Done(Option<Duration>),
}

/// The pace, shared with the thread; whoever drops the reading ends the rest.
struct Rest {
    state: Mutex<(Pacer, bool)>,
    bell: Condvar,
    since: Instant,
}

/// The running reading.
pub(super) struct Rolling {
    rounds: Rounds,
    /// The batch that is being read: of which group, and through where.
    reading: Option<(usize, Place)>,
    batches: SyncSender<Batch>,
    outcomes: Receiver<Outcome>,
    progress: Arc<Progress>,
    rest: Arc<Rest>,
    kept: Instant,
    /// The round begins with the next batch.
    round_begins: bool,
}

impl Drop for Rolling {
    fn drop(&mut self) {
        self.progress.stop();
        self.rest.lock().1 = true;
        self.rest.bell.notify_all();
    }
}

impl Rest {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Pacer, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when reading may go on; called by the thread that reads.
    fn after(&self, bytes: u64) {
        let mut bytes = bytes;
        let mut state = self.lock();
        while !state.1 {
            let rest = state.0.rest(self.since.elapsed(), used(), bytes);
            if rest.is_zero() {
                return;
            }
            bytes = 0;
            state = self
                .bell
                .wait_timeout(state, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Processor time of this thread.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

impl Rolling {
    fn start(root: Root, percent: f64, after: Place, link: Arc<Link>) -> std::io::Result<Self> {
        let (batches, given) = sync_channel(1);
        // A batch and its end at most: the thread never waits for the engine.
        let (found, outcomes) = sync_channel(BATCH + 1);
        let rest = Arc::new(Rest {
            state: Mutex::new((Pacer::new(percent, Duration::ZERO, Duration::ZERO), false)),
            bell: Condvar::new(),
            since: Instant::now(),
        });
        let pace = Arc::clone(&rest);
        let progress = Arc::new(Progress::paced(Box::new(move |bytes| pace.after(bytes))));
        let thread = Reader {
            root,
            progress: Arc::clone(&progress),
            rest: Arc::clone(&rest),
            found,
            link,
        };
        std::thread::Builder::new()
            .name("reread".to_owned())
            .spawn(move || thread.run(&given))?;
        Ok(Self {
            rounds: Rounds::after(after),
            reading: None,
            batches,
            outcomes,
            progress,
            rest,
            kept: Instant::now(),
            round_begins: true,
        })
    }
}

/// What the thread needs.
struct Reader {
    root: Root,
    progress: Arc<Progress>,
    rest: Arc<Rest>,
    found: SyncSender<Outcome>,
    link: Arc<Link>,
}

impl Reader {
    fn run(&self, batches: &Receiver<Batch>) {
        if let Err(error) = sys::give_way() {
            tracing::debug!(%error, "content is read again with the weight of everything else");
        }
        while let Ok(batch) = batches.recv() {
            if let Some((total, hurry)) = batch.round {
                let now = self.rest.since.elapsed();
                self.rest.lock().0.round(total, hurry, now);
            }
            let (started, wanted) = (batch.started, batch.wanted);
            let want = |path: &ImagePath, size| wanted.content(path, size);
            let items = batch.items;
            read_entries(
                &self.root,
                items,
                CLOSELY,
                &self.progress,
                &want,
                |found, known| {
                    self.rest.after(ENTRY);
                    let observed = Observed::of(found.reading, started);
                    if let Some(there) = differing(&observed, &known) {
                        let swept = Swept {
                            path: found.path,
                            key: known.key,
                            there,
                        };
                        // Nobody wants it any more when this fails.
                        drop(self.found.send(Outcome::Differs(swept)));
                        self.wake();
                    }
                },
            );
            // Also where there was nothing to read.
            self.rest.after(0);
            if self.progress.is_stopped() {
                return;
            }
            let takes = self.rest.lock().0.round_takes();
            drop(self.found.send(Outcome::Done(takes)));
            self.wake();
        }
    }

    /// Wakes the engine; there is nothing to order.
    fn wake(&self) {
        self.link.order(|_| {});
    }
}

/// What is there, where that is not what is known.
fn differing(observed: &Observed, known: &Known) -> Option<There> {
    if observed.unsettled {
        return Some(There::Unsettled);
    }
    let leaf = observed.line.as_ref().map(Line::leaf);
    match leaf.zip(observed.mark) {
        Some((leaf, mark)) if (Some(leaf), Some(mark)) == (known.leaf, known.mark) => None,
        Some((leaf, mark)) => Some(There::Read(leaf, mark)),
        None if observed.error.is_none() && known.leaf.is_none() => None,
        None => Some(There::Unreadable),
    }
}

impl Engine {
    /// Begins to read everything again; a reading before, of another view, is over.
    pub(super) fn start_rolling(&mut self) {
        let after = self.rolling.take().map_or_else(
            || kept_place(&self.place_file()),
            |before| before.rounds.next().clone(),
        );
        let Some(eyes) = &self.eyes else { return };
        if self.parts.reread_cpu <= 0.0 {
            return;
        }
        // A path may lie in another scope now: it is only where reading begins.
        let after = after.filter(|(group, _)| *group < self.groups.len());
        let link = Arc::clone(&self.parts.link);
        match Rolling::start(eyes.root.clone(), self.parts.reread_cpu, after, link) {
            Ok(rolling) => self.rolling = Some(rolling),
            Err(error) => tracing::error!(%error, "start the thread that reads content again"),
        }
    }

    /// Takes in what was read again, and gives more to read.
    pub(super) fn advance_rolling(&mut self) {
        if !self.begun {
            return;
        }
        let Some(mut rolling) = self.rolling.take() else {
            return;
        };
        loop {
            match rolling.outcomes.try_recv() {
                Ok(Outcome::Differs(swept)) => {
                    if let Some((group, _)) = rolling.reading {
                        self.take_in_swept(group, &swept, None);
                    }
                }
                Ok(Outcome::Done(takes)) => {
                    self.round_takes = takes;
                    self.batch_is_read(&mut rolling);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    tracing::error!("the thread that reads content again has ended");
                    return;
                }
            }
        }
        if rolling.reading.is_none() {
            self.give_batch(&mut rolling);
        }
        self.rolling = Some(rolling);
    }

    /// Where reading stands is kept: the next run goes on from there.
    pub(super) fn keep_place(&self) {
        if let Some(rolling) = &self.rolling {
            let text = match rolling.rounds.next() {
                Some((group, path)) => format!("{group} {path}\n"),
                None => String::new(),
            };
            // Lost or torn, reading begins with the first path.
            if let Err(error) = std::fs::write(self.place_file(), text) {
                tracing::debug!(%error, "keep where reading stands");
            }
        }
    }

    fn place_file(&self) -> PathBuf {
        self.parts.state.join("reread")
    }

    fn batch_is_read(&mut self, rolling: &mut Rolling) {
        let Some((_, through)) = rolling.reading.take() else {
            return;
        };
        rolling.round_begins = through.is_none();
        rolling.rounds.read_through(through);
        if let Some(oldest) = rolling.rounds.oldest() {
            // A reading of everything at once may be newer.
            self.read = Some(self.read.map_or(oldest, |read| read.max(oldest)));
        }
        if rolling.kept.elapsed() >= KEPT {
            rolling.kept = Instant::now();
            self.keep_place();
        }
    }

    fn give_batch(&mut self, rolling: &mut Rolling) {
        let (number, after) = match rolling.rounds.next() {
            Some((number, path)) => (*number, Some(path.clone())),
            None => (0, None),
        };
        let Some(group) = self.groups.get(number) else {
            return;
        };
        let paths = match paths_after(group, after.as_ref()) {
            Ok(paths) => paths,
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(%error, "read the lines of the image");
                return;
            }
        };
        let through = match paths.last() {
            Some(last) => Some((number, last.clone())),
            // The next scope; its root has no content.
            None if number + 1 < self.groups.len() => Some((number + 1, ImagePath::root())),
            None => None,
        };
        let started = clock::now();
        rolling.rounds.begin(started);
        let known = |path: ImagePath| {
            let key = path.key();
            let known = Known {
                key,
                leaf: group.tree.get(&key),
                mark: group.marks.get(&short(&key)),
            };
            let decision = group.scope.decide(&path);
            (path, decision, known)
        };
        let batch = Batch {
            items: paths.into_iter().map(known).collect(),
            wanted: Wanted::in_group(group),
            started,
            round: rolling
                .round_begins
                // Until something can be said of this run the first round is made as fast as the budget allows.
                .then(|| (self.bytes_of_round(), self.read.is_none())),
        };
        if rolling.batches.try_send(batch).is_ok() {
            rolling.reading = Some((number, through));
        }
    }

    /// By what the images say; what differs from them is not counted.
    fn bytes_of_round(&self) -> u64 {
        let bytes = self.groups.iter().flat_map(|group| {
            let compared = group.compared.iter();
            compared
                .map(|compared| {
                    let image = &compared.candidate.reference.statement.predicate;
                    image
                        .bytes
                        .saturating_add(image.entries.saturating_mul(ENTRY))
                })
                .max()
        });
        bytes.fold(0, u64::saturating_add)
    }
}

/// The next paths in order that are there as far as is known: those of the images, and what was found beside them.
fn paths_after(group: &Group, after: Option<&ImagePath>) -> Result<Vec<ImagePath>, LinesError> {
    let mut paths = Vec::new();
    for compared in &group.compared {
        let lines = &compared.candidate.reference.lines;
        paths.extend(lines.after(after, BATCH)?);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = compared
            .differences
            .range((from, Bound::Unbounded))
            .filter(|(_, difference)| difference.found.is_some())
            .take(BATCH);
        paths.extend(found.map(|(path, _)| path.clone()));
    }
    paths.sort_unstable();
    paths.dedup();
    paths.truncate(BATCH);
    Ok(paths)
}

/// Where an earlier run stood.
fn kept_place(file: &Path) -> Place {
    let text = std::fs::read_to_string(file).ok()?;
    let (group, path) = text.trim_end_matches('\n').split_once(' ')?;
    Some((group.parse().ok()?, ImagePath::parse(path).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(content: &str) -> Option<Line> {
        let (size, digest) = (content.len(), Digest::of(content.as_bytes()));
        let line = format!("./a type=file mode=0644 uid=0 gid=0 size={size} sha256digest={digest}");
        Line::parse(&line).ok()
    }

    fn observed(line: Option<Line>) -> Observed {
        let mark = line.is_some().then(|| Mark::at(1));
        Observed {
            line,
            mark,
            error: None,
            unsettled: false,
        }
    }

    fn known(line: Option<&Line>) -> Known {
        Known {
            key: Digest::ZERO,
            leaf: line.map(Line::leaf),
            mark: line.map(|_| Mark::at(1)),
        }
    }

    #[test]
    fn other_content_differs_though_statx_says_that_nothing_changed() {
        let (old, new) = (line("old"), line("new"));
        let there = differing(&observed(new.clone()), &known(old.as_ref()));
        let read = new.as_ref().map(Line::leaf);
        assert!(
            matches!(there, Some(There::Read(leaf, mark)) if Some(leaf) == read && mark == Mark::at(1)),
            "{there:?}"
        );
        assert!(differing(&observed(old.clone()), &known(old.as_ref())).is_none());
    }

    #[test]
    fn what_came_went_has_a_writer_or_cannot_be_read_differs() {
        let there = line("content");
        let came = differing(&observed(there.clone()), &known(None));
        assert!(matches!(came, Some(There::Read(..))), "{came:?}");
        let gone = differing(&observed(None), &known(there.as_ref()));
        assert!(matches!(gone, Some(There::Unreadable)), "{gone:?}");
        assert!(differing(&observed(None), &known(None)).is_none());
        let written = Observed {
            unsettled: true,
            ..observed(there.clone())
        };
        let written = differing(&written, &known(there.as_ref()));
        assert!(matches!(written, Some(There::Unsettled)), "{written:?}");
        let failed = Observed {
            error: Some("EIO".to_owned()),
            ..observed(None)
        };
        for before in [there.as_ref(), None] {
            let failed = differing(&failed, &known(before));
            assert!(matches!(failed, Some(There::Unreadable)), "{failed:?}");
        }
    }
}
