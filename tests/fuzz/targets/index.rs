//! The index of the agent, of anything at all: it is refused, or it is what a writer of its records writes.
#![no_main]

use std::fs;

use attestation::digest::Digest;
use libfuzzer_sys::fuzz_target;
use pristine_agent::index::{Identity, Writer, read};

fuzz_target!(|data: &[u8]| {
    let identity = Identity::of(&Digest::of(b"scope"), &[(b"", 1, 2)]);
    // As it is, and with head and sum right, for what lies between would not be reached otherwise.
    drop(read(data, &identity, &mut drop));
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let place = folder.path().join("index");
    let begun = attestation::time::Timestamp::from_micros(0);
    let write = |records: &[_]| {
        let mut writer = Writer::create(&place, &identity, begun).expect("a file");
        writer.add(records).expect("rising keys");
        let whole = writer.finish().expect("an end");
        whole.commit().expect("a file in its place");
        fs::read(&place).expect("the file")
    };
    let mut bytes = write(&[]);
    bytes.truncate(bytes.len() - 32 - 12);
    bytes.extend_from_slice(data);
    let sum = Digest::of(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    let mut records = Vec::new();
    if read(bytes.as_slice(), &identity, &mut |record| records.push(record)).is_ok() {
        let mut again = Vec::new();
        read(write(&records).as_slice(), &identity, &mut |record| again.push(record))
            .expect("what was written");
        assert_eq!(records, again);
    }
});
