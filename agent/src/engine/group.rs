//! The sealed entries of one scope as they are now, and how they differ from each image that has that scope.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use attestation::digest::Digest;
use attestation::entry::{Kind, Line};
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect, Scope};
use attestation::statement::{Actor, Difference};
use attestation::time::Timestamp;
use attestation::tree::Tree;

use crate::image::{Candidate, LinesError};
use crate::scan::{Fingerprint, Reading};

/// Half a key: enough to tell paths apart, also those of somebody who grinds names.
pub(super) type ShortKey = [u8; 16];

/// What `statx` said when the entry was last read: equal means that the kernel knows of no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    ino: u64,
    ctime_ns: i64,
    /// Directories change when what they hold does; that says nothing about them.
    directory: bool,
}

impl Mark {
    pub(super) fn of(kind: &Kind, fingerprint: &Fingerprint) -> Self {
        Self {
            ino: fingerprint.ino,
            ctime_ns: fingerprint.ctime_ns,
            directory: matches!(kind, Kind::Dir),
        }
    }

    /// Whether something happened to the object between the two.
    fn moved_from(&self, before: &Mark) -> bool {
        self != before && !(self.directory && before.directory)
    }

    /// Whether the object changed after a time, as its inode tells.
    pub(super) fn changed_after(&self, time: Timestamp) -> bool {
        !self.directory && self.ctime_ns / 1000 > time.as_micros()
    }
}

pub(super) fn short(key: &Digest) -> ShortKey {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(key.as_bytes()) {
        *to = *from;
    }
    short
}

/// An image and how what is there differs from it.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) candidate: Candidate,
    pub(super) differences: BTreeMap<ImagePath, Difference>,
    /// Counts changes of `differences`, so that a statement can say "as before".
    pub(super) version: u64,
}

/// A path as it was just read.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) line: Option<Line>,
    pub(super) mark: Option<Mark>,
    pub(super) error: Option<String>,
    pub(super) unsettled: bool,
}

impl From<Reading> for Observed {
    fn from(reading: Reading) -> Self {
        let (entry, fingerprint, unsettled) = match reading {
            Reading::Absent => {
                return Self {
                    line: None,
                    mark: None,
                    error: None,
                    unsettled: false,
                };
            }
            Reading::Unreadable { error } => {
                return Self {
                    line: None,
                    mark: None,
                    error: Some(error),
                    unsettled: false,
                };
            }
            Reading::Entry(entry, fingerprint) => (entry, fingerprint, false),
            Reading::Unsettled(entry, fingerprint) => (entry, fingerprint, true),
        };
        match entry.line() {
            Ok(line) => {
                let mark = Some(Mark::of(&entry.kind, &fingerprint));
                Self {
                    line: Some(line),
                    mark,
                    error: None,
                    unsettled,
                }
            }
            Err(error) => Self {
                line: None,
                mark: None,
                error: Some(error.to_string()),
                unsettled: false,
            },
        }
    }
}

/// What a look at a path came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Something that a statement must tell is new.
    pub(super) changed: bool,
    /// It is as the image has it, and yet something happened to it since it was last read.
    pub(super) touched: bool,
    /// Nothing is there, nothing was, and nothing should be.
    pub(super) absent: bool,
    /// A directory is there.
    pub(super) directory: bool,
}

/// One scope.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) scope: Arc<Scope>,
    pub(super) tree: Tree,
    pub(super) marks: HashMap<ShortKey, Mark>,
    pub(super) unreadable: BTreeMap<ImagePath, String>,
    pub(super) unsettled: BTreeSet<ImagePath>,
    pub(super) compared: Vec<Compared>,
}

impl Group {
    /// Whether the path is sealed here, and how it is read.
    pub(super) fn sealed(&self, path: &ImagePath) -> Option<Decision> {
        let decision = self.scope.decide(path);
        (decision.expect == Expect::Sealed).then_some(decision)
    }

