//! What is known of a scope from before: from the index on disk after a start, from the view in memory when another
//! image of the same scope comes. And writing that index, a bit at a time, so that the engine is never held up by it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::tree::Tree;

use super::group::Group;
use super::marks::{Mark, Marks, Slot, short};
use crate::index::{self, Identity, IndexError, Record, Writer};
use crate::scan::Root;
use crate::{clock, durable};

/// The keys of one first byte are one part; so many parts are written before the engine looks at events again.
const AT_ONCE: u16 = 4;
/// At least so long between two indexes of a scope while much changes.
const SOONEST: Duration = Duration::from_secs(60);
/// Looked at this often, whether one is due.
const CHECKED: Duration = Duration::from_secs(5);
/// And when little does: what changed since is read again after a crash.
const LATEST: Duration = Duration::from_secs(3600);

/// Room is made for so many entries before the first is read.
const EXPECTED: usize = 1 << 22;

/// Leaves and marks that belong together.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) tree: Tree,
    pub(super) marks: Marks,
}

/// Where something is known from.
#[derive(Debug)]
pub(super) enum Source {
    /// The view of the same scope, as it was when the baseline began.
    View(Known),
    /// An index on disk, if it is of use.
    Disk(PathBuf, Identity),
}

impl Source {
    pub(super) fn known(self) -> Option<Known> {
        match self {
            Self::View(known) => Some(known),
            Self::Disk(path, identity) => load(&path, &identity),
        }
    }
}

impl Known {
    pub(super) fn of(group: &Group) -> Self {
        Self {
            tree: group.tree.clone(),
            marks: group.marks.snapshot(),
        }
    }

    /// As it is after a look at everything: what that did not come by is gone, what it read is new.
    pub(super) fn completed(
        mut self,
        round: u32,
        leaves: Vec<(Digest, Digest)>,
        slots: Vec<Slot>,
    ) -> (Tree, Marks) {
        let gone: Vec<Digest> = self
            .tree
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !self.marks.is_seen(&short(key), round))
            .collect();
        for key in gone {
            self.tree.remove(&key);
            self.marks.remove(&short(&key));
        }
        for (key, leaf) in leaves {
            self.tree.insert(key, leaf);
        }
        self.marks.extend(slots);
        (self.tree, self.marks)
    }
}

fn load(path: &Path, identity: &Identity) -> Option<Known> {
    let mut leaves = Vec::new();
    let mut slots = Vec::new();
    // Its length tells about how many there are; what is no index is refused before so many are read.
    if let Ok(file) = fs::metadata(path) {
        let entries = usize::try_from(file.len() / index::RECORD_BYTES).unwrap_or(0);
        let entries = entries.min(EXPECTED);
        leaves.reserve_exact(entries);
        slots.reserve_exact(entries);
    }
    let read = index::load(path, identity, &mut |record| {
        leaves.push((record.key, record.leaf));
        let mark = Mark::from_parts(record.ino, record.ctime_ns, record.rest);
        slots.push(Slot::new(short(&record.key), mark));
    });
    match read {
        Ok(Some(contents)) => {
            tracing::info!(entries = contents.total, of = %contents.begun, "the index tells what need not be read");
            Some(Known {
                tree: Tree::from_leaves(leaves),
                marks: Marks::from_slots(slots),
            })
        }
        Ok(None) => None,
        Err(error @ (IndexError::Other | IndexError::Format(_))) => {
            tracing::info!(%error, "everything is read");
            None
        }
        Err(error) => {
            let error = crate::journal::chain(&error);
            tracing::warn!(%error, path = %path.display(), "everything is read, and the index written anew");
            None
        }
    }
}

/// Keeps the indexes of the scopes up to date.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    kept: BTreeMap<Digest, Kept>,
    writing: Option<Writing>,
    syncing: Option<JoinHandle<()>>,
    /// Nothing is due before.
    check_at: Option<Instant>,
}

/// What the index on disk has of a scope.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// How many changes of the marks it knows of.
    changes: u64,
    at: Instant,
}

/// An index that is being written.
#[derive(Debug)]
struct Writing {
    /// Which of the groups.
    group: usize,
    scope: Digest,
    changes: u64,
    writer: Writer,
    /// The part that comes next; 256 when all are written.
    next: u16,
}

