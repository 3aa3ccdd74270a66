//! Messages of the process connector (`linux/cn_proc.h`), parsed from the kernel's bytes in safe code: short or odd input
//! is an error, never a panic.
//!
//! A datagram holds netlink messages; each is a header of 16 bytes, a connector header of 20 and the event: what, CPU,
//! nanoseconds of the monotonic clock, and what belongs to that kind. Threads are left out: processes are what is told.

use thiserror::Error;

const NETLINK_HEADER: usize = 16;
/// The connector's number for process events, index and value alike.
const PROCESSES: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `NLMSG_DONE`, under which the connector speaks.
const DONE: u16 = 3;

const WHAT_NONE: u32 = 0;
const WHAT_FORK: u32 = 1;
const WHAT_EXEC: u32 = 2;
const WHAT_UID: u32 = 4;
const WHAT_GID: u32 = 0x40;
const WHAT_EXIT: u32 = 0x8000_0000;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectorError {
    /// The bytes end within a message.
    #[error("a message of the process connector is cut short")]
    Short,
    /// A length that cannot be.
    #[error("a message of the process connector has an impossible length")]
    Length,
}

/// Something that a process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What a process did; numbers are process ids of the initial namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The kernel has taken the subscription, or says why not (`errno`).
    Answer(u32),
    /// A process began.
    Fork {
        /// Whose child it is.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A process runs another program now.
    Exec {
        /// Which.
        pid: u32,
    },
    /// A process has another user.
    User {
        /// Which.
        pid: u32,
        /// Real user id.
        real: u32,
        /// Effective user id.
        effective: u32,
    },
    /// A process has another group.
    Group {
        /// Which.
        pid: u32,
    },
    /// A process ended.
    Exit {
        /// Which.
        pid: u32,
        /// How, as `wait` tells it.
        status: u32,
    },
}

