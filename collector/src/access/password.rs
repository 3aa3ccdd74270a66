//! Passwords: Argon2id, on threads of its own and few at a time, because one hash takes 19 MiB and a core for a while.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// Hashes at the same time: 40 MiB and at most two cores, whoever knocks.
const AT_ONCE: usize = 2;
/// Who waits behind that many is sent away instead.
const WAITING: usize = 32;
/// Longer passwords are refused before they are hashed.
pub const LONGEST: usize = 1_024;
/// Shorter ones are not accepted when one is set.
pub const SHORTEST: usize = 10;

/// Why a password could not be set or checked; a wrong one is no error.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are being checked.
    #[error("too many sign-ins at once")]
    Busy,
    /// Refused by its length.
    #[error("a password has {SHORTEST} to {LONGEST} bytes")]
    Length,
    /// The hash could not be made.
    #[error("the password could not be hashed")]
    Hash,
}

/// Checks and makes password hashes, bounded in number.
#[derive(Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING)),
        }
    }
}

impl Passwords {
    /// The PHC string of a new password.
    ///
    /// # Errors
    /// For a length that is refused, and when too many are at it.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, PasswordError> {
        if !(SHORTEST..=LONGEST).contains(&password.len()) {
            return Err(PasswordError::Length);
        }
        self.off_runtime(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|_| PasswordError::Hash)
        })
        .await?
    }

    /// Whether the password fits the hash. Without a hash (no such account) the same work is done for nothing, so that the answer's
    /// time does not tell which accounts exist.
    ///
    /// # Errors
    /// When too many are at it.
    pub async fn check(
        &self,
        password: Zeroizing<String>,
        hash: Option<String>,
    ) -> Result<bool, PasswordError> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        self.off_runtime(move || {
            let argon = Argon2::default();
            let Some(hash) = hash else {
                let _spent = argon.hash_password(password.as_bytes());
                return false;
            };
            PasswordHash::new(&hash)
                .is_ok_and(|parsed| argon.verify_password(password.as_bytes(), &parsed).is_ok())
        })
        .await
    }

    async fn off_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::Busy)?;
        spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        })
        .await
        .map_err(|_| PasswordError::Hash)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[tokio::test]
    async fn the_right_password_fits_and_no_other() {
        let passwords = Passwords::default();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(
            passwords
                .check(secret("correct horse"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .check(secret("correct horsf"), Some(hash))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .check(secret("correct horse"), None)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn lengths_are_bounded_before_any_hashing() {
        let passwords = Passwords::default();
        assert!(matches!(
            passwords.hash(secret("short")).await,
            Err(PasswordError::Length)
        ));
        assert!(
            !passwords
                .check(secret(&"a".repeat(2_000)), None)
                .await
                .unwrap()
        );
    }
}
