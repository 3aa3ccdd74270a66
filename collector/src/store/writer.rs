//! The writer: one task, one connection. It takes what is queued (at most a group), runs it in one transaction, commits,
//! and only then answers. Nobody is told of anything that is not on the disk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{NodeRow, Signals, StoreError};
use crate::events::Event;

/// Jobs that share a commit at most: a group of this size takes a few tens of milliseconds, which is the latency it adds.
const GROUP: usize = 256;
/// Node rows kept in memory: above the ten thousand nodes that this store is for. Past it the cache begins anew.
const CACHED_NODES: usize = 32_768;

/// What a job works with: the connection inside the open transaction, the nodes as they are, and what to tell afterwards.
pub struct Writing {
    /// Inside the transaction.
    pub connection: SqliteConnection,
    /// Nodes as the store has them; who writes to `nodes` by SQL must `forget` them.
    pub nodes: NodeCache,
    events: Vec<Event>,
    outbox: bool,
    journal: bool,
}

impl Writing {
    /// Sends an event when the transaction is committed.
    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Wakes the alert sender when the transaction is committed.
    pub fn outbox_changed(&mut self) {
        self.outbox = true;
    }

    /// Wakes the journal when the transaction is committed.
    pub fn journal_changed(&mut self) {
        self.journal = true;
    }

    /// A node, from the cache or the store.
    pub async fn node(&mut self, id: &str) -> Result<Option<NodeRow>, StoreError> {
        if let Some(row) = self.nodes.rows.get(id) {
            return Ok(Some(row.clone()));
        }
        let row: Option<NodeRow> = sqlx::query_as("SELECT * FROM nodes WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut self.connection)
            .await?;
        if let Some(row) = &row {
            self.nodes.keep(row.clone());
        }
        Ok(row)
    }

    /// Writes a node's row and keeps it.
    pub async fn put_node(&mut self, row: NodeRow) -> Result<(), StoreError> {
        row.write(&mut self.connection).await?;
        self.nodes.keep(row);
        Ok(())
    }
}

/// Node rows as the writer last read or wrote them.
#[derive(Default)]
pub struct NodeCache {
    rows: HashMap<String, NodeRow>,
    /// Nodes that are known to have no open violation.
    clean: HashSet<String>,
}

impl NodeCache {
    /// Drops a node: the next look reads the store.
    pub fn forget(&mut self, id: &str) {
        self.rows.remove(id);
    }

    /// Whether a node is known to have no open violation that a statement may end.
    pub fn is_clean(&self, id: &str) -> bool {
        self.clean.contains(id)
    }

    /// Remembers whether a node has open violations that a statement may end.
    pub fn set_clean(&mut self, id: &str, clean: bool) {
        if !clean {
            self.clean.remove(id);
        } else if self.clean.len() < CACHED_NODES && !self.clean.contains(id) {
            self.clean.insert(id.to_owned());
        }
    }

    fn keep(&mut self, row: NodeRow) {
        if self.rows.len() >= CACHED_NODES {
            self.rows.clear();
        }
        self.rows.insert(row.id.clone(), row);
    }
}

/// A job without its type: run inside the transaction, finished after the commit.
pub(super) trait Work: Send {
    fn run<'t>(&'t mut self, tx: &'t mut Writing) -> BoxFuture<'t, Result<(), StoreError>>;
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Pending<T, F> {
    job: Option<F>,
    made: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

pub(super) fn work<T, F>(job: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Box<dyn Work>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Writing) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
{
    Box::new(Pending {
        job: Some(job),
        made: None,
        reply,
    })
}

impl<T, F> Work for Pending<T, F>
where
    T: Send + 'static,
    F: for<'t> FnOnce(&'t mut Writing) -> BoxFuture<'t, Result<T, StoreError>> + Send + 'static,
{
    fn run<'t>(&'t mut self, tx: &'t mut Writing) -> BoxFuture<'t, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(job) = self.job.take() {
                self.made = Some(job(tx).await?);
            }
            Ok(())
        })
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (outcome, self.made) {
            (Ok(()), Some(made)) => Ok(made),
            (Ok(()), None) => Err(StoreError::Closed),
            (Err(error), _) => Err(error),
        };
        // Who asked may have gone away; the commit stands all the same.
        drop(self.reply.send(answer));
    }
}

