//! The thread that looks and signs: baseline, then events, rescans and heartbeats, each told in a statement.
//!
//! It alone changes the view of the root, so what it signs is one moment's view. It never waits for the network: what
//! it signs goes to the spool, what the uplink wants comes as orders.

mod baseline;
mod group;
mod looks;
mod marks;
mod sweep;
mod tell;
mod touched;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::mounts;
use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::statement::{AgentFacts, Gap, Rung, UnexpectedMount, WatchCoverage};
use attestation::time::Timestamp;

use self::baseline::{Baseline, BaselineError};
use self::group::Group;
use self::sweep::{Occasion, Sweep};
use self::touched::{Touch, TouchedSet};
use crate::chain::Chain;
use crate::clock;
use crate::event::{AgentEvent, Observer};
use crate::image::Candidate;
use crate::link::{Link, Orders};
use crate::monitor::{Action, Event, Monitor, Pace};
use crate::scan::{Root, RootError, mount_table};
use crate::service::Service;
use crate::statement::Told;
use crate::status::{Board, State};
use crate::watch::{Taken, Watch, WatchError};

/// Images compared with at a time: the assigned one, the one before, and room for a hurried third.
const CANDIDATES: usize = 4;
/// While a sweep runs its results are fetched this often.
const SWEEPING: Duration = Duration::from_millis(2);
/// Paths with a live writer, and those that cannot be read, are looked at again this often.
const RECHECK: Duration = Duration::from_secs(30);
/// And so many of them.
const RECHECKED: usize = 256;
/// After the root could not be looked at.
const BLIND_RETRY: Duration = Duration::from_secs(30);
/// The first statement of a run waits so long for a challenge, to be fresh.
const FIRST_CHALLENGE: Duration = Duration::from_secs(2);
/// Subtrees that wait to be looked at; more than that is a rescan.
const SUBTREES: usize = 256;
/// Threads of a sweep: a rescan must not take a large machine whole.
const SWEEP_THREADS: usize = 8;
/// Gaps of one cause that follow each other are one; this many causes and places are enough to say.
const GAPS: usize = 64;

/// What the engine needs to know about its node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Origin of the collector's log.
    pub log: String,
    /// The kernel's boot id.
    pub boot: String,
    /// The program.
    pub agent: AgentFacts,
    /// When the last statement of the run before was issued, and whether it was a goodbye.
    pub before: Option<(Timestamp, bool)>,
}

/// What the engine is started with.
pub struct EngineParts {
    /// The attested root.
    pub root: PathBuf,
    /// Threads of a scan; 0: as many as there are processors.
    pub threads: usize,
    /// Whether command lines of actors are attested.
    pub cmdline: bool,
    /// A shorter interval than the collector's.
    pub interval: Option<Duration>,
    /// A shorter time between rescans than the default.
    pub rescan: Option<Duration>,
    /// Seconds between heartbeats, from enrolment.
    pub enrolled_interval: Duration,
    /// About the node.
    pub facts: Facts,
    /// Signs and keeps.
    pub chain: Arc<Chain>,
    /// To and from the uplink.
    pub link: Arc<Link>,
    /// What `status` shows.
    pub board: Board,
    /// Who is told.
    pub observer: Observer,
    /// The service manager.
    pub service: Arc<Service>,
}

