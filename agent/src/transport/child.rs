//! The agent's side of the network process: it is started, asked, believed in nothing, and started again when it ends.

mod life;
mod spawn;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attestation::key::PrivateKey;
use attestation::statement::ManifestRef;
use attestation::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};

use super::direct::{PATIENCE, PIECE};
use super::{Ask, Reply, TransportError, Trust};

pub use self::spawn::Program;

/// Requests that wait for the process; the uplink has one in flight.
const ORDERS: usize = 8;
/// The process has its own patience for a request; one that keeps silent beyond it hangs.
const HANGS: Duration = Duration::from_secs(PATIENCE.as_secs() * 3);
/// The same for the next piece of a manifest.
const PIECE_HANGS: Duration = Duration::from_secs(PIECE.as_secs() * 3);
/// The first pause before it is started again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that lived so long was sound.
const SOUND: Duration = Duration::from_secs(60);

/// What the process is like, as far as the kernel says so; `missing` is its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// How often it was started.
    pub starts: u64,
    /// Its user.
    pub uid: Option<u32>,
    /// Whether it has no capability, may not gain privileges, and runs under seccomp.
    pub confined: bool,
    /// What holds it less than it should.
    pub missing: Vec<String>,
    /// Why it ended last.
    pub error: Option<String>,
}

/// The network process; clones share it. It ends when the last of them is gone.
#[derive(Clone, Debug)]
pub struct Child(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    orders: mpsc::Sender<Order>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    status: Mutex<ChildStatus>,
    /// Told to each new process, and used to sign for it.
    identity: Mutex<(Trust, PrivateKey)>,
    /// Rung when it does not answer.
    hangs: Notify,
}

/// What the process is asked for.
#[derive(Debug)]
enum Order {
    Ask(Ask, oneshot::Sender<Result<Reply, TransportError>>),
    Manifest(String, ManifestRef, mpsc::Sender<Part>),
    Trust,
}

/// What comes of a manifest.
#[derive(Debug)]
enum Part {
    Piece(Vec<u8>),
    End(Result<(), TransportError>),
}

impl Child {
    /// Starts the process, and starts it again whenever it ends. To be called in a runtime.
    ///
    /// # Errors
    /// When the thread that starts it cannot be made; a process that does not start is told in [`Child::status`].
    pub fn start(program: Program, trust: Trust, key: PrivateKey) -> io::Result<Self> {
        let state = Arc::new(State {
            status: Mutex::default(),
            identity: Mutex::new((trust, key)),
            hangs: Notify::new(),
        });
        let (orders, coming) = mpsc::channel(ORDERS);
        let spawner = spawn::Spawner::start(program)?;
        tokio::spawn(tend(Arc::clone(&state), coming, spawner));
        Ok(Self(Arc::new(Shared { orders, state })))
    }

    /// What it is like now.
    #[must_use]
    pub fn status(&self) -> ChildStatus {
        lock(&self.0.state.status).clone()
    }

    pub(super) async fn trust(&self, trust: Trust, key: PrivateKey) {
        *lock(&self.0.state.identity) = (trust, key);
        // A process that starts meanwhile is told anyway.
        drop(self.0.orders.send(Order::Trust).await);
    }

    pub(super) async fn ask(&self, ask: Ask) -> Result<Reply, TransportError> {
        let wanted = ask.wanted;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.orders.send(Order::Ask(ask, reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(HANGS, asked).await {
            Ok(Some(Ok(reply))) if !reply.answers(wanted) => Err(reply.unexpected()),
            Ok(Some(answer)) => answer,
            Ok(None) => Err(gone("ended")),
            Err(_) => {
                self.0.state.hangs.notify_one();
                Err(gone("does not answer"))
            }
        }
    }

    pub(super) async fn manifest(
        &self,
        url: String,
        manifest: ManifestRef,
        pieces: mpsc::Sender<Vec<u8>>,
    ) -> Result<(), TransportError> {
        let mut left = manifest.uncompressed;
        let (parts, mut coming) = mpsc::channel(1);
        let order = Order::Manifest(url, manifest, parts);
        if self.0.orders.send(order).await.is_err() {
            return Err(gone("ended"));
        }
        loop {
            match tokio::time::timeout(PIECE_HANGS, coming.recv()).await {
                Ok(Some(Part::Piece(piece))) => {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    left = left.checked_sub(length).ok_or_else(|| {
                        self.0.state.hangs.notify_one();
                        gone("sends more than was signed")
                    })?;
                    if pieces.send(piece).await.is_err() {
                        return Err(TransportError::Manifest {
                            reason: "a line of it is wrong".to_owned(),
                        });
                    }
                }
                Ok(Some(Part::End(end))) => return end,
                Ok(None) => return Err(gone("ended")),
                Err(_) => {
                    self.0.state.hangs.notify_one();
                    return Err(gone("does not answer"));
                }
            }
        }
    }
}

fn gone(reason: &str) -> TransportError {
    TransportError::Child {
        reason: reason.to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Plain values: right at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One process after the other, until nobody asks any more.
async fn tend(state: Arc<State>, mut orders: mpsc::Receiver<Order>, spawner: spawn::Spawner) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = tokio::time::Instant::now();
        let (ended, reason) = match spawner.spawn().await {
            Ok(spawned) => {
                let (process, ends) = spawned.split();
                let ended = life::live(&state, &mut orders, ends).await;
                let status = spawner.end(process).await;
                match ended {
                    life::End::Unused => (true, status),
                    life::End::Failed(reason) => (false, format!("{reason} ({status})")),
                }
            }
            Err(error) => (false, format!("does not start: {error}")),
        };
        {
            let mut status = lock(&state.status);
            (status.pid, status.since, status.uid) = (None, None, None);
            status.confined = false;
            status.error = Some(reason.clone());
        }
        if ended {
            return;
        }
        tracing::warn!(%reason, ?pause, "the network process ended and is started again");
        if started.elapsed() >= SOUND {
            pause = FIRST_PAUSE;
        }
        if !refuse(&mut orders, pause, &reason).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Until it is started again nobody waits for it. `false` when nobody will ask any more.
async fn refuse(orders: &mut mpsc::Receiver<Order>, pause: Duration, reason: &str) -> bool {
    let end = tokio::time::Instant::now() + pause;
    loop {
        match tokio::time::timeout_at(end, orders.recv()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some(Order::Ask(_, reply))) => drop(reply.send(Err(gone(reason)))),
            Ok(Some(Order::Manifest(_, _, parts))) => {
                drop(parts.try_send(Part::End(Err(gone(reason)))));
            }
            Ok(Some(Order::Trust)) => {}
        }
    }
}

#[cfg(test)]
mod tests;
