//! The change history: every deployment that was asked for, how far it has come, and which nodes have it.

use attestation::digest::Digest;
use attestation::statement::Assignment;
use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};

use super::rollout::{Phase, Progress, Stand, phase, stand};
use crate::access::Reach;
use crate::state::AppState;
use crate::store::nodes::{digest, number, time, to_sql};
use crate::store::{StoreError, Writing};
use crate::violations::view::ImageView;

/// A deployment, whole.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Change)]
pub struct ChangeView {
    /// Its id.
    pub id: String,
    /// Where it stands now.
    #[serde(rename = "state")]
    pub phase: Phase,
    /// Of which group.
    pub group: String,
    /// The image that it brings.
    pub image: ImageView,
    /// That image's epoch.
    pub epoch: u64,
    /// What the group had to be before.
    pub previous: Option<ImageView>,
    /// Seconds that what was before stays allowed.
    pub keep_previous_secs: Option<u64>,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub requested: Timestamp,
    /// By whom.
    pub requested_by: String,
    /// When it was approved, refused or withdrawn.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub decided: Option<Timestamp>,
    /// By whom.
    pub decided_by: Option<String>,
    /// What they said.
    pub decision: Option<String>,
    /// SHA-256 of the assignment's payload, where it was signed.
    #[schema(value_type = Option<String>)]
    pub assignment: Option<Digest>,
    /// Until when the images before stay allowed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// When another took over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub superseded: Option<Timestamp>,
    /// How far it has come; as it was when another took over.
    pub progress: Option<Progress>,
    #[serde(skip)]
    stored: Stored,
}

/// As the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    state: String,
    image: Digest,
    /// What counts as the one before: all that the assignment allows beside it, else what the group had to be.
    old: Vec<Digest>,
}

impl ChangeView {
    /// The image, by the SHA-256 of its statement's payload.
    #[must_use]
    pub const fn sha256(&self) -> Digest {
        self.stored.image
    }

    /// Whether it waits for a decision.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.stored.state == "waiting"
    }

    /// Whether it was approved by who asked for it.
    #[must_use]
    pub fn is_self_approved(&self) -> bool {
        self.stored.state == "approved" && self.decided_by.as_ref() == Some(&self.requested_by)
    }

    /// Whether it holds for its group now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.stored.state == "approved" && self.superseded.is_none()
    }
}

const ALL: &str = "SELECT d.*, a.envelope, i.name, i.version, i.epoch, i.commit_sha AS \"commit\", i.repository, i.author, p.name AS previous_name, \
     p.version AS previous_version, p.commit_sha AS previous_commit, p.repository AS previous_repository, p.author AS previous_author \
     FROM deployments d LEFT JOIN assignments a ON a.payload = d.assignment LEFT JOIN images i ON i.payload = d.image \
     LEFT JOIN images p ON p.payload = d.previous";

/// Which deployments are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeFilter<'a> {
    /// Only of this group.
    pub group: Option<&'a str>,
    /// Only those that bring this image.
    pub image: Option<&'a Digest>,
    /// Only those that wait for another person's word, or only the others.
    pub waiting: Option<bool>,
    /// Only those that hold for their group now.
    pub holding: bool,
    /// Older than the one with this id.
    pub before: Option<&'a str>,
}

/// Deployments within reach, newest first.
///
/// # Errors
/// What the store refuses.
pub async fn list(
    app: &AppState,
    reach: &Reach,
    filter: ChangeFilter<'_>,
    limit: u32,
    now: Timestamp,
) -> Result<Vec<ChangeView>, StoreError> {
    let sql = format!(
        "{ALL} WHERE d.id < ?1 AND (?2 IS NULL OR d.grp = ?2) AND (?3 IS NULL OR d.image = ?3) \
         AND (?4 IS NULL OR (d.state = 'waiting') = ?4) AND (?5 = 0 OR (d.state = 'approved' AND d.superseded IS NULL)) \
         AND (?7 IS NULL OR d.grp IN (SELECT value FROM json_each(?7))) ORDER BY d.id DESC LIMIT ?6"
    );
    let mut connection = app.store.read_pool().acquire().await?;
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(filter.before.unwrap_or("~"))
        .bind(filter.group)
        .bind(filter.image.map(|image| image.as_bytes().to_vec()))
        .bind(filter.waiting)
        .bind(filter.holding)
        .bind(limit)
        .bind(reach.to_sql())
        .fetch_all(&mut *connection)
        .await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        changes.push(whole(&mut connection, row, now).await?);
    }
    Ok(changes)
}

