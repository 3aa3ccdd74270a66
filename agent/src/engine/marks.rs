//! What `statx` said of each sealed path when it was last read, in forty bytes a path: what has not moved since need not
//! be read again.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use attestation::digest::Digest;
use attestation::entry::{Entry, InodeFlags, Kind};
use attestation::time::Timestamp;

use crate::scan::{Fingerprint, Surveyed};

/// Half a key: enough to tell paths apart, also those of somebody who grinds names.
pub(super) type ShortKey = [u8; 16];

/// An inode that changed so shortly before it was read may change again without its ctime moving ("racily clean").
const RACY_MICROS: i64 = 20_000;
/// Paths that came since the table was sorted; from here on, and from an eighth of the table on, it is sorted anew.
const LATE: usize = 4096;

const DIRECTORY: u32 = 1;
const RACY: u32 = 2;
const GONE: u32 = 4;
const STATES: u32 = DIRECTORY | RACY | GONE;

pub(super) fn short(key: &Digest) -> ShortKey {
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(key.as_bytes()) {
        *to = *from;
    }
    short
}

/// What `statx` said when the entry was last read: equal means that the kernel knows of no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    ino: u64,
    ctime_ns: i64,
    /// A hash of what else `statx` says; the lowest bits are states.
    rest: u32,
}

impl Mark {
    /// Of an entry whose reading started then, or later.
    pub(super) fn of(entry: &Entry, fingerprint: &Fingerprint, started: Timestamp) -> Self {
        let mut mark = Self::surveyed(&Surveyed {
            fingerprint: *fingerprint,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            flags: entry.flags,
            directory: matches!(entry.kind, Kind::Dir),
        });
        if fingerprint.ctime_ns / 1000 >= started.as_micros().saturating_sub(RACY_MICROS) {
            mark.rest |= RACY;
        }
        mark
    }

    /// Of what is there, without reading it.
    pub(super) fn surveyed(surveyed: &Surveyed) -> Self {
        let Surveyed {
            fingerprint,
            mode,
            uid,
            gid,
            flags,
            directory,
        } = surveyed;
        let InodeFlags {
            immutable,
            append_only,
        } = flags;
        let Fingerprint {
            dev,
            ino,
            size,
            mtime_ns,
            ctime_ns,
            nlink,
        } = fingerprint;
        let mut hasher = DefaultHasher::new();
        (dev, size, mtime_ns, nlink).hash(&mut hasher);
        (mode, uid, gid, immutable, append_only).hash(&mut hasher);
        let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
        let mut rest = u32::from_le_bytes([a, b, c, d]) & !STATES;
        if *directory {
            rest |= DIRECTORY;
        }
        Self {
            ino: *ino,
            ctime_ns: *ctime_ns,
            rest,
        }
    }

    /// As it was kept on disk.
    pub(super) fn from_parts(ino: u64, ctime_ns: i64, rest: u32) -> Self {
        Self {
            ino,
            ctime_ns,
            rest: rest & !GONE,
        }
    }

    /// Inode, ctime, and the hash of the rest with its states.
    pub(super) fn parts(&self) -> (u64, i64, u32) {
        (self.ino, self.ctime_ns, self.rest)
    }

    /// It has a writer, so no look at it stands for the next.
    pub(super) fn unsettled(mut self) -> Self {
        self.rest |= RACY;
        self
    }

    pub(super) fn is_directory(&self) -> bool {
        self.rest & DIRECTORY != 0
    }

    /// Whether something happened to the object between the two. Directories change when what they hold does; that says
    /// nothing about them.
    pub(super) fn moved_from(&self, before: &Mark) -> bool {
        let directories = self.is_directory() && before.is_directory();
        !(directories || self.same(before))
    }

    /// Whether what was read then stands for what is there now.
    fn stands(&self, now: &Mark) -> bool {
        self.rest & RACY == 0 && self.same(now)
    }

    fn same(&self, other: &Mark) -> bool {
        (self.ino, self.ctime_ns, self.rest | RACY)
            == (other.ino, other.ctime_ns, other.rest | RACY)
    }

    /// Whether the object changed after a time, as its inode tells.
    pub(super) fn changed_after(&self, time: Timestamp) -> bool {
        !self.is_directory() && self.ctime_ns / 1000 > time.as_micros()
    }

