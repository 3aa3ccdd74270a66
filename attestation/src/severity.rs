//! How grave a violation is: a pure decision over what was expected, what was found, and where.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, InodeFlags, Kind, Line, Xattr, fields};
use crate::path::ImagePath;
use crate::statement::Difference;
use crate::violation::ViolationKind;

/// How grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing that runs or is obeyed.
    Low,
    /// Content or attributes that something may obey.
    Medium,
    /// Something that runs, or starts what runs.
    High,
    /// A way to privilege.
    Critical,
}

impl Severity {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a difference is about; the gravest last. While not all differences fit, the gravest are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gravity {
    /// Nothing but flags, `user.` attributes or time; or documentation.
    Slight,
    /// Any other content, type, owner or mode.
    Content,
    /// Keys, certificates and whose signatures are trusted.
    Key,
    /// Executables, libraries, the boot, shell start-up.
    Executable,
    /// Units and timed jobs.
    Unit,
    /// Who may log in, and as whom.
    Authentication,
    /// What tells of all this: the agent, its configuration, key and unit.
    Agent,
    /// What every program loads.
    Loader,
    /// Setuid, setgid or a capability gained.
    Privilege,
}

impl Gravity {
    /// The severity that people see.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Slight => Severity::Low,
            Self::Content => Severity::Medium,
            Self::Key | Self::Executable | Self::Unit => Severity::High,
            Self::Authentication | Self::Agent | Self::Loader | Self::Privilege => {
                Severity::Critical
            }
        }
    }
}

/// The severity of a difference.
pub fn of_difference(
    expected: Option<&Entry>,
    found: Option<&Entry>,
    path: &ImagePath,
) -> Severity {
    gravity(expected, found, path).severity()
}

/// The severity of a violation by its kind alone; of a difference that is known only as such.
pub const fn of_kind(kind: ViolationKind) -> Severity {
    match kind {
        ViolationKind::Many
        | ViolationKind::Fork
        | ViolationKind::Replay
        | ViolationKind::Unexplained => Severity::Critical,
        ViolationKind::Mount
        | ViolationKind::Silence
        | ViolationKind::Rewind
        | ViolationKind::Rollback
        | ViolationKind::UnknownImage
        | ViolationKind::Downgrade => Severity::High,
        ViolationKind::Difference
        | ViolationKind::Touched
        | ViolationKind::Gap
        | ViolationKind::Flood => Severity::Medium,
    }
}

/// What a difference is about.
pub fn gravity(expected: Option<&Entry>, found: Option<&Entry>, path: &ImagePath) -> Gravity {
    if gains_privilege(expected, found) {
        return Gravity::Privilege;
    }
    if is_slight(expected, found) {
        return Gravity::Slight;
    }
    let place = Place {
        raw: path.as_bytes(),
        name: path.name(),
    };
    if place.is_loader() {
        Gravity::Loader
    } else if place.is_agent() {
        Gravity::Agent
    } else if place.is_authentication() {
        Gravity::Authentication
    } else if place.is_unit() {
        Gravity::Unit
    } else if is_executable(expected) || is_executable(found) || place.is_executable() {
        Gravity::Executable
    } else if place.is_key() {
        Gravity::Key
    } else if place.is_documentation() {
        Gravity::Slight
    } else {
        Gravity::Content
    }
}

/// Sorts the gravest first, by path within one gravity: what is cut off at the end matters least.
pub fn sort_gravest_first(differences: &mut [Difference]) {
    differences.sort_by_cached_key(|difference| {
        let (expected, found) = (
            difference.expected.as_ref().map(Line::entry),
            difference.found.as_ref().map(Line::entry),
        );
        (
            Reverse(gravity(expected.as_ref(), found.as_ref(), &difference.path)),
            difference.path.clone(),
        )
    });
}

fn gains_privilege(expected: Option<&Entry>, found: Option<&Entry>) -> bool {
    let Some(found) = found.filter(|found| matches!(found.kind, Kind::File { .. })) else {
        return false;
    };
    let before = expected.filter(|expected| matches!(expected.kind, Kind::File { .. }));
    let gained_bits = found.mode & 0o6000 & !before.map_or(0, |before| before.mode);
    let gained_capability =
        capability(found).is_some() && before.and_then(capability) != capability(found);
    // What already was setuid and now belongs to somebody else, or has other content, is privilege in other hands.
    let changed_hands = found.mode & 0o6000 != 0
        && before.is_some_and(|before| !is_slight(Some(before), Some(found)));
    gained_bits != 0 || gained_capability || changed_hands
}

