//! Images: published with their publisher's signature, their manifests uploaded beside them.

use std::sync::Arc;

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::entry::Line;
use attestation::time::Timestamp;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Answer, Asked, Listed, Named, asked, body};
use crate::access::{Person, Reach};
use crate::door::people::People;
use crate::images;
use crate::problem::ProblemResponse;
use crate::snapshots;
use crate::store::nodes::{digest, time};

/// An image as the API gives it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PublishedImage)]
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
    #[schema(value_type = Option<String>)]
    pub tree: Option<Digest>,
    /// How many sealed entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The manifest file's digest.
    #[schema(value_type = Option<String>)]
    pub manifest: Option<Digest>,
    /// Whether the manifest is here.
    pub complete: bool,
    /// Where the image was built from.
    pub source: SourceView,
    /// When it was built.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// Until when it may be used.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// When it was published here.
    #[schema(value_type = String, format = DateTime)]
    pub published: Timestamp,
    /// By whom.
    pub published_by: String,
    /// When it was revoked, if it was.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// Why.
    pub revoke_reason: Option<String>,
    /// Nodes that say they are it, of those that whoever asks may see.
    pub nodes: u64,
}

/// Where an image was built from.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Source)]
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

const SELECT: &str = "SELECT i.*, (SELECT count(*) FROM nodes n WHERE n.image = i.payload \
    AND (?1 IS NULL OR n.grp IN (SELECT value FROM json_each(?1)))) AS running FROM images i";

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
        revoked_by: row.try_get("revoked_by")?,
        revoke_reason: row.try_get("revoke_reason")?,
        nodes: number("running")?,
    })
}

