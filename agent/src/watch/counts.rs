//! Link counts that fell because a name went where scope does not look: half of what a storm of removals there brings.
//!
//! `unlink(2)` tells of the object (`ATTRIB` without a name, because its link count fell) and then of the name (`DELETE`), `linkat(2)`
//! of the object and then of the new name (`CREATE`). The object is looked at by its handle, as it may have a sealed name, and have
//! been written through the one elsewhere. Where a name was linked, every later write is found by that look; so nothing is missed by
//! letting go of a count that only fell.
//!
//! That it only fell is told by the order of what one process did. The kernel merges an event into an earlier one of the same process,
//! object and name, while that waits to be read: what came with one read is in order, what was torn apart by two reads is not.
//! Objects whose count was told of before are therefore remembered, and looked at each time. So many removals between the two halves of
//! one link that it was forgotten leave it to the next rescan, which sees that the file's ctime moved.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use super::EventSet;
use super::events::events_of;
use super::record::{Handle, Record};

/// Objects remembered at least: as many removals as some reads bring. Two generations of it take half a megabyte.
const REMEMBERED: usize = 8_192;

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Look {
    /// What is done with any.
    AsTold,
    /// The object got a name elsewhere, and the count that told of it may have been let go of: it is looked at by its handle.
    AtObject,
    /// Nothing: a name went elsewhere, and that is all.
    Nowhere,
}

