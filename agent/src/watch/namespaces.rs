//! Mounts that only another mount namespace has: who lives there may be shown other files than we read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use attestation::path::ImagePath;

use super::processes::processes;
use crate::scan::{MountLine, everybody, lines_below, mount_lines};

/// Namespaces looked into at a time: a busy host of containers has some thousands, nearly all with another root.
const NAMESPACES: usize = 4_096;
/// Mounts told in all; a statement lists 256.
const TOLD: usize = 1_024;
/// Entries looked at in a tmpfs that may hold nothing but mount points: a service has a handful.
const PLACES: usize = 256;
/// Where systemd keeps what it mounts over paths that a service may not see.
const INACCESSIBLE: &[u8] = b"/systemd/inaccessible";

/// A mount that shows something else than ours does, and a process that sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) path: ImagePath,
    pub(super) line: MountLine,
    pub(super) pid: u32,
}

/// What a look at all namespaces brought.
#[derive(Debug, Default)]
pub(super) struct Looked {
    pub(super) foreign: Vec<Foreign>,
    /// Not all could be looked at.
    pub(super) more: bool,
}

/// Looks into every mount namespace that is not everybody's. `root` is an absolute path.
pub(super) fn look(root: &Path) -> Looked {
    let root = root.as_os_str().as_bytes();
    let mut looked = Looked::default();
    let own = fs::read_link(everybody().join("ns/mnt"));
    let ours = fs::read(everybody().join("mountinfo"));
    let (Ok(own), Ok(ours)) = (own, ours) else {
        looked.more = true;
        return looked;
    };
    let own = own.into_os_string().into_encoded_bytes();
    let mut seen = BTreeSet::new();
    for pid in processes() {
        let number = pid.to_string();
        let Some(other) = link(&number, "ns/mnt").filter(|other| *other != own) else {
            continue;
        };
        // A process in a chroot sees only what is mounted there: it does not stand for its namespace.
        let other = (other, link(&number, "root").unwrap_or_default());
        if seen.contains(&other) {
            continue;
        }
        if seen.len() >= NAMESPACES || looked.foreign.len() >= TOLD {
            looked.more = true;
            break;
        }
        // A process that is gone by now leaves its namespace to the next that lives there.
        let Ok(theirs) = fs::read(format!("/proc/{pid}/mountinfo")) else {
            continue;
        };
        seen.insert(other);
        let found = differing(&ours, &theirs, root)
            .into_iter()
            .filter(|(path, line)| {
                line.fstype != b"tmpfs" || !has_no_content(pid, root, path.as_bytes())
            })
            .map(|(path, line)| Foreign { path, line, pid });
        looked.foreign.extend(found);
    }
    looked.foreign.truncate(TOLD);
    looked
}

fn link(pid: &str, name: &str) -> Option<Vec<u8>> {
    let link = fs::read_link(format!("/proc/{pid}/{name}")).ok()?;
    Some(link.into_os_string().into_encoded_bytes())
}

fn has_no_content(pid: u32, root: &[u8], path: &[u8]) -> bool {
    let mut whole = format!("/proc/{pid}/root").into_bytes();
    whole.extend(root.strip_suffix(b"/").unwrap_or(root));
    whole.push(b'/');
    whole.extend(path);
    let whole = Path::new(OsStr::from_bytes(&whole));
    let mut left = PLACES;
    fs::metadata(whole).is_ok_and(|top| holds_only_places(whole, top.dev(), &mut left))
}

/// Whether there is nothing in it but directories that something else may be mounted at, as below a service's own
/// `/var/lib/private`: such a mount is told for itself.
fn holds_only_places(directory: &Path, device: u64, left: &mut usize) -> bool {
    let Ok(mut listing) = fs::read_dir(directory) else {
        return false;
    };
    listing.all(|entry| {
        let path = entry.map(|entry| entry.path()).unwrap_or_default();
        *left = left.saturating_sub(1);
        // The metadata of a mount point is that of what is mounted there.
        fs::symlink_metadata(&path).is_ok_and(|found| {
            let is_place =
                found.dev() != device || found.is_dir() && holds_only_places(&path, device, left);
            *left > 0 && is_place
        })
    })
}

/// The mounts below a root, of a table whose own root is ours, that show something else than our table does there.
fn differing(ours: &[u8], theirs: &[u8], root: &[u8]) -> BTreeMap<ImagePath, MountLine> {
    let (Some(own_top), Some(top)) = (top(ours), top(theirs)) else {
        return BTreeMap::new();
    };
    // Another root altogether: a container, which is no view of ours.
    if (own_top.device, &own_top.root) != (top.device, &top.root) {
        return BTreeMap::new();
    }
    let own: Vec<MountLine> = mount_lines(ours).collect();
    let run = own.iter().rev().find(|line| line.point == b"/run");
    let known = lines_below(ours, root);
    lines_below(theirs, root)
        .into_iter()
        .filter(|(path, line)| {
            let same_as_ours = known.get(path).is_some_and(|known| shows_same(known, line));
            let at_its_own_path = holding(&own, &line.point).is_some_and(|(above, below)| {
                above.device == line.device && joined(&above.root, below) == line.root
            });
            let inaccessible = run.is_some_and(|run| run.device == line.device)
                && line.root.starts_with(INACCESSIBLE);
            !(same_as_ours || at_its_own_path || inaccessible)
        })
        .collect()
}

