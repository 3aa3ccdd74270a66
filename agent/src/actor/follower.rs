//! Following processes: the edge of the table. It receives events, asks `/proc` at once where an event says that there is
//! something new, and tells for the records of a batch who did it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::clock::Clocks;
use super::connector::{Message, What};
use super::doer::Doer;
use super::followed::{Joined, Seen};
use super::image::Image;
use super::login;
use super::process;
use super::program::{Executable, Programs};
use super::sessions;
use super::socket::{BUFFER, Received, Socket};
use super::table::{Holder, Serial, Table};
use super::trouble::Trouble;
use super::{Attribution, clock};
use crate::scan::Root;
use crate::watch::record::Record;

/// Login and control group of a living process are asked for again after this: no event tells of their change.
const STALE: u64 = 1_000_000_000;
/// Datagrams received before the caller has its turn; what is left waits in the socket.
const AT_ONCE: usize = 16_384;

#[derive(Debug)]
pub(crate) struct Follower {
    socket: Socket,
    pub(super) table: Table,
    programs: Programs,
    pub(super) attribution: Attribution,
    trouble: Arc<Trouble>,
    /// Processes with execs or opened files that are not put together yet.
    unsettled: HashSet<Serial>,
    /// When there was last nothing more to read of file events.
    quiet_since: u64,
    /// Processes asked in this turn.
    turn: u64,
    pub(super) clocks: Clocks,
    login_of_root: bool,
}

impl Follower {
    /// Subscribes, then looks at every process that is there.
    pub(crate) fn start(root: &Root, attribution: &Attribution) -> io::Result<Self> {
        Ok(Self::with(Socket::subscribe(BUFFER)?, root, attribution))
    }

    fn with(socket: Socket, root: &Root, attribution: &Attribution) -> Self {
        let mut follower = Self {
            socket,
            table: Table::default(),
            programs: Programs::new(root),
            attribution: attribution.clone(),
            trouble: Arc::default(),
            unsettled: HashSet::new(),
            quiet_since: clock::monotonic(),
            turn: 0,
            clocks: Clocks::look(),
            login_of_root: false,
        };
        follower.scan();
        follower
    }

    pub(crate) fn trouble(&self) -> Arc<Trouble> {
        Arc::clone(&self.trouble)
    }

    /// Whether root logged in since this was last asked.
    pub(crate) fn take_login_of_root(&mut self) -> bool {
        std::mem::take(&mut self.login_of_root)
    }

    /// Takes what was told of processes until there is nothing more.
    pub(crate) fn follow(&mut self) {
        self.clocks = Clocks::look();
        self.turn = self.clocks.now;
        let mut lost = false;
        for _ in 0..AT_ONCE {
            match self.socket.receive() {
                Received::Empty => break,
                Received::Lost => lost = true,
                Received::Messages(messages) => {
                    for message in messages {
                        self.take(message);
                    }
                }
            }
        }
        if lost {
            self.trouble.lost_events();
            self.table.doubt();
            self.scan();
        }
        let asleep = self.clocks.asleep;
        self.table.expire(self.clocks.now, |ended| {
            process::Process::open(ended.pid, asleep)
                .is_some_and(|there| ended.is_start(there.start()))
        });
        self.trouble.left_out(self.table.untracked());
    }

    /// There is nothing more to read of file events: what was told of execs until now is complete.
    pub(crate) fn is_quiet(&mut self, at: u64) {
        self.quiet_since = at;
        for serial in self.unsettled.drain() {
            self.table.settle(serial);
        }
    }

