//! Event records of fanotify, parsed from the kernel's bytes in safe code: short or odd input is an error, never a panic.
//!
//! Layout (`linux/fanotify.h`): a header of 24 bytes, then information records, each with its type and length; those of
//! interest hold a file system id, a file handle and, for directory records, a name ended by NUL and padding.

use thiserror::Error;

use crate::sys::HANDLE_LIMIT;

/// `FAN_EVENT_INFO_TYPE_MNT` (Linux 6.14): the number of a mount.
const INFO_MOUNT: u8 = 7;
/// The one version of the header that there is.
const VERSION: u8 = 3;
const HEADER: usize = 24;
const INFO_HEADER: usize = 4;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The buffer ends within a record.
    #[error("an event record is cut short")]
    Short,
    /// The header has a version that this program does not know.
    #[error("an event record has version {0}")]
    Version(u8),
    /// A length that cannot be.
    #[error("an event record has an impossible length")]
    Length,
    /// A name that is not ended, or that no directory can hold.
    #[error("an event record has an impossible name")]
    Name,
}

/// A file handle with its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle<'b> {
    /// The file system.
    pub fsid: [u8; 8],
    /// How the handle is encoded.
    pub kind: i32,
    /// The encoding.
    pub bytes: &'b [u8],
}

/// A name in a directory; `.` is the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Named<'b> {
    /// The directory.
    pub directory: Handle<'b>,
    /// The name.
    pub name: &'b [u8],
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'b> {
    /// What happened: `FAN_*` bits.
    pub mask: u64,
    /// Process that did it, 0 when it is outside our namespace.
    pub pid: i32,
    /// The object itself.
    pub object: Option<Handle<'b>>,
    /// Its name, or for a rename the old one.
    pub named: Option<Named<'b>>,
    /// The new name of a rename.
    pub renamed: Option<Named<'b>>,
    /// The number of a mount that came or went, which is never given anew.
    pub mount: Option<u64>,
}

/// The records in what one `read` of the group gave. After an error there is nothing more.
pub fn parse(buffer: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = Some(Reader(buffer));
    std::iter::from_fn(move || {
        let mut reader = rest.take().filter(|reader| !reader.0.is_empty())?;
        let record = record(&mut reader);
        if record.is_ok() {
            rest = Some(reader);
        }
        Some(record)
    })
}

/// Bytes not yet read; every step checks that there are enough.
#[derive(Clone, Copy)]
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_ne_bytes)
    }

    fn sub(&mut self, count: usize) -> Result<Reader<'b>, RecordError> {
        self.take(count).map(Reader)
    }
}

fn record<'b>(buffer: &mut Reader<'b>) -> Result<Record<'b>, RecordError> {
    let mut ahead = *buffer;
    let length = usize::try_from(ahead.u32()?).map_err(|_| RecordError::Length)?;
    if length < HEADER {
        return Err(RecordError::Length);
    }
    let mut whole = buffer.sub(length)?;
    whole.take(4)?;
    let version = whole.u8()?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    whole.u8()?;
    let header = usize::from(whole.u16()?);
    let mask = whole.u64()?;
    whole.i32()?;
    let pid = whole.i32()?;
    whole.take(header.checked_sub(HEADER).ok_or(RecordError::Length)?)?;
    let mut record = Record {
        mask,
        pid,
        object: None,
        named: None,
        renamed: None,
        mount: None,
    };
    while !whole.0.is_empty() {
        information(&mut whole, &mut record)?;
    }
    Ok(record)
}

fn information<'b>(whole: &mut Reader<'b>, record: &mut Record<'b>) -> Result<(), RecordError> {
    let kind = whole.u8()?;
    whole.u8()?;
    let length = usize::from(whole.u16()?);
    let mut info = whole.sub(length.checked_sub(INFO_HEADER).ok_or(RecordError::Length)?)?;
    match kind {
        libc::FAN_EVENT_INFO_TYPE_FID => record.object = Some(handle(&mut info)?),
        libc::FAN_EVENT_INFO_TYPE_DFID => {
            record.named = Some(Named {
                directory: handle(&mut info)?,
                name: b".",
            })
        }
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => {
            record.named = Some(named(&mut info)?);
        }
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => record.renamed = Some(named(&mut info)?),
        INFO_MOUNT => {
            // The number is aligned: four bytes lie before it.
            info.take(info.0.len().saturating_sub(8))?;
            record.mount = Some(info.u64()?);
        }
        // A kind of a later kernel says nothing that was asked for.
        _ => {}
    }
    Ok(())
}

