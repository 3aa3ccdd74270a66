//! One process in `/proc`.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use attestation::path::encode_component_bytes;
use attestation::statement::Actor;

use super::control_group;

/// Bytes of a command line that are told.
const CMDLINE_LIMIT: u64 = 1_024;
/// Room for what most files of a process hold: one read, and one that finds the end, instead of six that feel their way.
const FILE_USUAL: usize = 4_096;
/// Bytes read of any other file of a process.
const FILE_LIMIT: u64 = 16_384;

/// What tells one process from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) parent: u32,
    /// Clock ticks after boot.
    pub(super) start: u64,
}

pub(super) fn birth(pid: u32) -> Option<Birth> {
    parse_stat(&read_file(pid, "stat", FILE_LIMIT)?)
}

/// Parent and start time; the name in parentheses may itself hold parentheses and spaces.
fn parse_stat(stat: &[u8]) -> Option<Birth> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Birth { parent, start })
}

pub(super) fn exe(pid: u32) -> Option<String> {
    let target = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(encode_component_bytes(target.as_os_str().as_bytes()))
}

pub(super) fn read(pid: u32) -> Actor {
    let (uid, euid) = read_file(pid, "status", FILE_LIMIT)
        .and_then(|status| parse_uids(&status))
        .unzip();
    let cgroup = read_file(pid, "cgroup", FILE_LIMIT).and_then(|file| control_group::path(&file));
    Actor {
        pid,
        exe: exe(pid),
        cmdline: read_file(pid, "cmdline", CMDLINE_LIMIT).and_then(|raw| command_line(&raw)),
        uid,
        euid,
        auid: number(pid, "loginuid"),
        session: number(pid, "sessionid"),
        unit: cgroup.as_deref().and_then(control_group::unit),
        container: cgroup.as_deref().and_then(control_group::container),
        cgroup,
        ..Actor::default()
    }
}

fn read_file(pid: u32, name: &str, limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(FILE_USUAL);
    File::open(format!("/proc/{pid}/{name}"))
        .ok()?
        .take(limit)
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

fn parse_uids(status: &[u8]) -> Option<(u32, u32)> {
    let line = status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// A number in a file of its own, where all ones mean that it was never set.
fn number(pid: u32, name: &str) -> Option<u32> {
    let content = read_file(pid, name, 32)?;
    let value = std::str::from_utf8(&content).ok()?.trim().parse().ok()?;
    (value != u32::MAX).then_some(value)
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
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = b"42 (a) S 9 (b) R 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        assert_eq!(
            parse_stat(stat),
            Some(Birth {
                parent: 7,
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
            parse_uids(b"Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\t1\t1\t1\n"),
            Some((1000, 0))
        );
    }
}
