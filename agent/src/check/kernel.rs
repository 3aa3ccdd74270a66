//! What the kernel lets the agent do, each tried once and undone.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::Finding;

/// `FAN_REPORT_MNT`: newer than the headers that libc knows.
const REPORT_MNT: u32 = 0x4000;
/// The connector's group of process events (`CN_IDX_PROC`).
const PROCESS_GROUP: u32 = 1;
/// A process event comes within this, or never.
const SOON: Duration = Duration::from_secs(1);

/// The rung of the watch on the root's file system, and what it costs to be on a lower one.
pub(super) fn watch(root: &Path) -> Vec<Finding> {
    const NAME: &str = "watch";
    let handles = libc::FAN_CLASS_NOTIF
        | libc::FAN_REPORT_FID
        | libc::FAN_REPORT_DFID_NAME
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK;
    let changes = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE;
    let names = changes | libc::FAN_ATTRIB | libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_ONDIR;
    let rungs = [
        (
            "A",
            handles | libc::FAN_REPORT_TARGET_FID,
            names | libc::FAN_RENAME,
        ),
        (
            "B",
            handles,
            names | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO,
        ),
        (
            "C",
            libc::FAN_CLASS_NOTIF | libc::FAN_UNLIMITED_QUEUE | libc::FAN_CLOEXEC,
            changes,
        ),
    ];
    let mut refused = String::new();
    for (rung, group, mask) in rungs {
        let remedy = "changes between two rescans may be told late; a newer kernel, or a file system \
                      with file handles, gives rung A";
        match mark(root, group, mask) {
            Ok(()) if rung == "A" => {
                let found = format!("rung A on {}", root.display());
                return vec![Finding::ok(NAME, found)];
            }
            Ok(()) => {
                let found = format!("rung {rung} on {} (A: {refused})", root.display());
                return vec![Finding::limit(NAME, found, remedy)];
            }
            Err(error) if refused.is_empty() => refused = error.to_string(),
            Err(_) => {}
        }
    }
    let found = format!(
        "rung D, inotify, on {} (fanotify: {refused})",
        root.display()
    );
    let remedy =
        "run the agent as root: without fanotify no process is named, and renames are lost";
    vec![Finding::limit(NAME, found, remedy)]
}

fn mark(root: &Path, group: u32, mask: u64) -> io::Result<()> {
    let group = Fanotify::init(InitFlags::from_bits_retain(group), EventFFlags::O_RDONLY)?;
    let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    let directory = File::open(root)?;
    let mask = MaskFlags::from_bits_retain(mask);
    group.mark(flags, mask, directory.as_fd(), None::<&Path>)?;
    Ok(())
}

/// Everything else that the agent uses where it is there.
pub(super) fn features(root: &Path) -> Vec<Finding> {
    let mut findings = vec![confined_opening(root)];
    let mut tried = |name: &str, outcome: io::Result<()>, good: &str, remedy: &str| {
        findings.push(match outcome {
            Ok(()) => Finding::ok(name, good),
            Err(error) => Finding::limit(name, error.to_string(), remedy),
        });
    };
    tried(
        "process events",
        process_events(),
        "the kernel names processes that live a millisecond (cn_proc)",
        "give the agent CAP_NET_ADMIN in the initial namespaces: short-lived writers stay unnamed without",
    );
    tried(
        "mount events",
        mount_events(),
        "mounts are told as they happen (FAN_REPORT_MNT)",
        "the mount table is polled instead, which names nobody; Linux 6.14 has the events",
    );
    tried(
        "below mounts",
        below_mounts(root),
        "files are read below whatever is mounted over them (open_tree)",
        "give the agent CAP_SYS_ADMIN: what lies under a mount is not seen without",
    );
    tried(
        "statx",
        statx(root),
        "mounts and attributes of inodes are told (statx)",
        "a kernel from 5.10 on has it",
    );
    tried(
        "leases",
        lease(),
        "files with a live writer are told from settled ones (F_SETLEASE)",
        "give the agent CAP_LEASE: such files may be called clean without",
    );
    tried(
        "landlock",
        landlock(),
        "the network process is kept from files",
        "turn it on (lsm=landlock,… on the kernel's command line); the other walls stand without",
    );
    tried(
        "seccomp",
        seccomp(),
        "the network process is kept from system calls",
        "a kernel with CONFIG_SECCOMP_FILTER has it; the other walls stand without",
    );
    findings
}

/// Subscribes, makes something happen, and waits for it: other namespaces may subscribe, and never hear.
fn process_events() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::CONNECTOR),
    )?;
    let group = netlink::SocketAddrNetlink::new(0, PROCESS_GROUP);
    rustix::net::bind(&socket, &group)?;
    subscribe(&socket, 1)?;
    let heard = std::thread::Builder::new()
        .spawn(|| ())
        .and_then(|_| wait(&socket));
    // The kernel counts listeners.
    subscribe(&socket, 2)?;
    heard
}

