//! What is done to accounts.

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Account, account};
use crate::access::password::Passwords;
use crate::access::{AccessError, By, Person, Reach, Right, Role, reach};
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::store::{Store, StoreError, Writing};

/// An account to be made.
pub struct NewAccount {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// What it may do.
    pub role: Role,
    /// On which nodes.
    pub reach: Reach,
}

/// Adds an account.
///
/// # Errors
/// For a name that is none or is taken, more than who adds it may hand on, a password that is refused, and what the store refuses.
pub async fn add(store: &Store, who: &Person, new: NewAccount) -> Result<(), AccessError> {
    if !is_name(&new.user) {
        return Err(AccessError::Name);
    }
    may_hand_on(who, new.role, &new.reach)?;
    let hash = Passwords::default().hash(new.password).await?;
    let (who, user, role, reach) = (who.clone(), new.user, new.role, new.reach);
    store
        .write(move |tx| {
            Box::pin(async move {
                let now = clock::now();
                let done = sqlx::query("INSERT INTO accounts (user, password_hash, role, reach, created) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(&user)
                    .bind(hash)
                    .bind(role.as_str())
                    .bind(reach.to_row())
                    .bind(now.as_micros())
                    .execute(&mut tx.connection)
                    .await?;
                if done.rows_affected() == 0 {
                    return Ok(Err(AccessError::Exists(user)));
                }
                let after = json!({"role": role, "groups": reach});
                note(tx, &who, "account.add", &user, Value::Null, after).await?;
                Ok(Ok(()))
            })
        })
        .await?
}

/// Sets another password: the account's sessions end, and the tokens that the one before was exchanged for.
///
/// # Errors
/// When there is no such account, the password is refused, or the store refuses.
pub async fn set_password(
    store: &Store,
    who: &Person,
    user: &str,
    password: Zeroizing<String>,
) -> Result<(), AccessError> {
    let hash = Passwords::default().hash(password).await?;
    change(store, who, user, move |tx, _, account| {
        Box::pin(async move {
            sqlx::query("UPDATE accounts SET password_hash = ? WHERE user = ?")
                .bind(hash)
                .bind(&account.user)
                .execute(&mut tx.connection)
                .await?;
            end_sessions(tx, &account.user).await?;
            revoke_tokens(tx, &account.user, true).await?;
            Ok(Ok(Done {
                action: "account.password",
                before: Value::Null,
                after: Value::Null,
            }))
        })
    })
    .await
}

/// Gives an account another role or another reach. Tokens that go beyond it are revoked.
///
/// # Errors
/// When there is no such account, it is more than who changes it may hand on, no administrator would be left, or the store refuses.
pub async fn set_role(
    store: &Store,
    who: &Person,
    user: &str,
    role: Option<Role>,
    reach: Option<Reach>,
) -> Result<(), AccessError> {
    change(store, who, user, move |tx, who, was| {
        Box::pin(async move {
            let (role, reach) = (
                role.unwrap_or(was.role),
                reach.unwrap_or_else(|| was.groups.clone()),
            );
            if let Err(refused) = may_hand_on(who, role, &reach) {
                return Ok(Err(refused));
            }
            let keeps = role == Role::Admin && reach.is_all();
            if !keeps && is_last_administrator(tx, who, was).await? {
                return Ok(Err(AccessError::LastAdministrator));
            }
            sqlx::query("UPDATE accounts SET role = ?, reach = ? WHERE user = ?")
                .bind(role.as_str())
                .bind(reach.to_row())
                .bind(&was.user)
                .execute(&mut tx.connection)
                .await?;
            revoke_beyond(tx, &was.user, role, &reach).await?;
            Ok(Ok(Done {
                action: "account.role",
                before: json!({"role": was.role, "groups": was.groups}),
                after: json!({"role": role, "groups": reach}),
            }))
        })
    })
    .await
}

/// Disables an account: its sessions end and its tokens are revoked.
///
/// # Errors
/// When there is no such account, no administrator would be left, or the store refuses.
pub async fn disable(store: &Store, who: &Person, user: &str) -> Result<(), AccessError> {
    change(store, who, user, |tx, who, was| {
        Box::pin(async move {
            if is_last_administrator(tx, who, was).await? {
                return Ok(Err(AccessError::LastAdministrator));
            }
            sqlx::query("UPDATE accounts SET disabled = coalesce(disabled, ?) WHERE user = ?")
                .bind(clock::now().as_micros())
                .bind(&was.user)
                .execute(&mut tx.connection)
                .await?;
            end_sessions(tx, &was.user).await?;
            revoke_tokens(tx, &was.user, false).await?;
            Ok(Ok(Done {
                action: "account.disable",
                before: json!({"disabled": was.disabled.is_some()}),
                after: json!({"disabled": true}),
            }))
        })
    })
    .await
}

/// Lets a disabled account sign in again. What ended with it stays ended.
///
/// # Errors
/// When there is no such account, or the store refuses.
pub async fn enable(store: &Store, who: &Person, user: &str) -> Result<(), AccessError> {
    change(store, who, user, |tx, _, was| {
        Box::pin(async move {
            sqlx::query("UPDATE accounts SET disabled = NULL WHERE user = ?")
                .bind(&was.user)
                .execute(&mut tx.connection)
                .await?;
            Ok(Ok(Done {
                action: "account.enable",
                before: json!({"disabled": was.disabled.is_some()}),
                after: json!({"disabled": false}),
            }))
        })
    })
    .await
}

/// What was done to an account, for the activity log.
struct Done {
    action: &'static str,
    before: Value,
    after: Value,
}

/// Does something to an account as far as who does it reaches, and writes it down. An account beyond that is none.
async fn change<F>(store: &Store, who: &Person, user: &str, job: F) -> Result<(), AccessError>
where
    F: for<'t> FnOnce(
            &'t mut Writing,
            &'t Person,
            &'t Account,
        ) -> BoxFuture<'t, Result<Result<Done, AccessError>, StoreError>>
        + Send
        + 'static,
{
    let (who, user) = (who.clone(), user.to_owned());
    store
        .write(move |tx| {
            Box::pin(async move {
                let Some(was) = reached(tx, &who, &user).await? else {
                    return Ok(Err(AccessError::Unknown(user)));
                };
                let Done {
                    action,
                    before,
                    after,
                } = match job(tx, &who, &was).await? {
                    Ok(done) => done,
                    Err(refused) => return Ok(Err(refused)),
                };
                note(tx, &who, action, &user, before, after).await?;
                Ok(Ok(()))
            })
        })
        .await?
}

