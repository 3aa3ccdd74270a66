//! A spool whose files hold anything at all: it opens with what is whole in them and takes new statements.
#![no_main]

use std::fs;

use attestation::digest::Digest;
use libfuzzer_sys::fuzz_target;
use pristine_agent::spool::Spool;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let half = data.len() / 2;
    fs::write(folder.path().join("segment-0000"), &data[..half]).expect("a file");
    fs::write(folder.path().join("segment-0001"), &data[half..]).expect("a file");
    let Ok(mut spool) = Spool::open(folder.path(), 0) else {
        return;
    };
    let waiting = spool.batch(256, 4 << 20).expect("what is in the spool");
    assert!(
        waiting
            .windows(2)
            .all(|pair| pair[0].sequence < pair[1].sequence)
    );
    let before = spool.position().sequence;
    let envelope = b"an envelope".to_vec();
    spool
        .append(Digest::of(&envelope), false, envelope.clone())
        .expect("room for one");
    assert_eq!(spool.position().sequence, before + 1);
    let newest = spool
        .newest()
        .expect("a readable spool")
        .expect("the one just put in");
    assert_eq!((newest.sequence, newest.envelope), (before, envelope));
});
