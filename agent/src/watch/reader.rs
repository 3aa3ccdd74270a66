//! The thread that reads the events of files and processes.
//!
//! It blocks while it is quiet and pauses after each drain: being woken for each event is what a watch costs the writers. It reads,
//! looks up the process, and puts the place on the board; it never hashes and never logs.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::statement::Rung;
use attestation::time::Timestamp;
use rustix::io::Errno;

use self::polled::Ready;
use self::quiet::Elsewhere;
use super::EventSet;
use super::board::{Batch, Board, Event};
use super::busy::Busy;
use super::canary::Canaries;
use super::counts::{LinkCounts, Look};
use super::descriptors::{self, Brought, Written};
use super::events::events_of;
use super::keys::{named_key, object_key, written_key};
use super::ladder::Source;
use super::record::{self, Handle, Record};
use crate::actor::{Doer, Witness, clock};
use crate::clock::now;
use crate::scan::{Root, handle_key};

mod polled;
mod quiet;

/// Bytes taken with one read: some thousand events.
const BUFFER: usize = 256 * 1024;
/// The longest record: a header and three pieces of information, each with the longest handle and name. A read that leaves
/// room for one has taken all there was.
const LONGEST: usize = 4 * 1024;
/// Pause after a drain, in which events gather and writers are not held up by waking us.
const PAUSE: Duration = Duration::from_millis(5);
/// Drains in a row that may end with events coming in. Then one goes on until nothing more is there: only that shows that
/// all execs which were told have had their files told too.
const UNFINISHED: u32 = 16;
/// Reads with which the first drain after quiet follows a writer: a file that was just written is closed in a moment, and
/// should not wait for the end of a pause.
const FOLLOWED: u32 = 4;

pub(super) struct Reader {
    pub(super) sources: Vec<Source>,
    pub(super) canaries: Arc<Canaries>,
    pub(super) stop: Arc<OwnedFd>,
    pub(super) board: Arc<Board>,
    pub(super) root: Root,
    pub(super) witness: Witness,
    pub(super) busy: Busy,
    pub(super) counts: LinkCounts,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nothing,
    /// Something, and nothing behind it.
    Last,
    /// As much as it had room for, or it was broken off.
    More,
}

