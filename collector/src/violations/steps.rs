//! Which violations a statement opens, updates and resolves. Pure: no store, no clock.
//!
//! One violation per (node, kind, path) until it is resolved. Only a fresh statement resolves; one without a good challenge
//! may be old, and tells no more than that something once was so.

mod resolve;

use std::collections::{HashMap, HashSet};

use attestation::appraisal::Verdict;
use attestation::digest::Digest;
use attestation::entry::{self, Line};
use attestation::path::ImagePath;
use attestation::severity::{self, sort_gravest_first};
use attestation::statement::{Attestation, Difference};
use attestation::time::Timestamp;
use serde_json::{Map, Value, json};

use super::resolution::Resolution;
use super::view::{ImageView, Kind, MountView, Severity, Step, ViolationView};

/// Above so many open differences a node has one violation for all of them.
pub const MANY: u64 = 1_000;
/// So many of the gravest are named in it.
const GRAVEST: usize = 20;

/// What a statement says, and what was made of it.
pub struct Facts<'a> {
    /// Whose.
    pub node: &'a str,
    /// Its name.
    pub node_name: &'a str,
    /// The statement.
    pub attestation: &'a Attestation,
    /// Its differences, those of `as` where it names another statement.
    pub differences: &'a [Difference],
    /// Its appraisal; none without an assignment.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reasons: &'a [String],
    /// Whether it answered a challenge in time.
    pub fresh: bool,
    /// When it was received.
    pub received: Timestamp,
    /// The image that it compares with.
    pub image: Option<ImageView>,
    /// Whether the statement before was a goodbye.
    pub after_goodbye: bool,
    /// The sequences it jumped over, with a gap of cause `lost`.
    pub jumped: Option<(u64, u64)>,
    /// Payloads that share one sequence with another statement.
    pub fork: Option<(Digest, Digest)>,
    /// Whether the node keeps within its budget again.
    pub calm: bool,
    /// The differences that people need not judge now, or that they judged before.
    pub accounted: &'a HashMap<ImagePath, Accounted>,
}

/// What is known of a difference beside what the node says of it. It changes no verdict, only what people see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounted {
    /// It was accepted, and that holds now.
    Excepted {
        /// The exception's id.
        exception: String,
        /// The sentence for a violation that ends by it.
        told: String,
    },
    /// While several images are allowed: another of them has it so.
    RollingOut {
        /// That image, as people name it.
        image: String,
    },
    /// It was accepted, and that is over.
    Lapsed {
        /// The exception's id.
        exception: String,
    },
}

impl Accounted {
    /// How an open violation of this difference ends; none where it must be open.
    fn resolution(&self) -> Option<(Resolution, String)> {
        match self {
            Self::Excepted { told, .. } => Some((Resolution::Excepted, told.clone())),
            Self::RollingOut { image } => Some((
                Resolution::RolledOut,
                format!("rolled out: {image} has it so"),
            )),
            Self::Lapsed { .. } => None,
        }
    }
}

/// One step of one violation.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub step: Step,
    /// The violation as it then is.
    pub violation: ViolationView,
}

/// The steps that a statement makes necessary; `id` gives a new violation its id.
pub fn steps(
    open: &[ViolationView],
    facts: &Facts<'_>,
    mut id: impl FnMut() -> String,
) -> Vec<Change> {
    let mut desk = Desk {
        open: index(open),
        seen: HashSet::new(),
        changes: Vec::new(),
        facts,
        id: &mut id,
    };
    desk.differences();
    desk.mounts();
    desk.touched();
    desk.gaps();
    desk.verdicts();
    desk.events();
    desk.resolve();
    desk.changes
}

/// A violation that no statement made: the node says nothing, or too much, or sends another's bytes.
pub fn event(
    node: &str,
    node_name: &str,
    kind: Kind,
    at: Timestamp,
    detail: Map<String, Value>,
    id: String,
) -> ViolationView {
    ViolationView {
        id,
        node: node.to_owned(),
        node_name: node_name.to_owned(),
        kind,
        path: None,
        expect: None,
        expected: None,
        found: None,
        fields: Vec::new(),
        actor: None,
        severity: severity::of_kind(kind),
        opened: at,
        detected: at,
        updated: at,
        resolved: None,
        resolution: None,
        resolved_as: None,
        image: None,
        count: None,
        mount: None,
        acknowledged: None,
        detail,
    }
}

type Key = (Kind, String);

fn index(open: &[ViolationView]) -> HashMap<Key, &ViolationView> {
    open.iter()
        .map(|violation| {
            (
                (violation.kind, violation.path.clone().unwrap_or_default()),
                violation,
            )
        })
        .collect()
}

