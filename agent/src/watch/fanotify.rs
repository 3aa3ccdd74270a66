//! Rungs A to C: fanotify groups with marks on each superblock in scope, and the thread that reads them.
//!
//! The thread blocks while it is quiet and pauses after each drain: being woken for each event is what a watch costs the
//! writers. It reads, looks up the process, and puts the place on the board; it never hashes and never logs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attestation::scope::Scope;
use attestation::statement::{Rung, WatchCoverage};
use attestation::time::Timestamp;
use nix::sys::fanotify::{MarkFlags, MaskFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use super::board::{Batch, Board, Event, Key, Seen};
use super::busy::Busy;
use super::canary::Canaries;
use super::counts::{LinkCounts, Look};
use super::descriptors::{self, Brought, Written};
use super::handles::{Resolver, events_of, named_key, object_key, written_key};
use super::ladder::{self, Marked, Source};
use super::record::{self, Handle, Record};
use super::report::Aliased;
use super::{Attributed, EventSet, Place};
use crate::actor::{Attribution, Doer, Trouble, Witness, clock};
use crate::scan::{Root, handle_key, split_handle};
use crate::sys;

/// Bytes taken with one read: some thousand events.
const BUFFER: usize = 256 * 1024;
/// The longest record: a header and three pieces of information, each with the longest handle and name. A read that leaves
/// room for one has taken all there was.
const LONGEST: usize = 4 * 1024;
/// Pause after a drain, in which events gather and writers are not held up by waking us.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct FanotifyWatch {
    resolver: Mutex<Resolver>,
    rung: Rung,
    limits: Vec<String>,
    /// Why processes are not followed, if they are not.
    unfollowed: Option<String>,
    trouble: Arc<Trouble>,
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
        attribution: &Attribution,
        highest: Rung,
    ) -> io::Result<Self> {
        let Marked {
            sources,
            rung,
            mut limits,
            uppers,
        } = ladder::climb(root, highest)?;
        // After the marks: whoever is not followed yet when it does something is in the scan of all processes that follows.
        let (witness, unfollowed) = Witness::start(root, attribution);
        if let Some(limit) = &unfollowed {
            limits.push(limit.clone());
            ladder::unmark_execs(&sources, root);
        }
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let trouble = witness.trouble();
        let reader = Reader {
            sources,
            canaries: Arc::clone(canaries),
            stop: Arc::clone(&stop),
            board: Arc::clone(board),
            root: root.clone(),
            witness,
            busy: Busy::default(),
            counts: LinkCounts::default(),
        };
        let reader = std::thread::Builder::new()
            .name("fanotify".into())
            .spawn(move || reader.run())?;
        let resolver = Mutex::new(Resolver::new(root, scope, board, uppers));
        Ok(Self {
            resolver,
            rung,
            limits,
            unfollowed,
            trouble,
            stop,
            reader: Some(reader),
        })
    }

    pub(super) fn coverage(&self) -> WatchCoverage {
        let mut limits = self.limits.clone();
        limits.extend(self.trouble.limits());
        WatchCoverage {
            rung: self.rung,
            limits,
            limits_total: None,
        }
    }

    pub(super) fn attributed(&self) -> Attributed {
        let mut limits = self.trouble.limits();
        limits.extend(self.unfollowed.clone());
        Attributed {
            followed: self.unfollowed.is_none(),
            limits,
        }
    }

    pub(super) fn resolve(
        &self,
        seen: HashMap<Key, Seen>,
        generation: u64,
    ) -> (Vec<Place>, Vec<Aliased>) {
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
    sources: Vec<Source>,
    canaries: Arc<Canaries>,
    stop: Arc<OwnedFd>,
    board: Arc<Board>,
    root: Root,
    witness: Witness,
    busy: Busy,
    counts: LinkCounts,
}

/// What `poll` told.
#[derive(Default)]
struct Ready {
    stop: bool,
    processes: bool,
    events: bool,
}

