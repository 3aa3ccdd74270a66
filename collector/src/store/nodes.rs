//! A node's row.

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row, SqliteConnection};

use super::StoreError;

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Waits for a person.
    Pending,
    /// Attests.
    Active,
    /// Attests, but is not counted, by a person's decision.
    Suspended,
    /// May not come back.
    Banned,
    /// Listed, no longer counted.
    Retired,
}

impl NodeState {
    /// As in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Banned => "banned",
            Self::Retired => "retired",
        }
    }

    /// The state that is written so, if any.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Active,
            Self::Suspended,
            Self::Banned,
            Self::Retired,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

/// A node as the store has it. `SELECT * FROM nodes` gives it by `sqlx::query_as`.
#[derive(Clone, Debug)]
pub struct NodeRow {
    /// The node id, 32 hex digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The group, which decides the assignment.
    pub group: String,
    /// Where it stands in its life.
    pub state: NodeState,
    /// SPKI PEM of the key that signs its statements.
    pub public_key: String,
    /// The machine's product UUID, where it told one.
    pub machine: Option<String>,
    /// The join token it came with.
    pub token_id: Option<String>,
    /// The node it said to replace.
    pub replaces: Option<String>,
    /// When it first asked.
    pub enrolled: Timestamp,
    /// When it was let in.
    pub approved: Option<Timestamp>,
    /// By whom.
    pub approved_by: Option<String>,
    /// The last sequence taken.
    pub sequence: Option<u64>,
    /// SHA-256 of that statement's payload.
    pub previous: Option<Digest>,
    /// When it was received.
    pub last_received: Option<Timestamp>,
    /// When a statement with a good challenge was last received.
    pub last_fresh: Option<Timestamp>,
    /// The last verdict, as in JSON.
    pub verdict: Option<String>,
    /// Its reasons.
    pub verdict_reasons: Vec<String>,
    /// Since when the verdict is this one.
    pub verdict_since: Option<Timestamp>,
    /// When it was last given.
    pub verdict_at: Option<Timestamp>,
    /// `software`, `tpm`, `kernel`.
    pub assurance: String,
    /// The sealed tree last attested.
    pub tree: Option<Digest>,
    /// SHA-256 of the image statement's payload that it compares with.
    pub image: Option<Digest>,
    /// What the last statement says of itself: `coverage`, `agent`, `claims`, `boot`, `issued`, `entries`.
    pub stated: serde_json::Value,
    /// When it said goodbye, if nothing has followed.
    pub stopped: Option<Timestamp>,
    /// Two statements with one sequence were seen.
    pub forked: bool,
    /// The sequence whose statement lists the differences that still stand.
    pub differences_at: Option<u64>,
    /// How many there are.
    pub differences: u64,
    /// The one jump after a gap of cause `lost` was taken.
    pub jump_taken: bool,
    /// SHA-256 of the pinned lines that are held of it.
    pub pins: Option<Digest>,
}

impl NodeRow {
    /// A node that has just asked to join.
    pub fn new(
        id: String,
        name: String,
        group: String,
        state: NodeState,
        public_key: String,
        enrolled: Timestamp,
    ) -> Self {
        Self {
            id,
            name,
            group,
            state,
            public_key,
            machine: None,
            token_id: None,
            replaces: None,
            enrolled,
            approved: None,
            approved_by: None,
            sequence: None,
            previous: None,
            last_received: None,
            last_fresh: None,
            verdict: None,
            verdict_reasons: Vec::new(),
            verdict_since: None,
            verdict_at: None,
            assurance: "software".to_owned(),
            tree: None,
            image: None,
            stated: serde_json::json!({}),
            stopped: None,
            forked: false,
            differences_at: None,
            differences: 0,
            jump_taken: false,
            pins: None,
        }
    }

