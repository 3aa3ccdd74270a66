//! Moments as they stand in statements: RFC 3339 in UTC with six digits, and nothing else.
//!
//! This crate never reads a clock: whoever calls it says what time it is.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use crate::text::serde_as_text;

/// Civil time is UTC here. `jiff::Timestamp` would do, but ends a day before the year 9999 does.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Microseconds since 1970-01-01T00:00:00Z, within the years 0000 to 9999 that RFC 3339 can write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00.000000Z.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// The moment so many microseconds after 1970; what RFC 3339 cannot write becomes the nearest moment that it can.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Timestamp(micros)
        }
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The moment `seconds` later (earlier when negative).
    pub fn saturating_add_secs(self, seconds: i64) -> Self {
        Self::from_micros(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Microseconds from `earlier` to this moment, negative when `earlier` is the later one.
    pub const fn micros_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }
}

/// A text that is not a moment in the one form `YYYY-MM-DDTHH:MM:SS.NNNNNNZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is RFC 3339 in UTC with six digits: YYYY-MM-DDTHH:MM:SS.NNNNNNZ")]
pub struct TimestampError;

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        const FORM: &[u8; 27] = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
        let fits = |(byte, form): (u8, u8)| {
            if form == b'd' {
                byte.is_ascii_digit()
            } else {
                byte == form
            }
        };
        if text.len() != FORM.len() || !text.bytes().zip(*FORM).all(fits) {
            return Err(TimestampError);
        }
        // The civil parser takes a leap second for the second before it: only what prints the same is that moment.
        let civil: DateTime = text[..26].parse().map_err(|_| TimestampError)?;
        let micros = civil.duration_since(EPOCH).as_micros();
        let moment = Timestamp::from_micros(i64::try_from(micros).map_err(|_| TimestampError)?);
        if moment.to_string() == text {
            Ok(moment)
        } else {
            Err(TimestampError)
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = SignedDuration::from_micros(self.0);
        let civil = EPOCH.checked_add(since).map_err(|_| fmt::Error)?;
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            civil.year(),
            civil.month(),
            civil.day(),
            civil.hour(),
            civil.minute(),
            civil.second(),
            civil.subsec_nanosecond() / 1_000,
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Timestamp({self})")
    }
}

serde_as_text!(Timestamp, "a time in RFC 3339, UTC, with six digits");

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn one_text_form() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_700_000_000_000_005, "2023-11-14T22:13:20.000005Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (Timestamp::MIN.0, "0000-01-01T00:00:00.000000Z"),
            (Timestamp::MAX.0, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Timestamp::from_micros(micros).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap().as_micros(), micros);
        }
        assert_eq!(Timestamp::from_micros(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.saturating_add_secs(i64::MAX), Timestamp::MAX);
    }

    #[test]
    fn other_forms_are_refused() {
        for wrong in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.00000Z",
            "2023-11-14T22:13:20.0000000Z",
            "2023-11-14t22:13:20.000000Z",
            "2023-11-14 22:13:20.000000Z",
            "2023-11-14T22:13:20.000000z",
            "2023-11-14T22:13:20.000000+00:00",
            "2023-02-29T00:00:00.000000Z",
            "2016-12-31T23:59:60.000000Z",
            "2023-11-14T24:00:00.000000Z",
            "2023-11-14T22:13:20.00000\u{e9}",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }
}