    #[cfg(test)]
    pub(super) fn at(ctime_ns: i64) -> Self {
        Self {
            ino: 1,
            ctime_ns,
            rest: 0,
        }
    }
}

/// A path's mark, and the newest sweep that came by it.
#[derive(Debug)]
pub(super) struct Slot {
    key: ShortKey,
    ino: u64,
    ctime_ns: i64,
    rest: u32,
    round: AtomicU32,
}

impl Slot {
    pub(super) fn new(key: ShortKey, mark: Mark) -> Self {
        Self {
            key,
            ino: mark.ino,
            ctime_ns: mark.ctime_ns,
            rest: mark.rest,
            round: AtomicU32::new(0),
        }
    }

    fn mark(&self) -> Option<Mark> {
        (self.rest & GONE == 0).then_some(Mark {
            ino: self.ino,
            ctime_ns: self.ctime_ns,
            rest: self.rest,
        })
    }

    fn put(&mut self, mark: Option<Mark>) -> Option<Mark> {
        let before = self.mark();
        match mark {
            Some(mark) => {
                self.ino = mark.ino;
                self.ctime_ns = mark.ctime_ns;
                self.rest = mark.rest;
            }
            None => self.rest |= GONE,
        }
        before
    }
}

/// The marks of a scope; clones share them, so that the threads of a sweep can ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    sorted: Vec<Slot>,
    late: HashMap<ShortKey, Slot>,
    gone: usize,
    round: u32,
    /// Marks that were put or taken out.
    changes: u64,
}

impl Marks {
    pub(super) fn from_slots(slots: Vec<Slot>) -> Self {
        let mut table = Table {
            sorted: slots,
            ..Table::default()
        };
        table.sort();
        Self(Arc::new(RwLock::new(table)))
    }

    /// As they are now, shared with nobody.
    pub(super) fn snapshot(&self) -> Self {
        let table = self.read();
        let kept = table.sorted.iter().chain(table.late.values());
        let slots = kept.filter_map(|slot| Some(Slot::new(slot.key, slot.mark()?)));
        Self::from_slots(slots.collect())
    }

    /// Takes in marks of a look at everything.
    pub(super) fn extend(&self, slots: Vec<Slot>) {
        let mut table = self.write();
        for slot in slots {
            if let Some(mark) = slot.mark() {
                table.put(slot.key, Some(mark));
            }
        }
    }

    /// Counts marks that came, changed or went.
    pub(super) fn changes(&self) -> u64 {
        self.read().changes
    }

    /// Takes a mark in, just made; returns the one before.
    pub(super) fn insert(&self, key: ShortKey, mark: Mark) -> Option<Mark> {
        self.write().put(key, Some(mark))
    }

    pub(super) fn remove(&self, key: &ShortKey) -> Option<Mark> {
        self.write().put(*key, None)
    }

    pub(super) fn get(&self, key: &ShortKey) -> Option<Mark> {
        self.read().find(key)?.mark()
    }

    /// The paths whose inode has one of these numbers.
    pub(super) fn of_inodes(&self, numbers: &BTreeSet<u64>) -> BTreeSet<ShortKey> {
        let table = self.read();
        let slots = table.sorted.iter().chain(table.late.values());
        slots
            .filter(|slot| slot.rest & GONE == 0 && numbers.contains(&slot.ino))
            .map(|slot| slot.key)
            .collect()
    }

    /// A sweep begins: its number.
    pub(super) fn begin(&self) -> u32 {
        let mut table = self.write();
        table.round = table.round.saturating_add(1);
        table.round
    }

    /// A sweep comes by a path.
    pub(super) fn see(&self, key: &ShortKey, round: u32) {
        if let Some(slot) = self.read().find(key) {
            slot.round.fetch_max(round, Ordering::Relaxed);
        }
    }

    /// A sweep comes by a path: whether what was read of it stands.
    pub(super) fn see_unmoved(&self, key: &ShortKey, round: u32, now: &Mark) -> bool {
        let table = self.read();
        let Some(slot) = table.find(key) else {
            return false;
        };
        slot.round.fetch_max(round, Ordering::Relaxed);
        slot.mark().is_some_and(|before| before.stands(now))
    }