impl Keeper {
    pub(super) fn new(state: &Path) -> Self {
        Self {
            directory: state.join("index"),
            kept: BTreeMap::new(),
            writing: None,
            syncing: None,
            check_at: None,
        }
    }

    /// Where to look for what is known of a scope.
    pub(super) fn source(&self, root: &Root, scope: &Digest) -> Source {
        Source::Disk(self.path(scope), identity(root, scope))
    }

    /// The view begins anew with these scopes; indexes of others are not wanted any more.
    pub(super) fn begin(&mut self, groups: &[Group]) {
        self.writing = None;
        self.check_at = None;
        let scopes: Vec<Digest> = groups.iter().map(|group| group.scope.digest()).collect();
        self.kept.retain(|scope, _| scopes.contains(scope));
        let names: Vec<String> = scopes.iter().map(name).collect();
        let Ok(files) = fs::read_dir(&self.directory) else {
            return;
        };
        for file in files.flatten() {
            let stale = file
                .file_name()
                .to_str()
                .is_none_or(|file| !names.iter().any(|name| name == file));
            if stale && self.syncing.is_none() {
                // What stays only takes room.
                drop(fs::remove_file(file.path()));
            }
        }
    }

    /// Whether there is something to go on with at once.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Writes a bit, or begins to when an index is due.
    pub(super) fn advance(&mut self, root: &Root, groups: &[Group], now: Instant) {
        if self.syncing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.syncing = None;
        }
        if let Some(writing) = self.writing.take() {
            self.go_on(writing, groups, now);
        } else if self.syncing.is_none() && self.check_at.is_none_or(|at| at <= now) {
            self.check_at = Some(now + CHECKED);
            let mut numbered = groups.iter().enumerate();
            if let Some(due) = numbered.find(|(_, group)| self.is_due(group, now)) {
                match self.start(root, due) {
                    Ok(writing) => self.writing = Some(writing),
                    Err(error) => self.failed(&error, now),
                }
            }
        }
    }

    /// Writes what is due or nearly so, all at once: the agent ends.
    pub(super) fn finish(&mut self, root: &Root, groups: &[Group], now: Instant) {
        self.writing = None;
        if let Some(syncing) = self.syncing.take() {
            // It only syncs and renames; what went wrong there it has told.
            drop(syncing.join());
        }
        for (number, group) in groups.iter().enumerate() {
            let kept = self.kept.get(&group.scope.digest());
            if kept.is_some_and(|kept| kept.changes == group.marks.changes()) {
                continue;
            }
            let written = self.start(root, (number, group)).and_then(|mut writing| {
                writing.go_on(group, u16::MAX)?;
                writing.writer.finish()?.commit()
            });
            if let Err(error) = written {
                self.failed(&error, now);
            }
        }
    }

    fn is_due(&self, group: &Group, now: Instant) -> bool {
        let kept = self.kept.get(&group.scope.digest()).map(|kept| {
            let changes = group.marks.changes().saturating_sub(kept.changes);
            (changes, now.saturating_duration_since(kept.at))
        });
        is_due(kept, group.tree.len())
    }

    fn start(&self, root: &Root, (number, group): (usize, &Group)) -> io::Result<Writing> {
        durable::private_directory(&self.directory)?;
        let scope = group.scope.digest();
        let writer = Writer::create(&self.path(&scope), &identity(root, &scope), clock::now())?;
        Ok(Writing {
            group: number,
            scope,
            changes: group.marks.changes(),
            writer,
            next: 0,
        })
    }

    fn go_on(&mut self, mut writing: Writing, groups: &[Group], now: Instant) {
        let Some(group) = groups.get(writing.group) else {
            return;
        };
        let result = match writing.go_on(group, AT_ONCE) {
            Ok(false) => {
                self.writing = Some(writing);
                return;
            }
            Ok(true) => self.sync(writing, now),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.failed(&error, now);
        }
    }

    /// The disk takes its time: not the engine's.
    fn sync(&mut self, writing: Writing, now: Instant) -> io::Result<()> {
        let Writing {
            scope,
            changes,
            writer,
            ..
        } = writing;
        let unsynced = writer.finish()?;
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || match unsynced.commit() {
                Ok(()) => tracing::debug!("index written"),
                Err(error) => tracing::warn!(%error, "write the index"),
            })?;
        self.syncing = Some(thread);
        self.kept.insert(scope, Kept { changes, at: now });
        Ok(())
    }

    fn failed(&mut self, error: &io::Error, now: Instant) {
        tracing::warn!(%error, directory = %self.directory.display(), "write the index; without it a restart reads more");
        self.check_at = Some(now + LATEST);
    }

    fn path(&self, scope: &Digest) -> PathBuf {
        self.directory.join(name(scope))
    }
}

