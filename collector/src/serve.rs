//! Starts everything, and ends it in order: doors first, then what they fed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;

use crate::alerts::Alerting;
use crate::assignments::Assignments;
use crate::authority::{Authority, AuthorityError, ServerCertificate};
use crate::door::{self, Door, TlsError};
use crate::enrolment::Former;
use crate::events::Event;
use crate::exceptions::Exceptions;
use crate::files::{self, FileError};
use crate::images::ImageCache;
use crate::ingest::{Budgets, Challenges, Listed};
use crate::init::{AGENTS, PEOPLE, exists, store_file};
use crate::keys::{CollectorKeys, KeysError};
use crate::metrics::Metrics;
use crate::pins::Pins;
use crate::settings::CollectorSettings;
use crate::snapshots::Snapshots;
use crate::state::{AppState, Bound};
use crate::store::{Store, StoreError, heartbeat, meta_get, meta_set, run_started, run_stopped};
use crate::violations::store::Channels;
use crate::{alerts, clock, fleet, journal, retention, violations};

/// Requests whose statements are verified on blocking threads at once: two per core keep both busy.
const BENCH: usize = 4;
/// Doors' certificates are made anew this often.
const RENEWAL: Duration = Duration::from_secs(86_400);
/// Between two looks at the clock for silence, at most.
const TICK: Duration = Duration::from_secs(2);
/// Idle time of a people's or joining connection.
const IDLE: Duration = Duration::from_secs(75);

