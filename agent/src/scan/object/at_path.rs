//! What is at a path, wherever it leads.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use attestation::path::ImagePath;
use attestation::scope::Decision;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::finished::{unreadable, unreadable_errno};
use super::{Directory, ObjectReader, Trouble};
use crate::scan::served::{self, Ask, Server, Silence};
use crate::scan::{Found, Progress, Reading};

impl ObjectReader<'_> {
    /// Reads what is at a path now.
    pub(in crate::scan) fn read_path(&mut self, path: &ImagePath, decision: Decision) -> Reading {
        let raw = path.as_bytes();
        if self.root.is_silent(raw) {
            return Silence::NoAnswer.reading();
        }
        if !self.asking
            && let Some(server) = self.root.server(raw)
        {
            return self.ask(server, path, decision);
        }
        if self.root.mounted_at(raw).is_some() {
            return match self.root.open_directory(raw) {
                Ok((directory, _)) => self.opened_directory(directory.as_fd(), path, decision),
                Err(errno) => no_way(errno),
            };
        }
        let parent = path.parent().unwrap_or_else(ImagePath::root);
        let Ok(name) = CString::new(path.name()) else {
            return Reading::Absent;
        };
        match self.root.open_directory(parent.as_bytes()) {
            Ok((directory, filesystem)) => {
                let directory = Directory {
                    fd: directory.as_fd(),
                    filesystem,
                };
                self.read(directory, &name, path, decision, FileType::Unknown)
            }
            Err(errno) => no_way(errno),
        }
    }

    /// Has a thread of its own read what is at a path.
    fn ask(&self, server: &Arc<Server>, path: &ImagePath, decision: Decision) -> Reading {
        let (root, path, manner) = (self.root.clone(), path.clone(), self.manner);
        let read = move |asker: &served::Asker, progress: &Progress| {
            let wanted = |path: &ImagePath, size| asker.wanted(path, size);
            let mut reader = ObjectReader::new(&root, progress, &wanted, manner).asking(true);
            let reading = reader.read_path(&path, decision);
            asker.tell(Ask::Found(Found {
                path,
                decision,
                reading,
            }));
        };
        let mut found = None;
        let listened = served::listen(server, self.progress, read, &mut |ask| match ask {
            Ask::Wanted(path, size, answer) => answer.give((self.wanted)(&path, size)),
            Ask::Found(one) => found = Some(one.reading),
            _ => {}
        });
        match (listened, found) {
            (Err(silence), _) => silence.reading(),
            (Ok(()), Some(reading)) => reading,
            (Ok(()), None) => unreadable(&Trouble::Stopped),
        }
    }
}

/// A way that leads through a link or a file does not lead to this path.
fn no_way(errno: Errno) -> Reading {
    match errno {
        Errno::NOTDIR | Errno::LOOP => Reading::Absent,
        errno => unreadable_errno(errno),
    }
}
