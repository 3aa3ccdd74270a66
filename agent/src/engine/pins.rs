//! What is this node's own: `local` paths are looked at like sealed ones, `growing` files only as closely as growth needs, and what
//! grew is gathered with the heartbeat.

use std::sync::Arc;
use std::time::Instant;

use attestation::digest::Digest;
use attestation::entry::{Kind, Line};
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect, Scope};
use attestation::statement::Attestation;
use attestation::time::Timestamp;

use super::Engine;
use super::sweep::Occasion;
use crate::clock;
use crate::monitor::Event;
use crate::pins::{Came, Effect, PinBoard, PinFile, PinFileError, Seen, Told, Tracked};
use crate::scan::{Extent, Root, Surveyed, Tail, hash_part, read_entry, read_growing, survey_path};

/// A growing file up to here is read whole each time it grew: an old byte that was rewritten meanwhile is found at once.
const SMALL: u64 = 256 << 10;
/// Bytes of pinned content read again with each heartbeat, to find what was rewritten while it grew: 23 GB a day at 30 s.
const VERIFIED: u64 = 8 << 20;

/// How closely a path is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closely {
    /// The kernel told of something: a growing file that is longer waits for the heartbeat.
    Told,
    /// Nobody told: only what `statx` says to have moved is read.
    Moved,
    /// Read it.
    Whole,
}

/// A pinned file that is read again in parts.
#[derive(Debug)]
pub(super) struct Verifying {
    path: ImagePath,
    tail: Option<Tail>,
    size: u64,
    sha256: Digest,
}

/// What a look at `statx` says of a path that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glance {
    Same,
    Longer,
    Look,
}

fn glance(tracked: &Tracked, there: Option<&Surveyed>) -> Glance {
    let (Some(before), Some(there)) = (&tracked.fingerprint, there) else {
        return Glance::Look;
    };
    if tracked.again || tracked.error.is_some() {
        return Glance::Look;
    }
    let now = &there.fingerprint;
    if now == before {
        return Glance::Same;
    }
    let Some(found) = tracked.found.as_ref().map(Line::entry) else {
        return Glance::Look;
    };
    let as_before = (now.dev, now.ino, now.nlink) == (before.dev, before.ino, before.nlink)
        && (there.mode, there.uid, there.gid) == (found.mode, found.uid, found.gid)
        && there.flags == found.flags;
    let longer = tracked
        .tail
        .as_ref()
        .is_some_and(|tail| now.size > tail.size());
    let grows = tracked.decision.expect == Expect::Growing && now.size >= before.size;
    if grows && longer && as_before && tracked.found == tracked.pin {
        Glance::Longer
    } else {
        Glance::Look
    }
}

/// How much is read of a growing file that was written.
fn extent_of(tracked: &Tracked) -> Extent {
    let tail = tracked.tail.as_ref();
    let large = tail.is_some_and(|tail| tail.size() > SMALL);
    if large && tracked.found == tracked.pin {
        Extent::Added
    } else {
        Extent::Whole
    }
}

/// Reads a path: a growing file from where it ended before, anything else whole.
pub(super) fn see(
    root: &Root,
    path: &ImagePath,
    decision: Decision,
    tail: Option<&Tail>,
    extent: Extent,
) -> Seen {
    if decision.expect != Expect::Growing {
        return Seen::of(read_entry(root, path, decision));
    }
    let growth = read_growing(root, path, decision, tail, extent);
    let mut seen = Seen::of(growth.reading);
    seen.tail = growth.tail;
    seen.kept = growth.kept;
    seen.again |= growth.more;
    seen
}

/// The pins of the run before. Damaged ones are set aside, and everything is pinned anew: `true`.
pub(super) fn load(state: &std::path::Path) -> (PinBoard, bool) {
    match PinFile::load(state) {
        Ok(file) => (PinBoard::of(file), false),
        Err(error) => {
            let text = crate::journal::chain(&error);
            tracing::error!(error = %text, "the pins of this node are taken anew; the collector shows what differs from those before");
            if matches!(error, PinFileError::Damaged { .. })
                && let Err(error) = PinFile::set_aside(state, clock::now().as_micros())
            {
                tracing::warn!(%error, "set the damaged pins aside");
            }
            (PinBoard::default(), true)
        }
    }
}

