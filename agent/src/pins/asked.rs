//! What the pins say when they are asked: nothing here changes them.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use attestation::path::ImagePath;
use attestation::pins::{MAX_LINES, Pinned};
use attestation::statement::{Difference, Grown};

use super::{PinBoard, Tracked};

impl PinBoard {
    /// What is known, for a scan that runs beside.
    pub(crate) fn known(&self) -> BTreeMap<ImagePath, Tracked> {
        self.entries.clone()
    }

    pub(crate) fn get(&self, path: &ImagePath) -> Option<&Tracked> {
        self.entries.get(path)
    }

    /// Whether a path is followed, or is one of those that do not fit.
    pub fn knows(&self, path: &ImagePath) -> bool {
        self.entries.contains_key(path) || self.above.contains(path)
    }

    /// The paths followed at or below one.
    pub fn below(&self, ancestor: &ImagePath) -> Vec<ImagePath> {
        self.entries
            .range(ancestor.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(ancestor))
            .cloned()
            .collect()
    }

    /// The path that comes after one, round and round.
    pub fn after(&self, path: Option<&ImagePath>) -> Option<ImagePath> {
        let next = path.and_then(|path| {
            let (next, _) = self.entries.range((Excluded(path), Unbounded)).next()?;
            Some(next.clone())
        });
        next.or_else(|| self.entries.keys().next().cloned())
    }

    /// The growing files that wait, and what could not be read or settled; so many at most.
    pub fn waiting(&self, most: usize) -> Vec<ImagePath> {
        self.waiting.iter().take(most).cloned().collect()
    }

    /// What must be looked at again without an event.
    pub fn unsettled(&self, most: usize) -> Vec<ImagePath> {
        self.entries
            .iter()
            .filter(|(_, tracked)| tracked.again || tracked.error.is_some())
            .map(|(path, _)| path.clone())
            .take(most)
            .collect()
    }

    /// What grew since the last statement, as far as one statement tells it, and how many there are if not all fit.
    pub fn grown(&self, most: usize) -> (Vec<Grown>, Option<u64>) {
        let all = self.grown.iter().filter_map(|path| {
            let found = self.entries.get(path)?.pin.clone()?;
            Some(Grown {
                path: path.clone(),
                found,
            })
        });
        let listed: Vec<Grown> = all.take(most).collect();
        let more = self.grown.len() > listed.len();
        (listed, more.then_some(self.grown.len() as u64))
    }

    /// Counts changes of the differences.
    pub fn differing(&self) -> u64 {
        self.differing
    }

    /// How many differences there are.
    pub fn differences(&self) -> usize {
        self.entries
            .values()
            .filter(|tracked| tracked.found != tracked.pin)
            .count()
    }

    /// What is there and does not fit, as a standing limit in words.
    pub fn limit(&self) -> Option<String> {
        let above = self.above.len() as u64 + self.above_more;
        (above > 0).then(|| {
            format!(
                "{above} local or growing paths above the {MAX_LINES} that a node may pin are not attested"
            )
        })
    }

    pub(super) fn difference(path: &ImagePath, tracked: &Tracked) -> Option<Difference> {
        (tracked.pin != tracked.found).then(|| Difference {
            path: path.clone(),
            expect: tracked.decision.expect,
            expected: tracked.pin.clone(),
            found: tracked.found.clone(),
            actor: tracked.actor.clone(),
            at: tracked.at,
        })
    }

    pub(super) fn pinned(&self) -> Pinned {
        Pinned::of(self.entries.values().filter_map(|it| it.pin.clone()))
    }
}
