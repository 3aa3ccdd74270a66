//! Which statements of a batch may go.

use super::*;

fn said(sequence: i64, previous: Digest) -> Attestation {
    serde_json::from_value(json!({
        "log": "l", "sequence": sequence, "previous": previous, "boot": "b", "issued": "2026-01-01T00:00:00.000000Z", "monotonic": sequence,
        "entries": 0, "local": Digest::ZERO, "growing": Digest::ZERO,
        "coverage": {"watch": {"rung": "D"}, "mounts": {"sha256": Digest::ZERO}}, "agent": {"version": "0"},
    }))
    .unwrap()
}

fn payload(sequence: i64) -> Digest {
    Digest::of(&sequence.to_be_bytes())
}

/// Quiet statements, one after the other.
fn batch(count: i64) -> Vec<Kept> {
    (0..count)
        .map(|sequence| Kept {
            sequence,
            payload: payload(sequence),
            received: sequence * 1_000,
            fresh: true,
            verdict: Some("pristine".to_owned()),
            said: Some(said(sequence, payload(sequence - 1))),
        })
        .collect()
}

fn gone(batch: &[Kept], told: &[i64], named: Option<i64>) -> Vec<i64> {
    quiet(batch, &told.iter().copied().collect(), named)
        .into_iter()
        .map(|one| one.sequence)
        .collect()
}

#[test]
fn of_a_quiet_batch_all_but_the_first_and_the_last_may_go() {
    assert_eq!(gone(&batch(6), &[], None), [1, 2, 3, 4]);
    assert!(gone(&batch(1), &[], None).is_empty() && gone(&[], &[], None).is_empty());
}

#[test]
fn what_says_something_stays_and_so_does_what_is_compared_with_nothing() {
    type Edit = fn(&mut Kept);
    let edits: [(Edit, &[i64]); 6] = [
        (|it| it.fresh = false, &[1, 2, 4]),
        // The change, and the change back.
        (|it| it.verdict = Some("drifted".to_owned()), &[1, 2]),
        (|it| it.said.as_mut().unwrap().goodbye = true, &[1, 2, 4]),
        (|it| it.said.as_mut().unwrap().previous = None, &[1, 2, 4]),
        (|it| it.said.as_mut().unwrap().entries = 7, &[1, 2]),
        (|it| it.said = None, &[1, 2]),
    ];
    for (at, (edit, left)) in edits.into_iter().enumerate() {
        let mut batch = batch(6);
        edit(&mut batch[3]);
        assert_eq!(gone(&batch, &[], None), left, "{at}");
    }
}

#[test]
fn what_something_refers_to_stays() {
    assert_eq!(gone(&batch(6), &[2_000], None), [1, 3, 4]);
    assert_eq!(gone(&batch(6), &[], Some(3)), [1, 2, 4]);
    let mut forked = batch(6);
    let mut twin = forked[3].clone();
    twin.payload = Digest::of(b"twin");
    forked.insert(4, twin);
    assert_eq!(
        gone(&forked, &[], None),
        [1, 2],
        "both, and what follows them by one of their names"
    );
}
