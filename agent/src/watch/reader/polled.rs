//! What the reader waits for.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::Reader;

/// What `poll` told.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) stop: bool,
    pub(super) processes: bool,
    pub(super) events: bool,
}

impl Ready {
    pub(super) fn for_events() -> Self {
        Self {
            events: true,
            ..Self::default()
        }
    }
}

impl Reader {
    /// Waits for whatever comes first, at most until `pause` is over; until then nothing is told of file events.
    pub(super) fn poll(&self, pause: Option<Instant>) -> Result<Ready, Errno> {
        let mut descriptors = vec![PollFd::new(&*self.stop, PollFlags::IN)];
        let mut meanings = vec![Meaning::Stop];
        if let Some(processes) = self.witness.descriptor() {
            descriptors.push(PollFd::from_borrowed_fd(processes, PollFlags::IN));
            meanings.push(Meaning::Processes);
        }
        if pause.is_none() {
            for source in &self.sources {
                descriptors.push(PollFd::new(source, PollFlags::IN));
                meanings.push(Meaning::Events);
            }
        }
        let until = pause.into_iter().chain(self.busy.next()).min();
        let timeout = until.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut ready = Ready::default();
        for (descriptor, meaning) in descriptors.iter().zip(meanings) {
            let told = descriptor.revents();
            match meaning {
                Meaning::Stop => ready.stop = told.intersects(PollFlags::IN),
                Meaning::Processes => {
                    ready.processes = told.intersects(PollFlags::IN | PollFlags::ERR);
                }
                Meaning::Events => {
                    ready.events |= told.intersects(PollFlags::IN | PollFlags::ERR);
                }
            }
        }
        Ok(ready)
    }
}

/// What a descriptor in the poll stands for.
enum Meaning {
    Stop,
    Processes,
    Events,
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
