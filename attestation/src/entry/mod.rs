//! One file-system object as one line of mtree(5), in exactly one form (FORMATS.md section 2).
//!
//! [`Entry`] is the object in parts, [`Line`] its line: an owned one that was checked, [`LineRef`] a borrowed one.
//! Whatever reads a line checks all of it, so that two different lines always say two different things.

mod fields;
mod line;
mod parse;

use std::ffi::CStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::digest::Digest;
use crate::path::{ImagePath, encode_component_bytes, encode_into};

pub use fields::fields;
pub use line::{Line, LineError, LineFault, LineRef, leaf_of_line};

/// The longest line, without its newline: what would be longer is `unreadable`.
pub const MAX_LINE: usize = 262_144;

/// The longest attribute value that stands in a line itself; of a longer one its digest does.
pub const MAX_PLAIN_XATTR: usize = 1_024;

/// One file-system object as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub path: ImagePath,
    /// Setuid, setgid, sticky and permission bits; `0o777` for links.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, only where a scope rule asks for it, never of a directory.
    pub time: Option<FileTime>,
    /// Inode flags, of files and directories.
    pub flags: InodeFlags,
    /// What it is, and what only that kind has.
    pub kind: Kind,
    /// The recorded attributes, sorted by raw name.
    pub xattrs: Vec<Xattr>,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of the content; absent exactly when it was not read, never in a manifest.
        sha256: Option<Digest>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Link {
        /// Where it points, raw bytes.
        target: Vec<u8>,
    },
    /// A character device.
    Char {
        /// Driver.
        major: u32,
        /// Device of that driver.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Driver.
        major: u32,
        /// Device of that driver.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The word after `type=`.
    pub const fn word(&self) -> &'static str {
        match self {
            Kind::File { .. } => "file",
            Kind::Dir => "dir",
            Kind::Link { .. } => "link",
            Kind::Char { .. } => "char",
            Kind::Block { .. } => "block",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// A modification time as `statx` gives it: `nanos` always count forward, also before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanos: u32,
}

/// The inode flags that are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InodeFlags {
    /// `schg`: nothing about it can be changed.
    pub immutable: bool,
    /// `sappnd`: it can only grow.
    pub append_only: bool,
}

impl InodeFlags {
    /// The word after `flags=`, or nothing where none is set.
    pub const fn word(self) -> Option<&'static str> {
        match (self.append_only, self.immutable) {
            (true, true) => Some("sappnd,schg"),
            (true, false) => Some("sappnd"),
            (false, true) => Some("schg"),
            (false, false) => None,
        }
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// The whole name with its namespace, raw bytes.
    pub name: Vec<u8>,
    /// Its value, or what stands for it.
    pub value: XattrValue,
}

/// The value of an extended attribute as a line holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XattrValue {
    /// A value of at most 1,024 bytes.
    Plain(Vec<u8>),
    /// SHA-256 of a longer one.
    Hashed(Digest),
}

impl XattrValue {
    /// What stands for `value`: itself, or its digest when it is above 1,024 bytes.
    pub fn of(value: &[u8]) -> Self {
        if value.len() > MAX_PLAIN_XATTR {
            XattrValue::Hashed(Digest::of(value))
        } else {
            XattrValue::Plain(value.to_vec())
        }
    }
}

/// The recorded attributes that are known by name, in the order of an entry (FORMATS.md section 2).
pub const NAMED_XATTRS: [&CStr; 5] = [
    c"security.capability",
    c"security.ima",
    c"security.selinux",
    c"system.posix_acl_access",
    c"system.posix_acl_default",
];

/// Whether an attribute of this name is recorded.
pub fn is_recorded_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || NAMED_XATTRS.iter().any(|known| known.to_bytes() == name)
}

/// Why an entry has no line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The mode has bits above the twelve that are recorded.
    #[error("{path}: mode {mode:o} has more than setuid, setgid, sticky and permission bits")]
    Mode {
        /// Whose.
        path: ImagePath,
        /// The mode.
        mode: u16,
    },
    /// The mode of a link is not `0777`.
    #[error("{0}: the mode of a link is 0777")]
    LinkMode(ImagePath),
    /// A directory has a time.
    #[error("{0}: the time of a directory is never recorded")]
    DirectoryTime(ImagePath),
    /// A time has a full second or more of nanoseconds.
    #[error("{0}: a time has less than 1,000,000,000 nanoseconds")]
    Nanos(ImagePath),
    /// Flags on something that is neither a file nor a directory.
    #[error("{0}: only files and directories have flags")]
    Flags(ImagePath),
    /// An attribute that is not recorded.
    #[error("{path}: attribute {name} is not recorded")]
    Attribute {
        /// Whose.
        path: ImagePath,
        /// The attribute, encoded.
        name: String,
    },
    /// Attributes that are not sorted by name, or one that is there twice.
    #[error("{0}: attributes are sorted by name, none is there twice")]
    AttributeOrder(ImagePath),
    /// A value above 1,024 bytes that is not hashed.
    #[error("{0}: an attribute above {MAX_PLAIN_XATTR} bytes is recorded by its digest")]
    AttributeValue(ImagePath),
    /// The line would be longer than 262,144 bytes.
    #[error("{0}: its line would be longer than {MAX_LINE} bytes")]
    TooLong(ImagePath),
}

