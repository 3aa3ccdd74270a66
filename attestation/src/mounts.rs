//! Which mounts are expected under an attested root (FORMATS.md section 6).

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::digest::Digest;
use crate::json;
use crate::path::ImagePath;
use crate::scope::{Expect, Scope};

/// Where the kernel's own file systems belong.
const KERNEL_PLACES: [&[u8]; 4] = [b"proc", b"sys", b"dev", b"run"];
/// The kernel's own types, beside `fuse.*`.
const KERNEL_TYPES: [&str; 24] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "cgroup2",
    "mqueue",
    "hugetlbfs",
    "securityfs",
    "tracefs",
    "debugfs",
    "bpf",
    "pstore",
    "efivarfs",
    "configfs",
    "fusectl",
    "binfmt_misc",
    "autofs",
    "cgroup",
    "ramfs",
    "nsfs",
    "nfsd",
    "rpc_pipefs",
    "selinuxfs",
];

/// One line of the mount table under the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// The mount point, relative to the root.
    pub path: ImagePath,
    /// What is mounted.
    pub source: String,
    /// The file system type.
    #[serde(rename = "type")]
    pub fstype: String,
}

/// The digest of a mount table, in whatever order it was read: SHA-256 of the canonical JSON of the sorted table.
pub fn table_digest(mounts: &[Mount]) -> Digest {
    let mut sorted: Vec<&Mount> = mounts.iter().collect();
    sorted.sort();
    let row = |mount: &Mount| json!({"path": mount.path.to_string(), "source": mount.source, "type": mount.fstype});
    let table = serde_json::Value::Array(sorted.into_iter().map(row).collect());
    // Rows of three texts always have a canonical form: only numbers and depth can lack one.
    Digest::of(&json::canonical(&table).unwrap_or_default())
}

/// The mounts that nothing expects, in the order given.
///
/// The root's own file system may head the table; whatever is stacked upon it is a mount like any other.
pub fn unexpected(mounts: &[Mount], scope: &Scope, image_mounts: &[ImagePath]) -> Vec<Mount> {
    let literal = scope.literal_mounts();
    let root = mounts.iter().position(|mount| mount.path.is_root());
    let is_expected = |at: usize, mount: &Mount| {
        root == Some(at)
            || is_kernels_own(mount)
            || scope.decide(&mount.path).expect != Expect::Sealed
            || literal.contains(&mount.path)
            || image_mounts.contains(&mount.path)
    };
    mounts
        .iter()
        .enumerate()
        .filter(|(at, mount)| !is_expected(*at, mount))
        .map(|(_, mount)| mount.clone())
        .collect()
}

/// Whether a mount over a directory, in another namespace than everybody's, hides no sealed file: each service with
/// `PrivateTmp=` has its own `/tmp`, while the directory itself is sealed.
pub fn hides_nothing_sealed(path: &ImagePath, scope: &Scope) -> bool {
    path.components()
        .fold(scope.start(), |state, name| state.child(name))
        .seals_nothing_below()
}

