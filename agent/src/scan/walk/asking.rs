//! File systems that a program or a network serves: a thread of its own asks, and the walk answers what it wants to know.

use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::scope::{Decision, Scope};

use super::worker::Worker;
use super::{Purpose, run_as};
use crate::scan::served::{self, Ask, Server, Silence};
use crate::scan::{Found, Hearer, Manner, Progress, Root, ScanOptions, Surveyed};

/// What is made of the objects on the way, without the means.
#[derive(Clone, Copy)]
enum Wish {
    /// With the largest file that is heard, if one is.
    Read(Option<u64>),
    ReadMoved,
    Survey,
}

impl Worker<'_, '_> {
    /// Who is asked about a directory and all below it: it is where a walk comes into a file system.
    pub(super) fn server(&self, path: &ImagePath, first: bool) -> Option<Arc<Server>> {
        let raw = path.as_bytes();
        let enters = first || self.walk.root.mounted_at(raw).is_some();
        if self.walk.asking || !enters {
            return None;
        }
        self.walk.root.server(raw).cloned()
    }

    /// Has a thread of its own read what lies at and below a path.
    pub(super) fn ask(&mut self, path: ImagePath, decision: Decision, server: &Arc<Server>) {
        let wish = match self.walk.purpose {
            Purpose::Survey(_) => Wish::Survey,
            Purpose::Read {
                unmoved: None,
                hearer,
                ..
            } => Wish::Read(hearer.map(|hearer| hearer.limit)),
            Purpose::Read { .. } => Wish::ReadMoved,
        };
        let (root, scope) = (self.walk.root.clone(), self.walk.scope.clone());
        let (at, manner) = (path.clone(), self.walk.manner);
        let read = move |asker: &served::Asker, progress: &Progress| {
            run_asking((&root, &scope), &at, manner, wish, (asker, progress));
        };
        let progress = self.walk.progress;
        let listened = served::listen(server, progress, read, &mut |ask| self.answer(ask));
        if let Err(silence) = listened {
            self.silent(path, decision, silence);
        }
    }

    /// What lies at and below a path is not known.
    pub(super) fn silent(&mut self, path: ImagePath, decision: Decision, silence: Silence) {
        tracing::warn!(%path, %silence, "what lies there is not known");
        match self.walk.purpose {
            Purpose::Survey(survey) => self.surveyed(survey, path, decision, None),
            Purpose::Read { .. } => self.tell(Found {
                path,
                decision,
                reading: silence.reading(),
            }),
        }
    }

    /// Answers the thread that asks a server. Whoever asked may be gone.
    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Wanted(path, size, answer) => {
                answer.give((self.reader.wanted())(&path, size));
            }
            Ask::Unmoved(path, decision, there, answer) => {
                let purpose = self.walk.purpose;
                let passes = matches!(purpose, Purpose::Read { unmoved: Some(unmoved), .. }
                    if self.passes(unmoved, &path, decision, &there));
                answer.give(passes);
            }
            Ask::Heard(path, bytes) => {
                if let Purpose::Read {
                    hearer: Some(hearer),
                    ..
                } = self.walk.purpose
                {
                    (hearer.hear)(&path, &bytes);
                }
            }
            Ask::Found(found) => self.tell(found),
            Ask::Surveyed(path, decision, there) => {
                if let Purpose::Survey(survey) = self.walk.purpose {
                    self.surveyed(survey, path, decision, there);
                }
            }
            Ask::Passed(_) | Ask::Over => {}
        }
    }
}

/// Walks on a thread that asks a server; what is to be read, and what becomes of it, is asked and told.
fn run_asking(
    (root, scope): (&Root, &Scope),
    path: &ImagePath,
    manner: Manner,
    wish: Wish,
    (asker, progress): (&served::Asker, &Progress),
) {
    let wanted = |path: &ImagePath, size| asker.wanted(path, size);
    let unmoved =
        |path: &ImagePath, decision, there: &Surveyed| asker.unmoved(path, decision, there);
    let visit = |found| asker.tell(Ask::Found(found));
    let hear =
        |path: &ImagePath, bytes: &[u8]| asker.tell(Ask::Heard(path.clone(), bytes.to_vec()));
    let survey = |path, decision, there| asker.tell(Ask::Surveyed(path, decision, there));
    let purpose = match wish {
        Wish::Read(limit) => Purpose::Read {
            wanted: &wanted,
            unmoved: None,
            hearer: limit.map(|limit| Hearer { limit, hear: &hear }),
            visit: &visit,
        },
        Wish::ReadMoved => Purpose::Read {
            wanted: &wanted,
            unmoved: Some(&unmoved),
            hearer: None,
            visit: &visit,
        },
        Wish::Survey => Purpose::Survey(&survey),
    };
    // One thread: every one of them may have to be given up.
    let options = ScanOptions { threads: 1, manner };
    if let Err(error) = run_as((root, scope), path, &options, progress, purpose, true) {
        tracing::debug!(%error, "a reading of what a server has");
    }
}
