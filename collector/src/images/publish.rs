//! Publishing: only what a configured publisher of that name has signed, and never an epoch below one that was published.

use attestation::digest::Digest;
use attestation::dsse::{Envelope, VerifiedStatement};
use attestation::statement::Image;
use attestation::time::Timestamp;
use http::StatusCode;
use serde::Serialize;

use crate::access::Person;
use crate::activity::{self, Doing, Target};
use crate::clock;
use crate::log::{self, Leaf};
use crate::problem::ProblemResponse;
use crate::state::AppState;
use crate::store::nodes::to_sql;
use crate::store::{StoreError, Writing};

/// An image that was published.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Publication)]
pub struct Published {
    /// SHA-256 of the statement's payload.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// The image's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// Whether the manifest is still to be sent.
    pub manifest_needed: bool,
    /// The digest under which it is to be sent.
    #[schema(value_type = String)]
    pub manifest: Digest,
}

/// Takes an image statement. The same one again is no error.
pub async fn publish(
    state: &AppState,
    envelope: Envelope,
    who: &Person,
) -> Result<Published, ProblemResponse> {
    let statement = verified(state, &envelope)?;
    let name = statement.statement().name().unwrap_or_default().to_owned();
    let said = statement.predicate();
    let mut published = Published {
        sha256: statement.payload_digest(),
        name,
        version: said.version.clone(),
        epoch: said.epoch,
        manifest_needed: true,
        manifest: said.manifest.sha256,
    };
    let (who, now, job) = (who.clone(), clock::now(), published.clone());
    let stored = state
        .store
        .write(move |tx| Box::pin(async move { keep(tx, &statement, &job, &who, now).await }))
        .await?;
    match stored {
        Stored::Complete(complete) => {
            published.manifest_needed = !complete;
            Ok(published)
        }
        Stored::Epoch(highest) => Err(ProblemResponse::conflict(
            "epoch",
            format!(
                "{} has epoch {highest} already; {} is below it",
                published.name, published.epoch
            ),
        )),
    }
}

fn verified(
    state: &AppState,
    envelope: &Envelope,
) -> Result<VerifiedStatement<Image>, ProblemResponse> {
    let claimed = envelope
        .peek::<Image>()
        .map_err(|error| ProblemResponse::malformed(error.to_string()))?;
    let name = claimed.name().unwrap_or_default();
    let Some(publisher) = state
        .settings
        .publishers
        .iter()
        .find(|publisher| publisher.image == name)
    else {
        return Err(ProblemResponse::new(
            StatusCode::FORBIDDEN,
            "unknown-publisher",
            format!("no publisher is configured for images named {name:?}"),
        ));
    };
    let statement = envelope
        .verify::<Image>(&publisher.keys, publisher.threshold)
        .map_err(|error| {
            ProblemResponse::new(StatusCode::FORBIDDEN, "signature", error.to_string())
        })?;
    if statement.statement().tree().is_none() {
        return Err(ProblemResponse::malformed(
            "the subject has no pristineTree digest",
        ));
    }
    Ok(statement)
}

enum Stored {
    /// It is there, with its manifest or without.
    Complete(bool),
    /// The name has a higher epoch.
    Epoch(u64),
}

async fn keep(
    tx: &mut Writing,
    statement: &VerifiedStatement<Image>,
    published: &Published,
    who: &Person,
    now: Timestamp,
) -> Result<Stored, StoreError> {
    let payload = published.sha256.as_bytes().as_slice();
    let known: Option<bool> = sqlx::query_scalar("SELECT complete FROM images WHERE payload = ?")
        .bind(payload)
        .fetch_optional(&mut tx.connection)
        .await?;
    if let Some(complete) = known {
        return Ok(Stored::Complete(complete));
    }
    let highest: Option<i64> = sqlx::query_scalar("SELECT max(epoch) FROM images WHERE name = ?")
        .bind(&published.name)
        .fetch_one(&mut tx.connection)
        .await?;
    if let Some(highest) = highest.and_then(|highest| u64::try_from(highest).ok())
        && highest > published.epoch
    {
        return Ok(Stored::Epoch(highest));
    }
    insert(tx, statement, published, &who.user, now).await?;
    let bytes = statement.envelope().to_json();
    log::keep(tx, "image", &published.sha256, &bytes, now).await?;
    let leaf = Leaf {
        kind: "image",
        at: now,
        node: None,
        sequence: None,
        digest: published.sha256,
        more: serde_json::json!({"name": published.name, "version": published.version, "by": who.user}),
    };
    log::append(tx, &leaf).await?;
    let (id, name) = (
        published.sha256.to_string(),
        format!("{} {}", published.name, published.version),
    );
    let source = &statement.predicate().source;
    let doing = Doing {
        who,
        at: now,
        action: "image.publish",
        target: Target::new("image", &id, &name),
        before: serde_json::Value::Null,
        after: serde_json::json!({
            "epoch": published.epoch, "repository": source.repository, "commit": source.commit, "author": source.author,
        }),
        reason: None,
    };
    activity::record(tx, &doing).await?;
    // A manifest that is here already, for another statement, must be sent again: it was compared with that one only.
    Ok(Stored::Complete(false))
}

async fn insert(
    tx: &mut Writing,
    statement: &VerifiedStatement<Image>,
    published: &Published,
    by: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let said = statement.predicate();
    let tree = statement.statement().tree().unwrap_or(Digest::ZERO);
    sqlx::query(
        "INSERT INTO images (payload, name, version, epoch, tree, entries, bytes, manifest, manifest_size, envelope, repository, \
         commit_sha, ref, author, created, expires, published, published_by) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(published.sha256.as_bytes().as_slice())
    .bind(&published.name)
    .bind(&published.version)
    .bind(to_sql(published.epoch))
    .bind(tree.as_bytes().as_slice())
    .bind(to_sql(said.entries))
    .bind(to_sql(said.bytes))
    .bind(said.manifest.sha256.as_bytes().as_slice())
    .bind(to_sql(said.manifest.size))
    .bind(statement.envelope().to_json())
    .bind(said.source.repository.clone().unwrap_or_default())
    .bind(said.source.commit.clone().unwrap_or_default())
    .bind(said.source.r#ref.clone().unwrap_or_default())
    .bind(said.source.author.clone().unwrap_or_default())
    .bind(said.created.as_micros())
    .bind(said.expires.map(Timestamp::as_micros))
    .bind(now.as_micros())
    .bind(by)
    .execute(&mut tx.connection)
    .await?;
    Ok(())
}