/// Why the collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `init` was not run.
    #[error("{} holds no collector: run `pristine-collector init` first", state.display())]
    NotInitialised {
        /// The state directory.
        state: std::path::PathBuf,
    },
    /// A file cannot be read or trusted.
    #[error(transparent)]
    File(#[from] FileError),
    /// The signing keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The authorities cannot be read.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A door has no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be bound.
    #[error("cannot listen on {address} for the {door} door")]
    Bind {
        /// Which door.
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// A collector that runs.
pub struct Running {
    /// The agents' door, as bound.
    pub agents: SocketAddr,
    /// The joining door, as bound.
    pub join: SocketAddr,
    /// The people's door, as bound.
    pub ops: SocketAddr,
    /// Whether the people's door is TLS.
    pub ops_tls: bool,
    /// What happens, from now on.
    pub events: broadcast::Sender<Event>,
    /// What every door shares.
    pub state: AppState,
    stop: watch::Sender<bool>,
    doors: JoinSet<()>,
    workers: JoinSet<()>,
    workers_stop: watch::Sender<bool>,
}

impl Running {
    /// Runs until the shutdown that `start` was given, or [`Running::stop`], and ends in order.
    pub async fn wait(mut self) {
        let mut stopped = self.stop.subscribe();
        if stopped.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("shutdown handle is gone");
        }
        while self.doors.join_next().await.is_some() {}
        self.workers_stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        let refused = &self.state.refused;
        refused.settle(&self.state.store, clock::now(), true).await;
        if let Err(error) = run_stopped(&self.state.store, self.state.started, clock::now()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "end of this run not recorded"
            );
        }
        self.state.store.close().await;
    }

    /// Asks it to end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// Starts everything. Where it cannot, nothing keeps running.
pub async fn start(
    settings: CollectorSettings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, StartError> {
    if !exists(&settings.state) {
        return Err(StartError::NotInitialised {
            state: settings.state,
        });
    }
    files::private_directory(&settings.state.join("manifests"))?;
    let keys = Arc::new(CollectorKeys::load(&settings.state)?);
    let agents_authority = Arc::new(Authority::load(&settings.state, AGENTS)?);
    let people_authority = Arc::new(Authority::load(&settings.state, PEOPLE)?);
    let listeners = Listeners::bind(&settings).await?;
    let started = clock::now();
    let certificates = Certificates {
        agents: Arc::new(ServerCertificate::new(
            Arc::clone(&agents_authority),
            settings.names.clone(),
            started,
        )?),
        people: Arc::new(ServerCertificate::new(
            people_authority,
            settings.names.clone(),
            started,
        )?),
    };
    let store = Store::open(&store_file(&settings.state)).await?;
    run_started(&store, started).await?;
    note_origin(&store, &settings.origin).await?;
    let metrics = Arc::new(Metrics::new());
    let state = AppState {
        images: ImageCache::new(store.clone(), &settings.state),
        assignments: Arc::new(Assignments::load(&store).await?),
        exceptions: Arc::new(Exceptions::load(&store).await?),
        asked: Arc::new(fleet::Asked::load(&store).await?),
        snapshots: Snapshots::load(&store).await?,
        former: Arc::new(Former::load(&store).await?),
        budgets: Arc::new(Budgets::new(&settings.limits)),
        challenges: Arc::new(Challenges::default()),
        listed: Listed::default(),
        refused: Arc::default(),
        pins: Arc::new(Pins::load(&store).await?),
        bench: Arc::new(Semaphore::new(BENCH)),
        channels: Channels {
            alerting: Arc::new(Alerting::new(&settings, listeners.bound.ops)),
            metrics: Arc::clone(&metrics),
        },
        metrics,
        authority: agents_authority,
        keys,
        started,
        bound: listeners.bound,
        settings: Arc::new(settings),
        store,
    };
    open(state, listeners, certificates, shutdown)
}

/// Statements for another log make no node fresh: agents keep the origin that they enrolled with, so it should never change.
async fn note_origin(store: &Store, origin: &str) -> Result<(), StoreError> {
    match meta_get(store, "origin").await? {
        Some(before) if before != origin => {
            tracing::error!(
                before,
                origin,
                "the log's origin was changed: nodes that enrolled before go stale until they enrol again; configure `origin` as it was"
            );
            Ok(())
        }
        Some(_) => Ok(()),
        None => {
            let origin = origin.to_owned();
            store
                .write(move |tx| Box::pin(async move { meta_set(tx, "origin", &origin).await }))
                .await
        }
    }
}

struct Certificates {
    agents: Arc<ServerCertificate>,
    people: Arc<ServerCertificate>,
}

struct Listeners {
    agents: TcpListener,
    join: TcpListener,
    ops: TcpListener,
    bound: Bound,
}

impl Listeners {
    async fn bind(settings: &CollectorSettings) -> Result<Self, StartError> {
        let (agents, agents_at) = listen("agents", settings.agents).await?;
        let (join, join_at) = listen("joining", settings.join).await?;
        let (ops, ops_at) = listen("people", settings.ops).await?;
        Ok(Self {
            agents,
            join,
            ops,
            bound: Bound {
                agents: agents_at,
                join: join_at,
                ops: ops_at,
            },
        })
    }
}

async fn listen(
    door: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind {
        door,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn open(
    state: AppState,
    listeners: Listeners,
    certificates: Certificates,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Running, StartError> {
    let agents_tls = door::agents_tls(&state.authority, Arc::clone(&certificates.agents))?;
    let joining_tls = door::joining_tls(Arc::clone(&certificates.agents))?;
    // Beyond loopback there is no plain HTTP, whether a certificate is configured or not.
    let configured = state.settings.tls.as_ref();
    let people_tls = (configured.is_some() || !listeners.bound.ops.ip().is_loopback())
        .then(|| door::people_tls(configured, Arc::clone(&certificates.people)))
        .transpose()?;
    let ops_tls = people_tls.is_some();
    let (stop, stopping) = watch::channel(false);
    let (workers_stop, workers_stopping) = watch::channel(false);
    let idle = Duration::from_secs(state.settings.interval.saturating_mul(3)).max(IDLE);
    let door = |name, listener, tls, router, idle| Door {
        name,
        listener,
        tls,
        router,
        connections: state.settings.limits.connections,
        idle,
        metrics: Arc::clone(&state.metrics),
    };
    let mut doors = JoinSet::new();
    let bound = listeners.bound;
    doors.spawn(door::serve(
        door(
            "agents",
            listeners.agents,
            Some(agents_tls),
            door::agents::router(state.clone()),
            idle,
        ),
        stopping.clone(),
    ));
    doors.spawn(door::serve(
        door(
            "joining",
            listeners.join,
            Some(joining_tls),
            door::joining::router(state.clone()),
            IDLE,
        ),
        stopping.clone(),
    ));
    doors.spawn(door::serve(
        door(
            "people",
            listeners.ops,
            people_tls,
            door::people::router(state.clone(), stopping.clone()),
            IDLE,
        ),
        stopping,
    ));
    let mut workers = JoinSet::new();
    workers.spawn(alerts::run(
        state.store.clone(),
        state.channels.clone(),
        workers_stopping.clone(),
    ));
    workers.spawn(keep_time(
        state.clone(),
        certificates,
        workers_stopping.clone(),
    ));
    if state.settings.journal {
        workers.spawn(journal::run(state.store.clone(), workers_stopping));
    }
    let stopper = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        stopper.send_replace(true);
    });
    Ok(Running {
        agents: bound.agents,
        join: bound.join,
        ops: bound.ops,
        ops_tls,
        events: state.store.events().clone(),
        state,
        stop,
        doors,
        workers,
        workers_stop,
    })
}

/// Everything that happens because time passes.
async fn keep_time(
    state: AppState,
    certificates: Certificates,
    mut shutdown: watch::Receiver<bool>,
) {
    let tick = Duration::from_secs(state.settings.interval)
        .div_f64(4.0)
        .min(TICK);
    let mut renewed = Instant::now();
    let mut swept = Instant::now();
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(tick) => {}
        }
        let now = clock::now();
        report(
            "silence not looked at",
            violations::silence::watch(&state, now).await.map(drop),
        );
        state.refused.settle(&state.store, now, false).await;
        state
            .metrics
            .store_full
            .set(i64::from(state.store.is_full()));
        if swept.elapsed() >= Duration::from_secs(30) {
            swept = Instant::now();
            state.challenges.sweep(swept);
            state.budgets.sweep(swept);
            report(
                "heartbeat not recorded",
                heartbeat(&state.store, state.started, now).await,
            );
            report(
                "what is over its time not pruned",
                retention::prune(&state, now).await.map(drop),
            );
            report(
                "size of the store not noted",
                retention::note_size(&state.store, now).await,
            );
            report(
                "gone nodes not retired",
                fleet::retire_gone(&state, now).await,
            );
        }
        if renewed.elapsed() >= RENEWAL {
            renewed = Instant::now();
            for certificate in [&certificates.agents, &certificates.people] {
                if let Err(error) = certificate.renew(now) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "door keeps its old certificate"
                    );
                }
            }
        }
    }
}

fn report(what: &'static str, outcome: Result<(), StoreError>) {
    if let Err(error) = outcome {
        tracing::warn!(error = &error as &dyn std::error::Error, "{what}");
    }
}