    /// Who did what each of these records tells; they were read by `until`, and `drained` says that no more wait. Call
    /// [`Self::follow`] between reading and this. Without `detail` less is told of each.
    pub(crate) fn resolve(
        &mut self,
        records: &[Record<'_>],
        until: u64,
        drained: bool,
        detail: bool,
    ) -> Vec<Arc<Doer>> {
        let mut held = self.opened(records, until);
        let mut holders = HashMap::new();
        let mut doers: HashMap<(Serial, *const Image), Arc<Doer>> = HashMap::new();
        let mut result = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let Some(pid) = u32::try_from(record.pid).ok().filter(|pid| *pid > 0) else {
                result.push(Arc::default());
                continue;
            };
            let holder = *holders
                .entry(pid)
                .or_insert_with(|| self.holder(pid, until));
            let Holder::One(serial) = holder else {
                result.push(Arc::new(Doer::unknown(pid)));
                continue;
            };
            let held = held
                .entry(serial)
                .or_insert_with(|| self.table.opened(serial, Vec::new()));
            let before = held.partition_point(|(place, _)| *place < place_of(index));
            let by_place = before.checked_sub(1).and_then(|index| held.get(index));
            let image = match by_place {
                Some((_, image)) => Some(Arc::clone(image)),
                None => self.table.runs(serial, drained),
            };
            let Some((image, process)) = image.zip(self.table.get(serial)) else {
                result.push(Arc::new(Doer::unknown(pid)));
                continue;
            };
            let doer = doers
                .entry((serial, Arc::as_ptr(&image)))
                .or_insert_with(|| Arc::new(Doer::of(process, &image, detail)));
            result.push(Arc::clone(doer));
        }
        result
    }

    /// Hands the files opened for execs to the processes that opened them.
    fn opened(
        &mut self,
        records: &[Record<'_>],
        until: u64,
    ) -> HashMap<Serial, Vec<(usize, Arc<Image>)>> {
        let mut opened: HashMap<u32, Vec<(usize, Arc<Executable>)>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            if record.mask & libc::FAN_OPEN_EXEC == 0 {
                continue;
            }
            if let Some(pid) = u32::try_from(record.pid).ok().filter(|pid| *pid > 0)
                && let Some(executable) = self.programs.find(record)
            {
                // What came in the same record was done before.
                let place = place_of(index).saturating_add(1);
                opened.entry(pid).or_default().push((place, executable));
            }
        }
        let mut held = HashMap::new();
        for (pid, files) in opened {
            if let Holder::One(serial) = self.table.holder(pid, self.quiet_since, until) {
                self.unsettled.insert(serial);
                held.insert(serial, self.table.opened(serial, files));
            }
        }
        held
    }

    /// Who held a number while what is resolved was done; asked for again where `/proc` may say more.
    fn holder(&mut self, pid: u32, until: u64) -> Holder {
        match self.table.holder(pid, self.quiet_since, until) {
            Holder::One(serial) => {
                self.ask_again(serial);
                Holder::One(serial)
            }
            Holder::Several => Holder::Several,
            Holder::Nobody => {
                // Whoever has the number now is it only if it was there then.
                let says = process::Process::open(pid, self.clocks.asleep)
                    .filter(|process| process.start() <= until)
                    .map(|process| process.says(self.wants_cmdline(), true));
                let found =
                    says.and_then(|says| self.table.found(pid, says, Seen::Late, self.clocks.now));
                found.map_or(Holder::Nobody, |(serial, joined)| {
                    self.joined(serial, joined);
                    Holder::One(serial)
                })
            }
        }
    }

    fn ask_again(&mut self, serial: Serial) {
        let Some(process) = self.table.get(serial) else {
            return;
        };
        let stale = self.clocks.now.saturating_sub(process.asked) > STALE;
        let cmdline = self.attribution.cmdline() && process.image.cmdline().is_none();
        if process.ended.is_some() || !(stale || !process.confirmed || cmdline) {
            return;
        }
        let Some(there) = process::Process::open(process.pid, self.clocks.asleep)
            .filter(|there| process.is_start(there.start()))
        else {
            return;
        };
        if process.image.was_asked() && cmdline {
            // Between its exec and its first instruction a process has no command line yet.
            process.image.say(None, there.cmdline());
        }
        let says = if process.confirmed {
            there.belongs()
        } else {
            there.says(self.attribution.cmdline(), false)
        };
        let joined = self.table.heard(serial, says, self.clocks.now);
        self.joined(serial, joined);
    }

