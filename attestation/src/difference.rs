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
    /// A `local` or `growing` difference of a node without pins.
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
    /// It states none: both trees are empty.
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
        Pins::None => (Digest::ZERO, Digest::ZERO),
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
            (_, Pins::None) => return Err(Unexplained::Unpinned(path())),
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