fn handle<'b>(info: &mut Reader<'b>) -> Result<Handle<'b>, RecordError> {
    let fsid = info.array()?;
    let length = usize::try_from(info.u32()?).map_err(|_| RecordError::Length)?;
    if length > HANDLE_LIMIT {
        return Err(RecordError::Length);
    }
    let kind = info.i32()?;
    Ok(Handle {
        fsid,
        kind,
        bytes: info.take(length)?,
    })
}

fn named<'b>(info: &mut Reader<'b>) -> Result<Named<'b>, RecordError> {
    let directory = handle(info)?;
    let end = info
        .0
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(RecordError::Name)?;
    let name = info.take(end)?;
    if name.is_empty() || name == b".." || name.contains(&b'/') {
        return Err(RecordError::Name);
    }
    Ok(Named { directory, name })
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(kind: u8, handle: &[u8], name: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![1, 2, 3, 4, 5, 6, 7, 8];
        body.extend((handle.len() as u32).to_ne_bytes());
        body.extend(1_i32.to_ne_bytes());
        body.extend(handle);
        if let Some(name) = name {
            body.extend(name);
            body.push(0);
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let mut whole = vec![kind, 0];
        whole.extend((body.len() as u16 + 4).to_ne_bytes());
        whole.extend(body);
        whole
    }

    fn event(mask: u64, infos: &[Vec<u8>]) -> Vec<u8> {
        let body = infos.concat();
        let mut whole = (24 + body.len() as u32).to_ne_bytes().to_vec();
        whole.extend([VERSION, 0]);
        whole.extend(24_u16.to_ne_bytes());
        whole.extend(mask.to_ne_bytes());
        whole.extend((-1_i32).to_ne_bytes());
        whole.extend(42_i32.to_ne_bytes());
        whole.extend(body);
        whole
    }

    #[test]
    fn names_objects_and_renames_are_found() {
        let create = event(
            libc::FAN_CREATE,
            &[
                info(2, b"dirhandle", Some(b"new\n\xff")),
                info(1, b"object", None),
            ],
        );
        let rename = event(
            libc::FAN_RENAME,
            &[info(10, b"old", Some(b"a")), info(12, b"new", Some(b"b"))],
        );
        let both = [create, rename, event(libc::FAN_Q_OVERFLOW, &[])].concat();
        let records: Vec<_> = parse(&both).map(Result::unwrap).collect();
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].pid, 42);
        assert_eq!(records[0].named.unwrap().name, b"new\n\xff");
        assert_eq!(records[0].object.unwrap().bytes, b"object");
        assert_eq!(records[1].named.unwrap().directory.bytes, b"old");
        assert_eq!(records[1].renamed.unwrap().name, b"b");
        assert_eq!(records[2].mask, libc::FAN_Q_OVERFLOW);
    }

    #[test]
    fn the_number_of_a_mount_is_found() {
        let mut info = vec![INFO_MOUNT, 0];
        info.extend(16_u16.to_ne_bytes());
        info.extend([0; 4]);
        info.extend(0x8000_0626_u64.to_ne_bytes());
        let attach = event(0x0100_0000, &[info]);
        let record = parse(&attach).next().unwrap().unwrap();
        assert_eq!((record.mount, record.pid), (Some(0x8000_0626), 42));
    }

    #[test]
    fn impossible_records_are_refused() {
        let whole = event(libc::FAN_CREATE, &[info(2, b"dirhandle", Some(b"name"))]);
        for cut in 1..whole.len() {
            let last = parse(&whole[..cut]).last().unwrap();
            assert!(last.is_err(), "cut at {cut}");
        }
        let mut version = whole.clone();
        version[4] = 9;
        assert_eq!(parse(&version).last(), Some(Err(RecordError::Version(9))));
        for name in [&b"a/b"[..], b"..", b""] {
            let odd = event(libc::FAN_CREATE, &[info(2, b"d", Some(name))]);
            assert_eq!(parse(&odd).last(), Some(Err(RecordError::Name)));
        }
        let mut endless = whole;
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(parse(&endless).last(), Some(Err(RecordError::Length)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(parse(&bytes).count() <= bytes.len() / HEADER + 1);
        }

        #[test]
        fn one_wrong_byte_does_no_harm(at in 0_usize..80, with in any::<u8>()) {
            let mut bytes = event(libc::FAN_CREATE, &[info(2, b"dirhandle", Some(b"name")), info(1, b"object", None)]);
            let at = at % bytes.len();
            bytes[at] = with;
            prop_assert!(parse(&bytes).count() <= bytes.len());
        }
    }
}
