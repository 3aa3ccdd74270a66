//! Large files that changed are read by a thread of their own, one at a time: hashing some gibibytes takes seconds to minutes,
//! in which the engine goes on. Until it is read a path counts as unsettled: what is known of its content is from before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use attestation::path::ImagePath;
use attestation::scope::Decision;

use super::Engine;
use super::gaps::gap;
use super::group::Observed;
use super::sweep::Occasion;
use super::wanted::Wanted;
use crate::clock;
use crate::monitor::Event;
use crate::scan::{Progress, Reading, Root, read_entries};

/// From this size on: below, hashing takes less than the longest time that events are gathered.
pub(super) const LARGE: u64 = 256 << 20;
/// Files that wait for their turn; more than that is a rescan.
const WAITING: usize = 256;

/// A path that is to be read.
#[derive(Clone, Debug)]
pub(super) struct Far {
    pub(super) group: usize,
    pub(super) path: ImagePath,
    pub(super) decision: Decision,
    pub(super) occasion: Occasion,
    /// Events that pointed at it, and whether it came.
    pub(super) count: u64,
    pub(super) came: bool,
}

impl Far {
    fn is_of(&self, group: usize, path: &ImagePath) -> bool {
        self.group == group && self.path == *path
    }
}

/// What waits and what is being read.
#[derive(Default)]
pub(super) struct Afar {
    waiting: VecDeque<Far>,
    running: Option<Running>,
}

struct Running {
    far: Far,
    progress: Arc<Progress>,
    /// Taken when it is joined.
    thread: Option<JoinHandle<Option<Observed>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.stop();
    }
}

impl Afar {
    /// Whether a path waits for its turn, or is being read.
    pub(super) fn has(&self, group: usize, path: &ImagePath) -> bool {
        let running = self.running.iter().map(|running| &running.far);
        let mut all = self.waiting.iter().chain(running);
        all.any(|far| far.is_of(group, path))
    }

    /// Whether the engine should look soon whether something was read.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn waits(&self, group: usize, path: &ImagePath) -> bool {
        self.waiting.iter().any(|far| far.is_of(group, path))
    }

    /// Puts a path last; one that waits already is read once for both. `false`: too many wait.
    fn push(&mut self, far: Far) -> bool {
        let mut waiting = self.waiting.iter_mut();
        if let Some(known) = waiting.find(|known| known.is_of(far.group, &far.path)) {
            known.count = known.count.saturating_add(far.count);
            known.came |= far.came;
            known.occasion.last = far.occasion.last;
            if far.occasion.actor.is_some() {
                known.occasion.actor = far.occasion.actor;
            }
            return true;
        }
        if self.waiting.len() >= WAITING {
            return false;
        }
        self.waiting.push_back(far);
        true
    }

    /// Starts the next, if nothing is being read.
    fn start(&mut self, root: &Root, wanted: impl Fn(&Far) -> Option<Wanted>) {
        if self.running.is_some() {
            return;
        }
        let Some(far) = self.waiting.pop_front() else {
            return;
        };
        let Some(wanted) = wanted(&far) else { return };
        let progress = Arc::new(Progress::new());
        let (root, reads, stopping) = (root.clone(), far.clone(), Arc::clone(&progress));
        let read = move || read(&root, &reads, &wanted, &stopping);
        let thread = std::thread::Builder::new()
            .name("afar".to_owned())
            .spawn(read);
        match thread {
            Ok(thread) => {
                self.running = Some(Running {
                    far,
                    progress,
                    thread: Some(thread),
                });
            }
            Err(error) => {
                tracing::error!(%error, "start the thread that reads large files");
                // Its turn comes again; until then it is unsettled.
                self.waiting.push_front(far);
            }
        }
    }

    fn take_finished(&mut self) -> Option<(Far, Option<Observed>)> {
        let finished = |running: &mut Running| {
            let thread = running.thread.as_ref();
            thread.is_none_or(JoinHandle::is_finished)
        };
        let mut running = self.running.take_if(finished)?;
        let observed = running.thread.take().and_then(|thread| thread.join().ok());
        Some((running.far.clone(), observed.flatten()))
    }
}

