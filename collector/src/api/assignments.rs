//! Which image a group of nodes must be.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::{Answer, Asked, ListQuery, Listed, body};
use crate::access::Person;
use crate::assignments::{self, Assigned};
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::store::nodes::digest;

/// An assignment as lists show it.
#[derive(Clone, Debug, Serialize)]
pub struct AssignmentView {
    /// SHA-256 of the assignment's payload.
    pub sha256: Option<Digest>,
    /// The group.
    pub group: String,
    /// The image it must be.
    pub image: Option<Digest>,
    /// The image's name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// From when.
    pub from: Timestamp,
    /// Who asked for it.
    pub requested_by: String,
    /// Who approved it.
    pub approved_by: String,
    /// Whether it holds now.
    pub current: bool,
}

/// Assignments, newest first, after an offset.
pub(crate) async fn views(people: &People, offset: u64, limit: u32) -> Answer<Vec<AssignmentView>> {
    let rows = sqlx::query(
        "SELECT a.payload, a.grp, a.image, i.name, i.version, a.from_time, a.requested_by, a.approved_by, g.payload IS NOT NULL AS current \
         FROM assignments a LEFT JOIN images i ON i.payload = a.image \
         LEFT JOIN group_assignment g ON g.grp = a.grp AND g.payload = a.payload \
         ORDER BY a.from_time DESC, a.payload LIMIT ? OFFSET ?",
    )
    .bind(limit)
    .bind(i64::try_from(offset).unwrap_or(i64::MAX))
    .fetch_all(people.app.store.read_pool())
    .await?;
    let views = rows.iter().map(|row| {
        Ok(AssignmentView {
            sha256: digest(row, "payload")?,
            group: row.try_get("grp")?,
            image: digest(row, "image")?,
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            from: Timestamp::from_micros(row.try_get("from_time")?),
            requested_by: row.try_get("requested_by")?,
            approved_by: row.try_get("approved_by")?,
            current: row.try_get("current")?,
        })
    });
    Ok(views.collect::<Result<_, sqlx::Error>>()?)
}

/// `GET /api/v1/assignments`.
pub(super) async fn list(
    State(people): State<People>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<AssignmentView>>> {
    let limit = query.limit()?;
    let offset: u64 = query
        .cursor
        .as_deref()
        .map_or(Ok(0), str::parse)
        .map_err(|_| {
            ProblemResponse::malformed("this is no cursor of ours: take it from `next`")
        })?;
    let items = views(&people, offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    Ok(Json(Listed::of(items, limit, |_| next.to_string())))
}

#[derive(Deserialize)]
struct Wanted {
    group: String,
    image: Digest,
    keep_previous_secs: Option<u64>,
}

/// `POST /api/v1/assignments`.
pub(super) async fn assign(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<Assigned>)> {
    let Wanted {
        group,
        image,
        keep_previous_secs,
    } = body(request).await?;
    let assigned =
        assignments::assign(&people.app, &group, image, keep_previous_secs, &person.user).await?;
    Ok((StatusCode::CREATED, Json(assigned)))
}
