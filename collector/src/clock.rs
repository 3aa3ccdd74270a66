//! The one place that reads the wall clock. Everything that decides takes the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use attestation::time::Timestamp;

/// Now, in microseconds since 1970 UTC; 1970 itself on a clock that claims to be earlier.
pub fn now() -> Timestamp {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        });
    Timestamp::from_micros(micros)
}

/// `at` and `seconds` more, without overflow.
pub fn after(at: Timestamp, seconds: u64) -> Timestamp {
    at.saturating_add_secs(i64::try_from(seconds).unwrap_or(i64::MAX))
}
