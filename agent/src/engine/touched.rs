//! Writes to sealed paths that left no difference, gathered until the next statement. What the image has goes before names
//! that came and went: nobody may hide the one behind very many of the other.

use std::collections::BTreeMap;

use attestation::path::ImagePath;
use attestation::statement::{Actor, Touched};
use attestation::time::Timestamp;

/// Kept between two statements; a statement lists 256 of them, and counts the rest.
const KEPT: usize = 1024;

/// What happened to one path.
#[derive(Debug)]
struct Gathered {
    events: Vec<&'static str>,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    actor: Option<Actor>,
}

impl Gathered {
    fn absorb(&mut self, touch: Touch) {
        for event in touch.events {
            if !self.events.contains(&event) {
                self.events.push(event);
            }
        }
        self.count = self.count.saturating_add(touch.count);
        self.first = self.first.min(touch.first);
        self.last = self.last.max(touch.last);
        self.actor = touch.actor.or_else(|| self.actor.take());
    }
}

impl From<Touch> for Gathered {
    fn from(touch: Touch) -> Self {
        Self {
            events: touch.events,
            count: touch.count.max(1),
            first: touch.first,
            last: touch.last,
            actor: touch.actor,
        }
    }
}

/// Everything touched since the last statement.
#[derive(Debug, Default)]
pub(super) struct TouchedSet {
    /// What is there.
    kept: BTreeMap<ImagePath, Gathered>,
    /// Names that came and went; they give way where there are too many.
    passed: BTreeMap<ImagePath, Gathered>,
    /// Paths beyond the kept ones.
    more: u64,
}

/// One more thing that happened.
#[derive(Debug)]
pub(super) struct Touch {
    pub(super) events: Vec<&'static str>,
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) actor: Option<Actor>,
    /// Nothing is there, and nothing should be.
    pub(super) passed: bool,
}

impl TouchedSet {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.more == 0
    }

    fn len(&self) -> usize {
        self.kept.len().saturating_add(self.passed.len())
    }

    pub(super) fn add(&mut self, path: &ImagePath, touch: Touch) {
        let list = if touch.passed {
            &mut self.passed
        } else {
            &mut self.kept
        };
        if let Some(gathered) = list.get_mut(path) {
            gathered.absorb(touch);
            return;
        }
        if self.len() >= KEPT {
            self.more = self.more.saturating_add(1);
            if touch.passed || self.passed.pop_last().is_none() {
                return;
            }
        }
        let list = if touch.passed {
            &mut self.passed
        } else {
            &mut self.kept
        };
        list.insert(path.clone(), touch.into());
    }

    /// What a statement says, and how many there are in all.
    pub(super) fn told(&self) -> (Vec<Touched>, u64) {
        let touched = self
            .kept
            .iter()
            .chain(&self.passed)
            .map(|(path, gathered)| Touched {
                path: path.clone(),
                event: gathered.events.join(","),
                count: gathered.count,
                first: gathered.first,
                last: gathered.last,
                actor: gathered.actor.clone(),
            })
            .collect();
        let total = u64::try_from(self.len())
            .unwrap_or(u64::MAX)
            .saturating_add(self.more);
        (touched, total)
    }

    /// They are in a statement that is kept.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.passed.clear();
        self.more = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn touch(passed: bool) -> Touch {
        let at = Timestamp::from_micros(1);
        Touch {
            events: vec!["ctime"],
            count: 1,
            first: at,
            last: at,
            actor: None,
            passed,
        }
    }

    fn path(name: &str) -> ImagePath {
        ImagePath::from_bytes(name.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_is_there_is_not_hidden_behind_names_that_came_and_went() {
        let mut set = TouchedSet::default();
        for n in 0..3 * KEPT {
            set.add(&path(&format!("a/{n}")), touch(true));
        }
        set.add(&path("usr/bin/sudo"), touch(false));
        set.add(&path("b"), touch(true));
        let (told, total) = set.told();
        assert_eq!(told.len(), KEPT);
        assert_eq!(told[0].path, path("usr/bin/sudo"));
        assert_eq!(total, 3 * 1024 + 2);
        set.clear();
        assert!(set.is_empty());
    }

    #[test]
    fn more_of_what_is_there_than_is_kept_is_counted() {
        let mut set = TouchedSet::default();
        for n in 0..KEPT + 5 {
            set.add(&path(&format!("a/{n}")), touch(false));
        }
        set.add(&path("a/0"), touch(false));
        let (told, total) = set.told();
        assert_eq!((told.len(), total), (KEPT, 1024 + 5));
        assert_eq!(told[0].count, 2);
    }
}
