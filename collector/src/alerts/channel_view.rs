//! Channels, for lists and pages: who is told of what, and how the deliveries to each stand. Whoever is limited to groups sees the channels
//! that are told of nodes of theirs, and of each channel what tells of these.

use attestation::time::Timestamp;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Row as _};

use super::channel::Channel;
use super::listing::{GIVEN_UP, TELLS_WITHIN, WAITING};
use super::{Alerting, route};
use crate::access::Reach;
use crate::store::nodes::{number, time};
use crate::store::{Store, StoreError};

/// A channel as the API lists it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Channel)]
pub struct ChannelView {
    /// What routes and commands call it.
    pub name: String,
    /// `webhook`, `slack`, `alertmanager`, `email`.
    pub kind: &'static str,
    /// Where to, without what may be secret.
    pub place: String,
    /// Whether the same change on many nodes is one message.
    pub gathers: bool,
    /// What it hears of, in words.
    pub hears: Vec<String>,
    /// Why nothing can be sent there, if so.
    pub trouble: Option<String>,
    /// Messages that wait.
    pub waiting: u64,
    /// The oldest of them.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub given_up: u64,
    /// When one was last accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered: Option<Timestamp>,
    /// Why the last attempt of one that waits failed.
    pub last_error: Option<String>,
}

/// The channels that are told of nodes within reach, with how their deliveries about these stand.
///
/// # Errors
/// What the store refuses.
pub async fn channels(
    store: &Store,
    alerting: &Alerting,
    reach: &Reach,
) -> Result<Vec<ChannelView>, StoreError> {
    let of =
        |state: &str| format!("FROM outbox o WHERE o.channel = ?2 AND {state} AND {TELLS_WITHIN}");
    let waits = of(WAITING);
    let (dead, done) = (of(GIVEN_UP), of("o.delivered IS NOT NULL"));
    let sql = format!(
        "SELECT (SELECT count(*) {waits}) AS waiting, (SELECT min(o.created) {waits}) AS oldest, (SELECT count(*) {dead}) AS given_up, \
         (SELECT o.delivered {done} ORDER BY o.delivered DESC LIMIT 1) AS delivered, \
         (SELECT o.last_error {waits} AND o.last_error IS NOT NULL ORDER BY o.id DESC LIMIT 1) AS last_error"
    );
    let mut all = Vec::new();
    for channel in alerting.channels_within(reach) {
        let row = sqlx::query(AssertSqlSafe(sql.as_str()))
            .bind(reach.to_sql())
            .bind(&channel.key)
            .fetch_one(store.read_pool())
            .await?;
        all.push(ChannelView {
            name: channel.name.clone(),
            kind: channel.kind(),
            place: channel.place.clone(),
            gathers: channel.gathers,
            hears: hears(channel, alerting, reach),
            trouble: channel.trouble(),
            waiting: number(&row, "waiting")?.unwrap_or(0),
            oldest: time(&row, "oldest")?,
            given_up: number(&row, "given_up")?.unwrap_or(0),
            delivered: time(&row, "delivered")?,
            last_error: row.try_get("last_error")?,
        });
    }
    Ok(all)
}

fn hears(channel: &Channel, alerting: &Alerting, reach: &Reach) -> Vec<String> {
    if alerting.routes().is_empty() {
        return vec!["Everything: there is no route.".to_owned()];
    }
    let words: Vec<String> = alerting
        .routes_within(reach)
        .iter()
        .filter(|route| route.channels.contains(&channel.name))
        .map(route::words)
        .collect();
    if words.is_empty() {
        vec!["Nothing: no route names it.".to_owned()]
    } else {
        words
    }
}
