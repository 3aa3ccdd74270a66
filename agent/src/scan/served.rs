//! File systems that a program or a network serves: an answer may never come, and a thread that waits for one cannot even be
//! killed. They are asked by threads of their own, which are given up when nothing was heard for a while.
//!
//! A thread that was given up is counted until it comes back. As long as one has not, its file system counts as silent and
//! is not asked again; and there are never more than [`GIVEN_UP`] of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use attestation::path::ImagePath;
use attestation::scope::Decision;

use super::{Found, Progress, Reading, Surveyed};

/// Nothing was heard for so long: a server that is alive answers each single question within seconds, and the service
/// manager waits longer for a sign of life.
const PATIENCE: Duration = Duration::from_secs(10);
/// Threads that wait for answers for ever, at most: each keeps its stack and the descriptors of the root that it reads.
const GIVEN_UP: usize = 16;
/// Questions and finds on their way.
const ASKS: usize = 64;
/// Whether whoever asked still wants to know is looked at this often.
const TICK: Duration = Duration::from_millis(100);

/// How mount tables call what a program or a network serves, with whatever follows a dot. Whatever else there is answers
/// from this kernel, or from a disk.
const SERVED: &[&str] = &[
    "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2",
    "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2",
    "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
];

/// Threads that have not come back, of all file systems.
static UNANSWERED: AtomicUsize = AtomicUsize::new(0);

/// Whether a file system of this type is served by a program or a network.
pub(super) fn is_served(fstype: &[u8]) -> bool {
    let kind = fstype.split(|byte| *byte == b'.').next().unwrap_or(fstype);
    SERVED.iter().any(|served| served.as_bytes() == kind)
}

/// Why something is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Nothing came, to this question or to one before that is still open.
    #[error("no answer from its file system within {} s", PATIENCE.as_secs())]
    NoAnswer,
    /// Too much is waited for already.
    #[error("not asked: {GIVEN_UP} threads wait for file systems that do not answer")]
    TooMany,
    /// The thread could not be started, or ended abnormally.
    #[error("the thread that asks its file system could not run")]
    Thread,
}

impl Silence {
    pub(super) fn reading(self) -> Reading {
        let error = self.to_string();
        Reading::Unreadable { error }
    }
}

/// Who answers for one file system.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// Threads that were given up and have not come back.
    unanswered: AtomicUsize,
}

