//! What an image of a live machine leaves out beside its scope: rules that are added, each with its reason, and printed.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::path::ImagePath;
use attestation::scope::{Expect, Rule};
use serde::Serialize;

use crate::exit::Failure;
use crate::gather::Unread;

/// The most rules that a scope may have.
const RULES_LIMIT: usize = 1_000;
/// The longest rule that a scope may have, in bytes.
const MATCH_LIMIT: usize = 1_024;

/// A rule that was added, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Added {
    /// What it matches.
    pub r#match: String,
    /// Why it is there.
    pub reason: String,
}

impl Added {
    /// As a rule.
    pub fn rule(&self) -> Rule {
        Rule {
            r#match: self.r#match.clone(),
            expect: Expect::Ignored,
            time: false,
        }
    }
}

/// The rule for the state directory, where that lies inside the root. Both paths are real ones.
pub fn state(root: &Path, state: &Path) -> Result<Option<Added>, Failure> {
    let Ok(below) = state.strip_prefix(root) else {
        return Ok(None);
    };
    let refused = |why: String| {
        Failure::new(format!("cannot keep the state in {}", state.display())).why(why)
    };
    let path = ImagePath::from_bytes(below.as_os_str().as_bytes())
        .map_err(|error| refused(error.to_string()))?;
    if path.is_root() {
        return Err(
            refused("it is ROOT itself, of which nothing would be left".to_owned())
                .remedy("name another directory with --state"),
        );
    }
    let pattern = literal(&path);
    if pattern.len() > MATCH_LIMIT {
        return Err(refused("its path is too long for a rule".to_owned())
            .remedy("name another directory with --state"));
    }
    Ok(Some(Added {
        r#match: pattern,
        reason: "the state of `pristine up` itself".to_owned(),
    }))
}

/// Rules for what cannot be read. Where that is more than a scope may have rules for, whole directories are left out.
pub fn unread(unread: &[Unread], rules_already: usize) -> Result<Vec<Added>, Failure> {
    let room = RULES_LIMIT.saturating_sub(rules_already);
    let mut left_out: Vec<(ImagePath, String)> = unread
        .iter()
        .map(|one| shortened(one.path.clone(), one.error.clone()))
        .collect();
    left_out.sort();
    drop_covered(&mut left_out);
    while left_out.len() > room {
        let Some(parent) = fullest_parent(&left_out) else {
            return Err(Failure::new("cannot leave out all that cannot be read")
                .why(format!(
                    "it lies in {} places, which is more than a scope can hold",
                    left_out.len()
                ))
                .remedy("run it as root, or name a ROOT of your own with --root"));
        };
        left_out.push((parent, "much below it cannot be read".to_owned()));
        left_out.sort();
        drop_covered(&mut left_out);
    }
    Ok(left_out
        .into_iter()
        .map(|(path, error)| Added {
            r#match: literal(&path),
            reason: format!("cannot be read: {error}"),
        })
        .collect())
}

/// The nearest directory above whose rule is short enough, where the path's own is not.
fn shortened(mut path: ImagePath, error: String) -> (ImagePath, String) {
    while literal(&path).len() > MATCH_LIMIT {
        let Some(parent) = path.parent() else { break };
        path = parent;
    }
    (path, error)
}

/// In a sorted list what lies below a path follows it.
fn drop_covered(sorted: &mut Vec<(ImagePath, String)>) {
    sorted.dedup_by(|later, kept| later.0.starts_with(&kept.0));
}

/// The directory, not the root, that holds the most of the listed paths directly.
fn fullest_parent(sorted: &[(ImagePath, String)]) -> Option<ImagePath> {
    let mut counts = std::collections::BTreeMap::new();
    for parent in sorted
        .iter()
        .filter_map(|(path, _)| path.parent())
        .filter(|parent| !parent.is_root())
    {
        *counts.entry(parent).or_insert(0_usize) += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(parent, _)| parent)
}

/// A glob that matches this path alone.
pub fn literal(path: &ImagePath) -> String {
    let mut pattern = String::with_capacity(path.as_bytes().len());
    for byte in path.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.+:@%,=~ ".contains(byte) && *byte != b',' {
            pattern.push(char::from(*byte));
        } else {
            pattern.push_str(&format!("\\{byte:03o}"));
        }
    }
    pattern
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use attestation::scope::Scope;

    use super::*;

    fn path(shown: &str) -> ImagePath {
        ImagePath::parse(shown).unwrap()
    }

    fn failed(shown: &str) -> Unread {
        Unread {
            path: path(shown),
            error: "permission denied".to_owned(),
            expect: Expect::Sealed,
        }
    }

    #[test]
    fn a_literal_matches_the_odd_path_it_was_made_from_and_nothing_else() {
        for raw in [
            &b"a b"[..],
            b"x*[y]{z,w}?",
            b"new\nline\\",
            b"\xff\x80",
            b"..hidden/%",
        ] {
            let path = ImagePath::from_bytes(raw.to_vec()).unwrap();
            let rule = Rule {
                r#match: literal(&path),
                expect: Expect::Ignored,
                time: false,
            };
            let scope = Scope::new(vec![rule]).unwrap();
            assert_eq!(scope.decide(&path).expect, Expect::Ignored, "{path}");
            assert_eq!(
                scope
                    .decide(&ImagePath::from_bytes(b"x".to_vec()).unwrap())
                    .expect,
                Expect::Sealed
            );
        }
    }

    #[test]
    fn the_state_is_left_out_only_inside_the_root() {
        let inside = state(Path::new("/"), Path::new("/var/lib/pristine/up"))
            .unwrap()
            .unwrap();
        assert_eq!(inside.r#match, "var/lib/pristine/up");
        assert_eq!(
            state(Path::new("/srv"), Path::new("/var/lib/pristine/up")).unwrap(),
            None
        );
        assert!(state(Path::new("/srv"), Path::new("/srv")).is_err());
    }

    #[test]
    fn what_lies_below_a_left_out_directory_needs_no_rule() {
        let added = unread(
            &[failed("./root/a"), failed("./root"), failed("./etc/shadow")],
            10,
        )
        .unwrap();
        let patterns: Vec<&str> = added.iter().map(|one| one.r#match.as_str()).collect();
        assert_eq!(patterns, ["etc/shadow", "root"]);
    }

    #[test]
    fn too_many_become_a_few_directories() {
        let many: Vec<Unread> = (0..50)
            .map(|number| failed(&format!("./secret/{number}")))
            .collect();
        let added = unread(&many, RULES_LIMIT - 3).unwrap();
        assert_eq!(added.len(), 1);
        assert_eq!(added.first().unwrap().r#match, "secret");
        let at_root: Vec<Unread> = (0..50)
            .map(|number| failed(&format!("./{number}")))
            .collect();
        assert!(unread(&at_root, RULES_LIMIT - 3).is_err());
    }
}
