//! The thread that looks and signs: baseline, then events, rescans and heartbeats, each told in a statement.
//!
//! It alone changes the view of the root, so what it signs is one moment's view. It never waits for the network: what
//! it signs goes to the spool, what the uplink wants comes as orders.

mod afar;
mod baseline;
mod begin;
mod candidates;
mod gaps;
mod group;
mod kept;
mod looks;
mod marks;
mod mounts;
mod pace;
mod pins;
mod reports;
mod rolling;
mod rounds;
mod settings;
mod snapshot;
mod sweep;
mod tell;
mod touched;
mod wanted;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::path::ImagePath;
use attestation::statement::{Actor, AgentFacts, UnexpectedMount};
use attestation::time::Timestamp;

use self::afar::Afar;
use self::begin::{Beginning, Eyes};
use self::gaps::Gaps;
use self::group::Group;
use self::kept::Keeper;
use self::pins::Verifying;
use self::rolling::Rolling;
use self::sweep::{Occasion, Sweep};
use self::touched::TouchedSet;
use crate::actor::Attribution;
use crate::chain::Chain;
use crate::clock;
use crate::event::Observer;
use crate::image::Candidate;
use crate::limits::Pressure;
use crate::link::{Link, Orders};
use crate::monitor::{Action, Event, Monitor, Pace};
use crate::pins::PinBoard;
use crate::service::Service;
use crate::statement::Told;
use crate::status::{Board, State};
use crate::watch::{ForeignMount, Taken};

/// While a sweep runs its results are fetched this often.
const SWEEPING: Duration = Duration::from_millis(2);
/// And that of a large file that is read.
const AFAR: Duration = Duration::from_millis(20);
/// Paths with a live writer, and those that cannot be read, are looked at again this often.
const RECHECK: Duration = Duration::from_secs(30);
/// And so many of them.
const RECHECKED: usize = 256;
/// Subtrees that wait to be looked at; more than that is a rescan.
const SUBTREES: usize = 256;
/// Threads of a sweep: a rescan must not take a large machine whole.
const SWEEP_THREADS: usize = 8;

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
    /// The state directory, for the index and for snapshots.
    pub state: PathBuf,
    /// Threads of a scan; 0: as many as there are processors.
    pub threads: usize,
    /// How much of one processor, in percent, reading all content again may take; 0: it is not done.
    pub reread_cpu: f64,
    /// Whether command lines of actors are attested.
    pub cmdline: bool,
    /// What is asked of those who did something, and what was seen of logins.
    pub attribution: Attribution,
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

/// The engine; [`Engine::run`] is its thread.
pub struct Engine {
    parts: EngineParts,
    monitor: Monitor,
    eyes: Option<Eyes>,
    groups: Vec<Group>,
    /// What to compare with, kept while the root cannot be looked at.
    wanted: Option<Vec<Candidate>>,
    /// Images that are allowed and not compared with.
    uncompared: usize,
    blind_until: Option<Instant>,
    /// A view that is being read; until it is, the one that there is counts.
    beginning: Option<Beginning>,
    /// Whether this run had a view.
    viewed: bool,
    /// Keeps the index.
    keeper: Keeper,
    /// Reads all content again and again.
    rolling: Option<Rolling>,
    /// How long that takes for all of it within its budget, once that can be said.
    round_takes: Option<Duration>,
    /// Whether there is a view to speak of; before that nothing is signed.
    begun: bool,
    sweeps: Vec<Sweep>,
    subtrees: VecDeque<(usize, ImagePath, Occasion)>,
    /// Large files that are read beside everything else.
    afar: Afar,
    touched: TouchedSet,
    gaps: Gaps,
    since: Option<Timestamp>,
    read: Option<Timestamp>,
    last_good: Timestamp,
    mounts: Digest,
    unexpected: Vec<UnexpectedMount>,
    /// Who mounted last at a path, where the kernel tells.
    mounters: BTreeMap<ImagePath, Actor>,
    /// Mounts of other mount namespaces that may show other content.
    foreign: Vec<ForeignMount>,
    /// The statement that lists the differences, with image and version of them.
    told: Option<(Told, Digest, u64)>,
    /// What was last written of the whole view.
    snapshot: Option<snapshot::Made>,
    /// From when on no statement could be signed.
    unsigned_since: Option<Timestamp>,
    /// No statement was signed in this run.
    told_nothing: bool,
    recheck_at: Instant,
    /// Counts what was looked at then.
    rechecked: usize,
    /// The next rescan reads every content byte, not only what moved.
    reread: bool,
    /// Such a rescan runs since then.
    rereading: Option<Timestamp>,
    /// How it stands with the memory.
    pressure: Pressure,
    /// What is this node's own.
    pins: PinBoard,
    /// The pins of the run before were damaged.
    pins_renewed: bool,
    /// Why they cannot be kept on disk.
    pins_failing: Option<String>,
    /// Pinned content that is being read again, and the path read last.
    verifying: Option<Verifying>,
    verified: Option<ImagePath>,
}