impl Reader {
    pub(super) fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        // While it is not over the group is left out of the poll: events gather, and nobody is held up by waking us.
        let mut pause: Option<Instant> = None;
        // Drains in a row that did not go on until nothing more was there.
        let mut unfinished = 0;
        loop {
            pause = pause.filter(|end| *end > Instant::now());
            self.speak_again();
            let polled = if unfinished > 0 && pause.is_none() {
                Ok(Ready::for_events())
            } else {
                self.poll(pause)
            };
            let ready = match polled {
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
                let found = match self.drain(&mut buffer, followed(unfinished)) {
                    Ok(found) => found,
                    Err(errno) => return self.board.lose(&ended(errno)),
                };
                unfinished = if found == Found::Last {
                    unfinished + 1
                } else {
                    0
                };
                pause = Some(Instant::now() + PAUSE).filter(|_| found != Found::Nothing);
            }
        }
    }

    /// Reads until nothing more is there, or until more than `followed` reads took all that was: whoever writes would be followed
    /// one event after the other, and each would find us at the queue's lock. What was told of processes is taken between
    /// reading and resolving: whatever did what was read has been told by then. Tells [`Found::Last`] where it did not go on,
    /// and otherwise whether there was anything.
    fn drain(&mut self, buffer: &mut [u8], followed: u32) -> Result<Found, Errno> {
        let mut brought = Found::Nothing;
        let mut left = followed;
        loop {
            let before = clock::monotonic();
            let mut found = Found::Nothing;
            for source in 0..self.sources.len() {
                found = found.max(self.drain_once(source, buffer)?);
            }
            match found {
                Found::Last if left == 0 => return Ok(Found::Last),
                Found::Last => {
                    left -= 1;
                    brought = Found::More;
                }
                Found::More => brought = Found::More,
                Found::Nothing => {
                    self.witness.is_quiet(before);
                    return Ok(brought);
                }
            }
        }
    }

    fn tell_login(&mut self) {
        if self.witness.take_login_of_root() {
            self.board.root_logged_in();
        }
    }

    /// Reads one group once, and puts on the board what was told.
    fn drain_once(&mut self, index: usize, buffer: &mut [u8]) -> Result<Found, Errno> {
        let Some(source) = self.sources.get(index) else {
            return Ok(Found::Nothing);
        };
        let found = |drained| if drained { Found::Last } else { Found::More };
        if source.rung == Rung::C {
            return Ok(match descriptors::read(&source.group)? {
                Brought::Nothing => Found::Nothing,
                Brought::Some {
                    written,
                    lost,
                    drained,
                } => {
                    self.written(written, lost, drained);
                    found(drained)
                }
            });
        }
        let length = match rustix::io::read(&source.group, &mut *buffer) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(Found::Nothing),
            Err(Errno::INTR) => return Ok(Found::More),
            Err(errno) => return Err(errno),
        };
        let until = clock::monotonic();
        self.witness.follow();
        self.tell_login();
        let drained = length.saturating_add(LONGEST) <= buffer.len();
        let elsewhere = self.batch(&buffer[..length], until, drained);
        self.hush(index, &elsewhere);
        Ok(found(drained))
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
    fn drop_uninteresting<'b>(&mut self, told: &mut Vec<Told<'b>>) -> Vec<Elsewhere> {
        let mut elsewhere = Vec::new();
        let mut batch = self.board.batch();
        let key = |handle: &Handle<'_>| handle_key(handle.fsid, handle.kind, handle.bytes);
        for told in told.iter() {
            learn_directories(&mut batch, &told.record);
        }
        // What is done in one directory comes together.
        let last = Cell::new(None);
        let is_ignored = |batch: &Batch<'_>, directory: &Handle<'b>| match last.get() {
            Some((known, ignored)) if known == *directory => ignored,
            _ => {
                let ignored = batch.is_ignored(&key(directory));
                last.set(Some((*directory, ignored)));
                ignored
            }
        };
        let records: Vec<_> = told.iter().map(|told| told.record).collect();
        let looks = self
            .counts
            .judge(&records, |directory| is_ignored(&batch, directory));
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
                told.interesting = true;
                return true;
            }
            let mut names = [record.named, record.renamed]
                .into_iter()
                .flatten()
                .peekable();
            let unnamed = names.peek().is_none();
            let in_scope =
                names.any(|named| named.name == b"." || !is_ignored(&batch, &named.directory));
            told.interesting = !events.is_empty() && (unnamed || in_scope || linked.is_some());
            if !told.interesting {
                elsewhere.extend(written_elsewhere(record));
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

/// Reads that go on though one took all there was, after so many drains in a row that did not end with nothing.
fn followed(unfinished: u32) -> u32 {
    match unfinished {
        0 => FOLLOWED,
        1..UNFINISHED => 0,
        UNFINISHED.. => u32::MAX,
    }
}

/// A directory made where nothing is of interest is of none either: what is done in it need not wait until it was looked up. Where
/// directories move, nothing that was learnt holds.
fn learn_directories(batch: &mut Batch<'_>, record: &Record<'_>) {
    if record.mask & libc::FAN_ONDIR == 0 {
        return;
    }
    let key = |handle: &Handle<'_>| handle_key(handle.fsid, handle.kind, handle.bytes);
    let events = events_of(record.mask);
    if events.contains(EventSet::RENAME) {
        batch.directories_moved();
    } else if events.contains(EventSet::CREATE)
        && let (Some(object), Some(named)) = (record.object, record.named)
        && batch.is_ignored(&key(&named.directory))
    {
        batch.ignore(&key(&object));
    }
}

/// What a record of no interest says of a busy file.
fn written_elsewhere(record: &Record<'_>) -> Option<Elsewhere> {
    let events = events_of(record.mask);
    let written = EventSet::MODIFY.union(EventSet::CLOSE_WRITE);
    // One that was made and closed in the same read was never busy.
    let made = EventSet::CREATE.union(EventSet::CLOSE_WRITE);
    if !events.intersects(written) || events.contains(made) {
        return None;
    }
    let object = record.object?;
    Some(Elsewhere {
        key: handle_key(object.fsid, object.kind, object.bytes),
        closed: events.contains(EventSet::CLOSE_WRITE),
    })
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

fn ended(errno: Errno) -> String {
    format!("events can no longer be read: {}", io::Error::from(errno))
}
