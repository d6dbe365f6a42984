//! `SecurityServer`: a gateway owned by one member, serving that and guest members.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identifiers::ServerCode;
use crate::refs::{MemberIdRef, MemberRef};

/// The desired state of a security server.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "saatkond.io",
    version = "v1alpha1",
    kind = "SecurityServer",
    plural = "securityservers",
    shortname = "ss",
    category = "saatkond",
    namespaced,
    status = "SecurityServerStatus",
    derive = "PartialEq",
    selectable = ".spec.memberRef.name",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    doc = "SecurityServer is a gateway owned by one member: it signs and verifies the messages of the members that it serves and enforces their access rights.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Renew-At", type_ = "string", json_path = ".status.leaf.renewAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Member", type_ = "string", json_path = ".spec.memberRef.name", priority = 1),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.configuration.bundleSequence", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 50 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name must have at most 50 characters, start with a letter and hold lower-case letters, digits and '-' only: it is the name of a Service")
)]
#[x_kube(
    validation = Rule::new("self.memberRef.name == oldSelf.memberRef.name")
        .message("memberRef is immutable: the owner is part of the server's identity")
        .field_path(".memberRef"),
    validation = Rule::new("self.serverCode == oldSelf.serverCode")
        .message("serverCode is immutable: it is part of the server's identity")
        .field_path(".serverCode"),
    validation = Rule::new("!has(self.address) || self.address.matches('^[^:]{1,253}(:|$)')")
        .message("the host in address must have at most 253 characters: no certificate is issued for a longer DNS name")
        .field_path(".address"),
    validation = Rule::new(
        "!has(oldSelf.revocation) || (has(self.revocation) && self.revocation.upToIssueNumber >= oldSelf.revocation.upToIssueNumber)"
    )
    .message("revocation can be raised, and neither lowered nor removed: a key that was stolen stays stolen")
    .field_path(".revocation")
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityServerSpec {
    /// The member that owns the server, in the same namespace. Immutable: the owner is part of the server's identity.
    pub member_ref: MemberRef,
    /// The server's code, unique among its owner's servers, case-sensitive and immutable. Example: `ss1`.
    pub server_code: ServerCode,
    /// How many processes run, between 0 and 20. Each can serve every request; two or more survive a node. `0` takes
    /// the server out of service but keeps its registration. Default: 2.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 20))]
    pub replicas: i32,
    /// Where other security servers reach this one: a host name or address, with an optional port (5500 if unset).
    /// Unset: the in-cluster DNS name of its Service. A change issues a new TLS certificate.
    /// Example: `ss1.population.example:5500`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261), regex(pattern = ADDRESS))]
    pub address: Option<String>,
    /// Members that the server also serves, at most 100. Each must name the server in its subsystems' `servers`: both
    /// sides say so. The server gets a signing certificate for each. The owner is not listed. All whom a server serves share its
    /// trust: with `connectionType: HTTP` whoever reaches the client port may call in the name of any of them, guests' pods in
    /// the owner's name too; and a guest's service is called from this server, wherever its URL points. Give a guest of whom that
    /// must not be said a server of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["memberClass".into(), "memberCode".into()]))]
    pub guests: Vec<MemberIdRef>,
    /// Further namespaces whose pods may reach the port for information systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_access: Option<ClientAccess>,
    /// Which form of errors callers get. `XRoad78`: as X-Road 7.8 answers in practice. `Document`: as the message
    /// protocol for REST is written, 400 for a client's fault and 500 otherwise. Reaches running processes within
    /// seconds. Default: `XRoad78`.
    #[serde(default)]
    pub error_profile: ErrorProfile,
    /// Bounds of a message.
    #[serde(default)]
    pub limits: Limits,
    /// Takes back certificates of this server, all of which somebody else may have the keys of. They cannot be accepted again: this can
    /// be raised, and neither lowered nor removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// CPU and memory of each process. Unset: a request of 50m CPU and 64Mi memory and a limit of 256Mi memory. A
    /// change rolls the processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Which certificates of a server are no longer accepted.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// Every certificate of the server, for TLS and for signatures, with an issue number up to this one is refused by every gateway as
    /// soon as it has the next instance configuration: within seconds where it is connected, also in sessions that are open. New ones are
    /// issued at once. The server's processes are cut off until they have them, up to some two minutes: its kubelet refreshes the mounted
    /// Secret. `status.issueNumber` is the highest that was given out. Example: `7`.
    #[schemars(range(min = 1_i64, max = 1_000_000_000_000_i64))]
    pub up_to_issue_number: i64,
    /// Why, for whoever looks later. Example: `node-3 was stolen`.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

impl SecurityServerSpec {
    /// The lowest issue number with which a certificate is accepted; 0 where none is revoked.
    #[must_use]
    pub fn lowest_issue_number(&self) -> u64 {
        let revoked = self.revocation.as_ref().and_then(|it| u64::try_from(it.up_to_issue_number).ok());
        revoked.map_or(0, |revoked| revoked.saturating_add(1))
    }
}

/// The replicas of a server unless the spec says otherwise.
pub const DEFAULT_REPLICAS: i32 = 2;

fn default_replicas() -> i32 {
    DEFAULT_REPLICAS
}

/// What a public address looks like: a DNS name, an IPv4 address or an IPv6 address in brackets, with an optional port. A label
/// is bounded here and the host by a rule: a name that no certificate can hold would stop the renewal of a server that runs.
pub const ADDRESS: &str = r"^([A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]{2,45}\])(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?$";

/// Who else may reach the port for information systems.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAccess {
    /// Namespaces whose pods may reach the client port (8080), besides the server's own and its guests'. At most 32. A
    /// change acts at once through the NetworkPolicy. Example: `[frontend]`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = crate::refs::DNS_LABEL)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
}

