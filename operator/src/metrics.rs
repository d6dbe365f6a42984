//! What the operator counts, in OpenMetrics text.

use std::fmt::Error;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::client::Call;
use crate::state_metrics::StateMetrics;

/// Labels of `saatkond_api_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
}

/// Requests to the API server, by verb and resource.
#[derive(Debug, Clone, Default)]
pub struct ApiRequests(Family<RequestLabels, Counter>);

impl ApiRequests {
    /// Counts one request.
    pub fn count(&self, call: &Call) {
        let labels = RequestLabels { verb: call.verb, resource: call.resource.clone() };
        self.0.get_or_create(&labels).inc();
    }
}

/// One label, whose name is part of the metric's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Label {
    name: &'static str,
    value: String,
}

impl EncodeLabelSet for Label {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        [(self.name, self.value.as_str())].encode(encoder)
    }
}

/// Labels of `saatkond_reconciles_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: &'static str,
    result: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests to the API server.
    pub api_requests: ApiRequests,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Histogram,
    issued: Family<Label, Counter>,
    polls: Family<Label, Counter>,
    /// Objects waiting for their turn.
    pub queue_depth: Gauge,
    /// 1 while this process holds the lease.
    pub leading: Gauge,
    /// Connections open at the link.
    pub link_connections: Gauge,
    /// What the statuses of objects say.
    pub state: StateMetrics,
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("saatkond");
        let api_requests = ApiRequests::default();
        registry.register("api_requests", "Requests to the API server, by verb and resource", api_requests.0.clone());
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles, by kind and result", reconciles.clone());
        let reconcile_seconds = Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]);
        registry.register("reconcile_seconds", "How long reconciles took", reconcile_seconds.clone());
        let issued = Family::default();
        registry.register("leaves_issued", "Leaves signed, by use", issued.clone());
        let polls = Family::default();
        registry.register("link_polls", "Polls at the link, by result", polls.clone());
        let queue_depth = Gauge::default();
        registry.register("queue_depth", "Objects waiting for their turn", queue_depth.clone());
        let leading = Gauge::default();
        registry.register("leading", "1 while this process holds the lease", leading.clone());
        let link_connections = Gauge::default();
        registry.register("link_connections", "Connections open at the link", link_connections.clone());
        let state = StateMetrics::default();
        registry.register_collector(Box::new(state.clone()));
        Self {
            registry,
            api_requests,
            reconciles,
            reconcile_seconds,
            issued,
            polls,
            queue_depth,
            leading,
            link_connections,
            state,
        }
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, kind: &'static str, result: &'static str, seconds: f64) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, result }).inc();
        self.reconcile_seconds.observe(seconds);
    }

    /// Counts one leaf signed.
    pub fn issued(&self, usage: &str) {
        self.issued.get_or_create(&Label { name: "use", value: usage.to_owned() }).inc();
    }

    /// Counts one poll.
    pub fn polled(&self, result: &str) {
        self.polls.get_or_create(&Label { name: "result", value: result.to_owned() }).inc();
    }

    /// Everything, as text.
    pub fn text(&self) -> Result<String, Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::new();
        let request = http::Request::get("/api/v1/namespaces/a/secrets/b").body(()).unwrap();
        metrics.api_requests.count(&Call::of(&request).unwrap());
        metrics.reconciled("Member", "ok", 0.1);
        metrics.issued("signing");
        let text = metrics.text().unwrap();
        for line in [
            r#"saatkond_api_requests_total{verb="get",resource="secrets"} 1"#,
            r#"saatkond_reconciles_total{kind="Member",result="ok"} 1"#,
            r#"saatkond_leaves_issued_total{use="signing"} 1"#,
            "saatkond_leading 0",
        ] {
            assert!(text.contains(line), "no {line} in:\n{text}");
        }
    }
}
