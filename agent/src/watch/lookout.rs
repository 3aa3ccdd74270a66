//! What no event of a file tells: mounts, clocks, sleep, mappings, other mount namespaces, and whether the watch works.
//!
//! A thread of its own waits for what the kernel tells of these at once, and looks every minute for what it does not tell.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use attestation::statement::{Actor, Confidence};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::board::Board;
use super::canary::{Attempt, Canaries, Change, Nest};
use super::clock::{self, StepTimer};
use super::keys::inode_key;
use super::mappings::mapped;
use super::mounts::{self, MountEvents};
use super::namespaces;
use super::report::{ForeignMount, Report};
use crate::actor::Observer;
use crate::clock::now as wall;
use crate::scan::{Filesystem, Root, handle_key, mount_lines};
use crate::sys;

/// Between looks at what the kernel does not tell.
const MINUTE: Duration = Duration::from_secs(60);
/// While a test write is on its way it is asked for this often.
const CANARY_TICK: Duration = Duration::from_millis(100);
/// Looks that are asked for follow each other by no less than this.
const AT_LEAST: Duration = Duration::from_secs(5);

/// What the events of the watch call a test file by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// Its handle, or without one its inode.
    Handle,
    /// The name that the kernel makes up for it.
    Name,
}

/// The running thread; it ends when dropped.
#[derive(Debug)]
pub(super) struct Lookout {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    bell: OwnedFd,
    ended: AtomicBool,
    /// What cannot be looked at for as long as this watch lasts.
    standing: Vec<String>,
    /// Not every mount namespace could be looked into the last time.
    namespaces_left: AtomicBool,
    /// What the test writes say at the moment.
    nests: Mutex<Vec<String>>,
    /// Every test write of a round came back, or none could be made.
    heard: AtomicBool,
}

