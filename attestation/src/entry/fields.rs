//! What differs between two entries of one path, by the names that COMMANDS.md gives the fields.

use crate::entry::{Entry, Kind, Xattr};
use crate::path::encode_component_bytes;

/// The names of what differs; nothing where both are absent or equal.
///
/// Where the type differs, what only one type has (size, digest, target, device) is not told beside it; a digest is told
/// only where both contents were read.
pub fn fields(expected: Option<&Entry>, found: Option<&Entry>) -> Vec<String> {
    let (expected, found) = match (expected, found) {
        (Some(expected), Some(found)) => (expected, found),
        (None, Some(_)) => return vec!["added".to_owned()],
        (Some(_), None) => return vec!["removed".to_owned()],
        (None, None) => return Vec::new(),
    };
    let mut names = Vec::new();
    let mut tell = |differs: bool, name: &str| {
        if differs {
            names.push(name.to_owned());
        }
    };
    tell(expected.kind.word() != found.kind.word(), "type");
    tell(expected.mode != found.mode, "mode");
    tell(expected.uid != found.uid, "uid");
    tell(expected.gid != found.gid, "gid");
    tell(expected.time != found.time, "time");
    tell(expected.flags != found.flags, "flags");
    match (&expected.kind, &found.kind) {
        (
            Kind::File { size, sha256 },
            Kind::File {
                size: other_size,
                sha256: other_sha256,
            },
        ) => {
            tell(size != other_size, "size");
            tell(
                sha256.is_some() && other_sha256.is_some() && sha256 != other_sha256,
                "sha256digest",
            );
        }
        (Kind::Link { target }, Kind::Link { target: other }) => tell(target != other, "link"),
        (Kind::Char { .. }, Kind::Char { .. }) | (Kind::Block { .. }, Kind::Block { .. }) => {
            tell(expected.kind != found.kind, "device");
        }
        _ => {}
    }
    names.extend(xattr_fields(&expected.xattrs, &found.xattrs));
    names
}

/// The attributes that only one side has or whose values differ, in the order of their names.
fn xattr_fields(expected: &[Xattr], found: &[Xattr]) -> Vec<String> {
    let missing_in = |others: &[Xattr], xattr: &Xattr| !others.iter().any(|other| other == xattr);
    let mut names: Vec<&[u8]> = expected
        .iter()
        .filter(|xattr| missing_in(found, xattr))
        .map(|xattr| &xattr.name[..])
        .collect();
    names.extend(
        found
            .iter()
            .filter(|xattr| missing_in(expected, xattr))
            .map(|xattr| &xattr.name[..]),
    );
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| format!("xattr.{}", encode_component_bytes(name)))
        .collect()
}