impl Server {
    /// Whether a question is open that nobody waits for any more.
    pub(super) fn is_silent(&self) -> bool {
        self.unanswered.load(Ordering::Acquire) > 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    GivenUp,
    Over,
}

/// Work on a thread of its own.
struct Task(Shared);

#[derive(Clone)]
struct Shared {
    stage: Arc<Mutex<Stage>>,
    server: Arc<Server>,
}

/// Held by the thread.
struct Running(Shared);

impl Shared {
    fn turn(&self, to: Stage) -> Stage {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *stage;
        match (before, to) {
            (Stage::Running, Stage::GivenUp) => {
                self.server.unanswered.fetch_add(1, Ordering::AcqRel);
                UNANSWERED.fetch_add(1, Ordering::AcqRel);
            }
            (Stage::GivenUp, Stage::Over) => {
                self.server.unanswered.fetch_sub(1, Ordering::AcqRel);
                UNANSWERED.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
        if before != Stage::Over {
            *stage = to;
        }
        before
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.turn(Stage::Over) == Stage::GivenUp {
            tracing::info!("a file system that did not answer has answered");
        }
    }
}

impl Task {
    fn start(server: &Arc<Server>, work: impl FnOnce() + Send + 'static) -> Result<Self, Silence> {
        if server.is_silent() {
            return Err(Silence::NoAnswer);
        }
        if UNANSWERED.load(Ordering::Acquire) >= GIVEN_UP {
            return Err(Silence::TooMany);
        }
        let shared = Shared {
            stage: Arc::new(Mutex::new(Stage::Running)),
            server: Arc::clone(server),
        };
        let running = Running(shared.clone());
        std::thread::Builder::new()
            .name("served".to_owned())
            .spawn(move || {
                let _running = running;
                work();
            })
            .map_err(|error| {
                tracing::warn!(%error, "start the thread that asks a file system");
                Silence::Thread
            })?;
        Ok(Self(shared))
    }

    fn give_up(&self) -> Silence {
        match self.0.turn(Stage::GivenUp) {
            Stage::Over => Silence::Thread,
            Stage::Running | Stage::GivenUp => {
                tracing::warn!("a file system does not answer: its thread is given up");
                Silence::NoAnswer
            }
        }
    }
}

/// Does something on a thread of its own, and waits for it as long as for any answer.
pub(crate) fn within<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Silence> {
    within_time(server, PATIENCE, work)
}

/// As [`within`], for work that takes more than one answer.
pub(crate) fn within_time<T: Send + 'static>(
    server: &Arc<Server>,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Silence> {
    let (sender, receiver) = sync_channel(1);
    // Nobody waits any more when this fails: what came is let go of on that thread.
    let task = Task::start(server, move || drop(sender.send(work())))?;
    match receiver.recv_timeout(patience) {
        Ok(done) => Ok(done),
        Err(RecvTimeoutError::Timeout) => Err(task.give_up()),
        Err(RecvTimeoutError::Disconnected) => Err(Silence::Thread),
    }
}

/// What a thread that reads for somebody has to ask and to tell.
pub(super) enum Ask {
    /// Whether the content of a file of this size is to be read.
    Wanted(ImagePath, u64, Answer),
    /// Whether something is as it was.
    Unmoved(ImagePath, Decision, Surveyed, Answer),
    /// What is in a small file.
    Heard(ImagePath, Vec<u8>),
    /// Something was read.
    Found(Found),
    /// Something was asked about.
    Surveyed(ImagePath, Decision, Option<Surveyed>),
    /// So many bytes of content were read.
    Passed(u64),
    /// That was all.
    Over,
}

/// Where a thread waits for an answer.
pub(super) struct Answer(SyncSender<bool>);

impl Answer {
    pub(super) fn give(self, answer: bool) {
        if self.0.send(answer).is_err() {
            tracing::trace!("nobody waits for an answer any more");
        }
    }
}

/// Asks whoever listens. Where nobody does any more nothing is wanted.
#[derive(Clone)]
pub(super) struct Asker(SyncSender<Ask>);

impl Asker {
    pub(super) fn wanted(&self, path: &ImagePath, size: u64) -> bool {
        self.ask(|answer| Ask::Wanted(path.clone(), size, answer))
    }

    pub(super) fn unmoved(&self, path: &ImagePath, decision: Decision, there: &Surveyed) -> bool {
        self.ask(|answer| Ask::Unmoved(path.clone(), decision, *there, answer))
    }

    pub(super) fn tell(&self, what: Ask) {
        // Nobody listens any more: the progress says so, too.
        drop(self.0.send(what));
    }

    fn ask(&self, ask: impl FnOnce(Answer) -> Ask) -> bool {
        let (answer, answered) = sync_channel(1);
        self.0.send(ask(Answer(answer))).is_ok() && answered.recv().unwrap_or(false)
    }
}

/// Ends the reading when nobody listens any more.
struct Listening(Arc<Progress>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Has a thread read, and answers it until it has told everything; `progress` is that of whoever listens.
pub(super) fn listen(
    server: &Arc<Server>,
    progress: &Progress,
    read: impl FnOnce(&Asker, &Progress) + Send + 'static,
    heard: &mut dyn FnMut(Ask),
) -> Result<(), Silence> {
    listen_for(server, PATIENCE, progress, read, heard)
}

fn listen_for(
    server: &Arc<Server>,
    patience: Duration,
    progress: &Progress,
    read: impl FnOnce(&Asker, &Progress) + Send + 'static,
    heard: &mut dyn FnMut(Ask),
) -> Result<(), Silence> {
    let (sender, asks) = sync_channel(ASKS);
    let asker = Asker(sender);
    let passing = asker.clone();
    let pace = move |bytes| {
        if bytes > 0 {
            passing.tell(Ask::Passed(bytes));
        }
    };
    let listening = Listening(Arc::new(Progress::paced(Box::new(pace))));
    let theirs = Arc::clone(&listening.0);
    let task = Task::start(server, move || {
        read(&asker, &theirs);
        asker.tell(Ask::Over);
    })?;
    answer(&asks, patience, progress, heard).map_err(|()| task.give_up())
}

/// Fails when nothing was heard for too long.
fn answer(
    asks: &Receiver<Ask>,
    patience: Duration,
    progress: &Progress,
    heard: &mut dyn FnMut(Ask),
) -> Result<(), ()> {
    let mut last = Instant::now();
    loop {
        match asks.recv_timeout(TICK.min(patience)) {
            Ok(Ask::Over) => return Ok(()),
            Ok(Ask::Passed(bytes)) => progress.rest(bytes),
            Ok(ask) => heard(ask),
            Err(RecvTimeoutError::Timeout) if progress.is_stopped() => return Ok(()),
            Err(RecvTimeoutError::Timeout) if last.elapsed() < patience => continue,
            Err(_) => return Err(()),
        }
        // Answering and resting take their time, too.
        last = Instant::now();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// Waits until a condition holds, for some seconds at most.
    fn eventually(holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "it never held");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_program_or_a_network_serves_is_known_by_its_type() {
        for served in [
            "fuse",
            "fuse.sshfs",
            "fuseblk",
            "nfs4",
            "cifs",
            "9p",
            "virtiofs",
        ] {
            assert!(is_served(served.as_bytes()), "{served}");
        }
        for local in ["ext4", "overlay", "tmpfs", "fusectl", "nfsd", "squashfs"] {
            assert!(!is_served(local.as_bytes()), "{local}");
        }
    }

    #[test]
    fn a_question_without_an_answer_is_given_up_and_none_is_asked_until_it_has_come() {
        let server = Arc::new(Server::default());
        let (release, held) = sync_channel::<()>(0);
        let asked = within_time(&server, SHORT, move || held.recv().is_ok());
        assert_eq!(asked, Err(Silence::NoAnswer));
        assert!(server.is_silent());
        assert_eq!(within(&server, || 1), Err(Silence::NoAnswer));
        assert_eq!(within(&Arc::default(), || 1), Ok(1), "others are asked");
        release.send(()).unwrap();
        eventually(|| !server.is_silent());
        assert_eq!(within(&server, || 2), Ok(2));
    }

    #[test]
    fn a_thread_that_reads_is_answered_and_given_up_when_it_falls_silent() {
        let server = Arc::new(Server::default());
        let path = ImagePath::parse("./a").unwrap();
        let (release, held) = sync_channel::<()>(0);
        let (told, stopped) = sync_channel(1);
        let mut asked = Vec::new();
        let read = move |asker: &Asker, progress: &Progress| {
            assert!(asker.wanted(&path, 7));
            assert!(!asker.wanted(&path, 8));
            assert!(held.recv().is_ok());
            told.send((progress.is_stopped(), asker.wanted(&path, 7)))
                .unwrap();
        };
        let mut heard = |ask| {
            if let Ask::Wanted(path, size, answer) = ask {
                asked.push((path.to_string(), size));
                answer.give(size == 7);
            }
        };
        let over = listen_for(&server, SHORT, &Progress::new(), read, &mut heard);
        assert_eq!(over, Err(Silence::NoAnswer));
        assert_eq!(asked, [("./a".to_owned(), 7), ("./a".to_owned(), 8)]);
        release.send(()).unwrap();
        assert_eq!(
            stopped.recv().unwrap(),
            (true, false),
            "nothing is wanted of it any more"
        );
        eventually(|| !server.is_silent());
    }
}