/// The form of errors that callers get.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorProfile {
    /// As X-Road 7.8 answers in practice.
    #[default]
    XRoad78,
    /// As the message protocol for REST is written.
    Document,
}

/// Bounds of a message.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.maxBodyBytes) || self.maxBodyBytes <= quantity(self.spoolSize).asInteger()")
        .message("maxBodyBytes must fit into spoolSize: a body is held there until its signature is verified")
        .field_path(".maxBodyBytes")
)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The largest body of a request or a response, in bytes, between 1024 and 1 TiB. A larger one is refused. Unset:
    /// no bound but the spool. Reaches running processes within seconds. Example: `104857600`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024_i64, max = 1_099_511_627_776_i64))]
    pub max_body_bytes: Option<i64>,
    /// Size of each process's spool, where bodies above 64 KiB wait until their signature is verified, in `Mi` or `Gi`.
    /// Requests that find no room are refused. A change rolls the processes. Default: `1Gi`.
    #[serde(default = "default_spool_size")]
    #[schemars(schema_with = "spool_size_schema")]
    pub spool_size: Quantity,
}

/// The spool of each process unless the spec says otherwise.
pub const DEFAULT_SPOOL_SIZE: &str = "1Gi";

fn default_spool_size() -> Quantity {
    Quantity(DEFAULT_SPOOL_SIZE.to_owned())
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: None, spool_size: default_spool_size() }
    }
}

impl Limits {
    /// The spool's size in bytes; `None` for a text that admission refuses.
    #[must_use]
    pub fn spool_bytes(&self) -> Option<u64> {
        let text = self.spool_size.0.as_str();
        let (digits, unit) = match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
            (Some(digits), _) => (digits, 1 << 20),
            (_, Some(digits)) => (digits, 1 << 30),
            _ => return None,
        };
        digits.parse::<u64>().ok()?.checked_mul(unit)
    }
}

fn spool_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "minLength": 3, "maxLength": 7, "pattern": "^[1-9][0-9]{0,4}(Mi|Gi)$"})
}

/// CPU and memory of each process, as in a pod's `resources`.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.requests) || self.requests.all(r, r in ['cpu', 'memory', 'ephemeral-storage'])")
        .message("requests may name cpu, memory and ephemeral-storage only")
        .field_path(".requests"),
    validation = Rule::new("!has(self.limits) || self.limits.all(r, r in ['cpu', 'memory', 'ephemeral-storage'])")
        .message("limits may name cpu, memory and ephemeral-storage only")
        .field_path(".limits"),
    // The pattern of a quantity binds texts only; YAML reads `cpu: -1` as a number.
    validation = Rule::new("!has(self.requests) || self.requests.all(r, !string(self.requests[r]).startsWith('-'))")
        .message("a request must not be below zero")
        .field_path(".requests"),
    validation = Rule::new("!has(self.limits) || self.limits.all(r, !string(self.limits[r]).startsWith('-'))")
        .message("a limit must not be below zero")
        .field_path(".limits"),
    validation = Rule::new(
        "!has(self.requests) || !has(self.limits) || self.requests.all(r, !(r in self.limits) || quantity(string(self.requests[r])).compareTo(quantity(string(self.limits[r]))) <= 0)"
    )
    .message("a request must not exceed the limit of the same resource")
    .field_path(".requests")
)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is reserved, by resource name. Example: `{cpu: 100m, memory: 128Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub requests: BTreeMap<String, Quantity>,
    /// What is never exceeded, by resource name. Example: `{memory: 512Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities_schema")]
    pub limits: BTreeMap<String, Quantity>,
}

fn quantities_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": r"^[0-9]+(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
        },
    })
}

