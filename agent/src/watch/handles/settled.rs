//! Opening the object of a handle that may still be in the making.

use std::cell::Cell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use crate::sys;

/// How long is waited for an inode that is being made, each time twice as long as before: whoever makes it may have to wait for a
/// processor meanwhile. In all some 60 ms.
const BEING_MADE_TRIES: u32 = 7;
const BEING_MADE: Duration = Duration::from_micros(500);
/// So long is waited for all that is resolved at once: where memory is really short every handle says the same, and what cannot be
/// found is a gap that a rescan closes.
const PATIENCE: Duration = Duration::from_millis(250);

/// What was waited for inodes that are being made, since places were last taken.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waited: Cell<Duration>,
}

impl Patience {
    /// How long to wait before the next try; nothing where it is not worth it any more.
    fn next_wait(&self, turn: u32) -> Option<Duration> {
        let wait = BEING_MADE * 2_u32.pow(turn.min(BEING_MADE_TRIES));
        let waited = self.waited.get() + wait;
        let waits = turn < BEING_MADE_TRIES && waited <= PATIENCE;
        waits.then(|| {
            self.waited.set(waited);
            wait
        })
    }
}

/// Opens the object of a handle; waits out an inode number that is just being given to a new file.
///
/// While that lasts (microseconds of work) ext4's `iget` finds the number taken by an inode that is not ready, and the kernel
/// makes of it `ENOMEM`, the one error besides `ESTALE` that `exportfs_decode_fh` lets through.
pub(super) fn open_settled(
    mount: BorrowedFd<'_>,
    kind: i32,
    bytes: &[u8],
    patience: &Patience,
) -> io::Result<OwnedFd> {
    let mut turn = 0;
    loop {
        match sys::open_by_handle(mount, kind, bytes) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOMEM) => {
                let Some(wait) = patience.next_wait(turn) else {
                    return Err(error);
                };
                std::thread::sleep(wait);
                turn += 1;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_with_one_inode_and_with_all_of_them_ends() {
        let patience = Patience::default();
        let waits: Vec<_> = (0..).map_while(|turn| patience.next_wait(turn)).collect();
        assert_eq!(waits.len(), BEING_MADE_TRIES as usize);
        let of_many: Duration = (0..100_000)
            .flat_map(|_| (0..).map_while(|turn| patience.next_wait(turn)))
            .sum();
        assert!(waits.iter().sum::<Duration>() + of_many <= PATIENCE);
    }
}