impl Engine {
    /// Looks at a path that the scope calls `local` or `growing`.
    pub(super) fn look_pinned(
        &mut self,
        path: &ImagePath,
        decision: Decision,
        occasion: &Occasion,
        closely: Closely,
    ) -> Effect {
        let Some(eyes) = &self.eyes else {
            return Effect::default();
        };
        let tracked = self.pins.get(path);
        if let Some(tracked) = tracked
            && closely != Closely::Whole
        {
            let there = survey_path(&eyes.root, path);
            // Of a local path that the kernel told of, its content decides.
            let read = closely == Closely::Told && decision.expect == Expect::Local;
            match glance(tracked, there.as_ref()) {
                Glance::Same if !read => return Effect::default(),
                Glance::Longer => {
                    self.pins.wait(path);
                    return Effect::default();
                }
                Glance::Same | Glance::Look => {}
            }
        }
        let tail = tracked.and_then(|tracked| tracked.tail.as_ref());
        let seen = see(&eyes.root, path, decision, tail, Extent::Whole);
        let told = Told {
            actor: occasion.actor.as_ref(),
            at: occasion.last,
        };
        let effect = self.pins.observe(path, decision, seen, false, told);
        if effect.changed {
            self.monitor.event(Instant::now(), Event::Changed);
        }
        effect
    }

    /// A person accepted what was found.
    pub(super) fn accept_pin(&mut self, path: &ImagePath, found: Option<&Line>) {
        if self.pins.accept(path, found) {
            tracing::info!(%path, "what a person accepted is the pin now");
            self.monitor.event(Instant::now(), Event::Changed);
        }
    }

    /// Another view begins, with what its scan found.
    pub(super) fn begin_pins(&mut self, scopes: &[Arc<Scope>], came: Vec<Came>, at: Timestamp) {
        self.verifying = None;
        let unsure = self.pins.begin(scopes, came, at);
        let occasion = self.by_rescan();
        for path in unsure {
            if let Some(decision) = self.pins.decide(&path) {
                self.look_pinned(&path, decision, &occasion, Closely::Moved);
            }
        }
    }

    /// What `statx` says of every path that is followed: what moved is read.
    pub(super) fn look_at_pins(&mut self, below: &ImagePath, occasion: &Occasion) {
        for path in self.pins.below(below) {
            if let Some(decision) = self.pins.decide(&path) {
                self.look_pinned(&path, decision, occasion, Closely::Moved);
            }
        }
    }

    /// What could not be read, or had a writer.
    pub(super) fn recheck_pins(&mut self, most: usize, occasion: &Occasion) {
        for path in self.pins.unsettled(most) {
            if let Some(decision) = self.pins.decide(&path) {
                self.look_pinned(&path, decision, occasion, Closely::Whole);
            }
        }
    }

    /// Reads what was added to the growing files that were written; tells whether there is more to say than that they grew.
    pub(super) fn gather_grown(&mut self) -> bool {
        let occasion = self.by_rescan();
        let mut changed = self.verify_pins(&occasion);
        for path in self.pins.waiting(Attestation::MAX_LIST) {
            let (Some(eyes), Some(decision)) = (&self.eyes, self.pins.decide(&path)) else {
                continue;
            };
            let tracked = self.pins.get(&path);
            let tail = tracked.and_then(|tracked| tracked.tail.as_ref());
            let extent = tracked.map_or(Extent::Whole, extent_of);
            let seen = see(&eyes.root, &path, decision, tail, extent);
            let told = Told {
                actor: None,
                at: occasion.last,
            };
            let more = seen.again;
            changed |= self
                .pins
                .observe(&path, decision, seen, false, told)
                .changed;
            if more {
                self.pins.wait(&path);
            }
        }
        changed
    }

    /// Reads pinned content again, a part with each heartbeat, file after file.
    fn verify_pins(&mut self, occasion: &Occasion) -> bool {
        let Some(eyes) = &self.eyes else { return false };
        let Some(mut verifying) = self.verifying.take().or_else(|| self.next_to_verify()) else {
            return false;
        };
        let (path, to) = (&verifying.path, verifying.size);
        let read = hash_part(&eyes.root, path, verifying.tail.take(), VERIFIED, to);
        self.verified = Some(verifying.path.clone());
        match read {
            Some(tail) if tail.size() < to => {
                verifying.tail = Some(tail);
                self.verifying = Some(verifying);
                false
            }
            Some(tail) if tail.digest() == verifying.sha256 => false,
            _ => match self.pins.decide(&verifying.path) {
                Some(decision) => {
                    let path = verifying.path;
                    self.look_pinned(&path, decision, occasion, Closely::Whole)
                        .changed
                }
                None => false,
            },
        }
    }

