//! What the agent found, as a statement: every list within its limit, the whole within one mebibyte.

use std::collections::BTreeMap;

use attestation::digest::Digest;
use attestation::key::NodeId;
use attestation::path::ImagePath;
use attestation::severity::sort_gravest_first;
use attestation::statement::{
    AgentFacts, Assurance, Attestation, Coverage, Difference, Gap, Grown, Mounts, Statement,
    Subject, Touched, UnexpectedMount, Unreadable, WatchCoverage,
};
use attestation::time::Timestamp;
use serde::Serialize;

use crate::pins::View;

/// Bytes for the differences; the other lists together stay below what is left of a mebibyte.
const DIFFERENCES_BYTES: usize = 560 * 1024;
/// Bytes for what was touched.
const TOUCHED_BYTES: usize = 160 * 1024;
/// Bytes for logins, where the rest leaves so many.
const SESSIONS_BYTES: usize = 96 * 1024;
/// Bytes of a statement, and what of them its place in the chain, counted last, may need.
const STATEMENT_BYTES: usize = (1 << 20) - 4 * 1024;
/// Bytes for each of the other lists.
const LIST_BYTES: usize = 64 * 1024;

/// Everything that a statement is made from but its place in the chain.
#[derive(Debug)]
pub struct Report<'a> {
    /// Whose it is.
    pub node: &'a NodeId,
    /// Who it is for.
    pub log: &'a str,
    /// The kernel's boot id.
    pub boot: &'a str,
    /// The wall clock.
    pub issued: Timestamp,
    /// Microseconds since boot.
    pub monotonic: u64,
    /// An orderly stop.
    pub goodbye: bool,
    /// The nonce that it answers.
    pub challenge: Option<String>,
    /// The image compared with.
    pub image: Option<Digest>,
    /// The tree of what is there.
    pub tree: Digest,
    /// Sealed entries.
    pub entries: u64,
    /// What was seen and what was not.
    pub seen: Seen<'a>,
    /// What is not as expected.
    pub differences: &'a [&'a Difference],
    /// The receipted statement that has exactly these differences.
    pub told: Option<Told>,
    /// What is this node's own; nothing without an image.
    pub own: Option<&'a View>,
    /// What of it grew.
    pub grown: Vec<Grown>,
    /// How much grew, if not all is listed.
    pub grown_total: Option<u64>,
    /// Changed and put back since the last statement.
    pub touched: &'a [Touched],
    /// How many were, listed or not.
    pub touched_total: u64,
    /// The program.
    pub agent: &'a AgentFacts,
}

/// A statement that told the differences before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its sequence.
    pub sequence: u64,
    /// How many there are, where it does not list all.
    pub total: Option<u64>,
}

/// What was seen and what was not.
#[derive(Debug)]
pub struct Seen<'a> {
    /// How it is watched.
    pub watch: WatchCoverage,
    /// Watching without a gap since.
    pub since: Option<Timestamp>,
    /// All content read since.
    pub read: Option<Timestamp>,
    /// Gaps not closed yet.
    pub gaps: &'a [Gap],
    /// What cannot be read.
    pub unreadable: &'a BTreeMap<ImagePath, String>,
    /// What was being written while it was read.
    pub unsettled: Vec<ImagePath>,
    /// Digest of the mount table.
    pub mounts: Digest,
    /// Mounts that nothing expects.
    pub unexpected: &'a [UnexpectedMount],
}

/// A statement, and what of it did not fit.
#[derive(Debug)]
pub struct Composed {
    /// Ready for its place in the chain.
    pub statement: Statement<Attestation>,
    /// Whether differences are missing in it.
    pub unlisted: bool,
}

impl Composed {
    /// Bytes that are left for logins.
    pub fn room(&self) -> usize {
        let rest = self.statement.to_payload().len();
        STATEMENT_BYTES.saturating_sub(rest).min(SESSIONS_BYTES)
    }
}

