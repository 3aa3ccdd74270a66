//! The writer of a manifest.

use std::io::Write;

use crate::digest::Digest;
use crate::entry::{Entry, Kind, Line, LineError, LineFault, leaf_of_line};
use crate::manifest::{ManifestError, ManifestFacts, Progress, SIGNATURE};
use crate::tree::Tree;

/// Writes a manifest's plain lines; holds 64 bytes an entry, for the tree digest.
#[derive(Debug)]
pub struct ManifestWriter<W> {
    out: W,
    buffer: Vec<u8>,
    leaves: Option<Vec<(Digest, Digest)>>,
    progress: Progress,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest; each comment becomes a line of its own.
    pub fn new(out: W, comments: &[&str]) -> Result<Self, ManifestError> {
        let mut writer = ManifestWriter {
            out,
            buffer: Vec::new(),
            leaves: Some(Vec::new()),
            progress: Progress::default(),
        };
        writer.begin_line();
        writer.buffer.extend_from_slice(SIGNATURE);
        writer.end_line()?;
        for comment in comments {
            writer.begin_line();
            if comment.contains('\n') {
                return Err(ManifestError::Comment {
                    number: writer.progress.lines,
                });
            }
            writer.buffer.push(b'#');
            if !comment.is_empty() {
                writer.buffer.push(b' ');
                writer.buffer.extend_from_slice(comment.as_bytes());
            }
            writer.end_line()?;
        }
        Ok(writer)
    }

    /// Writes an entry, which comes after all before it.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), ManifestError> {
        self.begin_line();
        let number = self.progress.lines;
        let written = entry.write_checked(&mut self.buffer);
        written.map_err(|source| self.refused(|| ManifestError::Entry { number, source }))?;
        let (size, unread) = match &entry.kind {
            Kind::File { size, sha256 } => (*size, sha256.is_none()),
            _ => (0, false),
        };
        self.finish_entry(entry.path.as_bytes(), size, unread)
    }

    /// Writes a line, whose path comes after all before it.
    pub fn line(&mut self, line: &Line) -> Result<(), ManifestError> {
        self.begin_line();
        self.buffer.extend_from_slice(line.as_str().as_bytes());
        let borrowed = line.borrowed();
        self.finish_entry(&borrowed.raw_path(), borrowed.size(), borrowed.is_unread())
    }

    /// Leaves the tree to the caller.
    pub fn without_tree(self) -> TreelessWriter<W> {
        TreelessWriter(Self {
            leaves: None,
            ..self
        })
    }

    /// Ends the manifest and tells what is in it.
    pub fn finish(mut self) -> Result<ManifestFacts, ManifestError> {
        let tree = Tree::from_leaves(self.leaves.take().unwrap_or_default());
        self.finish_as(tree.root())
    }

    fn finish_as(mut self, tree: Digest) -> Result<ManifestFacts, ManifestError> {
        let number = self.progress.lines;
        self.out
            .flush()
            .map_err(|source| ManifestError::Io { number, source })?;
        Ok(self.progress.facts(tree))
    }

    fn begin_line(&mut self) {
        self.buffer.clear();
        self.progress.lines += 1;
    }

    fn finish_entry(
        &mut self,
        raw_path: &[u8],
        size: u64,
        unread: bool,
    ) -> Result<(), ManifestError> {
        let number = self.progress.lines;
        if unread {
            let line = String::from_utf8_lossy(&self.buffer).into_owned();
            let source = LineError::of(&line, LineFault::Unread);
            return Err(self.refused(|| ManifestError::Line { number, source }));
        }
        if let Err(error) = self.progress.entry(raw_path, size) {
            return Err(self.refused(|| error));
        }
        if let Some(leaves) = &mut self.leaves {
            leaves.push((Digest::of(raw_path), leaf_of_line(&self.buffer)));
        }
        self.end_line()
    }

    fn end_line(&mut self) -> Result<(), ManifestError> {
        self.buffer.push(b'\n');
        let number = self.progress.lines;
        self.out
            .write_all(&self.buffer)
            .map_err(|source| ManifestError::Io { number, source })?;
        self.progress.uncompressed += self.buffer.len() as u64;
        Ok(())
    }

    /// What was refused is not written: the next line takes its number.
    fn refused(&mut self, error: impl FnOnce() -> ManifestError) -> ManifestError {
        self.progress.lines -= 1;
        error()
    }
}

/// Writes a manifest's plain lines where the tree is made elsewhere, from the same lines.
#[derive(Debug)]
pub struct TreelessWriter<W>(ManifestWriter<W>);

impl<W: Write> TreelessWriter<W> {
    /// As [`ManifestWriter::line`].
    pub fn line(&mut self, line: &Line) -> Result<(), ManifestError> {
        self.0.line(line)
    }

    /// Ends the manifest, whose tree this is, and tells what is in it.
    pub fn finish(self, tree: Digest) -> Result<ManifestFacts, ManifestError> {
        self.0.finish_as(tree)
    }
}
