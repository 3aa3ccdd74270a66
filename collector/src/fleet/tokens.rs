//! Join tokens: the store has the secret's hash, the token itself is shown once.

use attestation::digest::Digest;
use attestation::join_token::JoinToken;
use attestation::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::problem::ProblemResponse;
use crate::state::AppState;

/// A token lives at most a year.
const LONGEST: u64 = 366 * 86_400;
/// And admits at most so many nodes.
const MOST_USES: u32 = 100_000;

/// A token that was made.
pub struct CreatedToken {
    /// Its id.
    pub id: String,
    /// To be shown once.
    pub token: JoinToken,
    /// Until when it is good.
    pub expires: Timestamp,
}

/// Makes a token that admits `uses` nodes to a group.
pub async fn create_join_token(
    state: &AppState,
    group: &str,
    uses: u32,
    ttl_secs: u64,
    who: &Person,
) -> Result<CreatedToken, ProblemResponse> {
    if uses == 0 || uses > MOST_USES || ttl_secs == 0 || ttl_secs > LONGEST {
        return Err(ProblemResponse::malformed(format!(
            "a token has 1 to {MOST_USES} uses and lives at most {LONGEST} seconds"
        )));
    }
    super::names::checked(group).map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    if !who.reaches(group) {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "beyond",
            format!("the group {group:?} is beyond your reach"),
        ));
    }
    let mut bytes = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_none| ProblemResponse::internal())?;
    let (id, secret) = (
        uuid::Uuid::now_v7().to_string(),
        URL_SAFE_NO_PAD.encode(bytes),
    );
    let now = clock::now();
    let expires = clock::after(now, ttl_secs);
    let token = JoinToken {
        join: state.join_urls(),
        ca: state.authority.sha256(),
        id: id.clone(),
        secret: secret.clone(),
    };
    let (row_id, group, who, hash) = (
        id.clone(),
        group.to_owned(),
        who.clone(),
        hash_secret(&secret),
    );
    state
        .store
        .write(move |tx| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO join_tokens (id, secret_hash, grp, uses_left, expires, created, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(&row_id)
                .bind(hash.as_bytes().as_slice())
                .bind(&group)
                .bind(i64::from(uses))
                .bind(expires.as_micros())
                .bind(now.as_micros())
                .bind(&who.user)
                .execute(&mut tx.connection)
                .await?;
                let doing = Doing {
                    who: &who,
                    at: now,
                    action: "token.create",
                    target: Target::new("token", &row_id, "").in_group(&group),
                    before: Value::Null,
                    after: json!({"kind": "join", "group": group, "uses": uses, "expires": expires}),
                    reason: None,
                };
                activity::record(tx, &doing).await
            })
        })
        .await?;
    Ok(CreatedToken { id, token, expires })
}

/// What the store keeps of a secret; 256 random bits need no slow hash.
pub fn hash_secret(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}
