//! Whether differences explain a tree: applied to the image's entries they must give exactly what was attested
//! (FORMATS.md 5.2), so that an agent cannot leave one out.

use std::collections::HashSet;

use crate::digest::Digest;
use crate::entry::Line;
use crate::path::ImagePath;
use crate::scope::Expect;
use crate::statement::Difference;
use crate::tree::Tree;

pub use crate::entry::fields;

/// Why differences do not explain what was attested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// One path has two differences.
    #[error("twice {0}")]
    Twice(ImagePath),
    /// `expected` is not the line of the image, or of the pins, at that path.
    #[error("expected {0}")]
    Expected(ImagePath),
    /// `found` is another path's line.
    #[error("found {0}")]
    Found(ImagePath),
    /// `expected` and `found` are the same, also where both are null.
    #[error("unchanged {0}")]
    Unchanged(ImagePath),
    /// A difference at a path of which nothing is expected.
    #[error("ignored {0}")]
    Ignored(ImagePath),
    /// A `local` or `growing` difference from a pin, of a node without pins.
    #[error("unpinned {0}")]
    Unpinned(ImagePath),
    /// Applied to the image's entries they give another tree.
    #[error("tree")]
    Tree,
    /// Applied to the pins they give another tree of `local` entries.
    #[error("local")]
    Local,
    /// Applied to the pins they give another tree of `growing` entries.
    #[error("growing")]
    Growing,
}

/// A node's pinned entries.
#[derive(Clone, Copy, Debug)]
pub enum Pins<'a> {
    /// It states none: nothing is pinned, and what is there differs from that.
    None,
    /// It states some that have not been received: what differs from them cannot be judged yet.
    Missing,
    /// Received, and their digest is the stated one.
    Held {
        /// The `local` entries.
        local: &'a Tree,
        /// The `growing` entries.
        growing: &'a Tree,
    },
}

/// The tree digests that a node attests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attested {
    /// Of the sealed entries.
    pub sealed: Digest,
    /// Of the `local` entries.
    pub local: Digest,
    /// Of the `growing` entries.
    pub growing: Digest,
}

/// Whether the differences of a node without pins, applied to the image, give the attested tree of sealed entries.
pub fn explains(
    image: &Tree,
    differences: &[Difference],
    attested: &Digest,
) -> Result<(), Unexplained> {
    let attested = Attested {
        sealed: *attested,
        local: Digest::ZERO,
        growing: Digest::ZERO,
    };
    explains_all(image, Pins::None, differences, &attested)
}

/// Whether the differences, applied to image and pins, give all three attested trees.
pub fn explains_all(
    image: &Tree,
    pins: Pins<'_>,
    differences: &[Difference],
    attested: &Attested,
) -> Result<(), Unexplained> {
    let changes = check_listed(image, pins, differences)?;
    if image.root_with(&changes.sealed) != attested.sealed {
        return Err(Unexplained::Tree);
    }
    let (local, growing) = match pins {
        Pins::Missing => return Ok(()),
        Pins::None => {
            let empty = Tree::new();
            (
                empty.root_with(&changes.local),
                empty.root_with(&changes.growing),
            )
        }
        Pins::Held { local, growing } => (
            local.root_with(&changes.local),
            growing.root_with(&changes.growing),
        ),
    };
    if local != attested.local {
        return Err(Unexplained::Local);
    }
    if growing != attested.growing {
        return Err(Unexplained::Growing);
    }
    Ok(())
}

/// What listed differences do to each tree: keys, and the leaf that each gets.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// To the image's entries.
    pub sealed: Vec<(Digest, Option<Digest>)>,
    /// To the `local` pins.
    pub local: Vec<(Digest, Option<Digest>)>,
    /// To the `growing` pins.
    pub growing: Vec<(Digest, Option<Digest>)>,
}