impl Reader {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        // While it is not over the group is left out of the poll: events gather, and nobody is held up by waking us.
        let mut pause: Option<Instant> = None;
        loop {
            pause = pause.filter(|end| *end > Instant::now());
            self.speak_again();
            let ready = match self.poll(pause) {
                Ok(ready) => ready,
                Err(errno) => return self.board.lose(&ended(errno)),
            };
            if ready.stop {
                return;
            }
            if ready.processes {
                self.witness.follow();
                self.tell_login();
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
        if let Some(processes) = self.witness.descriptor() {
            descriptors.push(PollFd::from_borrowed_fd(processes, PollFlags::IN));
            meanings.push(Meaning::Processes);
        }
        if pause.is_none() {
            for source in &self.sources {
                descriptors.push(PollFd::new(source, PollFlags::IN));
                meanings.push(Meaning::Events);
            }
        }
        let until = pause.into_iter().chain(self.busy.next()).min();
        let timeout = until.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut ready = Ready::default();
        for (descriptor, meaning) in descriptors.iter().zip(meanings) {
            let told = descriptor.revents();
            match meaning {
                Meaning::Stop => ready.stop = told.intersects(PollFlags::IN),
                Meaning::Processes => {
                    ready.processes = told.intersects(PollFlags::IN | PollFlags::ERR);
                }
                Meaning::Events => {
                    ready.events |= told.intersects(PollFlags::IN | PollFlags::ERR);
                }
            }
        }
        Ok(ready)
    }

    /// Reads until there is nothing more. What was told of processes is taken between reading and resolving: whatever did
    /// what was read has been told by then.
    fn drain(&mut self, buffer: &mut [u8]) -> Result<(), Errno> {
        loop {
            let before = clock::monotonic();
            let mut more = false;
            for source in 0..self.sources.len() {
                more |= self.drain_once(source, buffer)?;
            }
            if !more {
                self.witness.is_quiet(before);
                return Ok(());
            }
        }
    }

    fn tell_login(&mut self) {
        if self.witness.take_login_of_root() {
            self.board.root_logged_in();
        }
    }

    /// Reads once; whether there may be more.
    fn drain_once(&mut self, index: usize, buffer: &mut [u8]) -> Result<bool, Errno> {
        let Some(source) = self.sources.get(index) else {
            return Ok(false);
        };
        if source.rung == Rung::C {
            return Ok(match descriptors::read(&source.group)? {
                Brought::Nothing => false,
                Brought::Some {
                    written,
                    lost,
                    drained,
                } => {
                    self.written(written, lost, drained);
                    true
                }
            });
        }
        let length = match rustix::io::read(&source.group, &mut *buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        let until = clock::monotonic();
        self.witness.follow();
        self.tell_login();
        let drained = length.saturating_add(LONGEST) <= buffer.len();
        let elsewhere = self.batch(&buffer[..length], until, drained);
        self.hush(index, &elsewhere);
        Ok(true)
    }

    /// Files that were written, by their descriptors.
    fn written(&mut self, mut written: Vec<Written>, lost: Option<String>, drained: bool) {
        let (at, until) = (now(), clock::monotonic());
        self.witness.follow();
        self.tell_login();
        written.retain(|written| {
            !events_of(written.mask).is_empty() && !self.canaries.hear(&written.key)
        });
        let records: Vec<_> = written.iter().map(Written::record).collect();
        let detail = !self.board.is_crowded();
        let doers = self.witness.resolve(&records, until, drained, detail);
        let mut batch = self.board.batch();
        for ((written, record), doer) in written.iter().zip(&records).zip(doers) {
            batch.add(&written_key(written), &event(record, doer, at));
        }
        if let Some(lost) = lost {
            batch.lose(&lost);
        }
    }

    /// Asks the kernel to say nothing for a moment of files that are written again and again where scope does not look.
    fn hush(&mut self, source: usize, elsewhere: &[Elsewhere]) {
        let now = Instant::now();
        for Elsewhere { key, closed } in elsewhere {
            let Ok(byte) = u8::try_from(source) else {
                return;
            };
            let key = [&[byte], &key[..]].concat();
            if *closed {
                self.busy.closed(&key);
            } else if self.busy.written(&key, now) {
                self.mark_quiet(&key, libc::FAN_MARK_ADD);
            }
        }
    }

    fn speak_again(&mut self) {
        while let Some(key) = self.busy.take_over(Instant::now()) {
            self.mark_quiet(&key, libc::FAN_MARK_REMOVE);
        }
    }

    /// A kernel that knows no such marks, or a file that is gone, is heard as before.
    fn mark_quiet(&self, key: &[u8], what: libc::c_uint) {
        let Some((source, handle)) = key.split_first() else {
            return;
        };
        let Some(source) = self.sources.get(usize::from(*source)) else {
            return;
        };
        if let Err(error) = quiet(&self.root, source, handle, what) {
            tracing::trace!(%error, "a busy file stays heard");
        }
    }

    /// Processes are looked up between two looks at the board, which is never locked for long. Returns what was written
    /// where scope does not look.
    fn batch(&mut self, bytes: &[u8], until: u64, drained: bool) -> Vec<Elsewhere> {
        let at = now();
        let mut told = Vec::new();
        for record in record::parse(bytes) {
            match record {
                Ok(record) if record.mask & libc::FAN_Q_OVERFLOW != 0 => {
                    self.board.lose("overflow")
                }
                Ok(record) if self.is_canary(&record) => {}
                Ok(record) => told.push(Told {
                    record,
                    linked: record.object.filter(|object| self.is_linked(object)),
                    interesting: false,
                }),
                Err(error) => self.board.lose(&error.to_string()),
            }
        }
        let elsewhere = self.drop_uninteresting(&mut told);
        let records: Vec<_> = told.iter().map(|told| told.record).collect();
        let detail = !self.board.is_crowded();
        let doers = self.witness.resolve(&records, until, drained, detail);
        let mut batch = self.board.batch();
        for (told, doer) in told.iter().zip(doers) {
            if told.interesting {
                put(
                    &mut batch,
                    &told.record,
                    told.linked,
                    &event(&told.record, doer, at),
                );
            }
        }
        elsewhere
    }

    /// Files opened for an exec stay, wherever they lie: they tell what a process runs.
    fn drop_uninteresting(&mut self, told: &mut Vec<Told<'_>>) -> Vec<Elsewhere> {
        let mut elsewhere = Vec::new();
        let mut batch = self.board.batch();
        let key = |handle: &Handle<'_>| handle_key(handle.fsid, handle.kind, handle.bytes);
        let records: Vec<_> = told.iter().map(|told| told.record).collect();
        let looks = self
            .counts
            .judge(&records, |directory| batch.is_ignored(&key(directory)));
        // Where names were found that are not kept, any object may have one.
        let all_known = !self.root.links().overflowed();
        let mut looks = looks.into_iter();
        told.retain_mut(|told| {
            let Told { record, linked, .. } = told;
            let events = events_of(record.mask);
            match looks.next() {
                Some(Look::Nowhere) if linked.is_none() && all_known => return false,
                Some(Look::AtObject) => *linked = record.object,
                _ => {}
            }
            if record.mask & libc::FAN_ONDIR != 0 && events.contains(EventSet::RENAME) {
                batch.directories_moved();
                told.interesting = true;
                return true;
            }
            let mut names = [record.named, record.renamed]
                .into_iter()
                .flatten()
                .peekable();
            let unnamed = names.peek().is_none();
            let in_scope =
                names.any(|named| named.name == b"." || !batch.is_ignored(&key(&named.directory)));
            told.interesting = !events.is_empty() && (unnamed || in_scope || linked.is_some());
            if !told.interesting
                && events.intersects(EventSet::MODIFY.union(EventSet::CLOSE_WRITE))
                && let Some(object) = record.object
            {
                elsewhere.push(Elsewhere {
                    key: key(&object),
                    closed: events.contains(EventSet::CLOSE_WRITE),
                });
            }
            told.interesting || told.record.mask & libc::FAN_OPEN_EXEC != 0
        });
        elsewhere
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

/// A file that was written where scope does not look, and has no name in scope that is known.
struct Elsewhere {
    key: Vec<u8>,
    closed: bool,
}

/// Adds or removes the mark that keeps writes of a file unsaid. One with several names is never quiet: any may be sealed.
fn quiet(root: &Root, source: &Source, key: &[u8], what: libc::c_uint) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let (fsid, kind, bytes) = split_handle(key).ok_or_else(gone)?;
    let filesystem = root
        .watched()
        .find(|filesystem| filesystem.fsid == fsid)
        .ok_or_else(gone)?;
    let file = sys::open_by_handle(filesystem.dir.as_fd(), kind, bytes)?;
    let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::NLINK)?;
    if stat.stx_nlink != 1 && what == libc::FAN_MARK_ADD {
        return Err(io::Error::other("it has several names"));
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = what
        | libc::FAN_MARK_IGNORE
        | libc::FAN_MARK_IGNORED_SURV_MODIFY
        | libc::FAN_MARK_EVICTABLE;
    Ok(source.group.mark(
        MarkFlags::from_bits_retain(flags),
        MaskFlags::FAN_MODIFY,
        CWD,
        Some(path.as_str()),
    )?)
}

/// A record, and whether it is one of a place.
struct Told<'b> {
    record: Record<'b>,
    /// Its object, where that has several names in scope or may have one.
    linked: Option<Handle<'b>>,
    interesting: bool,
}

fn event(record: &Record<'_>, doer: Arc<Doer>, at: Timestamp) -> Event {
    let events = events_of(record.mask);
    let changes_names = EventSet::CREATE
        .union(EventSet::DELETE)
        .union(EventSet::RENAME);
    Event {
        events,
        subtree: record.mask & libc::FAN_ONDIR != 0 && events.intersects(changes_names),
        actor: Some(doer),
        at,
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
    Processes,
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
