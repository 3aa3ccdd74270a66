//! The join token: where to join, whose certificate to expect there, and the pair that admits (FORMATS.md 5.4).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE_NO_PAD, URL_SAFE_PAD_INDIFFERENT};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::json::{self, JsonError};
use crate::wire::TokenPair;

/// What every join token begins with, so that a leaked one is found by its text.
pub const PREFIX: &str = "pristine-join.";
/// The longest token that is read: a few URLs and two short strings.
const MAX_LENGTH: usize = 8192;
/// The most URLs in a token.
const MAX_URLS: usize = 16;

/// A join token. `Debug` leaves the secret out; `Display` is the token itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// URLs of the joining door.
    pub join: Vec<String>,
    /// SHA-256 of the CA certificate's DER.
    pub ca: Digest,
    /// Which token.
    pub id: String,
    /// What proves it; the collector keeps its hash.
    pub secret: String,
}

/// Why a text is not a join token. The text itself is never repeated: it may hold a secret.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// Does not begin with the prefix.
    #[error("a join token begins with {PREFIX}")]
    Prefix,
    /// Longer than any token.
    #[error("join token is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Not base64url after the prefix.
    #[error("join token is not base64url after its prefix (was it cut?)")]
    Base64,
    /// Not the JSON of a token.
    #[error("join token does not hold what it should (was it cut?)")]
    Json(#[source] JsonError),
    /// No address to join at, or too many.
    #[error("join token has {0} addresses, wanted 1 to {MAX_URLS}")]
    Addresses(usize),
}

impl JoinToken {
    /// The pair that an enrolment request carries.
    pub fn pair(&self) -> TokenPair {
        TokenPair {
            id: self.id.clone(),
            secret: self.secret.clone(),
        }
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        if text.len() > MAX_LENGTH {
            return Err(JoinTokenError::TooLong);
        }
        let body = text
            .trim_ascii()
            .strip_prefix(PREFIX)
            .ok_or(JoinTokenError::Prefix)?;
        let json = URL_SAFE_PAD_INDIFFERENT
            .decode(body)
            .map_err(|_| JoinTokenError::Base64)?;
        let token: Self = json::from_slice_strict(&json).map_err(JoinTokenError::Json)?;
        if token.join.is_empty() || token.join.len() > MAX_URLS {
            return Err(JoinTokenError::Addresses(token.join.len()));
        }
        Ok(token)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({} at {:?} …)", self.id, self.join)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            join: vec!["https://collector.example:8444".to_owned()],
            ca: Digest::of(b"certificate"),
            id: "0190".to_owned(),
            secret: "s3cr3t?>".to_owned(),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let text = token().to_string();
        assert!(text.starts_with("pristine-join."));
        assert!(
            !text.contains(['+', '/', '=']),
            "one word in a shell and in a URL"
        );
        assert_eq!(text.parse::<JoinToken>().unwrap(), token());
        assert_eq!(
            format!("{text}\n").parse::<JoinToken>().unwrap(),
            token(),
            "a token file ends with a newline"
        );
        assert_eq!(token().pair().secret, "s3cr3t?>");
    }

    #[test]
    fn its_body_is_the_json_of_the_format() {
        let text = token().to_string();
        let json = URL_SAFE_NO_PAD
            .decode(text.strip_prefix(PREFIX).unwrap())
            .unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["join"][0], "https://collector.example:8444");
        assert_eq!(value["ca"], Digest::of(b"certificate").to_string());
        assert_eq!(value.as_object().unwrap().len(), 4);
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let text = token().to_string();
        let body = URL_SAFE_NO_PAD.encode(br#"{"join":[],"ca":"","id":"","secret":""}"#);
        for bad in [
            &text[1..],
            "pristine-join.",
            &text[..text.len() - 9],
            "pristine-join.!!!!",
            &format!("{PREFIX}{body}"),
        ] {
            let error = bad.parse::<JoinToken>().unwrap_err();
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
        assert!(!format!("{:?}", token()).contains("s3cr3t"));
        assert!(!format!("{:?}", token().pair()).contains("s3cr3t"));
        assert!(
            format!("{PREFIX}{}", "A".repeat(10_000))
                .parse::<JoinToken>()
                .is_err()
        );
    }
}
