//! Who did it. Processes are followed from their start by the process connector and by what they open to run; where that is
//! not granted, they are looked up when their event is read.
//!
//! A number that may have been given anew is never guessed from: a process that nobody saw is told by its number alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attestation::statement::Actor;

pub(crate) use self::digests::ExeDigests;
pub(crate) use self::doer::Doer;
pub(crate) use self::lookup::Observer;
pub use self::sessions::Collect;
pub(crate) use self::sessions::Told;
pub(crate) use self::trouble::Trouble;
pub use self::users::{Users, user_name};
pub(crate) use self::witness::Witness;

pub(crate) mod clock;
pub mod connector;
mod control_group;
mod digests;
mod doer;
mod followed;
mod follower;
mod image;
mod login;
mod lookup;
mod process;
mod program;
mod scanning;
mod sessions;
mod socket;
mod table;
mod trouble;
mod users;
mod utmp;
mod witness;

use self::follower::Follower;

/// What is asked of those who did something, and what was seen of logins: shared by the watch that sees and the engine
/// that tells.
#[derive(Clone, Debug)]
pub struct Attribution {
    asked: Arc<Asked>,
    ledger: Arc<Mutex<sessions::Ledger>>,
}

/// What the configuration asks for; it may change while the watch runs.
#[derive(Debug)]
struct Asked {
    cmdline: AtomicBool,
    arguments: AtomicBool,
}

impl Attribution {
    /// With or without command lines of actors, logins, and arguments of the commands in them.
    #[must_use]
    pub fn new(cmdline: bool, collect: Collect, arguments: bool) -> Self {
        Self {
            asked: Arc::new(Asked {
                cmdline: AtomicBool::new(cmdline),
                arguments: AtomicBool::new(arguments && collect == Collect::Commands),
            }),
            ledger: Arc::new(Mutex::new(sessions::Ledger::new(collect))),
        }
    }

    /// Another configuration holds from now on; what was seen before is told as it was collected.
    pub(crate) fn change(&self, cmdline: bool, collect: Collect, arguments: bool) {
        let arguments = arguments && collect == Collect::Commands;
        self.asked.cmdline.store(cmdline, Ordering::Relaxed);
        self.asked.arguments.store(arguments, Ordering::Relaxed);
        self.ledger().collect(collect);
    }

    fn cmdline(&self) -> bool {
        self.asked.cmdline.load(Ordering::Relaxed)
    }

    fn arguments(&self) -> bool {
        self.asked.arguments.load(Ordering::Relaxed)
    }

    /// Whether the next statement has something to say of logins.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.ledger().has_news()
    }

    /// What changed of logins since the last statement, in at most so many bytes.
    pub(crate) fn tell(&self, bytes: usize, name: impl Fn(u32) -> Option<String>) -> Told {
        self.ask_utmp();
        let mut told = self.ledger().tell(bytes);
        for session in &mut told.sessions {
            session.user = name(session.auid);
        }
        told
    }

    /// They are in a statement that is kept.
    pub(crate) fn clear(&self, told: &Told) {
        self.ledger().clear(told);
    }

    fn ledger(&self) -> MutexGuard<'_, sessions::Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up sessions whose peer no process told in the login records.
    fn ask_utmp(&self) {
        let mut ledger = self.ledger();
        if ledger.of_unknown_peers().next().is_none() {
            return;
        }
        for record in utmp::read() {
            let session = ledger
                .of_unknown_peers()
                .find(|(_, living)| living.contains(&record.pid))
                .map(|(session, _)| session);
            if let Some(session) = session {
                if let Some(host) = record.host {
                    ledger.is_from(session, host);
                }
                if let Some(tty) = record.tty {
                    ledger.is_on(session, tty);
                }
            }
        }
    }
}

impl Default for Attribution {
    fn default() -> Self {
        Self::new(true, Collect::default(), false)
    }
}

/// Whether one is the other with less known of it.
pub(crate) fn knows_less(one: &Actor, other: &Actor) -> bool {
    one.pid == other.pid && one.exe.is_none() && other.exe.is_some()
}
