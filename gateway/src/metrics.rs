//! Counters and gauges. Labels come from fixed sets: no path, no identifier, nothing that a caller chooses.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::Side;

/// In which role and how an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ExchangeLabels {
    /// `client` or `server`.
    pub side: &'static str,
    /// `ok`, the code of an own failure, or `peer`.
    pub outcome: &'static str,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// Of a fixed set.
    pub reason: &'static str,
}

/// How a connection to a peer began.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabel {
    /// `full` or `resumed`.
    pub handshake: &'static str,
}

/// The role in an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SideLabel {
    /// `client` or `server`.
    pub side: &'static str,
}

type Seconds = Gauge<i64>;

/// All metrics of a gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Exchanges by role and outcome.
    pub exchanges: Family<ExchangeLabels, Counter>,
    durations: Family<SideLabel, Histogram, fn() -> Histogram>,
    /// Peers refused on port 5500 or by this gateway when it called them.
    pub peers_refused: Family<ReasonLabel, Counter>,
    /// Requests sent to peers, by how the connection began that they went over.
    pub peer_requests: Family<HandshakeLabel, Counter>,
    /// Requests that a peer had not taken and that were sent again.
    pub peer_retries: Counter,
    /// Requests refused by the HTTP layer before they were one.
    pub http_refused: Family<ReasonLabel, Counter>,
    /// Documents and identities that were not taken up.
    pub updates_rejected: Family<ReasonLabel, Counter>,
    /// Attempts at the link that failed.
    pub link_failures: Counter,
    /// The bundle sequence in force.
    pub bundle_sequence: Gauge<u64, AtomicU64>,
    /// The version of the instance configuration in force.
    pub instance_version: Gauge<u64, AtomicU64>,
    /// The version of the server configuration in force.
    pub server_version: Gauge<u64, AtomicU64>,
    /// When the first of both documents expires, as Unix time.
    pub configuration_expires: Seconds,
    /// When the authentication leaf expires, as Unix time.
    pub leaf_expires: Seconds,
    /// When the first of the signing leaves expires, as Unix time.
    pub signing_leaf_expires: Seconds,
    /// Signing leaves, of the owner and of guests, that are not valid now.
    pub signing_leaves_not_valid: Gauge,
    /// Calls under way.
    pub in_flight: Family<SideLabel, Gauge>,
    /// Bytes of bodies on disk.
    pub spool_bytes: Gauge<u64, AtomicU64>,
    /// 1 while serving without having met the link or a peer since the start.
    pub started_alone: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("saatkond_gateway"),
            exchanges: Family::default(),
            durations: Family::new_with_constructor(histogram),
            peers_refused: Family::default(),
            peer_requests: Family::default(),
            peer_retries: Counter::default(),
            http_refused: Family::default(),
            updates_rejected: Family::default(),
            link_failures: Counter::default(),
            bundle_sequence: Gauge::default(),
            instance_version: Gauge::default(),
            server_version: Gauge::default(),
            configuration_expires: Gauge::default(),
            leaf_expires: Gauge::default(),
            signing_leaf_expires: Gauge::default(),
            signing_leaves_not_valid: Gauge::default(),
            in_flight: Family::default(),
            spool_bytes: Gauge::default(),
            started_alone: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("exchanges", "Exchanges by role and outcome", self.exchanges.clone());
        registry.register("exchange_seconds", "How long exchanges took", self.durations.clone());
        registry.register("peers_refused", "Peer certificates refused, by reason", self.peers_refused.clone());
        registry.register(
            "peer_requests",
            "Requests sent to peers, by how their connection began",
            self.peer_requests.clone(),
        );
        registry.register("peer_retries", "Requests that a peer had not taken, sent again", self.peer_retries.clone());
        registry.register("http_refused", "Malformed requests refused, by reason", self.http_refused.clone());
        registry.register("updates_rejected", "Documents and identities refused", self.updates_rejected.clone());
        registry.register("link_failures", "Failed attempts at the link", self.link_failures.clone());
        registry.register("bundle_sequence", "Bundle sequence in force", self.bundle_sequence.clone());
        registry.register("instance_version", "Instance configuration in force", self.instance_version.clone());
        registry.register("server_version", "Server configuration in force", self.server_version.clone());
        registry.register(
            "configuration_expires_timestamp_seconds",
            "When the first document in force expires",
            self.configuration_expires.clone(),
        );
        registry.register(
            "leaf_expires_timestamp_seconds",
            "When the authentication leaf expires",
            self.leaf_expires.clone(),
        );
        registry.register(
            "signing_leaf_expires_timestamp_seconds",
            "When the first signing leaf expires",
            self.signing_leaf_expires.clone(),
        );
        registry.register(
            "signing_leaves_not_valid",
            "Members served here that cannot sign now",
            self.signing_leaves_not_valid.clone(),
        );
        registry.register("in_flight", "Exchanges under way", self.in_flight.clone());
        registry.register("spool_bytes", "Bytes of bodies on disk", self.spool_bytes.clone());
        registry.register("started_alone", "1 if nobody was met at the start", self.started_alone.clone());
    }

    /// Takes note of an exchange that ended.
    pub fn ended(&self, side: Side, outcome: &'static str, took: Duration) {
        self.exchanges.get_or_create(&ExchangeLabels { side: side.label(), outcome }).inc();
        self.durations.get_or_create(&SideLabel { side: side.label() }).observe(took.as_secs_f64());
    }

    /// Takes note of a peer's certificate that was refused.
    pub fn peer_refused(&self, reason: &'static str) {
        self.peers_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Takes note of a request that is sent to a peer.
    pub fn peer_request(&self, is_resumed: bool) {
        let handshake = if is_resumed { "resumed" } else { "full" };
        self.peer_requests.get_or_create(&HandshakeLabel { handshake }).inc();
    }

    /// Counts an exchange as under way while the guard lives.
    #[must_use]
    pub fn under_way(&self, side: Side) -> UnderWay {
        let gauge = self.in_flight.get_or_create(&SideLabel { side: side.label() }).clone();
        gauge.inc();
        UnderWay(gauge)
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// An exchange under way.
#[derive(Debug)]
pub struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_counted() {
        let metrics = Metrics::default();
        metrics.ended(Side::Client, "ok", Duration::from_millis(3));
        metrics.peer_refused("expired");
        let under_way = metrics.under_way(Side::Server);
        let text = metrics.text();
        assert!(text.contains(r#"saatkond_gateway_exchanges_total{side="client",outcome="ok"} 1"#), "{text}");
        assert!(text.contains(r#"saatkond_gateway_peers_refused_total{reason="expired"} 1"#), "{text}");
        assert!(text.contains(r#"saatkond_gateway_in_flight{side="server"} 1"#), "{text}");
        drop(under_way);
        assert!(metrics.text().contains(r#"saatkond_gateway_in_flight{side="server"} 0"#));
    }
}
