//! A look at every process that is there: at the start, and after events were lost.

use std::collections::HashSet;

use super::followed::Seen;
use super::follower::Follower;
use super::login;
use super::process::{self, Says};
use super::sessions;
use super::table::Serial;

impl Follower {
    /// Looks at every process: parents before their children, so that each finds its own.
    pub(super) fn scan(&mut self) {
        let before = self.table.living();
        let mut all: Vec<(u32, Says, Option<Vec<u8>>)> = process::all()
            .into_iter()
            .filter_map(|pid| {
                let there = process::Process::open(pid, self.clocks.asleep)?;
                let says = there.says(self.wants_cmdline(), true);
                let in_session = matches!(says.login, Some(Some(_)));
                let environment = in_session.then(|| there.environment()).flatten();
                Some((pid, says, environment))
            })
            .collect();
        all.sort_by_key(|(pid, says, _)| (says.start, *pid));
        let mut there = HashSet::new();
        for (pid, says, environment) in all {
            let found = self
                .table
                .found(pid, says.clone(), Seen::Midlife, self.clocks.now);
            if let Some((serial, _)) = found {
                there.insert(serial);
                self.enrol(serial, &says, environment.as_deref());
            }
        }
        for serial in before {
            if !there.contains(&serial) {
                self.table.end(serial, self.clocks.now);
                if let Some(process) = self.table.get(serial)
                    && let Some(login) = process.credit
                {
                    let now = self.clocks.at(self.clocks.now);
                    self.attribution
                        .ledger()
                        .left(login.session, process.pid, now, None);
                }
            }
        }
    }

    /// One of the processes that were there before is in a session.
    fn enrol(&self, serial: Serial, says: &Says, environment: Option<&[u8]>) {
        let Some(process) = self.table.get(serial) else {
            return;
        };
        let Some(login) = process.credit else {
            return;
        };
        let mut ledger = self.attribution.ledger();
        let started = self.clocks.at(process.start);
        ledger.joined(login.session, login.auid, process.pid, started);
        if let Some(tty) = sessions::tty(says.tty) {
            ledger.is_on(login.session, tty);
        }
        let service = says
            .exe
            .as_ref()
            .is_some_and(|exe| login::is_service(&exe.path));
        if let Some(peer) = environment.filter(|_| !service).and_then(sessions::peer) {
            ledger.is_from(login.session, peer);
        }
    }
}
