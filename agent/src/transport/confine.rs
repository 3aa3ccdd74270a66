//! What the network process cannot do, once it has begun: it confines itself before it reads the first byte from anybody.
//!
//! Each wall stands by itself: an own user without capabilities (files of others, signals, tracing), `no_new_privs`,
//! Landlock (no file but what resolving a name needs, no TCP server, no signal and no abstract socket outside), seccomp
//! (no program, no process, no thread, no socket but for the internet), limits. A kernel that has no Landlock or no
//! seccomp is told of, and the others stand.

use std::collections::BTreeMap;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The system user that packages make for it; without one it is [`NOBODY`].
pub const USER: &str = "pristine-agent";
/// The user id of `nobody` wherever there is one.
pub const NOBODY: u32 = 65534;
/// The largest `/etc/passwd` that is looked through.
const PASSWD_BYTES: u64 = 4 * 1024 * 1024;

/// What resolving a name reads: two files, and where their links lead.
const READABLE: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
];

/// Descriptors: two sockets to the agent, two to the collector, a resolver's, and what the runtime needs.
const DESCRIPTORS: u64 = 64;
/// Bytes of writable memory: an image's envelope four times over, the window of zstd, stacks.
const DATA_BYTES: u64 = 256 * 1024 * 1024;

/// The user and group that the network process becomes, where it may choose.
#[must_use]
pub fn user(passwd: &Path) -> (u32, u32) {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(passwd)
        .and_then(|file| file.take(PASSWD_BYTES).read_to_string(&mut text));
    let found = read.ok().and_then(|_| user_of(&text));
    found.unwrap_or((NOBODY, NOBODY))
}

/// Never root, whatever the file says.
fn user_of(passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(USER)).then_some(())?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        let gid: u32 = fields.next()?.parse().ok()?;
        (uid != 0 && gid != 0).then_some((uid, gid))
    })
}

/// The walls that can be built before the first thread: the error is of one that must stand.
pub(super) fn before_threads(missing: &mut Vec<String>) -> std::io::Result<()> {
    std::env::set_current_dir("/")?;
    limit(Resource::Core, 0);
    limit(Resource::Nofile, DESCRIPTORS);
    limit(Resource::Data, DATA_BYTES);
    limit(Resource::Fsize, 0);
    rustix::thread::set_no_new_privs(true)?;
    // Opens what it allows, so it comes while that can be opened.
    match landlock() {
        Ok(RulesetStatus::FullyEnforced) => {}
        Ok(RulesetStatus::PartiallyEnforced) => {
            missing.push("landlock: this kernel knows part of it".to_owned());
        }
        Ok(_) => missing.push("landlock: this kernel does not have it, or it is off".to_owned()),
        Err(error) => missing.push(format!("landlock: {error}")),
    }
    become_nobody(missing)?;
    // A change of the user undoes it, so it comes last.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// The last wall, when every thread exists that ever will.
pub(super) fn with_threads(missing: &mut Vec<String>) {
    limit(Resource::Nproc, 0);
    if let Err(error) = seccomp() {
        missing.push(format!("seccomp: {error}"));
    }
}

/// A limit that cannot be lowered is lower already.
fn limit(resource: Resource, most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limit).ok();
}

fn become_nobody(missing: &mut Vec<String>) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        missing.push("own user: the agent does not run as root".to_owned());
    } else if let Err(error) = change_user() {
        // A unit or a container may not allow it: a node that is not heard of would be worse.
        missing.push(format!("own user: {error}"));
    }
    // Nothing is left of them after the change of the user; without one they are given up here.
    for set in [
        caps::CapSet::Ambient,
        caps::CapSet::Inheritable,
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(std::io::Error::other)?;
    }
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn change_user() -> std::io::Result<()> {
    let (uid, gid) = user(Path::new("/etc/passwd"));
    let uid = nix::unistd::Uid::from_raw(uid);
    let gid = nix::unistd::Gid::from_raw(gid);
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

fn landlock() -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let reading: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, reading))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Two filters: what nothing of ours ever does ends the process, what is not needed is refused.
fn seccomp() -> Result<(), Box<dyn std::error::Error>> {
    let architecture = std::env::consts::ARCH.try_into()?;
    let hostile = HOSTILE.iter().map(|call| (*call, Vec::new())).collect();
    let hostile = SeccompFilter::new(
        hostile,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        architecture,
    )?;
    let needed = SeccompFilter::new(
        needed()?,
        SeccompAction::Errno(u32::try_from(libc::EPERM)?),
        SeccompAction::Allow,
        architecture,
    )?;
    // The second may only be added while the first still lets it: `seccomp` itself is not among what is needed.
    for filter in [hostile, needed] {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// Whoever calls one of these has taken the process over.
const HOSTILE: [libc::c_long; 20] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
];

/// What the runtime, TLS and resolving call once every thread exists.
const NEEDED: [libc::c_long; 66] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_fcntl,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_uname,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The older forms of some of them, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const NEEDED_OLD: [libc::c_long; 7] = [
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];
#[cfg(not(target_arch = "x86_64"))]
const NEEDED_OLD: [libc::c_long; 0] = [];

fn needed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Box<dyn std::error::Error>> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = NEEDED
        .iter()
        .chain(&NEEDED_OLD)
        .map(|call| (*call, Vec::new()))
        .collect();
    // The internet, and the kernel's list of addresses that the resolver sorts by. No local sockets: whatever listens at
    // one believes in the user at the other end.
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    calls.insert(libc::SYS_socket, any_of(0, &families)?);
    let requests = [libc::FIONBIO, libc::FIONREAD].map(i32::try_from);
    let requests: Result<Vec<i32>, _> = requests.into_iter().collect();
    calls.insert(libc::SYS_ioctl, any_of(1, &requests?)?);
    Ok(calls)
}

