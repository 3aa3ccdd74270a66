//! What is this node's own: the lines of its `local` and `growing` paths as first found, and what is there now. Pure: what was
//! read goes in, what a statement says comes out.
//!
//! Pins belong to the node, not to an image. The first attestation pins what it finds; a growing file that only grew moves its line
//! on; anything else is a difference until a person accepts it.

mod asked;
mod store;
mod tracked;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::pins::{MAX_BYTES, MAX_LINES, grew};
use attestation::scope::{Decision, Expect, Scope};
use attestation::time::Timestamp;

pub use self::store::{PinFile, PinFileError};
pub(crate) use self::tracked::Tracked;
pub use self::tracked::{Came, Effect, Seen, Told};
pub use self::view::View;

/// Paths that are followed: those pinned, and as many again that came since and are differences.
pub const TRACKED: usize = 2 * MAX_LINES;

/// The pins and what is at their paths.
#[derive(Debug, Default)]
pub struct PinBoard {
    entries: BTreeMap<ImagePath, Tracked>,
    /// The scopes that the pins were made under; none: nothing was ever pinned here.
    scopes: Vec<Arc<Scope>>,
    pinned: usize,
    bytes: u64,
    /// Paths that do not fit.
    above: BTreeSet<ImagePath>,
    above_more: u64,
    /// Growing files to be looked at with the next heartbeat.
    waiting: BTreeSet<ImagePath>,
    /// Lines that moved on, or came, and are not told yet.
    grown: BTreeSet<ImagePath>,
    /// Counts changes of what a statement says.
    version: u64,
    /// Counts changes of the differences alone.
    differing: u64,
    /// The pins are not on the disk as they are.
    unsaved: bool,
    view: Mutex<Option<(u64, Digest, Arc<View>)>>,
}

impl PinBoard {
    /// A board of what was kept.
    pub fn of(file: PinFile) -> Self {
        let mut board = Self {
            scopes: file.scopes.into_iter().map(Arc::new).collect(),
            ..Self::default()
        };
        for kept in file.pins {
            let path = kept.line.path();
            board.pinned += 1;
            board.bytes += length(&kept.line);
            let tail = kept.tail.clone().filter(|tail| kept.is_of(tail));
            board.entries.insert(
                path,
                Tracked {
                    // Until a baseline says what the scope does.
                    decision: Decision {
                        expect: Expect::Local,
                        time: false,
                    },
                    found: Some(kept.line.clone()),
                    pin: Some(kept.line),
                    fingerprint: kept.fingerprint,
                    tail,
                    error: None,
                    again: false,
                    actor: None,
                    at: Timestamp::from_micros(0),
                },
            );
        }
        board
    }

    /// Begins under scopes, with all that is there at the paths that they call `local` or `growing`. Pins of paths that are still
    /// named are kept, others dropped, newly named ones added. Of a path that was named before and has no pin: a growing one is
    /// new, a local one is a difference. Gives the paths that were not found, or that were looked at again since: what is there now
    /// decides.
    pub fn begin(
        &mut self,
        scopes: &[Arc<Scope>],
        came: Vec<Came>,
        at: Timestamp,
    ) -> Vec<ImagePath> {
        let before = std::mem::replace(&mut self.scopes, scopes.to_vec());
        let first = before.is_empty();
        let gone: Vec<ImagePath> = self
            .entries
            .keys()
            .filter(|path| decide(scopes, path).is_none())
            .cloned()
            .collect();
        for path in gone {
            self.drop_path(&path);
        }
        self.above.clear();
        self.above_more = 0;
        self.waiting.clear();
        let there: BTreeSet<ImagePath> = came.iter().map(|came| came.path.clone()).collect();
        let told = Told { actor: None, at };
        let mut unsure = Vec::new();
        for Came {
            path,
            decision,
            seen,
        } in came
        {
            let newly = first || decide(&before, &path).is_none();
            if let Some(tracked) = self.entries.get_mut(&path) {
                tracked.decision = decision;
                if is_older(&seen, tracked) {
                    unsure.push(path);
                    continue;
                }
                if let Some(fitted) = tracked
                    .pin
                    .as_ref()
                    .and_then(|pin| fit(pin, seen.line.as_ref(), decision))
                {
                    self.set_pin(&path, Some(fitted));
                }
            }
            self.observe(&path, decision, seen, newly, told);
        }
        let missing = self.entries.keys().filter(|path| !there.contains(*path));
        unsure.extend(missing.cloned());
        self.unsaved = true;
        self.version += 1;
        unsure
    }

