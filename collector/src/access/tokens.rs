//! API tokens: made, shown once, kept hashed.

use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::Row as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::accounts::role;
use super::{AccessError, By, Person, Role, secret};
use crate::clock;
use crate::store::Store;

/// A token as lists show it, without its secret.
#[derive(Clone, Debug, Serialize)]
pub struct TokenView {
    /// `api` or `join`.
    pub kind: &'static str,
    /// Its id, which revokes it.
    pub id: String,
    /// Who made it.
    pub user: String,
    /// What it may do, where it is for the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// What it is for.
    pub label: String,
    /// The group that nodes join with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many nodes may still join with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<i64>,
    /// When it was made.
    pub created: Timestamp,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
}

/// A token just made: its written form is here and nowhere else.
pub struct Issued {
    /// Its id.
    pub id: String,
    /// What is sent as `Authorization: Bearer`.
    pub written: Zeroizing<String>,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
}

/// Makes a token without an end.
///
/// # Errors
/// What the store refuses.
pub async fn fresh_token(
    store: &Store,
    user: &str,
    role: Role,
    label: &str,
) -> Result<Zeroizing<String>, AccessError> {
    Ok(issue(store, user, role, label, None).await?.written)
}

/// Makes a token.
///
/// # Errors
/// What the store refuses.
pub async fn issue(
    store: &Store,
    user: &str,
    role: Role,
    label: &str,
    expires: Option<Timestamp>,
) -> Result<Issued, AccessError> {
    let random = secret::fresh()?;
    let id = Uuid::now_v7().to_string();
    let written = secret::api_token(&id, &random);
    let (row, hash, user, label) = (
        id.clone(),
        secret::hash(&random),
        user.to_owned(),
        label.to_owned(),
    );
    let now = clock::now();
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("INSERT INTO api_tokens (id, hash, user, role, expires, created, label) VALUES (?, ?, ?, ?, ?, ?, ?)")
                    .bind(row)
                    .bind(hash)
                    .bind(user)
                    .bind(role.as_str())
                    .bind(expires.map(Timestamp::as_micros))
                    .bind(now.as_micros())
                    .bind(label)
                    .execute(&mut tx.connection)
                    .await?;
                Ok(())
            })
        })
        .await?;
    Ok(Issued {
        id,
        written,
        expires,
    })
}

/// Whose token this is, while it is good.
///
/// # Errors
/// What the store refuses.
pub async fn person(
    store: &Store,
    written: &str,
    now: Timestamp,
) -> Result<Option<Person>, AccessError> {
    let Some((id, random)) = secret::split_api_token(written) else {
        return Ok(None);
    };
    let row = sqlx::query(
        "SELECT hash, user, role, expires FROM api_tokens WHERE id = ? AND revoked IS NULL",
    )
    .bind(id)
    .fetch_optional(store.read_pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let expired = row
        .try_get::<Option<i64>, _>("expires")?
        .is_some_and(|expires| expires <= now.as_micros());
    if expired || !secret::fits(random, &row.try_get::<Vec<u8>, _>("hash")?) {
        return Ok(None);
    }
    Ok(Some(Person {
        user: row.try_get("user")?,
        role: role(row.try_get("role")?)?,
        by: By::Token(id.to_owned()),
    }))
}

/// Revokes a token of either kind; whether there was one.
///
/// # Errors
/// What the store refuses.
pub async fn revoke(store: &Store, id: &str) -> Result<bool, AccessError> {
    let (id, now) = (id.to_owned(), clock::now().as_micros());
    let revoked = store
        .write(move |tx| {
            Box::pin(async move {
                let mut found = 0;
                for sql in [
                    "UPDATE api_tokens SET revoked = coalesce(revoked, ?) WHERE id = ?",
                    "UPDATE join_tokens SET revoked = coalesce(revoked, ?) WHERE id = ?",
                ] {
                    found += sqlx::query(sql)
                        .bind(now)
                        .bind(&id)
                        .execute(&mut tx.connection)
                        .await?
                        .rows_affected();
                }
                Ok(found)
            })
        })
        .await?;
    Ok(revoked > 0)
}

/// Tokens of both kinds, newest first, at most `limit`, older than the id `before`.
///
/// # Errors
/// What the store refuses.
pub async fn list(
    store: &Store,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<TokenView>, AccessError> {
    let rows = sqlx::query(
        "SELECT 'api' AS kind, id, user, role, label, NULL AS grp, NULL AS uses_left, created, expires, revoked FROM api_tokens WHERE id < ?1 \
         UNION ALL \
         SELECT 'join', id, created_by, NULL, '', grp, uses_left, created, expires, revoked FROM join_tokens WHERE id < ?1 \
         ORDER BY id DESC LIMIT ?2",
    )
    .bind(before.unwrap_or("~"))
    .bind(limit)
    .fetch_all(store.read_pool())
    .await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.try_get("kind")?;
            Ok(TokenView {
                kind: if kind == "api" { "api" } else { "join" },
                id: row.try_get("id")?,
                user: row.try_get("user")?,
                role: row
                    .try_get::<Option<String>, _>("role")?
                    .as_deref()
                    .map(role)
                    .transpose()?,
                label: row.try_get("label")?,
                group: row.try_get("grp")?,
                uses_left: row.try_get("uses_left")?,
                created: Timestamp::from_micros(row.try_get("created")?),
                expires: row
                    .try_get::<Option<i64>, _>("expires")?
                    .map(Timestamp::from_micros),
                revoked: row
                    .try_get::<Option<i64>, _>("revoked")?
                    .map(Timestamp::from_micros),
            })
        })
        .collect()
}
