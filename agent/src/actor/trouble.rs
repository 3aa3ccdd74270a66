//! What could not be followed, for whoever shows the standing limits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    lost: AtomicU64,
    untracked: AtomicU64,
}

impl Trouble {
    /// Events were lost once more.
    pub(super) fn lost_events(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// So many processes did not find room until now.
    pub(super) fn left_out(&self, processes: u64) {
        self.untracked.store(processes, Ordering::Relaxed);
    }

    /// In words, for the standing limits.
    pub(crate) fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            limits.push(format!(
                "process events were lost {lost} times since the start: who did something then is told less surely"
            ));
        }
        let untracked = self.untracked.load(Ordering::Relaxed);
        if untracked > 0 {
            limits.push(format!(
                "there were more processes than can be followed: {untracked} were not, and are told as unknown"
            ));
        }
        limits
    }
}
