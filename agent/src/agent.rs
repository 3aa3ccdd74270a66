//! The whole agent: identity, spool, engine and uplink put together, until it is told to stop.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attestation::digest::Digest;
use attestation::key::PrivateKey;
use attestation::statement::AgentFacts;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::actor::Attribution;
use crate::chain::Chain;
use crate::clock;
use crate::clone;
use crate::config::AgentSettings;
use crate::engine::{Engine, EngineParts, Facts};
use crate::enroll::EnrolError;
use crate::event::{AgentEvent, Observer};
use crate::identity::{self, Held, IdentityError};
use crate::image::{ImageStore, Publishers, StoreError};
use crate::link::Link;
use crate::service::Service;
use crate::spool::{Spool, SpoolError};
use crate::status::{self, Board};
use crate::tls::{CaTrust, TlsError};
use crate::transport::{AgentsTrust, Transport, Trust};
use crate::upkeep::{Reloads, Upkeep};
use crate::uplink::{Uplink, UplinkParts};

/// The goodbye is signed within this; a scan that is running is stopped for it.
const STOP_ENGINE: Duration = Duration::from_secs(5);
/// And it is on its way, or waits in the spool, within this.
const STOP_UPLINK: Duration = Duration::from_secs(3);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has no usable identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The disk is another machine's, and this one has not joined as a node of its own.
    #[error("join as a node of its own")]
    Anew(#[from] EnrolError),
    /// Another agent uses the state directory.
    #[error("{state}: another agent uses this state directory", state = state.display())]
    Locked {
        /// The directory.
        state: PathBuf,
    },
    /// A file cannot be used.
    #[error("use {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The image store cannot be used.
    #[error(transparent)]
    Images(#[from] StoreError),
    /// TLS cannot be set up.
    #[error("set up the connection to the collector")]
    Tls(#[from] TlsError),
    /// Neither configuration nor enrolment names a collector.
    #[error("no collector is known; set `collectors` in the configuration or enrol anew")]
    NoCollector,
    /// The thread that looks and signs cannot be started, or ended by itself.
    #[error("the thread that looks and signs ended")]
    Engine,
}

/// Runs the agent until `shutdown` is ready; then it says goodbye.
///
/// Needs a runtime with threads of its own; everything that blocks for long has its own thread.
pub async fn run(
    settings: AgentSettings,
    shutdown: impl Future<Output = ()>,
    observer: Option<mpsc::Sender<AgentEvent>>,
) -> Result<(), RunError> {
    run_with(settings, shutdown, observer, None).await
}

/// The same, and the configuration is taken anew whenever it comes.
pub async fn run_reloading(
    settings: AgentSettings,
    shutdown: impl Future<Output = ()>,
    reloads: Reloads,
) -> Result<(), RunError> {
    run_with(settings, shutdown, None, Some(reloads)).await
}

async fn run_with(
    settings: AgentSettings,
    shutdown: impl Future<Output = ()>,
    observer: Option<mpsc::Sender<AgentEvent>>,
    reloads: Option<Reloads>,
) -> Result<(), RunError> {
    crate::sys::keep_little();
    identity::prepare(&settings.state)?;
    let lock = lock(&settings.state)?;
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        joined = Box::pin(clone::joined_anew(&settings)) => joined?,
    }
    let started = move || start(settings, Observer::new(observer), reloads);
    let started = tokio::task::spawn_blocking(started)
        .await
        .map_err(|_| RunError::Engine)??;
    let outcome = Box::pin(serve(started, shutdown)).await;
    drop(lock);
    outcome
}

struct Started {
    uplink: Uplink,
    link: Arc<Link>,
    chain: Arc<Chain>,
    board: Board,
    state: PathBuf,
    engine: oneshot::Receiver<()>,
    service: Arc<Service>,
    upkeep: Upkeep,
}

/// Opens everything, and starts the engine's thread.
fn start(
    settings: AgentSettings,
    observer: Observer,
    reloads: Option<Reloads>,
) -> Result<Started, RunError> {
    let settings = &settings;
    let held = identity::load_on(&settings.state, settings.machine())?;
    let ca = ca_of(settings, &held)?;
    let trust = trust_by(&ca, &held.identity, &held.key);
    let Held { identity, key } = held;
    let collectors = if settings.collectors.is_empty() {
        identity.agents.clone()
    } else {
        settings.collectors.clone()
    };
    if collectors.is_empty() {
        return Err(RunError::NoCollector);
    }
    let transport = Transport::open(&settings.network, trust, &key)?;
    let spool = open_spool(settings, &identity)?;
    let chain = Arc::new(Chain::new(spool, identity.node.clone(), key));
    let before = chain
        .newest()
        .map(|last| (last.predicate.issued, last.predicate.goodbye));
    let link = Arc::new(Link::default());
    let board = Board::new(identity.node.clone(), identity.name.clone());
    board.show_network(transport.clone());
    let facts = Facts {
        log: identity.log.clone(),
        boot: clock::boot_id(),
        agent: AgentFacts {
            version: crate::VERSION.to_owned(),
            exe_sha256: own_digest(),
            config_sha256: settings.config_sha256,
        },
        before,
    };
    let service = Arc::new(Service::from_environment());
    let engine = Engine::new(EngineParts {
        root: settings.root.clone(),
        state: settings.state.clone(),
        threads: settings.scan_threads,
        reread_cpu: settings.reread_cpu,
        cmdline: settings.cmdline,
        attribution: Attribution::new(settings.cmdline, settings.sessions, settings.arguments),
        interval: settings.interval,
        rescan: settings.rescan,
        enrolled_interval: Duration::from_secs(identity.interval.max(1)),
        facts,
        chain: Arc::clone(&chain),
        link: Arc::clone(&link),
        board: board.clone(),
        observer: observer.clone(),
        service: Arc::clone(&service),
    });
    let uplink = Uplink::new(UplinkParts {
        publishers: Publishers::new(settings.publishers.clone(), identity.publishers.clone()),
        identity,
        ca,
        collectors,
        transport,
        chain: Arc::clone(&chain),
        link: Arc::clone(&link),
        images: ImageStore::open(&settings.state)?,
        state: settings.state.clone(),
        board: board.clone(),
        observer,
    });
    let (ended, engine_ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            engine.run();
            drop(ended);
        })
        .map_err(|_| RunError::Engine)?;
    let state = settings.state.clone();
    let upkeep = Upkeep {
        settings: settings.clone(),
        link: Arc::clone(&link),
        board: board.clone(),
        service: Arc::clone(&service),
        reloads,
    };
    Ok(Started {
        upkeep,
        uplink,
        link,
        chain,
        board,
        state,
        engine: engine_ended,
        service,
    })
}

