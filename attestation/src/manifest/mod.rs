//! Manifests (FORMATS.md section 3): the sealed lines of an image in walk order, as a stream of bounded memory.
//!
//! Two manifests of the same tree and scope are the same bytes, comments aside; a reader refuses what the writer would not
//! have written.

mod compress;
mod read;
mod write;

use crate::digest::Digest;
use crate::entry::{EntryError, LineError};
use crate::tree::Tree;

pub use compress::{Compressed, Compressor, MAX_WINDOW_LOG, compress, decompressor};
pub use read::ManifestReader;
pub use write::{ManifestWriter, TreelessWriter};

/// The first line.
const SIGNATURE: &[u8] = b"#mtree";

/// What a whole manifest says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// The tree digest of its entries.
    pub tree: Digest,
    /// How many entries there are.
    pub entries: u64,
    /// The sum of the sizes of the files.
    pub bytes: u64,
    /// The size of the manifest itself, not compressed.
    pub uncompressed: u64,
}

/// A manifest that was read whole.
#[derive(Clone, Debug)]
pub struct LoadedManifest {
    /// Its entries as (key, leaf).
    pub tree: Tree,
    /// What it says about itself.
    pub facts: ManifestFacts,
}

/// Why a manifest was not read or written to its end.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes could not be had, or could not be put.
    #[error("line {number}: the manifest cannot be read or written")]
    Io {
        /// The line, counted from 1.
        number: u64,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The first line is not `#mtree`.
    #[error("line 1: a manifest begins with `#mtree`")]
    Signature,
    /// The end of the data is not the end of a line.
    #[error("line {number}: it does not end with a newline")]
    Unterminated {
        /// The line, counted from 1.
        number: u64,
    },
    /// More than 262,144 bytes without a newline.
    #[error("line {number}: it is longer than {} bytes", crate::entry::MAX_LINE)]
    TooLong {
        /// The line, counted from 1.
        number: u64,
    },
    /// A comment behind the first entry.
    #[error("line {number}: comments stand before the first entry only")]
    LateComment {
        /// The line, counted from 1.
        number: u64,
    },
    /// A line that is not in its one form, or whose content was not read.
    #[error("line {number}")]
    Line {
        /// The line, counted from 1.
        number: u64,
        /// What is wrong with it.
        #[source]
        source: LineError,
    },
    /// An entry that has no line.
    #[error("line {number}")]
    Entry {
        /// The line, counted from 1.
        number: u64,
        /// Why it has none.
        #[source]
        source: EntryError,
    },
    /// A path that comes before the one above it.
    #[error("line {number}: `{path}` stands after an entry that it comes before")]
    Order {
        /// The line, counted from 1.
        number: u64,
        /// Its path, encoded.
        path: String,
    },
    /// A path that is there twice.
    #[error("line {number}: `{path}` is there twice")]
    Twice {
        /// The line, counted from 1.
        number: u64,
        /// Its path, encoded.
        path: String,
    },
    /// A comment with a newline in it.
    #[error("line {number}: a comment is one line")]
    Comment {
        /// The line, counted from 1.
        number: u64,
    },
}

/// What both directions hold: the order so far, and what will be told at the end.
#[derive(Debug, Default)]
struct Progress {
    lines: u64,
    entries: u64,
    bytes: u64,
    uncompressed: u64,
    last: Vec<u8>,
}

