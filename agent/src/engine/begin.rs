//! Beginning the view: the root is opened and watched, then read, for the images that are allowed now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::digest::Digest;
use attestation::mounts;
use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::time::Timestamp;

use super::baseline::{Baseline, BaselineError};
use super::gaps::gap;
use super::group::Group;
use super::touched::Touch;
use super::{Engine, count};
use crate::clock;
use crate::event::AgentEvent;
use crate::image::Candidate;
use crate::monitor::Event;
use crate::scan::{Root, RootError};
use crate::status::State;
use crate::watch::{Watch, WatchError};

/// Images compared with at a time: the assigned one, the one before, and room for a hurried third.
const CANDIDATES: usize = 4;
/// After the root could not be looked at.
const BLIND_RETRY: Duration = Duration::from_secs(30);
/// The first statement of a run waits so long for a challenge, to be fresh.
const FIRST_CHALLENGE: Duration = Duration::from_secs(2);

/// Why the root cannot be looked at.
#[derive(Debug, thiserror::Error)]
enum BlindError {
    #[error("open the root")]
    Root(#[from] RootError),
    #[error("watch the root")]
    Watch(#[from] WatchError),
    #[error("read the root")]
    Baseline(#[from] BaselineError),
}

/// The root as it is open and watched.
pub(super) struct Eyes {
    pub(super) root: Root,
    pub(super) watch: Watch,
    /// Digest of the scope that the watch was started with.
    scope: Digest,
}

impl Engine {
    /// Begins the view anew: other images, or the first ones.
    pub(super) fn begin(&mut self) {
        let Some(mut candidates) = self.wanted.take() else {
            return;
        };
        candidates.sort_by_key(|candidate| {
            let image = &candidate.reference.statement.predicate;
            std::cmp::Reverse((image.epoch, image.created))
        });
        if candidates.len() > CANDIDATES {
            tracing::warn!(
                allowed = candidates.len(),
                compared = CANDIDATES,
                "more images are allowed than are compared with"
            );
            candidates.truncate(CANDIDATES);
        }
        self.sweeps.clear();
        self.subtrees.clear();
        self.rereading = None;
        self.told = None;
        if candidates.is_empty() {
            self.begin_without_image();
            return;
        }
        match self.look_at_all(candidates.clone()) {
            Ok(()) => {
                self.blind_until = None;
                self.await_challenge();
                self.monitor.event(Instant::now(), Event::Rescanned);
                self.monitor.event(Instant::now(), Event::Begun);
            }
            Err(error) => {
                if !self.parts.link.is_stopping() {
                    let error = crate::journal::chain(&error);
                    tracing::error!(%error, root = %self.parts.root.display(), "cannot look at the root; nothing is attested");
                    self.parts
                        .board
                        .update(|status| status.state = State::Blind);
                    self.parts.observer.tell(AgentEvent::Blind { error });
                }
                self.begun = false;
                self.wanted = Some(candidates);
                self.blind_until = Some(Instant::now() + BLIND_RETRY);
            }
        }
    }

    fn begin_without_image(&mut self) {
        self.parts.link.set_waker(None);
        self.eyes = None;
        self.groups.clear();
        self.since = None;
        self.read = None;
        self.unexpected.clear();
        self.mounts = mounts::table_digest(&[]);
        self.begun = true;
        self.parts.board.update(|status| {
            status.state = State::Pending;
            status.image = None;
        });
        self.monitor.event(Instant::now(), Event::Begun);
    }

    /// Watch first, then scan; what fires in between waits in the watch and is looked at after.
    fn look_at_all(&mut self, candidates: Vec<Candidate>) -> Result<(), BlindError> {
        self.parts
            .board
            .update(|status| status.state = State::Scanning);
        let mut scopes: BTreeMap<Digest, (Arc<Scope>, Vec<Candidate>)> = BTreeMap::new();
        for candidate in candidates {
            let scope = candidate.reference.statement.predicate.scope.clone();
            let digest = scope.digest();
            scopes
                .entry(digest)
                .or_insert_with(|| (Arc::new(scope), Vec::new()))
                .1
                .push(candidate);
        }
        let started = clock::now();
        self.open_eyes(&scopes, started)?;
        let Some(eyes) = &self.eyes else {
            return Ok(());
        };
        let first = self.read.is_none();
        let baseline = Baseline {
            root: &eyes.root,
            threads: self.parts.threads,
            link: &self.parts.link,
            observer: &self.parts.observer,
            service: &self.parts.service,
            since: self
                .parts
                .facts
                .before
                .filter(|_| first)
                .map(|(issued, _)| issued),
            now: started,
        };
        let mut groups = Vec::new();
        let mut moved = Vec::new();
        for (scope, candidates) in scopes.into_values() {
            let (group, touched) = baseline.read(scope, candidates)?;
            groups.push(group);
            moved.extend(touched);
        }
        keep_actors(&self.groups, &mut groups);
        self.groups = groups;
        for path in moved {
            let touch = Touch {
                events: vec!["ctime"],
                count: 1,
                first: started,
                last: started,
                actor: None,
            };
            self.touched.add(&path, touch);
        }
        if first && let Some((issued, goodbye)) = self.parts.facts.before {
            self.restart_gap = !goodbye;
            if self.restart_gap {
                self.open_gap(gap(issued, started, "restart"));
            }
        }
        // What was seen before this scan began is in it.
        self.gaps
            .retain(|gap| gap.cause == "restart" || gap.to.is_none_or(|to| to > started));
        self.read = Some(started);
        self.begun = true;
        self.check_mounts();
        self.tell_watching();
        crate::sys::give_back();
        Ok(())
    }

    /// A collector that is there gives a challenge within milliseconds; one that is not is not waited for.
    fn await_challenge(&self) {
        let end = Instant::now() + FIRST_CHALLENGE;
        while self.told_nothing && !self.parts.link.is_stopping() {
            let now = Instant::now();
            if now >= end || self.parts.link.challenges(now) > 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn open_eyes(
        &mut self,
        scopes: &BTreeMap<Digest, (Arc<Scope>, Vec<Candidate>)>,
        started: Timestamp,
    ) -> Result<(), BlindError> {
        let everything;
        let (digest, scope) = match scopes.iter().next() {
            Some((digest, (scope, _))) if scopes.len() == 1 => (*digest, scope.as_ref()),
            // Different scopes: watch what any of them may seal.
            _ => {
                everything = Scope::sealed_all();
                (everything.digest(), &everything)
            }
        };
        if self.eyes.as_ref().is_some_and(|eyes| eyes.scope == digest) {
            return Ok(());
        }
        let root = Root::open(&self.parts.root, scope)?;
        let watch = Watch::start(&root, &self.parts.root, scope, &self.parts.attribution)?;
        self.parts.link.set_waker(Some(watch.waker()));
        // The watch before ends only now: there is no moment without one.
        self.eyes = Some(Eyes {
            root,
            watch,
            scope: digest,
        });
        self.since = Some(started);
        self.last_good = started;
        Ok(())
    }

    fn tell_watching(&self) {
        let coverage = self.coverage();
        let now = clock::now();
        let nearest = self.nearest(now);
        let entries = nearest.map_or(0, |(group, _)| group.tree.len());
        let differences = nearest.map_or(0, |(_, compared)| compared.differences.len());
        let (entries, differences) = (count(entries), count(differences));
        tracing::info!(rung = %coverage.rung, entries, differences, "watching");
        for limit in &coverage.limits {
            tracing::info!(%limit, "standing limit of the watch");
        }
        self.parts
            .board
            .update(|status| status.state = State::Watching);
        self.parts.observer.tell(AgentEvent::Watching {
            coverage,
            entries,
            differences,
        });
    }
}

/// A difference that was there before is still by whom and from when it was first seen.
fn keep_actors(before: &[Group], after: &mut [Group]) {
    let known = |path: &ImagePath| {
        before
            .iter()
            .flat_map(|group| &group.compared)
            .find_map(|compared| compared.differences.get(path))
    };
    for compared in after.iter_mut().flat_map(|group| &mut group.compared) {
        for (path, difference) in &mut compared.differences {
            if let Some(earlier) = known(path)
                && earlier.found == difference.found
            {
                difference.actor.clone_from(&earlier.actor);
                difference.at = earlier.at;
            }
        }
    }
}