/// The rules that hold for each listed difference, also while others are unlisted and no tree can be computed.
pub fn check_listed(
    image: &Tree,
    pins: Pins<'_>,
    differences: &[Difference],
) -> Result<Changes, Unexplained> {
    let mut changes = Changes::default();
    let mut seen = HashSet::with_capacity(differences.len());
    for difference in differences {
        let path = || difference.path.clone();
        let key = difference.path.key();
        if !seen.insert(key) {
            return Err(Unexplained::Twice(path()));
        }
        if difference.expected == difference.found {
            return Err(Unexplained::Unchanged(path()));
        }
        if difference
            .found
            .as_ref()
            .is_some_and(|found| found.path() != difference.path)
        {
            return Err(Unexplained::Found(path()));
        }
        let (tree, list) = match (difference.expect, pins) {
            (Expect::Sealed, _) => (Some(image), &mut changes.sealed),
            (Expect::Ignored, _) => return Err(Unexplained::Ignored(path())),
            (_, Pins::None) if difference.expected.is_some() => {
                return Err(Unexplained::Unpinned(path()));
            }
            (Expect::Local, Pins::None) => (None, &mut changes.local),
            (Expect::Growing, Pins::None) => (None, &mut changes.growing),
            (Expect::Local, Pins::Held { local, .. }) => (Some(local), &mut changes.local),
            (Expect::Local, Pins::Missing) => (None, &mut changes.local),
            (Expect::Growing, Pins::Held { growing, .. }) => (Some(growing), &mut changes.growing),
            (Expect::Growing, Pins::Missing) => (None, &mut changes.growing),
        };
        let expected = difference.expected.as_ref().map(Line::leaf);
        if tree.is_some_and(|tree| tree.get(&key) != expected) {
            return Err(Unexplained::Expected(path()));
        }
        list.push((key, difference.found.as_ref().map(Line::leaf)));
    }
    Ok(changes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    const ROOT: &str = ". type=dir mode=0755 uid=0 gid=0";
    const MOTD: &str = "./etc/motd type=file mode=0644 uid=0 gid=0 size=0 \
        sha256digest=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const PIPE: &str = "./run/pipe type=fifo mode=0600 uid=0 gid=0";
    const PIPE_OPEN: &str = "./run/pipe type=fifo mode=0666 uid=0 gid=0";
    const NEW: &str = "./new type=dir mode=0755 uid=0 gid=0";
    const UNREAD: &str = "./new type=file mode=0755 uid=0 gid=0 size=99999999999";

    fn line(text: &str) -> Line {
        Line::parse(text).unwrap()
    }

    fn tree(lines: &[&str]) -> Tree {
        Tree::from_leaves(
            lines
                .iter()
                .map(|text| (line(text).path().key(), line(text).leaf()))
                .collect(),
        )
    }

    fn difference(
        expect: Expect,
        path: &str,
        expected: Option<&str>,
        found: Option<&str>,
    ) -> Difference {
        Difference {
            path: path.parse().unwrap(),
            expect,
            expected: expected.map(line),
            found: found.map(line),
            actor: None,
            at: Timestamp::from_micros(0),
        }
    }

    fn sealed(path: &str, expected: Option<&str>, found: Option<&str>) -> Difference {
        difference(Expect::Sealed, path, expected, found)
    }

    fn explain(differences: &[Difference], attested: &[&str]) -> Result<(), Unexplained> {
        explains(
            &tree(&[ROOT, MOTD, PIPE]),
            differences,
            &tree(attested).root(),
        )
    }

    #[test]
    fn differences_give_the_tree_or_do_not() {
        assert_eq!(explain(&[], &[ROOT, MOTD, PIPE]), Ok(()));
        assert_eq!(explain(&[], &[ROOT, MOTD]), Err(Unexplained::Tree));
        let removed = sealed("./etc/motd", Some(MOTD), None);
        let changed = sealed("./run/pipe", Some(PIPE), Some(PIPE_OPEN));
        let added = sealed("./new", None, Some(UNREAD));
        let all = [removed.clone(), changed.clone(), added.clone()];
        assert_eq!(explain(&all, &[ROOT, PIPE_OPEN, UNREAD]), Ok(()));
        assert_eq!(
            explain(
                &[added.clone(), removed.clone(), changed],
                &[ROOT, PIPE_OPEN, UNREAD]
            ),
            Ok(())
        );
        assert_eq!(
            explain(&[removed, added], &[ROOT, PIPE_OPEN, UNREAD]),
            Err(Unexplained::Tree),
            "one left out"
        );
        let everything = [
            sealed(".", Some(ROOT), None),
            sealed("./etc/motd", Some(MOTD), None),
            sealed("./run/pipe", Some(PIPE), None),
        ];
        assert_eq!(
            explains(&tree(&[ROOT, MOTD, PIPE]), &everything, &Digest::ZERO),
            Ok(())
        );
    }

    #[test]
    fn each_rule_is_refused_by_its_name() {
        let path = |shown: &str| shown.parse::<ImagePath>().unwrap();
        let attested = [ROOT, MOTD, PIPE];
        let refused = |differences: &[Difference]| explain(differences, &attested).unwrap_err();
        let removed = sealed("./etc/motd", Some(MOTD), None);
        assert_eq!(
            refused(&[removed.clone(), removed]),
            Unexplained::Twice(path("./etc/motd"))
        );
        assert_eq!(
            refused(&[sealed("./run/pipe", Some(PIPE_OPEN), None)]),
            Unexplained::Expected(path("./run/pipe")),
            "not the image's line"
        );
        assert_eq!(
            refused(&[sealed("./run/pipe", None, Some(PIPE_OPEN))]),
            Unexplained::Expected(path("./run/pipe")),
            "null where the image has one"
        );
        assert_eq!(
            refused(&[sealed("./run/pipe", Some(MOTD), Some(PIPE_OPEN))]),
            Unexplained::Expected(path("./run/pipe")),
            "another path's line"
        );
        assert_eq!(
            refused(&[sealed("./new", Some(NEW), None)]),
            Unexplained::Expected(path("./new")),
            "a line where the image has none"
        );
        assert_eq!(
            refused(&[sealed("./new", None, Some(PIPE))]),
            Unexplained::Found(path("./new"))
        );
        assert_eq!(
            refused(&[sealed("./run/pipe", Some(PIPE), Some(PIPE))]),
            Unexplained::Unchanged(path("./run/pipe"))
        );
        assert_eq!(
            refused(&[sealed("./none", None, None)]),
            Unexplained::Unchanged(path("./none"))
        );
        let ignored = difference(Expect::Ignored, "./new", None, Some(NEW));
        assert_eq!(refused(&[ignored]), Unexplained::Ignored(path("./new")));
        for expect in [Expect::Local, Expect::Growing] {
            let unpinned = difference(expect, "./new", Some(NEW), None);
            assert_eq!(refused(&[unpinned]), Unexplained::Unpinned(path("./new")));
        }
    }

    #[test]
    fn pins_explain_their_own_trees() {
        let image = tree(&[ROOT]);
        let (local, growing) = (tree(&[MOTD]), tree(&[PIPE]));
        let pins = Pins::Held {
            local: &local,
            growing: &growing,
        };
        let same = Attested {
            sealed: image.root(),
            local: local.root(),
            growing: growing.root(),
        };
        assert_eq!(explains_all(&image, pins, &[], &same), Ok(()));
        let removed = [difference(Expect::Local, "./etc/motd", Some(MOTD), None)];
        assert_eq!(
            explains_all(&image, pins, &removed, &same),
            Err(Unexplained::Local)
        );
        let without = Attested {
            local: Digest::ZERO,
            ..same
        };
        assert_eq!(explains_all(&image, pins, &removed, &without), Ok(()));
        assert_eq!(
            explains_all(&image, pins, &[], &without),
            Err(Unexplained::Local)
        );
        let opened = [difference(
            Expect::Growing,
            "./run/pipe",
            Some(PIPE),
            Some(PIPE_OPEN),
        )];
        let grown = Attested {
            growing: tree(&[PIPE_OPEN]).root(),
            ..same
        };
        assert_eq!(explains_all(&image, pins, &opened, &grown), Ok(()));
        assert_eq!(
            explains_all(&image, pins, &opened, &same),
            Err(Unexplained::Growing)
        );
        let misplaced = [difference(Expect::Growing, "./etc/motd", Some(MOTD), None)];
        assert!(matches!(
            explains_all(&image, pins, &misplaced, &same),
            Err(Unexplained::Expected(_))
        ));
    }

    #[test]
    fn without_pins_their_trees_are_empty_and_missing_ones_are_not_judged() {
        let image = tree(&[ROOT]);
        let other = Attested {
            sealed: image.root(),
            local: Digest::of(b"x"),
            growing: Digest::ZERO,
        };
        assert_eq!(
            explains_all(&image, Pins::None, &[], &other),
            Err(Unexplained::Local)
        );
        assert_eq!(explains_all(&image, Pins::Missing, &[], &other), Ok(()));
        let first = [difference(Expect::Local, "./etc/motd", None, Some(MOTD))];
        let found = Attested {
            local: tree(&[MOTD]).root(),
            ..other
        };
        assert_eq!(explains_all(&image, Pins::None, &first, &found), Ok(()));
        assert_eq!(
            explains_all(&image, Pins::None, &first, &other),
            Err(Unexplained::Local)
        );
        let removed = difference(Expect::Local, "./etc/motd", Some(MOTD), None);
        assert_eq!(
            explains_all(
                &image,
                Pins::Missing,
                std::slice::from_ref(&removed),
                &other
            ),
            Ok(())
        );
        let twice = [removed.clone(), removed];
        assert!(matches!(
            explains_all(&image, Pins::Missing, &twice, &other),
            Err(Unexplained::Twice(_))
        ));
    }
}