/// Why the root cannot be looked at.
#[derive(Debug, thiserror::Error)]
enum BlindError {
    #[error("open the root")]
    Root(#[from] RootError),
    #[error("watch the root")]
    Watch(#[from] WatchError),
    #[error("read the root")]
    Baseline(#[from] BaselineError),
}

/// The root as it is open and watched.
struct Eyes {
    root: Root,
    watch: Watch,
    /// Digest of the scope that the watch was started with.
    scope: Digest,
}

/// The engine; [`Engine::run`] is its thread.
pub struct Engine {
    parts: EngineParts,
    monitor: Monitor,
    eyes: Option<Eyes>,
    groups: Vec<Group>,
    /// What to compare with, kept while the root cannot be looked at.
    wanted: Option<Vec<Candidate>>,
    blind_until: Option<Instant>,
    /// Whether there is a view to speak of; before that nothing is signed.
    begun: bool,
    sweeps: Vec<Sweep>,
    subtrees: VecDeque<(usize, ImagePath, Occasion)>,
    touched: TouchedSet,
    gaps: Vec<Gap>,
    since: Option<Timestamp>,
    read: Option<Timestamp>,
    last_good: Timestamp,
    mounts: Digest,
    unexpected: Vec<UnexpectedMount>,
    /// The statement that lists the differences, with image and version of them.
    told: Option<(Told, Digest, u64)>,
    /// From when on no statement could be signed.
    unsigned_since: Option<Timestamp>,
    /// The first statement after a start that nobody said goodbye before tells the gap; the next one closes it.
    restart_gap: bool,
    /// No statement was signed in this run.
    told_nothing: bool,
    recheck_at: Instant,
    /// The next rescan reads every content byte, not only what moved.
    reread: bool,
    /// Such a rescan runs since then.
    rereading: Option<Timestamp>,
}

impl Engine {
    /// An engine that waits for its first orders.
    pub fn new(parts: EngineParts) -> Self {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.rescan = shorter(parts.rescan, pace.rescan);
        let mut monitor = Monitor::new(pace, now);
        monitor.set_interval(shorter(parts.interval, parts.enrolled_interval));
        Self {
            parts,
            monitor,
            eyes: None,
            groups: Vec::new(),
            wanted: None,
            blind_until: None,
            begun: false,
            sweeps: Vec::new(),
            subtrees: VecDeque::new(),
            touched: TouchedSet::default(),
            gaps: Vec::new(),
            since: None,
            read: None,
            last_good: clock::now(),
            mounts: mounts::table_digest(&[]),
            unexpected: Vec::new(),
            told: None,
            unsigned_since: None,
            restart_gap: false,
            told_nothing: true,
            recheck_at: now + RECHECK,
            reread: false,
            rereading: None,
        }
    }

    /// Runs until it is told to stop; the last statement is a goodbye.
    pub fn run(mut self) {
        loop {
            let orders = self.parts.link.take_orders();
            if orders.stop {
                self.stop();
                return;
            }
            self.obey(orders);
            self.parts.service.alive();
            let taken = self.wait();
            self.take_in(taken);
            self.advance_sweeps();
            self.recheck();
            self.act();
        }
    }

    fn stop(&mut self) {
        self.parts
            .board
            .update(|status| status.state = State::Stopping);
        self.sweeps.clear();
        if self.begun {
            self.attest(false, true);
        }
        self.parts.link.set_waker(None);
    }

    fn obey(&mut self, orders: Orders) {
        let now = Instant::now();
        if let Some(interval) = orders.interval {
            self.monitor
                .set_interval(shorter(self.parts.interval, interval));
        }
        if !orders.gaps.is_empty() {
            for gap in orders.gaps {
                self.open_gap(gap);
            }
            self.monitor.event(now, Event::RescanWanted);
            self.monitor.event(now, Event::Begun);
        }
        if orders.retell {
            self.told = None;
            self.monitor.event(now, Event::Begun);
        }
        if orders.rescan {
            self.reread = true;
            self.monitor.event(now, Event::RescanWanted);
        }
        if orders.refresh {
            self.monitor.event(now, Event::Postponed);
        }
        if orders.ready || orders.refresh {
            self.monitor.event(now, Event::Ready);
        }
        if let Some(candidates) = orders.references {
            self.wanted = Some(candidates);
            self.blind_until = None;
        }
        if self.wanted.is_some() && self.blind_until.is_none_or(|until| until <= now) {
            self.begin();
        }
    }

    /// Begins the view anew: other images, or the first ones.
    fn begin(&mut self) {
        let Some(mut candidates) = self.wanted.take() else {
            return;
        };
        candidates.sort_by_key(|candidate| {
            let image = &candidate.reference.statement.predicate;
            std::cmp::Reverse((image.epoch, image.created))
        });
        if candidates.len() > CANDIDATES {
            tracing::warn!(
                allowed = candidates.len(),
                compared = CANDIDATES,
                "more images are allowed than are compared with"
            );
            candidates.truncate(CANDIDATES);
        }
        self.sweeps.clear();
        self.subtrees.clear();
        self.rereading = None;
        self.told = None;
        if candidates.is_empty() {
            self.begin_without_image();
            return;
        }
        match self.look_at_all(candidates.clone()) {
            Ok(()) => {
                self.blind_until = None;
                self.await_challenge();
                self.monitor.event(Instant::now(), Event::Rescanned);
                self.monitor.event(Instant::now(), Event::Begun);
            }
            Err(error) => {
                if !self.parts.link.is_stopping() {
                    let error = crate::journal::chain(&error);
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
        }
    }

    fn begin_without_image(&mut self) {
        self.parts.link.set_waker(None);
        self.eyes = None;
        self.groups.clear();
        self.since = None;
        self.read = None;
        self.unexpected.clear();
        self.mounts = mounts::table_digest(&[]);
        self.begun = true;
        self.parts.board.update(|status| {
            status.state = State::Pending;
            status.image = None;
        });
        self.monitor.event(Instant::now(), Event::Begun);
    }

    /// Watch first, then scan; what fires in between waits in the watch and is looked at after.
    fn look_at_all(&mut self, candidates: Vec<Candidate>) -> Result<(), BlindError> {
        self.parts
            .board
            .update(|status| status.state = State::Scanning);
        let mut scopes: BTreeMap<Digest, (Arc<Scope>, Vec<Candidate>)> = BTreeMap::new();
        for candidate in candidates {
            let scope = candidate.reference.statement.predicate.scope.clone();
            let digest = scope.digest();
            scopes
                .entry(digest)
                .or_insert_with(|| (Arc::new(scope), Vec::new()))
                .1
                .push(candidate);
        }
        let started = clock::now();
        self.open_eyes(&scopes, started)?;
        let Some(eyes) = &self.eyes else {
            return Ok(());
        };
        let first = self.read.is_none();
        let baseline = Baseline {
            root: &eyes.root,
            threads: self.parts.threads,
            link: &self.parts.link,
            observer: &self.parts.observer,
            service: &self.parts.service,
            since: self
                .parts
                .facts
                .before
                .filter(|_| first)
                .map(|(issued, _)| issued),
            now: started,
        };
        let mut groups = Vec::new();
        let mut moved = Vec::new();
        for (scope, candidates) in scopes.into_values() {
            let (group, touched) = baseline.read(scope, candidates)?;
            groups.push(group);
            moved.extend(touched);
        }
        keep_actors(&self.groups, &mut groups);
        self.groups = groups;
        for path in moved {
            let touch = Touch {
                events: vec!["ctime"],
                count: 1,
                first: started,
                last: started,
                actor: None,
            };
            self.touched.add(&path, touch);
        }
        if first && let Some((issued, goodbye)) = self.parts.facts.before {
            self.restart_gap = !goodbye;
            if self.restart_gap {
                self.open_gap(gap(issued, started, "restart"));
            }
        }
        // What was seen before this scan began is in it.
        self.gaps
            .retain(|gap| gap.cause == "restart" || gap.to.is_none_or(|to| to > started));
        self.read = Some(started);
        self.begun = true;
        self.check_mounts();
        self.tell_watching();
        crate::sys::give_back();
        Ok(())
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

    fn open_eyes(
        &mut self,
        scopes: &BTreeMap<Digest, (Arc<Scope>, Vec<Candidate>)>,
        started: Timestamp,
    ) -> Result<(), BlindError> {
        let everything;
        let (digest, scope) = match scopes.iter().next() {
            Some((digest, (scope, _))) if scopes.len() == 1 => (*digest, scope.as_ref()),
            // Different scopes: watch what any of them may seal.
            _ => {
                everything = Scope::sealed_all();
                (everything.digest(), &everything)
            }
        };
        if self.eyes.as_ref().is_some_and(|eyes| eyes.scope == digest) {
            return Ok(());
        }
        let root = Root::open(&self.parts.root, scope)?;
        let watch = Watch::start(&root, &self.parts.root, scope)?;
        self.parts.link.set_waker(Some(watch.waker()));
        // The watch before ends only now: there is no moment without one.
        self.eyes = Some(Eyes {
            root,
            watch,
            scope: digest,
        });
        self.since = Some(started);
        self.last_good = started;
        Ok(())
    }

    fn tell_watching(&self) {
        let coverage = self.coverage();
        let now = clock::now();
        let nearest = self.nearest(now);
        let entries = nearest.map_or(0, |(group, _)| group.tree.len());
        let differences = nearest.map_or(0, |(_, compared)| compared.differences.len());
        let (entries, differences) = (count(entries), count(differences));
        tracing::info!(rung = %coverage.rung, entries, differences, "watching");
        for limit in &coverage.limits {
            tracing::info!(%limit, "standing limit of the watch");
        }
        self.parts
            .board
            .update(|status| status.state = State::Watching);
        self.parts.observer.tell(AgentEvent::Watching {
            coverage,
            entries,
            differences,
        });
    }

    fn coverage(&self) -> WatchCoverage {
        let mut coverage = match &self.eyes {
            Some(eyes) => {
                let mut coverage = eyes.watch.coverage();
                for limit in eyes.root.limits() {
                    if !coverage.limits.contains(&limit) {
                        coverage.limits.push(limit);
                    }
                }
                coverage
            }
            None => WatchCoverage {
                rung: Rung::None,
                limits: Vec::new(),
                limits_total: None,
            },
        };
        if let Some(failing) = self.parts.chain.state().failing {
            coverage
                .limits
                .push(format!("the spool's disk takes no write: {failing}"));
        }
        coverage
    }

    fn wait(&mut self) -> Option<Taken> {
        let now = Instant::now();
        let mut timeout = self.monitor.idle(now);
        if !self.sweeps.is_empty() {
            timeout = timeout.min(SWEEPING);
        }
        if let Some(period) = self.parts.service.period() {
            timeout = timeout.min(period / 2);
        }
        if let Some(until) = self.blind_until {
            timeout = timeout.min(until.saturating_duration_since(now));
        }
        if !self.begun {
            // Heartbeats that are due are not signed: do not spin on them.
            timeout = timeout.max(Duration::from_millis(200));
        }
        match &self.eyes {
            Some(eyes) => Some(eyes.watch.take(timeout)),
            None => {
                self.parts.link.wait(timeout);
                None
            }
        }
    }

    fn act(&mut self) {
        // As many kinds of action as there are; one of each may be due.
        for _ in 0..3 {
            let now = Instant::now();
            match self.monitor.due(now) {
                None => break,
                Some(Action::Rescan) => self.start_rescan(),
                Some(_) if !self.begun => {
                    self.monitor.event(now, Event::Attested);
                }
                Some(Action::Attest) => self.attest(false, false),
                Some(Action::Heartbeat) => self.attest(true, false),
            }
        }
    }

    fn open_gap(&mut self, gap: Gap) {
        tracing::warn!(cause = %gap.cause, from = %gap.from, "gap");
        let same = self
            .gaps
            .iter_mut()
            .find(|open| open.cause == gap.cause && open.paths == gap.paths);
        if let Some(open) = same {
            open.from = open.from.min(gap.from);
            open.to = gap.to;
        } else if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        }
    }

    fn check_mounts(&mut self) {
        let Some((group, compared)) = self.nearest(clock::now()) else {
            return;
        };
        let table = match mount_table(&self.parts.root) {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(%error, "read the mount table");
                return;
            }
        };
        let image = &compared.candidate.reference.statement.predicate;
        let unexpected: Vec<UnexpectedMount> =
            mounts::unexpected(&table, &group.scope, &image.mounts)
                .into_iter()
                .map(|mount| UnexpectedMount {
                    path: mount.path,
                    source: mount.source,
                    r#type: mount.fstype,
                    actor: None,
                })
                .collect();
        let digest = mounts::table_digest(&table);
        if (&unexpected, digest) != (&self.unexpected, self.mounts) {
            self.unexpected = unexpected;
            self.mounts = digest;
            self.monitor.event(Instant::now(), Event::Changed);
        }
    }
}

/// A gap that is over, but not yet closed.
fn gap(from: Timestamp, to: Timestamp, cause: &str) -> Gap {
    Gap {
        from,
        to: Some(to),
        cause: cause.to_owned(),
        paths: Vec::new(),
        paths_total: None,
    }
}

fn shorter(own: Option<Duration>, collectors: Duration) -> Duration {
    own.map_or(collectors, |own| own.min(collectors))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
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