/// One.
///
/// # Errors
/// What the store refuses.
pub async fn one(
    app: &AppState,
    id: &str,
    now: Timestamp,
) -> Result<Option<ChangeView>, StoreError> {
    let mut connection = app.store.read_pool().acquire().await?;
    read(&mut connection, id, now).await
}

/// The same inside a transaction.
pub(super) async fn in_transaction(
    tx: &mut Writing,
    id: &str,
    now: Timestamp,
) -> Result<Option<ChangeView>, StoreError> {
    read(&mut tx.connection, id, now).await
}

async fn read(
    connection: &mut SqliteConnection,
    id: &str,
    now: Timestamp,
) -> Result<Option<ChangeView>, StoreError> {
    let row = sqlx::query(AssertSqlSafe(format!("{ALL} WHERE d.id = ?")))
        .bind(id)
        .fetch_optional(&mut *connection)
        .await?;
    match row {
        Some(row) => Ok(Some(whole(connection, &row, now).await?)),
        None => Ok(None),
    }
}

/// A deployment from its row, with how far it has come: counted now while it holds, as it was kept when another took over.
async fn whole(
    connection: &mut SqliteConnection,
    row: &SqliteRow,
    now: Timestamp,
) -> Result<ChangeView, StoreError> {
    let state: String = row.try_get("state")?;
    let group: String = row.try_get("grp")?;
    let image = digest(row, "image")?.unwrap_or(Digest::ZERO);
    let superseded = time(row, "superseded")?;
    let until = time(row, "until")?;
    let stored = Stored {
        old: old(row, image)?,
        state,
        image,
    };
    let kept = (number(row, "reached")?, number(row, "nodes")?);
    let progress = match (superseded, kept) {
        (None, _) if stored.state == "approved" => {
            Some(count(connection, &group, image, &stored.old).await?)
        }
        (Some(_), (Some(reached), Some(nodes))) => Some(Progress {
            nodes,
            new: reached,
            neither: nodes.saturating_sub(reached),
            ..Progress::default()
        }),
        _ => None,
    };
    let counted = progress.unwrap_or_default();
    Ok(ChangeView {
        id: row.try_get("id")?,
        phase: phase(&stored.state, superseded.is_some(), &counted, until, now),
        group,
        image: named(row, "", image)?,
        epoch: number(row, "epoch")?.unwrap_or(0),
        previous: digest(row, "previous")?
            .map(|previous| named(row, "previous_", previous))
            .transpose()?,
        keep_previous_secs: number(row, "keep_previous")?,
        reason: row.try_get("reason")?,
        requested: Timestamp::from_micros(row.try_get("requested")?),
        requested_by: row.try_get("requested_by")?,
        decided: time(row, "decided")?,
        decided_by: row.try_get("decided_by")?,
        decision: row.try_get("decision")?,
        assignment: digest(row, "assignment")?,
        until,
        superseded,
        progress,
        stored,
    })
}

fn named(row: &SqliteRow, prefix: &str, sha256: Digest) -> Result<ImageView, sqlx::Error> {
    let text = |column: &str| {
        let column = format!("{prefix}{column}");
        row.try_get::<Option<String>, _>(column.as_str())
            .map(Option::unwrap_or_default)
    };
    Ok(ImageView {
        name: text("name")?,
        version: text("version")?,
        commit: text("commit")?,
        repository: text("repository")?,
        author: text("author")?,
        sha256: sha256.to_string(),
    })
}

/// The images before: what the assignment allows beside the new one, whether that is over or not, and what the group had to be.
fn old(row: &SqliteRow, new: Digest) -> Result<Vec<Digest>, StoreError> {
    let envelope: Option<Vec<u8>> = row.try_get("envelope")?;
    let mut old: Vec<Digest> = digest(row, "previous")?.into_iter().collect();
    if let Some(envelope) = envelope {
        let said = attestation::dsse::Envelope::from_json(&envelope)
            .ok()
            .and_then(|envelope| envelope.peek::<Assignment>().ok());
        let allowed = said.map(|said| said.predicate.allowed).unwrap_or_default();
        old.extend(allowed.into_iter().map(|allowed| allowed.image));
    }
    old.retain(|image| *image != new);
    Ok(old)
}

