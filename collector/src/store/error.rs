//! What can go wrong between a job and its commit.

/// SQLite's result codes that mean "no space": FULL, and the I/O errors of a write and of growing the shared index.
const NO_SPACE: [&str; 3] = ["13", "778", "4874"];

/// Why the store could not do something. `Clone` because one failed commit fails a whole group of jobs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space left: nothing of this was stored.
    #[error("the disk of the store is full")]
    Full,
    /// The writer's queue is full.
    #[error("the writer has too much to do")]
    Busy,
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
    /// A statement failed.
    #[error("the store refused a statement: {reason}")]
    Sql {
        /// What the database said.
        reason: String,
    },
    /// The tables could not be made or brought up to date.
    #[error("the store's tables could not be brought up to date")]
    Migrate {
        /// Which migration.
        #[source]
        source: MigrateFailure,
    },
    /// A stored value is not what this program writes.
    #[error("the store holds a value that cannot be read: {what}")]
    Corrupt {
        /// Table, column and reason.
        what: String,
    },
    /// A job of the same group broke the transaction.
    #[error("the transaction was broken off: {reason}")]
    Aborted {
        /// By what.
        reason: String,
    },
}

/// A migration's failure, in words (the original cannot be cloned).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct MigrateFailure(pub String);

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(database) = &error
            && database
                .code()
                .is_some_and(|code| NO_SPACE.contains(&code.as_ref()))
        {
            return Self::Full;
        }
        if let sqlx::Error::Io(io) = &error
            && io.kind() == std::io::ErrorKind::StorageFull
        {
            return Self::Full;
        }
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Self::Closed,
            other => Self::Sql {
                reason: other.to_string(),
            },
        }
    }
}

impl StoreError {
    /// A stored value that cannot be read.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}
