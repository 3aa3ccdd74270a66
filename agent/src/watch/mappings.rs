//! Writable shared mappings: a store through one tells nobody until the last of them goes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use rustix::fs::makedev;

use super::processes::processes;
use super::report::Inode;

/// Files told at a time. Beyond, a rescan and the lease at its reading must do.
const FILES: usize = 4_096;
/// Mappings of one process that are looked at: the kernel's own limit, unless somebody raised it.
const MAPPINGS: usize = 65_536;

/// The files on these devices that any process has mapped shared and writable now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) files: BTreeSet<Inode>,
    /// There are more than are told.
    pub(super) more: bool,
}

/// Looks at all processes. One that may not be looked at, or is gone, is passed by.
pub(super) fn mapped(devices: &BTreeSet<u64>) -> Mapped {
    let mut mapped = Mapped::default();
    for pid in processes() {
        let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else {
            continue;
        };
        let mut maps = BufReader::new(maps);
        let mut line = Vec::new();
        for _ in 0..MAPPINGS {
            line.clear();
            match maps.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            if let Some(inode) = writable_shared(&line).filter(|inode| devices.contains(&inode.dev))
            {
                if mapped.files.len() >= FILES {
                    mapped.more = true;
                    return mapped;
                }
                mapped.files.insert(inode);
            }
        }
    }
    mapped
}

/// The file of a line of `maps`, where it can be written through the mapping.
fn writable_shared(line: &[u8]) -> Option<Inode> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let rights = words.nth(1)?;
    if rights.get(1) != Some(&b'w') || rights.get(3) != Some(&b's') {
        return None;
    }
    let text = |word| std::str::from_utf8(word).ok();
    let (major, minor) = text(words.nth(1)?)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let dev = makedev(number(major)?, number(minor)?);
    let ino = text(words.next()?)?.parse().ok()?;
    (ino != 0).then_some(Inode { dev, ino })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn only_writable_shared_mappings_of_files_count() {
        let line = |rights: &str, ino: &str| {
            format!("7f00-7f10 {rights} 00001000 fe:01 {ino}                 /usr/lib/a b\n")
        };
        let of = |rights: &str, ino: &str| writable_shared(line(rights, ino).as_bytes());
        let dev = makedev(0xfe, 1);
        assert_eq!(of("rw-s", "77"), Some(Inode { dev, ino: 77 }));
        assert_eq!(of("-w-s", "77"), Some(Inode { dev, ino: 77 }));
        for rights in ["r--s", "rw-p", "r-xp"] {
            assert_eq!(of(rights, "77"), None);
        }
        assert_eq!(of("rw-s", "0"), None);
        for odd in ["", "x", "a rw-s", "a rw-s 0 zz:01 5", "a rw-s 0 fe01 5"] {
            assert_eq!(writable_shared(odd.as_bytes()), None, "{odd}");
        }
    }
}
