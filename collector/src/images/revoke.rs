//! Revoking: an image that no node may be any more, whatever its group's assignment says.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;

use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::approvals;
use crate::clock;
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::time;
use crate::store::{StoreError, Writing};

/// An image that was revoked, and what follows.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Revoked {
    /// SHA-256 of the statement's payload.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub revoked: Timestamp,
    /// By whom.
    pub revoked_by: String,
    /// Why.
    pub reason: String,
    /// Nodes that attest it: `unknown-image` with their next statement.
    pub nodes: i64,
    /// Groups that must still be it: they need another assignment.
    pub groups: Vec<String>,
}

/// Revokes an image. Once for all: a good one is published again, under another version.
///
/// # Errors
/// Where there is no such image, or it was revoked before.
pub async fn revoke(
    state: &AppState,
    sha256: Digest,
    reason: &str,
    person: &Person,
) -> Result<Revoked, ProblemResponse> {
    let (reason, who, now) = (approvals::reason(reason)?, person.clone(), clock::now());
    let revoked = state
        .store
        .write(move |tx| Box::pin(async move { job(tx, sha256, reason, who, now).await }))
        .await??;
    state.images.forget(&sha256).await;
    Ok(revoked)
}

async fn job(
    tx: &mut Writing,
    sha256: Digest,
    reason: String,
    who: Person,
    now: Timestamp,
) -> Result<Result<Revoked, ProblemResponse>, StoreError> {
    let payload = sha256.as_bytes().as_slice();
    let row = sqlx::query("SELECT name, version, revoked FROM images WHERE payload = ?")
        .bind(payload)
        .fetch_optional(&mut tx.connection)
        .await?;
    let Some(row) = row else {
        return Ok(Err(ProblemResponse::not_found("no image has this digest")));
    };
    if let Some(at) = time(&row, "revoked")? {
        return Ok(Err(ProblemResponse::conflict(
            "revoked",
            format!("that image was revoked at {at}"),
        )));
    }
    sqlx::query(
        "UPDATE images SET revoked = ?, revoked_by = ?, revoke_reason = ? WHERE payload = ?",
    )
    .bind(now.as_micros())
    .bind(&who.user)
    .bind(&reason)
    .bind(payload)
    .execute(&mut tx.connection)
    .await?;
    let nodes: i64 =
        sqlx::query_scalar("SELECT count(*) FROM nodes WHERE image = ? AND state = 'active'")
            .bind(payload)
            .fetch_one(&mut tx.connection)
            .await?;
    let groups: Vec<String> = sqlx::query_scalar(
        "SELECT g.grp FROM group_assignment g JOIN assignments a ON a.payload = g.payload WHERE a.image = ? ORDER BY g.grp",
    )
    .bind(payload)
    .fetch_all(&mut tx.connection)
    .await?;
    let revoked = Revoked {
        sha256,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        revoked: now,
        revoked_by: who.user.clone(),
        reason,
        nodes,
        groups,
    };
    note(tx, &revoked, &who).await?;
    Ok(Ok(revoked))
}

async fn note(tx: &mut Writing, revoked: &Revoked, who: &Person) -> Result<(), StoreError> {
    let more = json!({
        "name": revoked.name, "version": revoked.version, "by": revoked.revoked_by, "revoked": true, "reason": revoked.reason,
    });
    let leaf = Leaf {
        kind: "image",
        at: revoked.revoked,
        node: None,
        sequence: None,
        digest: revoked.sha256,
        more,
    };
    log::append(tx, &leaf).await?;
    let (id, name) = (
        revoked.sha256.to_string(),
        format!("{} {}", revoked.name, revoked.version),
    );
    let doing = Doing {
        who,
        at: revoked.revoked,
        action: "image.revoke",
        target: Target::new("image", &id, &name),
        before: json!({"revoked": null}),
        after: json!({"revoked": revoked.revoked, "nodes": revoked.nodes, "groups": revoked.groups}),
        reason: Some(&revoked.reason),
    };
    activity::record(tx, &doing).await
}
