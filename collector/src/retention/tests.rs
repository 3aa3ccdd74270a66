//! Which statements of a batch may go, and what nodes were before.

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

/// Rows of `node_images`: the node, since when.
async fn images(store: &Store) -> Vec<(String, i64)> {
    sqlx::query_as("SELECT node, since FROM node_images ORDER BY node, since")
        .fetch_all(store.read_pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_a_node_was_before_goes_once_it_was_something_else_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.db"))
        .await
        .unwrap();
    let rows = [
        ("a", 10),
        ("a", 20),
        ("a", 30),
        ("b", 5),
        ("c", 10),
        ("c", 40),
    ];
    let insert = "INSERT INTO node_images (node, since, image, sequence) VALUES (?, ?, X'00', 0)";
    store
        .write(move |tx| {
            Box::pin(async move {
                for (node, since) in rows {
                    let row = sqlx::query(insert).bind(node).bind(since);
                    row.execute(&mut tx.connection).await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
    let all = rows.map(|(node, since)| (node.to_owned(), since));
    images_before(&store, 20).await.unwrap();
    assert_eq!(images(&store).await, all, "none was another before then");
    images_before(&store, 21).await.unwrap();
    assert_eq!(images(&store).await, all[1..], "only the first of a");
    images_before(&store, i64::MAX).await.unwrap();
    let newest = [2, 3, 5].map(|at| all[at].clone());
    assert_eq!(
        images(&store).await,
        newest,
        "the newest stays, however old"
    );
}
