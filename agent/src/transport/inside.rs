//! The network process itself: a loop over the requests of the agent, and nothing of its own to remember.
//!
//! It is the agent's own program, started again: a fork of a running agent would carry the node's key, every descriptor
//! and the locks of other threads in its memory, and share its address layout; a program that begins anew has nothing.
//! It gets two sockets: standard input for requests, standard output for the signatures of handshakes.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::Duration;

use attestation::statement::ManifestRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

use super::direct::{Direct, no_answer};
use super::handshake::{CertificateVerify, Signs};
use super::message::{FromChild, TO_CHILD, ToChild};
use super::names::Names;
use super::{Ask, PIECES, Trust, confine};
use crate::journal;

/// The hidden subcommand that this process is started with.
pub const SUBCOMMAND: &str = "network-process";
/// Requests at a time; the agent has one in flight, and joins or renews beside it.
const AT_A_TIME: usize = 8;
/// Messages on their way to the agent.
const OUTBOX: usize = 8;
/// Threads for what blocks: packing and unpacking.
const THREADS: usize = 2;
/// The agent signs at once, or not at all.
const SIGNING: Duration = Duration::from_secs(5);

/// Runs until the agent is gone. Called by `main` before anything else, without a runtime and without arguments.
#[must_use]
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<()> {
    crate::sys::close_from(3)?;
    let requests = socket(io::stdin().as_fd())?;
    let signing = socket(io::stdout().as_fd())?;
    signing.set_read_timeout(Some(SIGNING))?;
    signing.set_write_timeout(Some(SIGNING))?;
    requests.set_nonblocking(true)?;
    let names = Names::of_system();
    let mut missing = Vec::new();
    confine::before_threads(&mut missing)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        // For ever: none can be made later.
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .build()?;
    start_threads(&runtime)?;
    confine::with_threads(&mut missing);
    let asking = Asking(Mutex::new(signing));
    runtime.block_on(async {
        tokio::select! {
            ended = obey(requests, asking, missing, names.clone()) => ended,
            // The agent starts it again, and then it may read what is there now.
            () = names.outgrown() => Err(io::Error::other("there are other name servers now: beginning anew")),
        }
    })
}

/// Standard input and output are sockets when the agent starts this process; when a person does, they are not.
fn socket(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<StdStream> {
    let socket = StdStream::from(fd.try_clone_to_owned()?);
    socket.peer_addr().map_err(|_| {
        io::Error::other("this is the agent's network process; the agent starts it by itself")
    })?;
    Ok(socket)
}

/// Every thread that there will be exists when this returns: they wait for each other.
fn start_threads(runtime: &tokio::runtime::Runtime) -> io::Result<()> {
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            runtime.spawn_blocking(move || {
                barrier.wait();
            })
        })
        .collect();
    runtime.block_on(async {
        for thread in threads {
            thread.await.map_err(io::Error::other)?;
        }
        Ok(())
    })
}

/// The way to the agent, which holds the key.
#[derive(Debug)]
struct Asking(Mutex<StdStream>);

impl Signs for Arc<Asking> {
    /// Blocks this process for as long as the agent takes: microseconds, once a connection.
    fn sign(&self, content: &CertificateVerify) -> io::Result<Vec<u8>> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let content = content.as_bytes();
        let length = u16::try_from(content.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_le_bytes()[..], content].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut signature = vec![0; usize::from(u16::from_le_bytes(length))];
        stream.read_exact(&mut signature)?;
        if signature.is_empty() {
            return Err(io::Error::other("the agent does not sign it"));
        }
        Ok(signature)
    }
}

