//! One life of the network process: what it is asked, what it says, what it has signed.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::spawn::Ends;
use super::{Order, Part, State, lock};
use crate::clock;
use crate::transport::handshake::{CertificateVerify, Signs};
use crate::transport::inside::{frame, read_frame};
use crate::transport::message::{FROM_CHILD, FromChild, ToChild};
use crate::transport::{Reply, TransportError};

/// Handshakes signed in a burst, and again one for each so much time: more than any collector needs.
const HANDSHAKES: u32 = 32;
const HANDSHAKE_EVERY: Duration = Duration::from_secs(1);
/// Lines of complaint that are told of one life, and their length.
const COMPLAINTS: usize = 32;
const COMPLAINT_BYTES: u64 = 1024;

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody will ask it any more.
    Unused,
    /// It ended, or did what it must not do.
    Failed(String),
}

enum Waiting {
    Answer(oneshot::Sender<Result<Reply, TransportError>>),
    Parts(mpsc::Sender<Part>),
}

type Pending = Mutex<HashMap<u32, Waiting>>;

/// Lives with it until it ends; then whoever waits is told.
pub(super) async fn live(state: &State, orders: &mut mpsc::Receiver<Order>, ends: Ends) -> End {
    {
        let mut status = lock(&state.status);
        status.pid = Some(ends.pid);
        status.since = Some(clock::now());
        status.starts += 1;
    }
    let pid = ends.pid;
    let (requests, signing) = match (stream(ends.requests), stream(ends.signing)) {
        (Ok(requests), Ok(signing)) => (requests, signing),
        (Err(error), _) | (_, Err(error)) => {
            return End::Failed(format!("cannot be asked: {error}"));
        }
    };
    let (mut reading, writing) = requests.into_split();
    let pending = Pending::default();
    let end = tokio::select! {
        end = write(state, orders, writing, &pending) => end,
        error = read(state, pid, &mut reading, &pending) => End::Failed(error),
        error = sign(state, signing) => End::Failed(error),
        () = state.hangs.notified() => End::Failed("does not answer, or answers too much".to_owned()),
        () = listen(ends.complaints) => End::Failed("ended".to_owned()),
    };
    let reason = match &end {
        End::Unused => "is not needed any more",
        End::Failed(reason) => reason,
    };
    for (_, waiting) in lock(&pending).drain() {
        waiting.fail(reason);
    }
    end
}

fn stream(stream: StdStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

impl Waiting {
    fn fail(self, reason: &str) {
        let error = TransportError::Child {
            reason: reason.to_owned(),
        };
        match self {
            Self::Answer(reply) => drop(reply.send(Err(error))),
            // Without room the end of the channel says it.
            Self::Parts(parts) => drop(parts.try_send(Part::End(Err(error)))),
        }
    }
}

async fn write(
    state: &State,
    orders: &mut mpsc::Receiver<Order>,
    mut to: tokio::net::unix::OwnedWriteHalf,
    pending: &Pending,
) -> End {
    let mut next = 0_u32;
    let trust = || ToChild::Trust(Box::new(lock(&state.identity).0.clone()));
    let mut message = Some(trust());
    loop {
        if let Some(message) = message.take() {
            let framed = frame(&message.encode());
            let sent = match &framed {
                Ok(framed) => to.write_all(framed).await,
                Err(error) => Err(io::Error::other(error.to_string())),
            };
            if let Err(error) = sent {
                return End::Failed(format!("takes no request: {error}"));
            }
        }
        let Some(order) = orders.recv().await else {
            return End::Unused;
        };
        let id = next;
        next = next.wrapping_add(1);
        message = Some(match order {
            Order::Trust => trust(),
            Order::Ask(ask, reply) => {
                lock(pending).insert(id, Waiting::Answer(reply));
                ToChild::Ask { id, ask }
            }
            Order::Manifest(url, manifest, parts) => {
                lock(pending).insert(id, Waiting::Parts(parts));
                ToChild::Manifest { id, url, manifest }
            }
        });
    }
}

/// Takes what it says until it says something that it must not, or nothing more.
async fn read(
    state: &State,
    pid: u32,
    from: &mut tokio::net::unix::OwnedReadHalf,
    pending: &Pending,
) -> String {
    loop {
        let bytes = match read_frame(from, FROM_CHILD).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return "ended".to_owned(),
            Err(error) => return format!("cannot be heard: {error}"),
        };
        let message = match FromChild::decode(&bytes) {
            Ok(message) => message,
            Err(error) => return format!("sends what is no message: {error}"),
        };
        drop(bytes);
        if let Err(reason) = take(state, pid, message, pending).await {
            return reason.to_owned();
        }
    }
}

async fn take(
    state: &State,
    pid: u32,
    message: FromChild,
    pending: &Pending,
) -> Result<(), &'static str> {
    const UNASKED: &str = "answers what it was not asked";
    let (id, end) = match message {
        FromChild::Ready { missing } => {
            observe(state, pid, missing);
            return Ok(());
        }
        FromChild::Untrusting { reason } => {
            tracing::error!(%reason, "the network process cannot use what this node trusts");
            return Ok(());
        }
        FromChild::Piece { id, bytes } => {
            let parts = match lock(pending).get(&id) {
                Some(Waiting::Parts(parts)) => parts.clone(),
                _ => return Err(UNASKED),
            };
            // Nobody may want it any more; the rest comes all the same.
            drop(parts.send(Part::Piece(bytes)).await);
            return Ok(());
        }
        FromChild::Answer { id, reply } => {
            let Some(Waiting::Answer(waiting)) = lock(pending).remove(&id) else {
                return Err(UNASKED);
            };
            drop(waiting.send(Ok(reply)));
            return Ok(());
        }
        FromChild::Whole { id } => (id, Ok(())),
        FromChild::Failed { id, error } => (id, Err(error)),
    };
    let waiting = lock(pending).remove(&id);
    match (waiting, end) {
        (Some(Waiting::Parts(parts)), end) => drop(parts.send(Part::End(end)).await),
        (Some(Waiting::Answer(waiting)), Err(error)) => drop(waiting.send(Err(error))),
        _ => return Err(UNASKED),
    }
    Ok(())
}

