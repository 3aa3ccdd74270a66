//! Local accounts.

use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::password::Passwords;
use super::{AccessError, Role, secret, tokens};
use crate::activity::{self, Action};
use crate::clock;
use crate::store::{Store, StoreError, Writing};

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
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// Its name.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// When it was disabled, if it was.
    pub disabled: Option<Timestamp>,
}

/// Makes the first administrator, with a password that is random and a token for the API.
///
/// # Errors
/// When there is an account of that name, or the store refuses.
pub async fn create_first_administrator(store: &Store) -> Result<FirstSignIn, AccessError> {
    let password = secret::fresh_password()?;
    add(store, FIRST_USER, password.clone(), Role::Admin, "init").await?;
    let token = tokens::fresh_token(store, FIRST_USER, Role::Admin, "first sign-in").await?;
    Ok(FirstSignIn {
        user: FIRST_USER.to_owned(),
        password,
        token,
    })
}

/// Adds an account; `by` is written into the activity log, here and below.
///
/// # Errors
/// For a name that is none or is taken, a password that is refused, and what the store refuses.
pub async fn add(
    store: &Store,
    user: &str,
    password: Zeroizing<String>,
    role: Role,
    by: &str,
) -> Result<(), AccessError> {
    if !is_name(user) {
        return Err(AccessError::Name);
    }
    let hash = Passwords::default().hash(password).await?;
    let (name, by, now) = (user.to_owned(), by.to_owned(), clock::now());
    let added = store
        .write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("INSERT INTO accounts (user, password_hash, role, created) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(&name)
                    .bind(hash)
                    .bind(role.as_str())
                    .bind(now.as_micros())
                    .execute(&mut tx.connection)
                    .await?;
                let change = Change { action: "account.add", name: &name, by: &by, now };
                change.note(tx, done.rows_affected(), json!({"role": role})).await
            })
        })
        .await?;
    if added == 0 {
        Err(AccessError::Exists(user.to_owned()))
    } else {
        Ok(())
    }
}

/// Sets another password and ends the account's browser sessions.
///
/// # Errors
/// When there is no such account, the password is refused, or the store refuses.
pub async fn set_password(
    store: &Store,
    user: &str,
    password: Zeroizing<String>,
    by: &str,
) -> Result<(), AccessError> {
    let hash = Passwords::default().hash(password).await?;
    let (name, by, now) = (user.to_owned(), by.to_owned(), clock::now());
    let changed = store
        .write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query("UPDATE accounts SET password_hash = ? WHERE user = ?")
                    .bind(hash)
                    .bind(&name)
                    .execute(&mut tx.connection)
                    .await?;
                end_sessions(tx, &name).await?;
                let change = Change {
                    action: "account.password",
                    name: &name,
                    by: &by,
                    now,
                };
                change.note(tx, done.rows_affected(), json!({})).await
            })
        })
        .await?;
    known(user, changed)
}

/// Disables an account: its sessions end and its tokens are revoked.
///
/// # Errors
/// When there is no such account, or the store refuses.
pub async fn disable(store: &Store, user: &str, by: &str) -> Result<(), AccessError> {
    let (name, by, now) = (user.to_owned(), by.to_owned(), clock::now());
    let changed = store
        .write(move |tx| {
            Box::pin(async move {
                let done = sqlx::query(
                    "UPDATE accounts SET disabled = coalesce(disabled, ?) WHERE user = ?",
                )
                .bind(now.as_micros())
                .bind(&name)
                .execute(&mut tx.connection)
                .await?;
                end_sessions(tx, &name).await?;
                sqlx::query("UPDATE api_tokens SET revoked = coalesce(revoked, ?) WHERE user = ?")
                    .bind(now.as_micros())
                    .bind(&name)
                    .execute(&mut tx.connection)
                    .await?;
                let change = Change {
                    action: "account.disable",
                    name: &name,
                    by: &by,
                    now,
                };
                change.note(tx, done.rows_affected(), json!({})).await
            })
        })
        .await?;
    known(user, changed)
}

/// What is done to an account, by whom.
struct Change<'a> {
    action: &'static str,
    name: &'a str,
    by: &'a str,
    now: Timestamp,
}

impl Change<'_> {
    /// Writes it down where an account was changed; answers how many were.
    async fn note(&self, tx: &mut Writing, changed: u64, detail: Value) -> Result<u64, StoreError> {
        if changed > 0 {
            let action = Action {
                at: self.now,
                by: self.by,
                action: self.action,
                target: self.name,
                node: None,
                detail,
            };
            activity::note(tx, &action).await?;
        }
        Ok(changed)
    }
}

async fn end_sessions(tx: &mut Writing, user: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sessions WHERE user = ?")
        .bind(user)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

/// Whether there was an account to change.
fn known(user: &str, changed: u64) -> Result<(), AccessError> {
    if changed == 0 {
        Err(AccessError::Unknown(user.to_owned()))
    } else {
        Ok(())
    }
}

/// All accounts, by name.
///
/// # Errors
/// What the store refuses.
pub async fn list(store: &Store) -> Result<Vec<Account>, AccessError> {
    let rows = sqlx::query("SELECT user, role, created, disabled FROM accounts ORDER BY user")
        .fetch_all(store.read_pool())
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Account {
                user: row.try_get("user")?,
                role: role(row.try_get("role")?)?,
                created: Timestamp::from_micros(row.try_get("created")?),
                disabled: row
                    .try_get::<Option<i64>, _>("disabled")?
                    .map(Timestamp::from_micros),
            })
        })
        .collect()
}

/// The role of whoever signs in with this name and password; `None` for any other pair.
///
/// # Errors
/// When too many sign in at once, or the store refuses.
pub async fn check(
    store: &Store,
    passwords: &Passwords,
    user: &str,
    password: Zeroizing<String>,
) -> Result<Option<Role>, AccessError> {
    let row =
        sqlx::query("SELECT password_hash, role FROM accounts WHERE user = ? AND disabled IS NULL")
            .bind(user)
            .fetch_optional(store.read_pool())
            .await?;
    let Some(row) = row else {
        passwords.check(password, None).await?;
        return Ok(None);
    };
    let role = role(row.try_get("role")?)?;
    let fits = passwords
        .check(password, Some(row.try_get("password_hash")?))
        .await?;
    Ok(fits.then_some(role))
}

pub(super) fn role(text: &str) -> Result<Role, StoreError> {
    Role::parse(text).ok_or_else(|| StoreError::corrupt(format!("role {text:?}")))
}

fn is_name(user: &str) -> bool {
    (1..=64).contains(&user.len())
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}
