//! Standard Webhooks signatures: HMAC-SHA256 over `id.timestamp.body`, written `v1,` and base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use zeroize::Zeroizing;

/// What a secret begins with; the rest is base64 of the key.
const PREFIX: &str = "whsec_";
/// Standard Webhooks asks for 24 to 64 bytes of key; receivers in use have shorter and longer ones.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// Why a webhook's secret cannot be used. The secret itself is never part of the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretError {
    /// What follows `whsec_` is not base64.
    #[error("a webhook secret is base64 after `whsec_`")]
    Encoding,
    /// The key is too short to be safe or too long to be one.
    #[error("a webhook secret holds 16 to 512 bytes, this one {0}")]
    Length(usize),
}

/// A channel's signing key.
#[derive(Clone)]
pub struct SigningSecret(hmac::Key);

impl SigningSecret {
    /// Reads `whsec_` and base64; text without that prefix is the key as it stands.
    ///
    /// # Errors
    /// Where the base64 or the length is wrong.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let key = Zeroizing::new(match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| SecretError::Encoding)?,
            None => text.as_bytes().to_vec(),
        });
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SecretError::Length(key.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The value of `webhook-signature` for one delivery; `seconds` is the value of `webhook-timestamp`.
    #[must_use]
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(id.as_bytes());
        context.update(b".");
        context.update(seconds.to_string().as_bytes());
        context.update(b".");
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign().as_ref()))
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector_of_standard_webhooks_holds() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            secret.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn id_time_and_body_are_all_signed() {
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let one = secret.sign("a", 1, b"{}");
        assert_ne!(one, secret.sign("b", 1, b"{}"));
        assert_ne!(one, secret.sign("a", 2, b"{}"));
        assert_ne!(one, secret.sign("a", 1, b"{ }"));
    }

    #[test]
    fn a_secret_of_another_shape_is_refused_and_never_printed() {
        assert_eq!(
            SigningSecret::parse("short").unwrap_err(),
            SecretError::Length(5)
        );
        assert_eq!(
            SigningSecret::parse("whsec_#").unwrap_err(),
            SecretError::Encoding
        );
        assert_eq!(
            SigningSecret::parse("whsec_AAAA").unwrap_err(),
            SecretError::Length(3)
        );
        let secret = SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
    }
}
