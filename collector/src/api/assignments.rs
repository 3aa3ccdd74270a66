//! Which image a group of nodes must be.

use attestation::digest::Digest;
use attestation::statement::Assignment;
use attestation::time::Timestamp;
use axum::extract::{Request, State};
use axum::{Extension, Json};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::decisions::{self, No, Yes};
use super::{Answer, Asked, ListQuery, Listed, Named, asked, body};
use crate::access::{Person, Reach};
use crate::approvals::Ending;
use crate::assignments::changes::ChangeView;
use crate::assignments::rollout::Phase;
use crate::assignments::{self, Wanted};
use crate::door::people::People;
use crate::store::nodes::digest;

/// An assignment as lists show it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Assignment)]
pub struct AssignmentView {
    /// SHA-256 of the assignment's payload.
    #[schema(value_type = Option<String>)]
    pub sha256: Option<Digest>,
    /// The group.
    pub group: String,
    /// The image it must be.
    #[schema(value_type = Option<String>)]
    pub image: Option<Digest>,
    /// The image's name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// From when.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Who asked for it.
    pub requested_by: String,
    /// Who approved it.
    pub approved_by: String,
    /// The change that it belongs to.
    pub change: Option<String>,
    /// Whether it holds now.
    pub current: bool,
}

/// Assignments within reach, newest first, after an offset.
pub(crate) async fn views(
    people: &People,
    reach: &Reach,
    offset: u64,
    limit: u32,
) -> Answer<Vec<AssignmentView>> {
    let rows = sqlx::query(
        "SELECT a.payload, a.grp, a.image, i.name, i.version, a.from_time, a.requested_by, a.approved_by, g.payload IS NOT NULL AS current, d.id AS change \
         FROM assignments a LEFT JOIN images i ON i.payload = a.image \
         LEFT JOIN group_assignment g ON g.grp = a.grp AND g.payload = a.payload LEFT JOIN deployments d ON d.assignment = a.payload \
         WHERE ?1 IS NULL OR a.grp IN (SELECT value FROM json_each(?1)) ORDER BY a.from_time DESC, a.payload LIMIT ?2 OFFSET ?3",
    )
    .bind(reach.to_sql())
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
            change: row.try_get("change")?,
            current: row.try_get("current")?,
        })
    });
    Ok(views.collect::<Result<_, sqlx::Error>>()?)
}

/// `GET /api/v1/assignments`.
#[utoipa::path(get, path = "/api/v1/assignments", operation_id = "assignments_list", tag = "assignments", params(ListQuery), responses((status = 200, body = Listed<AssignmentView>)))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<ListQuery>,
) -> Answer<Json<Listed<AssignmentView>>> {
    let limit = query.limit()?;
    let offset = asked::offset(query.cursor.as_deref())?;
    let items = views(&people, &person.reach, offset, limit + 1).await?;
    let next = offset + u64::from(limit);
    Ok(Json(Listed::of(items, limit, |_| next.to_string())))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = AssignmentWanted)]
struct Asking {
    group: String,
    #[schema(value_type = String)]
    image: Digest,
    #[serde(default)]
    keep_previous_secs: Option<u64>,
    #[serde(default)]
    reason: String,
}

/// What a request or a decision answers: the assignment as it was signed, where it holds now, and the change that it belongs to.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = AssignmentAnswer)]
pub(super) struct Answered {
    /// SHA-256 of the assignment's payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    sha256: Option<Digest>,
    /// What was signed.
    #[serde(flatten)]
    #[schema(value_type = Option<Object>)]
    assignment: Option<Assignment>,
    /// The change's id: what is approved or refused.
    id: String,
    /// Where it stands.
    state: Phase,
    /// What follows, in a sentence.
    told: String,
    /// All of it.
    change: ChangeView,
}

fn answered(answer: assignments::Answer) -> Json<Answered> {
    let (sha256, assignment) = answer.assignment.unzip();
    Json(Answered {
        sha256,
        assignment,
        id: answer.change.id.clone(),
        state: answer.change.phase,
        told: answer.told,
        change: answer.change,
    })
}

/// `POST /api/v1/assignments`: 201 where it holds at once, 202 where it waits for another person's word.
#[utoipa::path(post, path = "/api/v1/assignments", operation_id = "assignments_request", tag = "assignments", request_body = Asking, responses((status = 201, body = Answered), (status = 202, body = Answered)))]
pub(super) async fn request(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    request: Request,
) -> Answer<(StatusCode, Json<Answered>)> {
    let Asking {
        group,
        image,
        keep_previous_secs,
        reason,
    } = body(request).await?;
    let wanted = Wanted {
        group,
        image,
        keep_previous_secs,
        reason,
    };
    let answer = assignments::request(&people.app, wanted, &person).await?;
    Ok((decisions::status(answer.change.waits()), answered(answer)))
}

/// `POST /api/v1/assignments/{id}/approve`.
#[utoipa::path(post, path = "/api/v1/assignments/{id}/approve", operation_id = "assignments_approve", tag = "assignments", params(("id" = String, Path)), request_body = Yes, responses((status = 200, body = Answered)))]
pub(super) async fn approve(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let Yes { reason } = body(request).await?;
    let answer = assignments::approve(&people.app, &id, reason.as_deref(), &person).await?;
    Ok(answered(answer))
}

/// `POST /api/v1/assignments/{id}/refuse`: by another person.
#[utoipa::path(post, path = "/api/v1/assignments/{id}/refuse", operation_id = "assignments_refuse", tag = "assignments", params(("id" = String, Path)), request_body = No, responses((status = 200, body = Answered)))]
pub(super) async fn refuse(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let No { reason } = body(request).await?;
    let answer = assignments::end(&people.app, &id, Ending::Refuse, &reason, &person).await?;
    Ok(answered(answer))
}

/// `POST /api/v1/assignments/{id}/withdraw`: by who asked for it.
#[utoipa::path(post, path = "/api/v1/assignments/{id}/withdraw", operation_id = "assignments_withdraw", tag = "assignments", params(("id" = String, Path)), request_body = No, responses((status = 200, body = Answered)))]
pub(super) async fn withdraw(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
    request: Request,
) -> Answer<Json<Answered>> {
    let No { reason } = body(request).await?;
    let answer = assignments::end(&people.app, &id, Ending::Withdraw, &reason, &person).await?;
    Ok(answered(answer))
}
