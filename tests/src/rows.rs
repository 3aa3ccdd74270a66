//! Tables of tricks: each row runs on its own, is named in the output with its time, and hides no row after it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// What became of the rows until now.
#[derive(Debug)]
pub struct Rows {
    table: String,
    failed: Vec<String>,
    began: Instant,
}

impl Rows {
    /// A table of this name.
    pub fn of(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            failed: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Runs one row; what it gives, unless it failed.
    pub fn row<T>(&mut self, name: &str, row: impl FnOnce() -> T) -> Option<T> {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(row));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        eprintln!(
            "{word:6} {:5} ms  {}: {name}",
            began.elapsed().as_millis(),
            self.table
        );
        if outcome.is_err() {
            self.failed.push(name.to_owned());
        }
        outcome.ok()
    }

    /// Fails if a row did.
    #[track_caller]
    pub fn end(self) {
        eprintln!("{}: {:.1?}", self.table, self.began.elapsed());
        assert!(
            self.failed.is_empty(),
            "{}: rows that failed: {:#?}",
            self.table,
            self.failed
        );
    }
}