fn shows_same(one: &MountLine, other: &MountLine) -> bool {
    // An instance of /proc or /sys, a tmpfs: each mount has its own device. What it is lies in its type and source.
    (one.device, &one.root) == (other.device, &other.root)
}

/// The line of `/`; of several, the last.
fn top(table: &[u8]) -> Option<MountLine> {
    mount_lines(table).filter(|line| line.point == b"/").last()
}

/// The mount of our own table that holds a path, and what is left of the path below it.
fn holding<'m, 'p>(own: &'m [MountLine], path: &'p [u8]) -> Option<(&'m MountLine, &'p [u8])> {
    let below = |point: &[u8]| {
        if point == b"/" {
            return path.strip_prefix(b"/");
        }
        match path.strip_prefix(point)? {
            [] => Some(&path[..0]),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    };
    own.iter()
        .filter_map(|line| Some((line, below(&line.point)?)))
        .reduce(|best, next| {
            if next.0.point.len() >= best.0.point.len() {
                next
            } else {
                best
            }
        })
}

fn joined(root: &[u8], below: &[u8]) -> Vec<u8> {
    if below.is_empty() {
        return root.to_vec();
    }
    let root = root.strip_suffix(b"/").unwrap_or(root);
    [root, below].join(&b'/')
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    const OURS: &str = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
        2 1 0:20 / /run rw - tmpfs tmpfs rw\n\
        3 1 0:21 / /proc rw - proc proc rw\n\
        4 1 8:2 / /boot rw - ext4 /dev/b rw\n";

    fn told(theirs: &str) -> Vec<String> {
        let theirs = format!("{OURS}{theirs}");
        differing(OURS.as_bytes(), theirs.as_bytes(), b"/")
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_is_mounted_there_alone_is_told() {
        assert_eq!(told("9 1 0:50 / /usr/bin rw - tmpfs x rw\n"), ["./usr/bin"]);
        assert_eq!(
            told("9 1 8:1 /home/me/sudo /usr/bin/sudo rw - ext4 /dev/a rw\n"),
            ["./usr/bin/sudo"]
        );
    }

    #[test]
    fn the_same_content_at_its_own_path_is_not() {
        assert!(told("").is_empty());
        // Read-only binds of a service's sandbox.
        assert!(told("9 1 8:1 /usr /usr ro - ext4 /dev/a rw\n").is_empty());
        assert!(told("9 1 8:2 / /boot ro - ext4 /dev/b rw\n").is_empty());
        assert!(told("9 1 8:2 /grub /boot/grub ro - ext4 /dev/b rw\n").is_empty());
    }

    #[test]
    fn what_a_service_may_not_see_is_not() {
        assert!(told("9 1 0:20 /systemd/inaccessible/dir /root ro - tmpfs tmpfs rw\n").is_empty());
        assert_eq!(
            told("9 1 0:99 /systemd/inaccessible/dir /root ro - tmpfs tmpfs rw\n"),
            ["./root"]
        );
    }

    #[test]
    fn directories_without_a_file_have_no_content() {
        let scratch = tempfile::tempdir().unwrap();
        let device = fs::metadata(scratch.path()).unwrap().dev();
        let only = |left: usize| holds_only_places(scratch.path(), device, &mut { left });
        assert!(only(PLACES));
        fs::create_dir_all(scratch.path().join("a/b")).unwrap();
        assert!(only(PLACES));
        assert!(!only(2), "more than is looked at");
        fs::write(scratch.path().join("a/b/file"), "x").unwrap();
        assert!(!only(PLACES));
        assert!(
            holds_only_places(scratch.path(), device + 1, &mut { PLACES }),
            "mounted there"
        );
    }

    #[test]
    fn a_namespace_with_another_root_is_not_ours() {
        let theirs = "1 0 0:70 / / rw - overlay overlay rw\n2 1 0:71 / /usr/bin rw - tmpfs x rw\n";
        assert!(differing(OURS.as_bytes(), theirs.as_bytes(), b"/").is_empty());
        let chroot = "1 0 8:1 /srv/jail / rw - ext4 /dev/a rw\n2 1 0:71 / /usr rw - tmpfs x rw\n";
        assert!(differing(OURS.as_bytes(), chroot.as_bytes(), b"/").is_empty());
    }

    #[test]
    fn only_what_is_below_the_attested_root_counts() {
        let theirs = format!(
            "{OURS}9 1 0:50 / /srv/root/usr rw - tmpfs x rw\n10 1 0:51 / /usr rw - tmpfs x rw\n"
        );
        let found = differing(OURS.as_bytes(), theirs.as_bytes(), b"/srv/root");
        let found: Vec<_> = found.keys().map(ToString::to_string).collect();
        assert_eq!(found, ["./usr"]);
    }
}