    fn take(&mut self, message: Message) {
        let Message { at, what } = message;
        match what {
            What::Answer(_) | What::Group { .. } => {}
            What::Fork { parent, child } => self.forked(parent, child, at),
            What::Exec { pid } => self.executed(pid, at),
            What::User {
                pid,
                real,
                effective,
            } => {
                if let Some(serial) = self.table.users(pid, real, effective) {
                    // Whoever lets somebody in sets the login before the user.
                    self.belongs(serial);
                }
            }
            What::Exit { pid, status } => self.ended(pid, at, status),
        }
    }

    fn forked(&mut self, parent: u32, child: u32, at: u64) {
        // No event tells that a process set its login user or was put into another control group.
        if let Some(serial) = self.table.newest(parent) {
            self.belongs(serial);
        }
        if let Some(serial) = self.table.fork(parent, child, at)
            && let Some(process) = self.table.get(serial)
            && let Some(login) = process.credit
        {
            let began = self.attribution.ledger().joined(
                login.session,
                login.auid,
                child,
                self.clocks.at(at),
            );
            self.login_of_root |= began && login.auid == 0;
        }
    }

    fn executed(&mut self, pid: u32, at: u64) {
        let known = self
            .table
            .newest(pid)
            .and_then(|serial| self.table.get(serial));
        let users = known.is_none_or(|process| process.users.is_none());
        let there = process::Process::open(pid, self.clocks.asleep);
        let says = there
            .as_ref()
            .map(|there| there.says(self.wants_cmdline(), users));
        let tty = says.as_ref().and_then(|says| sessions::tty(says.tty));
        let Some((serial, joined)) = self.table.exec(pid, at, says) else {
            return;
        };
        self.unsettled.insert(serial);
        self.joined(serial, joined);
        let Some(process) = self.table.get(serial) else {
            return;
        };
        let Some(login) = process.credit else {
            return;
        };
        let image = Arc::clone(&process.image);
        let arguments = image
            .cmdline()
            .filter(|_| self.attribution.arguments())
            .map(str::to_owned);
        let mut ledger = self.attribution.ledger();
        ledger.ran(login.session, pid, self.clocks.at(at), image, arguments);
        if let Some(tty) = tty {
            ledger.is_on(login.session, tty);
        }
        // A login service's own environment is that of whoever started it.
        let service = process
            .image
            .exe()
            .is_some_and(|(exe, _)| login::is_service(&exe.path));
        if !service
            && ledger.wants_peer(login.session)
            && let Some(peer) = there
                .and_then(|there| there.environment())
                .and_then(|environment| sessions::peer(&environment))
        {
            ledger.is_from(login.session, peer);
        }
    }

    fn ended(&mut self, pid: u32, at: u64, status: u32) {
        if let Some(serial) = self.table.exit(pid, at)
            && let Some(process) = self.table.get(serial)
            && let Some(login) = process.credit
        {
            self.attribution
                .ledger()
                .left(login.session, pid, self.clocks.at(at), Some(status));
        }
    }

    /// Asks where a living process belongs, once a turn.
    fn belongs(&mut self, serial: Serial) {
        let Some(process) = self.table.get(serial) else {
            return;
        };
        if process.ended.is_some() || process.asked >= self.turn {
            return;
        }
        if let Some(there) = process::Process::open(process.pid, self.clocks.asleep) {
            let joined = self.table.heard(serial, there.belongs(), self.clocks.now);
            self.joined(serial, joined);
        }
    }

    fn joined(&mut self, serial: Serial, joined: Option<Joined>) {
        let (Some(Joined { login, left }), Some(process)) = (joined, self.table.get(serial)) else {
            return;
        };
        let mut ledger = self.attribution.ledger();
        let now = self.clocks.at(self.clocks.now);
        if let Some(left) = left {
            ledger.left(left.session, process.pid, now, None);
        }
        let began = ledger.joined(login.session, login.auid, process.pid, now);
        drop(ledger);
        self.login_of_root |= began && login.auid == 0;
    }

    pub(super) fn wants_cmdline(&self) -> bool {
        self.attribution.cmdline() || self.attribution.arguments()
    }
}

/// Where in a batch a record stands.
fn place_of(index: usize) -> usize {
    index.saturating_mul(2).saturating_add(1)
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
