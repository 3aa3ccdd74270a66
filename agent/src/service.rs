//! What systemd is told: ready, stopping, alive. The thread that looks and signs says it is alive, so that a frozen
//! agent is restarted though its network still answers.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The notification socket of the service manager, where there is one.
#[derive(Debug, Default)]
pub struct Service {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    last: Mutex<Option<Instant>>,
}

impl Service {
    /// As the environment of this process says.
    pub fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        let address = match path.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        let socket = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
        let watchdog = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|micros| micros.parse().ok())
            .map(Duration::from_micros);
        match socket {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog,
                last: Mutex::default(),
            },
            Err(error) => {
                tracing::warn!(%error, "use NOTIFY_SOCKET");
                Self::default()
            }
        }
    }

    /// The agent has opened everything.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The agent reads its configuration again; [`Service::ready`] ends it.
    pub fn reloading(&self) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The agent says goodbye.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// How long nobody may be silent; half of what systemd waits.
    pub fn period(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 2)
    }

    /// The caller is alive; told no more often than needed.
    pub fn alive(&self) {
        let Some(period) = self.period() else { return };
        let Ok(mut last) = self.last.lock() else {
            return;
        };
        let now = Instant::now();
        if last.is_some_and(|last| now.saturating_duration_since(last) < period / 2) {
            return;
        }
        *last = Some(now);
        self.say("WATCHDOG=1");
    }

    fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(words.as_bytes(), address)
        {
            tracing::debug!(%error, words, "tell the service manager");
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_hears_that_the_agent_is_alive_once_a_period() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let service = Service {
            socket: Some((
                UnixDatagram::unbound().unwrap(),
                SocketAddr::from_pathname(&path).unwrap(),
            )),
            watchdog: Some(Duration::from_secs(60)),
            last: Mutex::default(),
        };
        service.ready();
        service.alive();
        service.alive();
        let mut buffer = [0; 64];
        let mut heard = || {
            manager
                .recv(&mut buffer)
                .map(|length| buffer[..length].to_vec())
                .ok()
        };
        assert_eq!(heard().unwrap(), b"READY=1");
        assert_eq!(heard().unwrap(), b"WATCHDOG=1");
        assert_eq!(heard(), None);
        service.reloading();
        let said = String::from_utf8(heard().unwrap()).unwrap();
        let micros = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{said}");
    }
}