/// The observed state of a security server.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityServerStatus {
    /// The `metadata.generation` of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not; see docs/reference/conditions.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The server's full identifier, `instance/class/code/serverCode`. Example: `EE/GOV/70000001/ss1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub identity: Option<String>,
    /// Processes that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Processes that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// The highest issue number given to a certificate of this server. It never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issue_number: Option<u64>,
    /// The TLS certificate that was issued last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<LeafStatus>,
    /// The signing certificates, one for each member that the server serves. At most 101.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 101))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["member".into()]))]
    pub signing: Vec<SigningStatus>,
    /// Public keys by which the link knows the server's processes: those of its last TLS certificates. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["spkiSha256".into()]))]
    pub registered_keys: Vec<RegisteredKey>,
    /// The versions that are published for the server now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PublishedConfiguration>,
    /// What each process has stated that it has loaded: the receipts. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["podUid".into()]))]
    pub processes: Vec<ProcessReceipt>,
    /// The pods whose processes count: each from its creation until its process has said goodbye or the kubelet has reported that its
    /// container has ended. What is waited for of "every process" is waited for of these. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub pods: Vec<CountedPod>,
}

/// A pod whose process counts.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountedPod {
    /// Its UID.
    #[schemars(length(min = 1, max = 36))]
    pub uid: String,
    /// Its name, as far as it is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Since when its object is known to be gone although nobody has learnt that its process has ended (deleted by force, or the operator
    /// was not there to see it). It may still run where nobody sees it, so it counts until a person says otherwise:
    /// `TrustAnchor.spec.rotation.excluded`. Unset: the object exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished_at: Option<Time>,
    /// How often its container had been started again when its kubelet said so last. A process that says goodbye ends its pod only if it
    /// was started after that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A TLS certificate of a security server.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeafStatus {
    /// Serial number, hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// The number under which it was issued.
    pub issue_number: u64,
    /// The authority's generation that issued it.
    pub issuer_generation: u64,
    /// Until when it is valid.
    pub not_after: Time,
    /// When it is renewed; fixed at issue.
    pub renew_at: Time,
    /// DNS names in the certificate; another set is a reason to issue again. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 253)))]
    pub dns_names: Vec<String>,
}

/// A signing certificate of one member on a security server.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningStatus {
    /// The member that signs, `class/code`. Example: `GOV/70000001`.
    #[schemars(length(max = 256))]
    pub member: String,
    /// Serial number, hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// The number under which it was issued.
    pub issue_number: u64,
    /// The authority's generation that issued it.
    pub issuer_generation: u64,
    /// Until when it is valid.
    pub not_after: Time,
    /// When it is renewed; fixed at issue.
    pub renew_at: Time,
}

/// A public key by which the link knows a process.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredKey {
    /// SHA-256 of the certificate's SubjectPublicKeyInfo, 64 hexadecimal digits.
    #[schemars(length(max = 64))]
    pub spki_sha256: String,
    /// The number under which its certificate was issued.
    pub issue_number: u64,
    /// Until when its certificate is valid.
    pub not_after: Time,
    /// The authority's generation that issued its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_generation: Option<u64>,
    /// The same hash of each signing key whose certificate was issued with it. In an emergency peers accept these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub signing_keys: Vec<String>,
}

/// The versions that are published for a server.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedConfiguration {
    /// Version of the server configuration.
    pub server_version: u64,
    /// Version of the instance configuration when this was written. It is not written anew for every change of the
    /// instance configuration, only when the bundle sequence or something else here changes.
    pub instance_version: u64,
    /// Sequence of the bundle in the instance configuration.
    pub bundle_sequence: u64,
}

/// What one process has loaded: its receipt.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReceipt {
    /// UID of the pod.
    #[schemars(length(min = 1, max = 36))]
    pub pod_uid: String,
    /// Counts the process's starts in this pod. A receipt of an earlier one never replaces a later.
    pub incarnation: u64,
    /// Version of the instance configuration that it runs on.
    pub instance_version: u64,
    /// Version of the server configuration that it runs on.
    pub server_version: u64,
    /// Sequence of the bundle that it trusts.
    pub bundle_sequence: u64,
    /// SHA-256 of the bundle that it trusts, `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub bundle_hash: String,
    /// Issue number of the identity that it uses.
    pub leaf_issue_number: u64,
    /// Serial number of the TLS certificate that it uses, hexadecimal.
    #[schemars(length(max = 64))]
    pub leaf_serial: String,
    /// Generations of authorities other than the one that issues now whose certificates, its own or its peers', are in use in
    /// sessions that are still open. Unset: it does not say. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub old_sessions: Option<Vec<u64>>,
    /// When it began to serve without having met the operator or any other server: until it met one it may have run on a
    /// configuration that was not the newest. Unset: it had met one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_alone: Option<Time>,
    /// When its end was learnt: it has said goodbye, or the kubelet has reported that its container has ended. It counts no more; a
    /// later start in the same pod states anew. Unset: it has not ended, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// The highest format of documents that it can read.
    pub highest_format: u32,
    /// When this was written; it is written only when something in it has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_at: Option<Time>,
}
