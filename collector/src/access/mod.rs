//! Access of people and pipelines: accounts, API tokens, browser sessions, roles. Secrets are stored hashed, compared in constant time, and
//! every refusal reads the same, whatever was wrong.

pub mod accounts;
pub mod attempts;
pub mod gate;
pub mod password;
pub mod roles;
pub mod secret;
pub mod sessions;
pub mod tokens;

use http::StatusCode;

use crate::problem::ProblemResponse;
use crate::store::StoreError;

pub use self::accounts::{FirstSignIn, create_first_administrator};
pub use self::roles::Role;
pub use self::tokens::fresh_token;

/// Why something about access could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The store refused.
    #[error("accounts could not be read or written")]
    Store(#[from] StoreError),
    /// The password could not be hashed or checked.
    #[error("the password could not be taken")]
    Password(#[from] password::PasswordError),
    /// No random bytes.
    #[error("no secret could be made")]
    Random(#[from] secret::NoRandom),
    /// The name is no account name.
    #[error("a user name has 1 to 64 characters, letters, digits and `._@-`")]
    Name,
    /// The account is there already.
    #[error("there is an account `{0}` already")]
    Exists(String),
    /// There is no such account.
    #[error("there is no account `{0}`")]
    Unknown(String),
}

impl From<sqlx::Error> for AccessError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<AccessError> for ProblemResponse {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Store(error) => error.into(),
            AccessError::Password(password::PasswordError::Busy) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many sign-ins at once; try again",
            )
            .with_retry_after(2),
            AccessError::Password(error @ password::PasswordError::Length) => {
                Self::malformed(error.to_string())
            }
            AccessError::Name => Self::malformed(error.to_string()),
            AccessError::Exists(_) => Self::new(StatusCode::CONFLICT, "exists", error.to_string()),
            AccessError::Unknown(_) => Self::not_found(error.to_string()),
            AccessError::Password(password::PasswordError::Hash) | AccessError::Random(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "access failed");
                Self::internal()
            }
        }
    }
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Person {
    /// The account's name, or the name a token was made under.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// How they showed who they are.
    pub by: By,
}

/// How somebody showed who they are.
#[derive(Clone, Debug)]
pub enum By {
    /// A browser's cookie; holds the hash of the session's id.
    Session(Vec<u8>),
    /// An API token, by its id.
    Token(String),
}
