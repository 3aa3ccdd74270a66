//! The processes, followed from their start: events and what `/proc` said go in, who held a number at a time comes out.
//! Pure: no clock, no file. Times are nanoseconds of the monotonic clock.
//!
//! A process is a number and a start; one that ended is kept for a while, because its file events are read after its end.
//! Two that held one number within the same while are told as nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::followed::{Joined, Process, Seen, TOLERANCE};
use super::image::Image;
use super::process::Says;
use super::program::Executable;

/// Processes followed at a time. The kernel's own default limit is half of that on small machines and numbers are given
/// up to 32,768 there; at some 500 bytes each they are 32 MiB at the worst.
const LIMIT: usize = 65_536;
/// Room for so many is never given up: it would soon be taken again.
const USUAL: usize = 1_024;
/// How long one that ended is kept: file events are read long before.
const AFTERLIFE: u64 = 60_000_000_000;

/// A process as long as it is kept.
pub(super) type Serial = u64;

/// Who held a number at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    One(Serial),
    /// More than one: which cannot be told.
    Several,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    processes: HashMap<Serial, Process>,
    /// Holders of each number, the newest last.
    holders: HashMap<u32, Vec<Serial>>,
    ended: VecDeque<(u64, Serial)>,
    next: Serial,
    /// Processes that did not find room.
    untracked: u64,
}

impl Table {
    /// Processes that did not find room, in all.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }

    pub(super) fn get(&self, serial: Serial) -> Option<&Process> {
        self.processes.get(&serial)
    }

    /// The process that has this number, or had it last.
    pub(super) fn newest(&self, pid: u32) -> Option<Serial> {
        self.holders.get(&pid)?.last().copied()
    }

    /// Every process that has not ended.
    pub(super) fn living(&self) -> Vec<Serial> {
        self.processes
            .iter()
            .filter(|(_, process)| process.ended.is_none())
            .map(|(serial, _)| *serial)
            .collect()
    }

    /// Who held a number at some moment between two.
    pub(super) fn holder(&self, pid: u32, from: u64, until: u64) -> Holder {
        let Some(serials) = self.holders.get(&pid) else {
            return Holder::Nobody;
        };
        let was_there = |process: &Process| {
            let slack = match process.seen {
                Seen::FromStart => 0,
                Seen::Midlife | Seen::Late => TOLERANCE,
            };
            process.start <= until.saturating_add(slack)
                && process.ended.is_none_or(|ended| ended >= from)
        };
        let mut found = Holder::Nobody;
        for serial in serials {
            if self.processes.get(serial).is_some_and(was_there) {
                found = match found {
                    Holder::Nobody => Holder::One(*serial),
                    _ => return Holder::Several,
                };
            }
        }
        found
    }

    /// A process began. Nothing where it is known already, or where there is no room.
    pub(super) fn fork(&mut self, parent: u32, child: u32, at: u64) -> Option<Serial> {
        if let Some(known) = self.newest(child).and_then(|serial| self.get(serial)) {
            let same = known.seen != Seen::FromStart && known.start.abs_diff(at) <= TOLERANCE;
            if same && known.ended.is_none() {
                return None;
            }
        }
        let from = self.newest(parent).and_then(|serial| self.get(serial));
        let process = match from {
            Some(parent) => Process::child(parent, child, at),
            None => Process::new(child, at, Seen::FromStart),
        };
        self.insert(process)
    }

    /// A process found in `/proc`; a parent that is known already is one.
    pub(super) fn found(
        &mut self,
        pid: u32,
        says: Says,
        seen: Seen,
        now: u64,
    ) -> Option<(Serial, Option<Joined>)> {
        let known = self
            .newest(pid)
            .filter(|serial| self.is_same(*serial, &says));
        if let Some(serial) = known {
            return Some((serial, self.heard(serial, says, now)));
        }
        let from = self.newest(says.parent).and_then(|serial| self.get(serial));
        let mut process = Process::new(pid, says.start, seen);
        if let Some(parent) = from {
            process.forebears = parent.line();
            process.credit = parent.credit;
        }
        process.image = Arc::new(Image::asked(says.exe.clone(), says.cmdline.clone()));
        process.confirmed = says.exe.is_some();
        let serial = self.insert(process)?;
        Some((serial, self.heard(serial, says, now)))
    }

    /// A process runs another program, and this is what `/proc` said at once.
    pub(super) fn exec(
        &mut self,
        pid: u32,
        at: u64,
        says: Option<Says>,
    ) -> Option<(Serial, Option<Joined>)> {
        let serial = match self.newest(pid).filter(|serial| self.lives(*serial)) {
            Some(serial) => serial,
            None => self.insert(Process::new(
                pid,
                says.as_ref().map_or(at, |says| says.start),
                Seen::Late,
            ))?,
        };
        let says = says.filter(|says| self.is_same(serial, says));
        let process = self.processes.get_mut(&serial)?;
        let image = Arc::new(match &says {
            Some(says) => Image::asked(says.exe.clone(), says.cmdline.clone()),
            None => Image::default(),
        });
        process.runs_now(image);
        let joined = says.and_then(|says| self.heard(serial, says, at));
        Some((serial, joined))
    }

