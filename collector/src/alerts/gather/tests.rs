//! What is one message, at given times.

use std::sync::Arc;

use super::*;
use crate::metrics::Metrics;
use crate::settings::{CollectorSettings, Slack, Webhook};
use crate::store::{NodeRow, NodeState, Store};
use crate::violations::store::{Channels, apply};
use crate::web::sample;

/// Seconds after some moment.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

struct Bench {
    store: Store,
    channels: Channels,
    _directory: tempfile::TempDir,
}

/// A row of the outbox: its id, what it is due at in seconds, how many were told before.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    id: String,
    due: i64,
    told: i64,
    follows: Option<String>,
}

impl Bench {
    /// A collector that tells a chat, and a webhook of each step; with nodes of these names.
    async fn with(nodes: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db"))
            .await
            .unwrap();
        let mut settings = CollectorSettings::new(directory.path().to_owned());
        settings.webhooks = vec![Webhook::new(
            "http://hook.example/",
            "0123456789abcdef".to_owned(),
        )];
        settings.alerts.slack = vec![Slack {
            name: "chat".to_owned(),
            url: "http://chat.example/".to_owned().into(),
        }];
        let channels = Channels {
            alerting: Arc::new(Alerting::new(&settings, settings.ops)),
            metrics: Arc::new(Metrics::new()),
        };
        let bench = Self {
            store,
            channels,
            _directory: directory,
        };
        for node in nodes {
            bench.node(node, NodeState::Active).await;
        }
        bench
    }

    async fn node(&self, name: &str, state: NodeState) {
        let row = NodeRow::new(
            name.to_owned(),
            format!("name-{name}"),
            "default".to_owned(),
            state,
            String::new(),
            at(0),
        );
        self.store
            .write(move |tx| Box::pin(async move { tx.put_node(row).await }))
            .await
            .unwrap();
    }

    /// The same change is seen on a node.
    async fn seen(&self, node: &str, seconds: i64) {
        let mut violation = sample::violation();
        violation.id = format!("v-{node}");
        violation.node = node.to_owned();
        violation.opened = at(seconds);
        let change = Change {
            step: Step::Opened,
            violation,
        };
        let channels = self.channels.clone();
        self.store
            .write(move |tx| {
                Box::pin(async move { apply(tx, &change, at(seconds), None, &channels).await })
            })
            .await
            .unwrap();
    }

    async fn rows(&self, channel: &str) -> Vec<Row> {
        let rows = sqlx::query(
            "SELECT id, next_attempt, told, follows FROM outbox WHERE channel = ? ORDER BY rowid",
        )
        .bind(channel)
        .fetch_all(self.store.read_pool())
        .await
        .unwrap();
        rows.iter()
            .map(|row| Row {
                id: row.get("id"),
                due: (row.get::<i64, _>("next_attempt") - at(0).as_micros()) / 1_000_000,
                told: row.get("told"),
                follows: row.get("follows"),
            })
            .collect()
    }

    async fn close(&self, id: &str, seconds: i64) -> Option<String> {
        let (alerting, id) = (Arc::clone(&self.channels.alerting), id.to_owned());
        let body = self
            .store
            .write(move |tx| {
                Box::pin(async move {
                    let channel = alerting.channel("chat").unwrap();
                    close(tx, &alerting, channel, &id, at(seconds)).await
                })
            })
            .await
            .unwrap();
        body.map(|body| String::from_utf8(body).unwrap())
    }
}

#[tokio::test]
async fn a_change_waits_until_it_has_settled_and_what_comes_later_within_the_minute_is_one_more() {
    let bench = Bench::with(&["a", "b", "c", "d"]).await;
    bench.seen("a", 0).await;
    bench.seen("b", 1).await;
    let first = bench.rows("chat").await;
    assert_eq!(
        (first.len(), first[0].due),
        (1, 3),
        "two seconds after the last node"
    );
    assert!(
        bench.close(&first[0].id, 2).await.is_none(),
        "it gathers on"
    );
    let body = bench.close(&first[0].id, 3).await.unwrap();
    assert!(
        body.contains("2 nodes") && body.contains("name-a, name-b"),
        "{body}"
    );
    assert_eq!(
        bench.close(&first[0].id, 4).await.unwrap(),
        body,
        "the same bytes from now on"
    );

    bench.seen("c", 10).await;
    bench.seen("d", 20).await;
    let rows = bench.rows("chat").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[1].due, rows[1].told, rows[1].follows.as_deref()),
        (60, 2, Some(first[0].id.as_str()))
    );
    let body = bench.close(&rows[1].id, 60).await.unwrap();
    assert!(
        body.contains("4 nodes") && body.contains("name-c, name-d; 2 told before"),
        "{body}"
    );

    bench.seen("a", 200).await;
    let rows = bench.rows("chat").await;
    assert_eq!(
        (rows.len(), rows[2].due, rows[2].told),
        (3, 202, 0),
        "another time is another message"
    );
}

#[tokio::test]
async fn a_change_that_goes_on_is_told_after_a_minute() {
    let bench = Bench::with(&["a", "b"]).await;
    for seconds in 0..70 {
        bench
            .seen(if seconds % 2 == 0 { "a" } else { "b" }, seconds)
            .await;
    }
    assert_eq!(bench.rows("chat").await[0].due, 60);
}

#[tokio::test]
async fn a_lone_node_and_a_webhook_wait_for_nobody_and_a_suspended_node_is_not_told() {
    let bench = Bench::with(&["a"]).await;
    bench.seen("a", 0).await;
    assert_eq!(bench.rows("chat").await[0].due, 0);
    bench.node("b", NodeState::Active).await;
    bench.seen("b", 5).await;
    let hook = bench.rows("http://hook.example/").await;
    assert_eq!(hook.iter().map(|row| row.due).collect::<Vec<_>>(), [0, 5]);
    bench.node("c", NodeState::Suspended).await;
    bench.seen("c", 6).await;
    assert_eq!(bench.rows("http://hook.example/").await.len(), 2);
}