    /// Without an image there is nothing to speak of; the pins stay.
    pub fn rest(&mut self) {
        self.waiting.clear();
        self.grown.clear();
    }

    /// What the scopes say of a path, where that is `local` or `growing`.
    pub fn decide(&self, path: &ImagePath) -> Option<Decision> {
        decide(&self.scopes, path)
    }

    /// Takes in what was read at a path. `newly`: a scope names it for the first time.
    pub fn observe(
        &mut self,
        path: &ImagePath,
        decision: Decision,
        seen: Seen,
        newly: bool,
        told: Told<'_>,
    ) -> Effect {
        self.waiting.remove(path);
        if !self.entries.contains_key(path) {
            return self.came(path, decision, seen, newly, told);
        }
        let Some(tracked) = self.entries.get_mut(path) else {
            return Effect::default();
        };
        tracked.again = seen.again;
        let mut effect = Effect::default();
        if tracked.error != seen.error {
            tracked.error.clone_from(&seen.error);
            effect.changed = true;
        }
        let as_pinned = tracked.found == tracked.pin;
        let grows = decision.expect == Expect::Growing;
        let longer = |before: &Option<Line>| {
            before
                .as_ref()
                .zip(seen.line.as_ref())
                .is_some_and(|(before, after)| grows && seen.kept && grew(before, after))
        };
        if tracked.found == seen.line {
            tracked.fingerprint = seen.fingerprint;
            if seen.tail.is_some() {
                tracked.tail = seen.tail;
            }
        } else if longer(&tracked.found) && (as_pinned || tracked.pin != seen.line) {
            tracked.fingerprint = seen.fingerprint;
            if as_pinned {
                tracked.tail = seen.tail;
                tracked.found.clone_from(&seen.line);
                self.set_pin(path, seen.line);
                self.grown.insert(path.clone());
                effect.grew = true;
            }
            // A difference that goes on growing is the same difference.
        } else {
            tracked.fingerprint = seen.fingerprint;
            tracked.tail = seen.tail;
            tracked.found = seen.line;
            tracked.actor = told.actor.cloned();
            tracked.at = told.at;
            effect.changed = true;
            if tracked.pin.is_none() && tracked.found.is_none() {
                self.entries.remove(path);
            }
        }
        self.count(effect);
        effect
    }

    /// A path that was not followed.
    fn came(
        &mut self,
        path: &ImagePath,
        decision: Decision,
        seen: Seen,
        newly: bool,
        told: Told<'_>,
    ) -> Effect {
        let mut effect = Effect::default();
        if seen.line.is_none() && seen.error.is_none() {
            self.above.remove(path);
            return effect;
        }
        let grows = decision.expect == Expect::Growing;
        let pins = (newly || grows) && seen.line.is_some();
        let size = seen.line.as_ref().map_or(0, length);
        let fits = self.entries.len() < TRACKED
            && (!pins || (self.pinned < MAX_LINES && self.bytes + size <= MAX_BYTES));
        if !fits {
            self.does_not_fit(path);
            return effect;
        }
        self.above.remove(path);
        self.entries.insert(
            path.clone(),
            Tracked {
                decision,
                pin: None,
                found: seen.line.clone(),
                fingerprint: seen.fingerprint,
                tail: seen.tail,
                error: seen.error,
                again: seen.again,
                actor: told.actor.cloned(),
                at: told.at,
            },
        );
        if pins {
            self.set_pin(path, seen.line);
            if !newly {
                self.grown.insert(path.clone());
                effect.grew = true;
            }
        }
        effect.changed = !effect.grew;
        self.count(effect);
        effect
    }

