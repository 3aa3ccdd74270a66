//! Browser sessions: a random id in a cookie that scripts and other sites do not get, its hash in the store.

use std::net::IpAddr;

use attestation::time::Timestamp;
use http::{HeaderMap, HeaderValue, header};
use sqlx::Row as _;

use serde_json::{Value, json};

use super::accounts::{Account, role};
use super::refused::{Presented, Why};
use super::{AccessError, By, Person, Reach, secret};
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::store::{Store, StoreError, Writing};

/// A working day; then one signs in again.
const LASTS_SECS: u64 = 12 * 3_600;
/// With `__Host-` the browser itself refuses the cookie without TLS, from a sub-domain or for a path.
pub(crate) const COOKIE_TLS: &str = "__Host-pristine";
/// On loopback without TLS.
const COOKIE_PLAIN: &str = "pristine";

fn cookie_name(tls: bool) -> &'static str {
    if tls { COOKIE_TLS } else { COOKIE_PLAIN }
}

/// Opens a session; the value of `Set-Cookie`.
///
/// # Errors
/// What the store refuses.
pub async fn open(
    store: &Store,
    account: Account,
    from: Option<IpAddr>,
    tls: bool,
) -> Result<String, AccessError> {
    let id = secret::fresh()?;
    let (hash, now) = (secret::hash(&id), clock::now());
    let expires = clock::after(now, LASTS_SECS);
    let who = Person {
        user: account.user,
        role: account.role,
        reach: account.groups,
        by: By::Session(hash.clone()),
        from,
    };
    store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query("DELETE FROM sessions WHERE expires <= ?").bind(now.as_micros()).execute(&mut tx.connection).await?;
                sqlx::query("INSERT INTO sessions (id_hash, user, created, expires, last_seen) VALUES (?1, ?2, ?3, ?4, ?3)")
                    .bind(hash)
                    .bind(&who.user)
                    .bind(now.as_micros())
                    .bind(expires.as_micros())
                    .execute(&mut tx.connection)
                    .await?;
                let after = json!({"role": who.role, "groups": who.reach, "expires": expires});
                note(tx, &who, "session.open", now, after).await
            })
        })
        .await?;
    let secure = if tls { "; Secure" } else { "" };
    Ok(format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={LASTS_SECS}{secure}",
        cookie_name(tls),
        id.as_str()
    ))
}

/// The value of `Set-Cookie` that takes the cookie away.
#[must_use]
pub fn gone(tls: bool) -> String {
    let secure = if tls { "; Secure" } else { "" };
    format!(
        "{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}",
        cookie_name(tls)
    )
}

/// Whose session the request's cookie names, while it is good and its account is; else what is known of it.
///
/// # Errors
/// What the store refuses.
pub async fn person(
    store: &Store,
    headers: &HeaderMap,
    tls: bool,
    now: Timestamp,
) -> Result<Presented, AccessError> {
    let Some(id) = cookie(headers, cookie_name(tls)) else {
        return Ok(Presented::Nothing);
    };
    let hash = secret::hash(id);
    let row = sqlx::query(
        "SELECT s.id_hash, s.user, s.expires, s.ended, a.role, a.reach, a.disabled FROM sessions s JOIN accounts a ON a.user = s.user \
         WHERE s.id_hash = ?",
    )
    .bind(&hash)
    .fetch_optional(store.read_pool())
    .await?;
    let Some(row) = row else {
        return Ok(Presented::Nothing);
    };
    let at = |column: &str| row.try_get::<Option<i64>, _>(column);
    // Past its time it is what every browser shows in the morning.
    if !secret::fits(id, &row.try_get::<Vec<u8>, _>("id_hash")?)
        || row.try_get::<i64, _>("expires")? <= now.as_micros()
    {
        return Ok(Presented::Nothing);
    }
    let person = Person {
        user: row.try_get("user")?,
        role: role(row.try_get("role")?)?,
        reach: Reach::parse(row.try_get("reach")?)?,
        by: By::Session(hash),
        from: None,
    };
    if at("disabled")?.is_some() {
        Ok(Presented::NoLonger(person, Why::Disabled))
    } else if at("ended")?.is_some() {
        Ok(Presented::NoLonger(person, Why::Ended))
    } else {
        Ok(Presented::Good(person))
    }
}

/// Ends the session of a person who came with one.
///
/// # Errors
/// What the store refuses.
pub async fn close(store: &Store, who: &Person) -> Result<(), AccessError> {
    let By::Session(hash) = who.by.clone() else {
        return Ok(());
    };
    let who = who.clone();
    store
        .write(move |tx| {
            Box::pin(async move {
                let now = clock::now();
                sqlx::query("UPDATE sessions SET ended = ? WHERE id_hash = ?")
                    .bind(now.as_micros())
                    .bind(hash)
                    .execute(&mut tx.connection)
                    .await?;
                note(tx, &who, "session.close", now, Value::Null).await
            })
        })
        .await?;
    Ok(())
}

async fn note(
    tx: &mut Writing,
    who: &Person,
    action: &'static str,
    at: Timestamp,
    after: Value,
) -> Result<(), StoreError> {
    let doing = Doing {
        who,
        at,
        action,
        target: Target::new("account", &who.user, &who.user),
        before: Value::Null,
        after,
        reason: None,
    };
    activity::record(tx, &doing).await
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .filter(|id| !id.is_empty())
}

/// Whether an unsafe request comes from one of our own pages. Browsers send `Origin` with every such request; where one sends none,
/// `Sec-Fetch-Site` must say it.
#[must_use]
pub fn same_origin(headers: &HeaderMap, tls: bool) -> bool {
    let text = |value: Option<&HeaderValue>| {
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let host = text(headers.get(header::HOST));
    match (text(headers.get(header::ORIGIN)), host) {
        (Some(origin), Some(host)) => {
            // Without TLS of its own the door may stand behind a proxy that has it.
            origin == format!("https://{host}") || (!tls && origin == format!("http://{host}"))
        }
        (Some(_), None) => false,
        (None, _) => text(headers.get("sec-fetch-site")).is_some_and(|site| site == "same-origin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn the_cookie_is_found_among_others_and_by_its_whole_name() {
        let sent = headers(&[("cookie", "xpristine=a; pristine=b; pristine2=c")]);
        assert_eq!(cookie(&sent, "pristine"), Some("b"));
        assert_eq!(cookie(&sent, COOKIE_TLS), None);
        assert_eq!(
            cookie(&headers(&[("cookie", "pristine=")]), "pristine"),
            None
        );
    }

    #[test]
    fn another_site_is_not_our_origin() {
        let host = ("host", "ops.example:8080");
        assert!(same_origin(
            &headers(&[host, ("origin", "http://ops.example:8080")]),
            false
        ));
        assert!(!same_origin(
            &headers(&[host, ("origin", "http://ops.example:8080")]),
            true
        ));
        assert!(!same_origin(
            &headers(&[host, ("origin", "http://evil.example")]),
            false
        ));
        assert!(!same_origin(&headers(&[host, ("origin", "null")]), false));
        assert!(!same_origin(&headers(&[host]), false));
        assert!(same_origin(
            &headers(&[host, ("sec-fetch-site", "same-origin")]),
            false
        ));
        assert!(!same_origin(
            &headers(&[host, ("sec-fetch-site", "same-site")]),
            false
        ));
    }
}