/// The CA that the doors must show: as enrolment said, but for one that the configuration names.
fn ca_of(settings: &AgentSettings, held: &Held) -> Result<String, RunError> {
    match &settings.ca {
        None => Ok(held.identity.ca.clone()),
        Some(path) => std::fs::read_to_string(path).map_err(|source| RunError::File {
            path: path.clone(),
            source,
        }),
    }
}

/// Whom the node believes at both doors.
pub(crate) fn trust(settings: &AgentSettings, held: &Held) -> Result<Trust, RunError> {
    Ok(trust_by(&ca_of(settings, held)?, &held.identity, &held.key))
}

/// The same by a CA that is at hand.
pub(crate) fn trust_by(ca: &str, identity: &identity::Identity, key: &PrivateKey) -> Trust {
    Trust {
        heard: identity.heard,
        agents: Some(AgentsTrust {
            ca: ca.to_owned(),
            certificate: identity.certificate.clone(),
            algorithm: key.algorithm(),
        }),
        joining: Some(CaTrust::Pem(ca.to_owned())),
    }
}

/// The spool of this node and this collector. One of another chain is set aside: its statements are nobody's here.
fn open_spool(settings: &AgentSettings, identity: &identity::Identity) -> Result<Spool, RunError> {
    let directory = settings.state.join("spool");
    let spool = Spool::open(&directory, settings.spool_limit)?;
    let newest = spool.newest()?.and_then(|outgoing| {
        let envelope = attestation::dsse::Envelope::from_json(&outgoing.envelope).ok()?;
        envelope.peek::<attestation::statement::Attestation>().ok()
    });
    let Some(newest) = newest else {
        return Ok(spool);
    };
    if newest.name() == Some(identity.node.as_str()) && newest.predicate.log == identity.log {
        return Ok(spool);
    }
    drop(spool);
    let aside = settings
        .state
        .join(format!("spool-{}", clock::now().as_micros()));
    tracing::warn!(aside = %aside.display(), log = %newest.predicate.log, "the spool is of another chain and is set aside");
    std::fs::rename(&directory, &aside).map_err(|source| RunError::File {
        path: directory.clone(),
        source,
    })?;
    Ok(Spool::open(&directory, settings.spool_limit)?)
}

async fn serve(started: Started, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let Started {
        uplink,
        link,
        chain,
        board,
        state,
        mut engine,
        service,
        upkeep,
    } = started;
    let mut upkeep = Box::pin(upkeep.run());
    let mut uplink = Box::pin(uplink.run());
    let mut status = Box::pin(async {
        let Err(error) = status::serve(&state, board).await;
        tracing::warn!(error = %crate::journal::chain(&error), "no status over the local socket");
        // The agent goes on without.
        std::future::pending::<()>().await;
    });
    service.ready();
    let ended = tokio::select! {
        () = shutdown => false,
        () = &mut uplink => true,
        () = &mut status => true,
        never = &mut upkeep => match never {},
        _ = &mut engine => true,
    };
    if ended {
        return Err(RunError::Engine);
    }
    tracing::info!("stopping");
    service.stopping();
    link.order(|orders| orders.stop = true);
    // The uplink goes on while the engine signs, and after, until the goodbye is through or the time is over.
    let signed = tokio::select! {
        () = &mut uplink => false,
        signed = tokio::time::timeout(STOP_ENGINE, &mut engine) => signed.is_ok(),
    };
    if !signed {
        tracing::warn!("stopped without a goodbye");
        return Ok(());
    }
    link.uplink.notify_one();
    let drained = async {
        while !chain.is_drained() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let drained = tokio::select! {
        () = &mut uplink => false,
        drained = tokio::time::timeout(STOP_UPLINK, drained) => drained.is_ok(),
    };
    if !drained {
        let waiting = chain.state().waiting;
        tracing::warn!(
            waiting,
            "stopped before everything was receipted; it is sent after the next start"
        );
    }
    // Whoever asks after this finds nobody.
    drop(status);
    drop(std::fs::remove_file(state.join(status::SOCKET)));
    Ok(())
}

/// One agent for one state directory: two would sign one sequence twice.
pub(crate) fn lock(state: &Path) -> Result<File, RunError> {
    let path = state.join("lock");
    let failed = |source| RunError::File {
        path: path.clone(),
        source,
    };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(RunError::Locked {
            state: state.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// SHA-256 of the running executable.
fn own_digest() -> Option<Digest> {
    let mut file = File::open("/proc/self/exe").ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 128 * 1024];
    loop {
        let read = io::Read::read(&mut file, &mut buffer).ok()?;
        if read == 0 {
            return Some(Digest::from_bytes(hasher.finalize().into()));
        }
        hasher.update(buffer.get(..read)?);
    }
}
