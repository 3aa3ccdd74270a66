//! Writes to sealed paths that left no difference, gathered until the next statement.

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

/// Everything touched since the last statement.
#[derive(Debug, Default)]
pub(super) struct TouchedSet {
    kept: BTreeMap<ImagePath, Gathered>,
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
}

impl TouchedSet {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.more == 0
    }

    pub(super) fn add(&mut self, path: &ImagePath, touch: Touch) {
        if let Some(gathered) = self.kept.get_mut(path) {
            for event in touch.events {
                if !gathered.events.contains(&event) {
                    gathered.events.push(event);
                }
            }
            gathered.count = gathered.count.saturating_add(touch.count);
            gathered.first = gathered.first.min(touch.first);
            gathered.last = gathered.last.max(touch.last);
            gathered.actor = touch.actor.or_else(|| gathered.actor.take());
            return;
        }
        if self.kept.len() >= KEPT {
            self.more = self.more.saturating_add(1);
            return;
        }
        let Touch {
            events,
            count,
            first,
            last,
            actor,
        } = touch;
        self.kept.insert(
            path.clone(),
            Gathered {
                events,
                count: count.max(1),
                first,
                last,
                actor,
            },
        );
    }

    /// What a statement says, and how many there are in all.
    pub(super) fn told(&self) -> (Vec<Touched>, u64) {
        let touched = self
            .kept
            .iter()
            .map(|(path, gathered)| Touched {
                path: path.clone(),
                event: gathered.events.join(","),
                count: gathered.count,
                first: gathered.first,
                last: gathered.last,
                actor: gathered.actor.clone(),
            })
            .collect();
        let total = u64::try_from(self.kept.len())
            .unwrap_or(u64::MAX)
            .saturating_add(self.more);
        (touched, total)
    }

    /// They are in a statement that is kept.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.more = 0;
    }
}