/// `PROC_CN_MCAST_LISTEN` (1) or `PROC_CN_MCAST_IGNORE` (2), in the layout of KERNEL.md section 4.
fn subscribe(socket: &OwnedFd, operation: u32) -> io::Result<()> {
    let mut message = Vec::with_capacity(40);
    for number in [40_u32, 3, 0, 0, PROCESS_GROUP, 1, 0, 0, 4, operation] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    rustix::net::send(socket, &message, SendFlags::empty())?;
    Ok(())
}

fn wait(socket: &OwnedFd) -> io::Result<()> {
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    let soon = Timespec {
        tv_sec: i64::try_from(SOON.as_secs()).unwrap_or(1),
        tv_nsec: 0,
    };
    rustix::event::poll(&mut ready, Some(&soon))?;
    let mut buffer = [0; 4096];
    match rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::AGAIN) => Err(io::Error::other("no event comes in this namespace")),
        Err(error) => Err(error.into()),
    }
}

fn mount_events() -> io::Result<()> {
    let flags = libc::FAN_CLASS_NOTIF | REPORT_MNT | libc::FAN_CLOEXEC;
    Fanotify::init(InitFlags::from_bits_retain(flags), EventFFlags::empty())?;
    Ok(())
}

fn below_mounts(root: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, root, flags)?;
    Ok(())
}

/// Without it nothing at all can be read. A filter that looks at the flags of `open` cannot see those of `openat2`, which lie in
/// memory, and may answer that there is no such call: systemd's `RestrictSUIDSGID=` does.
fn confined_opening(root: &Path) -> Finding {
    const NAME: &str = "openat2";
    let open = || {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        rustix::fs::openat2(directory, c".", flags, Mode::empty(), ResolveFlags::BENEATH)
    };
    match open() {
        Ok(_) => Finding::ok(NAME, "nothing leads out of the root while it is read"),
        Err(errno) => Finding::fail(
            NAME,
            errno.to_string(),
            "a kernel from 5.6 on has it; take RestrictSUIDSGID= out of the unit, or let the container's filter allow it",
        ),
    }
}

fn statx(root: &Path) -> io::Result<()> {
    let wanted = rustix::fs::StatxFlags::BASIC_STATS | rustix::fs::StatxFlags::MNT_ID;
    let found = rustix::fs::statx(rustix::fs::CWD, root, rustix::fs::AtFlags::empty(), wanted)?;
    let mask = rustix::fs::StatxFlags::from_bits_retain(found.stx_mask);
    if mask.contains(rustix::fs::StatxFlags::MNT_ID) {
        return Ok(());
    }
    Err(io::Error::other("it does not tell the mount"))
}

/// On this program's own file: it has no writer while it runs, and belongs to somebody.
fn lease() -> io::Result<()> {
    let file = File::open("/proc/self/exe")?;
    match crate::sys::has_writer(file.as_fd()) {
        Some(_) => Ok(()),
        None => Err(io::Error::other(
            "the kernel does not tell whether a file has a writer",
        )),
    }
}

fn landlock() -> io::Result<()> {
    use landlock::{
        ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    };
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .map(drop)
        .map_err(io::Error::other)
}

fn seccomp() -> io::Result<()> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")?;
    if actions.contains("kill_process") && actions.contains("errno") {
        return Ok(());
    }
    Err(io::Error::other("it cannot end a process"))
}

/// Whether a login's user id stays what it was: root may change its own otherwise, and be somebody else.
pub(super) fn login_uids() -> Finding {
    const NAME: &str = "login uids";
    let remedy = "`auditctl --loginuid-immutable` at boot: whoever is root may name another user as the one who logged in";
    let tried = std::thread::Builder::new()
        .spawn(|| {
            // Of this thread alone, which ends with it.
            let mut file = File::options()
                .write(true)
                .open("/proc/thread-self/loginuid")?;
            drop(file.write_all(b"0"));
            let mut file = File::options()
                .write(true)
                .open("/proc/thread-self/loginuid")?;
            file.write_all(b"0")
        })
        .map(std::thread::JoinHandle::join);
    match tried {
        Ok(Ok(Ok(()))) => Finding::limit(NAME, "can be changed by root", remedy),
        Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::PermissionDenied => {
            if rustix::process::geteuid().is_root() {
                Finding::ok(NAME, "immutable")
            } else {
                Finding::unknown(NAME, "only root can find out")
            }
        }
        Ok(Ok(Err(error))) => {
            Finding::limit(NAME, format!("not kept by this kernel: {error}"), remedy)
        }
        Ok(Err(_)) | Err(_) => Finding::unknown(NAME, "no thread could be started"),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn a_kernel_is_tried_and_left_as_it_was() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out, needs root: probes of the kernel");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let all: Vec<Finding> = watch(scratch.path())
            .into_iter()
            .chain(features(scratch.path()))
            .chain([login_uids()])
            .collect();
        assert!(
            all.iter().all(|finding| finding.grade != Grade::Fail),
            "{all:#?}"
        );
        assert!(
            all.iter()
                .all(|finding| finding.grade != Grade::Limit || finding.remedy.is_some())
        );
        let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(after <= before + 2, "{before} descriptors became {after}");
    }

    #[test]
    fn a_root_that_is_not_there_has_no_watch() {
        let found = watch(Path::new("/nowhere/at/all"));
        assert_eq!(found[0].grade, Grade::Limit);
    }
}
