//! What `status` says, as data: the stable form of `-o json` and `-o yaml`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use saatkond_api::v1alpha1::security_server::{CountedPod, SecurityServerStatus};
use saatkond_api::v1alpha1::trust_anchor::{
    AuthorityStatus, BlockingProcess, EmergencyStatus, ReissuingWave, RotationPhase, RotationStatus, TrustAnchorStatus,
};
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use serde::Serialize;

/// Everything, from the trust anchors down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// By name.
    pub trust_anchors: Vec<AnchorReport>,
    /// Servers whose member is not there, by namespace and name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers_without_member: Vec<ServerReport>,
}

/// A trust anchor and the members that refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnchorReport {
    /// Its name.
    pub name: String,
    /// Its instance; absent when it does not exist or may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether it exists: `None` when that may not be read.
    pub exists: Option<bool>,
    /// Absent when it may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// How many processes run on the published bundle, of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<Receipts>,
    /// The authorities that are trusted, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<AuthorityReport>,
    /// The change of the authority that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationReport>,
    /// The next change, while none is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change: Option<NextChangeReport>,
    /// Who has not stated what is waited for: the first 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocking: Vec<BlockingReport>,
    /// Certificates that are revoked and that not every process has confirmed to refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<RevocationReport>,
    /// What has come of an authority that is compromised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emergency: Option<EmergencyReport>,
    /// Until when messages go on if the operator stops now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves_without_operator_until: Option<Timestamp>,
    /// By namespace and name.
    pub members: Vec<MemberReport>,
}

/// An authority that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityReport {
    /// Its number.
    pub generation: u64,
    /// Whether it issues.
    pub issues: bool,
    /// Until when its certificate is valid.
    pub not_after: Timestamp,
}

/// A change of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationReport {
    /// The phase, as `status.rotation.phase` has it.
    pub phase: RotationPhase,
    /// Since when.
    pub since: Timestamp,
    /// The authority beside the one that issues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_generation: Option<u64>,
    /// Processes that have stated what is waited for, of how many.
    pub acknowledged: String,
    /// While switching: how many servers get new certificates at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<ReissuingWave>,
}

/// A change of the authority to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextChangeReport {
    /// What it is called.
    pub request: String,
    /// When it begins.
    pub at: Timestamp,
}

/// Somebody who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockingReport {
    /// Namespace of the SecurityServer.
    pub namespace: String,
    /// Name of the SecurityServer.
    pub name: String,
    /// UID of the pod; absent where it is the server itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Why, in one word.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// Revoked certificates of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationReport {
    /// Namespace of the SecurityServer.
    pub namespace: String,
    /// Name of the SecurityServer.
    pub name: String,
    /// Up to which issue number.
    pub up_to_issue_number: i64,
    /// Processes that have confirmed that they refuse them, of how many.
    pub confirmed: String,
    /// The first who have not.
    pub waiting_for: Vec<String>,
    /// From when on the last of them must.
    pub refused_by: Timestamp,
}

/// An authority that is compromised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmergencyReport {
    /// Its number.
    pub compromised_generation: u64,
    /// Processes that have confirmed that they refuse what was not issued by Saatkond, of how many.
    pub confirmed: String,
    /// The first who have not.
    pub waiting_for: Vec<String>,
    /// From when on the last of them must.
    pub refused_by: Timestamp,
    /// Who would fail calls if it were dropped now, or does since it was.
    pub uncovered_count: u32,
    /// The first of them.
    pub uncovered: Vec<String>,
}

/// Receipts for the published bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipts {
    /// The published bundle sequence.
    pub bundle_sequence: u64,
    /// Processes that run on it.
    pub current: u32,
    /// All processes.
    pub processes: u32,
}

/// A member and the servers that it owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Class and code: `GOV/70000001`.
    pub identity: String,
    /// Whether all holds.
    pub state: State,
    /// Servers that it owns, by name.
    pub servers: Vec<ServerReport>,
    /// Servers of others that serve it: `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guest_on: Vec<String>,
}

/// A security server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether all holds.
    pub state: State,
    /// Processes that are ready.
    pub ready_replicas: i32,
    /// Processes that are asked for.
    pub replicas: i32,
    /// Until when its TLS certificate is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_not_after: Option<Timestamp>,
    /// When its TLS certificate is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_renew_at: Option<Timestamp>,
    /// The processes that count, by the names of their pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessReport>,
}

