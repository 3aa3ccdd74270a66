//! Beginning the view: the root is opened and watched, then read, for the images that are allowed now. The reading has
//! threads of its own; until it is over the engine goes on with the view that it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::mounts;
use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::time::Timestamp;

use super::afar::Afar;
use super::baseline::{Baseline, BaselineError, View};
use super::candidates;
use super::gaps::gap;
use super::group::Group;
use super::kept::{Known, Source};
use super::mounts::MOUNT;
use super::touched::Touch;
use super::{Engine, count};
use crate::clock;
use crate::event::AgentEvent;
use crate::image::Candidate;
use crate::monitor::Event;
use crate::scan::{Progress, Root, RootError, ScanError, Silence, within_time};
use crate::status::{BaselineStatus, State};
use crate::watch::{Watch, WatchError};

/// After the root could not be looked at.
const BLIND_RETRY: Duration = Duration::from_secs(30);
/// Marks on a root that a program or a network serves, or as many of them as it has directories, take so long at most: the
/// service manager waits longer for a sign of life.
const WATCHED: Duration = Duration::from_secs(30);
/// The first statement of a run waits so long for a challenge, to be fresh.
const FIRST_CHALLENGE: Duration = Duration::from_secs(2);

/// Why the root cannot be looked at.
#[derive(Debug, thiserror::Error)]
enum BlindError {
    #[error("open the root")]
    Root(#[from] RootError),
    #[error("watch the root")]
    Watch(#[from] WatchError),
    #[error("read the root")]
    Baseline(#[from] BaselineError),
    #[error("ask the file system of the root")]
    Silent(#[source] Silence),
    #[error("start the thread that reads the root")]
    Thread(#[source] std::io::Error),
}

/// The root as it is open and watched.
pub(super) struct Eyes {
    pub(super) root: Root,
    pub(super) watch: Watch,
    /// Digest of the scope that the watch was started with.
    scope: Digest,
}

/// Candidates by the digest of their scope.
type Scopes = BTreeMap<Digest, (Arc<Scope>, Vec<Candidate>)>;

/// A view that is being read.
pub(super) struct Beginning {
    /// What fires meanwhile waits in its watch, and is looked at after.
    eyes: Eyes,
    candidates: Vec<Candidate>,
    /// The first view of this run.
    first: bool,
    started: Timestamp,
    began: Instant,
    running: Running,
    /// What was read. Not the thread itself: it wakes the engine before it is over, and the engine may look before that.
    views: Receiver<Result<Vec<View>, BaselineError>>,
}

/// Dropped, it ends the reading.
struct Running(Arc<Progress>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Beginning {
    /// Whether the image that is attested still is one of those to come.
    pub(super) fn allows(&self, image: &Digest) -> bool {
        let mut candidates = self.candidates.iter();
        candidates.any(|candidate| candidate.reference.payload == *image)
    }

    pub(super) fn root(&self) -> &Root {
        &self.eyes.root
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub(super) fn runs_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

impl Engine {
    /// Begins the view anew: other images, or the first ones.
    pub(super) fn begin(&mut self) {
        let Some(allowed) = self.wanted.take() else {
            return;
        };
        let (candidates, others) = candidates::newest(allowed, |candidate| {
            let image = &candidate.reference.statement.predicate;
            (image.epoch, image.created)
        });
        self.uncompared = others;
        self.beginning = None;
        if candidates.is_empty() {
            self.begin_without_image();
            return;
        }
        if let Err(error) = self.begin_to_look(candidates.clone()) {
            self.blind(&error, candidates);
        }
    }

    /// Takes the new view in when it is read.
    pub(super) fn finish_beginning(&mut self) {
        let read = self.beginning.as_ref().map(|it| it.views.try_recv());
        let views = match read {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Err(TryRecvError::Disconnected)) => Err(ScanError::Worker.into()),
            Some(Ok(views)) => views,
        };
        let Some(Beginning {
            eyes,
            candidates,
            first,
            started,
            running: _running,
            ..
        }) = self.beginning.take()
        else {
            return;
        };
        match views {
            Ok(views) => self.take_over(eyes, first, started, views),
            Err(error) => self.blind(&error.into(), candidates),
        }
    }

    fn blind(&mut self, error: &BlindError, candidates: Vec<Candidate>) {
        self.forget_sweeps();
        if !self.parts.link.is_stopping() {
            let error = crate::journal::chain(error);
            tracing::error!(%error, root = %self.parts.root.display(), "cannot look at the root; nothing is attested");
            self.parts
                .board
                .update(|status| status.state = State::Blind);
            self.parts.observer.tell(AgentEvent::Blind { error });
        }
        self.begun = false;
        self.wanted = Some(candidates);
        self.blind_until = Some(Instant::now() + BLIND_RETRY);
    }

    fn begin_without_image(&mut self) {
        self.forget_sweeps();
        self.told = None;
        self.parts.link.set_waker(None);
        self.eyes = None;
        self.rolling = None;
        self.groups.clear();
        self.pins.rest();
        self.since = None;
        self.read = None;
        self.viewed = false;
        self.unexpected.clear();
        self.mounts = mounts::table_digest(&[]);
        self.begun = true;
        self.parts.board.update(|status| {
            status.state = State::Pending;
            status.image = None;
        });
        self.monitor.event(Instant::now(), Event::Begun);
    }

    fn forget_sweeps(&mut self) {
        self.sweeps.clear();
        self.subtrees.clear();
        self.afar = Afar::default();
        self.rereading = None;
    }

    /// Watch first, then scan; what fires in between waits in the watch and is looked at after.
    fn begin_to_look(&mut self, candidates: Vec<Candidate>) -> Result<(), BlindError> {
        if self.groups.is_empty() {
            self.parts
                .board
                .update(|status| status.state = State::Scanning);
        }
        let scopes = by_scope(&candidates);
        let started = clock::now();
        let eyes = self.open_eyes(&scopes)?;
        let work = self.work(&eyes.root, scopes);
        let first = !self.viewed;
        let progress = Arc::new(Progress::new());
        let baseline = Baseline {
            root: eyes.root.clone(),
            threads: self.parts.threads,
            observer: self.parts.observer.clone(),
            progress: Arc::clone(&progress),
            own: self.pins.known(),
            since: self
                .parts
                .facts
                .before
                .filter(|_| first)
                .map(|(issued, _)| issued),
            now: started,
        };
        let link = Arc::clone(&self.parts.link);
        let (done, views) = mpsc::sync_channel(1);
        let read = move || {
            let views = work
                .into_iter()
                .map(|(scope, candidates, source)| baseline.read(scope, candidates, source));
            // An engine that began anew meanwhile does not want them.
            done.send(views.collect()).ok();
            // Wakes the engine; there is nothing to order.
            link.order(|_| {});
        };
        std::thread::Builder::new()
            .name("baseline".to_owned())
            .spawn(read)
            .map_err(BlindError::Thread)?;
        self.beginning = Some(Beginning {
            eyes,
            candidates,
            first,
            started,
            began: Instant::now(),
            running: Running(progress),
            views,
        });
        Ok(())
    }

    /// What is to be read, with what is known of it.
    fn work(&self, root: &Root, scopes: Scopes) -> Vec<(Arc<Scope>, Vec<Candidate>, Source)> {
        let work = scopes.into_iter().map(|(digest, (scope, candidates))| {
            let view = self
                .groups
                .iter()
                .find(|group| self.begun && group.scope.digest() == digest);
            let source = match view {
                Some(group) => Source::View(Known::of(group)),
                None => self.keeper.source(root, &digest),
            };
            (scope, candidates, source)
        });
        work.collect()
    }

    /// From now on the new view is attested.
    fn take_over(&mut self, eyes: Eyes, first: bool, started: Timestamp, views: Vec<View>) {
        self.forget_sweeps();
        self.told = None;
        let same = |before: &Eyes| before.scope == eyes.scope;
        if !self.eyes.as_ref().is_some_and(same) {
            self.since = Some(started);
        }
        self.last_good = started;
        self.parts.link.set_waker(Some(eyes.watch.waker()));
        // The watch before ends only now: there is no moment without one.
        self.eyes = Some(eyes);
        let known = views.iter().map(|view| view.known).sum();
        let bytes = views.iter().map(|view| view.bytes).sum();
        if known == 0 {
            self.read = Some(started);
        } else if first {
            self.read = None;
        }
        let (mut groups, mut own) = (Vec::new(), Vec::new());
        for view in views {
            own.extend(view.own);
            groups.push(view.group);
            for path in view.touched {
                self.touched.add(&path, moved(started));
            }
        }
        keep_actors(&self.groups, &mut groups);
        self.groups = groups;
        let scopes: Vec<Arc<Scope>> = self.groups.iter().map(|it| Arc::clone(&it.scope)).collect();
        self.begin_pins(&scopes, own, started);
        self.keeper.begin(&self.groups);
        self.start_rolling();
        if first && let Some((issued, false)) = self.parts.facts.before {
            self.open_gap(gap(issued, started, "restart"));
        }
        // What happened before this scan began is seen by it.
        self.gaps
            .close(|gap| gap.cause == MOUNT || gap.to.is_some_and(|to| to <= started));
        self.begun = true;
        self.viewed = true;
        self.blind_until = None;
        self.check_mounts();
        self.tell_watching(known, bytes);
        crate::sys::give_back();
        self.await_challenge();
        self.monitor.event(Instant::now(), Event::Rescanned);
        self.monitor.event(Instant::now(), Event::Begun);
    }

    /// A collector that is there gives a challenge within milliseconds; one that is not is not waited for.
    fn await_challenge(&self) {
        let end = Instant::now() + FIRST_CHALLENGE;
        while self.told_nothing && !self.parts.link.is_stopping() {
            let now = Instant::now();
            if now >= end || self.parts.link.challenges(now) > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn open_eyes(&self, scopes: &Scopes) -> Result<Eyes, BlindError> {
        let everything;
        let (digest, scope) = match scopes.iter().next() {
            Some((digest, (scope, _))) if scopes.len() == 1 => (*digest, scope.as_ref()),
            // Different scopes: watch what any of them may seal.
            _ => {
                everything = Scope::sealed_all();
                (everything.digest(), &everything)
            }
        };
        let root = Root::open(&self.parts.root, scope)?;
        let watch = self.start_watch(&root, scope)?;
        Ok(Eyes {
            root,
            watch,
            scope: digest,
        })
    }

    /// A root that a program or a network serves is asked by a thread that can be given up.
    fn start_watch(&self, root: &Root, scope: &Scope) -> Result<Watch, BlindError> {
        let attribution = &self.parts.attribution;
        let Some(server) = root.server(b"") else {
            return Ok(Watch::start(root, &self.parts.root, scope, attribution)?);
        };
        let (again, path, scope, attribution) = (
            root.clone(),
            self.parts.root.clone(),
            scope.clone(),
            attribution.clone(),
        );
        let start = move || Watch::start(&again, &path, &scope, &attribution);
        Ok(within_time(server, WATCHED, start).map_err(BlindError::Silent)??)
    }

    fn tell_watching(&self, known: usize, bytes: u64) {
        let coverage = self.coverage();
        let now = clock::now();
        let nearest = self.nearest(now);
        let entries = nearest.map_or(0, |(group, _)| group.tree.len());
        let differences = nearest.map_or(0, |(_, compared)| compared.differences.len());
        let (entries, differences) = (count(entries), count(differences));
        tracing::info!(rung = %coverage.rung, entries, known, bytes, differences, "watching");
        for limit in &coverage.limits {
            tracing::info!(%limit, "standing limit of the watch");
        }
        self.parts.board.update(|status| {
            status.state = State::Watching;
            status.baseline = Some(BaselineStatus {
                entries,
                known: count(known),
                bytes,
            });
        });
        self.parts.observer.tell(AgentEvent::Watching {
            coverage,
            entries,
            differences,
        });
    }
}

fn by_scope(candidates: &[Candidate]) -> Scopes {
    let mut scopes = Scopes::new();
    for candidate in candidates.iter().cloned() {
        let scope = candidate.reference.statement.predicate.scope.clone();
        scopes
            .entry(scope.digest())
            .or_insert_with(|| (Arc::new(scope), Vec::new()))
            .1
            .push(candidate);
    }
    scopes
}

/// Its inode changed while nobody looked.
fn moved(at: Timestamp) -> Touch {
    Touch {
        events: vec!["ctime"],
        count: 1,
        first: at,
        last: at,
        actor: None,
        passed: false,
    }
}

/// A difference that was there before is still by whom and from when it was first seen.
fn keep_actors(before: &[Group], after: &mut [Group]) {
    let known = |path: &ImagePath| {
        before
            .iter()
            .flat_map(|group| &group.compared)
            .find_map(|compared| compared.differences.get(path))
    };
    for compared in after.iter_mut().flat_map(|group| &mut group.compared) {
        for (path, difference) in &mut compared.differences {
            if let Some(earlier) = known(path)
                && earlier.found == difference.found
            {
                difference.actor.clone_from(&earlier.actor);
                difference.at = earlier.at;
            }
        }
    }
}