impl Entry {
    /// The entry's line.
    pub fn line(&self) -> Result<Line, EntryError> {
        let mut text = Vec::with_capacity(256);
        self.write_checked(&mut text)?;
        Ok(Line::of_written(&text))
    }

    /// Appends the line, without a newline, when the entry has one.
    pub fn write_checked(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        self.check()?;
        let start = out.len();
        self.write_line(out);
        if out.len() - start > MAX_LINE {
            out.truncate(start);
            return Err(EntryError::TooLong(self.path.clone()));
        }
        Ok(())
    }

    /// Appends the line, without a newline and without asking whether the entry may have one: [`Entry::line`] asks.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        self.path.write_shown(out);
        out.extend_from_slice(b" type=");
        out.extend_from_slice(self.kind.word().as_bytes());
        out.extend_from_slice(b" mode=");
        out.extend([9, 6, 3, 0].map(|shift| b'0' + (self.mode >> shift & 7) as u8));
        field(out, b" uid=", self.uid);
        field(out, b" gid=", self.gid);
        if let Some(time) = self.time {
            out.extend_from_slice(format!(" time={}.{:09}", time.seconds, time.nanos).as_bytes());
        }
        if let Some(word) = self.flags.word() {
            out.extend_from_slice(b" flags=");
            out.extend_from_slice(word.as_bytes());
        }
        self.kind.write(out);
        for xattr in &self.xattrs {
            xattr.write(out);
        }
    }

    fn check(&self) -> Result<(), EntryError> {
        let path = || self.path.clone();
        if self.mode > 0o7777 {
            return Err(EntryError::Mode {
                path: path(),
                mode: self.mode,
            });
        }
        if matches!(self.kind, Kind::Link { .. }) && self.mode != 0o777 {
            return Err(EntryError::LinkMode(path()));
        }
        if self.time.is_some() && self.kind == Kind::Dir {
            return Err(EntryError::DirectoryTime(path()));
        }
        if self.time.is_some_and(|time| time.nanos >= 1_000_000_000) {
            return Err(EntryError::Nanos(path()));
        }
        if self.flags != InodeFlags::default()
            && !matches!(self.kind, Kind::File { .. } | Kind::Dir)
        {
            return Err(EntryError::Flags(path()));
        }
        if let Some(xattr) = self
            .xattrs
            .iter()
            .find(|xattr| !is_recorded_xattr(&xattr.name))
        {
            return Err(EntryError::Attribute {
                path: path(),
                name: encode_component_bytes(&xattr.name),
            });
        }
        if !self.xattrs.is_sorted_by(|one, next| one.name < next.name) {
            return Err(EntryError::AttributeOrder(path()));
        }
        let too_long = |xattr: &Xattr| matches!(&xattr.value, XattrValue::Plain(value) if value.len() > MAX_PLAIN_XATTR);
        if self.xattrs.iter().any(too_long) {
            return Err(EntryError::AttributeValue(path()));
        }
        Ok(())
    }
}

impl Kind {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Kind::File { size, sha256 } => {
                field(out, b" size=", *size);
                if let Some(digest) = sha256 {
                    out.extend_from_slice(b" sha256digest=");
                    out.extend_from_slice(&digest.to_hex());
                }
            }
            Kind::Link { target } => {
                out.extend_from_slice(b" link=");
                encode_into(target, out);
            }
            Kind::Char { major, minor } | Kind::Block { major, minor } => {
                out.extend_from_slice(format!(" device=native,{major},{minor}").as_bytes());
            }
            Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
    }
}

/// A field whose value is a number; `format!` would ask for memory for each, half a million times at a first scan.
fn field(out: &mut Vec<u8>, name: &[u8], value: impl itoa::Integer) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

impl Xattr {
    /// The word that stands for it in an entry's line.
    pub fn word(&self) -> String {
        let mut word = Vec::new();
        self.write(&mut word);
        String::from_utf8_lossy(word.trim_ascii_start()).into_owned()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b" xattr.");
        encode_into(&self.name, out);
        out.push(b'=');
        match &self.value {
            XattrValue::Plain(value) => out.extend_from_slice(BASE64.encode(value).as_bytes()),
            XattrValue::Hashed(digest) => {
                out.extend_from_slice(b"sha256:");
                out.extend_from_slice(&digest.to_hex());
            }
        }
    }
}
