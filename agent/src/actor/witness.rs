//! Who tells the reader of file events who did them: processes that are followed, or else `/proc` at that moment.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use super::{Attribution, Doer, Follower, Observer, Trouble};
use crate::scan::Root;
use crate::watch::record::Record;

/// What is told of processes, by the best means that the kernel grants.
#[derive(Debug)]
pub(crate) enum Witness {
    /// Every process from its start.
    Following(Box<Follower>),
    /// Each when its event is read.
    Asking(Observer),
}

impl Witness {
    /// Follows processes where that is granted. Otherwise says why not: then events of opened executables are of no use.
    pub(crate) fn start(root: &Root, attribution: &Attribution) -> (Self, Option<String>) {
        match Follower::start(root, attribution) {
            Ok(follower) => (Self::Following(Box::new(follower)), None),
            Err(error) => {
                let limit = format!(
                    "processes are looked up when their event is read ({error}): one that has ended by then is not named, and logins are not told"
                );
                (Self::Asking(Observer::default()), Some(limit))
            }
        }
    }

    /// What is ready to be read when something was told of processes.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Following(follower) => Some(follower.as_fd()),
            Self::Asking(_) => None,
        }
    }

    pub(crate) fn trouble(&self) -> Arc<Trouble> {
        match self {
            Self::Following(follower) => follower.trouble(),
            Self::Asking(_) => Arc::default(),
        }
    }

    /// Takes what was told of processes; call it between reading file events and resolving them, too.
    pub(crate) fn follow(&mut self) {
        if let Self::Following(follower) = self {
            follower.follow();
        }
    }

    /// There was nothing more to read of file events at this time.
    pub(crate) fn is_quiet(&mut self, at: u64) {
        match self {
            Self::Following(follower) => follower.is_quiet(at),
            Self::Asking(observer) => observer.begin(),
        }
    }

    /// Who did what each of these records tells; `drained` says that no more wait. Without `detail` less is told of each.
    pub(crate) fn resolve(
        &mut self,
        records: &[Record<'_>],
        until: u64,
        drained: bool,
        detail: bool,
    ) -> Vec<Arc<Doer>> {
        match self {
            Self::Following(follower) => follower.resolve(records, until, drained, detail),
            Self::Asking(observer) => records
                .iter()
                .map(|record| observer.observe(record.pid))
                .collect(),
        }
    }

    /// Whether root logged in since this was last asked.
    pub(crate) fn take_login_of_root(&mut self) -> bool {
        match self {
            Self::Following(follower) => follower.take_login_of_root(),
            Self::Asking(_) => false,
        }
    }
}