impl Lookout {
    pub(super) fn start(
        root: &Root,
        board: &Arc<Board>,
        canaries: &Arc<Canaries>,
        calls: Calls,
    ) -> io::Result<Self> {
        let mut standing = vec![
            "mounts in other mount namespaces and writable shared mappings are looked for once a minute"
                .to_owned(),
        ];
        let mount_events = MountEvents::new()
            .inspect_err(|error| {
                standing.push(format!("who mounts something is not told: {error}"));
            })
            .ok();
        let table = if mount_events.is_some() && !mounts::needs_table() {
            None
        } else {
            mounts::open_table()
                .inspect_err(|error| {
                    standing.push(format!("changes of the mount table are not told: {error}"));
                })
                .ok()
        };
        let timer = StepTimer::new()
            .inspect_err(|error| {
                standing.push(format!("steps of the wall clock are not told: {error}"));
            })
            .ok();
        let shared = Arc::new(Shared {
            bell: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            ended: AtomicBool::new(false),
            standing,
            namespaces_left: AtomicBool::new(false),
            nests: Mutex::default(),
            heard: AtomicBool::new(false),
        });
        let (now, since) = (Instant::now(), wall());
        // Where names are what is told, only the root's own file system is watched.
        let watched = root
            .watched()
            .filter(|filesystem| calls == Calls::Handle || filesystem.prefix.is_root());
        let nests = watched.map(|filesystem| {
            let place = root.shown(&filesystem.prefix).display().to_string();
            Nest::new(place, now, since)
        });
        let thread = Thread {
            nests: nests.collect(),
            calls,
            root: root.clone(),
            board: Arc::clone(board),
            canaries: Arc::clone(canaries),
            shared: Arc::clone(&shared),
            mount_events,
            table,
            timer,
            observer: Observer::default(),
            clock: clock::read(),
            foreign: Vec::new(),
            mapped: BTreeSet::new(),
            look_at: now,
        };
        let thread = std::thread::Builder::new()
            .name("lookout".into())
            .spawn(move || thread.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn limits(&self) -> Vec<String> {
        let nests = self
            .shared
            .nests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut limits = [&self.shared.standing[..], &nests[..]].concat();
        if self.shared.namespaces_left.load(Ordering::Acquire) {
            limits.push("not every mount namespace could be looked into".to_owned());
        }
        limits
    }

    /// Whether the newest test writes came back, where any could be made.
    #[cfg(test)]
    pub(super) fn has_heard(&self) -> bool {
        self.shared.heard.load(Ordering::Acquire)
    }

    /// Looks now at what is otherwise looked at every minute.
    pub(super) fn look_around(&self) {
        self.ring();
    }

    fn ring(&self) -> bool {
        rustix::io::write(&self.shared.bell, &1_u64.to_ne_bytes()).is_ok()
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        let rung = self.ring();
        if let Some(thread) = self.thread.take().filter(|_| rung) {
            // One that ended abnormally has nothing more to say here.
            drop(thread.join());
        }
    }
}

struct Thread {
    root: Root,
    board: Arc<Board>,
    canaries: Arc<Canaries>,
    shared: Arc<Shared>,
    mount_events: Option<MountEvents>,
    table: Option<File>,
    timer: Option<StepTimer>,
    observer: Observer,
    nests: Vec<Nest>,
    calls: Calls,
    clock: clock::Reading,
    /// What was told last.
    foreign: Vec<ForeignMount>,
    mapped: BTreeSet<super::report::Inode>,
    look_at: Instant,
}

/// What `poll` told.
#[derive(Default)]
struct Ready {
    bell: bool,
    mounts: bool,
    table: bool,
}

impl Thread {
    fn run(mut self) {
        let mut last = None;
        loop {
            let now = Instant::now();
            if now >= self.look_at {
                self.look_at = now + MINUTE;
                last = Some(now);
                self.look_around();
            }
            self.sing(Instant::now());
            let ready = match self.poll() {
                Ok(ready) => ready,
                Err(errno) => {
                    let error = io::Error::from(errno);
                    return self.board.lose(&format!("the lookout ended: {error}"));
                }
            };
            if self.shared.ended.load(Ordering::Acquire) {
                return;
            }
            if ready.bell {
                self.answer_bell();
                let soon = last.map_or(Instant::now(), |last| last + AT_LEAST);
                self.look_at = self.look_at.min(soon);
            }
            if ready.mounts {
                self.read_mounts();
            }
            if ready.table {
                self.board.mounts_changed();
            }
            self.read_clocks();
        }
    }

    fn poll(&self) -> Result<Ready, Errno> {
        let mut polled = vec![PollFd::new(&self.shared.bell, PollFlags::IN)];
        let mut places = [usize::MAX; 2];
        if let Some(events) = &self.mount_events {
            places[0] = polled.len();
            polled.push(PollFd::from_borrowed_fd(
                events.group().as_fd(),
                PollFlags::IN,
            ));
        }
        if let Some(table) = &self.table {
            places[1] = polled.len();
            polled.push(PollFd::new(table, PollFlags::PRI));
        }
        if let Some(timer) = &self.timer {
            polled.push(PollFd::new(timer.fd(), PollFlags::IN));
        }
        let wait = self.wait(Instant::now());
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut polled, Some(&wait)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno),
        }
        let told = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            bell: told(0),
            mounts: told(places[0]),
            table: told(places[1]),
        })
    }

    fn wait(&self, now: Instant) -> Duration {
        if self.canaries.any_expected() {
            return CANARY_TICK;
        }
        let nests = self.nests.iter().map(Nest::wake_at);
        let next = nests.chain([self.look_at]).min().unwrap_or(self.look_at);
        next.saturating_duration_since(now)
    }

    fn answer_bell(&self) {
        // Rung once or often: it is answered once.
        rustix::io::read(&self.shared.bell, &mut [0_u8; 8]).ok();
    }

    /// Who mounted goes on the board before anybody looks at the table.
    fn read_mounts(&mut self) {
        let Some(events) = &mut self.mount_events else {
            return;
        };
        match events.read(self.root.path()) {
            Ok(events) => {
                self.observer.begin();
                for event in events {
                    if let Some(path) = event.at {
                        let actor = self.observer.observe(event.pid).actor.clone();
                        self.board.report(Report::Mounted { path, actor });
                    }
                }
                self.board.mounts_changed();
            }
            Err(error) => {
                self.mount_events = None;
                self.table = mounts::open_table().ok();
                self.board
                    .lose(&format!("mounts are no longer told: {error}"));
            }
        }
    }

    fn read_clocks(&mut self) {
        let cancelled = match self.timer.as_ref().map(StepTimer::was_set) {
            Some(Ok(cancelled)) => cancelled,
            None => false,
            Some(Err(error)) => {
                self.timer = None;
                self.board
                    .lose(&format!("steps of the clock are no longer told: {error}"));
                true
            }
        };
        let now = clock::read();
        let happened = clock::happened(&self.clock, &now, cancelled);
        self.clock = now;
        if happened.slept {
            self.board.report(Report::Slept);
        }
        if happened.clock_set {
            self.board.report(Report::ClockSet);
        }
    }

    /// Writes the test files that are due, and looks for those on their way.
    fn sing(&mut self, now: Instant) {
        let wall = wall();
        let mut changes = Vec::new();
        for (nest, filesystem) in self.nests.iter_mut().zip(self.root.watched()) {
            if let Some(change) = nest.look(&self.canaries, now, wall) {
                changes.push((nest.place().to_owned(), change));
            }
            if nest.is_due(now) {
                nest.attempted(write_canary(filesystem, &self.canaries, self.calls), now);
            }
        }
        let limits: Vec<String> = self.nests.iter().filter_map(Nest::limit).collect();
        *self
            .shared
            .nests
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = limits;
        let deaf = self.nests.iter().any(Nest::is_deaf);
        let heard = !deaf && self.nests.iter().all(Nest::is_settled);
        self.shared.heard.store(heard, Ordering::Release);
        for (place, change) in changes {
            match change {
                Change::Deaf { since } => self.board.report(Report::Deaf { since, place }),
                Change::Hears if !deaf => self.board.report(Report::Hears),
                Change::Hears => {}
            }
        }
    }

    /// What is looked at every minute.
    fn look_around(&mut self) {
        let now = Instant::now();
        self.nests.iter_mut().for_each(|nest| nest.hurry(now));
        self.look_into_namespaces();
        let mapped = mapped(&self.devices());
        if mapped.more {
            self.board.lose("more files are mapped than are looked at");
        }
        // Those that were mapped a minute ago are read again too: the last store may have come since.
        let told = mapped
            .files
            .union(&self.mapped)
            .copied()
            .collect::<Vec<_>>();
        self.mapped = mapped.files;
        if !told.is_empty() {
            self.board.report(Report::Mapped(told));
        }
    }

    fn look_into_namespaces(&mut self) {
        let looked = namespaces::look(self.root.path());
        self.shared
            .namespaces_left
            .store(looked.more, Ordering::Release);
        self.observer.begin();
        let mut foreign = Vec::new();
        for found in looked.foreign {
            let actor = Actor {
                confidence: Confidence::Low,
                ..self
                    .observer
                    .observe(i32::try_from(found.pid).unwrap_or(0))
                    .actor
                    .clone()
            };
            let mount = found.line.mount(found.path);
            foreign.push(ForeignMount { mount, actor });
        }
        let mounts = |all: &[ForeignMount]| {
            all.iter()
                .map(|foreign| foreign.mount.clone())
                .collect::<Vec<_>>()
        };
        if mounts(&foreign) != mounts(&self.foreign) {
            self.foreign.clone_from(&foreign);
            self.board.report(Report::Foreign(foreign));
        }
    }

    /// The devices of the file systems in scope, as `maps` has them: btrfs has another one there than in `stat`.
    fn devices(&self) -> BTreeSet<u64> {
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let mut devices = BTreeSet::new();
        for filesystem in self.root.watched() {
            let shown = self.root.shown(&filesystem.prefix);
            let stat = rustix::fs::statx(
                &filesystem.dir,
                c"",
                AtFlags::EMPTY_PATH,
                StatxFlags::BASIC_STATS,
            );
            if let Ok(stat) = stat {
                devices.insert(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor));
            }
            let line = super::mount_of(&shown)
                .and_then(|id| mount_lines(&table).find(|line| line.id == id));
            if let Some(line) = line {
                devices.insert(rustix::fs::makedev(line.device.0, line.device.1));
            }
        }
        devices
    }
}