/// A process of a security server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    /// UID of its pod.
    pub pod_uid: String,
    /// Name of its pod; empty where that is not known.
    pub pod: String,
    /// What it has stated; absent where it has stated nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated: Option<StatedReport>,
    /// Since when its pod is gone without word of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vanished_at: Option<Timestamp>,
}

/// What a process runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatedReport {
    /// Sequence of the bundle that it trusts.
    pub bundle_sequence: u64,
    /// Issue number of the TLS certificate that it presents.
    pub leaf_issue_number: u64,
    /// Since when that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Whether everything holds for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The condition `Ready` is `True`, and speaks of the newest spec.
    pub ready: bool,
    /// The operator has not seen the newest spec yet.
    pub behind: bool,
    /// Every other condition that is not `True`, and `Ready` where no other explains it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The condition's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The condition's reason.
    pub reason: String,
    /// The condition's message.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl Report {
    /// Whether everything that is shown is as declared.
    pub fn is_ready(&self) -> bool {
        self.servers_without_member.is_empty()
            && self.trust_anchors.iter().all(|anchor| {
                anchor.exists != Some(false)
                    && anchor.state.as_ref().is_none_or(|state| state.ready)
                    && anchor
                        .members
                        .iter()
                        .all(|member| member.state.ready && member.servers.iter().all(|server| server.state.ready))
            })
    }
}

/// Puts what was listed in order. `anchors` is `None` when they may not be read.
pub fn build(anchors: Option<&[TrustAnchor]>, members: &[Member], servers: &[SecurityServer]) -> Report {
    let mut of_member: BTreeMap<(String, String), Vec<ServerReport>> = BTreeMap::new();
    for server in servers {
        let owner = (server.namespace().unwrap_or_default(), server.spec.member_ref.name.clone());
        of_member.entry(owner).or_default().push(server_report(server));
    }
    let mut of_anchor: BTreeMap<String, Vec<MemberReport>> = BTreeMap::new();
    for member in members {
        let key = (member.namespace().unwrap_or_default(), member.name_any());
        let mut servers = of_member.remove(&key).unwrap_or_default();
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        of_anchor.entry(member.spec.trust_anchor_ref.name.clone()).or_default().push(member_report(member, servers));
    }

    let known: BTreeMap<String, &TrustAnchor> =
        anchors.unwrap_or_default().iter().map(|anchor| (anchor.name_any(), anchor)).collect();
    let names: BTreeSet<String> = known.keys().chain(of_anchor.keys()).cloned().collect();
    let trust_anchors = names
        .into_iter()
        .map(|name| {
            let mut members = of_anchor.remove(&name).unwrap_or_default();
            members.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            anchor_report(name.clone(), known.get(&name).copied(), anchors.is_some(), members)
        })
        .collect();
    Report { trust_anchors, servers_without_member: of_member.into_values().flatten().collect() }
}

fn anchor_report(
    name: String,
    anchor: Option<&TrustAnchor>,
    readable: bool,
    members: Vec<MemberReport>,
) -> AnchorReport {
    let status = anchor.and_then(|anchor| anchor.status.as_ref());
    AnchorReport {
        name,
        instance: anchor.map(|anchor| anchor.spec.instance.to_string()),
        exists: readable.then_some(anchor.is_some()),
        state: anchor.map(|anchor| {
            let conditions = status.map_or(&[][..], |status| &status.conditions);
            state(anchor.metadata.generation, conditions)
        }),
        receipts: status.and_then(|status| {
            let (bundle, counts) = (status.bundle.as_ref()?, status.counts.as_ref()?);
            Some(Receipts {
                bundle_sequence: bundle.sequence,
                current: counts.receipts_current,
                processes: counts.processes,
            })
        }),
        authorities: status.map(authorities).unwrap_or_default(),
        rotation: status.and_then(|status| rotation(status.rotation.as_ref()?)),
        next_change: status.and_then(|status| next_change(status.rotation.as_ref()?)),
        blocking: status.map(blocking).unwrap_or_default(),
        revocations: status.map(revocations).unwrap_or_default(),
        emergency: status.and_then(|status| status.emergency.as_ref()).map(emergency),
        serves_without_operator_until: status
            .and_then(|status| status.serves_without_operator_until.as_ref())
            .map(|time| time.0),
        members,
    }
}

