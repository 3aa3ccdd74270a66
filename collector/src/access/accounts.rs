//! Local accounts: read, and what is done to them. Whoever does it is written into the activity log in the same transaction.

mod change;

use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use zeroize::Zeroizing;

use super::password::Passwords;
use super::{AccessError, Person, Reach, Role, secret, tokens};
use crate::store::{Store, StoreError};

pub(crate) use self::change::may_hand_on;
pub use self::change::{NewAccount, add, disable, enable, set_password, set_role};

/// The first administrator's name.
pub const FIRST_USER: &str = "admin";

/// What `init` and `up` print once.
pub struct FirstSignIn {
    /// The account.
    pub user: String,
    /// Its password, nowhere stored.
    pub password: Zeroizing<String>,
    /// A token for the API, nowhere stored.
    pub token: Zeroizing<String>,
}

/// An account as lists show it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// The groups of nodes that it is limited to; empty for all.
    #[schema(value_type = Vec<String>)]
    pub groups: Reach,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was disabled, if it is.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled: Option<Timestamp>,
}

/// Makes the first administrator, with a password that is random and a token for the API.
///
/// # Errors
/// When there is an account of that name, or the store refuses.
pub async fn create_first_administrator(store: &Store) -> Result<FirstSignIn, AccessError> {
    let password = secret::fresh_password()?;
    let who = Person::local("init");
    let first = NewAccount {
        user: FIRST_USER.to_owned(),
        password: password.clone(),
        role: Role::Admin,
        reach: Reach::all(),
    };
    add(store, &who, first).await?;
    let token = tokens::fresh_token(store, FIRST_USER, Role::Admin, "first sign-in").await?;
    Ok(FirstSignIn {
        user: FIRST_USER.to_owned(),
        password,
        token,
    })
}

/// All accounts within reach, by name: those that reach no further than who asks.
///
/// # Errors
/// What the store refuses.
pub async fn list(store: &Store, reach: &Reach) -> Result<Vec<Account>, AccessError> {
    let rows =
        sqlx::query("SELECT user, role, reach, created, disabled FROM accounts ORDER BY user")
            .fetch_all(store.read_pool())
            .await?;
    let mut accounts = rows.iter().map(account).collect::<Result<Vec<_>, _>>()?;
    accounts.retain(|account| reach.covers(&account.groups));
    Ok(accounts)
}

/// One account.
///
/// # Errors
/// What the store refuses.
pub async fn named(store: &Store, user: &str) -> Result<Option<Account>, AccessError> {
    let row =
        sqlx::query("SELECT user, role, reach, created, disabled FROM accounts WHERE user = ?")
            .bind(user)
            .fetch_optional(store.read_pool())
            .await?;
    Ok(row.as_ref().map(account).transpose()?)
}

fn account(row: &SqliteRow) -> Result<Account, StoreError> {
    Ok(Account {
        user: row.try_get("user")?,
        role: role(row.try_get("role")?)?,
        groups: Reach::parse(row.try_get("reach")?)?,
        created: Timestamp::from_micros(row.try_get("created")?),
        disabled: crate::store::nodes::time(row, "disabled")?,
    })
}

/// The account of whoever signs in with this name and password; `None` for any other pair.
///
/// # Errors
/// When too many sign in at once, or the store refuses.
pub async fn check(
    store: &Store,
    passwords: &Passwords,
    user: &str,
    password: Zeroizing<String>,
) -> Result<Option<Account>, AccessError> {
    let row = sqlx::query("SELECT * FROM accounts WHERE user = ? AND disabled IS NULL")
        .bind(user)
        .fetch_optional(store.read_pool())
        .await?;
    let Some(row) = row else {
        passwords.check(password, None).await?;
        return Ok(None);
    };
    let account = account(&row)?;
    let fits = passwords
        .check(password, Some(row.try_get("password_hash")?))
        .await?;
    Ok(fits.then_some(account))
}

pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).ok_or_else(|| StoreError::corrupt(format!("role {text:?}")))
}
