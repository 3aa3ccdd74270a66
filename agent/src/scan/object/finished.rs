//! What a look at an object amounts to.

use attestation::entry::{Entry, Kind, Xattr};
use attestation::path::ImagePath;
use attestation::scope::Decision;
use rustix::fs::Statx;
use rustix::io::Errno;

use super::Trouble;
use crate::scan::attributes::Unlisted;
use crate::scan::{Reading, attributes};

/// Longest entry line in bytes.
const LINE_LIMIT: usize = 262_144;

pub(super) fn finish(
    path: &ImagePath,
    stat: &Statx,
    decision: Decision,
    kind: Kind,
    xattrs: Vec<Xattr>,
    settled: bool,
) -> Reading {
    let entry = Entry {
        path: path.clone(),
        mode: attributes::mode(stat),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        time: attributes::time(stat, decision),
        flags: attributes::flags(stat),
        kind,
        xattrs,
    };
    if may_be_too_long(&entry) && entry.line().is_err() {
        return Reading::Unreadable {
            error: "size".into(),
        };
    }
    let fingerprint = attributes::fingerprint(stat);
    if settled {
        Reading::Entry(entry, fingerprint)
    } else {
        Reading::Unsettled(entry, fingerprint)
    }
}

/// Whether the line can reach its limit at all: no byte is written as more than four, a value takes at most 1,400.
fn may_be_too_long(entry: &Entry) -> bool {
    let target = if let Kind::Link { target } = &entry.kind {
        target.len()
    } else {
        0
    };
    let attributes: usize = entry
        .xattrs
        .iter()
        .map(|xattr| xattr.name.len() * 4 + 1_400)
        .sum();
    (entry.path.as_bytes().len() + target) * 4 + attributes + 1_024 > LINE_LIMIT
}

/// The reading that an error amounts to.
pub(in crate::scan) fn unreadable_errno(errno: Errno) -> Reading {
    unreadable(&Trouble::Kernel(errno))
}

pub(super) fn unreadable(trouble: &Trouble) -> Reading {
    let error = match trouble {
        Trouble::Kernel(Errno::NOENT) => return Reading::Absent,
        Trouble::Kernel(Errno::XDEV) => "mount".to_owned(),
        Trouble::Kernel(errno) => std::io::Error::from(*errno).to_string(),
        Trouble::Attributes(unlisted) => unlisted_in_words(unlisted),
        Trouble::Stopped => "stopped".to_owned(),
    };
    Reading::Unreadable { error }
}

/// The values are as in an entry's line; there are at most five, of some 1,400 bytes.
fn unlisted_in_words(Unlisted { errno, named }: &Unlisted) -> String {
    let error = std::io::Error::from(*errno);
    if named.is_empty() {
        return format!("extended attributes: {error}");
    }
    let words: Vec<String> = named.iter().map(Xattr::word).collect();
    format!(
        "extended attributes: {error}; read by name: {}",
        words.join(" ")
    )
}