fn is_kernels_own(mount: &Mount) -> bool {
    let place = mount.path.components().next();
    let is_there = place.is_some_and(|first| KERNEL_PLACES.contains(&first));
    let fstype = mount.fstype.as_str();
    is_there
        && (KERNEL_TYPES.contains(&fstype)
            || fstype
                .strip_prefix("fuse.")
                .is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn mount(path: &str, source: &str, fstype: &str) -> Mount {
        Mount {
            path: path.parse().unwrap(),
            source: source.to_owned(),
            fstype: fstype.to_owned(),
        }
    }

    fn is_expected(path: &str, fstype: &str) -> bool {
        unexpected(&[mount(path, "x", fstype)], &Scope::sealed_all(), &[]).is_empty()
    }

    #[test]
    fn the_kernels_own_are_expected_at_their_places_only() {
        for fstype in KERNEL_TYPES {
            for place in [
                "./proc",
                "./sys",
                "./dev",
                "./run",
                "./run/user/0",
                "./dev/shm",
            ] {
                assert!(is_expected(place, fstype), "{fstype} at {place}");
            }
            assert!(!is_expected("./usr", fstype), "{fstype} over /usr");
            assert!(!is_expected("./proc2", fstype));
            assert!(!is_expected("./srv/proc", fstype));
        }
        assert!(is_expected("./run/user/1000/doc", "fuse.portal"));
        for foreign in [
            "ext4", "overlay", "fuse", "fuse.", "fuseblk", "nfs4", "TMPFS", "",
        ] {
            assert!(!is_expected("./run", foreign), "{foreign}");
        }
    }

    #[test]
    fn what_is_not_sealed_takes_any_mount() {
        let scope = Scope::from_json(
            br#"[{"match":"srv","expect":"ignored"},{"match":"var/log/**","expect":"growing"},
                 {"match":"data","expect":"local"},{"match":"srv/kept","expect":"sealed"},{"match":"opt/*","expect":"sealed"}]"#,
        )
        .unwrap();
        let table = [
            mount("./srv", "nfs:/", "nfs4"),
            mount("./srv/deep/er", "nfs:/", "nfs4"),
            mount("./var/log/app", "/dev/b", "ext4"),
            mount("./var/log", "/dev/b", "ext4"),
            mount("./data", "/dev/c", "xfs"),
            mount("./srv/kept", "/dev/d", "ext4"),
            mount("./srv/kept/below", "/dev/d", "ext4"),
            mount("./opt/a", "/dev/e", "ext4"),
        ];
        let found: Vec<String> = unexpected(&table, &scope, &[])
            .iter()
            .map(|mount| mount.path.to_string())
            .collect();
        assert_eq!(
            found,
            ["./var/log", "./srv/kept/below", "./opt/a"],
            "a literal rule names a mount point, a pattern does not"
        );
    }

    #[test]
    fn a_directory_with_nothing_sealed_below_may_be_hidden_from_some() {
        let hidden = |rules: &str, path: &str| {
            let scope = Scope::from_json(rules.as_bytes()).unwrap();
            hides_nothing_sealed(&path.parse().unwrap(), &scope)
        };
        let tmp = r#"[{"match":"tmp/**","expect":"ignored"}]"#;
        assert!(hidden(tmp, "./tmp"));
        assert!(hidden(tmp, "./tmp/deep"));
        assert!(!hidden(tmp, "."));
        assert!(!hidden(tmp, "./usr"));
        assert!(!hidden("[]", "./tmp"));
        let kept =
            r#"[{"match":"tmp/**","expect":"ignored"},{"match":"tmp/kept","expect":"sealed"}]"#;
        assert!(!hidden(kept, "./tmp"));
        assert!(hidden(kept, "./tmp/other"));
        let some =
            r#"[{"match":"tmp/*","expect":"ignored"},{"match":"srv/**/x","expect":"local"}]"#;
        assert!(hidden(some, "./tmp/a"), "a rule covers what is below");
        assert!(!hidden(some, "./tmp"), "no rule is sure to cover it");
        assert!(!hidden(some, "./srv"));
        let over =
            r#"[{"match":"tmp/kept","expect":"sealed"},{"match":"tmp/**","expect":"growing"}]"#;
        assert!(hidden(over, "./tmp"));
        for path in ["./tmp", "./var/tmp", "./run"] {
            assert!(
                hides_nothing_sealed(&path.parse().unwrap(), &crate::scope::host::scope()),
                "{path}"
            );
        }
    }

    #[test]
    fn the_images_mounts_are_exact() {
        let allowed = ["./boot/efi".parse().unwrap()];
        let table = [
            mount("./boot/efi", "/dev/a1", "vfat"),
            mount("./boot/efi/x", "/dev/a1", "vfat"),
            mount("./boot", "b", "ext4"),
        ];
        let found = unexpected(&table, &Scope::sealed_all(), &allowed);
        assert_eq!(found, table[1..]);
    }

    #[test]
    fn the_root_is_no_mount_but_what_covers_it_is() {
        let root = mount(".", "/dev/a2", "ext4");
        let cover = mount(".", "overlay", "overlay");
        assert!(unexpected(std::slice::from_ref(&root), &Scope::sealed_all(), &[]).is_empty());
        assert_eq!(
            unexpected(&[root, cover.clone()], &Scope::sealed_all(), &[]),
            [cover]
        );
    }

    #[test]
    fn the_digest_is_of_the_sorted_canonical_table() {
        let (a, b) = (mount("./a", "x", "tmpfs"), mount("./a/b", "y", "tmpfs"));
        let c = mount("./a-b", "\u{e9}\"", "ext4");
        let text = "[{\"path\":\"./a\",\"source\":\"x\",\"type\":\"tmpfs\"},{\"path\":\"./a/b\",\"source\":\"y\",\"type\":\"tmpfs\"},\
                    {\"path\":\"./a-b\",\"source\":\"\u{e9}\\\"\",\"type\":\"ext4\"}]";
        assert_eq!(
            table_digest(&[c.clone(), b.clone(), a.clone()]),
            Digest::of(text.as_bytes())
        );
        assert_eq!(table_digest(&[]), Digest::of(b"[]"));
        assert_ne!(
            table_digest(&[a.clone(), a.clone()]),
            table_digest(&[a]),
            "a stacked mount counts"
        );
    }
}
