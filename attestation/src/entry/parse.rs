//! The strict reader of one line: everything is checked, nothing is copied.

use std::borrow::Cow;
use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::digest::Digest;
use crate::entry::line::{LineFault, beginning};
use crate::entry::{
    Entry, FileTime, InodeFlags, Kind, MAX_LINE, MAX_PLAIN_XATTR, Xattr, XattrValue,
    is_recorded_xattr,
};
use crate::path::{ImagePath, decode, decode_path};

/// The parts of a checked line; texts are still encoded.
#[derive(Clone, Copy)]
pub(super) struct Parsed<'a> {
    path: &'a [u8],
    mode: u16,
    uid: u32,
    gid: u32,
    time: Option<FileTime>,
    flags: InodeFlags,
    pub(super) kind: ParsedKind<'a>,
    xattrs: Words<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum ParsedKind<'a> {
    File { size: u64, sha256: Option<Digest> },
    Dir,
    Link { target: &'a [u8] },
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// What is left of a line: the words after each single space.
#[derive(Clone, Copy)]
struct Words<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let end = rest.iter().position(|byte| *byte == b' ');
        self.rest = end.map(|end| &rest[end + 1..]);
        Some(&rest[..end.unwrap_or(rest.len())])
    }

    /// The value of `keyword` when it is the next word.
    fn value_if(&mut self, keyword: &str) -> Option<&'a [u8]> {
        let value = self
            .rest?
            .strip_prefix(keyword.as_bytes())?
            .strip_prefix(b"=")?;
        self.next();
        Some(
            &value[..value
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(value.len())],
        )
    }

    /// The value of `keyword`, which must be the next word.
    fn value(&mut self, keyword: &'static str) -> Result<&'a [u8], LineFault> {
        self.value_if(keyword).ok_or(LineFault::Missing(keyword))
    }
}

pub(super) fn parse(text: &[u8]) -> Result<Parsed<'_>, LineFault> {
    if text.len() > MAX_LINE {
        return Err(LineFault::TooLong);
    }
    let mut words = Words { rest: Some(text) };
    let path = words.next().unwrap_or_default();
    decode_path(path)?;
    let word = words.value("type")?;
    let mode = octal(words.value("mode")?).ok_or(LineFault::Value("mode"))?;
    let uid = small(words.value("uid")?).ok_or(LineFault::Value("uid"))?;
    let gid = small(words.value("gid")?).ok_or(LineFault::Value("gid"))?;
    let time = match words.value_if("time") {
        Some(_) if word == b"dir" => return Err(LineFault::Unexpected("time".to_owned())),
        Some(value) => Some(time(value).ok_or(LineFault::Value("time"))?),
        None => None,
    };
    let flags = match words.value_if("flags") {
        Some(_) if word != b"dir" && word != b"file" => {
            return Err(LineFault::Unexpected("flags".to_owned()));
        }
        Some(value) => flags(value).ok_or(LineFault::Value("flags"))?,
        None => InodeFlags::default(),
    };
    let kind = kind(word, &mut words)?;
    if matches!(kind, ParsedKind::Link { .. }) && mode != 0o777 {
        return Err(LineFault::LinkMode);
    }
    check_xattrs(words)?;
    Ok(Parsed {
        path,
        mode,
        uid,
        gid,
        time,
        flags,
        kind,
        xattrs: words,
    })
}

impl<'a> Parsed<'a> {
    pub(super) fn raw_path(&self) -> Cow<'a, [u8]> {
        decode_path(self.path).unwrap_or_default()
    }

    pub(super) fn entry(&self, path: ImagePath) -> Entry {
        let mut words = self.xattrs;
        let mut xattrs = Vec::new();
        while let Some((name, value)) = words.next().and_then(split_xattr) {
            let name = decode(name).unwrap_or_default().into_owned();
            let value = value_of(value).unwrap_or(XattrValue::Plain(Vec::new()));
            xattrs.push(Xattr { name, value });
        }
        let kind = match self.kind {
            ParsedKind::File { size, sha256 } => Kind::File { size, sha256 },
            ParsedKind::Dir => Kind::Dir,
            ParsedKind::Link { target } => Kind::Link {
                target: decode(target).unwrap_or_default().into_owned(),
            },
            ParsedKind::Char { major, minor } => Kind::Char { major, minor },
            ParsedKind::Block { major, minor } => Kind::Block { major, minor },
            ParsedKind::Fifo => Kind::Fifo,
            ParsedKind::Socket => Kind::Socket,
        };
        let (mode, uid, gid, time, flags) = (self.mode, self.uid, self.gid, self.time, self.flags);
        Entry {
            path,
            mode,
            uid,
            gid,
            time,
            flags,
            kind,
            xattrs,
        }
    }
}