/// Makes the statement.
pub fn compose(report: &Report<'_>) -> Composed {
    let (differences, differences_total) = match report.told {
        Some(told) => (Vec::new(), told.total),
        None => listed_differences(report.differences),
    };
    let unlisted = differences_total.is_some();
    let (touched, touched_total) = fit(report.touched.iter(), Attestation::MAX_LIST, TOUCHED_BYTES);
    let touched_total = touched_total
        .is_some()
        .then_some(report.touched_total)
        .or_else(|| (report.touched_total > len(&touched)).then_some(report.touched_total));
    let predicate = Attestation {
        log: report.log.to_owned(),
        // The place in the chain is given when it is signed.
        sequence: 0,
        previous: None,
        boot: report.boot.to_owned(),
        issued: report.issued,
        monotonic: report.monotonic,
        goodbye: report.goodbye,
        rewound: false,
        challenge: report.challenge.clone(),
        checkpoint: None,
        image: report.image,
        entries: report.entries,
        local: report.own.map_or(Digest::ZERO, |own| own.local),
        growing: report.own.map_or(Digest::ZERO, |own| own.growing),
        pins: report.own.and_then(|own| own.file),
        coverage: coverage(&report.seen),
        differences,
        differences_total,
        r#as: report.told.map(|told| told.sequence),
        grown: report.grown.clone(),
        grown_total: report.grown_total,
        touched,
        touched_total,
        // Logins come last, in what room is left.
        sessions: Vec::new(),
        sessions_total: None,
        agent: report.agent.clone(),
        claims: vec![Assurance::Software],
        snapshot: None,
    };
    let subject = Subject::of_tree(report.node.to_string(), &report.tree);
    Composed {
        statement: Statement::about(subject, predicate),
        unlisted,
    }
}

/// All differences by path where they fit, else the gravest that do and how many there are.
fn listed_differences(all: &[&Difference]) -> (Vec<Difference>, Option<u64>) {
    let (listed, total) = fit(
        all.iter().copied(),
        Attestation::MAX_DIFFERENCES,
        DIFFERENCES_BYTES,
    );
    if total.is_none() {
        return (listed, None);
    }
    let mut sorted: Vec<Difference> = all.iter().copied().cloned().collect();
    sort_gravest_first(&mut sorted);
    fit(
        sorted.iter(),
        Attestation::MAX_DIFFERENCES,
        DIFFERENCES_BYTES,
    )
}

fn coverage(seen: &Seen<'_>) -> Coverage {
    let mut watch = seen.watch.clone();
    let (limits, limits_total) = fit(watch.limits.iter(), Attestation::MAX_LIST, LIST_BYTES);
    watch.limits = limits;
    watch.limits_total = limits_total.or(watch.limits_total);
    let (gaps, gaps_total) = fit(seen.gaps.iter(), Attestation::MAX_LIST, LIST_BYTES);
    let all: Vec<Unreadable> = seen
        .unreadable
        .iter()
        .take(Attestation::MAX_LIST + 1)
        .map(|(path, error)| Unreadable {
            path: path.clone(),
            error: error.clone(),
        })
        .collect();
    let (unreadable, more) = fit(all.iter(), Attestation::MAX_LIST, LIST_BYTES);
    let unreadable_total = more.map(|_| u64::try_from(seen.unreadable.len()).unwrap_or(u64::MAX));
    let (unsettled, unsettled_total) =
        fit(seen.unsettled.iter(), Attestation::MAX_LIST, LIST_BYTES);
    let (unexpected, unexpected_total) =
        fit(seen.unexpected.iter(), Attestation::MAX_LIST, LIST_BYTES);
    Coverage {
        watch,
        since: seen.since,
        read: seen.read,
        gaps,
        gaps_total,
        unreadable,
        unreadable_total,
        unsettled,
        unsettled_total,
        mounts: Mounts {
            sha256: seen.mounts,
            unexpected,
            unexpected_total,
        },
    }
}

/// As many from the beginning as fit; and how many there are, if some do not.
fn fit<'a, T: Serialize + Clone + 'a>(
    items: impl Iterator<Item = &'a T>,
    most: usize,
    bytes: usize,
) -> (Vec<T>, Option<u64>) {
    let mut taken = Vec::new();
    let mut total = 0_u64;
    let mut used = 0_usize;
    let mut full = false;
    for item in items {
        total += 1;
        if full || taken.len() >= most {
            full = true;
            continue;
        }
        let size = serde_json::to_vec(item).map_or(usize::MAX, |json| json.len().saturating_add(1));
        if used.saturating_add(size) > bytes {
            full = true;
            continue;
        }
        used = used.saturating_add(size);
        taken.push(item.clone());
    }
    let missing = total > len(&taken);
    (taken, missing.then_some(total))
}

fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::dsse::Envelope;
    use attestation::entry::Line;
    use attestation::key::{Algorithm, PrivateKey};
    use attestation::scope::Expect;
    use attestation::statement::Rung;

    use super::*;

    fn difference(path: &str) -> (ImagePath, Difference) {
        let path = ImagePath::parse(path).unwrap();
        let line = format!(
            "{path} type=file mode=0644 uid=0 gid=0 size=3 sha256digest={}",
            Digest::of(b"x")
        );
        let difference = Difference {
            path: path.clone(),
            expect: Expect::Sealed,
            expected: None,
            found: Some(Line::parse(&line).unwrap()),
            actor: None,
            at: Timestamp::from_micros(1),
        };
        (path, difference)
    }

    fn compose_with(
        differences: &BTreeMap<ImagePath, Difference>,
        touched: &[Touched],
        told: Option<Told>,
    ) -> Composed {
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let agent = AgentFacts {
            version: "0.1.0 (0123456789ab)".to_owned(),
            exe_sha256: Some(Digest::of(b"exe")),
            config_sha256: Some(Digest::of(b"config")),
        };
        compose(&Report {
            node: &NodeId::of(&key.public()),
            log: "collector.example.org/log",
            boot: "c2d8e3ae-35b1-4f4c-8b40-9f3c1f5b8d5e",
            issued: Timestamp::from_micros(1_764_000_000_000_000),
            monotonic: 86_400_000_000,
            goodbye: false,
            challenge: Some(Digest::of(b"nonce").to_string()),
            image: Some(Digest::of(b"image")),
            tree: Digest::of(b"tree"),
            entries: 140_000,
            seen: Seen {
                watch: WatchCoverage {
                    rung: Rung::A,
                    limits: vec!["a limit in words".to_owned()],
                    limits_total: None,
                },
                since: Some(Timestamp::from_micros(1_763_000_000_000_000)),
                read: Some(Timestamp::from_micros(1_763_000_000_000_000)),
                gaps: &[],
                unreadable: &BTreeMap::new(),
                unsettled: Vec::new(),
                mounts: Digest::of(b"mounts"),
                unexpected: &[],
            },
            differences: &differences.values().collect::<Vec<_>>(),
            told,
            own: None,
            grown: Vec::new(),
            grown_total: None,
            touched,
            touched_total: len(touched),
            agent: &agent,
        })
    }

    #[test]
    fn a_quiet_statement_is_small_on_the_wire() {
        let composed = compose_with(&BTreeMap::new(), &[], None);
        let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
        let envelope = Envelope::sign(composed.statement.to_payload(), &key).unwrap();
        let body = [b"{\"statements\":[".as_slice(), &envelope.to_json(), b"]}"].concat();
        let compressed = crate::transport::gzip(&body).unwrap();
        assert!(compressed.len() <= 2048, "{} bytes", compressed.len());
    }

    #[test]
    fn differences_are_listed_by_path_while_they_fit() {
        let differences: BTreeMap<_, _> = ["./etc/b", "./etc/a"].map(difference).into();
        let composed = compose_with(&differences, &[], None);
        let predicate = composed.statement.predicate;
        assert!(!composed.unlisted);
        assert_eq!(predicate.differences_total, None);
        assert_eq!(predicate.differences.len(), 2);
        assert_eq!(predicate.differences[0].path.to_string(), "./etc/a");
    }

    #[test]
    fn told_differences_are_named_by_their_sequence() {
        let differences: BTreeMap<_, _> = ["./etc/b"].map(difference).into();
        let predicate = compose_with(
            &differences,
            &[],
            Some(Told {
                sequence: 7,
                total: None,
            }),
        )
        .statement
        .predicate;
        assert_eq!(predicate.r#as, Some(7));
        assert!(predicate.differences.is_empty());
    }

    #[test]
    fn too_many_differences_leave_the_gravest_and_their_number() {
        let mut differences: BTreeMap<_, _> = BTreeMap::new();
        for number in 0..6000 {
            differences.extend([difference(&format!("./srv/{number:05}"))]);
        }
        differences.extend([difference("./usr/sbin/sshd")]);
        let composed = compose_with(&differences, &[], None);
        assert!(composed.unlisted);
        let payload = composed.statement.to_payload();
        assert!(payload.len() <= 1 << 20, "{} bytes", payload.len());
        let predicate = composed.statement.predicate;
        predicate.check_limits().unwrap();
        assert_eq!(predicate.differences_total, Some(6001));
        assert_eq!(predicate.differences[0].path.to_string(), "./usr/sbin/sshd");
    }

    #[test]
    fn long_lists_keep_their_limits_and_tell_their_totals() {
        let touched: Vec<Touched> = (0..300)
            .map(|number| Touched {
                path: ImagePath::parse(&format!("./etc/{number}{}", "x".repeat(200))).unwrap(),
                event: "modify".to_owned(),
                count: 1,
                first: Timestamp::from_micros(1),
                last: Timestamp::from_micros(2),
                actor: None,
            })
            .collect();
        let predicate = compose_with(&BTreeMap::new(), &touched, None)
            .statement
            .predicate;
        assert_eq!(predicate.touched.len(), 256);
        assert_eq!(predicate.touched_total, Some(300));
        predicate.check_limits().unwrap();
    }
}
