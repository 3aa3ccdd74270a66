//! Starting the network process.
//!
//! The kernel ends a process with the thread that started it, so one thread that lives as long as the agent starts them all.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tokio::sync::oneshot;

/// What is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program; it is the agent's own.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This program itself, as the kernel holds it: also when its file was replaced meanwhile.
    #[must_use]
    pub fn this() -> Self {
        Self {
            path: PathBuf::from("/proc/self/exe"),
            arguments: vec![OsString::from(crate::transport::inside::SUBCOMMAND)],
        }
    }
}

/// A process that was started, and the agent's ends of its sockets.
#[derive(Debug)]
pub(super) struct Spawned {
    child: Child,
    ends: Ends,
}

/// The agent's ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) pid: u32,
    pub(super) requests: UnixStream,
    pub(super) signing: UnixStream,
    pub(super) complaints: Option<OwnedFd>,
}

impl Spawned {
    pub(super) fn split(self) -> (Child, Ends) {
        (self.child, self.ends)
    }
}

enum Job {
    Start(oneshot::Sender<io::Result<Spawned>>),
    End(Child, oneshot::Sender<String>),
}

/// The thread that starts and ends processes.
#[derive(Debug)]
pub(super) struct Spawner(mpsc::SyncSender<Job>);

impl Spawner {
    pub(super) fn start(program: Program) -> io::Result<Self> {
        // One job at a time: whoever gives it waits for it.
        let (jobs, coming) = mpsc::sync_channel(2);
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || {
                // Ends with the last sender.
                for job in coming {
                    match job {
                        Job::Start(reply) => drop(reply.send(spawn(&program))),
                        Job::End(child, reply) => drop(reply.send(end(child))),
                    }
                }
            })?;
        Ok(Self(jobs))
    }

    pub(super) async fn spawn(&self) -> io::Result<Spawned> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Job::Start(reply)).map_err(io::Error::other)?;
        answer.await.map_err(io::Error::other)?
    }

    /// Ends a process that has not ended, and tells how it did.
    pub(super) async fn end(&self, child: Child) -> String {
        let (reply, answer) = oneshot::channel();
        if self.0.send(Job::End(child, reply)).is_err() {
            return "not waited for".to_owned();
        }
        answer.await.unwrap_or_else(|_| "not waited for".to_owned())
    }
}

/// What keeps the process small where the C library is the GNU one (mallopt(3)): one pool of memory for its few threads, and buffers
/// of a snapshot's size given back when they are done with, also after the first.
const SMALL: [(&str, &str); 2] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
];

fn spawn(program: &Program) -> io::Result<Spawned> {
    let (requests, its_requests) = UnixStream::pair()?;
    let (signing, its_signing) = UnixStream::pair()?;
    let mut child = Command::new(&program.path)
        .args(&program.arguments)
        .env_clear()
        .envs(SMALL)
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(its_requests)))
        .stdout(Stdio::from(OwnedFd::from(its_signing)))
        .stderr(Stdio::piped())
        .spawn()?;
    let ends = Ends {
        pid: child.id(),
        requests,
        signing,
        complaints: child.stderr.take().map(OwnedFd::from),
    };
    Ok(Spawned { child, ends })
}

fn end(mut child: Child) -> String {
    // One that has ended by itself keeps its own status.
    if !matches!(child.try_wait(), Ok(Some(_))) {
        drop(child.kill());
    }
    match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => format!("not waited for: {error}"),
    }
}
