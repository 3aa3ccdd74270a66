//! How a change stands now, for channels that are told that rather than each step.

use std::collections::BTreeMap;

use attestation::digest::Digest;
use attestation::time::Timestamp;
use sqlx::{AssertSqlSafe, Row as _, SqlitePool};

use super::Alerting;
use super::alertmanager::Alert;
use super::channel::Channel;
use super::message::{Message, NAMED, Nodes};
use super::route::About;
use crate::store::StoreError;
use crate::violations::store::{SELECT, view};
use crate::violations::view::{Step, ViolationView};

/// Open violations that are read to tell how all stands; what is beyond is told when it changes.
const MOST: i64 = 20_000;

/// An alert for a change as it stands at `now`; `first` is the violation that a message about it began with.
pub async fn alert(
    pool: &SqlitePool,
    alerting: &Alerting,
    channel: &Channel,
    id: &str,
    change: &Digest,
    first: &ViolationView,
    now: Timestamp,
) -> Result<Alert, StoreError> {
    let sql = format!("{SELECT} WHERE v.change = ? AND v.resolved IS NULL LIMIT ?");
    let open = open(pool, sql, Some(change)).await?;
    let mut standing = group(alerting, channel, open);
    Ok(match standing.remove(change) {
        Some(one) => one.alert(change, id, alerting, now),
        None => {
            let message = Message::of(
                id,
                first,
                Step::Resolved,
                &Nodes::one(&first.node_name),
                &alerting.pages,
            );
            Alert::of(first, change, &message, None, now)
        }
    })
}

/// Everything that is open, for a channel that may have forgotten it.
pub async fn all(
    pool: &SqlitePool,
    alerting: &Alerting,
    channel: &Channel,
    now: Timestamp,
) -> Result<Vec<Alert>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE v.resolved IS NULL AND v.change IS NOT NULL ORDER BY v.id DESC LIMIT ?"
    );
    let open = open(pool, sql, None).await?;
    Ok(group(alerting, channel, open)
        .iter()
        .map(|(change, one)| one.alert(change, "standing", alerting, now))
        .collect())
}

struct Open {
    violation: ViolationView,
    change: Digest,
    group: String,
}

async fn open(
    pool: &SqlitePool,
    sql: String,
    change: Option<&Digest>,
) -> Result<Vec<Open>, StoreError> {
    let sql = sql.replacen("SELECT v.*", "SELECT v.*, n.grp AS node_group", 1);
    let mut query = sqlx::query(AssertSqlSafe(sql));
    if let Some(change) = change {
        query = query.bind(change.as_bytes().as_slice().to_vec());
    }
    let rows = query.bind(MOST).fetch_all(pool).await?;
    rows.iter()
        .map(|row| {
            let change = crate::store::nodes::digest(row, "change")?;
            Ok(Open {
                violation: view(row)?,
                change: change.unwrap_or(Digest::ZERO),
                group: row
                    .try_get::<Option<String>, _>("node_group")?
                    .unwrap_or_default(),
            })
        })
        .collect()
}

/// One change and where it is open.
struct Standing {
    /// The first one's.
    violation: ViolationView,
    since: Timestamp,
    nodes: Nodes,
}

impl Standing {
    fn alert(&self, change: &Digest, id: &str, alerting: &Alerting, now: Timestamp) -> Alert {
        let message = Message::of(
            id,
            &self.violation,
            Step::Opened,
            &self.nodes,
            &alerting.pages,
        );
        Alert::of(&self.violation, change, &message, Some(self.since), now)
    }
}

fn group(alerting: &Alerting, channel: &Channel, open: Vec<Open>) -> BTreeMap<Digest, Standing> {
    let mut standing: BTreeMap<Digest, Standing> = BTreeMap::new();
    for one in open {
        if !alerting.hears(channel, &About::of(&one.violation, &one.group)) {
            continue;
        }
        let name = one.violation.node_name.clone();
        let entry = standing.entry(one.change).or_insert_with(|| Standing {
            since: one.violation.opened,
            violation: one.violation.clone(),
            nodes: Nodes::default(),
        });
        if one.violation.opened < entry.since {
            entry.since = one.violation.opened;
            entry.violation = one.violation;
        }
        entry.nodes.count += 1;
        if entry.nodes.named.len() < usize::try_from(NAMED).unwrap_or(usize::MAX) {
            entry.nodes.named.push(name);
        }
    }
    standing
}