    fn count(&mut self, effect: Effect) {
        self.version += u64::from(effect.changed || effect.grew);
        self.differing += u64::from(effect.changed);
    }

    fn does_not_fit(&mut self, path: &ImagePath) {
        if self.above.contains(path) {
            return;
        }
        if self.above.len() < MAX_LINES {
            self.above.insert(path.clone());
        } else {
            self.above_more += 1;
        }
        self.version += 1;
    }

    /// A line that a person accepted becomes the pin, if it is what is there. Tells whether it did.
    pub fn accept(&mut self, path: &ImagePath, found: Option<&Line>) -> bool {
        let Some(tracked) = self.entries.get(path) else {
            return false;
        };
        let unread = found.is_some_and(|found| found.borrowed().is_unread());
        let same = tracked.found.as_ref() == found && tracked.error.is_none() && !unread;
        if !same || tracked.pin.as_ref() == found {
            return false;
        }
        let grows_too_far = found.is_some()
            && tracked.pin.is_none()
            && (self.pinned >= MAX_LINES || self.bytes + found.map_or(0, length) > MAX_BYTES);
        if grows_too_far {
            return false;
        }
        self.set_pin(path, found.cloned());
        if found.is_none() {
            self.entries.remove(path);
        }
        self.version += 1;
        self.differing += 1;
        true
    }

    fn set_pin(&mut self, path: &ImagePath, line: Option<Line>) {
        let Some(tracked) = self.entries.get_mut(path) else {
            return;
        };
        let new = line.as_ref().map(length);
        let old = std::mem::replace(&mut tracked.pin, line);
        self.pinned =
            (self.pinned + usize::from(new.is_some())).saturating_sub(usize::from(old.is_some()));
        self.bytes = (self.bytes + new.unwrap_or(0)).saturating_sub(old.as_ref().map_or(0, length));
        self.unsaved = true;
    }

    fn drop_path(&mut self, path: &ImagePath) {
        self.set_pin(path, None);
        self.entries.remove(path);
        self.grown.remove(path);
    }

    /// A growing file was written: it is looked at with the next heartbeat.
    pub fn wait(&mut self, path: &ImagePath) {
        if self.waiting.len() < TRACKED {
            self.waiting.insert(path.clone());
        }
    }

    /// It is in a statement that is kept. What did not fit is in the pins that the collector asks for then.
    pub fn told(&mut self) {
        self.grown.clear();
    }

    /// The pins, where they are not on the disk as they are; they count as saved from now on.
    pub fn take_unsaved(&mut self) -> Option<PinFile> {
        if !std::mem::take(&mut self.unsaved) {
            return None;
        }
        Some(PinFile::of(self))
    }

    /// They could not be saved.
    pub fn not_saved(&mut self) {
        self.unsaved = true;
    }
}

/// Bytes of a line in the plain file.
fn length(line: &Line) -> u64 {
    line.as_str().len() as u64 + 1
}

/// The first scope that calls a path `local` or `growing`.
fn decide(scopes: &[Arc<Scope>], path: &ImagePath) -> Option<Decision> {
    scopes
        .iter()
        .map(|scope| scope.decide(path))
        .find(|decision| matches!(decision.expect, Expect::Local | Expect::Growing))
}

/// Whether a path was looked at after a scan came by.
fn is_older(seen: &Seen, tracked: &Tracked) -> bool {
    match (&seen.fingerprint, &tracked.fingerprint) {
        (Some(seen), Some(tracked)) => seen.ctime_ns < tracked.ctime_ns,
        _ => false,
    }
}

/// A pin in the form that another scope asks for: whether lines have a time is the scope's, not a change on the node.
fn fit(pin: &Line, found: Option<&Line>, decision: Decision) -> Option<Line> {
    let mut entry = pin.entry();
    let found = found?.entry();
    if decision.time && entry.time.is_none() {
        entry.time = found.time;
    } else if !decision.time && entry.time.is_some() {
        entry.time = None;
    } else {
        return None;
    }
    entry.line().ok()
}

#[cfg(test)]
mod tests;
