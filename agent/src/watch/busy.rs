//! Files that are written again and again where scope does not look: logs, databases. Each write would wake the reader and
//! hold up the writer, for nothing: the kernel is asked to say nothing of such a file for a moment.
//!
//! Deciding is plain code over handles and times. A file that has a sealed name is never given to it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// So long nothing is said of a busy file. It may be moved into scope meanwhile: longer would be too long then.
const QUIET: Duration = Duration::from_millis(250);
/// Two writes within this make a file busy.
const AGAIN: Duration = Duration::from_secs(1);
/// Files whose last write is remembered; when full all are forgotten and learnt anew.
const REMEMBERED: usize = 4_096;
/// Files that are quiet at a time: each costs the kernel a mark.
const QUIETED: usize = 512;

/// A file handle and its file system, as the key of an object has them.
type Key = Vec<u8>;

/// What was written lately, and what is quiet now.
#[derive(Debug, Default)]
pub(super) struct Busy {
    written: HashMap<Key, Instant>,
    quiet: VecDeque<(Instant, Key)>,
}

impl Busy {
    /// A file was written. Whether to be quiet about it from now on.
    pub(super) fn written(&mut self, key: &[u8], now: Instant) -> bool {
        if let Some(last) = self.written.get_mut(key) {
            let again = now.saturating_duration_since(*last) <= AGAIN;
            *last = now;
            if again && self.quiet.len() < QUIETED {
                self.written.remove(key);
                self.quiet.push_back((now + QUIET, key.to_vec()));
                return true;
            }
            return false;
        }
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(key.to_vec(), now);
        false
    }

    /// A file was closed by whoever wrote it: what comes next begins anew.
    pub(super) fn closed(&mut self, key: &[u8]) {
        self.written.remove(key);
    }

    /// A file of which is to be spoken again now.
    pub(super) fn take_over(&mut self, now: Instant) -> Option<Key> {
        let (until, _) = self.quiet.front()?;
        if *until > now {
            return None;
        }
        self.quiet.pop_front().map(|(_, key)| key)
    }

    /// When the first of them is to be spoken of again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.quiet.front().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_write_without_an_end_makes_a_file_quiet_for_a_moment() {
        let (mut busy, start) = (Busy::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!busy.written(b"log", at(0)));
        assert!(!busy.written(b"other", at(1)));
        assert!(busy.written(b"log", at(5)));
        assert_eq!(busy.next(), Some(at(255)));
        assert_eq!(busy.take_over(at(254)), None);
        assert_eq!(busy.take_over(at(255)), Some(b"log".to_vec()));
        assert_eq!(busy.take_over(at(255)), None);
        assert_eq!(busy.next(), None);
        // It begins anew.
        assert!(!busy.written(b"log", at(256)));
        assert!(busy.written(b"log", at(260)));
    }

    #[test]
    fn a_file_that_is_closed_each_time_or_written_seldom_is_not_busy() {
        let (mut busy, start) = (Busy::default(), Instant::now());
        for write in 0..10 {
            assert!(!busy.written(b"closed", start));
            busy.closed(b"closed");
            assert!(!busy.written(b"seldom", start + AGAIN * 2 * write));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut busy, start) = (Busy::default(), Instant::now());
        for turn in 0..2 {
            for file in 0..10_000_u32 {
                busy.written(&file.to_le_bytes(), start + Duration::from_millis(turn));
            }
        }
        assert!(busy.written.len() <= REMEMBERED && busy.quiet.len() <= QUIETED);
    }
}
