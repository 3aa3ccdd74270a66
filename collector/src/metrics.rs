//! Counters and gauges, as OpenMetrics text under `/metrics`. Every set of labels is bounded: codes, kinds, states and outcomes are
//! ours, channels are those of the configuration.

mod scrape;
mod text;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use self::scrape::answer;

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    /// The problem's code.
    pub code: &'static str,
}

/// What a node was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabel {
    /// As in JSON, or `none`.
    pub verdict: String,
}

/// Which door.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DoorLabel {
    /// `agents`, `joining`, `people`.
    pub door: &'static str,
}

/// A step of a violation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabel {
    /// The violation's kind.
    pub kind: &'static str,
    /// `opened`, `updated`, `resolved`.
    pub step: &'static str,
}

/// How attempts to deliver ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabel {
    /// The channel's name: as many as are configured.
    pub channel: String,
    /// `accepted`, `retried`, `refused`.
    pub outcome: &'static str,
}

/// What people see of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabel {
    /// As in JSON.
    pub status: String,
}

/// How grave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeverityLabel {
    /// As in JSON.
    pub severity: String,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabel {
    /// The channel's name.
    pub channel: String,
}

/// What is read from the store when somebody asks.
#[derive(Default)]
pub struct Standing {
    /// Nodes that are counted, by status.
    pub nodes: Family<StatusLabel, Gauge>,
    /// Open violations, by severity.
    pub violations: Family<SeverityLabel, Gauge>,
    /// What waits for a person's look.
    pub unreviewed: Gauge,
    /// Messages that wait, by channel.
    pub waiting: Family<ChannelLabel, Gauge>,
    /// Age of the oldest of them.
    pub oldest: Family<ChannelLabel, Gauge>,
    /// Dead letters, by channel.
    pub given_up: Family<ChannelLabel, Gauge>,
    /// Size of the store.
    pub store: Gauge,
    /// What its disk has left.
    pub free: Gauge,
    /// Leaves of the log.
    pub log: Gauge,
    /// When this run began.
    pub started: Gauge,
}

/// All of them.
pub struct Metrics {
    registry: Registry,
    /// Requests and statements refused at the agents' and joining doors.
    pub refused: Family<CodeLabel, Counter>,
    /// Statements taken, by verdict.
    pub statements: Family<VerdictLabel, Counter>,
    /// Statements told again, byte for byte.
    pub repeated: Counter,
    /// Steps of violations.
    pub steps: Family<StepLabel, Counter>,
    /// Attempts to deliver, by channel and outcome.
    pub deliveries: Family<DeliveryLabel, Counter>,
    /// Open connections.
    pub connections: Family<DoorLabel, Gauge>,
    /// Handshakes that failed or took too long.
    pub handshakes_failed: Family<DoorLabel, Counter>,
    /// 1 while the store has no space.
    pub store_full: Gauge,
    /// Seconds from the end of a request's body to its commit.
    pub ingest_seconds: Histogram,
    /// Read from the store when somebody asks.
    pub standing: Standing,
    /// Statements whose evidence was pruned.
    pub pruned: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let buckets = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ];
        let mut metrics = Self {
            registry: Registry::default(),
            refused: Family::default(),
            statements: Family::default(),
            repeated: Counter::default(),
            steps: Family::default(),
            deliveries: Family::default(),
            connections: Family::default(),
            handshakes_failed: Family::default(),
            store_full: Gauge::default(),
            ingest_seconds: Histogram::new(buckets),
            standing: Standing::default(),
            pruned: Counter::default(),
        };
        let registry = metrics.registry.sub_registry_with_prefix("pristine");
        registry.register(
            "ingest_refused",
            "Requests and statements refused, by code",
            metrics.refused.clone(),
        );
        registry.register(
            "ingest_statements",
            "Statements taken, by verdict",
            metrics.statements.clone(),
        );
        registry.register(
            "ingest_repeated",
            "Statements told again and receipted again",
            metrics.repeated.clone(),
        );
        registry.register(
            "violation_steps",
            "Steps of violations",
            metrics.steps.clone(),
        );
        registry.register(
            "alert_deliveries",
            "Attempts to deliver a message, by channel and outcome",
            metrics.deliveries.clone(),
        );
        registry.register(
            "door_connections",
            "Open connections",
            metrics.connections.clone(),
        );
        registry.register(
            "door_handshakes_failed",
            "TLS handshakes that failed",
            metrics.handshakes_failed.clone(),
        );
        registry.register(
            "store_full",
            "1 while the store's disk is full",
            metrics.store_full.clone(),
        );
        registry.register_with_unit(
            "ingest",
            "From a request's last byte to its commit",
            Unit::Seconds,
            metrics.ingest_seconds.clone(),
        );
        registry.register(
            "retention_pruned_statements",
            "Quiet statements whose evidence was pruned after its time",
            metrics.pruned.clone(),
        );
        registry.register(
            "build",
            "The program that answers",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        metrics.standing.register(registry);
        metrics
    }

    /// Counts a refusal.
    pub fn refuse(&self, code: &'static str) {
        self.refused.get_or_create(&CodeLabel { code }).inc();
    }

    /// OpenMetrics text, of what was last read from the store.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

impl Standing {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "nodes",
            "Nodes that are counted, by status",
            self.nodes.clone(),
        );
        registry.register(
            "violations_open",
            "Open violations, by severity",
            self.violations.clone(),
        );
        registry.register(
            "unreviewed",
            "Touched paths and pins that nobody has looked at",
            self.unreviewed.clone(),
        );
        registry.register(
            "alert_waiting",
            "Messages that wait to be delivered, by channel",
            self.waiting.clone(),
        );
        registry.register_with_unit(
            "alert_waiting_oldest",
            "Age of the oldest message that waits, by channel",
            Unit::Seconds,
            self.oldest.clone(),
        );
        registry.register(
            "alert_given_up",
            "Dead letters, by channel",
            self.given_up.clone(),
        );
        registry.register_with_unit(
            "store",
            "Size of the store's database",
            Unit::Bytes,
            self.store.clone(),
        );
        registry.register_with_unit(
            "store_free",
            "What the disk of the store has left",
            Unit::Bytes,
            self.free.clone(),
        );
        registry.register("log_leaves", "Leaves of the log", self.log.clone());
        registry.register_with_unit(
            "start_time",
            "When this run began, since 1970",
            Unit::Seconds,
            self.started.clone(),
        );
    }
}
