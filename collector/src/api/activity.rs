//! The activity log: what people and pipelines did.

use attestation::time::Timestamp;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use futures_util::stream;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asked, Listed, Named, asked};
use crate::access::Person;
use crate::activity::{self, Doing, Filter, Order, Record, Target};
use crate::clock;
use crate::door::people::People;
use crate::problem::ProblemResponse;
use crate::store::{Store, StoreError};

/// Records read at a time while an export is under way.
const PAGE: u32 = 1_000;
/// What may be searched for.
const TEXT: usize = 200;

/// What the list takes; the page has the same filters.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Query {
    #[serde(default)]
    pub(crate) who: String,
    #[serde(default)]
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) target: String,
    /// A day, or a moment.
    #[serde(default)]
    pub(crate) from: String,
    /// The last day, or a moment that is no longer asked for.
    #[serde(default)]
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) q: String,
    #[serde(default)]
    format: String,
    pub(crate) limit: Option<u32>,
    pub(crate) cursor: Option<String>,
}

impl Query {
    /// As the log reads it.
    ///
    /// # Errors
    /// For times that are none, and what is too long.
    pub(crate) fn filter(&self) -> Answer<Filter<'_>> {
        fn some(text: &str) -> Answer<Option<&str>> {
            let text = text.trim();
            if text.len() > TEXT {
                let detail = format!("a filter has at most {TEXT} bytes");
                return Err(ProblemResponse::malformed(detail));
            }
            Ok((!text.is_empty()).then_some(text))
        }
        Ok(Filter {
            who: some(&self.who)?,
            action: some(&self.action)?,
            kind: some(&self.kind)?,
            target: some(&self.target)?,
            from: time(&self.from, "T00:00:00.000000Z")?,
            to: time(&self.to, "T23:59:59.999999Z")?,
            text: some(&self.q)?,
            cursor: self.cursor.as_deref(),
        })
    }

    fn asked_for(&self) -> Value {
        json!({"who": self.who, "action": self.action, "kind": self.kind, "target": self.target, "from": self.from, "to": self.to, "q": self.q})
    }
}

/// A moment, or a whole day of UTC from its beginning or to its end.
fn time(text: &str, of_day: &str) -> Answer<Option<Timestamp>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let whole = if text.len() == 10 {
        format!("{text}{of_day}")
    } else {
        text.to_owned()
    };
    whole.parse().map(Some).map_err(|error| {
        ProblemResponse::malformed(format!(
            "`from` and `to` are days, YYYY-MM-DD, or moments: {error}"
        ))
    })
}

/// `GET /api/v1/activity`: newest first; with `format=ndjson` everything that fits, oldest first, as a file.
#[utoipa::path(get, path = "/api/v1/activity", operation_id = "activity_list", tag = "activity", params(Query), responses((status = 200, content((Listed<Record> = "application/json"), (String = "application/x-ndjson")))))]
pub(super) async fn list(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Asked(query): Asked<Query>,
) -> Answer<Response> {
    let limit = asked::limit(query.limit, query.cursor.as_deref())?;
    let filter = query.filter()?;
    match query.format.as_str() {
        "" | "json" => {
            let store = &people.app.store;
            let items =
                activity::list(store, &person, &filter, Order::NewestFirst, limit + 1).await?;
            let listed = Listed::of(items, limit, |item: &Record| item.id.clone());
            Ok(Json(listed).into_response())
        }
        "ndjson" => export(people.app.store.clone(), person, query).await,
        _ => Err(ProblemResponse::malformed("`format` is `json` or `ndjson`")),
    }
}

/// `GET /api/v1/activity/{id}`.
#[utoipa::path(get, path = "/api/v1/activity/{id}", operation_id = "activity_get", tag = "activity", params(("id" = String, Path)), responses((status = 200, body = Record)))]
pub(super) async fn get(
    State(people): State<People>,
    Extension(person): Extension<Person>,
    Named(id): Named<String>,
) -> Answer<Json<Record>> {
    activity::named(&people.app.store, &person, &id)
        .await?
        .map(Json)
        .ok_or_else(|| ProblemResponse::not_found("there is no record with this id"))
}

/// An export under way.
struct Export {
    store: Store,
    person: Person,
    query: Query,
    done: bool,
}

/// Whoever takes the log away does something too: that stands in it first.
async fn export(store: Store, person: Person, mut query: Query) -> Answer<Response> {
    let (who, filter) = (person.clone(), query.asked_for());
    store
        .write(move |tx| {
            Box::pin(async move {
                let doing = Doing {
                    who: &who,
                    at: clock::now(),
                    action: "activity.export",
                    target: Target::new("activity", "", ""),
                    before: Value::Null,
                    after: json!({"filter": filter}),
                    reason: None,
                };
                activity::record(tx, &doing).await
            })
        })
        .await?;
    // An end: what happens while it is read is the next export's.
    if query.to.trim().is_empty() {
        // Ids are told apart by the millisecond.
        let end = clock::now().as_micros().saturating_add(1_000);
        query.to = Timestamp::from_micros(end).to_string();
    }
    let export = Export {
        store,
        person,
        query,
        done: false,
    };
    let pieces = stream::try_unfold(export, next);
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"activity.ndjson\"",
        ),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(pieces)).into_response())
}

/// The next page of it. An error cuts the answer off, so that half a log is not taken for the whole.
async fn next(mut export: Export) -> Result<Option<(Bytes, Export)>, StoreError> {
    if export.done {
        return Ok(None);
    }
    let filter = export
        .query
        .filter()
        .map_err(|problem| StoreError::corrupt(problem.detail))?;
    let (store, order) = (&export.store, Order::OldestFirst);
    let records = activity::list(store, &export.person, &filter, order, PAGE).await?;
    let mut lines = Vec::new();
    for record in &records {
        serde_json::to_writer(&mut lines, record)
            .map_err(|error| StoreError::corrupt(error.to_string()))?;
        lines.push(b'\n');
    }
    export.done = records.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
    export.query.cursor = records.last().map(|record| record.id.clone());
    Ok(Some((Bytes::from(lines), export)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn days_and_moments_are_times_and_nothing_else_is() {
        let query = |from: &str, to: &str| Query {
            from: from.to_owned(),
            to: to.to_owned(),
            ..Query::default()
        };
        let asked = query("2026-11-29", "2026-11-29");
        let filter = asked.filter().unwrap();
        assert_eq!(
            filter.from.unwrap().to_string(),
            "2026-11-29T00:00:00.000000Z"
        );
        assert_eq!(
            filter.to.unwrap().to_string(),
            "2026-11-29T23:59:59.999999Z"
        );
        assert!(query("2026-11-31", "").filter().is_err());
        assert!(query("", "yesterday").filter().is_err());
        let long = Query {
            q: "a".repeat(201),
            ..Query::default()
        };
        assert!(long.filter().is_err());
    }
}