/// Makes an unnamed file, writes a byte into it and closes it; nothing of it stays.
fn write_canary(filesystem: &Filesystem, canaries: &Canaries, calls: Calls) -> Attempt {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let here = CString::from(c".");
    let file = match rustix::fs::openat(&filesystem.dir, here, flags, Mode::RUSR) {
        Ok(file) => file,
        Err(Errno::ROFS) => return Attempt::ReadOnly,
        Err(errno) => {
            let error = io::Error::from(errno);
            return Attempt::Refused(format!("no test file can be made: {error}"));
        }
    };
    let key = match key_of(&file, calls) {
        Ok(key) => key,
        Err(errno) => {
            let error = io::Error::from(errno);
            return Attempt::Refused(format!("the test file does not say what it is: {error}"));
        }
    };
    canaries.expect(key.clone());
    // On a full disk nothing is written, but the end of writing is told all the same.
    rustix::io::write(&file, b"x").ok();
    drop(file);
    Attempt::Written(key)
}

fn key_of(file: &OwnedFd, calls: Calls) -> Result<Vec<u8>, Errno> {
    let wanted = StatxFlags::INO;
    let stat = || rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted);
    if calls == Calls::Name {
        return Ok(format!("#{}", stat()?.stx_ino).into_bytes());
    }
    if let Ok(handle) = sys::name_to_handle(file.as_fd()) {
        return Ok(handle_key([0; 8], handle.kind, &handle.bytes));
    }
    let stat = stat()?;
    let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    Ok(inode_key(dev, stat.stx_ino))
}
