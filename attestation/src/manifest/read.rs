//! The strict reader of a manifest.

use std::io::{self, BufRead};

use crate::entry::{LineError, LineFault, LineRef, MAX_LINE};
use crate::manifest::{LoadedManifest, ManifestError, ManifestFacts, Progress, SIGNATURE};
use crate::tree::Tree;

/// Reads a manifest line by line; holds one line and the path before it.
#[derive(Debug)]
pub struct ManifestReader<R> {
    input: R,
    line: Vec<u8>,
    progress: Progress,
    /// Lines whose content was not read are taken, too.
    unread: bool,
}

impl<R: BufRead> ManifestReader<R> {
    /// A reader of plain lines.
    pub fn new(input: R) -> Self {
        ManifestReader {
            input,
            line: Vec::new(),
            progress: Progress::default(),
            unread: false,
        }
    }

    /// A reader of a snapshot, which may have files whose content was not read.
    pub fn of_snapshot(input: R) -> Self {
        ManifestReader {
            unread: true,
            ..Self::new(input)
        }
    }

    /// The next entry line, or nothing at the end. After an error the reader has no meaning any more.
    pub fn next_line(&mut self) -> Result<Option<LineRef<'_>>, ManifestError> {
        if self.progress.lines == 0 && (!self.advance()? || self.line != SIGNATURE) {
            return Err(ManifestError::Signature);
        }
        loop {
            if !self.advance()? {
                return Ok(None);
            }
            if !self.line.starts_with(b"#") {
                break;
            }
            if self.progress.entries > 0 {
                return Err(ManifestError::LateComment {
                    number: self.progress.lines,
                });
            }
        }
        let number = self.progress.lines;
        let refuse = |source| ManifestError::Line { number, source };
        let line = LineRef::parse(&self.line).map_err(refuse)?;
        if line.is_unread() && !self.unread {
            return Err(refuse(LineError::of(line.as_str(), LineFault::Unread)));
        }
        self.progress.entry(&line.raw_path(), line.size())?;
        Ok(Some(line))
    }

    /// Reads all that is left: the tree, and what the manifest says about itself.
    pub fn load(self) -> Result<LoadedManifest, ManifestError> {
        self.load_with(|_line| {})
    }

    /// The same, and each line is shown on the way.
    pub fn load_with(
        mut self,
        mut show: impl FnMut(&LineRef<'_>),
    ) -> Result<LoadedManifest, ManifestError> {
        let mut leaves = Vec::new();
        while let Some(line) = self.next_line()? {
            show(&line);
            leaves.push((line.key(), line.leaf()));
        }
        let tree = Tree::from_leaves(leaves);
        let facts: ManifestFacts = self.progress.facts(tree.root());
        Ok(LoadedManifest { tree, facts })
    }

    /// Reads one line without its newline into `self.line`; false at the end.
    fn advance(&mut self) -> Result<bool, ManifestError> {
        self.line.clear();
        let number = self.progress.lines + 1;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ManifestError::Io { number, source }),
            };
            if available.is_empty() {
                return if self.line.is_empty() {
                    Ok(false)
                } else {
                    Err(ManifestError::Unterminated { number })
                };
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            if self.line.len() + part.len() > MAX_LINE {
                return Err(ManifestError::TooLong { number });
            }
            self.line.extend_from_slice(part);
            let consumed = part.len() + usize::from(end.is_some());
            self.input.consume(consumed);
            self.progress.uncompressed += consumed as u64;
            if end.is_some() {
                self.progress.lines = number;
                return Ok(true);
            }
        }
    }
}
