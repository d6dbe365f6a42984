//! Who would hold a change of the authority up if it began now.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Context;
use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::rotation::{Process, Receipt, Server, Standing, blockers};
use saatkond_domain::security_server::processes::{Excluded, receipt};
use serde::Serialize;

/// What a change that began now would meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prospect {
    /// The trust anchor.
    pub trust_anchor: String,
    /// The generation that issues.
    pub signing_generation: u64,
    /// The generation that would take its place.
    pub next_generation: u64,
    /// Servers with certificates of this anchor.
    pub servers: usize,
    /// Processes that would be waited for.
    pub processes: usize,
    /// Who has not stated that it trusts what is published: a change does not begin before.
    pub blocking: Vec<Waiting>,
    /// Processes that a person has excluded: if they run, they will lack trust.
    pub excluded: Vec<Place>,
}

/// A process, or a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Namespace of the SecurityServer.
    pub namespace: String,
    /// Name of the SecurityServer.
    pub name: String,
    /// UID of the pod; absent where it is the server itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// Somebody who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Who.
    #[serde(flatten)]
    pub who: Place,
    /// Who and why, in words.
    pub message: String,
}

/// Decides it from what the operator has written into the status of each object.
pub fn of(
    anchor: &TrustAnchor,
    members: &[Member],
    servers: &[SecurityServer],
    now: Timestamp,
) -> anyhow::Result<Prospect> {
    let name = anchor.name_any();
    let status = anchor.status.as_ref();
    let nothing = || format!("trust anchor {name} has published nothing yet");
    let rotation = status.and_then(|it| it.rotation.as_ref()).with_context(nothing)?;
    let bundle = status.and_then(|it| it.bundle.as_ref()).with_context(nothing)?;
    let owners: BTreeMap<_, _> = members.iter().map(|it| ((it.namespace(), it.name_any()), it)).collect();
    let is_of = |server: &&SecurityServer| {
        let owner = owners.get(&(server.namespace(), server.spec.member_ref.name.clone()));
        owner.is_some_and(|owner| owner.spec.trust_anchor_ref.name == name)
    };
    let (mut counted, mut excluded) = (Vec::new(), Vec::new());
    for server in servers.iter().filter(is_of) {
        let Some(status) = server.status.as_ref().filter(|status| status.leaf.is_some()) else { continue };
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        let said = Excluded::of(anchor, server, now);
        let (waited_for, not): (Vec<_>, Vec<_>) = status.pods.iter().partition(|pod| said.waits_for(&pod.uid));
        excluded.extend(not.into_iter().map(|pod| Place {
            namespace: namespace.clone(),
            name: name.clone(),
            pod_uid: Some(pod.uid.clone()),
        }));
        let processes = waited_for.into_iter().map(|pod| Process {
            pod: pod.uid.clone(),
            vanished: pod.vanished_at.is_some(),
            receipt: receipt(&status.processes, &pod.uid).map(|it| Receipt {
                sequence: it.bundle_sequence,
                same_bundle: it.bundle_hash.trim_start_matches("sha256:") == bundle.hash.trim_start_matches("sha256:"),
                issue_number: it.leaf_issue_number,
                sessions: it.old_sessions.clone(),
            }),
        });
        counted.push(Server {
            issue_number: status.issue_number.unwrap_or_default(),
            issuers: Vec::new(),
            processes: processes.collect(),
            name: (namespace, name),
        });
    }
    // As before a change: what has vanished after it had stated that is not in the way yet, and will be in the next step.
    let standing = Standing::first(rotation.signing_generation);
    let mut blocking = blockers(&standing, bundle.sequence, &counted);
    let known: Vec<_> = blocking.iter().map(|it| it.pod.clone()).collect();
    for server in &counted {
        let vanished = server.processes.iter().filter(|it| it.vanished && !known.contains(&Some(it.pod.clone())));
        blocking.extend(vanished.map(|process| saatkond_domain::rotation::Blocker {
            server: server.name.clone(),
            pod: Some(process.pod.clone()),
            obstacle: saatkond_domain::rotation::Obstacle::Vanished,
        }));
    }
    blocking.sort();
    let waiting = blocking.into_iter().map(|it| Waiting {
        message: it.to_string(),
        who: Place { namespace: it.server.0, name: it.server.1, pod_uid: it.pod },
    });
    Ok(Prospect {
        trust_anchor: name.clone(),
        signing_generation: rotation.signing_generation,
        next_generation: rotation.highest_generation + 1,
        servers: counted.len(),
        processes: counted.iter().map(|server| server.processes.len()).sum(),
        blocking: waiting.collect(),
        excluded,
    })
}

