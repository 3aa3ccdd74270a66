//! A service manager that hears what a daemon says of itself.

use std::{
    ffi::{OsStr, OsString},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// What is said by nobody but us, to know that all before it was heard.
const MARK: &str = "MARK";
/// How long a daemon may take to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Its socket, read by a thread of its own: a full one holds up whoever writes to it.
#[derive(Debug)]
pub struct Manager {
    socket: PathBuf,
    watchdog: Duration,
    /// That in microseconds, as it is told.
    micros: OsString,
    heard: Receiver<String>,
}

impl Manager {
    /// One that listens at `socket`, and wants a sign of life within each `watchdog`.
    pub fn listening(socket: &Path, watchdog: Duration) -> Self {
        let bound = UnixDatagram::bind(socket).expect("a socket");
        let (hears, heard) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = bound.recv(&mut buffer) {
                let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if hears.send(said).is_err() {
                    return;
                }
            }
        });
        Self {
            socket: socket.to_path_buf(),
            watchdog,
            micros: watchdog.as_micros().to_string().into(),
            heard,
        }
    }

    /// What it gives to a daemon that it starts, for [`Agent::begin_with`](crate::agent::Agent::begin_with).
    pub fn environment(&self) -> [(&'static str, &OsStr); 2] {
        [
            ("NOTIFY_SOCKET", self.socket.as_os_str()),
            ("WATCHDOG_USEC", self.micros.as_os_str()),
        ]
    }

    /// What it hears next, signs of life left out.
    #[track_caller]
    pub fn hears(&self) -> String {
        loop {
            let said = self.heard.recv_timeout(PATIENCE);
            let said = said.expect("word from the daemon");
            if !said.starts_with("WATCHDOG") {
                return said;
            }
        }
    }

    /// Whether the next that it hears is a sign of life, in time.
    pub fn hears_life(&self) -> bool {
        let said = self.heard.recv_timeout(self.watchdog);
        said.is_ok_and(|said| said == "WATCHDOG=1")
    }

    /// All that was said until now and not asked for.
    #[track_caller]
    pub fn heard(&self) -> Vec<String> {
        let own = UnixDatagram::unbound().expect("a socket");
        let marked = own.send_to(MARK.as_bytes(), &self.socket);
        marked.expect("a word to ourselves");
        let all = || self.heard.recv_timeout(PATIENCE).expect("our own word");
        std::iter::repeat_with(all)
            .take_while(|said| said != MARK)
            .collect()
    }
}