fn kind<'a>(word: &[u8], words: &mut Words<'a>) -> Result<ParsedKind<'a>, LineFault> {
    Ok(match word {
        b"file" => {
            let size = decimal(words.value("size")?).ok_or(LineFault::Value("size"))?;
            let sha256 = match words.value_if("sha256digest") {
                Some(hex) => Some(Digest::from_hex(hex).ok_or(LineFault::Value("sha256digest"))?),
                None => None,
            };
            ParsedKind::File { size, sha256 }
        }
        b"dir" => ParsedKind::Dir,
        b"link" => {
            let target = words.value("link")?;
            decode(target).map_err(LineFault::Link)?;
            ParsedKind::Link { target }
        }
        b"char" => {
            let (major, minor) =
                device(words.value("device")?).ok_or(LineFault::Value("device"))?;
            ParsedKind::Char { major, minor }
        }
        b"block" => {
            let (major, minor) =
                device(words.value("device")?).ok_or(LineFault::Value("device"))?;
            ParsedKind::Block { major, minor }
        }
        b"fifo" => ParsedKind::Fifo,
        b"socket" => ParsedKind::Socket,
        _ => return Err(LineFault::Value("type")),
    })
}

fn check_xattrs(mut words: Words<'_>) -> Result<(), LineFault> {
    let mut before: Option<Cow<'_, [u8]>> = None;
    while let Some(word) = words.next() {
        let (shown, value) =
            split_xattr(word).ok_or_else(|| LineFault::Unexpected(beginning(word)))?;
        let name = decode(shown).map_err(LineFault::AttributeName)?;
        if !is_recorded_xattr(&name) {
            return Err(LineFault::Attribute(beginning(shown)));
        }
        match before.as_ref().map(|before| before.cmp(&name)) {
            Some(Ordering::Equal) => return Err(LineFault::AttributeTwice(beginning(shown))),
            Some(Ordering::Greater) => return Err(LineFault::AttributeOrder(beginning(shown))),
            Some(Ordering::Less) | None => before = Some(name),
        }
        if value_of(value).is_none() {
            return Err(LineFault::Value("xattr"));
        }
    }
    Ok(())
}

/// The encoded name and the value of the word `xattr.NAME=VALUE`; an encoded name holds no `=`.
fn split_xattr(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = word.strip_prefix(b"xattr.")?;
    let equals = word.iter().position(|byte| *byte == b'=')?;
    Some((&word[..equals], &word[equals + 1..]))
}

fn value_of(text: &[u8]) -> Option<XattrValue> {
    if let Some(hex) = text.strip_prefix(b"sha256:") {
        return Digest::from_hex(hex).map(XattrValue::Hashed);
    }
    if text.len() > MAX_PLAIN_XATTR.div_ceil(3) * 4 {
        return None;
    }
    let value = BASE64.decode(text).ok()?;
    (value.len() <= MAX_PLAIN_XATTR).then_some(XattrValue::Plain(value))
}

/// A decimal number without sign or leading zero.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(value)
    })
}

fn small(digits: &[u8]) -> Option<u32> {
    decimal(digits)?.try_into().ok()
}

fn octal(digits: &[u8]) -> Option<u16> {
    let fits = digits.len() == 4 && digits.iter().all(|digit| matches!(digit, b'0'..=b'7'));
    fits.then(|| {
        digits
            .iter()
            .fold(0, |mode, digit| mode << 3 | u16::from(digit - b'0'))
    })
}

fn time(text: &[u8]) -> Option<FileTime> {
    let (text, nanos) = text.split_at_checked(text.len().checked_sub(10)?)?;
    let nanos = nanos.strip_prefix(b".")?;
    let nanos = nanos.iter().all(u8::is_ascii_digit).then(|| {
        nanos
            .iter()
            .fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'))
    })?;
    let seconds = match text.strip_prefix(b"-") {
        Some(digits) => match decimal(digits)? {
            0 => return None,
            number => 0_i64.checked_sub_unsigned(number)?,
        },
        None => decimal(text)?.try_into().ok()?,
    };
    Some(FileTime { seconds, nanos })
}

fn flags(word: &[u8]) -> Option<InodeFlags> {
    let (append_only, immutable) = match word {
        b"schg" => (false, true),
        b"sappnd" => (true, false),
        b"sappnd,schg" => (true, true),
        _ => return None,
    };
    Some(InodeFlags {
        immutable,
        append_only,
    })
}

fn device(text: &[u8]) -> Option<(u32, u32)> {
    let numbers = text.strip_prefix(b"native,")?;
    let comma = numbers.iter().position(|byte| *byte == b',')?;
    Some((small(&numbers[..comma])?, small(&numbers[comma + 1..])?))
}