impl fmt::Display for Prospect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, now, next) = (&self.trust_anchor, self.signing_generation, self.next_generation);
        writeln!(f, "trustanchor/{name}: authority {now} issues, authority {next} would take its place")?;
        let held = self.blocking.len();
        let ready = if held == 0 { "; nobody holds it up".to_owned() } else { format!("; held up by {held}:") };
        writeln!(f, "it waits for {} processes of {} security servers{ready}", self.processes, self.servers)?;
        for waiting in &self.blocking {
            writeln!(f, "  ✗ {}", waiting.message)?;
        }
        if !self.excluded.is_empty() {
            writeln!(f, "excluded, and without trust in what comes if they run:")?;
        }
        for Place { namespace, name, pod_uid } in &self.excluded {
            writeln!(f, "  - pod {} of SecurityServer {namespace}/{name}", pod_uid.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn anchor(excluded: Value) -> TrustAnchor {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "ee"},
            "spec": {"instance": "EE", "source": {"managed": {}}, "rotation": {"excluded": excluded}},
            "status": {
                "bundle": {"sequence": 7, "hash": "sha256:ab", "generations": [2]},
                "rotation": {
                    "phase": "Stable", "since": "2026-01-02T00:00:00Z", "signingGeneration": 2, "highestGeneration": 3,
                    "acknowledged": "1/2",
                },
            },
        }))
        .unwrap()
    }

    fn member(anchor: &str) -> Member {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "Member", "metadata": {"name": "m", "namespace": "n"},
            "spec": {"trustAnchorRef": {"name": anchor}, "memberClass": "GOV", "memberCode": "1"},
        }))
        .unwrap()
    }

    fn receipt(pod: &str, sequence: u64, hash: &str) -> Value {
        json!({
            "podUid": pod, "incarnation": 1, "instanceVersion": 1, "serverVersion": 1, "bundleSequence": sequence, "bundleHash": hash,
            "leafIssueNumber": 1, "leafSerial": "1", "highestFormat": 1,
        })
    }

    fn server(pods: Value, receipts: Value) -> SecurityServer {
        let leaf = json!({
            "serial": "1", "ski": "1", "issueNumber": 1, "issuerGeneration": 2, "notBefore": "2026-01-01T00:00:00Z",
            "notAfter": "2026-02-01T00:00:00Z", "renewAt": "2026-01-20T00:00:00Z",
        });
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": "n"},
            "spec": {"memberRef": {"name": "m"}, "serverCode": "ss1"},
            "status": {"leaf": leaf, "issueNumber": 1, "pods": pods, "processes": receipts},
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-03T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn who_lacks_what_is_published_holds_it_up() {
        let vanished = json!({"uid": "v", "name": "v", "vanishedAt": "2026-01-02T00:00:00Z"});
        let pods = json!([{"uid": "good"}, {"uid": "behind"}, {"uid": "other"}, {"uid": "silent"}, vanished]);
        let receipts = json!([
            receipt("good", 7, "ab"),
            receipt("behind", 6, "ab"),
            receipt("other", 7, "cd"),
            receipt("v", 7, "ab"),
        ]);
        let all = [server(pods, receipts)];
        let found = of(&anchor(json!([])), &[member("ee")], &all, now()).unwrap();
        let who: Vec<_> = found.blocking.iter().map(|it| it.who.pod_uid.as_deref().unwrap()).collect();
        assert_eq!(who, ["behind", "other", "silent", "v"]);
        assert_eq!((found.servers, found.processes, found.next_generation), (1, 5, 4));
        let text = found.to_string();
        assert!(
            text.contains("held up by 4:") && text.contains("pod v of SecurityServer n/ss1 has vanished"),
            "{text}"
        );
        let elsewhere = of(&anchor(json!([])), &[member("lu")], &all, now()).unwrap();
        assert_eq!((elsewhere.servers, elsewhere.blocking.len()), (0, 0), "of another anchor");
    }

    #[test]
    fn who_is_excluded_holds_nothing_up_and_is_named() {
        let until = |until: &str| json!([{"server": {"namespace": "n", "name": "ss1"}, "process": "silent", "reason": "r", "until": until}]);
        let all = [server(json!([{"uid": "silent"}]), json!([]))];
        let found = of(&anchor(until("2026-01-04T00:00:00Z")), &[member("ee")], &all, now()).unwrap();
        assert_eq!((found.blocking.len(), found.excluded.len(), found.processes), (0, 1, 0));
        assert!(
            found.to_string().contains("nobody holds it up") && found.to_string().contains("- pod silent of"),
            "{found}"
        );
        let over = of(&anchor(until("2026-01-02T00:00:00Z")), &[member("ee")], &all, now()).unwrap();
        assert_eq!((over.blocking.len(), over.excluded.len()), (1, 0));
    }
}
