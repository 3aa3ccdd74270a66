//! What pages and API read alike.

mod causes;
mod nodes;
mod violations;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::access::Reach;
use crate::alerts::{GIVEN_UP, TELLS_WITHIN, WAITING};
use crate::state::AppState;
use crate::store::{NodeRow, StoreError};

pub use self::causes::{Cause, causes};
pub use self::nodes::{NodeFacts, NodeView, all_nodes, image, node, nodes_after, nodes_by_id};
pub(crate) use self::violations::touched_view;
pub use self::violations::{
    HistoryStep, TouchedView, ViolationFilter, elsewhere, history, touched, violation, violations,
};

/// For queries that have the nodes as `n`: the first parameter is [`Reach::to_sql`].
pub(crate) const WITHIN: &str = "(?1 IS NULL OR n.grp IN (SELECT value FROM json_each(?1)))";

/// Nodes and violations in numbers.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Summary {
    /// Nodes that are counted: all but retired and banned ones.
    pub nodes: u64,
    /// How many are in which status.
    pub statuses: BTreeMap<String, u64>,
    /// Open violations.
    pub violations: u64,
    /// How many are of which severity.
    pub severities: BTreeMap<String, u64>,
    /// Touched paths, and new or changed pins, that nobody has reviewed.
    pub unreviewed: u64,
    /// Deliveries that wait, and those given up on.
    pub alerts_waiting: u64,
    /// Deliveries given up on.
    pub alerts_given_up: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// The store's size, its growth, and when its disk will be full.
    pub store: crate::retention::Forecast,
}

/// The numbers over all within reach, from its nodes whose status is known already.
///
/// # Errors
/// What the store refuses.
pub async fn summary(
    app: &AppState,
    reach: &Reach,
    nodes: &[(NodeRow, String)],
) -> Result<Summary, StoreError> {
    let mut summary = Summary::default();
    for (_, status) in nodes.iter().filter(|(row, _)| is_counted(row)) {
        summary.nodes += 1;
        *summary.statuses.entry(status.clone()).or_default() += 1;
    }
    let pool = app.store.read_pool();
    let reach = reach.to_sql();
    let severities: Vec<(String, i64)> = sqlx::query_as(
        "SELECT severity, count(*) FROM violations WHERE resolved IS NULL \
         AND (?1 IS NULL OR node IN (SELECT n.id FROM nodes n JOIN json_each(?1) g ON g.value = n.grp)) GROUP BY severity",
    )
    .bind(&reach)
    .fetch_all(pool)
    .await?;
    for (severity, count) in severities {
        let count = u64::try_from(count).unwrap_or(0);
        summary.violations += count;
        summary.severities.insert(severity, count);
    }
    let sql = format!(
        "WITH within (id) AS (SELECT n.id FROM nodes n JOIN json_each(?1) g ON g.value = n.grp) \
         SELECT (SELECT count(*) FROM touched WHERE reviewed IS NULL AND (?1 IS NULL OR node IN within)) \
         + (SELECT count(*) FROM pins WHERE reviewed IS NULL AND (?1 IS NULL OR node IN within)), \
         (SELECT count(*) FROM outbox o WHERE {WAITING} AND {TELLS_WITHIN}), \
         (SELECT count(*) FROM outbox o WHERE {GIVEN_UP} AND {TELLS_WITHIN}), \
         (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)"
    );
    let numbers: (i64, i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&reach)
        .fetch_one(pool)
        .await?;
    let [unreviewed, waiting, given_up, bytes] = [numbers.0, numbers.1, numbers.2, numbers.3]
        .map(|number| u64::try_from(number).unwrap_or(0));
    summary.unreviewed = unreviewed;
    summary.alerts_waiting = waiting;
    summary.alerts_given_up = given_up;
    summary.store_bytes = bytes;
    let free = crate::retention::free(&app.settings.state);
    summary.store = crate::retention::read_forecast(&app.store, free, crate::clock::now()).await?;
    Ok(summary)
}

/// Whether a node is part of the fleet that is counted.
#[must_use]
pub fn is_counted(row: &NodeRow) -> bool {
    !matches!(
        row.state,
        crate::store::NodeState::Retired | crate::store::NodeState::Banned
    )
}
