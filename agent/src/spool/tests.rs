#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::fs;

use super::*;

fn envelope(sequence: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{{\"sequence\":{sequence}}}").into_bytes();
    bytes.resize(length.max(bytes.len()), b' ');
    bytes
}

fn append(spool: &mut Spool, length: usize) -> Outgoing {
    let sequence = spool.position().sequence;
    let envelope = envelope(sequence, length);
    let payload = Digest::of(&envelope);
    assert_eq!(
        spool.append(payload, false, envelope.clone()).unwrap(),
        Appended::Disk
    );
    Outgoing {
        sequence,
        payload,
        envelope,
    }
}

fn all(spool: &Spool) -> Vec<Outgoing> {
    spool.batch(usize::MAX, usize::MAX).unwrap()
}

const LIMIT: u64 = 4 * SEGMENT_BYTES;

#[test]
fn what_was_appended_is_sent_until_it_is_receipted() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    assert_eq!(
        spool.position(),
        Position {
            sequence: 0,
            previous: None
        }
    );
    let sent: Vec<_> = (0..5).map(|_| append(&mut spool, 100)).collect();
    assert_eq!(all(&spool), sent);
    assert_eq!(spool.batch(2, usize::MAX).unwrap(), sent[..2]);
    assert_eq!(spool.batch(9, 250).unwrap(), sent[..2]);
    assert_eq!(spool.batch(9, 1).unwrap(), sent[..1]);
    spool.receipted_before(3);
    assert_eq!(all(&spool), sent[3..]);
    drop(spool);
    let spool = Spool::open(scratch.path(), LIMIT).unwrap();
    assert_eq!(all(&spool), sent[3..]);
    assert_eq!(
        spool.position(),
        Position {
            sequence: 5,
            previous: Some(sent[4].payload)
        }
    );
}

#[test]
fn receipted_ones_are_offered_again_when_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    let sent: Vec<_> = (0..5).map(|_| append(&mut spool, 100)).collect();
    spool.receipted_before(5);
    assert!(all(&spool).is_empty());
    assert!(spool.resend_from(2));
    assert_eq!(all(&spool), sent[2..]);
    assert!(!spool.resend_from(7));
}

#[test]
fn a_torn_end_leaves_everything_before_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    let mut sent = vec![append(&mut spool, 60), append(&mut spool, 70)];
    spool.receipted_before(1);
    let used = spool.used[0];
    let whole = spool.segments[used].end();
    let last = append(&mut spool, 80);
    let end = spool.segments[used].end();
    drop(spool);
    let path = scratch.path().join(format!("segment-{used:04}"));
    let bytes = fs::read(&path).unwrap();
    sent.remove(0);
    for torn in whole..end {
        let mut damaged = bytes.clone();
        damaged[usize::try_from(torn).unwrap()..].fill(0);
        fs::write(&path, &damaged).unwrap();
        let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
        // The last bytes of a body may be spaces in a test only; zeroed they are another body.
        assert_eq!(all(&spool), sent, "torn at {torn}");
        assert_eq!(spool.position().sequence, 2);
        let again = append(&mut spool, 33);
        drop(spool);
        let spool = Spool::open(scratch.path(), LIMIT).unwrap();
        assert_eq!(all(&spool).last(), Some(&again), "torn at {torn}");
    }
    fs::write(&path, &bytes).unwrap();
    assert_eq!(
        all(&Spool::open(scratch.path(), LIMIT).unwrap()).last(),
        Some(&last)
    );
}

#[test]
fn segments_are_used_over_again_and_a_full_spool_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    let mut taken = 0;
    while spool.has_room(1_000_000) {
        append(&mut spool, 1_000_000);
        taken += 1;
    }
    assert_eq!(taken, 16);
    assert!(matches!(
        spool.append(Digest::ZERO, false, vec![0; 1_000_000]),
        Err(SpoolError::Full)
    ));
    assert_eq!(spool.position().sequence, 16);
    spool.receipted_before(16);
    for _ in 0..40 {
        append(&mut spool, 1_000_000);
        let next = spool.position().sequence;
        spool.receipted_before(next);
    }
    drop(spool);
    let spool = Spool::open(scratch.path(), LIMIT).unwrap();
    assert_eq!(spool.position().sequence, 56);
    assert_eq!(spool.waiting(), 0);
    assert_eq!(spool.newest().unwrap().unwrap().sequence, 55);
}

