//! The one place where this program asks for the time.

use attestation::time::Timestamp;

use crate::exit::Failure;

/// Now.
pub fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// A time that a person gives.
pub fn parse(text: &str) -> Result<Timestamp, Failure> {
    text.parse::<jiff::Timestamp>()
        .map(|at| Timestamp::from_micros(at.as_microsecond()))
        .map_err(|error| {
            Failure::usage(format!("`{text}` is not a time"))
                .why(error.to_string())
                .remedy("give it like 2027-01-31T00:00:00Z")
        })
}

/// A span that a person gives: `30m`, `24h`, `7d`, or bare seconds.
pub fn parse_span(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "give a span like 30m, 24h or 7d".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_or_are_seconds() {
        assert_eq!(parse_span("90"), Ok(90));
        assert_eq!(parse_span("30m"), Ok(1_800));
        assert_eq!(parse_span("7d"), Ok(604_800));
        for wrong in ["", "d", "-1h", "0", "1w", "99999999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_become_microseconds() {
        assert_eq!(
            parse("1970-01-01T00:00:01Z").unwrap().as_micros(),
            1_000_000
        );
        assert!(parse("tomorrow").is_err());
    }
}
