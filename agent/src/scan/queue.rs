//! Work shared by the threads of a scan: each takes its own newest, and the oldest of others when it has none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long an idle thread sleeps before it looks again, should it miss the bell.
const NAP: Duration = Duration::from_millis(1);

pub(super) struct Queue<J> {
    lanes: Vec<Mutex<VecDeque<J>>>,
    /// Jobs that are queued or being done.
    open: AtomicUsize,
    idle: AtomicUsize,
    bell: Condvar,
    rest: Mutex<()>,
}

/// A job being done; it counts as done when this is dropped.
pub(super) struct Turn<'q, J> {
    queue: &'q Queue<J>,
}

impl<J> Queue<J> {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            lanes: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
            open: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            bell: Condvar::new(),
            rest: Mutex::new(()),
        }
    }

    pub(super) fn push(&self, lane: usize, job: J) {
        self.open.fetch_add(1, Ordering::AcqRel);
        self.lane(lane).push_back(job);
        if self.has_idle() {
            self.bell.notify_one();
        }
    }

    /// Whether a thread waits for work.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// The next job for this thread, or none when all is done.
    pub(super) fn next(&self, lane: usize, stopped: &dyn Fn() -> bool) -> Option<(J, Turn<'_, J>)> {
        loop {
            if stopped() {
                return None;
            }
            if let Some(job) = self.find(lane) {
                return Some((job, Turn { queue: self }));
            }
            if self.open.load(Ordering::Acquire) == 0 {
                self.bell.notify_all();
                return None;
            }
            let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_add(1, Ordering::Relaxed);
            drop(self.bell.wait_timeout(rest, NAP));
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn find(&self, lane: usize) -> Option<J> {
        if let Some(job) = self.lane(lane).pop_back() {
            return Some(job);
        }
        let others = self.lanes.len();
        (1..others).find_map(|step| self.lane(lane + step).pop_front())
    }

    fn lane(&self, lane: usize) -> MutexGuard<'_, VecDeque<J>> {
        self.lanes[lane % self.lanes.len()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Drop for Turn<'_, J> {
    fn drop(&mut self) {
        if self.queue.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.bell.notify_all();
        }
    }
}
