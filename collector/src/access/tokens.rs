//! API tokens: made, shown once, kept hashed. A token may no more than who makes it, reaches no further, and has an end.

use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::accounts::role;
use super::refused::{Presented, Why};
use super::{AccessError, By, Person, Reach, Right, Role, accounts, secret};
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::store::{Store, StoreError, Writing};

/// Bytes of a label.
pub const LABEL: usize = 200;
/// A token whose maker names no end: a quarter, so that a forgotten one does not stay.
pub const LIFE_SECS: u64 = 90 * 86_400;
/// A year: whoever needs longer makes another.
pub const LONGEST_SECS: u64 = 366 * 86_400;

/// A token as lists show it, without its secret.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Token)]
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
    /// The groups of nodes that it is limited to, where it is for the API; empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub groups: Option<Reach>,
    /// What it is for.
    pub label: String,
    /// The group that nodes join with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many nodes may still join with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<i64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when it is good.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The account that it speaks for.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// On which nodes.
    pub reach: Reach,
    /// What it is for.
    pub label: String,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
    /// A password was exchanged for it: it ends when that does.
    pub login: bool,
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

/// Makes a token without an end, on the collector's own machine.
///
/// # Errors
/// What the store refuses.
pub async fn fresh_token(
    store: &Store,
    user: &str,
    role: Role,
    label: &str,
) -> Result<Zeroizing<String>, AccessError> {
    let new = NewToken {
        user: user.to_owned(),
        role,
        reach: Reach::all(),
        label: label.to_owned(),
        expires: None,
        login: false,
    };
    Ok(issue(store, &Person::local(user), new).await?.written)
}

