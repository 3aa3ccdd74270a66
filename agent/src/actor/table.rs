//! The processes, followed from their start: events and what `/proc` said go in, who held a number at a time comes out.
//! Pure: no clock, no file. Times are nanoseconds of the monotonic clock.
//!
//! A process is a number and a start; one that ended is kept for a while, because its file events are read after its end.
//! Two that held one number within the same while are told as nobody.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::image::Image;
use super::login::{self, Step};
use super::process::{Login, Says};
use super::program::Executable;

/// Processes followed at a time. The kernel's own default limit is half of that on small machines and numbers are given
/// up to 32,768 there; at some 500 bytes each they are 32 MiB at the worst.
const LIMIT: usize = 65_536;
/// How long one that ended is kept: file events are read long before.
const AFTERLIFE: u64 = 60_000_000_000;
/// Parents kept of each process.
pub(super) const FOREBEARS: usize = 8;
/// Start times read from `/proc` are exact to a clock tick of 10 ms, and so is the difference of two clocks.
const TOLERANCE: u64 = 25_000_000;
/// Files opened for execs, and execs, that wait to be put together; a longer chain within one batch is cut.
const WINDOW: usize = 64;

/// A process as long as it is kept.
pub(super) type Serial = u64;

/// A parent as it was when it forked.
#[derive(Clone, Debug)]
pub(super) struct Forebear {
    pub(super) pid: u32,
    pub(super) image: Arc<Image>,
    root: bool,
    credit: Option<Login>,
}

/// Since when a process is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Its fork was told.
    FromStart,
    /// It was there before, and was found in `/proc`.
    Midlife,
    /// Nobody told of it until something it did was read.
    Late,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) ended: Option<u64>,
    pub(super) seen: Seen,
    pub(super) image: Arc<Image>,
    /// `/proc` has confirmed what it runs: a child may be told under another parent than the one that made it.
    pub(super) confirmed: bool,
    pub(super) users: Option<(u32, u32)>,
    /// What its login user is set to.
    pub(super) login: Option<Login>,
    /// The login that it is believed to belong to.
    pub(super) credit: Option<Login>,
    pub(super) cgroup: Option<Arc<str>>,
    pub(super) forebears: Arc<[Forebear]>,
    /// When `/proc` was last asked for login and control group.
    pub(super) asked: u64,
    window: Option<Box<Window>>,
}

/// Execs that were told while the files opened for them may still come.
#[derive(Debug)]
struct Window {
    before: Arc<Image>,
    images: Vec<Arc<Image>>,
    opened: Vec<Arc<Executable>>,
}

/// Who held a number at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    One(Serial),
    /// More than one: which cannot be told.
    Several,
}