    fn next_to_verify(&self) -> Option<Verifying> {
        let path = self.pins.after(self.verified.as_ref())?;
        let found = self.pins.get(&path)?.found.as_ref()?.entry();
        match found.kind {
            Kind::File {
                size,
                sha256: Some(sha256),
            } => Some(Verifying {
                path,
                tail: None,
                size,
                sha256,
            }),
            // Its line is all that there is of it; it is next one's turn.
            _ => Some(Verifying {
                path,
                tail: None,
                size: 0,
                sha256: Digest::of(b""),
            }),
        }
    }

    /// Puts the pins on disk before a statement says that they are these.
    pub(super) fn save_pins(&mut self) {
        let Some(file) = self.pins.take_unsaved() else {
            return;
        };
        match file.save(&self.parts.state) {
            Ok(()) => self.pins_failing = None,
            Err(error) => {
                let error = crate::journal::chain(&error);
                tracing::error!(%error, "the pins are not on disk: after a crash what grew since is taken for new");
                self.pins_failing = Some(error);
                self.pins.not_saved();
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use attestation::entry::InodeFlags;

    use super::*;
    use crate::scan::Fingerprint;

    fn surveyed(size: u64, ctime_ns: i64, mode: u16) -> Surveyed {
        Surveyed {
            fingerprint: Fingerprint {
                dev: 1,
                ino: 2,
                size,
                mtime_ns: ctime_ns,
                ctime_ns,
                nlink: 1,
            },
            mode,
            uid: 0,
            gid: 0,
            flags: InodeFlags::default(),
            directory: false,
        }
    }

    const GROWING: Decision = Decision {
        expect: Expect::Growing,
        time: false,
    };

    /// A log as it is followed from when it was first read.
    fn followed(folder: &std::path::Path, content: &[u8]) -> (Root, ImagePath, Tracked) {
        std::fs::write(folder.join("log"), content).unwrap();
        let root = Root::open(folder, &Scope::sealed_all()).unwrap();
        let path: ImagePath = "./log".parse().unwrap();
        let mut board = PinBoard::default();
        let seen = see(&root, &path, GROWING, None, Extent::Whole);
        let told = Told {
            actor: None,
            at: clock::now(),
        };
        board.observe(&path, GROWING, seen, true, told);
        let tracked = board.get(&path).unwrap().clone();
        (root, path, tracked)
    }

    #[test]
    fn of_a_large_log_what_was_added_is_read_and_a_small_one_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let small = vec![b'a'; usize::try_from(SMALL).unwrap()];
        let (.., tracked) = followed(folder.path(), &small);
        assert_eq!(extent_of(&tracked), Extent::Whole);
        let large = [&small[..], b"a"].concat();
        let (root, path, mut tracked) = followed(folder.path(), &large);
        assert_eq!(extent_of(&tracked), Extent::Added);
        // Another old byte would give another digest, were it read.
        let longer = [&b"b"[..], &large[1..], b"more"].concat();
        std::fs::write(folder.path().join("log"), longer).unwrap();
        let tail = tracked.tail.as_ref();
        let seen = see(&root, &path, GROWING, tail, extent_of(&tracked));
        let read = Digest::of(&[&large[..], b"more"].concat());
        assert_eq!(seen.tail.unwrap().digest(), read);
        tracked.pin = None;
        assert_eq!(extent_of(&tracked), Extent::Whole, "it is not as pinned");
    }

    #[test]
    fn only_a_longer_file_waits_for_the_heartbeat() {
        let folder = tempfile::tempdir().unwrap();
        let (_, _, mut tracked) = followed(folder.path(), b"one\n");
        let found = tracked.found.as_ref().unwrap().entry();
        let of = |size, ctime, mode| {
            let mut there = surveyed(size, ctime, mode);
            (there.uid, there.gid) = (found.uid, found.gid);
            there
        };
        tracked.fingerprint = Some(of(4, 10, found.mode).fingerprint);
        let glance = |there: Option<Surveyed>| glance(&tracked, there.as_ref());
        assert_eq!(glance(Some(of(4, 10, found.mode))), Glance::Same);
        assert_eq!(glance(Some(of(9, 11, found.mode))), Glance::Longer);
        assert_eq!(
            glance(Some(of(4, 11, found.mode))),
            Glance::Look,
            "rewritten"
        );
        assert_eq!(glance(Some(of(3, 11, found.mode))), Glance::Look, "cut");
        assert_eq!(glance(Some(of(9, 11, found.mode ^ 0o111))), Glance::Look);
        assert_eq!(glance(None), Glance::Look);
    }
}