fn authorities(status: &TrustAnchorStatus) -> Vec<AuthorityReport> {
    let report = |authority: &AuthorityStatus| AuthorityReport {
        generation: authority.generation,
        issues: status.signing_generation == Some(authority.generation),
        not_after: authority.not_after.0,
    };
    status.authorities.iter().map(report).collect()
}

fn rotation(rotation: &RotationStatus) -> Option<RotationReport> {
    (rotation.phase != RotationPhase::Stable).then(|| RotationReport {
        phase: rotation.phase,
        since: rotation.since.0,
        other_generation: rotation.other_generation,
        acknowledged: rotation.acknowledged.clone(),
        wave: rotation.reissuing.as_ref().map(|reissuing| reissuing.wave),
    })
}

fn next_change(rotation: &RotationStatus) -> Option<NextChangeReport> {
    let next = rotation.next_start.as_ref()?;
    Some(NextChangeReport { request: next.request.clone(), at: next.at.0 })
}

fn blocking(status: &TrustAnchorStatus) -> Vec<BlockingReport> {
    let report = |process: &BlockingProcess| BlockingReport {
        namespace: process.namespace.clone(),
        name: process.name.clone(),
        pod_uid: process.pod_uid.clone(),
        reason: process.reason.clone(),
        since: process.since.0,
    };
    status.blocking.iter().map(report).collect()
}

fn revocations(status: &TrustAnchorStatus) -> Vec<RevocationReport> {
    let open = status.revocations.iter().filter(|revocation| !revocation.waiting_for.is_empty());
    open.map(|revocation| RevocationReport {
        namespace: revocation.namespace.clone(),
        name: revocation.name.clone(),
        up_to_issue_number: revocation.up_to_issue_number,
        confirmed: revocation.confirmed.clone(),
        waiting_for: revocation.waiting_for.clone(),
        refused_by: revocation.refused_by.0,
    })
    .collect()
}

fn emergency(emergency: &EmergencyStatus) -> EmergencyReport {
    EmergencyReport {
        compromised_generation: emergency.compromised_generation,
        confirmed: emergency.confirmed.clone(),
        waiting_for: emergency.waiting_for.clone(),
        refused_by: emergency.refused_by.0,
        uncovered_count: emergency.uncovered_count,
        uncovered: emergency.uncovered.clone(),
    }
}

fn processes(status: &SecurityServerStatus) -> Vec<ProcessReport> {
    let stated = |uid: &str| {
        let receipt = status.processes.iter().find(|receipt| receipt.pod_uid == uid && receipt.ended_at.is_none())?;
        Some(StatedReport {
            bundle_sequence: receipt.bundle_sequence,
            leaf_issue_number: receipt.leaf_issue_number,
            since: receipt.reported_at.as_ref().map(|time| time.0),
        })
    };
    let report = |pod: &CountedPod| ProcessReport {
        pod_uid: pod.uid.clone(),
        pod: pod.name.clone(),
        stated: stated(&pod.uid),
        vanished_at: pod.vanished_at.as_ref().map(|time| time.0),
    };
    status.pods.iter().map(report).collect()
}

fn member_report(member: &Member, servers: Vec<ServerReport>) -> MemberReport {
    let namespace = member.namespace().unwrap_or_default();
    let status = member.status.as_ref();
    let own = |name: &str| servers.iter().any(|server| server.name == name);
    let guest_on = status
        .map_or(&[][..], |status| &status.servers)
        .iter()
        .filter(|server| server.namespace != namespace || !own(&server.name))
        .map(|server| format!("{}/{}", server.namespace, server.name))
        .collect();
    MemberReport {
        name: member.name_any(),
        identity: format!("{}/{}", member.spec.member_class, member.spec.member_code),
        state: state(member.metadata.generation, status.map_or(&[], |status| &status.conditions)),
        namespace,
        servers,
        guest_on,
    }
}

fn server_report(server: &SecurityServer) -> ServerReport {
    let status = server.status.as_ref();
    let leaf = status.and_then(|status| status.leaf.as_ref());
    ServerReport {
        namespace: server.namespace().unwrap_or_default(),
        name: server.name_any(),
        state: state(server.metadata.generation, status.map_or(&[], |status| &status.conditions)),
        ready_replicas: status.and_then(|status| status.ready_replicas).unwrap_or_default(),
        replicas: server.spec.replicas,
        leaf_not_after: leaf.map(|leaf| leaf.not_after.0),
        leaf_renew_at: leaf.map(|leaf| leaf.renew_at.0),
        processes: status.map(processes).unwrap_or_default(),
    }
}