/// Nobody hands on a right or a group that they do not have. Pure.
pub(crate) fn may_hand_on(who: &Person, role: Role, reach: &Reach) -> Result<(), AccessError> {
    if reach.groups().count() > reach::MOST
        || reach
            .groups()
            .any(|group| crate::fleet::checked(group).is_err())
    {
        return Err(AccessError::Groups);
    }
    if who.role.covers(role) && who.reach.covers(reach) {
        Ok(())
    } else {
        Err(AccessError::Beyond)
    }
}

/// The account as the transaction sees it, where it reaches no further than who changes it. Everybody reaches their own.
async fn reached(
    tx: &mut Writing,
    who: &Person,
    user: &str,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query("SELECT * FROM accounts WHERE user = ?")
        .bind(user)
        .fetch_optional(&mut tx.connection)
        .await?;
    let account = row.as_ref().map(account).transpose()?;
    let own = who.user == user && !matches!(who.by, By::Local);
    Ok(account.filter(|it| own || (who.may(Right::Administer) && who.reach.covers(&it.groups))))
}

/// Whether nobody could administer the collector without this account. On its own machine somebody always can.
async fn is_last_administrator(
    tx: &mut Writing,
    who: &Person,
    account: &Account,
) -> Result<bool, StoreError> {
    if matches!(who.by, By::Local) || account.role != Role::Admin || !account.groups.is_all() {
        return Ok(false);
    }
    let others: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM accounts WHERE role = 'admin' AND reach = '[]' AND disabled IS NULL AND user <> ?",
    )
    .bind(&account.user)
    .fetch_one(&mut tx.connection)
    .await?;
    Ok(others == 0)
}

async fn end_sessions(tx: &mut Writing, user: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET ended = coalesce(ended, ?) WHERE user = ?")
        .bind(clock::now().as_micros())
        .bind(user)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

/// All of an account's tokens, or only those that a password was exchanged for.
async fn revoke_tokens(tx: &mut Writing, user: &str, logins: bool) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE api_tokens SET revoked = coalesce(revoked, ?1) WHERE user = ?2 AND (login OR NOT ?3)",
    )
    .bind(clock::now().as_micros())
    .bind(user)
    .bind(logins)
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}

/// Tokens that may more than their account, or reach further.
async fn revoke_beyond(
    tx: &mut Writing,
    user: &str,
    role: Role,
    reach: &Reach,
) -> Result<(), StoreError> {
    let tokens: Vec<(String, String, String)> =
        sqlx::query_as("SELECT id, role, reach FROM api_tokens WHERE user = ? AND revoked IS NULL")
            .bind(user)
            .fetch_all(&mut tx.connection)
            .await?;
    for (id, token_role, token_reach) in tokens {
        if role.covers(super::role(&token_role)?) && reach.covers(&Reach::parse(&token_reach)?) {
            continue;
        }
        sqlx::query("UPDATE api_tokens SET revoked = ? WHERE id = ?")
            .bind(clock::now().as_micros())
            .bind(id)
            .execute(&mut tx.connection)
            .await?;
    }
    Ok(())
}

async fn note(
    tx: &mut Writing,
    who: &Person,
    action: &'static str,
    user: &str,
    before: Value,
    after: Value,
) -> Result<(), StoreError> {
    let doing = Doing {
        who,
        at: clock::now(),
        action,
        target: Target::new("account", user, user),
        before,
        after,
        reason: None,
    };
    activity::record(tx, &doing).await
}

fn is_name(user: &str) -> bool {
    (1..=64).contains(&user.len())
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_hands_on_what_they_do_not_have() {
        let web = || Reach::of(["web".to_owned()]);
        let someone = |role, reach| Person {
            role,
            reach,
            ..Person::local("ann")
        };
        let admin = someone(Role::Admin, Reach::all());
        let of_web = someone(Role::Admin, web());
        let operator = someone(Role::Operator, Reach::all());
        assert!(may_hand_on(&admin, Role::Admin, &Reach::all()).is_ok());
        assert!(may_hand_on(&of_web, Role::Admin, &web()).is_ok());
        assert!(may_hand_on(&of_web, Role::Viewer, &Reach::all()).is_err());
        assert!(may_hand_on(&operator, Role::Viewer, &web()).is_ok());
        assert!(may_hand_on(&operator, Role::Approver, &web()).is_err());
        let many = Reach::of((0..=reach::MOST).map(|number| number.to_string()));
        assert!(may_hand_on(&admin, Role::Viewer, &many).is_err());
        assert!(may_hand_on(&admin, Role::Viewer, &Reach::of(["a\u{202e}b".to_owned()])).is_err());
    }
}
