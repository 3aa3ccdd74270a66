//! What must hold of statements whatever they hold: signed bytes cannot be changed, JSON has one reading, and
//! differences give the tree they were taken from.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;

use attestation::difference::{Unexplained, explains};
use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::json;
use attestation::key::{Algorithm, PrivateKey};
use attestation::path::ImagePath;
use attestation::scope::Expect;
use attestation::statement::{Difference, Renewal, Statement, Subject};
use attestation::time::Timestamp;
use attestation::tree::Tree;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::Value;

/// JSON with integers only, as our formats have it.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
        ]
    })
}

/// A few files by the number of their path, each with its size: small numbers, so that roots overlap.
fn root() -> impl Strategy<Value = BTreeMap<u8, u64>> {
    btree_map(0_u8..40, 0_u64..4, 0..40)
}

fn path(number: u8) -> ImagePath {
    ImagePath::from_bytes([b"dir/".as_slice(), &[number + 1]].concat()).unwrap()
}

fn line(number: u8, size: u64) -> Line {
    let digest = Digest::of(&size.to_be_bytes());
    let path = path(number);
    Line::parse(&format!(
        "{path} type=file mode=0644 uid=0 gid=0 size={size} sha256digest={digest}"
    ))
    .unwrap()
}

fn tree(root: &BTreeMap<u8, u64>) -> Tree {
    Tree::from_leaves(
        root.iter()
            .map(|(number, size)| (path(*number).key(), line(*number, *size).leaf()))
            .collect(),
    )
}

fn differences(image: &BTreeMap<u8, u64>, found: &BTreeMap<u8, u64>) -> Vec<Difference> {
    let at =
        |root: &BTreeMap<u8, u64>, number: u8| root.get(&number).map(|size| line(number, *size));
    let difference = |number: u8| Difference {
        path: path(number),
        expect: Expect::Sealed,
        expected: at(image, number),
        found: at(found, number),
        actor: None,
        at: Timestamp::from_micros(0),
    };
    (0..40)
        .map(difference)
        .filter(|it| it.expected != it.found)
        .collect()
}

fn statement(csr: String) -> Statement<Renewal> {
    Statement::about(
        Subject::of_bytes("node", &Digest::of(b"key")),
        Renewal { csr },
    )
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::Ed25519), Just(Algorithm::P256)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn strict_json_reads_what_was_written(value in value()) {
        let text = serde_json::to_vec(&value).unwrap();
        prop_assert_eq!(json::from_slice_strict::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn canonical_json_is_one_text_and_the_same_value(value in value()) {
        let canonical = json::canonical(&value).unwrap();
        let read: Value = json::from_slice_strict(&canonical).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(json::canonical(&read).unwrap(), canonical);
    }

    #[test]
    fn no_bytes_make_the_strict_reader_panic(text in vec(any::<u8>(), 0..200), like in "[\\[\\]{}\",:0-9ea\\\\. -]{0,80}") {
        prop_assert_eq!(json::from_slice_strict::<Value>(&text).is_ok(), json::check_strict(&text).is_ok());
        prop_assert_eq!(
            json::from_slice_strict::<Value>(like.as_bytes()).is_ok(),
            json::check_strict(like.as_bytes()).is_ok()
        );
        prop_assert!(Envelope::from_json(&text).is_err());
    }

    #[test]
    fn a_signed_statement_verifies_until_one_bit_changes(
        csr in any::<String>(), algorithm in algorithm(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        let key = PrivateKey::generate(algorithm).unwrap();
        let statement = statement(csr);
        let envelope = Envelope::sign(statement.to_payload(), &key).unwrap();
        let read = Envelope::from_json(&envelope.to_json()).unwrap();
        let verified = read.verify::<Renewal>(&[key.public()], 1).unwrap();
        prop_assert_eq!(verified.statement(), &statement);

        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            bytes
        };
        let with = |payload: &[u8], sig: &[u8]| {
            use base64::Engine as _;
            let base64 = base64::engine::general_purpose::STANDARD;
            let text = serde_json::json!({
                "payload": base64.encode(payload),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{"sig": base64.encode(sig)}],
            });
            Envelope::from_json(&serde_json::to_vec(&text).unwrap()).unwrap()
        };
        let sig = &envelope.signatures()[0].sig;
        let keys = [key.public()];
        prop_assert!(with(envelope.payload(), sig).verify::<Renewal>(&keys, 1).is_ok());
        prop_assert!(with(&flip(envelope.payload()), sig).verify::<Renewal>(&keys, 1).is_err());
        prop_assert!(with(envelope.payload(), &flip(sig)).verify::<Renewal>(&keys, 1).is_err());
        let other = PrivateKey::generate(algorithm).unwrap();
        prop_assert!(envelope.verify::<Renewal>(&[other.public()], 1).is_err());
    }

    #[test]
    fn differences_applied_to_the_image_give_the_tree(image in root(), found in root()) {
        let told = differences(&image, &found);
        prop_assert_eq!(explains(&tree(&image), &told, &tree(&found).root()), Ok(()));
    }

    #[test]
    fn one_difference_left_out_is_noticed(image in root(), found in root(), at in any::<prop::sample::Index>()) {
        let mut told = differences(&image, &found);
        prop_assume!(!told.is_empty());
        told.remove(at.index(told.len()));
        prop_assert_eq!(explains(&tree(&image), &told, &tree(&found).root()), Err(Unexplained::Tree));
    }
}