fn read(root: &Root, far: &Far, wanted: &Wanted, progress: &Progress) -> Option<Observed> {
    let started = clock::now();
    let path = [(far.path.clone(), far.decision, ())];
    let wanted = |path: &ImagePath, size| wanted.content(path, size);
    let mut reading: Option<Reading> = None;
    let manner = far.occasion.manner;
    read_entries(root, path, manner, progress, &wanted, |found, ()| {
        reading = Some(found.reading);
    });
    let reading = reading.filter(|_| !progress.is_stopped())?;
    Some(Observed::of(reading, started))
}

impl Engine {
    /// Has a large file read beside the engine.
    pub(super) fn read_afar(&mut self, far: Far) {
        let Some(group) = self.groups.get_mut(far.group) else {
            return;
        };
        if group.unsettled.insert(far.path.clone()) {
            self.monitor.event(Instant::now(), Event::Changed);
        }
        let first = far.occasion.first;
        if !self.afar.push(far) {
            self.open_gap(gap(first, clock::now(), "backlog"));
            self.monitor.event(Instant::now(), Event::RescanWanted);
        }
        self.start_afar();
    }

    /// Takes in a large file that was read, and has the next one read.
    pub(super) fn advance_afar(&mut self) {
        if let Some((far, observed)) = self.afar.take_finished() {
            match observed {
                Some(observed) => {
                    let Far { group, path, .. } = &far;
                    self.settle(*group, path, observed, &far.occasion, far.count, far.came);
                    // Something was done to it since that reading began.
                    if self.afar.waits(*group, path)
                        && let Some(group) = self.groups.get_mut(*group)
                    {
                        group.unsettled.insert(path.clone());
                    }
                }
                // Looked at again with what is unsettled.
                None => {
                    tracing::error!(path = %far.path, "the thread that read a large file ended abnormally")
                }
            }
        }
        self.start_afar();
    }

    fn start_afar(&mut self) {
        let Some(eyes) = &self.eyes else { return };
        let groups = &self.groups;
        let wanted = |far: &Far| groups.get(far.group).map(Wanted::in_group);
        self.afar.start(&eyes.root, wanted);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use attestation::scope::Expect;
    use attestation::time::Timestamp;

    use super::super::looks::AS_TOLD;
    use super::*;

    fn far(path: &str, last: i64, came: bool) -> Far {
        Far {
            group: 0,
            path: ImagePath::parse(path).unwrap(),
            decision: Decision {
                expect: Expect::Sealed,
                time: false,
            },
            occasion: Occasion {
                events: vec!["modify"],
                actor: None,
                first: Timestamp::from_micros(0),
                last: Timestamp::from_micros(last),
                seeing: true,
                manner: AS_TOLD,
            },
            count: 1,
            came,
        }
    }

    #[test]
    fn a_path_that_waits_is_read_once_for_all_that_was_done_to_it() {
        let mut afar = Afar::default();
        assert!(afar.push(far("./a", 1, false)));
        assert!(afar.push(far("./b", 2, false)));
        assert!(afar.push(far("./a", 3, true)));
        let [first, second] = afar.waiting.make_contiguous() else {
            unreachable!("two wait")
        };
        assert_eq!((first.count, first.came), (2, true));
        assert_eq!(first.occasion.last, Timestamp::from_micros(3));
        assert_eq!(second.path, ImagePath::parse("./b").unwrap());
        assert!(afar.has(0, &ImagePath::parse("./b").unwrap()));
        assert!(
            !afar.has(1, &ImagePath::parse("./b").unwrap()),
            "of another scope"
        );
    }

    #[test]
    fn no_more_wait_than_have_room() {
        let mut afar = Afar::default();
        for n in 0..WAITING {
            assert!(afar.push(far(&format!("./{n}"), 1, false)));
        }
        assert!(!afar.push(far("./more", 1, false)));
        assert!(afar.push(far("./7", 1, false)), "it waits already");
    }
}