struct Desk<'a, 'f, I> {
    open: HashMap<Key, &'a ViolationView>,
    /// What still is so, and must not be resolved.
    seen: HashSet<Key>,
    changes: Vec<Change>,
    facts: &'f Facts<'f>,
    id: &'f mut I,
}

impl<I: FnMut() -> String> Desk<'_, '_, I> {
    /// Whether the differences are worth opening violations for: not when they are told against an image that is not allowed.
    fn speaks_of_files(&self) -> bool {
        matches!(
            self.facts.verdict,
            Some(
                Verdict::Pristine
                    | Verdict::Incomplete
                    | Verdict::Drifted
                    | Verdict::Unexplained
                    | Verdict::Forked
            )
        )
    }

    fn differences(&mut self) {
        if !self.speaks_of_files() {
            return;
        }
        let facts = self.facts;
        let total = self.to_be_judged();
        let many = total > MANY;
        for difference in facts.differences {
            if self.need_not_be_judged(difference) {
                continue;
            }
            let key = (Kind::Difference, difference.path.to_string());
            if many && !self.open.contains_key(&key) {
                continue;
            }
            let wanted = self.of_difference(difference);
            self.have(key, wanted);
        }
        if many {
            let mut wanted = self.blank(Kind::Many);
            wanted.count = Some(total);
            wanted
                .detail
                .insert("gravest".to_owned(), json!(gravest(facts.differences)));
            self.have((Kind::Many, String::new()), wanted);
        }
    }

    fn need_not_be_judged(&self, difference: &Difference) -> bool {
        let accounted = self.facts.accounted.get(&difference.path);
        accounted.is_some_and(|it| it.resolution().is_some())
    }

    /// How many differences a person must judge, those that the statement does not list among them.
    fn to_be_judged(&self) -> u64 {
        let facts = self.facts;
        let listed = facts.differences.len() as u64;
        let total = facts.attestation.differences_total.unwrap_or(0).max(listed);
        let not = facts
            .differences
            .iter()
            .filter(|it| self.need_not_be_judged(it))
            .count();
        total.saturating_sub(not as u64)
    }

    fn of_difference(&mut self, difference: &Difference) -> ViolationView {
        let expected = difference.expected.as_ref().map(Line::entry);
        let found = difference.found.as_ref().map(Line::entry);
        let unreadable = self
            .facts
            .attestation
            .coverage
            .unreadable
            .iter()
            .any(|it| it.path == difference.path);
        let mut wanted = self.blank(Kind::Difference);
        wanted.path = Some(difference.path.to_string());
        wanted.expect = Some(difference.expect);
        wanted.expected = difference
            .expected
            .as_ref()
            .map(|line| line.as_str().to_owned());
        wanted.found = difference
            .found
            .as_ref()
            .map(|line| line.as_str().to_owned());
        wanted.fields = if unreadable {
            vec!["unreadable".to_owned()]
        } else {
            entry::fields(expected.as_ref(), found.as_ref())
        };
        wanted.actor.clone_from(&difference.actor);
        wanted.severity =
            severity::of_difference(expected.as_ref(), found.as_ref(), &difference.path);
        wanted.detected = difference.at;
        if let Some(Accounted::Lapsed { exception }) = self.facts.accounted.get(&difference.path) {
            wanted
                .detail
                .insert("exception".to_owned(), json!(exception));
        }
        wanted
    }

    fn mounts(&mut self) {
        for mount in &self.facts.attestation.coverage.mounts.unexpected {
            let mut wanted = self.blank(Kind::Mount);
            wanted.path = Some(mount.path.to_string());
            wanted.fields = vec!["mount".to_owned()];
            wanted.actor.clone_from(&mount.actor);
            wanted.mount = Some(MountView {
                source: mount.source.clone(),
                r#type: mount.r#type.clone(),
            });
            self.have((Kind::Mount, mount.path.to_string()), wanted);
        }
    }

    /// Changed and put back: stays for review, so nothing here is ever resolved by a statement.
    fn touched(&mut self) {
        for touched in &self.facts.attestation.touched {
            let key = (Kind::Touched, touched.path.to_string());
            let before = self
                .open
                .get(&key)
                .and_then(|violation| violation.count)
                .unwrap_or(0);
            let mut wanted = self.blank(Kind::Touched);
            wanted.path = Some(touched.path.to_string());
            wanted.actor.clone_from(&touched.actor);
            wanted.detected = touched.first;
            wanted.count = Some(before.saturating_add(touched.count));
            wanted
                .detail
                .insert("event".to_owned(), json!(touched.event));
            wanted
                .detail
                .insert("first".to_owned(), json!(touched.first));
            wanted.detail.insert("last".to_owned(), json!(touched.last));
            if severity::of_difference(None, None, &touched.path) >= Severity::High {
                wanted.severity = Severity::High;
            }
            self.have(key, wanted);
        }
    }

