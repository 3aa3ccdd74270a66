//! From evidence to a verdict (FORMATS.md 5.3): a plain function, so that whoever holds the same inputs gets the same.

use crate::difference::{Attested, Pins, Unexplained, check_listed, explains_all};
use crate::digest::Digest;
use crate::dsse::VerifiedStatement;
use crate::path::ImagePath;
use crate::scope::Expect;
use crate::statement::{Allowed, Attestation, Coverage, Difference, Image, Statement};
use crate::time::Timestamp;
use crate::tree::Tree;

pub use crate::verdict::{UnknownVerdict, Verdict};

/// The most reasons that an appraisal lists; one more then says how many there are besides.
pub const MAX_REASONS: usize = 16;

/// The image that an attestation says it compares with, as the collector holds it.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// SHA-256 of the image statement's payload.
    pub image_payload: Digest,
    /// The statement; its signatures were checked when it was published.
    pub statement: &'a Statement<Image>,
    /// The entries of its manifest.
    pub tree: &'a Tree,
}

/// All that a verdict is derived from.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What the node said.
    pub attestation: &'a VerifiedStatement<Attestation>,
    /// Its differences; those of the statement named by `as`, where it names one.
    pub differences: &'a [Difference],
    /// Whether two statements of the node had one sequence.
    pub forked: bool,
    /// What the assignment allows.
    pub allowed: &'a [Allowed],
    /// The image that the attestation names, where it is held.
    pub reference: Option<Reference<'a>>,
    /// When the attestation was received, by the collector's clock.
    pub received: Timestamp,
    /// Whether the image was revoked.
    pub revoked: bool,
    /// The pins that the attestation names.
    pub pins: Pins<'a>,
}

/// A verdict and why.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// The result.
    pub verdict: Verdict,
    /// Why: a stable word, then what it is about. At most [`MAX_REASONS`] and one with the number of the rest.
    pub reasons: Vec<String>,
}

/// Appraises; the first verdict that applies is given, and the reasons are that verdict's alone.
pub fn appraise(evidence: &Evidence<'_>) -> Appraisal {
    if evidence.forked {
        return one(Verdict::Forked, "fork".to_owned());
    }
    let reference = match allowed_reference(evidence) {
        Ok(reference) => reference,
        Err(refused) => return refused,
    };
    if let Some(reason) = unexplained(evidence, &reference) {
        return one(Verdict::Unexplained, reason);
    }
    let drift = drift(evidence);
    if !drift.is_empty() {
        return drift.into_appraisal(Verdict::Drifted);
    }
    let unseen = unseen(evidence, &reference);
    if !unseen.is_empty() {
        return unseen.into_appraisal(Verdict::Incomplete);
    }
    Appraisal {
        verdict: Verdict::Pristine,
        reasons: Vec::new(),
    }
}

/// The image to compare with, or why it is none to be compared with.
fn allowed_reference<'a>(evidence: &Evidence<'a>) -> Result<Reference<'a>, Appraisal> {
    let unknown = |reason: String| Err(one(Verdict::UnknownImage, reason));
    let Some(image) = evidence.attestation.predicate().image else {
        return unknown("no-image".to_owned());
    };
    let reference = evidence
        .reference
        .filter(|reference| reference.image_payload == image);
    let mut allowed = evidence
        .allowed
        .iter()
        .filter(|allowed| allowed.holds_at(evidence.received));
    if !allowed.any(|allowed| allowed.image == image) {
        if let Some(reason) =
            reference.and_then(|reference| rollback(evidence, reference.statement))
        {
            return Err(one(Verdict::Rollback, reason));
        }
        return unknown(format!("not-allowed {image}"));
    }
    if evidence.revoked {
        return unknown(format!("revoked {image}"));
    }
    let Some(reference) = reference else {
        return unknown(format!("not-held {image}"));
    };
    if reference.statement.is_expired(evidence.received) {
        return unknown(format!("expired {image}"));
    }
    Ok(reference)
}

