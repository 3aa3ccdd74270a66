//! Paths of an image: raw bytes below its root, never text (FORMATS.md section 1), and the mtree encoding that shows them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::text::serde_as_text;

/// The longest path: more than `PATH_MAX`, so that only a tree made to be deep reaches it.
pub const MAX_PATH: usize = 65_535;

/// The path of one object below the attested root; the root itself is the empty path.
///
/// Ordered as a depth-first walk that visits the names of a directory in byte order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ImagePath(Box<[u8]>);

/// Why bytes or a text are not a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `/` at the beginning.
    #[error("a path has no leading `/`")]
    LeadingSlash,
    /// A `/` at the end.
    #[error("a path has no trailing `/`")]
    TrailingSlash,
    /// Two `/` in a row, or a name that is empty.
    #[error("a path has no empty component")]
    EmptyComponent,
    /// `.` or `..` as a component.
    #[error("a path has no component `.` or `..`")]
    DotComponent,
    /// A NUL byte.
    #[error("a path has no NUL byte")]
    Nul,
    /// A name with a `/` in it.
    #[error("a name has no `/`")]
    SlashInName,
    /// More than 65,535 bytes.
    #[error("a path has at most {MAX_PATH} bytes")]
    TooLong,
    /// A text that begins neither with `./` nor is `.`.
    #[error("a path is shown as `.` or begins with `./`")]
    NotRelative,
    /// An escape that is missing, not needed or malformed.
    #[error(transparent)]
    Escape(#[from] EscapeError),
}

/// Why a text is not the mtree encoding of any bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EscapeError {
    /// A byte that must be written as an escape stands as it is.
    #[error("byte {0:#04x} must be written as a backslash and three octal digits")]
    Missing(u8),
    /// A byte that stands for itself is written as an escape.
    #[error("byte {0:#04x} must not be escaped")]
    Unneeded(u8),
    /// A backslash without three octal digits up to 377.
    #[error("a backslash is followed by three octal digits up to 377")]
    Malformed,
}

impl ImagePath {
    /// The root.
    pub fn root() -> Self {
        ImagePath(Box::default())
    }

    /// A path from its raw bytes.
    pub fn from_bytes(raw: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let raw = raw.into();
        check(&raw)?;
        Ok(ImagePath(raw.into_boxed_slice()))
    }

    /// A path from its mtree encoding: `.`, or `./` and the encoded bytes.
    pub fn parse(shown: &str) -> Result<Self, PathError> {
        Self::from_bytes(decode_path(shown.as_bytes())?.into_owned())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this directory.
    pub fn child(&self, name: &[u8]) -> Result<Self, PathError> {
        check_name(name)?;
        let separator: &[u8] = if self.is_root() { b"" } else { b"/" };
        let raw = [&self.0, separator, name].concat();
        if raw.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        Ok(ImagePath(raw.into_boxed_slice()))
    }

    /// The directory that this lies in; the root lies in none.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(ImagePath(self.0[..end].into()))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        let start = self
            .0
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        &self.0[start..]
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// Whether this is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &ImagePath) -> bool {
        match self.0.strip_prefix(&*ancestor.0) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// The path's key in a tree: SHA-256 of the raw bytes.
    pub fn key(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Appends the mtree encoding to `out`.
    pub fn write_shown(&self, out: &mut Vec<u8>) {
        out.push(b'.');
        if !self.is_root() {
            out.push(b'/');
            encode_into(&self.0, out);
        }
    }
}

impl Ord for ImagePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for ImagePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for ImagePath {
    type Err = PathError;

    fn from_str(shown: &str) -> Result<Self, PathError> {
        Self::parse(shown)
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_root() { "." } else { "./" })?;
        formatter.write_str(&encode_component_bytes(&self.0))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ImagePath({self})")
    }
}

serde_as_text!(ImagePath, "a path in the mtree encoding");

/// The mtree encoding of any bytes (a name, a link's target, the name of an attribute), without a leading `./`.
pub fn encode_component_bytes(raw: &[u8]) -> String {
    let mut shown = Vec::with_capacity(raw.len());
    encode_into(raw, &mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}

/// The order of a manifest: raw paths compared with `/` as the lowest byte.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
    match left.iter().zip(right).find(|(one, other)| one != other) {
        Some((one, other)) => rank(*one).cmp(&rank(*other)),
        None => left.len().cmp(&right.len()),
    }
}

/// Whether a byte is written as an escape: all but printable ASCII, and what has a meaning in mtree or in a glob.
pub(crate) const fn is_escaped(byte: u8) -> bool {
    !matches!(byte, b'!'..=b'~') || matches!(byte, b'\\' | b'#' | b'=' | b'*' | b'?' | b'[')
}

pub(crate) fn encode_into(raw: &[u8], out: &mut Vec<u8>) {
    let plain = raw
        .iter()
        .position(|byte| is_escaped(*byte))
        .unwrap_or(raw.len());
    out.extend_from_slice(&raw[..plain]);
    for &byte in &raw[plain..] {
        if is_escaped(byte) {
            out.extend([
                b'\\',
                b'0' + (byte >> 6),
                b'0' + (byte >> 3 & 7),
                b'0' + (byte & 7),
            ]);
        } else {
            out.push(byte);
        }
    }
}

/// The three octal digits of an escape, read after its backslash.
pub(crate) fn octal_escape(digits: &[u8]) -> Option<u8> {
    match digits {
        [
            high @ b'0'..=b'3',
            middle @ b'0'..=b'7',
            low @ b'0'..=b'7',
            ..,
        ] => Some((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0')),
        _ => None,
    }
}

/// The raw bytes of an encoding; refuses every form but the one that `encode_into` writes.
pub(crate) fn decode(shown: &[u8]) -> Result<Cow<'_, [u8]>, EscapeError> {
    let Some(first) = shown.iter().position(|byte| is_escaped(*byte)) else {
        return Ok(Cow::Borrowed(shown));
    };
    let mut raw = Vec::with_capacity(shown.len());
    raw.extend_from_slice(&shown[..first]);
    let mut rest = &shown[first..];
    while let [byte, after @ ..] = rest {
        if *byte == b'\\' {
            let meant = octal_escape(after).ok_or(EscapeError::Malformed)?;
            if !is_escaped(meant) {
                return Err(EscapeError::Unneeded(meant));
            }
            raw.push(meant);
            rest = &after[3..];
        } else if is_escaped(*byte) {
            return Err(EscapeError::Missing(*byte));
        } else {
            raw.push(*byte);
            rest = after;
        }
    }
    Ok(Cow::Owned(raw))
}

/// The raw bytes of a shown path, checked to be a path.
pub(crate) fn decode_path(shown: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    if shown == b"." {
        return Ok(Cow::Borrowed(b""));
    }
    let encoded = shown.strip_prefix(b"./").ok_or(PathError::NotRelative)?;
    let raw = decode(encoded)?;
    if raw.is_empty() {
        return Err(PathError::EmptyComponent);
    }
    check(&raw)?;
    Ok(raw)
}

fn check(raw: &[u8]) -> Result<(), PathError> {
    if raw.is_empty() {
        return Ok(());
    }
    if raw.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    if raw[0] == b'/' {
        return Err(PathError::LeadingSlash);
    }
    if raw[raw.len() - 1] == b'/' {
        return Err(PathError::TrailingSlash);
    }
    raw.split(|byte| *byte == b'/').try_for_each(check_name)
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::DotComponent),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ if name.contains(&b'/') => Err(PathError::SlashInName),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn path(raw: &[u8]) -> ImagePath {
        ImagePath::from_bytes(raw).unwrap()
    }

    #[test]
    fn what_is_no_path() {
        use PathError::*;
        for (raw, error) in [
            (&b"/"[..], LeadingSlash),
            (b"/a", LeadingSlash),
            (b"a/", TrailingSlash),
            (b"a//b", EmptyComponent),
            (b".", DotComponent),
            (b"..", DotComponent),
            (b"a/./b", DotComponent),
            (b"a/..", DotComponent),
            (b"a\0b", Nul),
        ] {
            assert_eq!(ImagePath::from_bytes(raw), Err(error), "{raw:?}");
        }
        assert!(ImagePath::from_bytes(vec![b'a'; MAX_PATH]).is_ok());
        assert_eq!(
            ImagePath::from_bytes(vec![b'a'; MAX_PATH + 1]),
            Err(TooLong)
        );
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(ImagePath::root().child(name).is_err(), "{name:?}");
        }
        assert_eq!(path(&vec![b'a'; MAX_PATH - 1]).child(b"b"), Err(TooLong));
    }

