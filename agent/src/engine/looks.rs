//! Looking: what an event, a sweep or a second thought points at is read now, and the view corrected.

use std::time::Instant;

use attestation::path::ImagePath;
use attestation::statement::Actor;
use attestation::time::Timestamp;

use super::group::{Observed, short};
use super::sweep::{Occasion, Step, Sweep, Swept};
use super::touched::Touch;
use super::{Engine, RECHECK, RECHECKED, SUBTREES, gap};
use crate::clock;
use crate::monitor::Event;
use crate::scan::{Reading, ScanOptions, read_entry};
use crate::watch::{EventSet, Place, Taken};

impl Engine {
    /// Takes in what the watch says.
    pub(super) fn take_in(&mut self, taken: Option<Taken>) {
        let Some(taken) = taken else { return };
        for place in taken.places {
            self.look_at_place(place);
        }
        let now = clock::now();
        match taken.lost {
            Some(lost) => {
                self.open_gap(gap(self.last_good, now, &lost.cause));
                self.since = Some(now);
                self.monitor.event(Instant::now(), Event::RescanWanted);
                self.monitor.event(Instant::now(), Event::Changed);
            }
            None => self.last_good = now,
        }
        if taken.mounts_changed {
            self.check_mounts();
        }
    }

    fn look_at_place(&mut self, mut place: Place) {
        if !self.parts.cmdline
            && let Some(actor) = &mut place.actor
        {
            actor.cmdline = None;
        }
        let came = place
            .events
            .intersects(EventSet::CREATE.union(EventSet::RENAME));
        let occasion = Occasion {
            events: place.events.words().collect(),
            actor: place.actor,
            first: place.first,
            last: place.last,
        };
        for group in 0..self.groups.len() {
            let directory = self.look(group, &place.path, &occasion, place.count, came);
            if place.subtree {
                self.look_below(group, &place.path, directory, &occasion);
            }
        }
    }

    /// Reads what is at a path now. Returns whether a directory is there; nothing where the scope does not seal the path.
    fn look(
        &mut self,
        number: usize,
        path: &ImagePath,
        occasion: &Occasion,
        count: u64,
        came: bool,
    ) -> Option<bool> {
        let eyes = self.eyes.as_ref()?;
        let group = self.groups.get(number)?;
        let decision = group.sealed(path)?;
        let observed = Observed::from(read_entry(&eyes.root, path, decision));
        self.settle(number, path, observed, occasion, count, came)
    }