async fn obey(
    requests: StdStream,
    asking: Asking,
    missing: Vec<String>,
    names: Names,
) -> io::Result<()> {
    let asking: Arc<Asking> = Arc::new(asking);
    let (mut reading, mut writing) = UnixStream::from_std(requests)?.into_split();
    let (outbox, mut leaving) = mpsc::channel::<FromChild>(OUTBOX);
    let writer = async move {
        while let Some(message) = leaving.recv().await {
            writing.write_all(&frame(&message.encode())?).await?;
        }
        Ok(())
    };
    let reader = async move {
        drop(outbox.send(FromChild::Ready { missing }).await);
        let mut direct: Option<Arc<Direct>> = None;
        let room = Arc::new(Semaphore::new(AT_A_TIME));
        while let Some(bytes) = read_frame(&mut reading, TO_CHILD).await? {
            let message = ToChild::decode(&bytes).map_err(io::Error::other)?;
            drop(bytes);
            if let ToChild::Trust(trust) = message {
                believe(&mut direct, &trust, &asking, &names, &outbox).await;
                continue;
            }
            let (direct, outbox) = (direct.clone(), outbox.clone());
            // Fair: a request waits for the one that is longest there.
            let Ok(room) = Arc::clone(&room).acquire_owned().await else {
                break;
            };
            tokio::spawn(async move {
                answer(direct, message, &outbox).await;
                drop(room);
            });
        }
        Ok(())
    };
    tokio::select! {
        ended = writer => ended,
        ended = reader => ended,
    }
}

async fn believe(
    direct: &mut Option<Arc<Direct>>,
    trust: &Trust,
    asking: &Arc<Asking>,
    names: &Names,
    outbox: &mpsc::Sender<FromChild>,
) {
    let signs = || Arc::new(Arc::clone(asking));
    let outcome = match direct {
        Some(direct) => direct.trust(trust, signs()),
        None => {
            Direct::new(trust, signs(), names.clone()).map(|made| *direct = Some(Arc::new(made)))
        }
    };
    if let Err(error) = outcome {
        let reason = journal::chain(&error);
        drop(outbox.send(FromChild::Untrusting { reason }).await);
    }
}

async fn answer(direct: Option<Arc<Direct>>, message: ToChild, outbox: &mpsc::Sender<FromChild>) {
    let message = match (direct, message) {
        (Some(direct), ToChild::Ask { id, ask }) => told(id, ask, &direct).await,
        (Some(direct), ToChild::Manifest { id, url, manifest }) => {
            pass(id, &url, &manifest, &direct, outbox).await
        }
        (None, ToChild::Ask { id, .. } | ToChild::Manifest { id, .. }) => FromChild::Failed {
            id,
            error: no_answer("nobody is trusted yet"),
        },
        (_, ToChild::Trust(_)) => return,
    };
    // The agent is gone where this fails, and then so is this process.
    drop(outbox.send(message).await);
}

async fn told(id: u32, ask: Ask, direct: &Direct) -> FromChild {
    match direct.ask(ask).await {
        Ok(reply) => FromChild::Answer { id, reply },
        Err(error) => FromChild::Failed { id, error },
    }
}

/// Gives a manifest's pieces on as they come.
async fn pass(
    id: u32,
    url: &str,
    manifest: &ManifestRef,
    direct: &Direct,
    outbox: &mpsc::Sender<FromChild>,
) -> FromChild {
    let (pieces, mut plain) = mpsc::channel(PIECES);
    let passing = async {
        while let Some(bytes) = plain.recv().await {
            if outbox.send(FromChild::Piece { id, bytes }).await.is_err() {
                break;
            }
        }
    };
    let (fetched, ()) = tokio::join!(direct.manifest(url, manifest, pieces), passing);
    match fetched {
        Ok(()) => FromChild::Whole { id },
        Err(error) => FromChild::Failed { id, error },
    }
}

/// A message with its length before it.
pub(super) fn frame(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_le_bytes()[..], message].concat())
}

/// The next message; `None` at the end. Never takes more memory than has really come.
pub(super) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = u32::from_le_bytes(length);
    if usize::try_from(length).is_ok_and(|length| length > limit) {
        return Err(io::Error::other("a message is too long"));
    }
    let mut message = Vec::new();
    from.take(u64::from(length))
        .read_to_end(&mut message)
        .await?;
    if u32::try_from(message.len()) != Ok(length) {
        return Ok(None);
    }
    Ok(Some(message))
}
