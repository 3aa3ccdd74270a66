//! Rung A: one fanotify group with file-handle records on each superblock in scope, and the thread that reads it.
//!
//! The thread blocks while it is quiet and pauses after each drain: being woken for each event is what a watch costs the
//! writers. It reads, looks up the process, and puts the place on the board; it never hashes and never logs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attestation::scope::Scope;
use attestation::statement::{Rung, WatchCoverage};
use attestation::time::Timestamp;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::board::{Batch, Board, Event, Key, Seen};
use super::canary::Canaries;
use super::handles::{Resolver, events_of, named_key, object_key};
use super::record::{self, Handle, Record};
use super::{EventSet, Place};
use crate::actor::Observer;
use crate::scan::{Root, handle_key};

// The group's flags for handles are the kernel's own numbers: nix has no names for them, and lets them through.
const GROUP: u32 = libc::FAN_CLASS_NOTIF
    | libc::FAN_REPORT_FID
    | libc::FAN_REPORT_DFID_NAME
    | libc::FAN_REPORT_TARGET_FID
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK;
/// `OPEN_EXEC` joins when processes are followed from their start; until then it would only cost.
const MASK: u64 = libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_RENAME
    | libc::FAN_ONDIR;
/// Bytes taken with one read: some thousand events.
const BUFFER: usize = 256 * 1024;
/// Pause after a drain, in which events gather and writers are not held up by waking us.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct FanotifyWatch {
    resolver: Mutex<Resolver>,
    limits: Vec<String>,
    stop: Arc<OwnedFd>,
    reader: Option<JoinHandle<()>>,
}

impl FanotifyWatch {
    /// Marks the superblocks and starts to read.
    pub(super) fn start(
        root: &Root,
        scope: &Scope,
        board: &Arc<Board>,
        canaries: &Arc<Canaries>,
    ) -> io::Result<Self> {
        let group = Fanotify::init(InitFlags::from_bits_retain(GROUP), EventFFlags::empty())?;
        let mut limits = vec![
            "processes are looked up when their event is read: one that has ended by then is not named".to_owned(),
        ];
        for filesystem in root.filesystems() {
            let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
            let mask = MaskFlags::from_bits_retain(MASK);
            match group.mark(flags, mask, filesystem.dir.as_fd(), None::<&Path>) {
                Ok(()) => {}
                Err(error) if filesystem.prefix.is_root() => return Err(error.into()),
                Err(error) => limits.push(format!(
                    "changes below {} are not told: {error}",
                    filesystem.prefix
                )),
            }
        }
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let reader = Reader {
            group,
            canaries: Arc::clone(canaries),
            stop: Arc::clone(&stop),
            board: Arc::clone(board),
            root: root.clone(),
            observer: Observer::default(),
        };
        let reader = std::thread::Builder::new()
            .name("fanotify".into())
            .spawn(move || reader.run())?;
        let resolver = Mutex::new(Resolver::new(root, scope, board));
        Ok(Self {
            resolver,
            limits,
            stop,
            reader: Some(reader),
        })
    }

    pub(super) fn coverage(&self) -> WatchCoverage {
        WatchCoverage {
            rung: Rung::A,
            limits: self.limits.clone(),
            limits_total: None,
        }
    }

    pub(super) fn resolve(&self, seen: HashMap<Key, Seen>, generation: u64) -> Vec<Place> {
        self.resolver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resolve(seen, generation)
    }
}

impl Drop for FanotifyWatch {
    fn drop(&mut self) {
        let rung = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes()).is_ok();
        if let Some(reader) = self.reader.take().filter(|_| rung) {
            // A reader that ended abnormally has nothing more to say here.
            drop(reader.join());
        }
    }
}

struct Reader {
    group: Fanotify,
    canaries: Arc<Canaries>,
    stop: Arc<OwnedFd>,
    board: Arc<Board>,
    root: Root,
    observer: Observer,
}

