//! The subscription to the process connector.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::connector::{self, Message, What};

/// Bytes that may wait for us: some 100,000 events, which is more than a machine makes while we are held up for seconds.
pub(super) const BUFFER: usize = 16 * 1024 * 1024;
/// `CN_IDX_PROC`.
const GROUP: u32 = 1;
/// The kernel answers at once, or, from another namespace than its own, never.
const ANSWER: Duration = Duration::from_secs(1);
/// More than any message has.
const MESSAGE: usize = 4_096;

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
}

/// What one look at the socket came to.
pub(super) enum Received {
    Messages(Vec<Message>),
    /// There is nothing more.
    Empty,
    /// Events were lost, or cannot be read.
    Lost,
}

impl Socket {
    /// Subscribes, with room for so many bytes, and waits until the kernel has said that it took the subscription.
    pub(super) fn subscribe(room: usize) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(netlink::CONNECTOR),
        )?;
        // Half of it is the kernel's own bookkeeping; without the privilege as much as is allowed.
        if sockopt::set_socket_recv_buffer_size_force(&fd, room).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, room)?;
        }
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, GROUP))?;
        let mut socket = Self { fd };
        rustix::net::sendto(
            &socket.fd,
            &connector::subscription(),
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        socket.await_answer()?;
        Ok(socket)
    }

    fn await_answer(&mut self) -> io::Result<()> {
        let end = Instant::now() + ANSWER;
        loop {
            match self.receive() {
                // What comes before the answer is found by the scan that follows.
                Received::Messages(messages) => {
                    for message in messages {
                        match message.what {
                            What::Answer(0) => return Ok(()),
                            What::Answer(errno) => {
                                let errno = i32::try_from(errno).unwrap_or(libc::EIO);
                                return Err(io::Error::from_raw_os_error(errno));
                            }
                            _ => {}
                        }
                    }
                }
                Received::Lost => return Err(Errno::NOBUFS.into()),
                Received::Empty => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the kernel does not answer; it tells processes in its first namespaces only",
                        ));
                    }
                    let timeout = Timespec {
                        tv_sec: 0,
                        tv_nsec: i64::from(left.subsec_nanos().max(1_000_000)),
                    };
                    let mut ready = [PollFd::new(&self.fd, PollFlags::IN)];
                    match rustix::event::poll(&mut ready, Some(&timeout)) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
            }
        }
    }

    /// Takes one datagram.
    pub(super) fn receive(&mut self) -> Received {
        let mut buffer = [0; MESSAGE];
        loop {
            let (length, from) =
                match rustix::net::recvfrom(&self.fd, &mut buffer, RecvFlags::empty()) {
                    Ok((length, _, from)) => (length, from),
                    Err(Errno::AGAIN) => return Received::Empty,
                    Err(Errno::INTR) => continue,
                    Err(_) => return Received::Lost,
                };
            let sender = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if sender.is_none_or(|sender| sender.pid() != 0) {
                // Not the kernel.
                continue;
            }
            let messages: Result<Vec<_>, _> =
                connector::parse(buffer.get(..length).unwrap_or_default()).collect();
            return messages.map_or(Received::Lost, Received::Messages);
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
