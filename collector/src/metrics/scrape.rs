//! An answer to somebody who asks for metrics: what is counted, and how all stands now.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use super::{ChannelLabel, SeverityLabel, StatusLabel, text};
use crate::access::reach::Reach;
use crate::alerts;
use crate::api::reads;
use crate::clock;
use crate::state::AppState;
use crate::store::StoreError;
use crate::violations::Severity;
use crate::web::state::ORDER;

/// Reads how all stands, and answers in the form that is asked for: OpenMetrics, or the older text form where only that is accepted.
///
/// # Errors
/// What the store refuses.
pub async fn answer(app: &AppState, headers: &HeaderMap) -> Result<Response, StoreError> {
    look(app).await?;
    let openmetrics = app.metrics.encode();
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let (kind, body) = if text::wants_plain(accepted) {
        (
            "text/plain; version=0.0.4; charset=utf-8",
            text::plain(&openmetrics),
        )
    } else {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            openmetrics,
        )
    };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

async fn look(app: &AppState) -> Result<(), StoreError> {
    let standing = &app.metrics.standing;
    let nodes = reads::all_nodes(app, &Reach::all()).await?;
    let summary = reads::summary(app, &Reach::all(), &nodes).await?;
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for status in ORDER {
        let label = StatusLabel {
            status: status.to_owned(),
        };
        let count = summary.statuses.get(status).copied().unwrap_or(0);
        standing.nodes.get_or_create(&label).set(whole(count));
    }
    for severity in [
        Severity::Low,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ] {
        let label = SeverityLabel {
            severity: severity.to_string(),
        };
        let count = summary.severities.get(severity.as_str()).copied();
        standing
            .violations
            .get_or_create(&label)
            .set(whole(count.unwrap_or(0)));
    }
    standing.unreviewed.set(whole(summary.unreviewed));
    let now = clock::now();
    for channel in alerts::channels(&app.store, &app.channels.alerting, &Reach::all()).await? {
        let label = ChannelLabel {
            channel: channel.name,
        };
        let age = channel.oldest.map_or(0, |oldest| {
            now.as_micros().saturating_sub(oldest.as_micros()).max(0) / 1_000_000
        });
        standing
            .waiting
            .get_or_create(&label)
            .set(whole(channel.waiting));
        standing.oldest.get_or_create(&label).set(age);
        standing
            .given_up
            .get_or_create(&label)
            .set(whole(channel.given_up));
    }
    standing.store.set(whole(summary.store_bytes));
    standing.free.set(whole(summary.store.free.unwrap_or(0)));
    let leaves: Option<i64> = sqlx::query_scalar("SELECT max(id) FROM log")
        .fetch_one(app.store.read_pool())
        .await?;
    standing.log.set(leaves.unwrap_or(0));
    standing.started.set(app.started.as_micros() / 1_000_000);
    Ok(())
}
