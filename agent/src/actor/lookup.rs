//! Where processes cannot be followed: what `/proc` tells of one at the moment when its event is read.
//!
//! A process that is gone by then stays unknown; nothing is guessed from a number that may have been given anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::statement::{Actor, Ancestor, Confidence};

use super::doer::Doer;
use super::process;

/// Processes remembered; when full all are forgotten and learnt anew.
const CACHE_LIMIT: usize = 4_096;
/// Parents told of one process.
const ANCESTOR_LIMIT: usize = 8;
/// How long a process that is gone may still be taken for the one that was seen under its number.
const AFTERLIFE: Duration = Duration::from_secs(1);

/// Looks up processes, remembering by number and start time what it found.
#[derive(Debug)]
pub(crate) struct Observer {
    known: HashMap<u32, Known>,
    now: Instant,
}

#[derive(Debug)]
struct Known {
    start: u64,
    parent: u32,
    exe: Option<String>,
    seen: Instant,
    /// The whole of it; parents are looked up in less detail.
    actor: Option<Arc<Doer>>,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            now: Instant::now(),
        }
    }
}

impl Observer {
    /// Begins a batch of events: within it a process is looked at once.
    pub(crate) fn begin(&mut self) {
        self.now = Instant::now();
        if self.known.len() > CACHE_LIMIT {
            self.known.clear();
        }
    }

    /// The process with this number, as it is now.
    pub(crate) fn observe(&mut self, pid: i32) -> Arc<Doer> {
        let Some(pid) = u32::try_from(pid).ok().filter(|pid| *pid > 0) else {
            return Arc::default();
        };
        self.look(pid);
        let Some(known) = self.known.get(&pid) else {
            return Arc::new(Doer::unknown(pid));
        };
        if let Some(actor) = &known.actor {
            return Arc::clone(actor);
        }
        let actor = Arc::new(Doer::from(self.describe(pid)));
        if let Some(known) = self.known.get_mut(&pid) {
            known.actor = Some(Arc::clone(&actor));
        }
        actor
    }

    /// Brings what is known of a process up to date, or forgets it.
    fn look(&mut self, pid: u32) {
        if self
            .known
            .get(&pid)
            .is_some_and(|known| known.seen == self.now)
        {
            return;
        }
        let Some(birth) = process::birth(pid) else {
            let recent = |known: &Known| self.now.saturating_duration_since(known.seen) < AFTERLIFE;
            if !self.known.get(&pid).is_some_and(recent) {
                self.known.remove(&pid);
            }
            return;
        };
        let exe = process::exe(pid);
        if let Some(known) = self.known.get_mut(&pid)
            && (known.start, known.parent) == (birth.start, birth.parent)
            && known.exe == exe
        {
            known.seen = self.now;
            // Between its exec and its first instruction a process has no command line yet.
            known.actor = known
                .actor
                .take()
                .filter(|doer| doer.actor.cmdline.is_some());
            return;
        }
        let known = Known {
            start: birth.start,
            parent: birth.parent,
            exe,
            seen: self.now,
            actor: None,
        };
        self.known.insert(pid, known);
    }

    fn describe(&mut self, pid: u32) -> Actor {
        let mut actor = process::read(pid);
        actor.ancestors = self.ancestors(pid);
        // What was read belongs to this process only if it is still the same one.
        let start = self.known.get(&pid).map(|known| known.start);
        if process::birth(pid).map(|birth| birth.start) != start {
            return Actor {
                pid,
                confidence: Confidence::Low,
                ..Actor::default()
            };
        }
        // Nobody saw who set its login user.
        actor.confidence = if actor.exe.is_some() && actor.auid.is_none() {
            Confidence::Medium
        } else {
            Confidence::Low
        };
        actor
    }

    fn ancestors(&mut self, pid: u32) -> Vec<Ancestor> {
        let mut ancestors = Vec::new();
        let mut parent = self.known.get(&pid).map_or(0, |known| known.parent);
        while parent > 0 && ancestors.len() < ANCESTOR_LIMIT {
            self.look(parent);
            let Some(known) = self.known.get(&parent) else {
                break;
            };
            ancestors.push(Ancestor {
                pid: parent,
                exe: known.exe.clone(),
            });
            parent = known.parent;
        }
        ancestors
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "a test may stop at the first surprise"
)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_living_process_is_described_with_its_parents() {
        let mut observer = Observer::default();
        let mut child = Command::new("sleep")
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let actor = loop {
            observer.begin();
            let actor = observer.observe(child.id() as i32).actor.clone();
            if actor.cmdline.as_deref() == Some("sleep 60") || Instant::now() > deadline {
                break actor;
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(actor.cmdline.as_deref(), Some("sleep 60"));
        assert_eq!(actor.confidence, Confidence::Medium);
        assert!(actor.exe.as_deref().unwrap().starts_with('/'));
        assert_eq!(actor.ancestors[0].pid, std::process::id());
        assert!(actor.uid.is_some() && actor.euid.is_some());
    }

    #[test]
    fn a_process_that_is_gone_is_a_number() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let actor = Observer::default().observe(child.id() as i32).actor.clone();
        assert_eq!(
            (actor.pid, actor.exe.as_deref(), actor.confidence),
            (child.id(), None, Confidence::Low)
        );
    }

    #[test]
    fn a_repeat_within_a_batch_is_the_same_value() {
        let mut observer = Observer::default();
        let pid = std::process::id() as i32;
        assert!(Arc::ptr_eq(&observer.observe(pid), &observer.observe(pid)));
        observer.begin();
        let again = observer.observe(pid);
        assert!(Arc::ptr_eq(&again, &observer.observe(pid)));
    }
}
