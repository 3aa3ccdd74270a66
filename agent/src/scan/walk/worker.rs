//! A thread of the walk: takes one job after the other, and tells what it comes by.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use attestation::entry::Kind;
use attestation::path::ImagePath;
use attestation::scope::{Decision, Expect};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::listing::LISTING;
use super::{Job, Opened, Purpose, Survey, Walk};
use crate::scan::names::Position;
use crate::scan::object::{Directory, ObjectReader, Unmoved, Wanted, unreadable_errno};
use crate::scan::root::Filesystem;
use crate::scan::served::Silence;
use crate::scan::{Found, Reading, ScanSummary, Surveyed, attributes};

pub(super) struct Worker<'w, 's> {
    pub(super) walk: &'w Walk<'s>,
    pub(super) lane: usize,
    pub(super) reader: ObjectReader<'w>,
    pub(super) listing: Vec<MaybeUninit<u8>>,
    tally: ScanSummary,
}

impl<'w, 's> Worker<'w, 's> {
    pub(super) fn new(walk: &'w Walk<'s>, lane: usize) -> Self {
        let (wanted, hearer): (&'w Wanted<'w>, _) = match walk.purpose {
            Purpose::Read { wanted, hearer, .. } => (wanted, hearer),
            Purpose::Survey(_) => (&|_, _| false, None),
        };
        Self {
            walk,
            lane,
            reader: ObjectReader::new(walk.root, walk.progress, wanted, walk.manner)
                .hearing(hearer)
                .asking(walk.asking),
            listing: vec![MaybeUninit::uninit(); LISTING],
            tally: ScanSummary::default(),
        }
    }

    pub(super) fn run(mut self) -> ScanSummary {
        let stopped = || self.walk.progress.is_stopped();
        while let Some((job, turn)) = self.walk.queue.next(self.lane, &stopped) {
            match job {
                Job::Directory { position, parent } => self.directory(&position, parent),
                Job::Files { directory, files } => self.files(&directory, files.of(0..files.len())),
            }
            drop(turn);
        }
        self.tally
    }

    fn directory(&mut self, position: &Arc<Position<'s>>, parent: Option<Arc<Opened<'s>>>) {
        let path = match &parent {
            Some(parent) => parent.path.child(position.name()),
            None => ImagePath::from_bytes(position.path()),
        };
        let Ok(path) = path else { return };
        let decision = position.state.decision();
        if self.walk.root.is_silent(path.as_bytes()) {
            return self.silent(path, decision, Silence::NoAnswer);
        }
        if let Some(server) = self.server(&path, parent.is_none()) {
            return self.ask(path, decision, &server);
        }
        let (fd, filesystem) = match self.open(position, &path, parent.as_deref()) {
            Ok(opened) => opened,
            Err(errno) => return self.no_directory(path, decision, errno),
        };
        drop(parent);
        self.walk.open.fetch_add(1, Ordering::Relaxed);
        let open = self.walk.open;
        let opened = Arc::new(Opened {
            position: Arc::clone(position),
            path,
            fd,
            filesystem,
            open,
        });
        let listed = if position.state.ignores_all_below() {
            Ok(())
        } else {
            self.list(&opened)
        };
        if decision.expect != Expect::Ignored {
            self.directory_itself(&opened, decision, listed);
        }
    }

    /// The entry of a directory, after what lies in it was seen to.
    fn directory_itself(
        &mut self,
        opened: &Opened<'s>,
        decision: Decision,
        listed: Result<(), String>,
    ) {
        let stat = listed
            .is_ok()
            .then(|| attributes::stat(opened.fd.as_fd()).ok())
            .flatten();
        let purpose = self.walk.purpose;
        match purpose {
            Purpose::Survey(survey) => {
                let there = stat.as_ref().map(attributes::surveyed);
                return self.surveyed(survey, opened.path.clone(), decision, there);
            }
            Purpose::Read {
                unmoved: Some(unmoved),
                ..
            } if stat.is_some_and(|stat| {
                self.passes(
                    unmoved,
                    &opened.path,
                    decision,
                    &attributes::surveyed(&stat),
                )
            }) =>
            {
                return;
            }
            Purpose::Read { .. } => {}
        }
        let reading = match listed {
            Ok(()) => self
                .reader
                .opened_directory(opened.fd.as_fd(), &opened.path, decision),
            Err(error) => Reading::Unreadable { error },
        };
        self.tell(Found {
            path: opened.path.clone(),
            decision,
            reading,
        });
    }