/// What the kernel says of it, beside what it says itself.
fn observe(state: &State, pid: u32, missing: Vec<String>) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let (uid, confined) = confinement(&text);
    for missing in &missing {
        tracing::warn!(%missing, "the network process is held by less than it should be");
    }
    if confined {
        tracing::info!(pid, uid, "the network process is ready");
    } else {
        tracing::warn!(pid, uid, "the network process is ready, but not confined");
    }
    let mut status = lock(&state.status);
    (status.uid, status.confined, status.missing) = (uid, confined, missing);
}

/// User and whether it is confined, of a process' `status` file.
fn confinement(status: &str) -> (Option<u32>, bool) {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim_start_matches(':').trim())
    };
    let uid = field("Uid").and_then(|ids| ids.split_whitespace().next()?.parse().ok());
    let confined = field("CapEff").is_some_and(|set| set.bytes().all(|digit| digit == b'0'))
        && field("CapPrm").is_some_and(|set| set.bytes().all(|digit| digit == b'0'))
        && field("NoNewPrivs") == Some("1")
        && field("Seccomp") == Some("2");
    (uid, confined)
}

/// Signs handshakes, and nothing else: who asks for more is not what was started.
async fn sign(state: &State, mut stream: UnixStream) -> String {
    let mut budget = Budget::new(Instant::now());
    loop {
        let mut length = [0; 2];
        if let Err(error) = stream.read_exact(&mut length).await {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => "ended".to_owned(),
                _ => format!("cannot be heard: {error}"),
            };
        }
        let mut content = vec![0; usize::from(u16::from_le_bytes(length))];
        if let Err(error) = stream.read_exact(&mut content).await {
            return format!("cannot be heard: {error}");
        }
        let Some(content) = CertificateVerify::parse(&content) else {
            tracing::error!("the network process wants something signed that is no handshake");
            return "wants something signed that is no handshake".to_owned();
        };
        let signature = if budget.take(Instant::now()) {
            let key = lock(&state.identity).1.clone();
            Signs::sign(&key, &content).unwrap_or_default()
        } else {
            tracing::warn!("the network process wants too many handshakes signed");
            Vec::new()
        };
        let length = u16::try_from(signature.len()).unwrap_or(0);
        let answer = [&length.to_le_bytes()[..], &signature].concat();
        if let Err(error) = stream.write_all(&answer).await {
            return format!("takes no signature: {error}");
        }
    }
}

/// How many handshakes may be signed.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: HANDSHAKES,
            since: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < HANDSHAKES && now.saturating_duration_since(self.since) >= HANDSHAKE_EVERY
        {
            self.left += 1;
            self.since += HANDSHAKE_EVERY;
        }
        if self.left == HANDSHAKES {
            self.since = now;
        }
        let has = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has
    }
}

/// What it complains about on standard error: a few lines, shortened and escaped; the rest is read and left out.
async fn listen(complaints: Option<std::os::fd::OwnedFd>) {
    let pipe = complaints.and_then(|fd| tokio::net::unix::pipe::Receiver::from_owned_fd(fd).ok());
    let Some(pipe) = pipe else {
        return std::future::pending().await;
    };
    let mut lines = BufReader::new(pipe);
    let mut told = 0;
    loop {
        let mut line = Vec::new();
        let read = (&mut lines)
            .take(COMPLAINT_BYTES)
            .read_until(b'\n', &mut line)
            .await;
        if !matches!(read, Ok(length) if length > 0) {
            // The sockets tell of the end, with more to say.
            return std::future::pending().await;
        }
        told += 1;
        if told <= COMPLAINTS {
            let said = String::from_utf8_lossy(&line);
            let said = said.trim_end().escape_debug().to_string();
            tracing::warn!(%said, "the network process complains");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confined_process_is_called_so() {
        let status = "Name:\tx\nUid:\t65534\t65534\t65534\t65534\nCapPrm:\t0000000000000000\n\
                      CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        assert_eq!(confinement(status), (Some(65534), true));
        for (from, to) in [
            ("CapEff:\t0000", "CapEff:\t0001"),
            ("CapPrm:\t0000", "CapPrm:\t0001"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            assert!(!confinement(&status.replace(from, to)).1, "{to}");
        }
        assert_eq!(confinement(""), (None, false));
    }

    #[test]
    fn handshakes_are_signed_as_often_as_a_collector_may_need_and_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!((0..HANDSHAKES).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(budget.take(start + HANDSHAKE_EVERY));
        assert!(!budget.take(start + HANDSHAKE_EVERY));
        let later = start + HANDSHAKE_EVERY * 1000;
        assert_eq!((0..1000).filter(|_| budget.take(later)).count(), 32);
    }
}
