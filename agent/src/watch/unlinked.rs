//! Link counts that fell because a name went where scope does not look: half of what a storm of removals there brings.
//!
//! `unlink(2)` tells of the object (`ATTRIB`, without a name, because its link count fell) and of the name (`DELETE`). The first is
//! looked at by its handle, in case the object has a name in scope: it may have been linked to from elsewhere, written there, and
//! unlinked again. `linkat(2)` tells of the object first and of the new name then, so an object that was only made and removed,
//! or only removed, can be told apart by the order of what one process did, which the kernel keeps.

use std::collections::{HashMap, HashSet};

use super::EventSet;
use super::handles::events_of;
use super::record::{Handle, Record};

/// For each record whether it says nothing but that a name went in a directory that `ignored` knows.
///
/// An object with a known name in scope is for the caller to keep.
pub(super) fn only_unlinked(
    records: &[Record<'_>],
    ignored: impl Fn(&Handle<'_>) -> bool,
) -> Vec<bool> {
    let mut gone = HashSet::new();
    let mut named_last = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        let (Some(object), Some(named)) = (record.object, record.named) else {
            continue;
        };
        let events = events_of(record.mask);
        if events.contains(EventSet::DELETE) && ignored(&named.directory) {
            gone.insert(object);
        }
        if events.intersects(EventSet::CREATE.union(EventSet::RENAME)) {
            named_last.insert(object, at);
        }
    }
    let of_count =
        |record: &Record<'_>| record.named.is_none() && events_of(record.mask) == EventSet::ATTRIB;
    records
        .iter()
        .enumerate()
        .map(|(at, record)| {
            record.object.is_some_and(|object| {
                of_count(record)
                    && gone.contains(&object)
                    && named_last.get(&object).is_none_or(|named| *named < at)
            })
        })
        .collect()
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

    fn dropped(records: &[Record<'_>]) -> Vec<bool> {
        only_unlinked(records, |directory| directory.bytes == b"elsewhere")
    }

    const ELSEWHERE: Option<&[u8]> = Some(b"elsewhere");

    #[test]
    fn a_name_that_went_elsewhere_needs_no_look_at_its_object() {
        let removed = [
            record(libc::FAN_ATTRIB, b"a", None),
            record(libc::FAN_DELETE, b"a", ELSEWHERE),
        ];
        assert_eq!(dropped(&removed), [true, false]);
        let made_and_removed = [
            record(libc::FAN_CREATE | libc::FAN_DELETE, b"a", ELSEWHERE),
            record(libc::FAN_ATTRIB, b"a", None),
        ];
        assert_eq!(dropped(&made_and_removed), [false, true]);
    }

    #[test]
    fn a_name_that_came_and_went_elsewhere_is_looked_into() {
        // The two falls and rises of the count are one record, in the place of the first.
        let linked_and_unlinked = [
            record(libc::FAN_ATTRIB, b"sealed", None),
            record(libc::FAN_CREATE | libc::FAN_DELETE, b"sealed", ELSEWHERE),
        ];
        assert_eq!(dropped(&linked_and_unlinked), [false, false]);
        let by_two = [
            record(libc::FAN_ATTRIB, b"sealed", None),
            record(libc::FAN_CREATE, b"sealed", ELSEWHERE),
            record(libc::FAN_ATTRIB, b"sealed", None),
            record(libc::FAN_DELETE, b"sealed", ELSEWHERE),
        ];
        assert_eq!(dropped(&by_two), [false, false, true, false]);
    }

    #[test]
    fn what_may_concern_scope_is_kept() {
        let in_scope = [
            record(libc::FAN_ATTRIB, b"a", None),
            record(libc::FAN_DELETE, b"a", Some(b"sealed")),
        ];
        assert_eq!(dropped(&in_scope), [false, false]);
        let another = [
            record(libc::FAN_ATTRIB, b"a", None),
            record(libc::FAN_DELETE, b"b", ELSEWHERE),
        ];
        assert_eq!(dropped(&another), [false, false]);
        let more_than_a_count = [
            record(libc::FAN_ATTRIB | libc::FAN_MODIFY, b"a", None),
            record(libc::FAN_DELETE, b"a", ELSEWHERE),
        ];
        assert_eq!(dropped(&more_than_a_count), [false, false]);
    }
}
