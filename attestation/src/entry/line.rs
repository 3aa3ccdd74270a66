//! Entry lines that were read and checked.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::entry::parse::{Parsed, ParsedKind, parse};
use crate::entry::{Entry, MAX_LINE};
use crate::path::{EscapeError, ImagePath, PathError, encode_component_bytes};
use crate::text::serde_as_text;

/// An entry line in its one form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Line(Box<str>);

/// A borrowed entry line in its one form; what is asked of it is taken from the text, without allocating where the path
/// needs no escape.
#[derive(Clone, Copy)]
pub struct LineRef<'a> {
    text: &'a str,
    parsed: Parsed<'a>,
}

/// A refused line: its beginning, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry line `{line}`: {fault}")]
pub struct LineError {
    /// The beginning of the line, encoded so that it can be printed.
    pub line: String,
    /// Why it is refused.
    pub fault: LineFault,
}

/// Why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// More than 262,144 bytes.
    #[error("it is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Its first word is not a path in its one form.
    #[error("its path: {0}")]
    Path(#[from] PathError),
    /// What must stand here does not.
    #[error("`{0}` does not stand where it must, after exactly one space")]
    Missing(&'static str),
    /// The value of a keyword is not in its one form.
    #[error("the value of `{0}` is not in its one form")]
    Value(&'static str),
    /// Something that has no place here: an unknown keyword, one of another type, one in another order, or two spaces.
    #[error("`{0}` has no place there")]
    Unexpected(String),
    /// A link whose mode is not 0777.
    #[error("the mode of a link is 0777")]
    LinkMode,
    /// The target of a link is not encoded in its one form.
    #[error("its link: {0}")]
    Link(EscapeError),
    /// The name of an attribute is not encoded in its one form.
    #[error("the name of an attribute: {0}")]
    AttributeName(EscapeError),
    /// An attribute that is not recorded.
    #[error("attribute `{0}` is not recorded")]
    Attribute(String),
    /// An attribute that is there twice.
    #[error("attribute `{0}` is there twice")]
    AttributeTwice(String),
    /// Attributes in another order than that of their raw names.
    #[error("attribute `{0}` is not in the byte order of the names")]
    AttributeOrder(String),
    /// The content of a file was not read, where only what was read may stand.
    #[error("`sha256digest` is absent")]
    Unread,
}

impl LineError {
    /// The refusal of a line, of which the beginning is kept.
    pub(crate) fn of(line: &str, fault: LineFault) -> Self {
        LineError {
            line: beginning(line.as_bytes()),
            fault,
        }
    }
}

impl Line {
    /// Reads a line, without its newline.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        LineRef::parse(text.as_bytes()).map(LineRef::to_line)
    }

    /// The line itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The entry that it says.
    pub fn entry(&self) -> Entry {
        self.borrowed().entry()
    }

    /// The path that it speaks of.
    pub fn path(&self) -> ImagePath {
        self.borrowed().path()
    }

    /// The leaf that stands for it in a tree.
    pub fn leaf(&self) -> Digest {
        leaf_of_line(self.0.as_bytes())
    }

    /// The same line, borrowed.
    pub fn borrowed(&self) -> LineRef<'_> {
        match LineRef::parse(self.0.as_bytes()) {
            Ok(line) => line,
            Err(_) => unreachable!("a line is parsed before it is kept"),
        }
    }

    /// What an entry that was checked has written.
    pub(super) fn of_written(text: &[u8]) -> Self {
        // Copied: to cut the room it was written in down to size would cost the allocator more.
        Line(match std::str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => String::from_utf8_lossy(text).into(),
        })
    }
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        Self::parse(text)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Line({self})")
    }
}

serde_as_text!(Line, "an entry line");

impl<'a> LineRef<'a> {
    /// Reads a line, without its newline.
    pub fn parse(text: &'a [u8]) -> Result<Self, LineError> {
        let refuse = |fault| LineError {
            line: beginning(text),
            fault,
        };
        let parsed = parse(text).map_err(refuse)?;
        // All that a parsed line can hold is ASCII: this never refuses, and saves an unchecked conversion.
        let text = std::str::from_utf8(text)
            .map_err(|_| refuse(LineFault::Unexpected(beginning(text))))?;
        Ok(LineRef { text, parsed })
    }

    /// The line itself.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// An owned copy.
    pub fn to_line(self) -> Line {
        Line(self.text.into())
    }

    /// The raw bytes of its path.
    pub fn raw_path(&self) -> Cow<'a, [u8]> {
        self.parsed.raw_path()
    }

    /// The path that it speaks of.
    pub fn path(&self) -> ImagePath {
        match ImagePath::from_bytes(self.raw_path().into_owned()) {
            Ok(path) => path,
            Err(_) => unreachable!("the path is checked before the line is kept"),
        }
    }

    /// The path's key in a tree.
    pub fn key(&self) -> Digest {
        Digest::of(&self.raw_path())
    }

    /// The leaf that stands for it in a tree.
    pub fn leaf(&self) -> Digest {
        leaf_of_line(self.text.as_bytes())
    }

    /// The size of a file, 0 for anything else.
    pub fn size(&self) -> u64 {
        match self.parsed.kind {
            ParsedKind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// Whether this is a file whose content was not read.
    pub fn is_unread(&self) -> bool {
        matches!(self.parsed.kind, ParsedKind::File { sha256: None, .. })
    }

    /// The entry that it says.
    pub fn entry(&self) -> Entry {
        self.parsed.entry(self.path())
    }
}

impl fmt::Debug for LineRef<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LineRef({})", self.text)
    }
}

/// The leaf of a line that is known to be in its one form: SHA-256 of a zero byte and the line without its newline.
pub fn leaf_of_line(line: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], line])
}

/// Enough of a refused line to find it again; the rest of it is hostile text that nobody needs.
pub(crate) fn beginning(text: &[u8]) -> String {
    const SHOWN: usize = 120;
    let mut shown = encode_component_bytes(&text[..text.len().min(SHOWN)])
        .replace("\\040", " ")
        .replace("\\075", "=");
    if text.len() > SHOWN {
        shown.push('…');
    }
    shown
}