    #[test]
    fn what_is_no_shown_path() {
        use EscapeError::*;
        for (shown, error) in [
            ("", PathError::NotRelative),
            ("a", PathError::NotRelative),
            ("/a", PathError::NotRelative),
            ("./", PathError::EmptyComponent),
            (".//a", PathError::LeadingSlash),
            ("./a/", PathError::TrailingSlash),
            ("./..", PathError::DotComponent),
            ("./.", PathError::DotComponent),
            ("./a/../b", PathError::DotComponent),
            ("./a b", PathError::Escape(Missing(b' '))),
            ("./a*", PathError::Escape(Missing(b'*'))),
            ("./caf\u{e9}", PathError::Escape(Missing(0xc3))),
            ("./\\141", PathError::Escape(Unneeded(b'a'))),
            ("./\\135", PathError::Escape(Unneeded(b']'))),
            ("./\\057", PathError::Escape(Unneeded(b'/'))),
            ("./\\40", PathError::Escape(Malformed)),
            ("./\\08a", PathError::Escape(Malformed)),
            ("./\\400", PathError::Escape(Malformed)),
            ("./\\", PathError::Escape(Malformed)),
            ("./a\\000", PathError::Nul),
        ] {
            assert_eq!(ImagePath::parse(shown), Err(error), "{shown}");
        }
    }

    #[test]
    fn every_byte_survives_showing() {
        for byte in (1..=255).filter(|byte| !b"/.".contains(byte)) {
            let one = path(&[byte]);
            assert_eq!(one.to_string().parse::<ImagePath>().unwrap(), one);
            assert_eq!(one.to_string().len() == 6, is_escaped(byte));
        }
        let all: Vec<u8> = (0..=255).collect();
        let expected = all
            .iter()
            .filter(|byte| !(b'!'..=b'~').contains(byte) || b"\\#=*?[".contains(byte))
            .count();
        assert_eq!(encode_component_bytes(&all).matches('\\').count(), expected);
    }

    #[test]
    fn family() {
        let deep = path(b"a/b/c");
        assert_eq!(deep.name(), b"c");
        assert_eq!(deep.parent().unwrap(), path(b"a/b"));
        assert_eq!(path(b"a").parent().unwrap(), ImagePath::root());
        assert_eq!(ImagePath::root().parent(), None);
        assert_eq!(ImagePath::root().components().count(), 0);
        assert_eq!(deep.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(path(b"a/b").child(b"c").unwrap(), deep);
        assert!(
            deep.starts_with(&ImagePath::root())
                && deep.starts_with(&path(b"a"))
                && deep.starts_with(&deep)
        );
        assert!(!path(b"ab").starts_with(&path(b"a")) && !path(b"a").starts_with(&deep));
    }
}
