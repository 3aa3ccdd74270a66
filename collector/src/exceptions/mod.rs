//! Exceptions: differences that a person accepted and another approved, until an end. One names the exact line found at a path, on a
//! node or in a group; another line there is a difference like any other.
//!
//! An exception changes no verdict and nothing that is signed (FORMATS.md 5.3): only what people see, and who is alerted. Whether one
//! accounts for a difference is decided here, by values and a time alone. What people do stands in [`asking`] and [`deciding`].

mod asking;
mod deciding;
mod desk;
mod read;
mod standing;
mod subject;

use std::collections::HashMap;
use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::statement::Difference;
use attestation::time::Timestamp;
use serde::Serialize;

use crate::violations::Accounted;

pub use self::asking::{Wanted, request};
pub use self::deciding::{approve, end, revoke};
pub use self::desk::Decided;
pub use self::read::{
    ExceptionFilter, ExceptionView, Relying, State, at_violation, counts, list, one, relying,
};
pub use self::standing::{Exceptions, rely};
pub use self::subject::{About, refused};

/// An exception lives at most a year: what stays longer belongs into the image.
pub const LONGEST: i64 = 366 * 86_400;

/// Where an exception holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On one node, by its id.
    Node(String),
    /// On the nodes of a group, those that come later among them.
    Group(String),
}

impl Place {
    fn covers(&self, node: &str, group: &str) -> bool {
        match self {
            Self::Node(id) => id == node,
            Self::Group(name) => name == group,
        }
    }
}

/// An exception that was approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its id.
    pub id: String,
    /// Where it holds.
    pub place: Place,
    /// The path.
    pub path: ImagePath,
    /// The line found; none where what is missing is accepted.
    pub found: Option<String>,
    /// From when: its approval.
    pub from: Timestamp,
    /// Until when.
    pub ends: Timestamp,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// Who approved it.
    pub approved_by: String,
    /// Why.
    pub reason: String,
}

impl Exception {
    /// Whether it holds at `now`; its last moment is still good.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.from <= now && now <= self.ends && self.revoked.is_none_or(|at| now < at)
    }

    /// Whether it is about this difference of a node.
    #[must_use]
    pub fn is_about(&self, node: &str, group: &str, difference: &Difference) -> bool {
        self.place.covers(node, group)
            && self.path == difference.path
            && self.found.as_deref()
                == difference
                    .found
                    .as_ref()
                    .map(attestation::entry::Line::as_str)
    }

    /// How a violation is told to end by it.
    #[must_use]
    pub fn told(&self) -> String {
        let ends = self.ends.to_string();
        let day = ends.split('T').next().unwrap_or(&ends);
        format!(
            "excepted until {day} by {}: {}",
            self.approved_by, self.reason
        )
    }
}

/// What the exceptions say of a node's differences. Where several are about one, one that holds counts.
#[must_use]
pub fn accounted(
    exceptions: &[Arc<Exception>],
    node: &str,
    group: &str,
    differences: &[Difference],
    now: Timestamp,
) -> HashMap<ImagePath, Accounted> {
    let mut accounted = HashMap::new();
    if exceptions.is_empty() {
        return accounted;
    }
    for difference in differences {
        let about = || {
            exceptions
                .iter()
                .filter(|it| it.is_about(node, group, difference))
        };
        let found = about()
            .find(|it| it.holds_at(now))
            .map(|it| Accounted::Excepted {
                exception: it.id.clone(),
                told: it.told(),
            })
            .or_else(|| {
                about().next_back().map(|it| Accounted::Lapsed {
                    exception: it.id.clone(),
                })
            });
        if let Some(found) = found {
            accounted.insert(difference.path.clone(), found);
        }
    }
    accounted
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    const FOUND: &str = "./etc/motd type=file mode=0644 uid=0 gid=0 size=3 sha256digest=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn difference(found: Option<&str>) -> Difference {
        serde_json::from_value(json!({
            "path": "./etc/motd", "expect": "sealed", "expected": null, "found": found, "at": at(1),
        }))
        .unwrap()
    }

    fn exception(place: Place, found: Option<&str>) -> Exception {
        Exception {
            id: "e".to_owned(),
            place,
            path: "./etc/motd".parse().unwrap(),
            found: found.map(str::to_owned),
            from: at(10),
            ends: at(20),
            revoked: None,
            approved_by: "ada".to_owned(),
            reason: "ticket 7".to_owned(),
        }
    }

    fn says(exception: &Exception, found: Option<&str>, now: i64) -> Option<Accounted> {
        let all = [Arc::new(exception.clone())];
        let differences = [difference(found)];
        accounted(&all, "n1", "web", &differences, at(now))
            .into_values()
            .next()
    }

    #[test]
    fn it_holds_from_its_approval_to_its_end_and_no_longer() {
        let one = exception(Place::Node("n1".to_owned()), Some(FOUND));
        let excepted = |now| {
            matches!(
                says(&one, Some(FOUND), now),
                Some(Accounted::Excepted { .. })
            )
        };
        assert!(!excepted(9) && excepted(10) && excepted(20) && !excepted(21));
        assert!(
            matches!(says(&one, Some(FOUND), 21), Some(Accounted::Lapsed { exception }) if exception == "e")
        );
        let revoked = Exception {
            revoked: Some(at(15)),
            ..one
        };
        assert!(revoked.holds_at(at(14)) && !revoked.holds_at(at(15)));
    }

    #[test]
    fn only_the_exact_line_on_its_nodes_is_excepted() {
        let other = FOUND.replace("mode=0644", "mode=4755");
        let node = exception(Place::Node("n1".to_owned()), Some(FOUND));
        assert_eq!(says(&node, Some(&other), 15), None, "another line");
        assert_eq!(says(&node, None, 15), None, "what is missing is no line");
        let elsewhere = exception(Place::Node("n2".to_owned()), Some(FOUND));
        assert_eq!(says(&elsewhere, Some(FOUND), 15), None);
        for (group, covered) in [("web", true), ("db", false)] {
            let of_group = exception(Place::Group(group.to_owned()), Some(FOUND));
            assert_eq!(says(&of_group, Some(FOUND), 15).is_some(), covered);
        }
        let missing = exception(Place::Node("n1".to_owned()), None);
        assert!(
            says(&missing, None, 15).is_some(),
            "what is missing can be accepted"
        );
    }

    #[test]
    fn one_that_holds_counts_before_one_that_is_over() {
        let over = exception(Place::Node("n1".to_owned()), Some(FOUND));
        let holds = Exception {
            id: "later".to_owned(),
            from: at(20),
            ends: at(40),
            ..over.clone()
        };
        let all = [Arc::new(over), Arc::new(holds)];
        let said = accounted(&all, "n1", "web", &[difference(Some(FOUND))], at(30));
        let one = said.into_values().next().unwrap();
        assert!(
            matches!(one, Accounted::Excepted { exception, told } if exception == "later" && told.contains("until 1970-01-01"))
        );
    }
}