/// Images, newest first, of one name or of all, after an offset.
pub(crate) async fn entries(
    people: &People,
    reach: &Reach,
    name: Option<&str>,
    offset: u64,
    limit: u32,
) -> Answer<Vec<ImageEntry>> {
    let sql = format!(
        "{SELECT} WHERE ?2 IS NULL OR i.name = ?2 ORDER BY i.published DESC, i.payload LIMIT ?3 OFFSET ?4"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(name)
        .bind(limit)
        .bind(i64::try_from(offset).unwrap_or(i64::MAX))
        .fetch_all(people.app.store.read_pool())
        .await?;
    Ok(rows.iter().map(entry).collect::<Result<_, _>>()?)
}

/// What the list of images takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Query {
    name: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/images`.
#[utoipa::path(get, path = "/api/v1/images", operation_id = "images_list", tag = "images", params(Query), responses((status = 200, body = Listed<ImageEntry>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Json<Listed<ImageEntry>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let offset = asked::offset(query.cursor.as_deref())?;
    let name = query.name.as_deref();
    let items = entries(&people, &person.reach, name, offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    Ok(Json(Listed::of(items, limit, |_| next.to_string())))
}

async fn row(people: &People, reach: &Reach, sha256: &Digest) -> Answer<SqliteRow> {
    let sql = format!("{SELECT} WHERE i.payload = ?2");
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(reach.to_sql())
        .bind(sha256.as_bytes().as_slice())
        .fetch_optional(people.app.store.read_pool())
        .await?
        .ok_or_else(|| ProblemResponse::not_found("no image has this digest"))
}

/// The image with this digest, or 404.
pub(crate) async fn found(people: &People, reach: &Reach, sha256: &Digest) -> Answer<ImageEntry> {
    Ok(entry(&row(people, reach, sha256).await?)?)
}

/// `GET /api/v1/images/{sha256}`: the image, and the envelope that its publisher signed.
#[utoipa::path(get, path = "/api/v1/images/{sha256}", operation_id = "images_get", tag = "images", params(("sha256" = String, Path)), responses((status = 200, body = serde_json::Value)))]
pub(super) async fn get(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
) -> Answer<Json<serde_json::Value>> {
    let row = row(&people, &person.reach, &sha256).await?;
    let mut shown = serde_json::to_value(entry(&row)?).unwrap_or_default();
    let envelope: Vec<u8> = row.try_get("envelope")?;
    shown["statement"] = serde_json::from_slice(&envelope).unwrap_or_default();
    Ok(Json(shown))
}

/// What the list of differences between two images takes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DifferencesQuery {
    /// The image that is the one before.
    #[param(value_type = String)]
    from: Digest,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// `GET /api/v1/images/{sha256}/differences`: what is not as in another image.
#[utoipa::path(get, path = "/api/v1/images/{sha256}/differences", operation_id = "images_differences", tag = "images", params(("sha256" = String, Path), DifferencesQuery), responses((status = 200, body = Listed<Changed>)))]
pub(super) async fn differences(
    State(people): State<People>,
    Named(sha256): Named<Digest>,
    Asked(query): Asked<DifferencesQuery>,
) -> Answer<Json<Listed<Changed>>> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let offset = asked::offset(query.cursor.as_deref())?;
    let (items, more) = between(&people, &query.from, &sha256, offset, limit).await?;
    let next = more.then(|| (offset + u64::from(limit)).to_string());
    Ok(Json(Listed { items, next }))
}

/// One entry that is not the same in two images.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ImageDifference)]
pub struct Changed {
    /// The path, as shown.
    pub path: String,
    /// The entry line in the one before.
    pub expected: Option<String>,
    /// The entry line in this one.
    pub found: Option<String>,
    /// What differs.
    pub fields: Vec<String>,
}

/// What is not as in another image, after an offset; and whether there is more.
pub(crate) async fn between(
    people: &People,
    from: &Digest,
    to: &Digest,
    offset: u64,
    limit: u32,
) -> Answer<(Vec<Changed>, bool)> {
    let (one, other) = (whole(people, from).await?, whole(people, to).await?);
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let page = snapshots::between(
        &people.app,
        &one,
        &other,
        whole(offset),
        whole(u64::from(limit)),
    )
    .await?;
    let changed = page.items.into_iter().map(|it| {
        let (expected, found) = (it.expected.as_ref(), it.found.as_ref());
        Changed {
            path: it.path.to_string(),
            fields: attestation::entry::fields(
                expected.map(Line::entry).as_ref(),
                found.map(Line::entry).as_ref(),
            ),
            expected: expected.map(|line| line.as_str().to_owned()),
            found: found.map(|line| line.as_str().to_owned()),
        }
    });
    Ok((changed.collect(), page.more))
}

async fn whole(people: &People, sha256: &Digest) -> Answer<Arc<images::LoadedImage>> {
    let loaded = people.app.images.get(sha256).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "image not loaded");
        ProblemResponse::internal()
    })?;
    loaded.ok_or_else(|| {
        ProblemResponse::not_found("no image has this digest, or its manifest has not been sent")
    })
}

#[derive(Deserialize, utoipa::ToSchema)]
struct Revocation {
    reason: String,
}

/// `POST /api/v1/images/{sha256}/revoke`: nodes that are it become `unknown-image`.
#[utoipa::path(post, path = "/api/v1/images/{sha256}/revoke", operation_id = "images_revoke", tag = "images", params(("sha256" = String, Path)), request_body = Revocation, responses((status = 200, body = images::Revoked)))]
pub(super) async fn revoke(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
    request: Request,
) -> Answer<Json<images::Revoked>> {
    let Revocation { reason } = body(request).await?;
    Ok(Json(
        images::revoke(&people.app, sha256, &reason, &person).await?,
    ))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = PublicationWanted)]
struct Publication {
    #[schema(value_type = Object)]
    statement: Envelope,
}

/// `POST /api/v1/images`.
#[utoipa::path(post, path = "/api/v1/images", operation_id = "images_publish", tag = "images", request_body = Publication, responses((status = 201, body = images::Published)))]
pub(super) async fn publish(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<images::Published>)> {
    let Publication { statement } = body(request).await?;
    let published = images::publish(&people.app, statement, &person).await?;
    Ok((StatusCode::CREATED, Json(published)))
}

/// `PUT /api/v1/manifests/{sha256}`: the `.mtree.zst` of a published image.
#[utoipa::path(put, path = "/api/v1/manifests/{sha256}", operation_id = "images_put_manifest", tag = "manifests", params(("sha256" = String, Path)), request_body(content = Vec<u8>, content_type = "application/zstd"), responses((status = 200), (status = 201)))]
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
