//! One process in `/proc`, as it is now.
//!
//! Its directory is opened once: what is read through that is of this process, even if the number was given anew meanwhile.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use attestation::path::encode_component_bytes;
use attestation::statement::Actor;
use rustix::fs::{CWD, Mode, OFlags};

use super::control_group;
use super::program::{Executable, Form, Identity};

/// Bytes of a command line that are told.
const CMDLINE_LIMIT: u64 = 1_024;
/// Room for what most files of a process hold: one read, and one that finds the end, instead of six that feel their way.
const FILE_USUAL: usize = 4_096;
/// Bytes read of any other file of a process.
const FILE_LIMIT: u64 = 16_384;
/// Clock ticks of `/proc` in a second (`USER_HZ`): 100 on every architecture that we run on.
const TICK: u64 = 1_000_000_000 / 100;

/// What tells one process from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) parent: u32,
    /// Its terminal as the kernel numbers it, 0 without one.
    pub(super) tty: u32,
    /// Clock ticks after boot.
    pub(super) start: u64,
}

/// Login user and kernel session; nothing where they were never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) auid: u32,
    pub(super) session: u32,
}

/// What `/proc` said of a process at one moment; what could not be read is absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Says {
    pub(super) parent: u32,
    pub(super) tty: u32,
    /// When it began, in nanoseconds of the monotonic clock, exact to a tick.
    pub(super) start: u64,
    pub(super) exe: Option<Arc<Executable>>,
    pub(super) cmdline: Option<String>,
    /// The inner value is absent where no login was ever set.
    pub(super) login: Option<Option<Login>>,
    pub(super) cgroup: Option<String>,
    /// Real and effective user.
    pub(super) users: Option<(u32, u32)>,
}

/// The open directory of a process.
#[derive(Debug)]
pub(super) struct Process {
    directory: OwnedFd,
    birth: Birth,
    /// Nanoseconds by which the clock that counts sleep is ahead of the one that does not.
    asleep: u64,
}

impl Process {
    /// Opens a process that is there.
    pub(super) fn open(pid: u32, asleep: u64) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        let birth = parse_stat(&read_at(&directory, "stat", FILE_LIMIT)?)?;
        Some(Self {
            directory,
            birth,
            asleep,
        })
    }

    /// When it began, in nanoseconds of the monotonic clock.
    pub(super) fn start(&self) -> u64 {
        self.birth
            .start
            .saturating_mul(TICK)
            .saturating_sub(self.asleep)
    }

    /// What it runs, who it is and where it belongs; its users only where they are not known by events.
    pub(super) fn says(&self, cmdline: bool, users: bool) -> Says {
        Says {
            cmdline: cmdline.then(|| self.cmdline()).flatten(),
            users: users.then(|| parse_users(&self.read("status")?)).flatten(),
            exe: self.exe(),
            ..self.belongs()
        }
    }

    /// Where it belongs: what may change without an event.
    pub(super) fn belongs(&self) -> Says {
        Says {
            parent: self.birth.parent,
            tty: self.birth.tty,
            start: self.start(),
            login: self.login(),
            cgroup: self
                .read("cgroup")
                .map(|file| control_group::path(&file).unwrap_or_else(|| "/".to_owned())),
            ..Says::default()
        }
    }

    pub(super) fn exe(&self) -> Option<Arc<Executable>> {
        let path = rustix::fs::readlinkat(&self.directory, "exe", Vec::new()).ok()?;
        Some(Arc::new(Executable {
            path: encode_component_bytes(path.as_bytes()),
            identity: Identity::at(&self.directory, "exe"),
            handle: None,
            form: Form::Unknown,
        }))
    }

    pub(super) fn cmdline(&self) -> Option<String> {
        command_line(&read_at(&self.directory, "cmdline", CMDLINE_LIMIT)?)
    }

    /// The environment that it was started with.
    pub(super) fn environment(&self) -> Option<Vec<u8>> {
        self.read("environ")
    }

    fn login(&self) -> Option<Option<Login>> {
        let auid = self.read("loginuid").and_then(|file| parse_number(&file))?;
        let session = self
            .read("sessionid")
            .and_then(|file| parse_number(&file))?;
        let set = auid != u32::MAX && session != u32::MAX;
        Some(set.then_some(Login { auid, session }))
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        read_at(&self.directory, name, FILE_LIMIT)
    }
}

