//! The sealed entries of one scope as they are now, and how they differ from each image that has that scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use attestation::digest::Digest;
use attestation::entry::Line;
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect, Scope};
use attestation::statement::{Actor, Difference};
use attestation::time::Timestamp;
use attestation::tree::Tree;

use super::marks::{Mark, Marks, short};
use crate::image::{Candidate, LinesError};
use crate::scan::Reading;

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

impl Observed {
    /// Of a reading that started then, or later.
    pub(super) fn of(reading: Reading, started: Timestamp) -> Self {
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
                let mark = Mark::of(&entry, &fingerprint, started);
                Self {
                    line: Some(line),
                    mark: Some(if unsettled { mark.unsettled() } else { mark }),
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
    /// Nothing is there, and nothing should be, whatever was.
    pub(super) empty: bool,
    /// A directory is there.
    pub(super) directory: bool,
}

/// One scope.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) scope: Arc<Scope>,
    pub(super) tree: Tree,
    pub(super) marks: Marks,
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
        effect.empty = as_expected && observed.line.is_none();
        effect.absent = effect.empty && before.is_none();
        effect.directory = observed.mark.is_some_and(|mark| mark.is_directory());
        Ok(effect)
    }

    /// Whether a path was just read again and is as it was: then there is nothing to tell but when.
    pub(super) fn is_as_read(&self, key: &Digest, leaf: Digest, mark: Mark) -> bool {
        let short = short(key);
        let same = self.tree.get(key) == Some(leaf)
            && self
                .marks
                .get(&short)
                .is_some_and(|before| !mark.moved_from(&before));
        if same {
            self.marks.insert(short, mark);
        }
        same
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

    /// Paths that are here and whose inode has one of these numbers. Usually there is none, and no line is read.
    pub(super) fn paths_of(
        &self,
        inodes: &BTreeSet<u64>,
    ) -> Result<BTreeSet<ImagePath>, LinesError> {
        let mut paths = BTreeSet::new();
        let keys = self.marks.of_inodes(inodes);
        if keys.is_empty() {
            return Ok(paths);
        }
        for compared in &self.compared {
            let lines = &compared.candidate.reference.lines;
            lines.below(&ImagePath::root(), &mut |path, _| {
                if keys.contains(&short(&path.key())) {
                    paths.insert(path);
                }
            })?;
            let differing = compared.differences.keys();
            paths.extend(
                differing
                    .filter(|path| keys.contains(&short(&path.key())))
                    .cloned(),
            );
        }
        Ok(paths)
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::io::Write as _;

    use attestation::statement::{Builder, Image, ManifestRef, Source, Statement, Subject};

    use super::*;
    use crate::image::{Lines, Reference};

    fn line(path: &str, content: &[u8]) -> Line {
        let digest = Digest::of(content);
        let size = content.len();
        Line::parse(&format!(
            "{path} type=file mode=0644 uid=0 gid=0 size={size} sha256digest={digest}"
        ))
        .unwrap()
    }

    fn candidate(lines: &[Line], epoch: u64) -> Candidate {
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "#mtree").unwrap();
        for line in lines {
            writeln!(file, "{}", line.as_str()).unwrap();
        }
        let time = Timestamp::from_micros(0);
        let predicate = Image {
            version: epoch.to_string(),
            epoch,
            created: time,
            expires: None,
            entries: u64::try_from(lines.len()).unwrap(),
            bytes: 0,
            scope: Scope::sealed_all(),
            mounts: Vec::new(),
            source: Source::default(),
            builder: Builder::default(),
            manifest: ManifestRef {
                media_type: ManifestRef::MEDIA_TYPE.to_owned(),
                size: 0,
                sha256: Digest::ZERO,
                uncompressed: 0,
            },
        };
        let statement = Statement::about(Subject::of_tree("base", &Digest::ZERO), predicate);
        let payload = Digest::of(&epoch.to_le_bytes());
        let reference = Reference::new(payload, statement, Lines::open(file).unwrap());
        Candidate {
            reference: Arc::new(reference),
            until: None,
        }
    }

    fn observed(line: Option<&Line>, ctime_ns: i64) -> Observed {
        let mark = line.map(|_| Mark::at(ctime_ns));
        Observed {
            line: line.cloned(),
            mark,
            error: None,
            unsettled: false,
        }
    }

    /// A view of `lines` that were all read at time 1.
    fn group(lines: &[Line], images: Vec<Candidate>) -> Group {
        let mut group = Group {
            scope: Arc::new(Scope::sealed_all()),
            tree: Tree::new(),
            marks: Marks::default(),
            unreadable: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            compared: images.into_iter().map(Compared::new).collect(),
        };
        for line in lines {
            let at = Timestamp::from_micros(0);
            group
                .apply(&line.path(), observed(Some(line), 1), None, at)
                .unwrap();
        }
        group
    }

    #[test]
    fn a_change_is_a_difference_until_it_is_put_back_and_then_it_was_touched() {
        let (a, changed) = (line("./a", b"1"), line("./a", b"2"));
        let path = a.path();
        let mut group = group(
            std::slice::from_ref(&a),
            vec![candidate(std::slice::from_ref(&a), 1)],
        );
        let image = group.tree.root();
        let at = Timestamp::from_micros(5);
        assert!(group.compared[0].differences.is_empty());

        let effect = group
            .apply(&path, observed(Some(&changed), 2), None, at)
            .unwrap();
        assert!(effect.changed && !effect.touched);
        let difference = &group.compared[0].differences[&path];
        assert_eq!(
            (&difference.expected, &difference.found),
            (&Some(a.clone()), &Some(changed.clone()))
        );

        let again = group
            .apply(&path, observed(Some(&changed), 2), None, at)
            .unwrap();
        assert!(!again.changed && !again.touched);

        let back = group.apply(&path, observed(Some(&a), 3), None, at).unwrap();
        assert!(back.changed && back.touched);
        assert!(group.compared[0].differences.is_empty());
        assert_eq!(group.tree.root(), image);
        assert_eq!(group.compared[0].version, 2);
    }

    #[test]
    fn opened_and_closed_is_not_touched_but_written_with_the_same_is() {
        let a = line("./a", b"1");
        let path = a.path();
        let mut group = group(
            std::slice::from_ref(&a),
            vec![candidate(std::slice::from_ref(&a), 1)],
        );
        let at = Timestamp::from_micros(5);
        let effect = group.apply(&path, observed(Some(&a), 1), None, at).unwrap();
        assert_eq!((effect.changed, effect.touched), (false, false));
        let effect = group.apply(&path, observed(Some(&a), 2), None, at).unwrap();
        assert_eq!((effect.changed, effect.touched), (false, true));
    }

    #[test]
    fn what_comes_goes_or_cannot_be_read_is_told() {
        let (a, b) = (line("./a", b"1"), line("./b", b"1"));
        let mut group = group(
            std::slice::from_ref(&a),
            vec![candidate(std::slice::from_ref(&a), 1)],
        );
        let at = Timestamp::from_micros(5);
        assert!(
            group
                .apply(&a.path(), observed(None, 0), None, at)
                .unwrap()
                .changed
        );
        assert!(
            group
                .apply(&b.path(), observed(Some(&b), 2), None, at)
                .unwrap()
                .changed
        );
        assert_eq!(group.compared[0].differences.len(), 2);
        assert!(
            group
                .apply(&b.path(), observed(None, 0), None, at)
                .unwrap()
                .touched
        );
        assert!(
            group
                .apply(&b.path(), observed(None, 0), None, at)
                .unwrap()
                .absent
        );
        let unreadable = Observed {
            line: None,
            mark: None,
            error: Some("EIO".to_owned()),
            unsettled: false,
        };
        assert!(
            group
                .apply(&a.path(), unreadable, None, at)
                .unwrap()
                .changed
        );
        assert_eq!(group.unreadable.len(), 1);
        assert!(group.compared[0].differences.contains_key(&a.path()));
        assert!(
            group
                .apply(&a.path(), observed(Some(&a), 3), None, at)
                .unwrap()
                .changed
        );
        assert!(group.unreadable.is_empty() && group.compared[0].differences.is_empty());
    }

    #[test]
    fn the_image_with_the_fewest_differences_counts_and_the_newest_on_a_tie() {
        let (old, new) = (line("./a", b"1"), line("./a", b"2"));
        let images = vec![
            candidate(std::slice::from_ref(&old), 1),
            candidate(std::slice::from_ref(&new), 2),
        ];
        let mut group = group(std::slice::from_ref(&old), images);
        let now = Timestamp::from_micros(5);
        let epoch = |group: &Group| {
            let compared = group.nearest(now).unwrap();
            compared.candidate.reference.statement.predicate.epoch
        };
        assert_eq!(epoch(&group), 1);
        group
            .apply(&new.path(), observed(Some(&new), 2), None, now)
            .unwrap();
        assert_eq!(epoch(&group), 2);
        group
            .apply(&new.path(), observed(None, 0), None, now)
            .unwrap();
        assert_eq!(epoch(&group), 2);
        group.compared[1].candidate.until = Some(Timestamp::from_micros(4));
        assert_eq!(epoch(&group), 1);
    }

    #[test]
    fn what_is_known_below_a_directory_comes_from_image_and_differences() {
        let (a, b, c) = (line("./d/a", b"1"), line("./d/b", b"1"), line("./e", b"1"));
        let image = candidate(&[a.clone(), c.clone()], 1);
        let group = group(&[a.clone(), b.clone(), c], vec![image]);
        let below = group
            .known_below(&ImagePath::parse("./d").unwrap())
            .unwrap();
        assert_eq!(below.into_iter().collect::<Vec<_>>(), [a.path(), b.path()]);
    }
}