    /// As [`Self::see_unmoved`]; a path that moved is not seen by it.
    pub(super) fn pass_unmoved(&self, key: &ShortKey, round: u32, now: &Mark) -> bool {
        let table = self.read();
        let Some(slot) = table.find(key) else {
            return false;
        };
        let stands = slot.mark().is_some_and(|before| before.stands(now));
        if stands {
            slot.round.fetch_max(round, Ordering::Relaxed);
        }
        stands
    }

    /// Whether that sweep, or a later one or a look meanwhile, came by a path.
    pub(super) fn is_seen(&self, key: &ShortKey, round: u32) -> bool {
        let table = self.read();
        let slot = table.find(key);
        slot.is_some_and(|slot| slot.round.load(Ordering::Relaxed) >= round)
    }

    /// Whether there is a path that it did not come by.
    pub(super) fn any_unseen(&self, round: u32) -> bool {
        let table = self.read();
        let mut slots = table.sorted.iter().chain(table.late.values());
        slots.any(|slot| slot.mark().is_some() && slot.round.load(Ordering::Relaxed) < round)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&self, key: &ShortKey) -> Option<&Slot> {
        match self.sorted.binary_search_by(|slot| slot.key.cmp(key)) {
            Ok(index) => self.sorted.get(index),
            Err(_) => self.late.get(key),
        }
    }

    fn put(&mut self, key: ShortKey, mark: Option<Mark>) -> Option<Mark> {
        self.changes = self.changes.saturating_add(1);
        let round = AtomicU32::new(self.round);
        if let Ok(index) = self.sorted.binary_search_by(|slot| slot.key.cmp(&key)) {
            let slot = self.sorted.get_mut(index)?;
            slot.round = round;
            let before = slot.put(mark);
            match (before.is_some(), mark.is_some()) {
                (true, false) => self.gone += 1,
                (false, true) => self.gone = self.gone.saturating_sub(1),
                _ => {}
            }
            self.settle();
            return before;
        }
        let before = match mark {
            Some(mark) => {
                let mut slot = Slot::new(key, mark);
                slot.round = round;
                self.late.insert(key, slot)
            }
            None => self.late.remove(&key),
        };
        self.settle();
        before.and_then(|slot| slot.mark())
    }

