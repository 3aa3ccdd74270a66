//! Runs every case of `vectors/public.json`: the sections of FORMATS.md as another implementation has worked them out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;

use attestation::difference::explains;
use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::key::PublicKey;
use attestation::manifest::ManifestReader;
use attestation::path::ImagePath;
use attestation::scope::{Expect, Rule, Scope};
use attestation::statement::Difference;
use attestation::tree::{Presence, Proof, Tree};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Value>,
}

#[test]
fn public_vectors() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/public.json")).unwrap();
    assert!(!vectors.cases.is_empty());
    for case in vectors.cases {
        let id = case["id"].as_str().unwrap().to_owned();
        println!("{id} {}", case["note"]);
        match case["kind"].as_str().unwrap() {
            "encode" => encode(read(case)),
            "reject-line" => reject_line(read(case)),
            "order" => order(read(case)),
            "tree" => tree(read(case)),
            "differences" => differences(read(case)),
            "proof" => proof(read(case)),
            "keyid" => keyid(read(case)),
            "envelope" => envelope(&case),
            "scope" => scope(read(case)),
            "reject-scope" => reject_scope(read(case)),
            kind => panic!("{id}: no test for the kind {kind}"),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(case: Value) -> T {
    serde_json::from_value(case).unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let pair = |index| u8::from_str_radix(&hex[index..index + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// One pair, or several.
#[derive(Deserialize)]
struct Encode {
    #[serde(default)]
    pairs: Vec<EncodePair>,
    #[serde(flatten)]
    own: Option<EncodePair>,
}

#[derive(Deserialize)]
struct EncodePair {
    raw: String,
    shown: String,
}

fn encode(case: Encode) {
    for pair in case.pairs.into_iter().chain(case.own) {
        let path = ImagePath::from_bytes(bytes_of(&pair.raw)).unwrap();
        assert_eq!(path.to_string(), pair.shown);
        assert_eq!(ImagePath::parse(&pair.shown).unwrap(), path);
    }
}

#[derive(Deserialize)]
struct RejectLine {
    lines: Vec<String>,
}

fn reject_line(case: RejectLine) {
    for line in case.lines {
        assert!(Line::parse(&line).is_err(), "{line}");
    }
}

#[derive(Deserialize)]
struct Order {
    paths: Vec<String>,
}

fn order(case: Order) {
    let paths: Vec<_> = case
        .paths
        .iter()
        .map(|hex| ImagePath::from_bytes(bytes_of(hex)).unwrap())
        .collect();
    assert!(paths.is_sorted_by(|one, next| one < next));
}

/// The entries of a case, as lines or as a whole manifest.
#[derive(Deserialize)]
struct Entries {
    entries: Option<Vec<Line>>,
    manifest: Option<String>,
}

impl Entries {
    fn lines(&self) -> Vec<Line> {
        let Some(manifest) = &self.manifest else {
            return self.entries.clone().unwrap();
        };
        let mut reader = ManifestReader::new(manifest.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line.to_line());
        }
        lines
    }

    fn tree(&self) -> Tree {
        Tree::from_leaves(
            self.lines()
                .iter()
                .map(|line| (line.path().key(), line.leaf()))
                .collect(),
        )
    }
}

#[derive(Deserialize)]
struct TreeCase {
    #[serde(flatten)]
    entries: Entries,
    tree: Digest,
}

fn tree(case: TreeCase) {
    let tree = case.entries.tree();
    assert_eq!(tree.root(), case.tree);
    let lines = case.entries.lines();
    for line in &lines {
        assert_eq!(line.entry().line().unwrap(), *line);
        let find = |key: &Digest| lines.iter().find(|line| line.path().key() == *key).cloned();
        let proof = tree.prove(&line.path(), find);
        assert_eq!(proof.check(&case.tree), Ok(Presence::Present(line.clone())));
    }
}

#[derive(Deserialize)]
struct ProofCase {
    tree: Digest,
    proof: Value,
    present: Option<bool>,
}

fn proof(case: ProofCase) {
    let proof = serde_json::from_value::<Proof>(case.proof).ok();
    let shown = proof.and_then(|proof| proof.check(&case.tree).ok());
    assert_eq!(
        shown.map(|shown| matches!(shown, Presence::Present(_))),
        case.present
    );
}

#[derive(Deserialize)]
struct Differences {
    #[serde(flatten)]
    entries: Entries,
    differences: Vec<Value>,
    tree: Option<Digest>,
    before: Option<Digest>,
    attested: Option<Digest>,
}

/// What every difference has beside what a case says.
fn complete(mut difference: Value) -> Option<Difference> {
    let members = difference.as_object_mut()?;
    members.entry("expect").or_insert("sealed".into());
    members
        .entry("at")
        .or_insert("1970-01-01T00:00:00.000000Z".into());
    serde_json::from_value(difference).ok()
}

fn differences(case: Differences) {
    let image = case.entries.tree();
    if let Some(before) = case.before {
        assert_eq!(image.root(), before);
    }
    let differences = case
        .differences
        .into_iter()
        .map(complete)
        .collect::<Option<Vec<_>>>();
    let attested = case
        .tree
        .or(case.attested)
        .unwrap_or_else(|| match &differences {
            // Refused whatever the tree is: also when it is the one that the differences lead to.
            Some(differences) => image.root_with(&changes(differences)),
            None => Digest::ZERO,
        });
    let explained =
        differences.is_some_and(|differences| explains(&image, &differences, &attested).is_ok());
    assert_eq!(explained, case.tree.is_some());
}

fn changes(differences: &[Difference]) -> Vec<(Digest, Option<Digest>)> {
    differences
        .iter()
        .map(|one| (one.path.key(), one.found.as_ref().map(Line::leaf)))
        .collect()
}

#[derive(Deserialize)]
struct KeyId {
    pem: String,
    keyid: String,
}

fn keyid(case: KeyId) {
    assert_eq!(
        PublicKey::from_pem(&case.pem).unwrap().keyid().to_string(),
        case.keyid
    );
}

fn envelope(case: &Value) {
    let json = serde_json::to_vec(&case["envelope"]).unwrap();
    let pems = case["public"].as_array().unwrap();
    let keys: Vec<_> = pems
        .iter()
        .map(|pem| PublicKey::from_pem(pem.as_str().unwrap()).unwrap())
        .collect();
    let threshold = usize::try_from(case["threshold"].as_u64().unwrap()).unwrap();
    let verified =
        Envelope::from_json(&json).is_ok_and(|envelope| envelope.check(&keys, threshold).is_ok());
    assert_eq!(verified, case["verifies"].as_bool().unwrap());
}

#[derive(Deserialize)]
struct ScopeCase {
    rules: Scope,
    digest: Digest,
    decisions: BTreeMap<ImagePath, (Expect, bool)>,
}

fn scope(case: ScopeCase) {
    assert_eq!(case.rules.digest(), case.digest);
    for (path, expected) in case.decisions {
        let decision = case.rules.decide(&path);
        assert_eq!((decision.expect, decision.time), expected, "{path}");
    }
}

#[derive(Deserialize)]
struct RejectScope {
    globs: Vec<String>,
}

fn reject_scope(case: RejectScope) {
    for glob in case.globs {
        let rule = Rule {
            r#match: glob,
            expect: Expect::Sealed,
            time: false,
        };
        assert!(Scope::new(vec![rule.clone()]).is_err(), "{}", rule.r#match);
    }
}
