//! Random secrets and their hashes. A secret of 32 random bytes needs no slow hash: SHA-256 of it is stored, itself never.

use attestation::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const BYTES: usize = 32;
/// What an API token begins with, so that a leaked one is recognised.
const API_TOKEN: &str = "pristine-api.";

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandom;

/// 32 random bytes in base64url.
///
/// # Errors
/// When the system has none.
pub fn fresh() -> Result<Zeroizing<String>, NoRandom> {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| NoRandom)?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// A password that people can type: five groups of four from an alphabet without look-alikes, 100 bits.
///
/// # Errors
/// When the system has no random bytes.
pub fn fresh_password() -> Result<Zeroizing<String>, NoRandom> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0_u8; 20]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| NoRandom)?;
    let mut text = Zeroizing::new(String::with_capacity(24));
    for (at, byte) in bytes.iter().enumerate() {
        if at > 0 && at % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    Ok(text)
}

/// What is stored of a secret.
#[must_use]
pub fn hash(secret: &str) -> Vec<u8> {
    Digest::of(secret.as_bytes()).as_bytes().to_vec()
}

/// Whether a secret is the one whose hash is stored, in a time that does not tell how much of it fits.
#[must_use]
pub fn fits(secret: &str, stored: &[u8]) -> bool {
    hash(secret).ct_eq(stored).into()
}

/// An API token in its written form: `pristine-api.ID.SECRET`.
#[must_use]
pub fn api_token(id: &str, secret: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("{API_TOKEN}{id}.{secret}"))
}

/// The id and the secret of a written API token.
#[must_use]
pub fn split_api_token(written: &str) -> Option<(&str, &str)> {
    written.strip_prefix(API_TOKEN)?.split_once('.')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_only_their_hash_fits() {
        let (one, two) = (fresh().unwrap(), fresh().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 43);
        assert!(fits(&one, &hash(&one)) && !fits(&one, &hash(&two)) && !fits(&one, b""));
    }

    #[test]
    fn a_token_splits_into_its_parts() {
        let written = api_token("0192", "s3cret");
        assert_eq!(split_api_token(&written), Some(("0192", "s3cret")));
        assert_eq!(split_api_token("pristine-join.0192.s"), None);
    }

    #[test]
    fn a_first_password_can_be_typed() {
        let password = fresh_password().unwrap();
        assert_eq!(password.len(), 24);
        assert!(
            password
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-')
        );
    }
}
