//! What lies in a directory: its directories become jobs, its files are read at once or shared.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use attestation::path::ImagePath;
use rustix::fs::{FileType, RawDir};

use super::batch::Batch;
use super::worker::Worker;
use super::{Job, Opened};
use crate::scan::names::{PATH_LIMIT, joined_length};
use crate::scan::{Root, attributes, served};

/// Bytes asked for with one `getdents64`.
pub(super) const LISTING: usize = 64 * 1024;
/// Files of one directory that are read before the next part of its listing; sorted by inode, as they tend to lie.
const BATCH: usize = 512;
/// Files in one job when other threads have nothing to do.
const SHARE: usize = 32;
/// Directories kept open for their children. A child found above this opens its way from the root anew.
const OPEN_LIMIT: usize = 256;

impl<'s> Worker<'_, 's> {
    /// Goes through a directory: its directories become jobs, its files are read here or shared.
    pub(super) fn list(&mut self, opened: &Arc<Opened<'s>>) -> Result<(), String> {
        let mut listing = std::mem::take(&mut self.listing);
        let result = self.list_into(opened, &mut listing);
        self.listing = listing;
        result
    }

    fn list_into(
        &mut self,
        opened: &Arc<Opened<'s>>,
        listing: &mut [MaybeUninit<u8>],
    ) -> Result<(), String> {
        let mut batch = Batch::default();
        let mut too_deep = false;
        let mut entries = RawDir::new(opened.fd.as_fd(), listing);
        while let Some(entry) = entries.next() {
            if self.walk.progress.is_stopped() {
                return Ok(());
            }
            let entry = entry.map_err(|errno| std::io::Error::from(errno).to_string())?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if is_too_deep(&opened.path, name.to_bytes()) {
                too_deep = true;
                continue;
            }
            match kind_of(opened, name, entry.file_type()) {
                FileType::Directory => self.descend(opened, name.to_bytes()),
                kind => {
                    batch.push(name, kind, entry.ino());
                    if batch.len() >= BATCH {
                        self.share(opened, &mut batch);
                    }
                }
            }
        }
        self.share(opened, &mut batch);
        if too_deep {
            Err("depth".to_owned())
        } else {
            Ok(())
        }
    }

    fn descend(&self, opened: &Arc<Opened<'s>>, name: &[u8]) {
        let state = opened.position.state.child(name);
        if state.ignores_all_below() {
            return;
        }
        let position = Arc::new(opened.position.child(name, state));
        let held = self.walk.open.load(Ordering::Relaxed) < OPEN_LIMIT;
        let parent = held.then(|| Arc::clone(opened));
        self.walk
            .queue
            .push(self.lane, Job::Directory { position, parent });
    }

    /// Reads a batch, giving parts of it away while others have nothing to do.
    fn share(&mut self, opened: &Arc<Opened<'s>>, batch: &mut Batch) {
        batch.sort();
        let mut from = 0;
        while from < batch.len() {
            let to = batch.len().min(from + SHARE);
            if to == batch.len() || !self.walk.queue.has_idle() {
                self.files(opened, batch.of(from..to));
            } else {
                self.walk.queue.push(
                    self.lane,
                    Job::Files {
                        directory: Arc::clone(opened),
                        files: batch.part(from..to),
                    },
                );
            }
            from = to;
        }
        batch.clear();
    }
}

/// Says why what lies in a directory cannot all be named, as a walk would: what `statx` says of it does not tell.
///
/// # Errors
/// The cause, as in [`Reading::Unreadable`](crate::scan::Reading::Unreadable).
pub(in crate::scan) fn listing(root: &Root, path: &ImagePath) -> Result<(), String> {
    let Some(server) = root.server(path.as_bytes()) else {
        return listing_here(root, path);
    };
    let (root, path) = (root.clone(), path.clone());
    let list = move || listing_here(&root, &path);
    served::within(&Arc::clone(server), list).unwrap_or_else(|silence| Err(silence.to_string()))
}

fn listing_here(root: &Root, path: &ImagePath) -> Result<(), String> {
    let said = |errno| std::io::Error::from(errno).to_string();
    let (directory, _) = root.open_directory(path.as_bytes()).map_err(said)?;
    let mut room = vec![MaybeUninit::uninit(); LISTING];
    let mut entries = RawDir::new(directory.as_fd(), &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(said)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") && is_too_deep(path, name) {
            return Err("depth".to_owned());
        }
    }
    Ok(())
}

fn is_too_deep(directory: &ImagePath, name: &[u8]) -> bool {
    joined_length(directory.as_bytes().len(), name) > PATH_LIMIT
}

/// The type that the listing gives, or where the file system gives none, what `statx` says.
fn kind_of(opened: &Opened<'_>, name: &CStr, listed: FileType) -> FileType {
    if listed != FileType::Unknown {
        return listed;
    }
    attributes::stat_name(opened.fd.as_fd(), name)
        .map_or(FileType::Unknown, |stat| attributes::file_type(&stat))
}