/// Runs until the last handle is gone.
pub(super) async fn run(
    connection: SqliteConnection,
    mut queue: mpsc::Receiver<Box<dyn Work>>,
    signals: Arc<Signals>,
) {
    let mut tx = Writing {
        connection,
        nodes: NodeCache::default(),
        events: Vec::new(),
        outbox: false,
        journal: false,
    };
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let jobs = std::mem::take(&mut group);
        let done = transaction(&mut tx, jobs).await;
        let failed = done.iter().find_map(|(_, outcome)| outcome.as_ref().err());
        note_space(&signals, failed);
        for event in tx.events.drain(..) {
            // No listener is no error.
            drop(signals.events.send(event));
        }
        if std::mem::take(&mut tx.outbox) {
            signals.outbox.notify_one();
        }
        if std::mem::take(&mut tx.journal) {
            signals.journal.notify_one();
        }
        for (job, outcome) in done {
            job.finish(outcome);
        }
    }
    if let Err(error) = tx.connection.close().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "store did not close cleanly"
        );
    }
}

type Done = Vec<(Box<dyn Work>, Result<(), StoreError>)>;

async fn transaction(tx: &mut Writing, jobs: Vec<Box<dyn Work>>) -> Done {
    if let Err(error) = statement(tx, "BEGIN IMMEDIATE").await {
        return jobs
            .into_iter()
            .map(|job| (job, Err(error.clone())))
            .collect();
    }
    let mut done: Done = Vec::with_capacity(jobs.len());
    let mut broken = None;
    for mut job in jobs {
        let outcome = match &broken {
            Some(error) => Err(aborted(error)),
            None => match saved(tx, job.as_mut()).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    broken = Some(error.clone());
                    Err(error)
                }
            },
        };
        done.push((job, outcome));
    }
    if broken.is_none()
        && let Err(error) = statement(tx, "COMMIT").await
    {
        broken = Some(error);
    }
    if let Some(error) = broken {
        undo(tx).await;
        for (_, outcome) in &mut done {
            if outcome.is_ok() {
                *outcome = Err(aborted(&error));
            }
        }
    }
    done
}

/// Runs a job under a savepoint. The outer error means that the whole transaction is lost.
async fn saved(tx: &mut Writing, job: &mut dyn Work) -> Result<Result<(), StoreError>, StoreError> {
    let (events, outbox, journal) = (tx.events.len(), tx.outbox, tx.journal);
    statement(tx, "SAVEPOINT job").await?;
    match job.run(tx).await {
        Ok(()) => {
            statement(tx, "RELEASE job").await?;
            Ok(Ok(()))
        }
        Err(error) => {
            tx.nodes = NodeCache::default();
            tx.events.truncate(events);
            (tx.outbox, tx.journal) = (outbox, journal);
            // A full disk makes SQLite roll back everything: the savepoint is gone and with it the group.
            if statement(tx, "ROLLBACK TO job").await.is_err() {
                return Err(error);
            }
            statement(tx, "RELEASE job").await?;
            Ok(Err(error))
        }
    }
}

async fn undo(tx: &mut Writing) {
    tx.nodes = NodeCache::default();
    tx.events.clear();
    (tx.outbox, tx.journal) = (false, false);
    if let Err(error) = statement(tx, "ROLLBACK").await {
        // Nothing to roll back: SQLite did it by itself.
        tracing::debug!(error = &error as &dyn std::error::Error, "rollback");
    }
}

async fn statement(tx: &mut Writing, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(&mut tx.connection).await?;
    Ok(())
}

fn aborted(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        other => StoreError::Aborted {
            reason: other.to_string(),
        },
    }
}

fn note_space(signals: &Signals, failed: Option<&StoreError>) {
    let full = matches!(failed, Some(StoreError::Full));
    if failed.is_some() && !full {
        return;
    }
    if signals.full.swap(full, Ordering::Relaxed) != full {
        if full {
            tracing::error!(
                "disk of the store is full: statements are refused until there is space"
            );
        } else {
            tracing::info!("disk of the store has space again");
        }
        signals.journal.notify_one();
    }
}
