//! The plain lines of a manifest on disk, in manifest order, found by path without holding them in memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use attestation::digest::Digest;
use attestation::entry::{Line, leaf_of_line};
use attestation::path::ImagePath;

/// Read at once where a path is looked for.
const LOOK: usize = 8 << 10;
/// Read at once where all lines are.
const ALL: usize = 128 << 10;
/// One offset in memory for so many lines: a look-up reads about a dozen places and then a few kilobytes.
const STRIDE: usize = 32;
/// The longest line (FORMATS.md 2) and its newline.
const LINE_BYTES: u64 = 262_145;

/// Why lines cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file cannot be read.
    #[error("read the lines of an image")]
    Read(#[from] io::Error),
    /// The file is not what was written: it was checked then.
    #[error("the lines of an image were changed on disk at byte {0}")]
    Damaged(u64),
}

/// The lines of one image.
#[derive(Debug)]
pub struct Lines {
    file: File,
    samples: Vec<u64>,
}

impl Lines {
    /// Takes a plain manifest; remembers where every thirty-second entry begins. The caller has checked its content.
    pub fn open(file: File) -> Result<Self, LinesError> {
        let mut samples = Vec::new();
        let mut cursor = Cursor::reading(ALL, &file, 0);
        let mut count = 0_usize;
        while let Some((offset, line)) = cursor.next()? {
            if line.first() == Some(&b'#') {
                continue;
            }
            if count.is_multiple_of(STRIDE) {
                samples.push(offset);
            }
            count += 1;
        }
        samples.shrink_to_fit();
        Ok(Self { file, samples })
    }

    /// The image's line for a path.
    pub fn find(&self, path: &ImagePath) -> Result<Option<Line>, LinesError> {
        let Some(start) = self.block_of(path)? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(&self.file, start);
        for _ in 0..STRIDE {
            let Some((offset, line)) = cursor.next()? else {
                break;
            };
            let here = path_of(offset, line)?;
            if here == *path {
                return parse(offset, line).map(Some);
            }
            if here > *path {
                break;
            }
        }
        Ok(None)
    }

    /// Gives every line at or below a path.
    pub fn below(
        &self,
        ancestor: &ImagePath,
        give: &mut dyn FnMut(ImagePath, Line),
    ) -> Result<(), LinesError> {
        let start = match self.block_of(ancestor)? {
            Some(start) => start,
            None => match self.samples.first() {
                Some(first) => *first,
                None => return Ok(()),
            },
        };
        let mut cursor = Cursor::new(&self.file, start);
        while let Some((offset, line)) = cursor.next()? {
            let here = path_of(offset, line)?;
            if here.starts_with(ancestor) {
                give(here, parse(offset, line)?);
            } else if here > *ancestor {
                break;
            }
        }
        Ok(())
    }

    /// The next paths in order, so many at most; all from the first without a path.
    pub fn after(
        &self,
        path: Option<&ImagePath>,
        most: usize,
    ) -> Result<Vec<ImagePath>, LinesError> {
        let before = match path {
            Some(path) => self.block_of(path)?,
            None => None,
        };
        let Some(start) = before.or_else(|| self.samples.first().copied()) else {
            return Ok(Vec::new());
        };
        let mut paths = Vec::new();
        let mut cursor = Cursor::new(&self.file, start);
        while paths.len() < most
            && let Some((offset, line)) = cursor.next()?
        {
            let here = path_of(offset, line)?;
            if path.is_none_or(|path| here > *path) {
                paths.push(here);
            }
        }
        Ok(paths)
    }

    /// Key and leaf of every line: what a tree is made of.
    pub fn leaves(&self) -> Result<Vec<(Digest, Digest)>, LinesError> {
        let mut leaves = Vec::with_capacity(self.samples.len() * STRIDE);
        let Some(first) = self.samples.first() else {
            return Ok(leaves);
        };
        let mut cursor = Cursor::reading(ALL, &self.file, *first);
        while let Some((offset, line)) = cursor.next()? {
            leaves.push((path_of(offset, line)?.key(), leaf_of_line(line)));
        }
        Ok(leaves)
    }

