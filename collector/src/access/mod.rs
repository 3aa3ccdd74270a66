//! Access of people and pipelines: accounts, API tokens, browser sessions, roles. Secrets are stored hashed, compared in constant time, and
//! every refusal reads the same, whatever was wrong.

pub mod accounts;
pub mod attempts;
pub mod gate;
mod objects;
pub mod password;
pub mod reach;
pub mod refused;
pub mod roles;
pub mod secret;
pub mod sessions;
pub mod tokens;

use std::net::IpAddr;

use http::StatusCode;

use crate::problem::ProblemResponse;
use crate::store::StoreError;

pub use self::accounts::{FirstSignIn, create_first_administrator};
pub(crate) use self::gate::lacks;
pub use self::reach::Reach;
pub use self::roles::{Right, Role};
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
    /// There is no such token.
    #[error("there is no token with this id")]
    NoToken,
    /// The groups are none, or too many.
    #[error(
        "groups are at most {} names, each of 1 to 253 visible bytes",
        reach::MOST
    )]
    Groups,
    /// More than who asks may hand on.
    #[error("nobody hands on a role or a group that they do not have themselves")]
    Beyond,
    /// Nobody could administer the collector any more.
    #[error("this is the last administrator of all groups: make another one first")]
    LastAdministrator,
    /// A token's life or label.
    #[error(
        "a token is good for 1 second to 366 days, and its label has at most {} bytes",
        tokens::LABEL
    )]
    Token,
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
            AccessError::Name | AccessError::Groups | AccessError::Token => {
                Self::malformed(error.to_string())
            }
            AccessError::Exists(_) => Self::conflict("exists", error.to_string()),
            AccessError::LastAdministrator => {
                Self::conflict("last-administrator", error.to_string())
            }
            AccessError::Beyond => Self::new(StatusCode::FORBIDDEN, "beyond", error.to_string()),
            AccessError::Unknown(_) | AccessError::NoToken => Self::not_found(error.to_string()),
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
    /// On which nodes.
    pub reach: Reach,
    /// How they showed who they are.
    pub by: By,
    /// The address that the request came from; nothing for what is done on the collector's own machine.
    pub from: Option<IpAddr>,
}

impl Person {
    /// Whoever works on the collector's own machine: nobody has signed in there, its user may everything.
    #[must_use]
    pub fn local(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            role: Role::Admin,
            reach: Reach::all(),
            by: By::Local,
            from: None,
        }
    }

    /// Whoever knocks and has shown nothing: for the log only.
    #[must_use]
    pub fn nobody(from: Option<IpAddr>) -> Self {
        Self {
            user: String::new(),
            role: Role::Viewer,
            reach: Reach::of([String::new()]),
            by: By::Nobody,
            from,
        }
    }

    /// Whether their role has a right.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        self.role.may(right)
    }

    /// Whether they see and act on the nodes of a group.
    #[must_use]
    pub fn reaches(&self, group: &str) -> bool {
        self.reach.reaches(group)
    }
}

/// How somebody showed who they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// A browser's cookie; holds the hash of the session's id.
    Session(Vec<u8>),
    /// An API token, by its id.
    Token(String),
    /// A join token, by its id: a machine that joins on behalf of whoever made it.
    JoinToken(String),
    /// By working on the collector's own machine.
    Local,
    /// Not at all.
    Nobody,
}

impl By {
    /// In a word and an id, for the log: a session by the first eight bytes of its hash, which open nothing.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Session(hash) => {
                let digits = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
                format!("session {}", digits.collect::<String>())
            }
            Self::Token(id) => format!("token {id}"),
            Self::JoinToken(id) => format!("join-token {id}"),
            Self::Local => "local".to_owned(),
            Self::Nobody => String::new(),
        }
    }
}