/// Same name as an allowed image, and an epoch below all allowed ones of that name.
fn rollback(evidence: &Evidence<'_>, image: &Statement<Image>) -> Option<String> {
    let name = image.name()?;
    let same_name = evidence
        .allowed
        .iter()
        .filter(|allowed| allowed.holds_at(evidence.received) && allowed.name == name);
    let lowest = same_name.map(|allowed| allowed.epoch).min()?;
    let epoch = image.predicate.epoch;
    (epoch < lowest).then(|| format!("epoch {epoch} below {lowest}"))
}

/// How many differences are not listed; nothing where the numbers contradict each other.
fn unlisted(evidence: &Evidence<'_>) -> Option<u64> {
    let listed = evidence.differences.len() as u64;
    evidence
        .attestation
        .predicate()
        .differences_total
        .unwrap_or(listed)
        .checked_sub(listed)
}

fn unexplained(evidence: &Evidence<'_>, reference: &Reference<'_>) -> Option<String> {
    let said = evidence.attestation.predicate();
    if said.r#as.is_some() && !said.differences.is_empty() {
        return Some("as".to_owned());
    }
    let Some(unlisted) = unlisted(evidence) else {
        return Some("differences-total".to_owned());
    };
    let Some(sealed) = evidence.attestation.statement().tree() else {
        return Some("subject".to_owned());
    };
    let pins = match said.pins {
        None => Pins::None,
        Some(_) if matches!(evidence.pins, Pins::None) => Pins::Missing,
        Some(_) => evidence.pins,
    };
    let scope = &reference.statement.predicate.scope;
    let checked = if unlisted > 0 {
        check_listed(reference.tree, pins, evidence.differences).map(drop)
    } else {
        let attested = Attested {
            sealed,
            local: said.local,
            growing: said.growing,
        };
        explains_all(reference.tree, pins, evidence.differences, &attested)
    };
    let fault = match checked {
        Err(fault @ (Unexplained::Tree | Unexplained::Local | Unexplained::Growing)) => {
            Some(fault.to_string())
        }
        Err(fault) => return Some(fault.to_string()),
        Ok(()) => None,
    };
    // A tree that does not come out is told by the difference that the scope does not have, where there is one.
    let misplaced = evidence
        .differences
        .iter()
        .find(|it| scope.decide(&it.path).expect != it.expect);
    misplaced.map(|it| format!("expect {}", it.path)).or(fault)
}

fn drift(evidence: &Evidence<'_>) -> Reasons {
    let coverage = &evidence.attestation.predicate().coverage;
    let mut reasons = Reasons::default();
    if let Some(unlisted @ 1..) = unlisted(evidence) {
        reasons.add(|| format!("unlisted {unlisted}"));
    }
    for difference in evidence.differences {
        if !is_unreadable(coverage, &difference.path) {
            reasons.add(|| format!("difference {}", difference.path));
        }
    }
    for mount in &coverage.mounts.unexpected {
        reasons.add(|| format!("mount {}", mount.path));
    }
    reasons.add_unlisted(
        "mount",
        coverage.mounts.unexpected.len(),
        coverage.mounts.unexpected_total,
    );
    reasons
}

