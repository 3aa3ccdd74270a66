//! While an image rolls out the one before it is allowed beside it: how far it has come, and what of a node on its way between the two
//! is no violation. Decided from values alone; what is read is in [`super::changes`].

use std::collections::HashMap;

use attestation::digest::Digest;
use attestation::path::ImagePath;
use attestation::scope::Expect;
use attestation::statement::Difference;
use attestation::time::Timestamp;
use attestation::tree::Tree;
use serde::Serialize;

use crate::violations::Accounted;

/// Differences that another allowed image has exactly so: a node that is being changed from one to the other shows them for a moment.
/// The verdict stays what it is.
#[must_use]
pub fn accounted<'a>(
    differences: &[Difference],
    beside: impl Iterator<Item = (&'a Tree, String)>,
) -> HashMap<ImagePath, Accounted> {
    let mut accounted = HashMap::new();
    for (tree, image) in beside {
        for difference in differences {
            let found = difference
                .found
                .as_ref()
                .map(attestation::entry::Line::leaf);
            if difference.expect == Expect::Sealed && tree.get(&difference.path.key()) == found {
                accounted
                    .entry(difference.path.clone())
                    .or_insert_with(|| Accounted::RollingOut {
                        image: image.clone(),
                    });
            }
        }
    }
    accounted
}

/// How a node of the group stands to the image that is rolled out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// It attests the new image, and is it.
    New,
    /// It attests the new image, and something differs.
    Differing,
    /// It still attests an image that was allowed before.
    Old,
    /// Neither: another image, or nothing yet.
    Neither,
}

/// Decides from what a node's last statement compares with and what came of it.
#[must_use]
pub fn stand(image: Option<Digest>, good: bool, new: Digest, old: &[Digest]) -> Stand {
    match image {
        Some(image) if image == new && good => Stand::New,
        Some(image) if image == new => Stand::Differing,
        Some(image) if old.contains(&image) => Stand::Old,
        _ => Stand::Neither,
    }
}

/// How many nodes of a group stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Progress {
    /// Nodes of the group that are counted.
    pub nodes: u64,
    /// That are the new image.
    pub new: u64,
    /// That attest the new image, and something differs.
    pub differing: u64,
    /// That are still the one before.
    pub old: u64,
    /// That are neither.
    pub neither: u64,
}

impl Progress {
    /// Counts `nodes` more that stand so.
    pub fn add(&mut self, stand: Stand, nodes: u64) {
        self.nodes += nodes;
        match stand {
            Stand::New => self.new += nodes,
            Stand::Differing => self.differing += nodes,
            Stand::Old => self.old += nodes,
            Stand::Neither => self.neither += nodes,
        }
    }

    /// Whether no node is still before it. One that differs from the new image has come to it: that is a violation of its own, and makes
    /// no deployment of last month a rollout again. A group without nodes has nothing to wait for.
    #[must_use]
    pub const fn is_through(&self) -> bool {
        self.new + self.differing == self.nodes
    }
}

/// Where a deployment stands, at the time of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// For another person's word.
    Waiting,
    /// Another person said no.
    Refused,
    /// Its requester took it back.
    Withdrawn,
    /// It holds, and not every node has it yet.
    RollingOut,
    /// It holds, the images before are allowed no more, and not every node has it.
    Overdue,
    /// It holds, and every node has it.
    Done,
    /// Another took over.
    Superseded,
}

impl Phase {
    /// As in JSON and in filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::RollingOut => "rolling-out",
            Self::Overdue => "overdue",
            Self::Done => "done",
            Self::Superseded => "superseded",
        }
    }
}

