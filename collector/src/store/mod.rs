//! The embedded store: SQLite in WAL mode, synced before anybody is told. Many readers; one writer task that commits
//! in groups, so that a sync is shared by all who wait for it.

mod error;
mod meta;
pub mod nodes;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::events::{EVENTS_KEPT, Event};

pub use self::error::StoreError;
pub use self::meta::{heartbeat, meta_get, meta_set, run_started, run_stopped};
pub use self::nodes::{NodeRow, NodeState};
pub use self::writer::{NodeCache, Writing};

/// Jobs that may wait for the writer; who finds it full is told to come again (503).
const QUEUE: usize = 4_096;
/// Read connections: enough for pages and the API on two cores.
const READERS: u32 = 8;

/// A job for the writer; its outcome is decided when the group is committed.
type Job = Box<dyn writer::Work>;

/// Handle to the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    read: SqlitePool,
    jobs: mpsc::Sender<Job>,
    signals: Arc<Signals>,
}

/// What is told after commits.
pub(crate) struct Signals {
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) outbox: Notify,
    pub(crate) journal: Notify,
    pub(crate) full: std::sync::atomic::AtomicBool,
}

impl Store {
    /// Opens the store in a file, made and migrated where needed, and starts its writer on the current runtime.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(StoreError::from)?;
        sqlx::migrate!("./migrations")
            .run(&mut connection)
            .await
            .map_err(|error| StoreError::Migrate {
                source: error::MigrateFailure(error.to_string()),
            })?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.clone().pragma("query_only", "ON"))
            .await
            .map_err(StoreError::from)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let signals = Arc::new(Signals {
            events: broadcast::channel(EVENTS_KEPT).0,
            outbox: Notify::new(),
            journal: Notify::new(),
            full: std::sync::atomic::AtomicBool::new(false),
        });
        tokio::spawn(writer::run(connection, queue, Arc::clone(&signals)));
        Ok(Self {
            read,
            jobs,
            signals,
        })
    }

    /// For reading: connections of this pool cannot write.
    pub fn read_pool(&self) -> &SqlitePool {
        &self.read
    }

    /// Runs a job inside the next transaction and answers once that is committed and synced. An error undoes this job
    /// alone; the others of its group stand.
    ///
    /// `store.write(|tx| Box::pin(async move { sqlx::query("…").execute(&mut tx.connection).await?; Ok(()) }))`
    pub async fn write<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Writing) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .try_send(writer::work(job, reply))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            })?;
        answer.await.map_err(|_gone| StoreError::Closed)?
    }

    /// The stream of events; each is sent after the commit that made it true.
    pub fn events(&self) -> &broadcast::Sender<Event> {
        &self.signals.events
    }

    /// Resolves when the outbox has got new rows since it was last awaited.
    pub async fn outbox_changed(&self) {
        self.signals.outbox.notified().await;
    }

    /// Resolves when there is something new for the journal.
    pub async fn journal_changed(&self) {
        self.signals.journal.notified().await;
    }

    /// Whether the last commit failed for want of space.
    pub fn is_full(&self) -> bool {
        self.signals.full.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Closes the readers. The writer ends with the last handle.
    pub async fn close(&self) {
        self.read.close().await;
    }
}