    pub(super) async fn write(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO nodes (id, name, grp, state, public_key, machine, token_id, replaces, enrolled, approved, \
             approved_by, sequence, previous, last_received, last_fresh, verdict, verdict_reasons, verdict_since, verdict_at, \
             assurance, tree, image, stated, stopped, forked, differences_at, differences, jump_taken, pins) \
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29) \
             ON CONFLICT (id) DO UPDATE SET name=?2, grp=?3, state=?4, public_key=?5, machine=?6, token_id=?7, replaces=?8, \
             enrolled=?9, approved=?10, approved_by=?11, sequence=?12, previous=?13, last_received=?14, last_fresh=?15, \
             verdict=?16, verdict_reasons=?17, verdict_since=?18, verdict_at=?19, assurance=?20, tree=?21, image=?22, \
             stated=?23, stopped=?24, forked=?25, differences_at=?26, differences=?27, jump_taken=?28, pins=?29",
        )
        .bind(&self.id)
        .bind(&self.name)
        .bind(&self.group)
        .bind(self.state.as_str())
        .bind(&self.public_key)
        .bind(&self.machine)
        .bind(&self.token_id)
        .bind(&self.replaces)
        .bind(self.enrolled.as_micros())
        .bind(self.approved.map(Timestamp::as_micros))
        .bind(&self.approved_by)
        .bind(self.sequence.map(to_sql))
        .bind(self.previous.as_ref().map(|digest| digest.as_bytes().as_slice()))
        .bind(self.last_received.map(Timestamp::as_micros))
        .bind(self.last_fresh.map(Timestamp::as_micros))
        .bind(&self.verdict)
        .bind(json(&self.verdict_reasons))
        .bind(self.verdict_since.map(Timestamp::as_micros))
        .bind(self.verdict_at.map(Timestamp::as_micros))
        .bind(&self.assurance)
        .bind(self.tree.as_ref().map(|digest| digest.as_bytes().as_slice()))
        .bind(self.image.as_ref().map(|digest| digest.as_bytes().as_slice()))
        .bind(json(&self.stated))
        .bind(self.stopped.map(Timestamp::as_micros))
        .bind(self.forked)
        .bind(self.differences_at.map(to_sql))
        .bind(to_sql(self.differences))
        .bind(self.jump_taken)
        .bind(self.pins.as_ref().map(|digest| digest.as_bytes().as_slice()))
        .execute(connection)
        .await?;
        Ok(())
    }
}

impl AsRef<Self> for NodeRow {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl FromRow<'_, SqliteRow> for NodeRow {
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let state: String = row.try_get("state")?;
        let reasons: String = row.try_get("verdict_reasons")?;
        let stated: String = row.try_get("stated")?;
        Ok(Self {
            id: row.try_get("id")?,
            name: row.try_get("name")?,
            group: row.try_get("grp")?,
            state: NodeState::parse(&state).ok_or_else(|| unreadable("nodes.state", &state))?,
            public_key: row.try_get("public_key")?,
            machine: row.try_get("machine")?,
            token_id: row.try_get("token_id")?,
            replaces: row.try_get("replaces")?,
            enrolled: Timestamp::from_micros(row.try_get("enrolled")?),
            approved: time(row, "approved")?,
            approved_by: row.try_get("approved_by")?,
            sequence: number(row, "sequence")?,
            previous: digest(row, "previous")?,
            last_received: time(row, "last_received")?,
            last_fresh: time(row, "last_fresh")?,
            verdict: row.try_get("verdict")?,
            verdict_reasons: serde_json::from_str(&reasons)
                .map_err(|_bad| unreadable("nodes.verdict_reasons", &reasons))?,
            verdict_since: time(row, "verdict_since")?,
            verdict_at: time(row, "verdict_at")?,
            assurance: row.try_get("assurance")?,
            tree: digest(row, "tree")?,
            image: digest(row, "image")?,
            stated: serde_json::from_str(&stated)
                .map_err(|_bad| unreadable("nodes.stated", &stated))?,
            stopped: time(row, "stopped")?,
            forked: row.try_get("forked")?,
            differences_at: number(row, "differences_at")?,
            differences: number(row, "differences")?.unwrap_or(0),
            jump_taken: row.try_get("jump_taken")?,
            pins: digest(row, "pins")?,
        })
    }
}

/// A count or sequence for SQLite, whose integers are signed; ours stay below 2^53.
pub fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column of microseconds, or null.
pub fn time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row
        .try_get::<Option<i64>, _>(column)?
        .map(Timestamp::from_micros))
}

/// A column of a count, or null.
pub fn number(row: &SqliteRow, column: &str) -> Result<Option<u64>, sqlx::Error> {
    Ok(row
        .try_get::<Option<i64>, _>(column)?
        .and_then(|number| u64::try_from(number).ok()))
}

/// A column of 32 bytes, or null.
pub fn digest(row: &SqliteRow, column: &str) -> Result<Option<Digest>, sqlx::Error> {
    let Some(bytes) = row.try_get::<Option<Vec<u8>>, _>(column)? else {
        return Ok(None);
    };
    let bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_bad| unreadable(column, "not 32 bytes"))?;
    Ok(Some(Digest::from_bytes(bytes)))
}

/// A decode error that names the column.
pub fn unreadable(column: &str, found: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds {found:?}").into())
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_never| "null".to_owned())
}
