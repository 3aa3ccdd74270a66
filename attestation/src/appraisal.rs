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
