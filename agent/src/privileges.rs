//! What the daemon may do once it runs: what watching, reading and attributing need, and nothing else. It is given up
//! before the first thread exists, so that no thread has more.

use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// The capabilities that stay, and what for.
pub const NEEDED: [(Capability, &str); 9] = [
    (
        Capability::CAP_SYS_ADMIN,
        "the watch (fanotify) and a private view of the root's mount",
    ),
    (
        Capability::CAP_DAC_READ_SEARCH,
        "reading every file, and finding one by its handle",
    ),
    (
        Capability::CAP_SYS_PTRACE,
        "the executable behind a change, and mounts of other namespaces",
    ),
    (
        Capability::CAP_NET_ADMIN,
        "the kernel's process events, which name short-lived writers",
    ),
    (
        Capability::CAP_FOWNER,
        "reading without changing access times, also of other users' files",
    ),
    (
        Capability::CAP_LEASE,
        "seeing that a file has a writer or a writable mapping",
    ),
    (
        Capability::CAP_SETUID,
        "giving the network process a user of its own",
    ),
    (
        Capability::CAP_SETGID,
        "giving the network process a group of its own",
    ),
    (
        Capability::CAP_KILL,
        "ending the network process, which has another user",
    ),
];

/// Those without which the agent sees less, of a set; by name.
#[must_use]
pub fn lacking(held: &CapsHashSet) -> Vec<(Capability, &'static str)> {
    NEEDED
        .into_iter()
        .filter(|(capability, _)| !held.contains(capability))
        .collect()
}

/// Keeps what is needed. What cannot be given up is told in the journal; the agent runs on.
pub fn give_up_the_rest() {
    let missing = [
        ("capabilities", capabilities()),
        ("new privileges", no_new_privileges()),
        ("core files", no_core()),
        ("tracing by others", not_dumpable()),
    ];
    for (what, outcome) in missing {
        if let Err(error) = outcome {
            tracing::warn!(%error, what, "the agent holds more than it needs");
        }
    }
}

fn capabilities() -> Result<(), caps::errors::CapsError> {
    let needed: CapsHashSet = NEEDED.iter().map(|(capability, _)| *capability).collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&needed).copied().collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !needed.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn no_new_privileges() -> Result<(), caps::errors::CapsError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string().into())
}

fn no_core() -> Result<(), caps::errors::CapsError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(|error| error.to_string().into())
}

/// Only root's agent: another user's own processes may do what they like with that user's files, the key among them,
/// and an agent that is not dumpable cannot read what it costs itself.
fn not_dumpable() -> Result<(), caps::errors::CapsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| error.to_string().into())
}

/// Whether this process holds no more than is needed, of its `status` file: what `agent check` and tests look at.
#[must_use]
pub fn is_reduced(status: &Path) -> Option<bool> {
    let text = std::fs::read_to_string(status).ok()?;
    let set = text.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
    let held = u64::from_str_radix(set.trim(), 16).ok()?;
    let needed = NEEDED
        .iter()
        .fold(0, |set, (capability, _)| set | capability.bitmask());
    Some(held & !needed == 0)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        let all: CapsHashSet = NEEDED.iter().map(|(capability, _)| *capability).collect();
        assert!(lacking(&all).is_empty());
        assert_eq!(lacking(&CapsHashSet::new()).len(), NEEDED.len());
    }

    #[test]
    fn more_than_is_needed_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let status = scratch.path().join("status");
        for (set, reduced) in [
            ("0000000000000000", true),
            ("0000000000200004", true),
            ("000001ffffffffff", false),
        ] {
            std::fs::write(&status, format!("Name:\tx\nCapPrm:\t{set}\n")).unwrap();
            assert_eq!(is_reduced(&status), Some(reduced), "{set}");
        }
    }
}
