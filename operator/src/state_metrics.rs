//! What the statuses of trust anchors and security servers say, as metrics: alerts cannot read objects.
//!
//! Shown by the controller that leads, from what its watches have seen, at each scrape. Times are seconds since 1970, so that a rule can
//! compare them with `time()`.

use std::fmt::Error;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use kube::ResourceExt as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use saatkond_api::v1alpha1::trust_anchor::RotationPhase;
use saatkond_api::{SecurityServer, TrustAnchor};

use crate::world::World;

/// Shows the objects of a world for as long as that is there.
#[derive(Debug, Clone, Default)]
pub struct StateMetrics {
    world: Arc<Mutex<Weak<World>>>,
}

impl StateMetrics {
    /// From now on these objects are shown, until they are dropped with the leadership.
    pub fn show(&self, world: &Arc<World>) {
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(world);
    }
}

impl Collector for StateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(world) = self.world.lock().unwrap_or_else(PoisonError::into_inner).upgrade() else { return Ok(()) };
        for Series { name, help, samples } in series(&world.anchors.all(), &world.servers.all()) {
            if samples.is_empty() {
                continue;
            }
            let mut described = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in samples {
                described.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

type Labels = Vec<(&'static str, String)>;

/// One metric with all its samples.
#[derive(Debug, PartialEq)]
struct Series {
    name: &'static str,
    help: &'static str,
    samples: Vec<(Labels, f64)>,
}

fn series(anchors: &[Arc<TrustAnchor>], servers: &[Arc<SecurityServer>]) -> Vec<Series> {
    let mut all = of_anchors(anchors);
    all.extend(of_servers(servers));
    all
}

fn of_anchors(anchors: &[Arc<TrustAnchor>]) -> Vec<Series> {
    let mut phase = Series::new("trustanchor_phase", "1 for the phase that a change of the authority is in");
    let mut since =
        Series::new("trustanchor_phase_since_timestamp_seconds", "Since when a trust anchor is in its phase");
    let mut processes = Series::new(
        "trustanchor_processes",
        "Processes that have stated what is waited for (acked), and that have not (lagging)",
    );
    let mut blocking = Series::new(
        "trustanchor_blocking_since_timestamp_seconds",
        "Since when a process has not stated what is waited for; the first 20 of each trust anchor",
    );
    let mut sequence = Series::new("trustanchor_bundle_sequence", "Sequence of the published bundle");
    let mut certificates = Series::new("trustanchor_bundle_certificates", "Certificates in the published bundle");
    let mut begins = Series::new("trustanchor_ca_not_before_timestamp_seconds", "From when an authority is valid");
    let mut ends = Series::new("trustanchor_ca_not_after_timestamp_seconds", "Until when an authority is valid");
    for (anchor, status) in anchors.iter().filter_map(|it| Some((it.name_any(), it.status.as_ref()?))) {
        let named = |more: Labels| [vec![("anchor", anchor.clone())], more].concat();
        if let Some(rotation) = &status.rotation {
            phase.add(named(vec![("phase", word(rotation.phase).to_owned())]), 1.0);
            since.add(named(Vec::new()), seconds(rotation.since.0));
        }
        if let Some(counts) = &status.counts {
            let lagging = counts.processes.saturating_sub(counts.receipts_current);
            processes.add(named(vec![("state", "acked".to_owned())]), counts.receipts_current.into());
            processes.add(named(vec![("state", "lagging".to_owned())]), lagging.into());
        }
        for process in &status.blocking {
            let labels = vec![
                ("namespace", process.namespace.clone()),
                ("server", process.name.clone()),
                ("pod_uid", process.pod_uid.clone().unwrap_or_default()),
                ("reason", process.reason.clone()),
            ];
            blocking.add(named(labels), seconds(process.since.0));
        }
        if let Some(bundle) = &status.bundle {
            sequence.add(named(Vec::new()), exact(bundle.sequence));
            certificates.add(named(Vec::new()), exact(bundle.generations.len() as u64));
        }
        for authority in &status.authorities {
            let labels = named(vec![("generation", authority.generation.to_string())]);
            begins.add(labels.clone(), seconds(authority.not_before.0));
            ends.add(labels, seconds(authority.not_after.0));
        }
    }
    vec![phase, since, processes, blocking, sequence, certificates, begins, ends]
}

fn of_servers(servers: &[Arc<SecurityServer>]) -> Vec<Series> {
    let mut ends =
        Series::new("leaf_not_after_timestamp_seconds", "Until when the TLS certificate of a security server is valid");
    let mut renewed = Series::new(
        "leaf_renew_at_timestamp_seconds",
        "When the TLS certificate of a security server is to be renewed",
    );
    let mut mismatch = Series::new(
        "leaf_loaded_mismatch",
        "Processes of a security server that present another TLS certificate than the one that is stored, but for vanished ones",
    );
    let mut vanished = Series::new(
        "security_server_vanished_processes",
        "Processes of a security server whose pods are gone without word of their end",
    );
    for server in servers {
        let Some(status) = &server.status else { continue };
        let labels: Labels = vec![("namespace", server.namespace().unwrap_or_default()), ("server", server.name_any())];
        if let Some(leaf) = &status.leaf {
            ends.add(labels.clone(), seconds(leaf.not_after.0));
            renewed.add(labels.clone(), seconds(leaf.renew_at.0));
            let vanished = |uid: &str| status.pods.iter().any(|pod| pod.uid == uid && pod.vanished_at.is_some());
            let running = status.processes.iter().filter(|it| it.ended_at.is_none() && !vanished(&it.pod_uid));
            let other = running.filter(|it| it.leaf_serial != leaf.serial).count();
            mismatch.add(labels.clone(), exact(other as u64));
        }
        let gone = status.pods.iter().filter(|pod| pod.vanished_at.is_some()).count();
        vanished.add(labels, exact(gone as u64));
    }
    vec![ends, renewed, mismatch, vanished]
}

impl Series {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, samples: Vec::new() }
    }

    fn add(&mut self, labels: Labels, value: f64) {
        self.samples.push((labels, value));
    }
}

fn word(phase: RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Stable => "Stable",
        RotationPhase::Preparing => "Preparing",
        RotationPhase::Announcing => "Announcing",
        RotationPhase::Switching => "Switching",
        RotationPhase::Retiring => "Retiring",
        RotationPhase::RollingBack => "RollingBack",
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
fn seconds(at: Timestamp) -> f64 {
    at.as_second() as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::watches::Change;
    use serde_json::json;

    fn anchor() -> TrustAnchor {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "ee"},
            "spec": {"instance": "EE", "source": {"managed": {}}},
            "status": {
                "bundle": {"sequence": 7, "hash": "sha256:ab", "generations": [1, 2]},
                "counts": {"members": 3, "securityServers": 2, "processes": 4, "receiptsCurrent": 3},
                "authorities": [{
                    "generation": 2, "state": "Active", "serial": "1", "ski": "1", "notBefore": "1970-01-01T00:00:10Z",
                    "notAfter": "1970-01-01T00:01:00Z",
                }],
                "blocking": [{
                    "namespace": "n", "name": "ss1", "podUid": "p", "reason": "Vanished", "since": "1970-01-01T00:00:40Z",
                }],
                "rotation": {
                    "phase": "Announcing", "since": "1970-01-01T00:00:30Z", "signingGeneration": 1, "otherGeneration": 2,
                    "highestGeneration": 2, "acknowledged": "3/4",
                },
            },
        }))
        .unwrap()
    }

    fn server() -> SecurityServer {
        let receipt = |pod: &str, serial: &str, ended: Option<&str>| {
            json!({
                "podUid": pod, "incarnation": 1, "instanceVersion": 1, "serverVersion": 1, "bundleSequence": 7, "bundleHash": "ab",
                "leafIssueNumber": 1, "leafSerial": serial, "highestFormat": 1, "endedAt": ended,
            })
        };
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": "n"},
            "spec": {"memberRef": {"name": "m"}, "serverCode": "ss1"},
            "status": {
                "leaf": {
                    "serial": "new", "issueNumber": 2, "issuerGeneration": 2, "notAfter": "1970-01-01T00:02:00Z",
                    "renewAt": "1970-01-01T00:01:30Z", "dnsNames": [],
                },
                "pods": [{"uid": "p", "name": "a"}, {"uid": "q", "name": "b", "vanishedAt": "1970-01-01T00:00:01Z"}],
                "processes": [
                    receipt("p", "old", None), receipt("q", "new", None), receipt("r", "older", Some("1970-01-01T00:00:02Z")),
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_the_statuses_say_is_shown_by_who_leads_alone() {
        let metrics = Metrics::new();
        let world = Arc::new(World::default());
        world.anchors.take(Change::All(vec![anchor()]));
        world.servers.take(Change::All(vec![server()]));
        assert!(!metrics.text().unwrap().contains("trustanchor"), "nothing is shown before");
        metrics.state.show(&world);
        let text = metrics.text().unwrap();
        for line in [
            r#"saatkond_trustanchor_phase{anchor="ee",phase="Announcing"} 1.0"#,
            r#"saatkond_trustanchor_phase_since_timestamp_seconds{anchor="ee"} 30.0"#,
            r#"saatkond_trustanchor_processes{anchor="ee",state="acked"} 3.0"#,
            r#"saatkond_trustanchor_processes{anchor="ee",state="lagging"} 1.0"#,
            r#"saatkond_trustanchor_blocking_since_timestamp_seconds{anchor="ee",namespace="n",server="ss1",pod_uid="p",reason="Vanished"} 40.0"#,
            r#"saatkond_trustanchor_bundle_sequence{anchor="ee"} 7.0"#,
            r#"saatkond_trustanchor_bundle_certificates{anchor="ee"} 2.0"#,
            r#"saatkond_trustanchor_ca_not_before_timestamp_seconds{anchor="ee",generation="2"} 10.0"#,
            r#"saatkond_trustanchor_ca_not_after_timestamp_seconds{anchor="ee",generation="2"} 60.0"#,
            r#"saatkond_leaf_not_after_timestamp_seconds{namespace="n",server="ss1"} 120.0"#,
            r#"saatkond_leaf_renew_at_timestamp_seconds{namespace="n",server="ss1"} 90.0"#,
            r#"saatkond_leaf_loaded_mismatch{namespace="n",server="ss1"} 1.0"#,
            r#"saatkond_security_server_vanished_processes{namespace="n",server="ss1"} 1.0"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "no {line} in:\n{text}");
        }
        drop(world);
        assert!(!metrics.text().unwrap().contains("trustanchor"), "whoever leads no more shows nothing");
    }
}