    /// Takes in what is at a path now.
    pub(super) fn apply(
        &mut self,
        path: &ImagePath,
        observed: Observed,
        actor: Option<&Actor>,
        at: Timestamp,
    ) -> Result<Effect, LinesError> {
        let key = path.key();
        let mut effect = Effect::default();
        let before = match &observed.line {
            Some(line) => self.tree.insert(key, line.leaf()),
            None => self.tree.remove(&key),
        };
        let marked = match observed.mark {
            Some(mark) => self.marks.insert(short(&key), mark),
            None => self.marks.remove(&short(&key)),
        };
        effect.changed |= self.note_unreadable(path, observed.error);
        effect.changed |= if observed.unsettled {
            self.unsettled.insert(path.clone())
        } else {
            self.unsettled.remove(path)
        };
        let mut as_expected = true;
        let mut vanished = false;
        for compared in &mut self.compared {
            let expected = compared.candidate.reference.lines.find(path)?;
            if expected == observed.line {
                let gone = compared.differences.remove(path).is_some();
                compared.version += u64::from(gone);
                effect.changed |= gone;
                vanished |= gone;
                continue;
            }
            as_expected = false;
            effect.changed |= compared.differ(path, expected, observed.line.clone(), actor, at);
        }
        let moved = match (marked, observed.mark) {
            (Some(then), Some(now)) => now.moved_from(&then),
            // It came or went: a difference, or one less.
            _ => false,
        };
        effect.touched = as_expected && !self.compared.is_empty() && (vanished || moved);
        effect.absent = as_expected && before.is_none() && observed.line.is_none();
        effect.directory = observed.mark.is_some_and(|mark| mark.directory);
        Ok(effect)
    }

    /// Whether a path is known to be as it was last read: then a scan that came by has nothing to tell.
    pub(super) fn is_as_read(&self, key: &Digest, leaf: Digest, mark: Mark) -> bool {
        self.tree.get(key) == Some(leaf)
            && self
                .marks
                .get(&short(key))
                .is_some_and(|before| !mark.moved_from(before))
    }

    /// Paths that are here, at or below one, by what the images and the differences know.
    pub(super) fn known_below(
        &self,
        ancestor: &ImagePath,
    ) -> Result<BTreeSet<ImagePath>, LinesError> {
        let mut known = BTreeSet::new();
        for compared in &self.compared {
            compared
                .candidate
                .reference
                .lines
                .below(ancestor, &mut |path, _| {
                    if self.tree.get(&path.key()).is_some() {
                        known.insert(path);
                    }
                })?;
            let below = compared
                .differences
                .range(ancestor.clone()..)
                .take_while(|(path, _)| path.starts_with(ancestor))
                .filter(|(_, difference)| difference.found.is_some());
            known.extend(below.map(|(path, _)| path.clone()));
        }
        Ok(known)
    }

    /// Which image to attest against: the one with the fewest differences, the newest on a tie.
    pub(super) fn nearest(&self, now: Timestamp) -> Option<&Compared> {
        self.compared
            .iter()
            .filter(|compared| compared.candidate.until.is_none_or(|until| now <= until))
            .min_by_key(|compared| compared.rank())
    }

    fn note_unreadable(&mut self, path: &ImagePath, error: Option<String>) -> bool {
        match error {
            Some(error) => self.unreadable.insert(path.clone(), error.clone()) != Some(error),
            None => self.unreadable.remove(path).is_some(),
        }
    }
}

impl Compared {
    pub(super) fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            differences: BTreeMap::new(),
            version: 0,
        }
    }

    /// Fewer differences come first, then the higher epoch.
    pub(super) fn rank(&self) -> (usize, std::cmp::Reverse<(u64, Timestamp)>) {
        let image = &self.candidate.reference.statement.predicate;
        (
            self.differences.len(),
            std::cmp::Reverse((image.epoch, image.created)),
        )
    }

    fn differ(
        &mut self,
        path: &ImagePath,
        expected: Option<Line>,
        found: Option<Line>,
        actor: Option<&Actor>,
        at: Timestamp,
    ) -> bool {
        if let Some(known) = self.differences.get_mut(path)
            && known.found == found
        {
            // The same difference again; a better idea of who made it is worth keeping, not worth a statement.
            if known.actor.is_none() {
                known.actor = actor.cloned();
            }
            return false;
        }
        let difference = Difference {
            path: path.clone(),
            expect: Expect::Sealed,
            expected,
            found,
            actor: actor.cloned(),
            at,
        };
        self.differences.insert(path.clone(), difference);
        self.version += 1;
        true
    }
}