    /// Sorts anew when enough came and went for it to be worth while.
    fn settle(&mut self) {
        let enough = LATE.max(self.sorted.len() / 8);
        if self.late.len() + self.gone > enough {
            self.sorted.extend(self.late.drain().map(|(_, slot)| slot));
            self.late = HashMap::new();
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.sorted.retain(|slot| slot.rest & GONE == 0);
        self.gone = 0;
        self.sorted.sort_unstable_by_key(|slot| slot.key);
        self.sorted.dedup_by(|one, other| one.key == other.key);
        self.sorted.shrink_to_fit();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use attestation::path::ImagePath;

    use super::*;
    use crate::engine::group::Observed;
    use crate::scan::Reading;

    fn key(number: u32) -> ShortKey {
        short(&Digest::of(&number.to_le_bytes()))
    }

    fn surveyed(ctime_ns: i64) -> Surveyed {
        Surveyed {
            fingerprint: Fingerprint {
                dev: 1,
                ino: 2,
                size: 3,
                mtime_ns: 4,
                ctime_ns,
                nlink: 1,
            },
            mode: 0o644,
            uid: 0,
            gid: 0,
            flags: InodeFlags::default(),
            directory: false,
        }
    }

    #[test]
    fn a_slot_takes_forty_bytes() {
        assert_eq!(size_of::<Slot>(), 40);
    }

    #[test]
    fn what_comes_and_goes_is_found_across_sorting() {
        let marks = Marks::default();
        for number in 0..20_000 {
            assert_eq!(marks.insert(key(number), Mark::at(i64::from(number))), None);
        }
        for number in (0..20_000).step_by(2) {
            let before = marks.remove(&key(number));
            assert_eq!(before, Some(Mark::at(i64::from(number))));
            assert_eq!(marks.remove(&key(number)), None);
        }
        for number in 0..20_000 {
            let kept = (number % 2 == 1).then(|| Mark::at(i64::from(number)));
            assert_eq!(marks.get(&key(number)), kept);
        }
        assert_eq!(marks.insert(key(2), Mark::at(7)), None);
        assert_eq!(marks.insert(key(2), Mark::at(8)), Some(Mark::at(7)));
        let table = marks.read();
        assert!(table.sorted.len() + table.late.len() < 20_000);
    }

    #[test]
    fn a_round_knows_what_it_did_not_come_by() {
        let marks = Marks::from_slots(vec![
            Slot::new(key(1), Mark::at(1)),
            Slot::new(key(2), Mark::at(1)),
        ]);
        let round = marks.begin();
        assert!(marks.see_unmoved(&key(1), round, &Mark::at(1)));
        assert!(marks.any_unseen(round) && !marks.is_seen(&key(2), round));
        assert!(!marks.see_unmoved(&key(2), round, &Mark::at(2)));
        assert!(!marks.any_unseen(round));
        // What is read during a round is newer than the round.
        let next = marks.begin();
        marks.insert(key(3), Mark::at(1));
        assert!(marks.is_seen(&key(3), next));
        marks.remove(&key(1));
        marks.see(&key(2), next);
        assert!(!marks.any_unseen(next));
        assert!(!marks.see_unmoved(&key(9), next, &Mark::at(1)));
    }

    #[test]
    fn each_thing_that_statx_tells_moves_a_mark() {
        let one = surveyed(1);
        let mut others = vec![surveyed(2); 8];
        for other in &mut others {
            other.fingerprint.ctime_ns = 1;
        }
        others[0].flags.immutable = true;
        others[1].mode = 0o4755;
        others[2].uid = 7;
        others[3].fingerprint.size = 4;
        others[4].fingerprint.mtime_ns = 5;
        others[5].fingerprint.ino = 5;
        others[6].fingerprint.dev = 5;
        others[7].fingerprint.nlink = 2;
        let mark = Mark::surveyed(&one);
        assert!(mark.stands(&Mark::surveyed(&one)));
        for other in others {
            assert!(!mark.stands(&Mark::surveyed(&other)), "{other:?}");
        }
        assert!(!mark.stands(&Mark::surveyed(&surveyed(2))));
        assert!(!mark.unsettled().stands(&mark) && !mark.unsettled().moved_from(&mark));
    }

    /// A second store into a page that is dirty already moves no ctime; and before Linux 6.13 a ctime is up to 4 ms behind.
    #[test]
    fn what_changed_less_than_20_ms_before_it_was_read_is_read_again() {
        const MILLIS: i64 = 1_000_000;
        // Reading starts at 1,000 ms.
        let started = Timestamp::from_micros(1_000_000);
        let stands = |ctime_ns: i64| {
            let now = surveyed(ctime_ns);
            let entry = Entry {
                path: ImagePath::from_bytes(b"a".to_vec()).unwrap(),
                mode: now.mode,
                uid: now.uid,
                gid: now.gid,
                time: None,
                flags: now.flags,
                kind: Kind::File {
                    size: now.fingerprint.size,
                    sha256: Some(Digest::ZERO),
                },
                xattrs: Vec::new(),
            };
            let observed = Observed::of(Reading::Entry(entry, now.fingerprint), started);
            let mark = observed.mark.unwrap();
            let now = Mark::surveyed(&now);
            // Only doubted: nothing happened to it that anybody should be told of.
            assert!(!now.moved_from(&mark));
            let (ino, ctime_ns, rest) = mark.parts();
            assert_eq!(Mark::from_parts(ino, ctime_ns, rest), mark, "in an index");
            let marks = Marks::default();
            marks.insert(key(1), mark);
            let round = marks.begin();
            let by_a_baseline = marks.pass_unmoved(&key(1), round, &now);
            let by_a_rescan = marks.see_unmoved(&key(1), round, &now);
            assert_eq!(by_a_baseline, by_a_rescan);
            by_a_rescan
        };
        for ctime_ns in [0, 979 * MILLIS, 980 * MILLIS - 1] {
            assert!(stands(ctime_ns), "{ctime_ns}");
        }
        // Also what changed while it was read, or by a clock that goes ahead.
        let racy = [980, 981, 999, 1_000, 1_001, 5_000].map(|at| at * MILLIS);
        for ctime_ns in racy {
            assert!(!stands(ctime_ns), "{ctime_ns}");
        }
    }
}