fn capability(entry: &Entry) -> Option<&Xattr> {
    entry
        .xattrs
        .iter()
        .find(|xattr| xattr.name == b"security.capability")
}

/// Whether nothing but flags, `user.` attributes and time differs.
fn is_slight(expected: Option<&Entry>, found: Option<&Entry>) -> bool {
    let (Some(expected), Some(found)) = (expected, found) else {
        return false;
    };
    if expected.kind != found.kind {
        return false;
    }
    let plain = |entry: &Entry| {
        let mut plain = entry.clone();
        plain.time = None;
        plain.flags = InodeFlags::default();
        plain
            .xattrs
            .retain(|xattr| !xattr.name.starts_with(b"user."));
        plain
    };
    fields(Some(&plain(expected)), Some(&plain(found))).is_empty()
}

fn is_executable(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| matches!(entry.kind, Kind::File { .. }) && entry.mode & 0o111 != 0)
}

/// A place in the root, judged by its name.
struct Place<'a> {
    raw: &'a [u8],
    name: &'a [u8],
}

impl Place<'_> {
    /// At one of these paths, or below it.
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.raw
                .strip_prefix(place.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }

    fn has_component(&self, name: &[u8]) -> bool {
        self.raw
            .split(|byte| *byte == b'/')
            .any(|component| component == name)
    }

    fn is_loader(&self) -> bool {
        self.is_in(&[
            "etc/ld.so.preload",
            "etc/ld.so.conf",
            "etc/ld.so.conf.d",
            "etc/ld.so.cache",
        ]) || (self.name.starts_with(b"ld-") && self.is_library())
    }

    /// The agent itself. Only root changes it, and mostly so that it says nothing of what comes next.
    fn is_agent(&self) -> bool {
        self.is_in(&["etc/pristine", "var/lib/pristine"])
            || self.name == b"pristine-agent"
            || self.name == b"pristine-agent.service"
            || self.has_component(b"pristine-agent.service.d")
    }

    /// Private keys, certificates that are trusted, and whose packages are installed.
    fn is_key(&self) -> bool {
        const PLACES: [&str; 12] = [
            "etc/ssl",
            "etc/pki",
            "etc/ca-certificates",
            "etc/ca-certificates.conf",
            "usr/share/ca-certificates",
            "usr/local/share/ca-certificates",
            "etc/apt/trusted.gpg",
            "etc/apt/trusted.gpg.d",
            "etc/apt/keyrings",
            "etc/apt/sources.list",
            "etc/apt/sources.list.d",
            "usr/share/keyrings",
        ];
        self.is_in(&PLACES)
            || self.has_component(b".gnupg")
            || self.name.ends_with(b".key")
            || self.name.ends_with(b".pem")
    }

    fn is_authentication(&self) -> bool {
        const PLACES: [&str; 17] = [
            "etc/passwd",
            "etc/passwd-",
            "etc/shadow",
            "etc/shadow-",
            "etc/group",
            "etc/group-",
            "etc/gshadow",
            "etc/gshadow-",
            "etc/sudoers",
            "etc/sudoers.d",
            "etc/sudo.conf",
            "etc/pam.d",
            "etc/pam.conf",
            "etc/security",
            "etc/ssh",
            "etc/nsswitch.conf",
            "etc/login.defs",
        ];
        self.is_in(&PLACES)
            || self.has_component(b".ssh")
            || (self.name.starts_with(b"pam_") && self.is_library())
            || (self.name.starts_with(b"libpam") && self.is_library())
    }

    fn is_unit(&self) -> bool {
        const PLACES: [&str; 19] = [
            "etc/systemd",
            "lib/systemd",
            "usr/lib/systemd",
            "usr/local/lib/systemd",
            "root/.config/systemd",
            "etc/init.d",
            "etc/inittab",
            "etc/rc.local",
            "etc/crontab",
            "etc/anacrontab",
            "etc/cron.d",
            "etc/cron.hourly",
            "etc/cron.daily",
            "etc/cron.weekly",
            "etc/cron.monthly",
            "var/spool/cron",
            "etc/udev",
            "usr/lib/udev",
            "etc/xdg/autostart",
        ];
        let is_run_level = self.raw.starts_with(b"etc/rc") && self.raw.get(7..9) == Some(b".d");
        self.is_in(&PLACES) || is_run_level
    }

    fn is_executable(&self) -> bool {
        const PLACES: [&str; 17] = [
            "bin",
            "sbin",
            "usr/bin",
            "usr/sbin",
            "usr/local/bin",
            "usr/local/sbin",
            "boot",
            "efi",
            "etc/default/grub",
            "etc/grub.d",
            "etc/modules",
            "etc/modules-load.d",
            "etc/modprobe.d",
            "etc/profile",
            "etc/profile.d",
            "etc/bash.bashrc",
            "etc/environment",
        ];
        const START_UP: [&[u8]; 9] = [
            b".bashrc",
            b".bash_profile",
            b".bash_login",
            b".bash_logout",
            b".profile",
            b".zshrc",
            b".zshenv",
            b".zprofile",
            b".kshrc",
        ];
        self.is_in(&PLACES)
            || self.is_in(&["etc/zsh"])
            || START_UP.contains(&self.name)
            || self.is_library()
    }

    /// `*.so`, `*.so.6`, kernel modules.
    fn is_library(&self) -> bool {
        let is_module = [b".ko".as_slice(), b".ko.xz", b".ko.zst", b".ko.gz"]
            .iter()
            .any(|end| self.name.ends_with(end));
        is_module || self.name.ends_with(b".so") || self.name.windows(4).any(|four| four == b".so.")
    }

    fn is_documentation(&self) -> bool {
        self.is_in(&[
            "usr/share/doc",
            "usr/share/man",
            "usr/share/info",
            "usr/share/locale",
            "usr/share/i18n",
            "usr/lib/locale",
            "usr/share/licenses",
        ])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;
    use crate::scope::Expect;
    use crate::time::Timestamp;

    const DIGEST: &str =
        "sha256digest=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn file(path: &str, mode: &str, rest: &str) -> Line {
        Line::parse(&format!(
            "{path} type=file mode={mode} uid=0 gid=0 {rest}size=0 {DIGEST}"
        ))
        .unwrap()
    }

    fn of(expected: Option<&Line>, found: Option<&Line>) -> Severity {
        let path = expected.or(found).unwrap().path();
        of_difference(
            expected.map(Line::entry).as_ref(),
            found.map(Line::entry).as_ref(),
            &path,
        )
    }

    #[test]
    fn privilege_gained_is_critical_wherever_it_is() {
        let plain = file("./usr/share/doc/x", "0755", "");
        for found in ["4755", "2755", "6755"] {
            assert_eq!(
                of(Some(&plain), Some(&file("./usr/share/doc/x", found, ""))),
                Severity::Critical
            );
            assert_eq!(
                of(None, Some(&file("./usr/share/doc/x", found, ""))),
                Severity::Critical
            );
        }
        let text = plain.as_str();
        let capable = Line::parse(&format!(
            "{text} xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA="
        ))
        .unwrap();
        assert_eq!(of(Some(&plain), Some(&capable)), Severity::Critical);
        assert_ne!(
            of(Some(&capable), Some(&plain)),
            Severity::Critical,
            "lost, not gained"
        );
        let directory = Line::parse("./srv/d type=dir mode=2755 uid=0 gid=0").unwrap();
        assert_eq!(
            of(None, Some(&directory)),
            Severity::Medium,
            "setgid of a directory is no privilege"
        );
        let setuid = file("./bin/su", "4755", "");
        let other = Line::parse(&setuid.as_str().replace("size=0", "size=1")).unwrap();
        assert_eq!(
            of(Some(&setuid), Some(&other)),
            Severity::Critical,
            "other content under setuid"
        );
    }

    #[test]
    fn places_have_their_severity() {
        let places = [
            ("./etc/ld.so.preload", Severity::Critical),
            ("./etc/ld.so.conf.d/x.conf", Severity::Critical),
            (
                "./usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                Severity::Critical,
            ),
            ("./etc/passwd", Severity::Critical),
            ("./etc/shadow", Severity::Critical),
            ("./etc/group", Severity::Critical),
            ("./etc/sudoers.d/x", Severity::Critical),
            ("./etc/pam.d/sshd", Severity::Critical),
            ("./etc/ssh/sshd_config", Severity::Critical),
            ("./root/.ssh/authorized_keys", Severity::Critical),
            ("./home/a/.ssh/authorized_keys", Severity::Critical),
            (
                "./usr/lib/x86_64-linux-gnu/security/pam_unix.so",
                Severity::Critical,
            ),
            ("./etc/systemd/system/x.service", Severity::High),
            ("./usr/lib/systemd/system/x.service", Severity::High),
            ("./etc/cron.d/x", Severity::High),
            ("./etc/crontab", Severity::High),
            ("./var/spool/cron/crontabs/root", Severity::High),
            ("./etc/rc3.d/S01x", Severity::High),
            ("./usr/lib/libx.so", Severity::High),
            ("./usr/lib/libx.so.6", Severity::High),
            ("./usr/lib/modules/6/kernel/x.ko.xz", Severity::High),
            ("./boot/vmlinuz", Severity::High),
            ("./etc/profile.d/x.sh", Severity::High),
            ("./root/.bashrc", Severity::High),
            ("./usr/bin/notes", Severity::High),
            ("./usr/bin/pristine-agent", Severity::Critical),
            ("./etc/pristine/agent.toml", Severity::Critical),
            ("./var/lib/pristine/agent/key.pem", Severity::Critical),
            (
                "./usr/lib/systemd/system/pristine-agent.service",
                Severity::Critical,
            ),
            (
                "./etc/systemd/system/pristine-agent.service.d/x.conf",
                Severity::Critical,
            ),
            ("./etc/ssl/private/web.key", Severity::High),
            ("./usr/local/share/ca-certificates/x.crt", Severity::High),
            ("./etc/apt/trusted.gpg.d/x.asc", Severity::High),
            ("./srv/web/tls.pem", Severity::High),
            ("./etc/motd", Severity::Medium),
            ("./etc/passwd.d", Severity::Medium),
            ("./srv/etc/shadow", Severity::Medium),
            ("./etc/rcs", Severity::Medium),
            ("./usr/lib/x.sort", Severity::Medium),
            ("./usr/share/doc/bash/README", Severity::Low),
            ("./usr/share/man/man1/ls.1.gz", Severity::Low),
            ("./usr/lib/locale/C.utf8/LC_CTYPE", Severity::Low),
        ];
        for (path, severity) in places {
            let line = file(path, "0644", "");
            assert_eq!(of(None, Some(&line)), severity, "{path} added");
            assert_eq!(of(Some(&line), None), severity, "{path} removed");
        }
    }

    #[test]
    fn what_runs_is_high_and_what_became_a_program_too() {
        let data = file("./srv/data", "0644", "");
        assert_eq!(
            of(Some(&data), Some(&file("./srv/data", "0755", ""))),
            Severity::High
        );
        assert_eq!(
            of(Some(&data), Some(&file("./srv/data", "0600", ""))),
            Severity::Medium
        );
    }

    #[test]
    fn flags_user_attributes_and_time_alone_are_low() {
        let plain = file("./etc/shadow", "0640", "");
        let flagged = file("./etc/shadow", "0640", "flags=schg ");
        let timed = file("./etc/shadow", "0640", "time=1.000000000 ");
        let labelled = Line::parse(&format!("{} xattr.user.x=AA==", plain.as_str())).unwrap();
        for slight in [&flagged, &timed, &labelled] {
            assert_eq!(of(Some(&plain), Some(slight)), Severity::Low);
            assert_eq!(of(Some(slight), Some(&plain)), Severity::Low);
        }
        let acl = Line::parse(&format!(
            "{} xattr.system.posix_acl_access=AA==",
            plain.as_str()
        ))
        .unwrap();
        assert_eq!(of(Some(&plain), Some(&acl)), Severity::Critical);
    }

    #[test]
    fn the_gravest_come_first() {
        let difference = |line: Line| Difference {
            path: line.path(),
            expect: Expect::Sealed,
            expected: None,
            found: Some(line),
            actor: None,
            at: Timestamp::from_micros(0),
        };
        let order = [
            file("./z", "4755", ""),
            file("./etc/ld.so.preload", "0644", ""),
            file("./etc/passwd", "0644", ""),
            file("./etc/cron.d/x", "0644", ""),
            file("./usr/bin/a", "0755", ""),
            file("./usr/bin/b", "0755", ""),
            file("./etc/motd", "0644", ""),
            file("./usr/share/doc/x", "0644", ""),
        ];
        let wanted: Vec<Difference> = order.into_iter().map(difference).collect();
        let mut sorted = wanted.clone();
        sorted.reverse();
        sort_gravest_first(&mut sorted);
        assert_eq!(sorted, wanted);
    }

    #[test]
    fn every_kind_has_a_severity() {
        assert_eq!(of_kind(ViolationKind::Fork), Severity::Critical);
        assert_eq!(of_kind(ViolationKind::Mount), Severity::High);
        assert_eq!(of_kind(ViolationKind::Gap), Severity::Medium);
        assert_eq!(
            serde_json::to_string(&Severity::Critical).unwrap(),
            "\"critical\""
        );
    }
}
