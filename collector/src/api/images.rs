//! Images: published with their publisher's signature, their manifests uploaded beside them.

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::time::Timestamp;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Answer, Asked, Listed, Named, asked, body};
use crate::access::Person;
use crate::door::people::People;
use crate::images;
use crate::problem::ProblemResponse;
use crate::store::nodes::{digest, time};

/// An image as the API gives it.
#[derive(Clone, Debug, Serialize)]
pub struct ImageEntry {
    /// SHA-256 of the statement's payload, which names it everywhere.
    pub sha256: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its epoch, which never falls for one name.
    pub epoch: u64,
    /// The tree digest of its sealed entries.
    pub tree: Option<Digest>,
    /// How many sealed entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The manifest file's digest.
    pub manifest: Option<Digest>,
    /// Whether the manifest is here.
    pub complete: bool,
    /// Where the image was built from.
    pub source: SourceView,
    /// When it was built.
    pub created: Timestamp,
    /// Until when it may be used.
    pub expires: Option<Timestamp>,
    /// When it was published here.
    pub published: Timestamp,
    /// By whom.
    pub published_by: String,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// Nodes that say they are it.
    pub nodes: u64,
}

/// Where an image was built from.
#[derive(Clone, Debug, Serialize)]
pub struct SourceView {
    /// The repository.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// The branch or tag.
    pub r#ref: String,
    /// Who made the commit.
    pub author: String,
}

const SELECT: &str =
    "SELECT i.*, (SELECT count(*) FROM nodes n WHERE n.image = i.payload) AS running FROM images i";

fn entry(row: &SqliteRow) -> Result<ImageEntry, sqlx::Error> {
    let number = |column: &str| {
        row.try_get::<i64, _>(column)
            .map(|number| u64::try_from(number).unwrap_or(0))
    };
    Ok(ImageEntry {
        sha256: digest(row, "payload")?
            .map(|digest| digest.to_string())
            .unwrap_or_default(),
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        epoch: number("epoch")?,
        tree: digest(row, "tree")?,
        entries: number("entries")?,
        bytes: number("bytes")?,
        manifest: digest(row, "manifest")?,
        complete: row.try_get("complete")?,
        source: SourceView {
            repository: row.try_get("repository")?,
            commit: row.try_get("commit_sha")?,
            r#ref: row.try_get("ref")?,
            author: row.try_get("author")?,
        },
        created: Timestamp::from_micros(row.try_get("created")?),
        expires: time(row, "expires")?,
        published: Timestamp::from_micros(row.try_get("published")?),
        published_by: row.try_get("published_by")?,
        revoked: time(row, "revoked")?,
        nodes: number("running")?,
    })
}

/// Images, newest first, of one name or of all, after an offset.
pub(crate) async fn entries(
    people: &People,
    name: Option<&str>,
    offset: u64,
    limit: u32,
) -> Answer<Vec<ImageEntry>> {
    let sql = format!(
        "{SELECT} WHERE ?1 IS NULL OR i.name = ?1 ORDER BY i.published DESC, i.payload LIMIT ?2 OFFSET ?3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(name)
        .bind(limit)
        .bind(i64::try_from(offset).unwrap_or(i64::MAX))
        .fetch_all(people.app.store.read_pool())
        .await?;
    Ok(rows.iter().map(entry).collect::<Result<_, _>>()?)
}

/// What the list of images takes.
#[derive(Debug, Deserialize)]
pub(super) struct Query {
    name: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/images`.
pub(super) async fn list(
    State(people): State<People>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<ImageEntry>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let offset: u64 = query
        .cursor
        .as_deref()
        .map_or(Ok(0), str::parse)
        .map_err(|_| {
            ProblemResponse::malformed("this is no cursor of ours: take it from `next`")
        })?;
    let items = entries(&people, query.name.as_deref(), offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    Ok(Json(Listed::of(items, limit, |_| next.to_string())))
}

/// `GET /api/v1/images/{sha256}`: the image, and the envelope that its publisher signed.
pub(super) async fn get(
    State(people): State<People>,
    Named(sha256): Named<Digest>,
) -> Answer<Json<serde_json::Value>> {
    let sql = format!("{SELECT} WHERE i.payload = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(sha256.as_bytes().as_slice())
        .fetch_optional(people.app.store.read_pool())
        .await?
        .ok_or_else(|| ProblemResponse::not_found("no image has this digest"))?;
    let mut shown = serde_json::to_value(entry(&row)?).unwrap_or_default();
    let envelope: Vec<u8> = row.try_get("envelope")?;
    shown["statement"] = serde_json::from_slice(&envelope).unwrap_or_default();
    Ok(Json(shown))
}

#[derive(Deserialize)]
struct Publication {
    statement: Envelope,
}

/// `POST /api/v1/images`.
pub(super) async fn publish(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<images::Published>)> {
    let Publication { statement } = body(request).await?;
    let published = images::publish(&people.app, statement, &person.user).await?;
    Ok((StatusCode::CREATED, Json(published)))
}

/// `PUT /api/v1/manifests/{sha256}`: the `.mtree.zst` of a published image.
pub(super) async fn put_manifest(
    State(people): State<People>,
    Named(sha256): Named<Digest>,
    request: Request,
) -> Answer<StatusCode> {
    let new = images::put_manifest(&people.app, sha256, request.into_body()).await?;
    Ok(if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    })
}
