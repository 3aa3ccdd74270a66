#![allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use std::fs;
use std::path::Path;

use attestation::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity::of(&Digest::of(b"scope"), &[(b"", 1, 2), (b"srv", 3, 4)])
}

fn record(number: u64) -> Record {
    Record {
        key: Digest::of(&number.to_le_bytes()),
        leaf: Digest::of(&number.to_be_bytes()),
        ino: number,
        ctime_ns: -1,
        rest: 7,
    }
}

fn records(count: u64) -> Vec<Record> {
    let mut records: Vec<Record> = (0..count).map(record).collect();
    records.sort_by_key(|record| record.key);
    records
}

fn write(place: &Path, records: &[Record]) {
    let begun = Timestamp::from_micros(5);
    let mut writer = Writer::create(place, &identity(), begun).unwrap();
    for part in records.chunks(5000) {
        writer.add(part).unwrap();
    }
    writer.finish().unwrap().commit().unwrap();
}

fn bytes_of(records: &[Record]) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("index");
    write(&place, records);
    fs::read(place).unwrap()
}

fn read_all(bytes: &[u8], identity: &Identity) -> Result<Vec<Record>, IndexError> {
    let mut all = Vec::new();
    let contents = read(bytes, identity, &mut |record| all.push(record))?;
    assert_eq!(contents.total, u64::try_from(all.len()).unwrap());
    assert_eq!(contents.begun, Timestamp::from_micros(5));
    Ok(all)
}

#[test]
fn what_was_written_is_read_and_nothing_is_left_beside() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("index");
    let all = records(12_345);
    write(&place, &records(3));
    write(&place, &all);
    let mut found = Vec::new();
    let contents = load(&place, &identity(), &mut |record| found.push(record)).unwrap();
    assert_eq!(contents.unwrap().total, 12_345);
    assert!(found == all);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    assert!(read_all(&bytes_of(&[]), &identity()).unwrap().is_empty());
}

#[test]
fn a_writer_that_ends_early_leaves_the_one_before() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("index");
    assert!(load(&place, &identity(), &mut drop).unwrap().is_none());
    write(&place, &records(10));
    let before = fs::read(&place).unwrap();
    let begun = Timestamp::from_micros(6);
    let mut writer = Writer::create(&place, &identity(), begun).unwrap();
    writer.add(&records(100)).unwrap();
    drop(writer);
    let mut writer = Writer::create(&place, &identity(), begun).unwrap();
    writer.add(&records(100)).unwrap();
    // Whole, but the crash comes before it is synced.
    drop(writer.finish().unwrap());
    assert_eq!(fs::read(&place).unwrap(), before);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn keys_that_do_not_rise_are_not_written() {
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("index");
    let mut writer = Writer::create(&place, &identity(), Timestamp::from_micros(5)).unwrap();
    let two = records(2);
    writer.add(&two[1..]).unwrap();
    assert!(writer.add(&two[..1]).is_err());
}

#[test]
fn another_scope_root_or_mount_is_refused() {
    let bytes = bytes_of(&records(3));
    let others = [
        Identity::of(&Digest::of(b"other"), &[(b"", 1, 2), (b"srv", 3, 4)]),
        Identity::of(&Digest::of(b"scope"), &[(b"", 1, 3), (b"srv", 3, 4)]),
        Identity::of(&Digest::of(b"scope"), &[(b"", 2, 2), (b"srv", 3, 4)]),
        Identity::of(&Digest::of(b"scope"), &[(b"", 1, 2)]),
    ];
    for other in others {
        assert!(matches!(read_all(&bytes, &other), Err(IndexError::Other)));
    }
    let mut other = bytes.clone();
    other[16] = 9;
    assert!(matches!(
        read_all(&other, &identity()),
        Err(IndexError::Format(9))
    ));
    other[0] = 0;
    assert!(matches!(
        read_all(&other, &identity()),
        Err(IndexError::Foreign)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_records_come_back(numbers in proptest::collection::btree_set(any::<u64>(), 0..200)) {
        let mut all: Vec<Record> = numbers.into_iter().map(record).collect();
        all.sort_by_key(|record| record.key);
        prop_assert_eq!(read_all(&bytes_of(&all), &identity()).unwrap(), all);
    }

    #[test]
    fn any_flipped_bit_and_any_other_length_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8, count in 0..40_u64) {
        let whole = bytes_of(&records(count));
        let mut flipped = whole.clone();
        let at = at.index(whole.len());
        flipped[at] ^= 1 << bit;
        prop_assert!(read_all(&flipped, &identity()).is_err());
        let mut cut = whole.clone();
        cut.truncate(at);
        prop_assert!(read_all(&cut, &identity()).is_err());
        let mut longer = whole;
        longer.push(0);
        prop_assert!(read_all(&longer, &identity()).is_err());
    }
}
