//! The signed envelopes that everything rests on.

use attestation::digest::Digest;
use attestation::dsse::Envelope;
use attestation::statement::Assignment;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use sqlx::Row as _;

use super::{Answer, Named};
use crate::access::{Person, Reach};
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::store::{Store, StoreError};

/// `GET /api/v1/evidence/{sha256}`: the signed envelope whose payload has this digest, as it was received.
#[utoipa::path(get, path = "/api/v1/evidence/{sha256}", operation_id = "evidence_get", tag = "evidence", params(("sha256" = String, Path)), responses((status = 200, body = serde_json::Value, content_type = "application/json")))]
pub(super) async fn get(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(sha256): Named<Digest>,
) -> Answer<Response> {
    let row = sqlx::query("SELECT kind, bytes FROM evidence WHERE sha256 = ?")
        .bind(sha256.as_bytes().as_slice())
        .fetch_optional(people.app.store.read_pool())
        .await?;
    let none = || ProblemResponse::not_found("no evidence with this digest is kept");
    let row = row.ok_or_else(none)?;
    let (kind, bytes): (String, Vec<u8>) = (row.try_get("kind")?, row.try_get("bytes")?);
    let whose = Whose {
        sha256,
        kind: &kind,
        bytes: &bytes,
    };
    if !whose.within(&people.app.store, &person.reach).await? {
        return Err(none());
    }
    let name = format!("attachment; filename=\"{sha256}.dsse.json\"");
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((StatusCode::OK, headers, bytes).into_response())
}

/// Evidence, to be asked whose it is.
struct Whose<'a> {
    sha256: Digest,
    kind: &'a str,
    bytes: &'a [u8],
}

impl Whose<'_> {
    /// Whether it is within reach: an image is everybody's, an assignment its group's, everything else the node's that it is about.
    async fn within(&self, store: &Store, reach: &Reach) -> Result<bool, StoreError> {
        if reach.is_all() || self.kind == "image" {
            return Ok(true);
        }
        let pool = store.read_pool();
        let groups: Vec<String> = if self.kind == "pins" {
            sqlx::query_scalar("SELECT DISTINCT grp FROM nodes WHERE pins = ?")
                .bind(self.sha256.as_bytes().as_slice())
                .fetch_all(pool)
                .await?
        } else {
            let Ok(envelope) = Envelope::from_json(self.bytes) else {
                return Ok(false);
            };
            if self.kind == "assignment" {
                let said = envelope.peek::<Assignment>();
                return Ok(said.is_ok_and(|said| reach.reaches(&said.predicate.group)));
            }
            let Ok(header) = envelope.peek_header() else {
                return Ok(false);
            };
            let about = header.subject.first().map(|subject| subject.name.as_str());
            sqlx::query_scalar("SELECT grp FROM nodes WHERE id = ?")
                .bind(about)
                .fetch_all(pool)
                .await?
        };
        Ok(groups.iter().any(|group| reach.reaches(group)))
    }
}