/// Whether the last appraisal says that nothing differs.
const GOOD: &str = "coalesce(n.verdict IN ('pristine', 'incomplete'), 0)";
/// Nodes that a rollout waits for: suspended, retired and banned ones are not counted.
const COUNTED: &str = "n.grp = ?1 AND n.state = 'active'";

async fn count(
    connection: &mut SqliteConnection,
    group: &str,
    new: Digest,
    old: &[Digest],
) -> Result<Progress, StoreError> {
    let sql = format!(
        "SELECT n.image, {GOOD} AS good, count(*) AS nodes FROM nodes n WHERE {COUNTED} GROUP BY n.image, good"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(group)
        .fetch_all(connection)
        .await?;
    let mut progress = Progress::default();
    for row in &rows {
        let stands = stand(digest(row, "image")?, row.try_get("good")?, new, old);
        progress.add(stands, number(row, "nodes")?.unwrap_or(0));
    }
    Ok(progress)
}

/// Closes the deployment that holds for a group, with how far it had come.
pub(super) async fn close_before(
    tx: &mut Writing,
    group: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let id: Option<String> = sqlx::query_scalar(
        "SELECT id FROM deployments WHERE grp = ? AND state = 'approved' AND superseded IS NULL ORDER BY id DESC LIMIT 1",
    )
    .bind(group)
    .fetch_optional(&mut tx.connection)
    .await?;
    let Some(id) = id else { return Ok(()) };
    let Some(before) = in_transaction(tx, &id, now).await? else {
        return Ok(());
    };
    let progress = before.progress.unwrap_or_default();
    sqlx::query("UPDATE deployments SET superseded = ?, reached = ?, nodes = ? WHERE grp = ? AND state = 'approved' AND superseded IS NULL")
        .bind(now.as_micros())
        .bind(to_sql(progress.new))
        .bind(to_sql(progress.nodes))
        .bind(group)
        .execute(&mut tx.connection)
        .await?;
    Ok(())
}

/// A node of a deployment's group.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct NodeStand {
    /// The node's id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub stand: Stand,
    /// Since when it compares with the image that it last attested.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// When it was last heard.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_attested: Option<Timestamp>,
    /// Its last verdict.
    pub verdict: Option<String>,
    /// The image that it attests.
    pub image: Option<ImageView>,
}

/// The nodes of a deployment's group that have it (`has`) or have it not, by name, after an offset.
///
/// # Errors
/// What the store refuses.
pub async fn nodes(
    app: &AppState,
    change: &ChangeView,
    has: bool,
    offset: u64,
    limit: u32,
) -> Result<Vec<NodeStand>, StoreError> {
    let sql = format!(
        "SELECT n.id, n.name, n.image, n.verdict, n.last_received, {GOOD} AS good, i.name AS image_name, i.version AS image_version, \
         i.commit_sha AS image_commit, i.repository AS image_repository, i.author AS image_author, \
         (SELECT max(m.since) FROM node_images m WHERE m.node = n.id) AS since \
         FROM nodes n LEFT JOIN images i ON i.payload = n.image \
         WHERE {COUNTED} AND (coalesce(n.image = ?2, 0) AND {GOOD}) = ?3 ORDER BY n.name, n.id LIMIT ?4 OFFSET ?5"
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(&change.group)
        .bind(change.stored.image.as_bytes().as_slice())
        .bind(has)
        .bind(limit)
        .bind(to_sql(offset))
        .fetch_all(app.store.read_pool())
        .await?;
    let nodes = rows.iter().map(|row| {
        let image = digest(row, "image")?;
        let good: bool = row.try_get("good")?;
        Ok(NodeStand {
            node: row.try_get("id")?,
            name: row.try_get("name")?,
            stand: stand(image, good, change.stored.image, &change.stored.old),
            since: time(row, "since")?,
            last_attested: time(row, "last_received")?,
            verdict: row.try_get("verdict")?,
            image: image.map(|image| named(row, "image_", image)).transpose()?,
        })
    });
    Ok(nodes.collect::<Result<_, sqlx::Error>>()?)
}
