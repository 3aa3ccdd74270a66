//! Names of one directory, waiting to be read.

use std::ffi::CStr;
use std::ops::Range;

use rustix::fs::FileType;

/// What lies in a directory and is none itself, in one piece of memory: had each name its own, the threads would wait for
/// each other at the allocator.
#[derive(Default)]
pub(super) struct Batch {
    /// Names with their NUL, one after the other.
    names: Vec<u8>,
    files: Vec<File>,
}

#[derive(Clone, Copy)]
struct File {
    /// Where its name lies.
    start: usize,
    end: usize,
    kind: FileType,
    ino: u64,
}

impl Batch {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Adds what a listing says.
    pub(super) fn push(&mut self, name: &CStr, kind: FileType, ino: u64) {
        let start = self.names.len();
        self.names.extend_from_slice(name.to_bytes_with_nul());
        let end = self.names.len();
        self.files.push(File {
            start,
            end,
            kind,
            ino,
        });
    }

    /// In the order of inodes, as files tend to lie on a device.
    pub(super) fn sort(&mut self) {
        self.files.sort_unstable_by_key(|file| file.ino);
    }

    /// Gone, but for the room.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.files.clear();
    }

    /// Some of them: names and what the listing said that they are.
    pub(super) fn of(&self, range: Range<usize>) -> impl Iterator<Item = (&CStr, FileType)> {
        let files = self.files.get(range).unwrap_or_default();
        files.iter().filter_map(|file| {
            let name = self.names.get(file.start..file.end)?;
            Some((CStr::from_bytes_with_nul(name).ok()?, file.kind))
        })
    }

    /// A copy of some of them, to be given away.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        let mut part = Self::default();
        let inodes = self.files.get(range.clone()).unwrap_or_default();
        for ((name, kind), file) in self.of(range).zip(inodes) {
            part.push(name, kind, file.ino);
        }
        part
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn names(batch: &Batch, range: Range<usize>) -> Vec<(&[u8], FileType)> {
        batch
            .of(range)
            .map(|(name, kind)| (name.to_bytes(), kind))
            .collect()
    }

    #[test]
    fn a_part_has_its_names_and_the_rest_stays() {
        let mut batch = Batch::default();
        batch.push(c"c", FileType::RegularFile, 3);
        batch.push(c"a \xff", FileType::Symlink, 1);
        batch.push(c"b", FileType::Fifo, 2);
        batch.sort();
        let all = [
            (&b"a \xff"[..], FileType::Symlink),
            (b"b", FileType::Fifo),
            (b"c", FileType::RegularFile),
        ];
        assert_eq!(names(&batch, 0..3), all);
        let part = batch.part(1..3);
        assert_eq!(names(&part, 0..part.len()), all[1..]);
        assert_eq!(names(&batch, 0..1), all[..1]);
        assert_eq!(names(&batch, 2..4), []);
        batch.clear();
        assert_eq!(batch.len(), 0);
        batch.push(c"d", FileType::Socket, 4);
        assert_eq!(names(&batch, 0..1), [(&b"d"[..], FileType::Socket)]);
    }
}
