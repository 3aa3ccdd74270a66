//! The login records of the C library, the second source of where somebody came from: only root writes them.

use std::fs::File;
use std::io::Read as _;

/// Where they are.
const PATH: &str = "/run/utmp";
/// `struct utmp` of 64-bit Linux with glibc.
const RECORD: usize = 384;
/// `USER_PROCESS`.
const USER: u16 = 7;
/// Records read; a machine with more logins has told the others by itself.
const LIMIT: u64 = 4_096;

/// One login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    pub(crate) tty: Option<String>,
    pub(crate) host: Option<String>,
}

/// The records of this machine; none where it keeps none.
pub(crate) fn read() -> Vec<Record> {
    let mut content = Vec::new();
    if let Ok(file) = File::open(PATH) {
        // What was read before an error is as good as any.
        drop(file.take(LIMIT * RECORD as u64).read_to_end(&mut content));
    }
    parse(&content)
}

fn parse(content: &[u8]) -> Vec<Record> {
    content
        .chunks_exact(RECORD)
        .filter_map(|record| {
            let kind = u16::from_ne_bytes(*record.first_chunk()?);
            let pid = u32::from_ne_bytes(*record.get(4..)?.first_chunk()?);
            (kind == USER).then(|| Record {
                pid,
                tty: record.get(8..40).and_then(text),
                host: record.get(76..332).and_then(text),
            })
        })
        .collect()
}

fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0);
    let text = std::str::from_utf8(field.get(..end.unwrap_or(field.len()))?).ok()?;
    let sound = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_login_is_found_among_other_records() {
        let mut content = vec![0; 2 * RECORD];
        let record = &mut content[RECORD..];
        record[0] = 7;
        record[4..8].copy_from_slice(&42_u32.to_ne_bytes());
        record[8..13].copy_from_slice(b"pts/3");
        record[76..85].copy_from_slice(b"192.0.2.1");
        assert_eq!(
            parse(&content),
            [Record {
                pid: 42,
                tty: Some("pts/3".into()),
                host: Some("192.0.2.1".into())
            }]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_000)) {
            prop_assert!(parse(&bytes).len() <= bytes.len() / RECORD);
        }
    }
}