    fn open(
        &self,
        position: &Position<'s>,
        path: &ImagePath,
        parent: Option<&Opened<'s>>,
    ) -> Result<(OwnedFd, &'s Filesystem), Errno> {
        match parent {
            Some(parent) if self.walk.root.mounted_at(path.as_bytes()).is_none() => {
                let name = CString::new(position.name()).map_err(|_| Errno::INVAL)?;
                let fd = parent
                    .filesystem
                    .open_child_directory(parent.fd.as_fd(), &name)?;
                Ok((fd, parent.filesystem))
            }
            _ => self.walk.root.open_directory(path.as_bytes()),
        }
    }

    /// What is at a place where a directory was expected.
    fn no_directory(&mut self, path: ImagePath, decision: Decision, errno: Errno) {
        if decision.expect == Expect::Ignored {
            return;
        }
        if let Purpose::Survey(survey) = self.walk.purpose {
            return self.surveyed(survey, path, decision, None);
        }
        let reading = match errno {
            Errno::NOTDIR | Errno::LOOP => self.reader.read_path(&path, decision),
            errno => unreadable_errno(errno),
        };
        self.tell(Found {
            path,
            decision,
            reading,
        });
    }

    pub(super) fn files<'n>(
        &mut self,
        opened: &Opened<'s>,
        files: impl Iterator<Item = (&'n CStr, FileType)>,
    ) {
        let directory = Directory {
            fd: opened.fd.as_fd(),
            filesystem: opened.filesystem,
        };
        for (file, kind) in files {
            if self.walk.progress.is_stopped() {
                return;
            }
            let name = file.to_bytes();
            let decision = opened.position.state.child(name).decision();
            if decision.expect == Expect::Ignored {
                continue;
            }
            let Ok(path) = opened.path.child(name) else {
                continue;
            };
            match self.walk.purpose {
                Purpose::Survey(survey) => {
                    let stat = attributes::stat_name(opened.fd.as_fd(), file).ok();
                    let there = stat.as_ref().map(attributes::surveyed);
                    self.surveyed(survey, path, decision, there);
                    continue;
                }
                Purpose::Read {
                    unmoved: Some(unmoved),
                    ..
                } => {
                    let stat = attributes::stat_name(opened.fd.as_fd(), file);
                    let there = stat.as_ref().ok().map(attributes::surveyed);
                    if there.is_some_and(|there| self.passes(unmoved, &path, decision, &there)) {
                        if stat.is_ok_and(|stat| stat.stx_nlink > 1) {
                            self.reader.note_name(directory, file, &path);
                        }
                        continue;
                    }
                }
                Purpose::Read { unmoved: None, .. } => {}
            }
            let reading = self.reader.read(directory, file, &path, decision, kind);
            self.tell(Found {
                path,
                decision,
                reading,
            });
        }
    }

    /// Whether a place is as it was when it was read.
    pub(super) fn passes(
        &mut self,
        unmoved: &Unmoved<'_>,
        path: &ImagePath,
        decision: Decision,
        there: &Surveyed,
    ) -> bool {
        let passes = unmoved(path, decision, there);
        if passes {
            self.tally.entries += 1;
            self.walk.progress.add(0);
        }
        passes
    }

    pub(super) fn surveyed(
        &mut self,
        survey: &Survey<'_>,
        path: ImagePath,
        decision: Decision,
        there: Option<Surveyed>,
    ) {
        self.tally.entries += 1;
        self.walk.progress.add(0);
        survey(path, decision, there);
    }

    pub(super) fn tell(&mut self, found: Found) {
        let Purpose::Read { visit, .. } = self.walk.purpose else {
            return;
        };
        let bytes = match &found.reading {
            Reading::Absent if !found.path.is_root() => return visit(found),
            Reading::Absent => 0,
            Reading::Unreadable { .. } => {
                self.tally.unreadable += 1;
                0
            }
            Reading::Unsettled(entry, _) => {
                self.tally.unsettled += 1;
                size(&entry.kind)
            }
            Reading::Entry(entry, _) => size(&entry.kind),
        };
        self.tally.entries += 1;
        self.tally.bytes += bytes;
        self.walk.progress.add(bytes);
        visit(found);
    }
}

fn size(kind: &Kind) -> u64 {
    if let Kind::File { size, .. } = kind {
        *size
    } else {
        0
    }
}
