//! Looking: what an event, a sweep or a second thought points at is read now, and the view corrected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use attestation::path::ImagePath;
use attestation::statement::{Actor, Gap};
use attestation::time::Timestamp;

use super::afar::{Far, LARGE};
use super::gaps::gap;
use super::group::Observed;
use super::marks::short;
use super::pins::Closely;
use super::sweep::{CLOSELY, Depth, Occasion, Step, Sweep, Swept, There};
use super::touched::Touch;
use super::wanted::Wanted;
use super::{Engine, RECHECK, RECHECKED, SUBTREES, SWEEP_THREADS};
use crate::clock;
use crate::monitor::Event;
use crate::scan::{Manner, Reading, ScanOptions, Writers, listing, read_entry_wanted};
use crate::watch::{EventSet, Place, Taken};

/// After an event.
pub(super) const AS_TOLD: Manner = Manner {
    from_storage: false,
    writers: Writers::Recent,
};

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
        self.take_in_reports(taken.reports);
        if taken.mounts_changed {
            self.check_mounts();
        }
        if taken.login_of_root {
            self.monitor.event(Instant::now(), Event::Changed);
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
            seeing: false,
            manner: AS_TOLD,
        };
        if let Some(decision) = self.pins.decide(&place.path) {
            self.look_pinned(&place.path, decision, &occasion, Closely::Told);
        }
        if place.subtree {
            self.look_at_pins(&place.path, &occasion);
        }
        for group in 0..self.groups.len() {
            let directory = self.look(group, &place.path, &occasion, place.count, came);
            if place.subtree {
                self.look_below(group, &place.path, directory, &occasion);
            }
        }
    }

    /// Reads what is at a path now. Returns whether a directory is there; nothing where the scope does not seal the path.
    pub(super) fn look(
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
        let started = clock::now();
        let wanted = Wanted::in_group(group);
        let large = AtomicBool::new(false);
        let reading = read_entry_wanted(
            &eyes.root,
            path,
            decision,
            &|path, size| {
                let content = wanted.content(path, size);
                let far = content && size >= LARGE;
                large.fetch_or(far, Ordering::Relaxed);
                content && !far
            },
            occasion.manner,
        );
        if large.into_inner() {
            self.read_afar(Far {
                group: number,
                path: path.clone(),
                decision,
                occasion: occasion.clone(),
                count,
                came,
            });
            return Some(false);
        }
        let mut observed = Observed::of(reading, started);
        let is_directory = observed.mark.is_some_and(|mark| mark.is_directory());
        let doubted = is_directory && group.unreadable.contains_key(path);
        if doubted && let Err(error) = listing(&eyes.root, path) {
            observed = Observed::of(Reading::Unreadable { error }, started);
        }
        let is_listed = doubted && observed.error.is_none();
        let directory = self.settle(number, path, observed, occasion, count, came);
        if is_listed {
            // What lies in it may not have been seen until now.
            self.look_below(number, path, directory, occasion);
        }
        directory
    }

    /// A walk could not read what is there. A directory may be well by itself, and yet not be listed.
    fn look_at_unreadable(&mut self, number: usize, path: &ImagePath, occasion: &Occasion) {
        if self.look(number, path, occasion, 1, false) != Some(true) {
            return;
        }
        let Some(eyes) = &self.eyes else { return };
        if let Err(error) = listing(&eyes.root, path) {
            let observed = Observed::of(Reading::Unreadable { error }, occasion.last);
            self.settle(number, path, observed, occasion, 1, false);
        }
    }

    /// Corrects the view by what was read.
    pub(super) fn settle(
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
        let touched = effect.touched && (effect.changed || !occasion.seeing);
        if touched || (effect.absent && came) {
            let touch = Touch {
                events: occasion.events.clone(),
                count,
                first: occasion.first,
                last: occasion.last,
                actor: occasion.actor.clone(),
                passed: effect.empty,
            };
            self.touched.add(path, touch);
        }
        if effect.changed || touched || (effect.absent && came) {
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
                        Observed::of(Reading::Absent, occasion.last),
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
        if let Some(eyes) = &self.eyes {
            eyes.watch.look_around();
        }
        let occasion = self.by_rescan();
        self.look_at_pins(&ImagePath::root(), &occasion);
        let depth = if std::mem::take(&mut self.reread) {
            Depth::Content
        } else {
            Depth::Metadata
        };
        self.rereading = (depth == Depth::Content).then(clock::now);
        let mut started = false;
        for number in 0..self.groups.len() {
            if self.start_sweep(number, ImagePath::root(), None, depth) {
                started = true;
            } else {
                self.rereading = None;
            }
        }
        if !started {
            self.monitor.event(Instant::now(), Event::Rescanned);
        }
    }

    fn start_sweep(
        &mut self,
        number: usize,
        below: ImagePath,
        occasion: Option<Occasion>,
        depth: Depth,
    ) -> bool {
        let (Some(eyes), Some(group)) = (&self.eyes, self.groups.get(number)) else {
            return false;
        };
        let mut options = ScanOptions::default();
        if self.parts.threads > 0 {
            options.threads = self.parts.threads;
        }
        options.threads = options.threads.min(SWEEP_THREADS);
        let root = eyes.root.clone();
        match Sweep::start(root, (number, group), below, occasion, depth, options) {
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
            self.start_sweep(number, path, Some(occasion), Depth::Metadata);
        }
    }

    pub(super) fn take_in_swept(
        &mut self,
        number: usize,
        swept: &Swept,
        occasion: Option<&Occasion>,
    ) {
        let Some(group) = self.groups.get(number) else {
            return;
        };
        let known = match swept.there {
            There::Read(leaf, mark) => group.is_as_read(&swept.key, leaf, mark),
            There::Moved | There::Unsettled => false,
            There::Unreadable => group.unreadable.contains_key(&swept.path),
            There::Own => self.pins.knows(&swept.path),
        };
        if known {
            return;
        }
        let mut occasion = occasion.cloned().unwrap_or_else(|| self.by_rescan());
        if let There::Own = swept.there {
            if let Some(decision) = self.pins.decide(&swept.path) {
                self.look_pinned(&swept.path, decision, &occasion, Closely::Whole);
            }
            return;
        }
        // What storage holds and the page cache does not is seen only the same way.
        if matches!(swept.there, There::Read(..) | There::Unsettled) {
            occasion.manner = CLOSELY;
        }
        if matches!(swept.there, There::Unreadable) {
            self.look_at_unreadable(number, &swept.path, &occasion);
        } else {
            self.look(number, &swept.path, &occasion, 1, false);
        }
    }

    fn end_sweep(&mut self, sweep: &Sweep, whole: bool) {
        let missing = self
            .groups
            .get(sweep.group)
            .map(|group| group.marks.clone())
            .filter(|marks| !sweep.is_full() || marks.any_unseen(sweep.round));
        if whole && let Some(marks) = missing {
            let occasion = sweep.occasion.clone().unwrap_or_else(|| self.by_rescan());
            for path in self.known_below(sweep.group, &sweep.below) {
                if !marks.is_seen(&short(&path.key()), sweep.round) {
                    self.look(sweep.group, &path, &occasion, 1, false);
                }
            }
        }
        if sweep.is_full() && !whole {
            self.rereading = None;
        }
        if !sweep.is_full() || self.sweeps.iter().any(Sweep::is_full) {
            return;
        }
        let now = Instant::now();
        self.monitor.event(now, Event::Rescanned);
        if let Some(started) = self.rereading.take() {
            self.read = Some(started);
        }
        crate::sys::give_back();
        let over = |gap: &Gap| gap.to.is_some_and(|to| to <= sweep.started);
        if whole && self.gaps.close(over) {
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
        // Where there are more than are looked at at once, each has its turn.
        self.rechecked = self.rechecked.wrapping_add(RECHECKED);
        let occasion = self.by_rescan();
        self.recheck_pins(RECHECKED, &occasion);
        for number in 0..self.groups.len() {
            let Some(group) = self.groups.get(number) else {
                continue;
            };
            let all = group.unsettled.len() + group.unreadable.len();
            let paths: Vec<ImagePath> = group
                .unsettled
                .iter()
                .chain(group.unreadable.keys())
                .cycle()
                .skip(self.rechecked % all.max(1))
                .take(RECHECKED.min(all))
                .cloned()
                .collect();
            let mut occasion = self.by_rescan();
            occasion.manner.writers = Writers::Always;
            for path in paths {
                if !self.afar.has(number, &path) {
                    self.look(number, &path, &occasion, 1, false);
                }
            }
        }
    }

    /// Nobody told: the inode did.
    pub(super) fn by_rescan(&self) -> Occasion {
        let now: Timestamp = clock::now();
        let actor: Option<Actor> = None;
        Occasion {
            events: vec!["ctime"],
            actor,
            first: now,
            last: now,
            seeing: !self.gaps.any_open(),
            manner: AS_TOLD,
        }
    }
}
