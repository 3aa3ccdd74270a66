//! Rung D: the `notify` crate, for whoever may not use fanotify. It names no process and sees less; each of that is a limit.
//!
//! A thread of its own puts places on the board and follows new directories: it must never be the library's own thread,
//! which waits for itself when asked to watch something.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use attestation::path::ImagePath;
use attestation::scope::Scope;
use attestation::statement::{Rung, WatchCoverage};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::board::{Board, Event, Key, Seen};
use super::canary::Canaries;
use super::handles::in_scope;
use super::{EventSet, Place, WatchError};
use crate::clock::now;
use crate::scan::Root;

/// What it says of who did something.
pub(super) const NOBODY: &str = "no process is named";
/// Events that may wait for our thread; beyond, they are lost and said to be.
const QUEUE_LIMIT: usize = 65_536;
/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(200);
/// Standing limits kept; the statement lists no more.
const LIMIT_LIMIT: usize = 64;

type Told = notify::Result<notify::Event>;

#[derive(Debug)]
pub(super) struct NotifyWatch {
    scope: Scope,
    limits: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    /// Ends the wait of the thread.
    bell: SyncSender<Told>,
    follower: Option<JoinHandle<()>>,
}

impl NotifyWatch {
    pub(super) fn start(
        root: &Root,
        path: &Path,
        scope: &Scope,
        board: &Arc<Board>,
        canaries: &Arc<Canaries>,
        refused: &std::io::Error,
    ) -> Result<Self, WatchError> {
        let (sender, receiver) = sync_channel(QUEUE_LIMIT);
        let failed = |inotify| WatchError::Refused {
            fanotify: refused.to_string(),
            inotify,
        };
        let told = sender.clone();
        let full = Arc::clone(board);
        let tell = move |event: Told| match told.try_send(event) {
            Err(TrySendError::Full(_)) => full.lose("overflow"),
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        };
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(tell, config).map_err(failed)?;
        let limits = Arc::new(Mutex::new(standing_limits(refused)));
        let ended = Arc::new(AtomicBool::new(false));
        let base = fs::canonicalize(path).map_err(|error| failed(notify::Error::io(error)))?;
        let mut follower = Follower {
            watcher,
            device: fs::symlink_metadata(&base)
                .map_err(|error| failed(notify::Error::io(error)))?
                .dev(),
            base,
            root: root.clone(),
            scope: scope.clone(),
            board: Arc::clone(board),
            canaries: Arc::clone(canaries),
            limits: Arc::clone(&limits),
            ended: Arc::clone(&ended),
        };
        let base = follower.base.clone();
        follower
            .watcher
            .watch(&base, RecursiveMode::NonRecursive)
            .map_err(failed)?;
        follower.follow(&base);
        let follower = std::thread::Builder::new()
            .name("inotify".into())
            .spawn(move || follower.run(&receiver))
            .map_err(WatchError::Thread)?;
        Ok(Self {
            scope: scope.clone(),
            limits,
            ended,
            bell: sender,
            follower: Some(follower),
        })
    }

    pub(super) fn coverage(&self) -> WatchCoverage {
        let limits = self
            .limits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        WatchCoverage {
            rung: Rung::D,
            limits,
            limits_total: None,
        }
    }

    pub(super) fn resolve(&self, seen: HashMap<Key, Seen>) -> Vec<Place> {
        let mut places = Vec::with_capacity(seen.len());
        for (key, seen) in seen {
            let Ok(path) = ImagePath::from_bytes(key.into_vec()) else {
                continue;
            };
            if in_scope(&self.scope, &path, seen.subtree) {
                let Seen {
                    events,
                    subtree,
                    first,
                    last,
                    count,
                    ..
                } = seen;
                places.push(Place {
                    path,
                    subtree,
                    events,
                    actor: None,
                    first,
                    last,
                    count,
                });
            }
        }
        places
    }
}

impl Drop for NotifyWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // A full queue rings as well.
        drop(self.bell.try_send(Ok(notify::Event::default())));
        if let Some(follower) = self.follower.take() {
            drop(follower.join());
        }
    }
}

fn standing_limits(refused: &std::io::Error) -> Vec<String> {
    [
        &format!("fanotify is refused ({refused}): changes are told by inotify"),
        NOBODY,
        "a file made in a new directory may be told late",
        "a write through another hard link is told only where that link lies in the root",
    ]
    .map(str::to_owned)
    .into()
}