/// Makes a token. One that is made with a token ends no later than that.
///
/// # Errors
/// For more than who makes it may hand on, a label that is too long, and what the store refuses.
pub async fn issue(store: &Store, who: &Person, new: NewToken) -> Result<Issued, AccessError> {
    accounts::may_hand_on(who, new.role, &new.reach)?;
    if new.label.len() > LABEL || new.label.chars().any(char::is_control) {
        return Err(AccessError::Token);
    }
    let random = secret::fresh()?;
    let id = Uuid::now_v7().to_string();
    let written = secret::api_token(&id, &random);
    let (row, who, hash) = (id.clone(), who.clone(), secret::hash(&random));
    let expires = store
        .write(move |tx| {
            Box::pin(async move {
                let now = clock::now();
                let expires = match &who.by {
                    By::Token(maker) => earlier(end_of(tx, maker).await?, new.expires),
                    By::Session(_) | By::JoinToken(_) | By::Local | By::Nobody => new.expires,
                };
                let who = if new.login {
                    Person {
                        by: By::Token(row.clone()),
                        ..who
                    }
                } else {
                    who
                };
                sqlx::query("INSERT INTO api_tokens (id, hash, user, role, reach, expires, created, label, login) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
                    .bind(&row)
                    .bind(hash)
                    .bind(&new.user)
                    .bind(new.role.as_str())
                    .bind(new.reach.to_row())
                    .bind(expires.map(Timestamp::as_micros))
                    .bind(now.as_micros())
                    .bind(&new.label)
                    .bind(new.login)
                    .execute(&mut tx.connection)
                    .await?;
                let doing = Doing {
                    who: &who,
                    at: now,
                    action: if new.login { "session.open" } else { "token.create" },
                    target: Target::new("token", &row, &new.label),
                    before: Value::Null,
                    after: json!({"kind": "api", "role": new.role, "groups": new.reach, "expires": expires}),
                    reason: None,
                };
                activity::record(tx, &doing).await?;
                Ok(expires)
            })
        })
        .await?;
    Ok(Issued {
        id,
        written,
        expires,
    })
}

async fn end_of(tx: &mut Writing, token: &str) -> Result<Option<Timestamp>, StoreError> {
    let end: Option<Option<i64>> =
        sqlx::query_scalar("SELECT expires FROM api_tokens WHERE id = ?")
            .bind(token)
            .fetch_optional(&mut tx.connection)
            .await?;
    Ok(end.flatten().map(Timestamp::from_micros))
}

/// The earlier of two ends, where there is one.
fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whose token this is, while it is good; else what is known of it.
///
/// # Errors
/// What the store refuses.
pub async fn person(
    store: &Store,
    written: &str,
    now: Timestamp,
) -> Result<Presented, AccessError> {
    let Some((id, random)) = secret::split_api_token(written) else {
        return Ok(Presented::Stranger(Why::NoToken));
    };
    let row = sqlx::query(
        "SELECT t.hash, t.user, t.role, t.reach, t.expires, t.revoked, a.disabled FROM api_tokens t \
         LEFT JOIN accounts a ON a.user = t.user WHERE t.id = ?",
    )
    .bind(id)
    .fetch_optional(store.read_pool())
    .await?;
    let Some(row) = row else {
        return Ok(Presented::Stranger(Why::NoToken));
    };
    if !secret::fits(random, &row.try_get::<Vec<u8>, _>("hash")?) {
        return Ok(Presented::Stranger(Why::NoToken));
    }
    let person = Person {
        user: row.try_get("user")?,
        role: role(row.try_get("role")?)?,
        reach: Reach::parse(row.try_get("reach")?)?,
        by: By::Token(id.to_owned()),
        from: None,
    };
    let at = |column: &str| row.try_get::<Option<i64>, _>(column);
    let why = if at("disabled")?.is_some() {
        Why::Disabled
    } else if at("revoked")?.is_some() {
        Why::Revoked
    } else if at("expires")?.is_some_and(|expires| expires <= now.as_micros()) {
        Why::Expired
    } else {
        return Ok(Presented::Good(person));
    };
    Ok(Presented::NoLonger(person, why))
}

/// Revokes a token of either kind: one's own, a join token of a group within reach, or anybody's for who administers all. A token ends
/// none that may more than it does, its own person's neither: a leaked one of a viewer locks nobody out.
///
/// # Errors
/// When there is none that this person may revoke, and what the store refuses.
pub async fn revoke(store: &Store, who: &Person, id: &str) -> Result<(), AccessError> {
    let (who, id) = (who.clone(), id.to_owned());
    store
        .write(move |tx| {
            Box::pin(async move {
                let own = matches!(&who.by, By::Token(mine) if *mine == id);
                let covered = |role: Option<Role>| role.is_none_or(|role| who.role.covers(role));
                let Some(token) = found(tx, &id)
                    .await?
                    .filter(|token| sees(&who, token) && (own || covered(token.role)))
                else {
                    return Ok(Err(AccessError::NoToken));
                };
                let now = clock::now();
                let sql = match token.kind {
                    "api" => "UPDATE api_tokens SET revoked = coalesce(revoked, ?) WHERE id = ?",
                    _ => "UPDATE join_tokens SET revoked = coalesce(revoked, ?) WHERE id = ?",
                };
                sqlx::query(sql)
                    .bind(now.as_micros())
                    .bind(&id)
                    .execute(&mut tx.connection)
                    .await?;
                let target = Target::new("token", &id, &token.label);
                let doing = Doing {
                    who: &who,
                    at: now,
                    action: if own { "session.close" } else { "token.revoke" },
                    target: token.group.as_deref().map_or(target, |group| target.in_group(group)),
                    before: json!({"kind": token.kind, "of": token.user, "role": token.role, "revoked": token.revoked}),
                    after: json!({"revoked": token.revoked.unwrap_or(now)}),
                    reason: None,
                };
                activity::record(tx, &doing).await?;
                Ok(Ok(()))
            })
        })
        .await?
}

/// Tokens of both kinds that a person may revoke, newest first, at most `limit`, older than the id `before`.
///
/// # Errors
/// What the store refuses.
pub async fn list(
    store: &Store,
    who: &Person,
    before: Option<&str>,
    limit: u32,
) -> Result<Vec<TokenView>, AccessError> {
    let rows = sqlx::query(
        "SELECT 'api' AS kind, id, user, role, reach, label, NULL AS grp, NULL AS uses_left, created, expires, revoked FROM api_tokens \
         WHERE id < ?1 AND (?3 OR user = ?4) \
         UNION ALL \
         SELECT 'join', id, created_by, NULL, NULL, '', grp, uses_left, created, expires, revoked FROM join_tokens \
         WHERE id < ?1 AND (?3 OR created_by = ?4 OR (?5 AND (?6 IS NULL OR grp IN (SELECT value FROM json_each(?6))))) \
         ORDER BY id DESC LIMIT ?2",
    )
    .bind(before.unwrap_or("~"))
    .bind(limit)
    .bind(sees_all(who))
    .bind(&who.user)
    .bind(who.may(Right::Steward))
    .bind(who.reach.to_sql())
    .fetch_all(store.read_pool())
    .await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

fn sees_all(who: &Person) -> bool {
    who.may(Right::Administer) && who.reach.is_all()
}

/// Whether a token is in somebody's list. Pure.
fn sees(who: &Person, token: &TokenView) -> bool {
    let joins = token
        .group
        .as_deref()
        .is_some_and(|group| who.may(Right::Steward) && who.reaches(group));
    sees_all(who) || token.user == who.user || joins
}

async fn found(tx: &mut Writing, id: &str) -> Result<Option<TokenView>, StoreError> {
    let row = sqlx::query(
        "SELECT 'api' AS kind, id, user, role, reach, label, NULL AS grp, NULL AS uses_left, created, expires, revoked FROM api_tokens WHERE id = ?1 \
         UNION ALL \
         SELECT 'join', id, created_by, NULL, NULL, '', grp, uses_left, created, expires, revoked FROM join_tokens WHERE id = ?1",
    )
    .bind(id)
    .fetch_optional(&mut tx.connection)
    .await?;
    row.as_ref().map(view).transpose()
}

fn view(row: &SqliteRow) -> Result<TokenView, StoreError> {
    let kind: String = row.try_get("kind")?;
    let time = |column: &str| {
        row.try_get::<Option<i64>, _>(column)
            .map(|at| at.map(Timestamp::from_micros))
    };
    Ok(TokenView {
        kind: if kind == "api" { "api" } else { "join" },
        id: row.try_get("id")?,
        user: row.try_get("user")?,
        role: row
            .try_get::<Option<String>, _>("role")?
            .as_deref()
            .map(role)
            .transpose()?,
        groups: row
            .try_get::<Option<String>, _>("reach")?
            .as_deref()
            .map(Reach::parse)
            .transpose()?,
        label: row.try_get("label")?,
        group: row.try_get("grp")?,
        uses_left: row.try_get("uses_left")?,
        created: Timestamp::from_micros(row.try_get("created")?),
        expires: time("expires")?,
        revoked: time("revoked")?,
    })
}