impl Writing {
    /// Writes so many parts more; whether all are written.
    fn go_on(&mut self, group: &Group, parts: u16) -> io::Result<bool> {
        let end = self.next.saturating_add(parts).min(256);
        let mut records = Vec::new();
        for part in self.next..end {
            let Ok(byte) = u8::try_from(part) else { break };
            records.clear();
            for (key, leaf) in group.tree.iter_beginning(byte) {
                if let Some(mark) = group.marks.get(&short(&key)) {
                    let (ino, ctime_ns, rest) = mark.parts();
                    records.push(Record {
                        key,
                        leaf,
                        ino,
                        ctime_ns,
                        rest,
                    });
                }
            }
            self.writer.add(&records)?;
        }
        self.next = end;
        Ok(end == 256)
    }
}

fn name(scope: &Digest) -> String {
    let mut name = scope.to_string();
    name.truncate(16);
    name
}

fn identity(root: &Root, scope: &Digest) -> Identity {
    let filesystems: Vec<(&[u8], u64, u64)> = root
        .filesystems()
        .map(|filesystem| {
            let (device, inode) = filesystem.root;
            (filesystem.prefix.as_bytes(), device, inode)
        })
        .collect();
    Identity::of(scope, &filesystems)
}

/// Whether an index is worth writing, by the changes since the last one and its age (none: there is none), and by how
/// many entries there are: about as many bytes are written as would be read otherwise, or the last one is an hour old.
fn is_due(kept: Option<(u64, Duration)>, entries: usize) -> bool {
    match kept {
        None => true,
        Some((0, _)) => false,
        Some((changes, age)) => {
            let many = u64::try_from(entries / 64).unwrap_or(u64::MAX).max(1024);
            age >= LATEST || (changes >= many && age >= SOONEST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_written_when_it_is_worth_it() {
        let hour = Duration::from_secs(3600);
        let minute = Duration::from_secs(60);
        assert!(is_due(None, 0));
        assert!(!is_due(Some((0, hour)), 1000));
        assert!(is_due(Some((1, hour)), 1000));
        assert!(!is_due(Some((1, minute)), 1000));
        assert!(is_due(Some((1024, minute)), 1000));
        assert!(!is_due(Some((1024, minute)), 1_000_000));
        assert!(!is_due(Some((1_000_000, minute / 2)), 1000));
    }

    #[test]
    fn after_a_look_at_everything_what_was_not_come_by_is_gone() {
        let key = |n: u8| Digest::of(&[n]);
        let slot = |n: u8, ctime| Slot::new(short(&key(n)), Mark::at(ctime));
        let known = Known {
            tree: Tree::from_leaves((0..5).map(|n| (key(n), key(n + 100))).collect()),
            marks: Marks::from_slots((0..5).map(|n| slot(n, 1)).collect()),
        };
        let round = known.marks.begin();
        for unmoved in [0, 1] {
            assert!(
                known
                    .marks
                    .pass_unmoved(&short(&key(unmoved)), round, &Mark::at(1))
            );
        }
        assert!(
            !known
                .marks
                .pass_unmoved(&short(&key(2)), round, &Mark::at(2))
        );
        let read = vec![(key(2), key(200)), (key(9), key(209))];
        let (tree, marks) = known.completed(round, read, vec![slot(2, 2), slot(9, 3)]);
        let expected = [(0, 100), (1, 101), (2, 200), (9, 209)];
        let expected = expected.map(|(n, leaf)| (key(n), key(leaf)));
        assert_eq!(tree, Tree::from_leaves(expected.to_vec()));
        assert_eq!(marks.get(&short(&key(2))), Some(Mark::at(2)));
        assert_eq!(marks.get(&short(&key(3))), None);
        assert_eq!(marks.get(&short(&key(9))), Some(Mark::at(3)));
    }
}