/// The message that asks for process events.
#[must_use]
pub fn subscription() -> Vec<u8> {
    let mut message = Vec::with_capacity(40);
    message.extend(40_u32.to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    message.extend([0; 10]);
    message.extend(PROCESSES.to_ne_bytes());
    message.extend(PROCESSES.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(4_u16.to_ne_bytes());
    message.extend([0; 2]);
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// What one datagram tells. Kinds and threads that nobody asked for are left out; after an error there is nothing more.
pub fn parse(datagram: &[u8]) -> impl Iterator<Item = Result<Message, ConnectorError>> {
    let mut rest = Some(datagram);
    std::iter::from_fn(move || {
        loop {
            let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
            match message(bytes) {
                Err(error) => return Some(Err(error)),
                Ok((told, after)) => {
                    rest = Some(after);
                    if let Some(told) = told {
                        return Some(Ok(told));
                    }
                }
            }
        }
    })
}

/// The first message, if it is of interest, and the bytes after it.
fn message(bytes: &[u8]) -> Result<(Option<Message>, &[u8]), ConnectorError> {
    let mut ahead = Reader(bytes);
    let length = usize::try_from(ahead.u32()?).map_err(|_| ConnectorError::Length)?;
    if length < NETLINK_HEADER {
        return Err(ConnectorError::Length);
    }
    let (whole, _) = bytes
        .split_at_checked(length)
        .ok_or(ConnectorError::Short)?;
    // The last one need not be padded.
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    let mut reader = Reader(whole);
    reader.take(4)?;
    let kind = reader.u16()?;
    reader.take(10)?;
    if kind != DONE {
        return Ok((None, after));
    }
    let (index, value) = (reader.u32()?, reader.u32()?);
    reader.take(8)?;
    let length = usize::from(reader.u16()?);
    reader.take(2)?;
    let event = reader.take(length)?;
    if (index, value) != (PROCESSES, PROCESSES) {
        return Ok((None, after));
    }
    Ok((event_of(Reader(event))?, after))
}

fn event_of(mut event: Reader<'_>) -> Result<Option<Message>, ConnectorError> {
    let kind = event.u32()?;
    event.take(4)?;
    let at = event.u64()?;
    let what = match kind {
        WHAT_NONE => Some(What::Answer(event.u32()?)),
        WHAT_FORK => {
            event.take(4)?;
            let parent = event.u32()?;
            let (thread, child) = (event.u32()?, event.u32()?);
            (thread == child).then_some(What::Fork { parent, child })
        }
        WHAT_EXEC => {
            event.take(4)?;
            Some(What::Exec { pid: event.u32()? })
        }
        WHAT_UID => {
            event.take(4)?;
            Some(What::User {
                pid: event.u32()?,
                real: event.u32()?,
                effective: event.u32()?,
            })
        }
        WHAT_GID => {
            event.take(4)?;
            Some(What::Group { pid: event.u32()? })
        }
        WHAT_EXIT => {
            let (thread, pid) = (event.u32()?, event.u32()?);
            let status = event.u32()?;
            (thread == pid).then_some(What::Exit { pid, status })
        }
        _ => None,
    };
    Ok(what.map(|what| Message { at, what }))
}

/// Bytes not yet read; every step checks that there are enough.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], ConnectorError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(ConnectorError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConnectorError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(ConnectorError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, ConnectorError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, ConnectorError> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, ConnectorError> {
        self.array().map(u64::from_ne_bytes)
    }
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

    fn datagram(what: u32, at: u64, data: &[u32]) -> Vec<u8> {
        let mut event = what.to_ne_bytes().to_vec();
        event.extend([0; 4]);
        event.extend(at.to_ne_bytes());
        for word in data {
            event.extend(word.to_ne_bytes());
        }
        let mut whole = (36 + event.len() as u32).to_ne_bytes().to_vec();
        whole.extend(DONE.to_ne_bytes());
        whole.extend([0; 10]);
        whole.extend([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        whole.extend((event.len() as u16).to_ne_bytes());
        whole.extend([0; 2]);
        whole.extend(event);
        whole
    }

    fn all(bytes: &[u8]) -> Vec<What> {
        parse(bytes).map(|told| told.unwrap().what).collect()
    }

    #[test]
    fn processes_are_told_and_threads_are_not() {
        let fork = datagram(WHAT_FORK, 7, &[10, 11, 12, 12]);
        assert_eq!(
            parse(&fork).next(),
            Some(Ok(Message {
                at: 7,
                what: What::Fork {
                    parent: 11,
                    child: 12
                }
            }))
        );
        let several = [
            datagram(WHAT_FORK, 1, &[10, 10, 13, 12]),
            datagram(WHAT_EXEC, 2, &[14, 12]),
            datagram(WHAT_UID, 3, &[12, 12, 1000, 0]),
            datagram(WHAT_GID, 3, &[12, 12, 5, 5]),
            datagram(WHAT_EXIT, 4, &[13, 12, 0, 0, 1, 1]),
            datagram(WHAT_EXIT, 5, &[12, 12, 256, 17, 1, 1]),
            datagram(0x200, 6, &[12, 12, 0, 0]),
            datagram(WHAT_NONE, 0, &[0]),
        ]
        .concat();
        assert_eq!(
            all(&several),
            [
                What::Exec { pid: 12 },
                What::User {
                    pid: 12,
                    real: 1000,
                    effective: 0
                },
                What::Group { pid: 12 },
                What::Exit {
                    pid: 12,
                    status: 256
                },
                What::Answer(0),
            ]
        );
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let whole = datagram(WHAT_EXIT, 4, &[12, 12, 256, 17]);
        for cut in 1..whole.len() {
            assert!(parse(&whole[..cut]).any(|told| told.is_err()), "at {cut}");
        }
        let mut endless = whole;
        endless[..4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(parse(&endless).last(), Some(Err(ConnectorError::Length)));
    }

    #[test]
    fn the_subscription_has_the_lengths_that_it_says() {
        let message = subscription();
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[32..34], 4_u16.to_ne_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(parse(&bytes).count() <= bytes.len() / NETLINK_HEADER + 1);
        }

        #[test]
        fn one_wrong_byte_does_no_harm(at in 0_usize..68, with in any::<u8>()) {
            let mut bytes = datagram(WHAT_EXIT, 4, &[12, 12, 256, 17]);
            let at = at % bytes.len();
            bytes[at] = with;
            prop_assert!(parse(&bytes).count() <= bytes.len());
        }
    }
}