#[test]
fn a_reposition_survives_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    let sent: Vec<_> = (0..5).map(|_| append(&mut spool, 100)).collect();
    spool.receipted_before(3);
    let to = Position {
        sequence: 9,
        previous: Some(Digest::of(b"theirs")),
    };
    assert_eq!(spool.reposition(to).unwrap(), sent[3..]);
    assert_eq!(spool.position(), to);
    drop(spool);
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    assert_eq!(spool.position(), to);
    assert_eq!(spool.waiting(), 0);
    let next = append(&mut spool, 50);
    assert_eq!(next.sequence, 9);
    assert_eq!(all(&spool), [next]);
    assert_eq!(
        fs::read_dir(scratch.path().join("aside")).unwrap().count(),
        2
    );
}

#[test]
fn the_newest_unsent_one_may_be_quiet() {
    let scratch = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
    assert!(!spool.quiet_waits());
    spool
        .append(Digest::of(b"a"), true, b"{}".to_vec())
        .unwrap();
    assert!(spool.quiet_waits());
    spool
        .append(Digest::of(b"b"), false, b"{}".to_vec())
        .unwrap();
    assert!(!spool.quiet_waits());
    spool
        .append(Digest::of(b"c"), true, b"{}".to_vec())
        .unwrap();
    spool.receipted_before(3);
    assert!(!spool.quiet_waits());
}

/// What the spool must do, told with a list.
#[derive(Default)]
struct Model {
    all: Vec<Outgoing>,
    unsent: usize,
}

#[test]
fn random_histories_agree_with_a_list() {
    for seed in 1..=8_u64 {
        let scratch = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(scratch.path(), LIMIT).unwrap();
        let mut model = Model::default();
        let mut random = seed;
        for _ in 0..200 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let dice = usize::try_from(random >> 40).unwrap();
            match dice % 8 {
                0..=4 => model.all.push(append(&mut spool, dice % 90_000)),
                5 => {
                    let waiting = model.all.len() - model.unsent;
                    model.unsent += if waiting == 0 {
                        0
                    } else {
                        dice % (waiting + 1)
                    };
                    spool.receipted_before(u64::try_from(model.unsent).unwrap());
                }
                6 => {
                    drop(spool);
                    spool = Spool::open(scratch.path(), LIMIT).unwrap();
                    // The mark of receipts is only as durable as the next statement; here nothing was killed.
                    assert_eq!(spool.unsent_from(), u64::try_from(model.unsent).unwrap());
                }
                _ => {
                    let back = model.all.len().saturating_sub(dice % 20);
                    if back < model.all.len() && spool.resend_from(u64::try_from(back).unwrap()) {
                        model.unsent = back;
                    }
                }
            }
            assert_eq!(all(&spool), model.all[model.unsent..], "seed {seed}");
            assert_eq!(
                spool.position().sequence,
                u64::try_from(model.all.len()).unwrap()
            );
        }
    }
}

#[test]
fn a_full_disk_leaves_statements_in_memory_and_heals() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
        .arg(scratch.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        return;
    }
    let directory = scratch.path().join("spool");
    let ballast = scratch.path().join("ballast");
    let mut spool = Spool::open(&directory, LIMIT).unwrap();
    assert!(!spool.is_preallocated());
    drop(fs::write(&ballast, vec![1_u8; 8 << 20]));
    let mut sent = Vec::new();
    let mut in_memory = 0;
    for _ in 0..12 {
        let envelope = envelope(spool.position().sequence, 700_000);
        let payload = Digest::of(&envelope);
        let sequence = spool.position().sequence;
        match spool.append(payload, false, envelope.clone()) {
            Ok(Appended::Memory) => in_memory += 1,
            Ok(Appended::Disk) => {}
            Err(_) => break,
        }
        sent.push(Outgoing {
            sequence,
            payload,
            envelope,
        });
    }
    assert!(in_memory > 0, "the disk was never full");
    assert!(spool.failing().is_some());
    assert_eq!(all(&spool).len(), sent.len());
    fs::remove_file(&ballast).unwrap();
    fs::remove_dir_all(directory.join("aside")).ok();
    let status = std::process::Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(scratch.path())
        .status()
        .unwrap();
    assert!(status.success());
    sent.push(append(&mut spool, 100));
    assert!(spool.failing().is_none());
    assert_eq!(all(&spool), sent);
    drop(spool);
    let spool = Spool::open(&directory, LIMIT).unwrap();
    assert_eq!(all(&spool), sent);
    drop(spool);
    std::process::Command::new("umount")
        .arg(scratch.path())
        .status()
        .unwrap();
}