    /// Where the block of lines begins that holds the path, if any does; `None` before the first.
    fn block_of(&self, path: &ImagePath) -> Result<Option<u64>, LinesError> {
        let (mut low, mut high) = (0, self.samples.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let Some(offset) = self.samples.get(middle).copied() else {
                break;
            };
            let mut cursor = Cursor::new(&self.file, offset);
            let Some((_, line)) = cursor.next()? else {
                return Err(LinesError::Damaged(offset));
            };
            if path_of(offset, line)? <= *path {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low
            .checked_sub(1)
            .and_then(|index| self.samples.get(index))
            .copied())
    }
}

fn path_of(offset: u64, line: &[u8]) -> Result<ImagePath, LinesError> {
    let shown = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(shown)
        .ok()
        .and_then(|shown| ImagePath::parse(shown).ok())
        .ok_or(LinesError::Damaged(offset))
}

fn parse(offset: u64, line: &[u8]) -> Result<Line, LinesError> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| Line::parse(line).ok())
        .ok_or(LinesError::Damaged(offset))
}

/// Reads lines from an offset on, without moving the file's own position.
struct Cursor<'a> {
    reader: BufReader<At<'a>>,
    offset: u64,
    line: Vec<u8>,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a File, offset: u64) -> Self {
        Self::reading(LOOK, file, offset)
    }

    fn reading(at_once: usize, file: &'a File, offset: u64) -> Self {
        let reader = BufReader::with_capacity(at_once, At { file, offset });
        Self {
            reader,
            offset,
            line: Vec::new(),
        }
    }

    /// The next line without its newline, and where it begins.
    fn next(&mut self) -> Result<Option<(u64, &[u8])>, LinesError> {
        self.line.clear();
        let read = (&mut self.reader)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let start = self.offset;
        if self.line.pop() != Some(b'\n') {
            return Err(LinesError::Damaged(start));
        }
        self.offset += u64::try_from(read).unwrap_or(0);
        Ok(Some((start, &self.line)))
    }
}

struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(paths: &[String]) -> Lines {
        let mut file = tempfile::tempfile().unwrap();
        writeln!(file, "#mtree").unwrap();
        for path in paths {
            writeln!(file, "{path} type=dir mode=0755 uid=0 gid=0").unwrap();
        }
        Lines::open(file).unwrap()
    }

    #[test]
    fn every_line_is_found_and_nothing_else() {
        let mut paths = vec![".".to_owned()];
        for top in 100..150 {
            paths.push(format!("./d{top}"));
            for below in 10..15 {
                paths.push(format!("./d{top}/x{below}"));
            }
        }
        let lines = lines(&paths);
        assert_eq!(lines.leaves().unwrap().len(), paths.len());
        for shown in &paths {
            let path = ImagePath::parse(shown).unwrap();
            let line = lines.find(&path).unwrap().unwrap();
            assert_eq!(line.path(), path);
        }
        for absent in ["./a", "./d100/x09", "./d100/x15", "./d149/x99", "./z"] {
            assert!(
                lines
                    .find(&ImagePath::parse(absent).unwrap())
                    .unwrap()
                    .is_none(),
                "{absent}"
            );
        }
        let mut below = Vec::new();
        let d120 = ImagePath::parse("./d120").unwrap();
        lines.below(&d120, &mut |path, _| below.push(path)).unwrap();
        assert_eq!(below.len(), 6);
        let mut after = Vec::new();
        while let Ok(next) = lines.after(after.last(), 7)
            && !next.is_empty()
        {
            after.extend(next);
        }
        let shown: Vec<String> = after.iter().map(ToString::to_string).collect();
        assert_eq!(shown, paths);
        let mut all = 0;
        lines
            .below(&ImagePath::root(), &mut |_, _| all += 1)
            .unwrap();
        assert_eq!(all, paths.len());
    }

    #[test]
    fn an_empty_image_has_no_lines() {
        let lines = lines(&[]);
        assert!(lines.find(&ImagePath::root()).unwrap().is_none());
        assert!(lines.leaves().unwrap().is_empty());
    }
}
