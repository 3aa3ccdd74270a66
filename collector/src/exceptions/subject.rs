//! Which difference an exception is about, and whether it can be excepted.

use attestation::entry::Line;
use attestation::path::ImagePath;
use sqlx::AssertSqlSafe;

use super::Place;
use crate::problem::ProblemResponse;
use crate::store::{StoreError, Writing};
use crate::violations::store::{SELECT, view};
use crate::violations::view::{Kind, ViolationView};

/// What is to be accepted can only be what was read.
const UNREAD: &str =
    "the content of what was found was not read: nobody knows what would be accepted";

/// The difference, as it is asked about.
#[derive(Clone, Debug)]
pub enum About {
    /// The one of a violation, on its node or in its node's group.
    Violation {
        /// The violation's id.
        id: String,
        /// On all nodes of the group.
        group: bool,
    },
    /// One that is described.
    Described {
        /// Where.
        place: Place,
        /// The path.
        path: ImagePath,
        /// The line that is found there; none where it is missing.
        found: Option<Line>,
    },
}

impl About {
    /// Whether a description is one of a difference that can be excepted.
    ///
    /// # Errors
    /// 400 where the line is another path's, 409 `unread`.
    pub(super) fn checked(&self) -> Result<(), ProblemResponse> {
        let Self::Described { path, found, .. } = self else {
            return Ok(());
        };
        match found {
            Some(line) if line.path() != *path => Err(ProblemResponse::malformed(
                "`found` is the entry line of another path",
            )),
            Some(line) if line.borrowed().is_unread() => {
                Err(ProblemResponse::conflict("unread", UNREAD))
            }
            _ => Ok(()),
        }
    }
}

/// The difference, as it is kept.
pub(super) struct Subject {
    pub(super) violation: Option<String>,
    pub(super) place: Place,
    pub(super) path: String,
    pub(super) expected: Option<String>,
    pub(super) found: Option<String>,
}

impl Subject {
    /// What is to be excepted, or why it cannot be.
    pub(super) async fn of(
        tx: &mut Writing,
        about: &About,
    ) -> Result<Result<Self, ProblemResponse>, StoreError> {
        match about {
            About::Violation { id, group } => Self::of_violation(tx, id, *group).await,
            About::Described { place, path, found } => {
                if let Place::Node(id) = place
                    && tx.node(id).await?.is_none()
                {
                    return Ok(Err(ProblemResponse::not_found("no node has that id")));
                }
                Ok(Ok(Self {
                    violation: None,
                    place: place.clone(),
                    path: path.to_string(),
                    expected: None,
                    found: found.as_ref().map(|line| line.as_str().to_owned()),
                }))
            }
        }
    }

    async fn of_violation(
        tx: &mut Writing,
        id: &str,
        group: bool,
    ) -> Result<Result<Self, ProblemResponse>, StoreError> {
        let sql = format!("{SELECT} WHERE v.id = ?");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut tx.connection)
            .await?;
        let Some(violation) = row.as_ref().map(view).transpose()? else {
            return Ok(Err(ProblemResponse::not_found(
                "there is no violation with this id",
            )));
        };
        if let Some(why) = refused(&violation) {
            return Ok(Err(ProblemResponse::conflict("no-exception", why)));
        }
        let place = if group {
            match tx.node(&violation.node).await? {
                Some(node) => Place::Group(node.group),
                None => return Ok(Err(ProblemResponse::not_found("its node is gone"))),
            }
        } else {
            Place::Node(violation.node.clone())
        };
        Ok(Ok(Self {
            violation: Some(violation.id),
            place,
            path: violation.path.unwrap_or_default(),
            expected: violation.expected,
            found: violation.found,
        }))
    }

    /// The group whose approvers may decide.
    pub(super) async fn group(&self, tx: &mut Writing) -> Result<String, StoreError> {
        match &self.place {
            Place::Group(group) => Ok(group.clone()),
            Place::Node(node) => Ok(tx
                .node(node)
                .await?
                .map(|node| node.group)
                .unwrap_or_default()),
        }
    }
}

/// Why a violation cannot be excepted; nothing where it can. Pure.
#[must_use]
pub fn refused(violation: &ViolationView) -> Option<&'static str> {
    if violation.kind != Kind::Difference {
        return Some(
            "only a difference can be excepted: what else is found needs an end of its own",
        );
    }
    if violation.resolved.is_some() {
        return Some("this violation is over: there is nothing to except");
    }
    if violation.fields.iter().any(|field| field == "unreadable") {
        return Some("what is there could not be read, so there is nothing to accept");
    }
    match violation.found.as_deref().map(Line::parse).transpose() {
        Err(_) => Some("what was found cannot be read as an entry line"),
        Ok(Some(found)) if found.borrowed().is_unread() => Some(UNREAD),
        Ok(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::violations::Resolution;
    use crate::web::sample;

    const UNREAD_LINE: &str = "./usr/bin/ping type=file mode=0755 uid=0 gid=0 size=3";

    #[test]
    fn only_a_difference_that_stands_and_was_read_can_be_excepted() {
        let open = sample::violation();
        assert_eq!(refused(&open), None);
        let mut gap = open.clone();
        gap.kind = Kind::Gap;
        assert!(refused(&gap).is_some());
        let over = open
            .clone()
            .ended(open.opened, Resolution::Reverted, String::new());
        assert!(refused(&over).is_some());
        let mut unread = open.clone();
        unread.found = Some(UNREAD_LINE.to_owned());
        assert_eq!(refused(&unread), Some(UNREAD));
        let mut missing = open;
        missing.found = None;
        assert_eq!(refused(&missing), None, "what is missing can be accepted");
    }

    #[test]
    fn a_description_is_of_one_path_and_of_what_was_read() {
        let about = |path: &str, found: Option<&str>| About::Described {
            place: Place::Node("n1".to_owned()),
            path: path.parse().unwrap(),
            found: found.map(|line| Line::parse(line).unwrap()),
        };
        let code = |about: About| about.checked().err().map(|refused| refused.code);
        let read = format!("{UNREAD_LINE} sha256digest={}", "a".repeat(64));
        assert_eq!(code(about("./usr/bin/ping", Some(&read))), None);
        assert_eq!(code(about("./usr/bin/ping", None)), None);
        assert_eq!(
            code(about("./usr/bin/pong", Some(&read))),
            Some("malformed")
        );
        assert_eq!(
            code(about("./usr/bin/ping", Some(UNREAD_LINE))),
            Some("unread")
        );
    }
}