/// One argument is one of these values.
fn any_of(argument: u8, values: &[i32]) -> Result<Vec<SeccompRule>, Box<dyn std::error::Error>> {
    let mut rules = Vec::new();
    for value in values {
        let condition = SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::try_from(*value)?,
        )?;
        rules.push(SeccompRule::new(vec![condition])?);
    }
    Ok(rules)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use reqwest::dns::Resolve as _;

    use super::*;
    use crate::transport::names::Names;

    /// What a confined process can still do, and then what ends it.
    #[test]
    #[ignore = "confines its process: started by the test below"]
    fn probe() {
        let mut missing = Vec::new();
        let names = Names::of_system();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        before_threads(&mut missing).unwrap();
        with_threads(&mut missing);
        let resolved = runtime.block_on(names.resolve("localhost".parse().unwrap()));
        let kind = |outcome: std::io::Result<()>| match outcome {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        let open = |path: &str| kind(std::fs::File::open(path).map(drop));
        let write = |path: &str| kind(std::fs::write(path, b"x"));
        let said = [
            format!("missing {missing:?}"),
            format!("shadow {}", open("/etc/shadow")),
            format!("passwd {}", open("/etc/passwd")),
            format!("status {}", open("/proc/self/status")),
            format!("hosts {}", open("/etc/hosts")),
            format!(
                "names {}",
                kind(resolved.map(drop).map_err(std::io::Error::other))
            ),
            format!("write {}", write("/tmp/pristine-confined")),
            format!(
                "listen {}",
                kind(std::net::TcpListener::bind("127.0.0.1:0").map(drop))
            ),
            format!(
                "udp {}",
                kind(std::net::UdpSocket::bind("127.0.0.1:0").map(drop))
            ),
            format!(
                "local {}",
                kind(std::os::unix::net::UnixStream::connect("/run/x").map(drop))
            ),
            format!(
                "thread {}",
                kind(std::thread::Builder::new().spawn(|| ()).map(drop))
            ),
            format!(
                "fork {}",
                kind(Command::new("/bin/true").status().map(drop))
            ),
            format!(
                "root {}",
                kind(rustix::process::chdir("/root").map_err(Into::into))
            ),
        ];
        eprintln!("{}", said.join("\n"));
        let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        eprintln!("survived: {error}");
    }

    #[test]
    fn a_confined_process_reads_what_resolving_needs_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("left out, needs root: the user of the network process");
            return;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg("transport::confine::tests::probe")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let denied = format!("{:?}", ErrorKind::PermissionDenied);
        for what in [
            "shadow", "passwd", "status", "write", "listen", "local", "thread", "fork", "root",
        ] {
            assert!(
                said.contains(&format!("{what} {denied}")),
                "{what} of:\n{said}"
            );
        }
        for what in ["hosts done", "names done", "udp done", "missing []"] {
            assert!(said.contains(what), "{what} of:\n{said}");
        }
        assert!(!said.contains("survived"), "a program was started:\n{said}");
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{said}");
    }

    #[test]
    fn the_packages_user_is_taken_and_never_root() {
        let line = "root:x:0:0::/root:/bin/sh\npristine-agent:x:990:980::/:/usr/sbin/nologin\n";
        assert_eq!(user_of(line), Some((990, 980)));
        assert_eq!(user_of("pristine-agent:x:0:0::/:/bin/sh\n"), None);
        assert_eq!(user_of("pristine-agent:x:no:980::/:/bin/sh\n"), None);
        assert_eq!(user_of("pristine-agent-2:x:5:5::/:\n"), None);
        assert_eq!(user(Path::new("/nowhere")), (NOBODY, NOBODY));
    }

    #[test]
    fn what_is_hostile_is_never_needed() {
        assert!(HOSTILE.iter().all(|call| !NEEDED.contains(call)));
        assert!(needed().is_ok());
    }
}