/// Objects whose link count was told of lately.
#[derive(Debug, Default)]
pub(super) struct LinkCounts {
    hasher: RandomState,
    /// By hashes: two that are the same make for a look too many.
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl LinkCounts {
    /// Decides for each record of one read. `ignored` knows directories that scope does not look into.
    pub(super) fn judge<'b>(
        &mut self,
        records: &[Record<'b>],
        ignored: impl Fn(&Handle<'b>) -> bool,
    ) -> Vec<Look> {
        let names = names_of_counted(records, &ignored);
        let looks = records.iter().enumerate().map(|(at, record)| {
            let Some(object) = record.object else {
                return Look::AsTold;
            };
            if is_of_count(record) {
                let names = names.get(&(record.pid, object));
                if names.is_some_and(|names| names.only_went(at)) && !self.remembers(&object) {
                    return Look::Nowhere;
                }
            } else if events_of(record.mask).contains(EventSet::CREATE)
                && record.named.is_some_and(|named| ignored(&named.directory))
                && self.remembers(&object)
            {
                return Look::AtObject;
            }
            Look::AsTold
        });
        let looks = looks.collect();
        for (_, object) in names.keys() {
            self.remember(object);
        }
        looks
    }

    fn remembers(&self, object: &Handle<'_>) -> bool {
        let hash = self.hasher.hash_one(object);
        self.young.contains(&hash) || self.old.contains(&hash)
    }

    fn remember(&mut self, object: &Handle<'_>) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(self.hasher.hash_one(object));
    }
}

/// What one read tells of the names of an object whose count it tells of, by one process.
#[derive(Clone, Copy, Default)]
struct Names {
    /// One went elsewhere.
    gone: bool,
    /// Where in the read a name was told of last that the object got.
    got_last: Option<usize>,
}

impl Names {
    /// Whether the count that is told of here fell with a name elsewhere, and no name was got since.
    fn only_went(&self, at: usize) -> bool {
        self.gone && self.got_last.is_none_or(|got| got < at)
    }
}

fn names_of_counted<'b>(
    records: &[Record<'b>],
    ignored: impl Fn(&Handle<'b>) -> bool,
) -> HashMap<(i32, Handle<'b>), Names> {
    let counted = records.iter().filter(|record| is_of_count(record));
    let mut all: HashMap<_, _> = counted
        .filter_map(|record| Some(((record.pid, record.object?), Names::default())))
        .collect();
    if all.is_empty() {
        return all;
    }
    for (at, record) in records.iter().enumerate() {
        let (Some(object), Some(named)) = (record.object, record.named) else {
            continue;
        };
        let Some(names) = all.get_mut(&(record.pid, object)) else {
            continue;
        };
        let events = events_of(record.mask);
        names.gone |= events.contains(EventSet::DELETE) && ignored(&named.directory);
        if events.intersects(EventSet::CREATE.union(EventSet::RENAME)) {
            names.got_last = Some(at);
        }
    }
    all
}

fn is_of_count(record: &Record<'_>) -> bool {
    record.named.is_none() && events_of(record.mask) == EventSet::ATTRIB
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::record::Named;

    const fn handle(bytes: &[u8]) -> Handle<'_> {
        Handle {
            fsid: [7; 8],
            kind: 1,
            bytes,
        }
    }

    fn record<'b>(mask: u64, object: &'b [u8], directory: Option<&'b [u8]>) -> Record<'b> {
        Record {
            mask,
            pid: 42,
            object: Some(handle(object)),
            named: directory.map(|directory| Named {
                directory: handle(directory),
                name: b"name",
            }),
            renamed: None,
            mount: None,
        }
    }

    fn looks(counts: &mut LinkCounts, records: &[Record<'_>]) -> Vec<Look> {
        counts.judge(records, |directory| directory.bytes == b"elsewhere")
    }

    const ELSEWHERE: Option<&[u8]> = Some(b"elsewhere");
    const CREATE: u64 = libc::FAN_CREATE;
    const DELETE: u64 = libc::FAN_DELETE;
    const ATTRIB: u64 = libc::FAN_ATTRIB;

    #[test]
    fn a_name_that_went_elsewhere_needs_no_look_at_its_object() {
        let mut counts = LinkCounts::default();
        let removed = [record(ATTRIB, b"a", None), record(DELETE, b"a", ELSEWHERE)];
        assert_eq!(looks(&mut counts, &removed), [Look::Nowhere, Look::AsTold]);
        let made_and_removed = [
            record(CREATE | DELETE, b"b", ELSEWHERE),
            record(ATTRIB, b"b", None),
        ];
        assert_eq!(
            looks(&mut counts, &made_and_removed),
            [Look::AsTold, Look::Nowhere]
        );
    }

    #[test]
    fn a_name_that_came_and_went_elsewhere_is_looked_into() {
        let linked_and_unlinked = [
            record(ATTRIB, b"a", None),
            record(CREATE | DELETE, b"a", ELSEWHERE),
        ];
        assert_eq!(
            looks(&mut LinkCounts::default(), &linked_and_unlinked),
            [Look::AsTold; 2]
        );
        let under_two_names = [
            record(ATTRIB, b"a", None),
            record(DELETE, b"a", ELSEWHERE),
            record(CREATE, b"a", ELSEWHERE),
        ];
        assert_eq!(
            looks(&mut LinkCounts::default(), &under_two_names),
            [Look::AsTold; 3]
        );
    }

    #[test]
    fn a_count_that_two_reads_tore_from_its_name_is_looked_into() {
        let mut counts = LinkCounts::default();
        assert_eq!(
            looks(&mut counts, &[record(ATTRIB, b"a", None)]),
            [Look::AsTold]
        );
        let rest = [
            record(CREATE | DELETE, b"a", ELSEWHERE),
            record(ATTRIB, b"a", None),
        ];
        assert_eq!(looks(&mut counts, &rest), [Look::AtObject, Look::AsTold]);
    }

    #[test]
    fn a_name_whose_count_went_with_that_of_another_is_looked_into() {
        let mut counts = LinkCounts::default();
        // Unlinked here, and being linked there: the second count was merged into the first.
        let first = [record(ATTRIB, b"a", None), record(DELETE, b"a", ELSEWHERE)];
        assert_eq!(looks(&mut counts, &first), [Look::Nowhere, Look::AsTold]);
        let second = [record(CREATE, b"a", ELSEWHERE)];
        assert_eq!(looks(&mut counts, &second), [Look::AtObject]);
    }

    #[test]
    fn names_in_scope_and_names_of_others_are_looked_into() {
        let in_scope = [
            record(ATTRIB, b"a", None),
            record(DELETE, b"a", Some(b"here")),
        ];
        assert_eq!(
            looks(&mut LinkCounts::default(), &in_scope),
            [Look::AsTold; 2]
        );
        let mut by_another = record(DELETE, b"a", ELSEWHERE);
        by_another.pid = 43;
        let records = [record(ATTRIB, b"a", None), by_another];
        assert_eq!(
            looks(&mut LinkCounts::default(), &records),
            [Look::AsTold; 2]
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut counts = LinkCounts::default();
        for object in 0..4 * REMEMBERED {
            counts.remember(&handle(&object.to_le_bytes()));
        }
        assert!(counts.young.len() + counts.old.len() <= 2 * REMEMBERED);
        assert!(counts.remembers(&handle(&(3 * REMEMBERED).to_le_bytes())));
        assert!(!counts.remembers(&handle(&0_usize.to_le_bytes())));
    }
}