    /// Corrects the view by what was read.
    fn settle(
        &mut self,
        number: usize,
        path: &ImagePath,
        observed: Observed,
        occasion: &Occasion,
        count: u64,
        came: bool,
    ) -> Option<bool> {
        let group = self.groups.get_mut(number)?;
        let effect = match group.apply(path, observed, occasion.actor.as_ref(), occasion.last) {
            Ok(effect) => effect,
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(%path, %error, "compare with the image");
                return None;
            }
        };
        if effect.touched || (effect.absent && came) {
            let touch = Touch {
                events: occasion.events.clone(),
                count,
                first: occasion.first,
                last: occasion.last,
                actor: occasion.actor.clone(),
            };
            self.touched.add(path, touch);
        }
        if effect.changed || effect.touched || (effect.absent && came) {
            self.monitor.event(Instant::now(), Event::Changed);
        }
        Some(effect.directory)
    }

    /// A directory came, went or moved.
    fn look_below(
        &mut self,
        number: usize,
        path: &ImagePath,
        directory: Option<bool>,
        occasion: &Occasion,
    ) {
        if directory == Some(false) {
            // Nothing can be below what is not a directory.
            for below in self.known_below(number, path) {
                if below != *path {
                    self.settle(
                        number,
                        &below,
                        Observed::from(Reading::Absent),
                        occasion,
                        1,
                        false,
                    );
                }
            }
            return;
        }
        if self.subtrees.len() >= SUBTREES {
            let now = clock::now();
            self.open_gap(gap(occasion.first, now, "backlog"));
            self.subtrees.clear();
            self.monitor.event(Instant::now(), Event::RescanWanted);
            return;
        }
        self.subtrees
            .push_back((number, path.clone(), occasion.clone()));
    }

    fn known_below(&self, number: usize, path: &ImagePath) -> Vec<ImagePath> {
        let Some(group) = self.groups.get(number) else {
            return Vec::new();
        };
        match group.known_below(path) {
            Ok(known) => known.into_iter().collect(),
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(%path, %error, "read the lines of the image");
                Vec::new()
            }
        }
    }

    /// Starts to look at everything, mounts at once.
    pub(super) fn start_rescan(&mut self) {
        self.check_mounts();
        let mut started = false;
        for number in 0..self.groups.len() {
            started |= self.start_sweep(number, ImagePath::root(), None);
        }
        if !started {
            self.monitor.event(Instant::now(), Event::Rescanned);
        }
    }

    fn start_sweep(&mut self, number: usize, below: ImagePath, occasion: Option<Occasion>) -> bool {
        let (Some(eyes), Some(group)) = (&self.eyes, self.groups.get(number)) else {
            return false;
        };
        // A rescan is no hurry: one thread leaves the others to whoever works here.
        let options = ScanOptions { threads: 1 };
        let root = eyes.root.clone();
        match Sweep::start(root, group.scope.clone(), below, number, occasion, options) {
            Ok(sweep) => {
                self.sweeps.push(sweep);
                true
            }
            Err(error) => {
                tracing::error!(%error, "start the thread of a rescan");
                false
            }
        }
    }

    /// Takes in what the sweeps brought, ends those that are over, starts what waits.
    pub(super) fn advance_sweeps(&mut self) {
        let mut running = std::mem::take(&mut self.sweeps);
        for index in (0..running.len()).rev() {
            let Some(sweep) = running.get_mut(index) else {
                continue;
            };
            match sweep.take() {
                Step::Wait => {}
                Step::Some(swept) => {
                    let (number, occasion) = (sweep.group, sweep.occasion.clone());
                    for swept in swept {
                        sweep.seen.insert(short(&swept.key));
                        self.take_in_swept(number, &swept, occasion.as_ref());
                    }
                }
                Step::Over(whole) => {
                    let sweep = running.swap_remove(index);
                    self.end_sweep(&sweep, whole);
                }
            }
        }
        self.sweeps.extend(running);
        if !self.sweeps.iter().any(|sweep| !sweep.is_full())
            && let Some((number, path, occasion)) = self.subtrees.pop_front()
        {
            self.start_sweep(number, path, Some(occasion));
        }
    }

    fn take_in_swept(&mut self, number: usize, swept: &Swept, occasion: Option<&Occasion>) {
        let Some(group) = self.groups.get(number) else {
            return;
        };
        let known = match swept.there {
            Some((leaf, mark)) => group.is_as_read(&swept.key, leaf, mark),
            None => group.unreadable.contains_key(&swept.path),
        };
        if known {
            return;
        }
        let occasion = occasion.cloned().unwrap_or_else(by_rescan);
        self.look(number, &swept.path, &occasion, 1, false);
    }

    fn end_sweep(&mut self, sweep: &Sweep, whole: bool) {
        let missing = self
            .groups
            .get(sweep.group)
            .is_some_and(|group| !sweep.is_full() || sweep.seen.len() != group.tree.len());
        if whole && missing {
            let occasion = sweep.occasion.clone().unwrap_or_else(by_rescan);
            for path in self.known_below(sweep.group, &sweep.below) {
                if !sweep.seen.contains(&short(&path.key())) {
                    self.look(sweep.group, &path, &occasion, 1, false);
                }
            }
        }
        if !sweep.is_full() || self.sweeps.iter().any(Sweep::is_full) {
            return;
        }
        let now = Instant::now();
        self.monitor.event(now, Event::Rescanned);
        let before = self.gaps.len();
        if whole {
            self.gaps
                .retain(|gap| gap.to.is_none_or(|to| to > sweep.started));
        }
        if self.gaps.len() < before {
            tracing::info!("gap closed by a rescan");
            self.monitor.event(now, Event::Changed);
        }
    }

    /// Looks again at what was being written, and at what could not be read.
    pub(super) fn recheck(&mut self) {
        let now = Instant::now();
        if now < self.recheck_at {
            return;
        }
        self.recheck_at = now + RECHECK;
        for number in 0..self.groups.len() {
            let Some(group) = self.groups.get(number) else {
                continue;
            };
            let paths: Vec<ImagePath> = group
                .unsettled
                .iter()
                .chain(group.unreadable.keys())
                .take(RECHECKED)
                .cloned()
                .collect();
            for path in paths {
                self.look(number, &path, &by_rescan(), 1, false);
            }
        }
    }
}

/// Nobody told: the inode did.
fn by_rescan() -> Occasion {
    let now: Timestamp = clock::now();
    let actor: Option<Actor> = None;
    Occasion {
        events: vec!["ctime"],
        actor,
        first: now,
        last: now,
    }
}