/// A process belongs to a login from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) login: Login,
    /// The one that it belonged to before.
    pub(super) left: Option<Login>,
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
        process.confirmed = true;
        let window = process.window();
        if window.images.len() >= WINDOW {
            window.images.remove(0);
        }
        window.images.push(Arc::clone(&image));
        process.image = image;
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
        process.asked = now;
        if let Some(users) = says.users {
            process.users = Some(users);
        }
        if let Some(cgroup) = says.cgroup
            && process.cgroup.as_deref() != Some(&*cgroup)
        {
            process.cgroup = Some(cgroup.into());
        }
        if process.window.is_none() && !process.confirmed && says.exe.is_some() {
            process.confirm(says.exe, says.cmdline);
        }
        if let Some(login) = says.login {
            process.login = login;
        }
        process.join()
    }

    /// Files that a process opened to run, in the order in which it did; none where only those of earlier batches are put
    /// together with an exec that was told since. Returns from which on which program is what runs;
    /// a place before the first is one in what it ran before.
    pub(super) fn opened(
        &mut self,
        serial: Serial,
        opened: Vec<(usize, Arc<Executable>)>,
    ) -> Vec<(usize, Arc<Image>)> {
        let Some(process) = self.processes.get_mut(&serial) else {
            return Vec::new();
        };
        if opened.is_empty() && process.window.is_none() {
            return Vec::new();
        }
        let window = process.window();
        // What was opened before stands before everything of this batch.
        let mut places = vec![0; window.opened.len()];
        for (place, file) in opened {
            places.push(place);
            window.opened.push(file);
        }
        let excess = window.opened.len().saturating_sub(WINDOW);
        window.opened.drain(..excess);
        places.drain(..excess);
        let mut held: Vec<_> = super::image::pair(&window.opened, &window.images)
            .into_iter()
            .map(|(last, image)| (places.get(last).copied().unwrap_or(0), image))
            .collect();
        if let Some((first, _)) = held.first()
            && *first > 0
        {
            held.insert(0, (0, Arc::clone(&window.before)));
        }
        held
    }

    /// What a process runs where none of its files was opened in this batch. While more file events wait to be read, those of
    /// execs that were told already may be among them: then what is read now was done before.
    pub(super) fn runs(&self, serial: Serial, drained: bool) -> Option<Arc<Image>> {
        let process = self.get(serial)?;
        let before = process
            .window
            .as_ref()
            .filter(|window| !drained && window.opened.is_empty())
            .map(|window| &window.before);
        Some(Arc::clone(before.unwrap_or(&process.image)))
    }

    /// Events were lost: from now on nothing that was followed is sure until it is seen again.
    pub(super) fn doubt(&mut self) {
        for process in self.processes.values_mut() {
            process.seen = Seen::Midlife;
            process.confirmed = false;
            process.window = None;
        }
    }

    /// Nothing more can come that belongs to the execs until now.
    pub(super) fn settle(&mut self, serial: Serial) {
        let Some(process) = self.processes.get_mut(&serial) else {
            return;
        };
        // Files opened for an exec that was not told yet wait for it.
        if let Some(window) = process.window.take_if(|window| !window.images.is_empty()) {
            super::image::pair(&window.opened, &window.images);
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

impl Process {
    fn new(pid: u32, start: u64, seen: Seen) -> Self {
        Self {
            pid,
            start,
            ended: None,
            seen,
            image: Arc::new(Image::default()),
            confirmed: false,
            users: None,
            login: None,
            credit: None,
            cgroup: None,
            forebears: Arc::default(),
            asked: 0,
            window: None,
        }
    }

    fn child(parent: &Self, pid: u32, start: u64) -> Self {
        Self {
            image: Arc::clone(&parent.image),
            users: parent.users,
            login: parent.login,
            credit: parent.credit,
            cgroup: parent.cgroup.clone(),
            forebears: parent.line(),
            ..Self::new(pid, start, Seen::FromStart)
        }
    }

    /// Whether a start time, as `/proc` has it, is that of this process.
    pub(super) fn is_start(&self, start: u64) -> bool {
        self.start.abs_diff(start) <= TOLERANCE
    }

    /// Whether its login is not what it is believed to be.
    pub(super) fn is_doubtful(&self) -> bool {
        self.login != self.credit
    }

    /// The forebears of its children.
    fn line(&self) -> Arc<[Forebear]> {
        let own = Forebear {
            pid: self.pid,
            image: Arc::clone(&self.image),
            root: self.is_root(),
            credit: self.credit,
        };
        std::iter::once(own)
            .chain(self.forebears.iter().cloned())
            .take(FOREBEARS)
            .collect()
    }

    fn is_root(&self) -> bool {
        self.users.is_some_and(|(_, effective)| effective == 0)
    }

    fn window(&mut self) -> &mut Window {
        let before = &self.image;
        self.window.get_or_insert_with(|| {
            Box::new(Window {
                before: Arc::clone(before),
                images: Vec::new(),
                opened: Vec::new(),
            })
        })
    }

    /// What it runs without an exec of its own is its parent's program, or of whoever made it in that one's name.
    fn confirm(&mut self, exe: Option<Arc<Executable>>, cmdline: Option<String>) {
        self.confirmed = true;
        let same = match (&exe, self.image.exe()) {
            (Some(asked), Some((known, _))) => asked.is_same_file(known),
            _ => false,
        };
        if !same {
            self.image = Arc::new(Image::asked(exe, cmdline));
        }
    }

    fn join(&mut self) -> Option<Joined> {
        let login = self.login?;
        if self.credit == Some(login) {
            return None;
        }
        let own = Step {
            exe: self.image.exe().map(|(exe, _)| exe.path.as_str()),
            root: self.is_root(),
            credit: self.credit,
        };
        let above = self.forebears.iter().map(|forebear| Step {
            exe: forebear.image.exe().map(|(exe, _)| exe.path.as_str()),
            root: forebear.root,
            credit: forebear.credit,
        });
        let given = login::is_given(
            login,
            self.cgroup.as_deref(),
            std::iter::once(own).chain(above),
        );
        let left = self.credit;
        if given {
            self.credit = Some(login);
        }
        given.then_some(Joined { login, left })
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