struct Follower {
    watcher: RecommendedWatcher,
    base: PathBuf,
    device: u64,
    root: Root,
    scope: Scope,
    board: Arc<Board>,
    canaries: Arc<Canaries>,
    limits: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Follower {
    fn run(mut self, receiver: &Receiver<Told>) {
        while !self.ended.load(Ordering::Acquire) {
            match receiver.recv_timeout(TICK) {
                Ok(Ok(event)) => self.tell(&event),
                Ok(Err(error)) => self.board.lose(&format!("inotify: {error}")),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            self.board.lose("overflow");
        }
        let Some((events, may_be_subtree)) = kinds(event.kind) else {
            return;
        };
        for path in &event.paths {
            if self.is_canary(path) {
                continue;
            }
            let Some(place) = self.place(path) else {
                continue;
            };
            let is_directory = || fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
            let came =
                events.intersects(EventSet::CREATE.union(EventSet::RENAME)) && is_directory();
            if came {
                self.follow(path);
            }
            let told = Event {
                events,
                subtree: may_be_subtree || came,
                actor: None,
                at: now(),
            };
            self.board.batch().add(place.as_bytes(), &told);
            // Every other name in the root of the same file.
            for other in self.other_names(path, &place) {
                self.board.batch().add(other.as_bytes(), &told);
            }
        }
    }

    fn is_canary(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_bytes();
        name.starts_with(b"#") && path.parent() == Some(&self.base) && self.canaries.hear(name)
    }

    fn place(&self, path: &Path) -> Option<ImagePath> {
        let relative = path.strip_prefix(&self.base).ok()?;
        ImagePath::from_bytes(relative.as_os_str().as_bytes()).ok()
    }

    fn other_names(&self, path: &Path, place: &ImagePath) -> Vec<ImagePath> {
        let linked =
            || fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.nlink() > 1);
        if self.root.links().is_empty() || !linked() {
            return Vec::new();
        }
        self.root.names_beside(place)
    }

    /// Watches a directory and every directory in scope below it that lies on the same device.
    fn follow(&mut self, top: &Path) {
        let mut waiting = vec![top.to_owned()];
        while let Some(directory) = waiting.pop() {
            let Some(place) = self.place(&directory) else {
                continue;
            };
            let Ok(found) = fs::symlink_metadata(&directory) else {
                continue;
            };
            if !found.is_dir() || found.dev() != self.device || !in_scope(&self.scope, &place, true)
            {
                continue;
            }
            if let Err(error) = self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                let gone = matches!(&error.kind, notify::ErrorKind::PathNotFound)
                    || matches!(&error.kind, notify::ErrorKind::Io(io) if io.kind() == std::io::ErrorKind::NotFound);
                if !gone {
                    self.refuse(&place, &error);
                    if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) {
                        return;
                    }
                }
                continue;
            }
            let Ok(listing) = fs::read_dir(&directory) else {
                continue;
            };
            let directories = listing
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            waiting.extend(directories.map(|entry| directory.join(entry.file_name())));
        }
    }

    /// A directory that cannot be watched is a standing limit, and a loss for what happened there meanwhile.
    fn refuse(&self, place: &ImagePath, error: &notify::Error) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = match &error.kind {
            notify::ErrorKind::MaxFilesWatch => {
                "the limit of inotify watches is reached: not every directory is watched".into()
            }
            _ => format!("{place} is not watched: {error}"),
        };
        if limits.len() < LIMIT_LIMIT && !limits.contains(&limit) {
            limits.push(limit);
        }
        drop(limits);
        self.board.lose("a directory cannot be watched");
    }
}

/// The words for an event, and whether what lies below the path is touched by it.
fn kinds(kind: EventKind) -> Option<(EventSet, bool)> {
    Some(match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => (EventSet::CLOSE_WRITE, false),
        EventKind::Access(_) => return None,
        EventKind::Create(CreateKind::Folder) => (EventSet::CREATE, true),
        EventKind::Create(_) => (EventSet::CREATE, false),
        EventKind::Modify(ModifyKind::Metadata(_)) => (EventSet::ATTRIB, false),
        // Of what was moved away nobody can tell any more whether it was a directory.
        EventKind::Modify(ModifyKind::Name(_)) => (EventSet::RENAME, true),
        EventKind::Modify(_) => (EventSet::MODIFY, false),
        EventKind::Remove(RemoveKind::File) => (EventSet::DELETE, false),
        EventKind::Remove(_) => (EventSet::DELETE, true),
        EventKind::Any | EventKind::Other => (EventSet::MODIFY, true),
    })
}