    /// A gap that begins with a goodbye and ends with a clean baseline is recorded by the statement itself, and is no violation.
    fn gaps(&mut self) {
        let attestation = self.facts.attestation;
        let gaps = &attestation.coverage.gaps;
        if gaps.is_empty() {
            return;
        }
        let clean = self.facts.differences.is_empty() && attestation.touched.is_empty();
        let announced = self.facts.after_goodbye && gaps.iter().all(|gap| gap.cause == "restart");
        if announced && clean {
            return;
        }
        let mut wanted = self.blank(Kind::Gap);
        wanted.detected = gaps.first().map_or(self.facts.received, |gap| gap.from);
        wanted.count = Some(attestation.coverage.gaps_total.unwrap_or(gaps.len() as u64));
        wanted.detail.insert("gaps".to_owned(), json!(gaps));
        self.have((Kind::Gap, String::new()), wanted);
    }

    fn verdicts(&mut self) {
        let kind = match self.facts.verdict {
            Some(Verdict::Unexplained) => Kind::Unexplained,
            Some(Verdict::Rollback) => Kind::Rollback,
            Some(Verdict::UnknownImage) => Kind::UnknownImage,
            _ => return,
        };
        let mut wanted = self.blank(kind);
        wanted
            .detail
            .insert("reasons".to_owned(), json!(self.facts.reasons));
        wanted
            .detail
            .insert("named".to_owned(), json!(self.facts.attestation.image));
        self.have((kind, String::new()), wanted);
    }

    /// What happened once and stays until a person has judged it.
    fn events(&mut self) {
        if let Some((expected, got)) = self.facts.jumped {
            let detail = json!({"expected": expected, "sequence": got});
            self.once(Kind::Rewind, detail);
        } else if self.facts.attestation.rewound {
            let detail = json!({"rewound": true, "sequence": self.facts.attestation.sequence});
            self.once(Kind::Rewind, detail);
        }
        if let Some((one, other)) = self.facts.fork {
            let detail =
                json!({"sequence": self.facts.attestation.sequence, "payloads": [one, other]});
            self.once(Kind::Fork, detail);
        }
    }

    fn once(&mut self, kind: Kind, detail: Value) {
        let mut wanted = self.blank(kind);
        if let Value::Object(members) = detail {
            wanted.detail.extend(members);
        }
        self.have((kind, String::new()), wanted);
    }

    fn blank(&mut self, kind: Kind) -> ViolationView {
        let facts = self.facts;
        let mut violation = event(
            facts.node,
            facts.node_name,
            kind,
            facts.received,
            Map::new(),
            String::new(),
        );
        violation.image.clone_from(&facts.image);
        if !facts.fresh {
            violation
                .detail
                .insert("late".to_owned(), Value::Bool(true));
        }
        violation
    }

    /// Opens what is not open, updates what says something else.
    fn have(&mut self, key: Key, mut wanted: ViolationView) {
        self.seen.insert(key.clone());
        let Some(open) = self.open.get(&key).copied() else {
            wanted.id = (self.id)();
            self.changes.push(Change {
                step: Step::Opened,
                violation: wanted,
            });
            return;
        };
        if says_the_same(open, &wanted) {
            return;
        }
        wanted.id.clone_from(&open.id);
        wanted.opened = open.opened;
        wanted.detected = open.detected;
        wanted.severity = wanted.severity.max(open.severity);
        self.changes.push(Change {
            step: Step::Updated,
            violation: wanted,
        });
    }
}

/// Compares what a violation says, not when it was said or by whom it was told.
fn says_the_same(open: &ViolationView, wanted: &ViolationView) -> bool {
    let told = |violation: &ViolationView| {
        let mut detail = violation.detail.clone();
        detail.remove("late");
        detail.remove("reasons");
        detail.remove("exception");
        detail
    };
    open.expected == wanted.expected
        && open.found == wanted.found
        && open.fields == wanted.fields
        && open.mount == wanted.mount
        && open.count == wanted.count
        && told(open) == told(wanted)
}

fn gravest(differences: &[Difference]) -> Vec<String> {
    let mut graded = differences.to_vec();
    sort_gravest_first(&mut graded);
    graded
        .into_iter()
        .take(GRAVEST)
        .map(|difference| difference.path.to_string())
        .collect()
}

#[cfg(test)]
#[path = "steps_tests.rs"]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests;
