//! What a node's page shows, as it is read.

use attestation::digest::Digest;
use attestation::statement::{Coverage, Image};
use attestation::time::Timestamp;
use sqlx::Row as _;

use super::super::bands::{self, Band};
use super::{LISTED, RECENT};
use crate::access::Reach;
use crate::api::reads::{self, NodeFacts, TouchedView, ViolationFilter};
use crate::clock;
use crate::door::people::People;
use crate::logins::{self, Filter, LoginView};
use crate::problem::ProblemResponse;
use crate::store::nodes::digest;
use crate::violations::view::ViolationView;

/// What the page shows beside the node's row.
pub(super) struct Facts {
    pub(super) node: NodeFacts,
    pub(super) coverage: Option<Coverage>,
    pub(super) open: Vec<ViolationView>,
    pub(super) touched: Vec<TouchedView>,
    pub(super) verdicts: Vec<VerdictChange>,
    pub(super) sessions: Vec<LoginView>,
    pub(super) image: Option<ImageFacts>,
    pub(super) assigned: Option<Assigned>,
    pub(super) range: bands::Range,
    pub(super) bands: Vec<Band>,
    pub(super) now: Timestamp,
}

pub(super) struct VerdictChange {
    pub(super) at: Timestamp,
    pub(super) verdict: Option<String>,
    pub(super) reasons: Vec<String>,
    pub(super) sequence: i64,
}

pub(super) struct ImageFacts {
    pub(super) statement: Image,
    pub(super) published_by: String,
}

pub(super) struct Assigned {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) image: Option<Digest>,
    pub(super) requested_by: String,
    pub(super) approved_by: String,
    pub(super) from: Timestamp,
}

/// Reads them, as far as `reach` goes.
pub(super) async fn read(
    people: &People,
    reach: &Reach,
    id: &str,
    span: bands::Span,
) -> Result<Facts, ProblemResponse> {
    let app = &people.app;
    let now = clock::now();
    let range = bands::Range::ending(now, span);
    let node = reads::node(app, id).await?.ok_or_else(|| {
        ProblemResponse::not_found("no node has this id; it may never have enrolled here")
    })?;
    let filter = ViolationFilter {
        open: Some(true),
        node: Some(id),
        ..ViolationFilter::default()
    };
    let pool = app.store.read_pool();
    let verdicts = sqlx::query("SELECT at, verdict, reasons, sequence FROM verdict_changes WHERE node = ? ORDER BY seq DESC LIMIT ?")
        .bind(id)
        .bind(RECENT)
        .fetch_all(pool)
        .await?
        .iter()
        .map(|row| {
            let reasons: String = row.try_get("reasons")?;
            Ok(VerdictChange {
                at: Timestamp::from_micros(row.try_get("at")?),
                verdict: row.try_get("verdict")?,
                reasons: serde_json::from_str(&reasons).unwrap_or_default(),
                sequence: row.try_get("sequence")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()?;
    Ok(Facts {
        coverage: node.coverage(),
        open: reads::violations(app, reach, &filter, LISTED + 1).await?,
        touched: reads::touched(app, reach, Some(id), None, RECENT).await?,
        verdicts,
        sessions: logins::list(
            app,
            reach,
            Filter {
                node: Some(id),
                before: None,
            },
            RECENT,
        )
        .await?,
        image: image_facts(people, node.row.image.as_ref()).await?,
        assigned: assigned(people, &node.row.group).await?,
        bands: bands::read(app, id, &node.row.group, range).await?,
        range,
        node,
        now,
    })
}

async fn image_facts(
    people: &People,
    payload: Option<&Digest>,
) -> Result<Option<ImageFacts>, ProblemResponse> {
    let Some(payload) = payload else {
        return Ok(None);
    };
    let row = sqlx::query("SELECT envelope, published_by FROM images WHERE payload = ?")
        .bind(payload.as_bytes().as_slice())
        .fetch_optional(people.app.store.read_pool())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let envelope: Vec<u8> = row.try_get("envelope")?;
    let statement = attestation::dsse::Envelope::from_json(&envelope)
        .ok()
        .and_then(|envelope| envelope.peek::<Image>().ok());
    let published_by = row.try_get("published_by")?;
    Ok(statement.map(|statement| ImageFacts {
        statement: statement.predicate,
        published_by,
    }))
}

async fn assigned(people: &People, group: &str) -> Result<Option<Assigned>, ProblemResponse> {
    let row = sqlx::query(
        "SELECT a.image, a.from_time, a.requested_by, a.approved_by, i.name, i.version FROM group_assignment g \
         JOIN assignments a ON a.payload = g.payload LEFT JOIN images i ON i.payload = a.image WHERE g.grp = ?",
    )
    .bind(group)
    .fetch_optional(people.app.store.read_pool())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Assigned {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        image: digest(&row, "image")?,
        requested_by: row.try_get("requested_by")?,
        approved_by: row.try_get("approved_by")?,
        from: Timestamp::from_micros(row.try_get("from_time")?),
    }))
}