fn unseen(evidence: &Evidence<'_>, reference: &Reference<'_>) -> Reasons {
    let said = evidence.attestation.predicate();
    let coverage = &said.coverage;
    let is_sealed = |path: &ImagePath| {
        reference.statement.predicate.scope.decide(path).expect == Expect::Sealed
    };
    // A directory that is not sealed may hold what is: it counts as sealed where a sealed path below it is missing.
    let hides_sealed = |path: &ImagePath| {
        evidence
            .differences
            .iter()
            .any(|it| it.expect == Expect::Sealed && it.path.starts_with(path))
    };
    let mut reasons = Reasons::default();
    for gap in &coverage.gaps {
        reasons.add(|| format!("gap {}", gap.cause));
    }
    reasons.add_unlisted("gap", coverage.gaps.len(), coverage.gaps_total);
    for unreadable in &coverage.unreadable {
        if is_sealed(&unreadable.path) || hides_sealed(&unreadable.path) {
            reasons.add(|| format!("unreadable {}", unreadable.path));
        }
    }
    reasons.add_unlisted(
        "unreadable",
        coverage.unreadable.len(),
        coverage.unreadable_total,
    );
    for path in coverage.unsettled.iter().filter(|path| is_sealed(path)) {
        reasons.add(|| format!("unsettled {path}"));
    }
    reasons.add_unlisted(
        "unsettled",
        coverage.unsettled.len(),
        coverage.unsettled_total,
    );
    if said.pins.is_some() && !matches!(evidence.pins, Pins::Held { .. }) {
        reasons.add(|| "pins".to_owned());
    }
    reasons
}

fn is_unreadable(coverage: &Coverage, path: &ImagePath) -> bool {
    coverage
        .unreadable
        .iter()
        .any(|unreadable| path.starts_with(&unreadable.path))
}

fn one(verdict: Verdict, reason: String) -> Appraisal {
    Appraisal {
        verdict,
        reasons: vec![reason],
    }
}

/// The first reasons, and how many there are.
#[derive(Default)]
struct Reasons {
    listed: Vec<String>,
    more: u64,
}

impl Reasons {
    fn add(&mut self, reason: impl FnOnce() -> String) {
        if self.listed.len() < MAX_REASONS {
            self.listed.push(reason());
        } else {
            self.more += 1;
        }
    }

    /// What a list of the statement leaves out applies too, wherever it is.
    fn add_unlisted(&mut self, word: &str, listed: usize, total: Option<u64>) {
        let rest = total.unwrap_or(0).saturating_sub(listed as u64);
        if rest > 0 {
            self.add(|| format!("{word} {rest} unlisted"));
        }
    }

    fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    fn into_appraisal(mut self, verdict: Verdict) -> Appraisal {
        if self.more > 0 {
            self.listed.push(format!("more {}", self.more));
        }
        Appraisal {
            verdict,
            reasons: self.listed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dsse::Envelope;
    use crate::entry::Line;
    use crate::key::{Algorithm, PrivateKey};
    use crate::scope::Scope;
    use crate::statement::{
        AgentFacts, FileRef, Gap, ManifestRef, Mounts, Rung, Source, Subject, UnexpectedMount,
        Unreadable, WatchCoverage,
    };

    const ROOT: &str = ". type=dir mode=0755 uid=0 gid=0";
    const PIPE: &str = "./run/pipe type=fifo mode=0600 uid=0 gid=0";
    const OPEN: &str = "./run/pipe type=fifo mode=0666 uid=0 gid=0";
    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn tree(lines: &[&str]) -> Tree {
        let leaf = |text: &&str| {
            let line = Line::parse(text).unwrap();
            (line.path().key(), line.leaf())
        };
        Tree::from_leaves(lines.iter().map(leaf).collect())
    }

    fn image(scope: &str) -> Statement<Image> {
        let predicate = Image {
            version: "1".to_owned(),
            epoch: 5,
            created: NOW,
            expires: None,
            entries: 2,
            bytes: 0,
            scope: Scope::from_json(scope.as_bytes()).unwrap(),
            mounts: vec![],
            source: Source::default(),
            builder: crate::statement::Builder::default(),
            manifest: ManifestRef {
                media_type: ManifestRef::MEDIA_TYPE.to_owned(),
                size: 1,
                sha256: Digest::of(b"manifest"),
                uncompressed: 1,
            },
        };
        Statement::about(
            Subject::of_tree("web", &tree(&[ROOT, PIPE]).root()),
            predicate,
        )
    }

    fn attestation() -> Attestation {
        Attestation {
            log: "log.example".to_owned(),
            sequence: 0,
            previous: None,
            boot: "boot".to_owned(),
            issued: NOW,
            monotonic: 1,
            goodbye: false,
            rewound: false,
            challenge: Some("c".to_owned()),
            checkpoint: None,
            image: Some(Digest::of(b"image")),
            entries: 2,
            local: Digest::ZERO,
            growing: Digest::ZERO,
            pins: None,
            coverage: Coverage {
                watch: WatchCoverage {
                    rung: Rung::A,
                    limits: vec![],
                    limits_total: None,
                },
                since: Some(NOW),
                read: Some(NOW),
                gaps: vec![],
                gaps_total: None,
                unreadable: vec![],
                unreadable_total: None,
                unsettled: vec![],
                unsettled_total: None,
                mounts: Mounts {
                    sha256: Digest::ZERO,
                    unexpected: vec![],
                    unexpected_total: None,
                },
            },
            differences: vec![],
            differences_total: None,
            r#as: None,
            grown: vec![],
            grown_total: None,
            touched: vec![],
            touched_total: None,
            sessions: vec![],
            sessions_total: None,
            agent: AgentFacts::default(),
            claims: vec![],
            snapshot: None,
        }
    }

    fn allowed(image: &[u8], name: &str, epoch: u64, until: Option<i64>) -> Allowed {
        Allowed {
            image: Digest::of(image),
            name: name.to_owned(),
            version: "1".to_owned(),
            epoch,
            until: until.map(Timestamp::from_micros),
        }
    }

    /// One case: what is said, found and held, all of it right until a test changes it.
    struct Case {
        said: Attestation,
        found: Vec<&'static str>,
        image: Statement<Image>,
        allowed: Vec<Allowed>,
        forked: bool,
        revoked: bool,
        is_held: bool,
        subject: Option<Subject>,
    }

    impl Case {
        fn new() -> Self {
            Self {
                said: attestation(),
                found: vec![ROOT, PIPE],
                image: image("[]"),
                allowed: vec![allowed(b"image", "web", 5, None)],
                forked: false,
                revoked: false,
                is_held: true,
                subject: None,
            }
        }

        fn differs(mut self) -> Self {
            self.said.differences = vec![difference(
                "./run/pipe",
                Expect::Sealed,
                Some(PIPE),
                Some(OPEN),
            )];
            self.found = vec![ROOT, OPEN];
            self
        }

        fn appraise_with(&self, pins: Pins<'_>) -> Appraisal {
            let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
            let subject = Subject::of_tree("node", &tree(&self.found).root());
            let subject = self.subject.clone().unwrap_or(subject);
            let payload = Statement::about(subject, self.said.clone()).to_payload();
            let envelope = Envelope::sign(payload, &key).unwrap();
            let verified = envelope.verify(&[key.public()], 1).unwrap();
            let entries = tree(&[ROOT, PIPE]);
            let reference = Reference {
                image_payload: Digest::of(b"image"),
                statement: &self.image,
                tree: &entries,
            };
            appraise(&Evidence {
                attestation: &verified,
                differences: &self.said.differences,
                forked: self.forked,
                allowed: &self.allowed,
                reference: self.is_held.then_some(reference),
                received: NOW,
                revoked: self.revoked,
                pins,
            })
        }

        fn gives(&self, verdict: Verdict, reasons: &[&str]) {
            let appraisal = self.appraise_with(Pins::None);
            let given: Vec<&str> = appraisal.reasons.iter().map(String::as_str).collect();
            assert_eq!((appraisal.verdict, given.as_slice()), (verdict, reasons));
        }
    }

    fn difference(
        path: &str,
        expect: Expect,
        expected: Option<&str>,
        found: Option<&str>,
    ) -> Difference {
        let line = |text: &str| Line::parse(text).unwrap();
        let (expected, found) = (expected.map(line), found.map(line));
        Difference {
            path: path.parse().unwrap(),
            expect,
            expected,
            found,
            actor: None,
            at: NOW,
        }
    }

    fn unreadable(path: &str) -> Unreadable {
        Unreadable {
            path: path.parse().unwrap(),
            error: "EIO".to_owned(),
        }
    }

    fn gap() -> Gap {
        Gap {
            from: NOW,
            to: None,
            cause: "overflow".to_owned(),
            paths: vec![],
            paths_total: None,
        }
    }

    fn mount() -> UnexpectedMount {
        let path = "./etc".parse().unwrap();
        UnexpectedMount {
            path,
            source: "x".to_owned(),
            r#type: "tmpfs".to_owned(),
            actor: None,
        }
    }

    #[test]
    fn what_is_as_the_image_has_it_is_pristine() {
        Case::new().gives(Verdict::Pristine, &[]);
    }

    #[test]
    fn standing_limits_change_no_verdict() {
        let mut case = Case::new();
        case.said.coverage.watch = WatchCoverage {
            rung: Rung::None,
            limits: vec!["no watch".to_owned()],
            limits_total: None,
        };
        case.said.coverage.since = None;
        case.said.coverage.read = None;
        case.said.challenge = None;
        case.said.goodbye = true;
        case.gives(Verdict::Pristine, &[]);
    }

    #[test]
    fn the_first_verdict_that_applies_is_given() {
        let everything_wrong = || {
            let mut case = Case::new().differs();
            case.found = vec![ROOT];
            case.said.coverage.gaps = vec![gap()];
            case.said.coverage.mounts.unexpected = vec![mount()];
            case.revoked = true;
            case.allowed = vec![allowed(b"other", "web", 6, None)];
            case
        };
        let mut case = everything_wrong();
        case.forked = true;
        case.gives(Verdict::Forked, &["fork"]);
        case.forked = false;
        case.gives(Verdict::Rollback, &["epoch 5 below 6"]);
        case.allowed = vec![allowed(b"image", "web", 5, None)];
        let image = Digest::of(b"image");
        case.gives(Verdict::UnknownImage, &[&format!("revoked {image}")]);
        case.revoked = false;
        case.gives(Verdict::Unexplained, &["tree"]);
        case.found = vec![ROOT, OPEN];
        case.gives(Verdict::Drifted, &["difference ./run/pipe", "mount ./etc"]);
        case.said.differences.clear();
        case.found = vec![ROOT, PIPE];
        case.gives(Verdict::Drifted, &["mount ./etc"]);
        case.said.coverage.mounts.unexpected.clear();
        case.gives(Verdict::Incomplete, &["gap overflow"]);
        case.said.coverage.gaps.clear();
        case.gives(Verdict::Pristine, &[]);
    }

    #[test]
    fn rollback_is_the_same_name_and_an_epoch_below_all_allowed() {
        let image = Digest::of(b"image");
        let not_allowed = format!("not-allowed {image}");
        let mut case = Case::new();
        for (others, verdict, reason) in [
            (
                vec![allowed(b"a", "web", 6, None), allowed(b"b", "web", 7, None)],
                Verdict::Rollback,
                "epoch 5 below 6",
            ),
            (
                vec![allowed(b"a", "web", 5, None), allowed(b"b", "web", 7, None)],
                Verdict::UnknownImage,
                &not_allowed,
            ),
            (
                vec![allowed(b"a", "web", 4, None)],
                Verdict::UnknownImage,
                &not_allowed,
            ),
            (
                vec![allowed(b"a", "db", 6, None)],
                Verdict::UnknownImage,
                &not_allowed,
            ),
            (
                vec![allowed(b"a", "db", 1, None), allowed(b"b", "web", 6, None)],
                Verdict::Rollback,
                "epoch 5 below 6",
            ),
            (vec![], Verdict::UnknownImage, &not_allowed),
            // One that was allowed until a moment ago neither allows nor holds the epoch down.
            (
                vec![
                    allowed(b"image", "web", 5, Some(999_999)),
                    allowed(b"b", "web", 6, None),
                ],
                Verdict::Rollback,
                "epoch 5 below 6",
            ),
            (
                vec![allowed(b"image", "web", 5, Some(999_999))],
                Verdict::UnknownImage,
                &not_allowed,
            ),
        ] {
            case.allowed = others;
            case.gives(verdict, &[reason]);
        }
        case.allowed = vec![
            allowed(b"image", "web", 5, Some(1_000_000)),
            allowed(b"b", "web", 6, None),
        ];
        case.gives(Verdict::Pristine, &[]);
    }

    #[test]
    fn an_image_that_is_expired_not_held_or_not_named_is_unknown() {
        let image = Digest::of(b"image");
        let mut case = Case::new();
        case.image.predicate.expires = Some(Timestamp::from_micros(999_999));
        case.gives(Verdict::UnknownImage, &[&format!("expired {image}")]);
        case.image.predicate.expires = Some(NOW);
        case.gives(Verdict::Pristine, &[]);
        case.is_held = false;
        case.gives(Verdict::UnknownImage, &[&format!("not-held {image}")]);
        case.said.image = None;
        case.gives(Verdict::UnknownImage, &["no-image"]);
    }

    #[test]
    fn a_difference_in_or_below_unreadable_is_no_drift() {
        for (path, verdict) in [
            ("./run/pipe", Verdict::Incomplete),
            ("./run", Verdict::Incomplete),
            (".", Verdict::Incomplete),
            ("./ru", Verdict::Drifted),
            ("./run/pipe/x", Verdict::Drifted),
        ] {
            let mut case = Case::new();
            case.said.differences =
                vec![difference("./run/pipe", Expect::Sealed, Some(PIPE), None)];
            case.found = vec![ROOT];
            case.said.coverage.unreadable = vec![unreadable(path)];
            assert_eq!(case.appraise_with(Pins::None).verdict, verdict, "{path}");
        }
    }

    #[test]
    fn only_what_is_sealed_makes_it_incomplete() {
        let mut case = Case::new();
        case.image =
            image(r#"[{"match":"var","expect":"ignored"},{"match":"srv","expect":"local"}]"#);
        case.said.coverage.unreadable = vec![unreadable("./var/x"), unreadable("./srv/y")];
        case.said.coverage.unsettled = vec!["./srv/z".parse().unwrap()];
        case.gives(Verdict::Pristine, &[]);
        case.said.coverage.unreadable.push(unreadable("./etc/x"));
        case.said
            .coverage
            .unsettled
            .push("./etc/y".parse().unwrap());
        case.gives(
            Verdict::Incomplete,
            &["unreadable ./etc/x", "unsettled ./etc/y"],
        );
    }

    #[test]
    fn an_unreadable_directory_that_hides_something_sealed_makes_it_incomplete() {
        let mut case = Case::new();
        case.image =
            image(r#"[{"match":"run","expect":"local"},{"match":"run/pipe","expect":"sealed"}]"#);
        case.said.coverage.unreadable = vec![unreadable("./run")];
        case.said.differences = vec![difference("./run/pipe", Expect::Sealed, Some(PIPE), None)];
        case.found = vec![ROOT];
        case.gives(Verdict::Incomplete, &["unreadable ./run"]);
    }

    #[test]
    fn while_some_are_unlisted_it_has_drifted() {
        let mut case = Case::new().differs();
        case.found = vec![ROOT];
        case.said.differences_total = Some(5000);
        case.gives(
            Verdict::Drifted,
            &["unlisted 4999", "difference ./run/pipe"],
        );
        case.said.differences.clear();
        case.gives(Verdict::Drifted, &["unlisted 5000"]);
        case.said.differences = vec![difference("./run/pipe", Expect::Sealed, Some(OPEN), None)];
        case.gives(Verdict::Unexplained, &["expected ./run/pipe"]);
        let mut case = Case::new().differs();
        case.said.differences_total = Some(1);
        case.gives(Verdict::Drifted, &["difference ./run/pipe"]);
        case.said.differences_total = Some(0);
        case.gives(Verdict::Unexplained, &["differences-total"]);
    }

    #[test]
    fn every_list_counts_what_it_leaves_out() {
        let mut case = Case::new();
        case.said.coverage.gaps_total = Some(1);
        case.gives(Verdict::Incomplete, &["gap 1 unlisted"]);
        case.said.coverage.gaps_total = None;
        case.said.coverage.unreadable_total = Some(3);
        case.said.coverage.unsettled_total = Some(4);
        case.gives(
            Verdict::Incomplete,
            &["unreadable 3 unlisted", "unsettled 4 unlisted"],
        );
        case.said.coverage.mounts.unexpected_total = Some(2);
        case.gives(Verdict::Drifted, &["mount 2 unlisted"]);
    }

    #[test]
    fn the_scope_is_the_images_whatever_a_difference_says() {
        let mut case = Case::new().differs();
        case.image = image(r#"[{"match":"run","expect":"ignored"}]"#);
        case.gives(Verdict::Unexplained, &["expect ./run/pipe"]);
    }

    #[test]
    fn a_statement_that_contradicts_itself_is_unexplained() {
        let mut case = Case::new().differs();
        case.said.r#as = Some(3);
        case.gives(Verdict::Unexplained, &["as"]);
        let mut case = Case::new();
        case.subject = Some(Subject::of_bytes("node", &tree(&[ROOT, PIPE]).root()));
        case.gives(Verdict::Unexplained, &["subject"]);
        let mut case = Case::new();
        case.said.local = Digest::of(b"x");
        case.gives(Verdict::Unexplained, &["local"]);
        case.said.local = Digest::ZERO;
        case.said.growing = Digest::of(b"x");
        case.gives(Verdict::Unexplained, &["growing"]);
    }

    #[test]
    fn pins_that_are_not_here_make_it_incomplete() {
        let pinned = tree(&["./srv type=dir mode=0755 uid=0 gid=0"]);
        let none = Tree::new();
        let mut case = Case::new();
        case.said.pins = Some(FileRef {
            sha256: Digest::of(b"pins"),
            size: 1,
        });
        case.said.local = pinned.root();
        case.gives(Verdict::Incomplete, &["pins"]);
        assert_eq!(
            case.appraise_with(Pins::Missing).verdict,
            Verdict::Incomplete
        );
        let held = case.appraise_with(Pins::Held {
            local: &pinned,
            growing: &none,
        });
        assert_eq!(held.verdict, Verdict::Pristine);
        let other = case.appraise_with(Pins::Held {
            local: &none,
            growing: &none,
        });
        assert_eq!(
            (other.verdict, other.reasons),
            (Verdict::Unexplained, vec!["local".to_owned()])
        );
    }

    #[test]
    fn reasons_are_bounded_and_the_rest_is_counted() {
        let mut case = Case::new();
        case.said.coverage.unsettled = (0..20)
            .map(|at| format!("./f{at}").parse().unwrap())
            .collect();
        let appraisal = case.appraise_with(Pins::None);
        assert_eq!(appraisal.reasons.len(), MAX_REASONS + 1);
        assert_eq!(appraisal.reasons.last().unwrap(), "more 4");
    }

    #[test]
    fn the_words_in_a_verdict_statement_are_the_formats() {
        let words = json!([
            "pristine",
            "incomplete",
            "drifted",
            "unexplained",
            "unknown-image",
            "rollback",
            "forked"
        ]);
        assert_eq!(serde_json::to_value(Verdict::ALL).unwrap(), words);
    }
}