    /// A process has other users.
    pub(super) fn users(&mut self, pid: u32, real: u32, effective: u32) -> Option<Serial> {
        let serial = self.newest(pid)?;
        self.processes.get_mut(&serial)?.users = Some((real, effective));
        Some(serial)
    }

    /// A process ended.
    pub(super) fn exit(&mut self, pid: u32, at: u64) -> Option<Serial> {
        let serial = self.newest(pid).filter(|serial| self.lives(*serial))?;
        self.end(serial, at);
        Some(serial)
    }

    /// One that is followed is no longer in `/proc`.
    pub(super) fn end(&mut self, serial: Serial, at: u64) {
        if let Some(process) = self.processes.get_mut(&serial)
            && process.ended.is_none()
        {
            process.ended = Some(at);
            self.ended.push_back((at, serial));
        }
    }

    /// Takes in what `/proc` says of a process, if it is still the same one. Tells when it belongs to another login now.
    pub(super) fn heard(&mut self, serial: Serial, says: Says, now: u64) -> Option<Joined> {
        if !self.is_same(serial, &says) {
            return None;
        }
        let process = self.processes.get_mut(&serial)?;
        process.heard(says, now)
    }

    /// Files that a process opened to run, in the order in which it did; none where only those of earlier batches are put
    /// together with an exec that was told since. Returns from which on which program is what runs;
    /// a place before the first is one in what it ran before.
    pub(super) fn opened(
        &mut self,
        serial: Serial,
        opened: Vec<(usize, Arc<Executable>)>,
    ) -> Vec<(usize, Arc<Image>)> {
        match self.processes.get_mut(&serial) {
            Some(process) => process.opened(opened),
            None => Vec::new(),
        }
    }

    /// What a process runs where none of its files was opened in this batch. While more file events wait to be read, those of
    /// execs that were told already may be among them: then what is read now was done before.
    pub(super) fn runs(&self, serial: Serial, drained: bool) -> Option<Arc<Image>> {
        self.get(serial).map(|process| process.runs(drained))
    }

    /// Events were lost: from now on nothing that was followed is sure until it is seen again.
    pub(super) fn doubt(&mut self) {
        for process in self.processes.values_mut() {
            process.doubt();
        }
    }

    /// Nothing more can come that belongs to the execs until now.
    pub(super) fn settle(&mut self, serial: Serial) {
        if let Some(process) = self.processes.get_mut(&serial) {
            process.settle();
        }
    }

    /// Forgets those that ended long ago. `is_there` tells whether a process still exists though its first thread ended.
    pub(super) fn expire(&mut self, now: u64, mut is_there: impl FnMut(&Process) -> bool) {
        while let Some((at, serial)) = self.ended.front().copied() {
            if at.saturating_add(AFTERLIFE) > now {
                break;
            }
            self.ended.pop_front();
            if self.get(serial).is_some_and(&mut is_there) {
                self.ended.push_back((now, serial));
                if let Some(process) = self.processes.get_mut(&serial) {
                    process.ended = Some(now);
                }
            } else {
                self.forget(serial);
            }
        }
        self.give_up_room();
    }

    /// A storm of short-lived processes leaves nothing behind of the room that it took.
    fn give_up_room(&mut self) {
        let kept = 2 * self.processes.len().max(USUAL);
        if self.processes.capacity() > 2 * kept {
            self.processes.shrink_to(kept);
            self.holders.shrink_to(kept);
            self.ended.shrink_to(kept);
        }
    }

    fn lives(&self, serial: Serial) -> bool {
        self.get(serial)
            .is_some_and(|process| process.ended.is_none())
    }

    fn is_same(&self, serial: Serial, says: &Says) -> bool {
        self.get(serial)
            .is_some_and(|process| process.is_start(says.start))
    }

    fn insert(&mut self, process: Process) -> Option<Serial> {
        if let Some(older) = self
            .newest(process.pid)
            .filter(|serial| self.lives(*serial))
        {
            // Its end was not told.
            self.end(older, process.start);
        }
        if self.processes.len() >= LIMIT {
            match self.ended.pop_front() {
                Some((_, oldest)) => self.forget(oldest),
                None => {
                    self.untracked = self.untracked.saturating_add(1);
                    return None;
                }
            }
        }
        let serial = self.next;
        self.next += 1;
        self.holders.entry(process.pid).or_default().push(serial);
        self.processes.insert(serial, process);
        Some(serial)
    }

    fn forget(&mut self, serial: Serial) {
        let Some(process) = self.processes.remove(&serial) else {
            return;
        };
        if let Some(holders) = self.holders.get_mut(&process.pid) {
            holders.retain(|holder| *holder != serial);
            if holders.is_empty() {
                self.holders.remove(&process.pid);
            }
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
