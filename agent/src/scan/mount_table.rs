//! The mount table under a root, as `/proc/self/mountinfo` tells it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use attestation::mounts::Mount;
use attestation::path::ImagePath;

/// Reads the mounts strictly below `root`, in the order of their paths; of several at one place, the last.
///
/// # Errors
/// When `root` or `/proc/self/mountinfo` cannot be read.
pub fn mount_table(root: &Path) -> io::Result<Vec<Mount>> {
    let root = std::fs::canonicalize(root)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(below(&table, root.as_os_str().as_bytes()))
}

fn below(table: &[u8], root: &[u8]) -> Vec<Mount> {
    let mut found = BTreeMap::new();
    for line in table.split(|byte| *byte == b'\n') {
        let Some((point, fstype, source)) = fields(line) else {
            continue;
        };
        let Some(relative) = relative(&point, root) else {
            continue;
        };
        let Ok(path) = ImagePath::from_bytes(relative) else {
            continue;
        };
        if path.is_root() {
            continue;
        }
        let mount = Mount {
            path: path.clone(),
            source: String::from_utf8_lossy(&source).into_owned(),
            fstype: String::from_utf8_lossy(&fstype).into_owned(),
        };
        found.insert(path, mount);
    }
    found.into_values().collect()
}

/// Mount point, type and source of a line; the fields before the lone `-` are variable in number.
fn fields(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = unescape(words.nth(4)?);
    let mut after = words.skip_while(|word| *word != b"-").skip(1);
    let fstype = unescape(after.next()?);
    let source = unescape(after.next().unwrap_or_default());
    Some((point, fstype, source))
}

fn relative<'a>(point: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    point.strip_prefix(root)?.strip_prefix(b"/")
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let (b'\\', Some(digits)) = (first, digits) {
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            plain.push(u8::try_from(value & 0xff).unwrap_or_default());
            rest = &tail[3..];
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw - ext4 /dev/vda rw\n\
        28 27 0:25 / /srv/a\\040b ro shared:1 master:2 - tmpfs first rw\n\
        29 27 0:26 / /srv/a\\040b ro - xfs /dev/x\\134y rw\n\
        30 27 0:27 / /srv ro - tmpfs none rw\n\
        31 27 0:27 / /srvother ro - tmpfs none rw\n\
        broken\n";

    #[test]
    fn the_last_of_stacked_mounts_is_kept_and_escapes_are_undone() {
        let mounts = below(TABLE, b"/");
        let paths: Vec<_> = mounts
            .iter()
            .map(|mount| mount.path.as_bytes().to_vec())
            .collect();
        assert_eq!(paths, [&b"proc"[..], b"srv", b"srv/a b", b"srvother"]);
        assert_eq!(
            (mounts[2].source.as_str(), mounts[2].fstype.as_str()),
            ("/dev/x\\y", "xfs")
        );
    }

    #[test]
    fn only_what_is_strictly_below_the_root_counts() {
        let mounts = below(TABLE, b"/srv");
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].path.as_bytes(), b"a b");
    }
}