impl Engine {
    /// An engine that waits for its first orders.
    pub fn new(parts: EngineParts) -> Self {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.rescan = shorter(parts.rescan, pace.rescan);
        let mut monitor = Monitor::new(pace, now);
        monitor.set_interval(shorter(parts.interval, parts.enrolled_interval));
        let keeper = Keeper::new(&parts.state);
        let (pins, pins_renewed) = pins::load(&parts.state);
        Self {
            parts,
            monitor,
            eyes: None,
            groups: Vec::new(),
            wanted: None,
            uncompared: 0,
            blind_until: None,
            beginning: None,
            viewed: false,
            keeper,
            rolling: None,
            round_takes: None,
            begun: false,
            sweeps: Vec::new(),
            subtrees: VecDeque::new(),
            afar: Afar::default(),
            touched: TouchedSet::default(),
            gaps: Gaps::default(),
            since: None,
            read: None,
            last_good: clock::now(),
            mounts: attestation::mounts::table_digest(&[]),
            unexpected: Vec::new(),
            mounters: BTreeMap::new(),
            foreign: Vec::new(),
            told: None,
            snapshot: None,
            unsigned_since: None,
            told_nothing: true,
            recheck_at: now + RECHECK,
            rechecked: 0,
            reread: false,
            rereading: None,
            pressure: Pressure::None,
            pins,
            pins_renewed,
            pins_failing: None,
            verifying: None,
            verified: None,
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
            self.finish_beginning();
            self.advance_sweeps();
            self.advance_afar();
            self.advance_rolling();
            self.recheck();
            self.act();
            self.keep_index();
        }
    }

    fn stop(&mut self) {
        self.parts
            .board
            .update(|status| status.state = State::Stopping);
        self.beginning = None;
        self.sweeps.clear();
        self.afar = Afar::default();
        self.keep_place();
        self.rolling = None;
        if self.begun {
            self.attest(false, true);
        }
        if let Some(eyes) = self.eyes.as_ref().filter(|_| self.begun) {
            self.keeper.finish(&eyes.root, &self.groups, Instant::now());
        }
        self.parts.link.set_waker(None);
    }

    fn obey(&mut self, orders: Orders) {
        let now = Instant::now();
        if let Some(interval) = orders.interval {
            self.parts.enrolled_interval = interval;
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
        if let Some(settings) = orders.settings {
            self.reload(settings);
        }
        if let Some(pressure) = orders.pressure {
            self.press(pressure);
        }
        if orders.retell {
            self.told = None;
            self.monitor.event(now, Event::Begun);
        }
        if orders.rescan {
            self.reread = true;
            self.monitor.event(now, Event::RescanWanted);
        }
        for (path, found) in orders.accepts {
            self.accept_pin(&path, found.as_ref());
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

    fn wait(&mut self) -> Option<Taken> {
        let now = Instant::now();
        let mut timeout = self.monitor.idle(now);
        if !self.sweeps.is_empty() || self.keeper.is_writing() {
            timeout = timeout.min(SWEEPING);
        }
        if self.afar.is_running() {
            timeout = timeout.min(AFAR);
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

    fn keep_index(&mut self) {
        if let Some(eyes) = self.eyes.as_ref().filter(|_| self.begun) {
            self.keeper
                .advance(&eyes.root, &self.groups, Instant::now());
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
}

fn shorter(own: Option<Duration>, collectors: Duration) -> Duration {
    own.map_or(collectors, |own| own.min(collectors))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