impl Progress {
    /// Takes in the next entry of the line that is being read or written, whose number is `self.lines`.
    fn entry(&mut self, raw_path: &[u8], size: u64) -> Result<(), ManifestError> {
        use std::cmp::Ordering;

        let shown = || match raw_path {
            b"" => ".".to_owned(),
            raw => format!("./{}", crate::path::encode_component_bytes(raw)),
        };
        if self.entries > 0 {
            match crate::path::compare(&self.last, raw_path) {
                Ordering::Less => {}
                Ordering::Equal => {
                    return Err(ManifestError::Twice {
                        number: self.lines,
                        path: shown(),
                    });
                }
                Ordering::Greater => {
                    return Err(ManifestError::Order {
                        number: self.lines,
                        path: shown(),
                    });
                }
            }
        }
        self.last.clear();
        self.last.extend_from_slice(raw_path);
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size);
        Ok(())
    }

    fn facts(&self, tree: Digest) -> ManifestFacts {
        ManifestFacts {
            tree,
            entries: self.entries,
            bytes: self.bytes,
            uncompressed: self.uncompressed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::entry::Line;

    const ROOT: &str = ". type=dir mode=0755 uid=0 gid=0";
    const A: &str = "./a type=dir mode=0755 uid=0 gid=0";
    const A_B: &str = "./a/b type=fifo mode=0600 uid=0 gid=0";
    const A_DASH: &str = "./a-b type=fifo mode=0600 uid=0 gid=0";
    const UNREAD: &str = "./f type=file mode=0600 uid=0 gid=0 size=5";

    fn read(text: &str) -> Result<ManifestFacts, ManifestError> {
        ManifestReader::new(text.as_bytes())
            .load()
            .map(|loaded| loaded.facts)
    }

    #[test]
    fn written_and_read() {
        let mut plain = Vec::new();
        let mut writer = ManifestWriter::new(&mut plain, &["of a test", ""]).unwrap();
        for text in [ROOT, A, A_B, A_DASH] {
            writer.line(&text.parse().unwrap()).unwrap();
        }
        let facts = writer.finish().unwrap();
        let text = String::from_utf8(plain).unwrap();
        assert_eq!(
            text,
            format!("#mtree\n# of a test\n#\n{ROOT}\n{A}\n{A_B}\n{A_DASH}\n")
        );
        assert_eq!(facts.uncompressed, text.len() as u64);
        assert_eq!(facts.entries, 4);
        assert_eq!(read(&text).unwrap(), facts);
        let mut reader = ManifestReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line.as_str().to_owned());
        }
        assert_eq!(lines, [ROOT, A, A_B, A_DASH]);
        assert!(reader.next_line().unwrap().is_none());
    }

    #[test]
    fn written_the_same_where_the_tree_is_made_elsewhere() {
        let lines: Vec<Line> = [ROOT, A, A_B].map(|text| text.parse().unwrap()).into();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut writer = ManifestWriter::new(&mut one, &[]).unwrap();
        let mut treeless = ManifestWriter::new(&mut other, &[]).unwrap().without_tree();
        for line in &lines {
            writer.line(line).unwrap();
            treeless.line(line).unwrap();
        }
        assert!(
            treeless.line(&lines[1]).is_err(),
            "the order is checked, too"
        );
        let leaves = lines.iter().map(|line| (line.path().key(), line.leaf()));
        let tree = Tree::from_leaves(leaves.collect()).root();
        assert_eq!(treeless.finish(tree).unwrap(), writer.finish().unwrap());
        assert_eq!(one, other);
    }

    #[test]
    fn refused_by_the_reader() {
        use ManifestError as E;
        type Is = fn(&ManifestError) -> bool;
        let cases: [(String, Is); 15] = [
            (String::new(), |error| matches!(error, E::Signature)),
            (format!("{ROOT}\n"), |error| matches!(error, E::Signature)),
            ("#mtree \n".to_owned(), |error| {
                matches!(error, E::Signature)
            }),
            ("#mtree".to_owned(), |error| {
                matches!(error, E::Unterminated { number: 1 })
            }),
            (format!("#mtree\n{ROOT}"), |error| {
                matches!(error, E::Unterminated { number: 2 })
            }),
            ("#mtree\n\n".to_owned(), |error| {
                matches!(error, E::Line { number: 2, .. })
            }),
            (format!("#mtree\n{ROOT}\n\n"), |error| {
                matches!(error, E::Line { number: 3, .. })
            }),
            (format!("#mtree\n{ROOT}\n# late\n"), |error| {
                matches!(error, E::LateComment { number: 3 })
            }),
            (format!("#mtree\n{ROOT}\r\n"), |error| {
                matches!(error, E::Line { number: 2, .. })
            }),
            (format!("#mtree\n {ROOT}\n"), |error| {
                matches!(error, E::Line { number: 2, .. })
            }),
            (format!("#mtree\n{A_DASH}\n{A_B}\n"), |error| {
                matches!(error, E::Order { number: 3, .. })
            }),
            (format!("#mtree\n{A}\n{ROOT}\n"), |error| {
                matches!(error, E::Order { number: 3, .. })
            }),
            (format!("#mtree\n{A}\n{A}\n"), |error| {
                matches!(error, E::Twice { number: 3, .. })
            }),
            (format!("#mtree\n{UNREAD}\n"), |error| {
                matches!(error, E::Line { number: 2, .. })
            }),
            (format!("#mtree\n#{}\n", "x".repeat(300_000)), |error| {
                matches!(error, E::TooLong { number: 2 })
            }),
        ];
        for (text, is) in cases {
            let error = read(&text).unwrap_err();
            assert!(is(&error), "{error:?}");
        }
        assert_eq!(read("#mtree\n").unwrap().tree, Digest::ZERO);
        assert!(read(&format!("#mtree\n#\n##\n# x\n{ROOT}\n")).is_ok());
    }

    #[test]
    fn refused_by_the_writer() {
        let line = |text: &str| text.parse::<Line>().unwrap();
        let mut writer = ManifestWriter::new(Vec::new(), &[]).unwrap();
        assert!(matches!(
            writer.line(&line(UNREAD)),
            Err(ManifestError::Line { number: 2, .. })
        ));
        writer.entry(&line(A_B).entry()).unwrap();
        assert!(matches!(
            writer.line(&line(A)),
            Err(ManifestError::Order { number: 3, .. })
        ));
        assert!(matches!(
            writer.entry(&line(A_B).entry()),
            Err(ManifestError::Twice { .. })
        ));
        assert!(ManifestWriter::new(Vec::new(), &["a\nb"]).is_err());
    }

    #[test]
    fn compressed() {
        let text = format!("#mtree\n{ROOT}\n{A}\n");
        let mut file = Vec::new();
        let facts = compress(text.as_bytes(), &mut file).unwrap();
        assert_eq!(
            facts,
            Compressed {
                size: file.len() as u64,
                sha256: Digest::of(&file),
                uncompressed: text.len() as u64
            }
        );
        let load = |file: &[u8], size| {
            ManifestReader::new(decompressor(file, size))
                .load()
                .map(|loaded| loaded.facts.entries)
        };
        assert_eq!(load(&file, facts.uncompressed).unwrap(), 2);
        for size in [
            0,
            1,
            facts.uncompressed - 1,
            facts.uncompressed + 1,
            u64::MAX,
        ] {
            assert!(
                matches!(load(&file, size), Err(ManifestError::Io { .. })),
                "{size}"
            );
        }
        assert!(load(&file[..file.len() - 1], facts.uncompressed).is_err());
        assert!(load(b"#mtree\n", 7).is_err());
    }

    #[test]
    fn a_large_window_is_refused() {
        let plain = vec![b'#'; 20 << 20];
        let window = |log: u32| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            std::io::Write::write_all(&mut encoder, &plain).unwrap();
            let file = encoder.finish().unwrap();
            std::io::copy(
                &mut decompressor(&file[..], plain.len() as u64),
                &mut std::io::sink(),
            )
        };
        assert_eq!(window(23).unwrap(), plain.len() as u64);
        assert!(window(24).is_err());
    }
}