/// What `poll` told.
#[derive(Default)]
struct Ready {
    stop: bool,
    events: bool,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        // While it is not over the group is left out of the poll: events gather, and nobody is held up by waking us.
        let mut pause: Option<Instant> = None;
        loop {
            pause = pause.filter(|end| *end > Instant::now());
            let ready = match self.poll(pause) {
                Ok(ready) => ready,
                Err(errno) => return self.board.lose(&ended(errno)),
            };
            if ready.stop {
                return;
            }
            if ready.events {
                if let Err(errno) = self.drain(&mut buffer) {
                    return self.board.lose(&ended(errno));
                }
                pause = Instant::now().checked_add(PAUSE);
            }
        }
    }

    /// Waits for whatever comes first, at most until `pause` is over; until then nothing is told of file events.
    fn poll(&self, pause: Option<Instant>) -> Result<Ready, Errno> {
        let mut descriptors = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let mut meanings = vec![Meaning::Stop];
        if pause.is_none() {
            descriptors.push(PollFd::new(&self.group, PollFlags::IN));
            meanings.push(Meaning::Events);
        }
        let timeout = pause.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut ready = Ready::default();
        for (descriptor, meaning) in descriptors.iter().zip(meanings) {
            let told = descriptor.revents();
            match meaning {
                Meaning::Stop => ready.stop = told.intersects(PollFlags::IN),
                Meaning::Events => {
                    ready.events = told.intersects(PollFlags::IN | PollFlags::ERR);
                }
            }
        }
        Ok(ready)
    }

    /// Reads until there is nothing more.
    fn drain(&mut self, buffer: &mut [u8]) -> Result<(), Errno> {
        self.observer.begin();
        loop {
            let length = match rustix::io::read(&self.group, &mut *buffer) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            self.batch(&buffer[..length]);
        }
    }

    /// Processes are looked up between two looks at the board, which is never locked for long.
    fn batch(&mut self, bytes: &[u8]) {
        let at = now();
        let mut told = Vec::new();
        for record in record::parse(bytes) {
            match record {
                Ok(record) if record.mask & libc::FAN_Q_OVERFLOW != 0 => {
                    self.board.lose("overflow")
                }
                Ok(record) if self.is_canary(&record) => {}
                Ok(record) => told.push((
                    record,
                    record.object.filter(|object| self.is_linked(object)),
                )),
                Err(error) => self.board.lose(&error.to_string()),
            }
        }
        self.drop_uninteresting(&mut told);
        let events: Vec<_> = told
            .iter()
            .map(|(record, _)| self.event(record, at))
            .collect();
        let mut batch = self.board.batch();
        for ((record, linked), event) in told.iter().zip(&events) {
            put(&mut batch, record, *linked, event);
        }
    }

    fn drop_uninteresting(&self, told: &mut Vec<(Record<'_>, Option<Handle<'_>>)>) {
        let mut batch = self.board.batch();
        told.retain(|(record, linked)| {
            let events = events_of(record.mask);
            if record.mask & libc::FAN_ONDIR != 0 && events.contains(EventSet::RENAME) {
                batch.directories_moved();
                return true;
            }
            let mut names = [record.named, record.renamed]
                .into_iter()
                .flatten()
                .peekable();
            let unnamed = names.peek().is_none();
            let in_scope = names.any(|named| {
                let handle = named.directory;
                named.name == b"."
                    || !batch.is_ignored(&handle_key(handle.fsid, handle.kind, handle.bytes))
            });
            !events.is_empty() && (unnamed || in_scope || linked.is_some())
        });
    }

    fn event(&mut self, record: &Record<'_>, at: Timestamp) -> Event {
        let events = events_of(record.mask);
        let changes_names = EventSet::CREATE
            .union(EventSet::DELETE)
            .union(EventSet::RENAME);
        let subtree = record.mask & libc::FAN_ONDIR != 0 && events.intersects(changes_names);
        Event {
            events,
            subtree,
            actor: Some(self.observer.observe(record.pid)),
            at,
        }
    }

    fn is_canary(&self, record: &Record<'_>) -> bool {
        record.object.is_some_and(|object| {
            self.canaries.any_expected()
                && self
                    .canaries
                    .hear(&handle_key([0; 8], object.kind, object.bytes))
        })
    }

    fn is_linked(&self, object: &Handle<'_>) -> bool {
        let links = self.root.links();
        !links.is_empty() && links.contains(&handle_key(object.fsid, object.kind, object.bytes))
    }
}

fn put(batch: &mut Batch<'_>, record: &Record<'_>, linked: Option<Handle<'_>>, event: &Event) {
    for named in [record.named, record.renamed].into_iter().flatten() {
        batch.add(&named_key(&named), event);
    }
    let unnamed = record.object.filter(|_| record.named.is_none());
    if let Some(object) = linked.or(unnamed) {
        batch.add(
            &object_key(&object),
            &Event {
                subtree: false,
                ..event.clone()
            },
        );
    }
}

/// What a descriptor in the poll stands for.
enum Meaning {
    Stop,
    Events,
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn ended(errno: Errno) -> String {
    format!("events can no longer be read: {}", io::Error::from(errno))
}

/// The wall clock, as it is told in a place.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
