//! Rungs A to C: fanotify groups with marks on each superblock in scope, the thread that reads them, and what it told.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use attestation::scope::Scope;
use attestation::statement::{Rung, WatchCoverage};
use rustix::event::EventfdFlags;

use super::board::{Board, Key, Seen};
use super::busy::Busy;
use super::canary::Canaries;
use super::counts::LinkCounts;
use super::handles::Resolver;
use super::ladder::{self, Marked};
use super::reader::Reader;
use super::report::Aliased;
use super::{Attributed, Place};
use crate::actor::{Attribution, Trouble, Witness};
use crate::scan::Root;

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
