//! Waiting for something to be so.

use std::time::{Duration, Instant};

/// How long anything that should happen within a second may take on a slow, busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// What an event tells is told within a second; a machine that compiles beside it is given more.
pub const BY_EVENT: Duration = Duration::from_secs(10);
/// For what includes a scan, a restart or a backoff.
pub const LATER: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until there is an answer; gives up loudly after `timeout`, naming what did not happen.
#[track_caller]
pub fn eventually<T>(what: &str, timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {timeout:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}