fn state(generation: Option<i64>, conditions: &[Condition]) -> State {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let behind = ready.is_none_or(|ready| ready.observed_generation < generation);
    let problem = |condition: &Condition| Problem {
        kind: condition.type_.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time.0,
    };
    let mut problems: Vec<Problem> =
        conditions.iter().filter(|c| c.status != "True" && c.type_ != "Ready").map(problem).collect();
    if problems.is_empty() {
        problems.extend(ready.filter(|ready| ready.status != "True").map(problem));
    }
    State { ready: !behind && ready.is_some_and(|ready| ready.status == "True"), behind, problems }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn condition(kind: &str, status: &str, generation: i64) -> Value {
        json!({
            "type": kind, "status": status, "reason": "ReasonFor", "message": format!("{kind} is {status}"),
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": generation,
        })
    }

    fn authority(generation: u64) -> Value {
        json!({
            "generation": generation, "state": "Active", "serial": "1", "ski": "1", "notBefore": "2025-01-04T00:00:00Z",
            "notAfter": format!("2026-0{generation}-04T01:30:00Z"),
        })
    }

    pub fn anchor(name: &str, ready: &str) -> TrustAnchor {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor",
            "metadata": {"name": name, "generation": 2},
            "spec": {"instance": name.to_uppercase(), "source": {"managed": {}}},
            "status": {
                "conditions": [condition("Ready", ready, 2)],
                "bundle": {"sequence": 3, "hash": "sha256:0", "generations": [1]},
                "counts": {"members": 2, "securityServers": 1, "processes": 2, "receiptsCurrent": 1},
                "servesWithoutOperatorUntil": "2026-01-04T00:00:00Z", "signingGeneration": 2,
                "authorities": [authority(1), authority(2)],
                "rotation": {
                    "phase": "Switching", "since": "2026-01-01T01:29:00Z", "signingGeneration": 2, "otherGeneration": 1,
                    "highestGeneration": 2, "acknowledged": "1/2", "reissuing": {"wave": "Canary", "upTo": "ab"},
                },
                "blocking": [
                    {"namespace": "a", "name": "ss1", "podUid": "q", "reason": "Vanished", "since": "2026-01-01T01:00:00Z"},
                ],
                "emergency": {
                    "compromisedGeneration": 1, "instanceVersion": 8, "confirmed": "1/2",
                    "waitingFor": ["pod q of SecurityServer a/ss1"], "refusedBy": "2026-01-03T01:30:00Z",
                    "uncoveredCount": 3, "uncovered": ["pod q of SecurityServer a/ss1 has not stated anything yet"],
                },
                "revocations": [
                    {
                        "namespace": "a", "name": "ss1", "upToIssueNumber": 4, "instanceVersion": 7, "confirmed": "1/2",
                        "waitingFor": ["pod q of SecurityServer a/ss1"], "refusedBy": "2026-01-03T01:30:00Z",
                    },
                    {
                        "namespace": "b", "name": "ss1", "upToIssueNumber": 4, "instanceVersion": 7, "confirmed": "2/2",
                        "refusedBy": "2026-01-03T01:30:00Z",
                    },
                ],
            },
        }))
        .unwrap()
    }

    pub fn member(namespace: &str, anchor: &str, conditions: &[(&str, &str)], generation: i64) -> Member {
        let conditions: Vec<Value> = conditions.iter().map(|(kind, status)| condition(kind, status, 1)).collect();
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "Member",
            "metadata": {"name": "m", "namespace": namespace, "generation": generation},
            "spec": {"trustAnchorRef": {"name": anchor}, "memberClass": "GOV", "memberCode": "7", "subsystems": []},
            "status": {"conditions": conditions, "servers": [
                {"namespace": "a", "name": "ss1", "identity": "EE/GOV/7/ss1"},
            ]},
        }))
        .unwrap()
    }

    pub fn server(namespace: &str, owner: &str, ready: &str) -> SecurityServer {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer",
            "metadata": {"name": "ss1", "namespace": namespace, "generation": 1},
            "spec": {"memberRef": {"name": owner}, "serverCode": "ss1", "replicas": 2},
            "status": {"conditions": [condition("Ready", ready, 1)], "readyReplicas": 1, "leaf": {
                "serial": "1", "issueNumber": 1, "issuerGeneration": 1, "notAfter": "2026-01-16T00:00:00Z",
                "renewAt": "2026-01-10T00:00:00Z", "dnsNames": [],
            }, "pods": [
                {"uid": "p", "name": "ss1-0"}, {"uid": "q", "name": "", "vanishedAt": "2026-01-01T01:00:00Z"},
                {"uid": "r", "name": "ss1-2"},
            ], "processes": [{
                "podUid": "p", "incarnation": 1, "instanceVersion": 1, "serverVersion": 1, "bundleSequence": 3, "bundleHash": "ab",
                "leafIssueNumber": 5, "leafSerial": "1", "highestFormat": 1, "reportedAt": "2026-01-01T00:30:00Z",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn servers_stand_under_their_owner_and_members_under_their_anchor() {
        let members = [member("b", "ee", &[("Ready", "True")], 1), member("a", "ee", &[("Ready", "True")], 1)];
        let report = build(Some(&[anchor("ee", "True")]), &members, &[server("a", "m", "True")]);
        let anchor = &report.trust_anchors[0];
        assert_eq!(anchor.members.iter().map(|m| m.namespace.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(anchor.members[0].servers.len(), 1);
        assert!(anchor.members[0].guest_on.is_empty(), "its own server is not a host");
        assert_eq!(anchor.members[1].guest_on, ["a/ss1"]);
        assert!(report.is_ready());
    }

    /// The fields of a value by their paths, as docs/status.md writes them. What stands in several places goes by its own name.
    fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            if let Value::Array(items) = value {
                found.insert(format!("{path}[]"));
                let is_servers = matches!(&**key, "servers" | "serversWithoutMember");
                let at = if is_servers { "servers[]".to_owned() } else { format!("{path}[]") };
                for item in items {
                    fields(item, &at, found);
                }
            } else {
                found.insert(path.clone());
                fields(value, if key == "state" { "state" } else { &path }, found);
            }
        }
    }

    #[test]
    fn every_field_is_documented_and_every_documented_one_is_there() {
        let mut stable = anchor("fi", "False");
        let rotation = stable.status.as_mut().unwrap().rotation.as_mut().unwrap();
        rotation.phase = RotationPhase::Stable;
        rotation.next_start = serde_json::from_value(json!({"request": "r", "at": "2026-02-01T00:00:00Z"})).unwrap();
        let members = [member("a", "ee", &[("Ready", "False")], 1), member("b", "ee", &[("Ready", "True")], 1)];
        let servers = [server("a", "m", "True"), server("z", "m", "True")];
        let report = build(Some(&[anchor("ee", "True"), stable]), &members, &servers);
        let mut found = BTreeSet::new();
        fields(&serde_json::to_value(report).unwrap(), "", &mut found);
        let text = include_str!("../../../docs/status.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(found, rows.map(str::to_owned).collect());
    }

    #[test]
    fn each_thing_that_does_not_hold_makes_it_not_ready() {
        let ok = member("a", "ee", &[("Ready", "True")], 1);
        let cases: [(&str, Report); 6] = [
            ("anchor", build(Some(&[anchor("ee", "False")]), &[], &[])),
            ("anchor missing", build(Some(&[]), std::slice::from_ref(&ok), &[])),
            ("member", build(None, &[member("a", "ee", &[("Ready", "Unknown")], 1)], &[])),
            ("member behind", build(None, &[member("a", "ee", &[("Ready", "True")], 2)], &[])),
            ("server", build(None, std::slice::from_ref(&ok), &[server("a", "m", "False")])),
            ("server without member", build(None, &[], &[server("a", "m", "True")])),
        ];
        for (name, report) in cases {
            assert!(!report.is_ready(), "{name}");
        }
        assert!(build(None, &[ok], &[]).is_ready(), "anchors that may not be read are not held against");
    }

    #[test]
    fn ready_is_repeated_only_where_nothing_else_explains_it() {
        let explained = member("a", "ee", &[("Ready", "False"), ("Admitted", "False"), ("Registered", "True")], 1);
        let kinds = |member: &Member| -> Vec<String> {
            let report = build(None, std::slice::from_ref(member), &[]);
            report.trust_anchors[0].members[0].state.problems.iter().map(|p| p.kind.clone()).collect()
        };
        assert_eq!(kinds(&explained), ["Admitted"]);
        assert_eq!(kinds(&member("a", "ee", &[("Ready", "False")], 1)), ["Ready"]);
        assert!(kinds(&member("a", "ee", &[], 1)).is_empty());
    }
}
