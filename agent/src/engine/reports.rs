//! What the watch tells beside places: gaps to be opened, mounts with their makers, inodes whose paths are to be looked at.

use std::collections::BTreeSet;
use std::time::Instant;

use attestation::statement::{Actor, Gap};
use attestation::time::Timestamp;

use super::Engine;
use super::gaps::gap;
use super::looks::AS_TOLD;
use super::sweep::Occasion;
use super::touched::Touch;
use crate::clock;
use crate::monitor::Event;
use crate::scan::Writers;
use crate::watch::{Inode, RawWrite, Report};

/// Mount points of which it is kept who mounted last; when full all are forgotten.
const MOUNTERS: usize = 1_024;
/// The cause of a gap while the watch is known not to work.
const DEAF: &str = "canary";

impl Engine {
    pub(super) fn take_in_reports(&mut self, reports: Vec<Report>) {
        for report in reports {
            match report {
                Report::Mounted { path, actor } => {
                    if self.mounters.len() >= MOUNTERS {
                        self.mounters.clear();
                    }
                    let actor = self.without_cmdline(actor);
                    self.mounters.insert(path, actor);
                }
                Report::Foreign(mounts) => {
                    self.foreign = mounts;
                    self.check_mounts();
                }
                Report::ClockSet => self.read_all_again("clock", self.last_good),
                Report::Slept => self.rescan_after("suspend", self.last_good),
                Report::RawWrite(write) => self.written_raw(write),
                Report::Mapped(inodes) => {
                    let inodes: BTreeSet<u64> = inodes.iter().map(|inode| inode.ino).collect();
                    // A mapping is written to without the inode telling.
                    let mut occasion = self.by_rescan();
                    occasion.manner.writers = Writers::Always;
                    self.look_at_inodes(&inodes, &occasion);
                }
                Report::Inodes(aliased) => {
                    for alias in aliased {
                        let Inode { ino, .. } = alias.inode;
                        let occasion = Occasion {
                            events: alias.events.words().collect(),
                            actor: alias.actor.map(|actor| self.without_cmdline(actor)),
                            first: alias.last,
                            last: alias.last,
                            seeing: false,
                            manner: AS_TOLD,
                        };
                        self.look_at_inodes(&BTreeSet::from([ino]), &occasion);
                    }
                }
                Report::Deaf { since, place } => self.deaf(since, &place),
                Report::Hears => self.hears(),
            }
        }
    }

    fn without_cmdline(&self, mut actor: Actor) -> Actor {
        if !self.parts.cmdline {
            actor.cmdline = None;
        }
        actor
    }

    /// What happened since a time is unknown until everything was looked at.
    fn rescan_after(&mut self, cause: &str, from: Timestamp) {
        let now = clock::now();
        self.open_gap(gap(from.min(now), now, cause));
        self.since = Some(now);
        self.monitor.event(Instant::now(), Event::RescanWanted);
        self.monitor.event(Instant::now(), Event::Changed);
    }

    /// The same, and what inodes say of the time does not count: every byte is read.
    fn read_all_again(&mut self, cause: &str, from: Timestamp) {
        self.reread = true;
        self.rescan_after(cause, from);
    }

    fn written_raw(&mut self, write: RawWrite) {
        let touch = Touch {
            events: vec!["raw_write"],
            count: 1,
            first: write.first,
            last: write.last,
            actor: Some(self.without_cmdline(write.actor)),
            passed: false,
        };
        self.touched.add(&write.node, touch);
        self.read_all_again("raw-write", write.first);
    }

    /// The sealed paths of inodes are read now.
    fn look_at_inodes(&mut self, inodes: &BTreeSet<u64>, occasion: &Occasion) {
        for number in 0..self.groups.len() {
            let Some(group) = self.groups.get(number) else {
                continue;
            };
            match group.paths_of(inodes) {
                Ok(paths) => {
                    for path in paths {
                        self.look(number, &path, occasion, 1, false);
                    }
                }
                Err(error) => {
                    let error = crate::journal::chain(&error);
                    tracing::error!(%error, "read the lines of the image");
                }
            }
        }
    }

    fn deaf(&mut self, since: Timestamp, place: &str) {
        tracing::error!(place, "the watch does not work");
        let now = clock::now();
        self.open_gap(Gap {
            to: None,
            ..gap(since, now, DEAF)
        });
        self.since = None;
        self.monitor.event(Instant::now(), Event::RescanWanted);
        self.monitor.event(Instant::now(), Event::Changed);
    }

    fn hears(&mut self) {
        let now = clock::now();
        self.gaps.end(DEAF, now);
        self.since = Some(now);
        self.monitor.event(Instant::now(), Event::RescanWanted);
        self.monitor.event(Instant::now(), Event::Changed);
    }
}