/// Decides from what is stored, how far it has come, and the time.
#[must_use]
pub fn phase(
    stored: &str,
    superseded: bool,
    progress: &Progress,
    until: Option<Timestamp>,
    now: Timestamp,
) -> Phase {
    match stored {
        "waiting" => Phase::Waiting,
        "refused" => Phase::Refused,
        "withdrawn" => Phase::Withdrawn,
        _ if superseded => Phase::Superseded,
        _ if progress.is_through() => Phase::Done,
        _ if until.is_some_and(|until| now > until) => Phase::Overdue,
        _ => Phase::RollingOut,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use attestation::entry::Line;
    use serde_json::json;

    use super::*;

    fn line(path: &str, digit: char) -> Line {
        let digest = digit.to_string().repeat(64);
        Line::parse(&format!(
            "{path} type=file mode=0755 uid=0 gid=0 size=3 sha256digest={digest}"
        ))
        .unwrap()
    }

    fn difference(path: &str, found: Option<Line>, expect: Expect) -> Difference {
        serde_json::from_value(json!({
            "path": path, "expect": expect, "expected": line(path, 'a'), "found": found, "at": Timestamp::from_micros(7),
        }))
        .unwrap()
    }

    #[test]
    fn what_the_other_allowed_image_has_exactly_so_is_no_violation() {
        let mut other = Tree::new();
        let new = line("./usr/bin/tool", 'b');
        other.insert(new.path().key(), new.leaf());
        let says = |difference: Difference| {
            let beside = std::iter::once((&other, "web 2".to_owned()));
            accounted(&[difference], beside).into_values().next()
        };
        let as_new = difference("./usr/bin/tool", Some(new.clone()), Expect::Sealed);
        assert_eq!(
            says(as_new),
            Some(Accounted::RollingOut {
                image: "web 2".to_owned()
            })
        );
        let another = line("./usr/bin/tool", 'c');
        assert_eq!(
            says(difference("./usr/bin/tool", Some(another), Expect::Sealed)),
            None
        );
        assert_eq!(
            says(difference("./usr/bin/tool", None, Expect::Sealed)),
            None,
            "gone"
        );
        assert!(
            says(difference("./usr/bin/old", None, Expect::Sealed)).is_some(),
            "gone in both"
        );
        assert_eq!(
            says(difference("./usr/bin/tool", Some(new), Expect::Local)),
            None,
            "what is a node's own comes from no image"
        );
    }

    #[test]
    fn a_node_has_an_image_when_it_attests_it_and_nothing_differs() {
        let digest = |byte: u8| Digest::from_bytes([byte; 32]);
        let (new, old) = (digest(2), [digest(1)]);
        let table = [
            (Some(new), true, Stand::New),
            (Some(new), false, Stand::Differing),
            (Some(digest(1)), true, Stand::Old),
            (Some(digest(1)), false, Stand::Old),
            (Some(digest(9)), true, Stand::Neither),
            (None, false, Stand::Neither),
        ];
        let mut progress = Progress::default();
        for (image, good, expected) in table {
            assert_eq!(stand(image, good, new, &old), expected);
            progress.add(expected, 1);
        }
        let expected = Progress {
            nodes: 6,
            new: 1,
            differing: 1,
            old: 2,
            neither: 2,
        };
        assert_eq!(progress, expected);
        assert!(!progress.is_through() && Progress::default().is_through());
    }

    #[test]
    fn a_rollout_is_overdue_when_its_window_ends_before_it_is_through() {
        let at = Timestamp::from_micros;
        let half = Progress {
            nodes: 2,
            new: 1,
            old: 1,
            ..Progress::default()
        };
        let whole = Progress {
            nodes: 2,
            new: 2,
            ..Progress::default()
        };
        let drifted = Progress {
            differing: 1,
            old: 0,
            ..half
        };
        let now = |progress, now| phase("approved", false, progress, Some(at(10)), at(now));
        assert_eq!(now(&half, 10), Phase::RollingOut);
        assert_eq!(now(&half, 11), Phase::Overdue);
        assert_eq!(now(&whole, 11), Phase::Done);
        assert_eq!(now(&drifted, 11), Phase::Done, "it came, and then drifted");
        assert_eq!(
            phase("approved", false, &half, None, at(99)),
            Phase::RollingOut
        );
        assert_eq!(
            phase("approved", true, &half, None, at(0)),
            Phase::Superseded
        );
        assert_eq!(phase("waiting", false, &half, None, at(0)), Phase::Waiting);
    }
}
