//! Digests of executables, read when an actor is told: never by the thread that reads events.
//!
//! A file is opened by its handle, or through the process that runs it: a path may lead elsewhere by then, and to a file
//! system whose server never answers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};

use attestation::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::doer::Doer;
use super::program::{FileKey, Identity};
use crate::scan::Root;
use crate::sys;

/// Digests kept: more than a large system runs. When full they are computed anew.
const LIMIT: usize = 4_096;
/// A larger executable is told without its digest: reading it would hold up whoever is told of the change.
const SIZE_LIMIT: i64 = 64 * 1024 * 1024;
/// File systems whose every answer comes from this kernel.
const LOCAL: &[&str] = &[
    "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "ramfs", "squashfs", "tmpfs", "xfs",
];

/// Digests by device, inode, size and time of change: another state of a file is another file.
#[derive(Debug, Default)]
pub(crate) struct ExeDigests {
    known: HashMap<Identity, Option<Digest>>,
    local: HashSet<u64>,
}

impl ExeDigests {
    /// The digest of what somebody ran, while a file of that state can still be read.
    pub(crate) fn of(&mut self, root: &Root, doer: &Doer) -> Option<Digest> {
        let exe = doer.exe.as_ref()?;
        let identity = exe.identity?;
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        if identity.size > SIZE_LIMIT {
            return None;
        }
        let by_handle = exe.handle.as_ref().and_then(|key| open(root, key));
        let file = match by_handle {
            Some(file) => Some(file),
            None => self.running(doer.actor.pid, identity),
        };
        let digest = file.and_then(|file| digest(file, identity));
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        self.known.insert(identity, digest);
        digest
    }

    /// The file through a process that runs it, where reading it cannot take for ever.
    fn running(&mut self, pid: u32, identity: Identity) -> Option<File> {
        if !self.local.contains(&identity.device) {
            self.local = local_devices(&std::fs::read_to_string("/proc/self/mountinfo").ok()?);
        }
        self.local
            .contains(&identity.device)
            .then(|| File::open(format!("/proc/{pid}/exe")).ok())
            .flatten()
    }
}

fn open(root: &Root, key: &FileKey) -> Option<File> {
    root.watched()
        .filter(|filesystem| filesystem.fsid == key.fsid)
        .find_map(|filesystem| {
            let object = sys::open_by_handle(filesystem.dir.as_fd(), key.kind, &key.bytes).ok()?;
            File::open(format!("/proc/self/fd/{}", object.as_raw_fd())).ok()
        })
}

/// The digest of a file that is in this state, and still is when it was read.
fn digest(mut file: File, identity: Identity) -> Option<Digest> {
    if Identity::of_file(&file) != Some(identity) {
        return None;
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 128 * 1024];
    loop {
        let read = file.read(&mut buffer).ok()?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read)?);
    }
    (Identity::of_file(&file) == Some(identity))
        .then(|| Digest::from_bytes(hasher.finalize().into()))
}

/// Devices of mounted file systems that need nobody's answer.
fn local_devices(table: &str) -> HashSet<u64> {
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
            let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            LOCAL.binary_search(&kind).is_ok().then_some(device)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::sync::Arc;

    use attestation::scope::Scope;
    use attestation::statement::Actor;

    use super::super::clock::asleep;
    use super::super::process::Process;
    use super::*;

    #[test]
    fn the_own_executable_has_its_digest_and_another_state_of_it_has_none() {
        let dir = tempfile::TempDir::new().unwrap();
        let root = Root::open(dir.path(), &Scope::sealed_all()).unwrap();
        let pid = std::process::id();
        let exe = Process::open(pid, asleep()).unwrap().exe().unwrap();
        let mut doer = Doer::from(Actor {
            pid,
            ..Actor::default()
        });
        doer.exe = Some(Arc::clone(&exe));
        let mut digests = ExeDigests::default();
        // A test of a debug build may be larger than what is read.
        if exe
            .identity
            .is_some_and(|identity| identity.size <= SIZE_LIMIT)
        {
            let content = std::fs::read("/proc/self/exe").unwrap();
            assert_eq!(digests.of(&root, &doer), Some(Digest::of(&content)));
        }
        let mut other = (*exe).clone();
        if let Some(identity) = &mut other.identity {
            identity.changed.0 -= 1;
        }
        doer.exe = Some(Arc::new(other));
        assert_eq!(digests.of(&root, &doer), None);
    }

    #[test]
    fn file_systems_that_somebody_serves_are_not_local() {
        assert!(LOCAL.is_sorted());
        let table = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                     30 22 0:44 / /mnt rw - fuse.sshfs host rw\n\
                     31 22 0:45 / /dev/shm rw shared:1 - tmpfs tmpfs rw\nodd line\n";
        let local = local_devices(table);
        assert_eq!(local.len(), 2);
        assert!(local.contains(&rustix::fs::makedev(254, 0)));
        assert!(!local.contains(&rustix::fs::makedev(0, 44)));
    }
}
