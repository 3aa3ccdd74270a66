//! Counters, as OpenMetrics text under `/metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
    /// Open connections.
    pub connections: Family<DoorLabel, Gauge>,
    /// Handshakes that failed or took too long.
    pub handshakes_failed: Family<DoorLabel, Counter>,
    /// 1 while the store has no space.
    pub store_full: Gauge,
    /// Seconds from the end of a request's body to its commit.
    pub ingest_seconds: Histogram,
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
            connections: Family::default(),
            handshakes_failed: Family::default(),
            store_full: Gauge::default(),
            ingest_seconds: Histogram::new(buckets),
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
        registry.register(
            "ingest_seconds",
            "From a request's last byte to its commit",
            metrics.ingest_seconds.clone(),
        );
        metrics
    }

    /// Counts a refusal.
    pub fn refuse(&self, code: &'static str) {
        self.refused.get_or_create(&CodeLabel { code }).inc();
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