/// The numbers of all processes.
pub(super) fn all() -> Vec<u32> {
    let Ok(listing) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

pub(super) fn birth(pid: u32) -> Option<Birth> {
    parse_stat(&read_file(pid, "stat", FILE_LIMIT)?)
}

/// Parent, terminal and start time; the name in parentheses may itself hold parentheses and spaces.
fn parse_stat(stat: &[u8]) -> Option<Birth> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let tty = fields.nth(2)?.parse::<i64>().ok()?;
    let start = fields.nth(14)?.parse().ok()?;
    Some(Birth {
        parent,
        tty: u32::try_from(tty).unwrap_or(0),
        start,
    })
}

pub(super) fn exe(pid: u32) -> Option<String> {
    let target = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(encode_component_bytes(target.as_os_str().as_bytes()))
}

/// What a statement can say of a process that nobody followed.
pub(super) fn read(pid: u32) -> Actor {
    let (uid, euid) = read_file(pid, "status", FILE_LIMIT)
        .and_then(|status| parse_users(&status))
        .unzip();
    let cgroup = read_file(pid, "cgroup", FILE_LIMIT).and_then(|file| control_group::path(&file));
    let number = |name| {
        read_file(pid, name, 32)
            .and_then(|file| parse_number(&file))
            .filter(|number| *number != u32::MAX)
    };
    Actor {
        pid,
        exe: exe(pid),
        cmdline: read_file(pid, "cmdline", CMDLINE_LIMIT).and_then(|raw| command_line(&raw)),
        uid,
        euid,
        auid: number("loginuid"),
        session: number("sessionid"),
        unit: cgroup.as_deref().and_then(control_group::unit),
        container: cgroup.as_deref().and_then(control_group::container),
        cgroup,
        ..Actor::default()
    }
}

fn read_file(pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    to_end(
        File::open(Path::new("/proc").join(pid.to_string()).join(name)).ok()?,
        limit,
    )
}

fn read_at(directory: &OwnedFd, name: &str, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    to_end(File::from(file), limit)
}

fn to_end(file: File, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(FILE_USUAL);
    file.take(limit).read_to_end(&mut content).ok()?;
    Some(content)
}

fn parse_users(status: &[u8]) -> Option<(u32, u32)> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A number in a file of its own, where all ones mean that it was never set.
fn parse_number(content: &[u8]) -> Option<u32> {
    std::str::from_utf8(content).ok()?.trim().parse().ok()
}

fn command_line(raw: &[u8]) -> Option<String> {
    let trimmed = raw.strip_suffix(b"\0").unwrap_or(raw);
    if trimmed.is_empty() {
        return None;
    }
    let spaced: Vec<u8> = trimmed
        .iter()
        .map(|byte| if *byte == 0 { b' ' } else { *byte })
        .collect();
    let mut text = String::from_utf8_lossy(&spaced).into_owned();
    // A cut character becomes a longer one.
    while text.len() as u64 > CMDLINE_LIMIT {
        text.pop();
    }
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::super::clock::asleep;
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = b"42 (a) S 9 (b) R 7 42 42 34816 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(
            parse_stat(stat),
            Some(Birth {
                parent: 7,
                tty: 34816,
                start: 98765
            })
        );
        assert_eq!(parse_stat(b"42 (a"), None);
    }

    #[test]
    fn a_command_line_is_spaced_and_bounded() {
        assert_eq!(
            command_line(b"rm\0-rf\0a b\0").as_deref(),
            Some("rm -rf a b")
        );
        assert_eq!(command_line(b""), None);
        let long = command_line(&[0xff; 1_024]);
        assert!(long.is_some_and(|text| text.len() <= 1_024));
    }

    #[test]
    fn real_and_effective_users_are_told_apart() {
        assert_eq!(
            parse_users(b"Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\t1\t1\t1\n"),
            Some((1000, 0))
        );
    }

    #[test]
    fn the_own_process_is_read_through_its_directory() {
        let own = Process::open(std::process::id(), asleep()).unwrap();
        let says = own.says(true, true);
        let exe = says.exe.unwrap();
        assert_eq!(
            Some(exe.path.as_str()),
            super::exe(std::process::id()).as_deref()
        );
        assert!(exe.identity.is_some() && says.cmdline.is_some() && says.users.is_some());
        assert!(says.start > 0 && says.cgroup.is_some());
    }
}
