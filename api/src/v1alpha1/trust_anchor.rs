//! `TrustAnchor`: an instance's trust, its leaf policy, its admission and its global groups.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Period;
use crate::identifiers::{GroupCode, InstanceCode};
use crate::refs::{ClientIdRef, OperatorSecretRef};

/// The desired state of an instance's trust.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "saatkond.io",
    version = "v1alpha1",
    kind = "TrustAnchor",
    plural = "trustanchors",
    shortname = "ta",
    category = "saatkond",
    status = "TrustAnchorStatus",
    derive = "PartialEq",
    doc = "TrustAnchor is one instance's trust: its certificate authority, the policy of the certificates issued under it, who may join, and the groups that all members share.",
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Servers", type_ = "integer", json_path = ".status.counts.securityServers"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.rotation.phase"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.bundle.sequence"),
    printcolumn(name = "Acked", type_ = "string", json_path = ".status.rotation.acknowledged"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Serves-Until",
        type_ = "date",
        json_path = ".status.servesWithoutOperatorUntil",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')")
        .message("the name must have at most 63 characters and no dots: it is part of a host name and of labels")
)]
#[x_kube(
    validation = Rule::new("self.instance == oldSelf.instance")
        .message("instance is immutable: it stands in every certificate")
        .field_path(".instance"),
    validation = Rule::new(
        "duration(self.leafPolicy.maxLifetime).getSeconds() * 35 >= duration(self.autonomy).getSeconds() * 100"
    )
    .message("leafPolicy.maxLifetime leaves less than autonomy: certificates are renewed at 65 % of life at the latest, so 0.35 * maxLifetime must be at least autonomy")
    .field_path(".leafPolicy"),
    validation = Rule::new(
        "!has(self.source.managed) || duration(self.source.managed.lifetime).getSeconds() >= duration(self.source.managed.retirement).getSeconds() + duration(self.leafPolicy.maxLifetime).getSeconds()"
    )
    .message("source.managed.lifetime is shorter than retirement plus leafPolicy.maxLifetime: no certificate of full length could ever be issued")
    .field_path(".source"),
    validation = Rule::new("duration(self.autonomy) >= duration('1m') && duration(self.autonomy) <= duration('2160h')")
        .message("autonomy must be between 1m and 2160h (90 days)")
        .field_path(".autonomy"),
    validation = Rule::new("!has(self.rotation) || has(self.source.managed) || (!has(self.rotation.requestID) && !has(self.rotation.cancel) && !has(self.rotation.startAtPercent) && !has(self.rotation.windows))")
        .message("rotation is of a managed authority; an external one rotates by its list of certificates")
        .field_path(".rotation"),
    validation = Rule::new("!has(self.emergency) || has(self.source.managed)")
        .message("emergency is of a managed authority; a compromised external one is taken off source.external.certificates")
        .field_path(".emergency")
)]
#[serde(rename_all = "camelCase")]
pub struct TrustAnchorSpec {
    /// The instance's identifier, the first part of every identifier in the federation. Case-sensitive and immutable:
    /// it stands in every certificate. Example: `EE`.
    pub instance: InstanceCode,
    /// Where the authority's certificates come from: exactly one of `managed` and `external`.
    pub source: TrustSource,
    /// Policy of the certificates that are issued to security servers. A change acts at each certificate's next
    /// renewal.
    #[serde(default)]
    pub leaf_policy: LeafPolicy,
    /// The change of a managed authority for another one, key and all, without a request that fails on the way. See
    /// docs/rotation.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Somebody else may have the key of a managed authority: from when this is set, certificates of that authority that Saatkond has not
    /// issued are refused within seconds, and another authority takes its place. See docs/rotation.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
    /// For how long the federation must go on exchanging messages with its operator gone, at any moment. Signed
    /// documents live for this plus one day; a leaf policy that leaves less is refused. Between `1m` and `2160h` (90
    /// days). Default: `72h`.
    #[serde(default = "default_autonomy")]
    pub autonomy: Period,
    /// Who may claim a member identity of this instance. `Annotated`: a namespace that the governing authority has
    /// annotated with `saatkond.io/member-identities`. `Open`: any namespace, for development; a condition says so.
    /// Default: `Annotated`.
    #[serde(default)]
    pub admission: AdmissionMode,
    /// Groups of members and subsystems that any member of the instance may name in an access right. A change reaches
    /// running security servers within seconds. At most 64 groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["code".into()]))]
    pub global_groups: Vec<GlobalGroup>,
}

/// A change of the authority.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.requestID) || !(self.requestID.startsWith('scheduled-') || self.requestID.startsWith('emergency-'))")
        .message("requestID must not begin with scheduled- or emergency-: changes that begin by themselves are called so")
        .field_path(".requestID")
)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// A new value begins a change: another authority is made, announced to every process, then issues every certificate anew, and the
    /// old one is retired. Each step waits until every process has stated that it is ready for it; `status` names who is waited for.
    /// A value never begins a second change, and the one that a TrustAnchor is created with begins none. 1 to 63 characters.
    /// Example: `2027-annual`.
    #[serde(default, rename = "requestID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub request_id: Option<String>,
    /// The value of `requestID` whose change is to be undone. While the next authority is only announced it is withdrawn; later the
    /// old one issues every certificate again, once every process has stated that it trusts both. It has no effect on a change that is
    /// complete, and cannot itself be undone: ask for another change. Example: `2027-annual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub cancel: Option<String>,
    /// A change begins by itself once so much of the life of the authority that issues is over, in percent. It is called `scheduled-`
    /// and the generation that follows. While `cancel` names the last change none begins by itself. Between 10 and 55: at 60 the alert about an
    /// authority without a successor fires. Default: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 55))]
    pub start_at_percent: Option<u8>,
    /// When a change may begin, asked for or by itself: while any of these is open; at any time if there are none. Once begun it goes on to
    /// its end, and renewals never wait. None of them holds a change up once the authority that issues has less than `source.managed.retirement` and twice
    /// `leafPolicy.maxLifetime` left. `status.rotation.nextStart` says when the next one begins. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub windows: Vec<MaintenanceWindow>,
    /// Processes that no change waits for any more. A process whose pod has vanished without a word counts until it stands here: nobody
    /// but you can know that it does not run. What is excluded and does run fails calls once a change goes on without it. Renewals,
    /// receipts and everything else of such a process go on as before. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub excluded: Vec<Exclusion>,
}

/// An authority whose key somebody else may have.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emergency {
    /// The authority's generation, as `status.authorities` numbers it. While it issues, a change to another authority begins at once, whatever
    /// windows or a pause say; while it is only announced, or takes over from another one, that change is taken back. Example: `7`.
    #[schemars(range(min = 1))]
    pub compromised_generation: u64,
    /// Since when somebody else may have had the key. It goes on record in `status.history`: a signature under this authority that is not proven
    /// to be older proves nothing. RFC 3339. Example: `2027-02-27T08:00:00Z`.
    pub compromised_since: Time,
    /// Servers whose own keys are compromised as well. Their certificates under this authority are refused at once, and no
    /// change waits for them. They get certificates of the next authority like all others: one that must not come back is
    /// to be deleted. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub compromised_servers: Vec<ExcludedServer>,
    /// When the authority is dropped even if somebody is not ready for it: whoever still uses it fails calls from then on. The next one issues ten
    /// minutes before it at the latest. `status.emergency.uncovered` names who that would be. Unset: everybody is waited for but the compromised servers, and the
    /// certificates that Saatkond has issued go on being accepted meanwhile. RFC 3339. Example: `2027-03-01T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_at: Option<Time>,
    /// Why, for those who read it later. 1 to 256 characters. Example: `backup of the old cluster was stolen`.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

/// The share of an authority's life after which it is replaced unless the spec says otherwise, in percent.
pub const DEFAULT_START_AT_PERCENT: u8 = 50;

/// A time that comes again and again.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("duration(self.duration) >= duration('10m') && duration(self.duration) <= duration('168h')")
        .message("duration must be between 10m and 168h (a week)")
        .field_path(".duration")
)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When it opens: minute, hour, day of month, month and day of week, as in crontab(5). At most 100 characters. Example:
    /// `0 2 * * 1-4`, at two in the night from Monday to Thursday.
    #[schemars(length(max = 100), regex(pattern = r"^[^ ]+( [^ ]+){4}$"))]
    pub cron: String,
    /// The time zone of `cron`, by its name in the IANA database; summer time is kept. At most 64 characters. Default: `UTC`. Example:
    /// `Europe/Tallinn`.
    #[serde(default = "default_time_zone")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: String,
    /// How long it stays open. Between `10m` and `168h` (a week). Example: `3h`.
    pub duration: Period,
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

/// A server, or one process of it, that no change of the authority waits for.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exclusion {
    /// The SecurityServer.
    pub server: ExcludedServer,
    /// UID of the pod, as `status.blocking` of the TrustAnchor and `status.pods` of the SecurityServer give it. Where that pod has
    /// vanished it is forgotten, unless it states something after all. Unset: all processes of the server. Example: `8a0e6c1c-0d4f-4b8e-9d5e-0f6f3a2b7c11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 36))]
    pub process: Option<String>,
    /// Why, for those who read it later. 1 to 256 characters. Example: `node-7 burnt down`.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// Until when. After it the server, or the process if it is still known, is waited for again. RFC 3339. Example:
    /// `2027-01-31T12:00:00Z`.
    pub until: Time,
}

/// A SecurityServer by name.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedServer {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// The autonomy that a trust anchor has unless it says otherwise: three days.
pub const DEFAULT_AUTONOMY: Period = Period::hours(72);

fn default_autonomy() -> Period {
    DEFAULT_AUTONOMY
}

/// Where the authority's certificates come from. Exactly one field is set.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.managed) != has(self.external)")
        .message("exactly one of managed and external must be set"),
    validation = Rule::new("has(self.managed) == has(oldSelf.managed)")
        .message("the kind of source is immutable: make a new TrustAnchor")
)]
#[serde(rename_all = "camelCase")]
pub struct TrustSource {
    /// Saatkond makes the certificate authority and keeps its key in a Secret in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedSource>,
    /// The certificates of an authority that exists elsewhere, a partner's or an offline root's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSource>,
}

/// The one source that a [`TrustSource`] names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SourceChoice<'a> {
    /// Made and kept by Saatkond.
    Managed(&'a ManagedSource),
    /// Given from outside.
    External(&'a ExternalSource),
}

impl TrustSource {
    /// The source that is set. `None` if not exactly one is, which admission refuses.
    #[must_use]
    pub fn choice(&self) -> Option<SourceChoice<'_>> {
        match (&self.managed, &self.external) {
            (Some(managed), None) => Some(SourceChoice::Managed(managed)),
            (None, Some(external)) => Some(SourceChoice::External(external)),
            _ => None,
        }
    }
}

/// A certificate authority that Saatkond makes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.algorithm == oldSelf.algorithm")
        .message("algorithm is immutable: a new algorithm needs a new authority")
        .field_path(".algorithm"),
    validation = Rule::new("duration(self.lifetime) == duration(oldSelf.lifetime)")
        .message("lifetime is immutable: a certificate cannot be changed")
        .field_path(".lifetime"),
    validation = Rule::new("duration(self.lifetime) >= duration('1h') && duration(self.lifetime) <= duration('219000h')")
        .message("lifetime must be between 1h and 219000h (25 years)")
        .field_path(".lifetime"),
    validation = Rule::new("duration(self.retirement) >= duration('1m')")
        .message("retirement must be at least 1m")
        .field_path(".retirement")
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSource {
    /// Key algorithm of the authority: `ECDSA-P256`, `ECDSA-P384`, `Ed25519` or `RSA-3072`. Immutable: a new
    /// algorithm needs a new authority. Default: `ECDSA-P256`.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
    /// How long the authority's certificate is valid, from its making. Immutable: a certificate cannot be changed.
    /// Between `1h` and `219000h` (25 years). Default: `8760h` (one year).
    #[serde(default = "default_ca_lifetime")]
    pub lifetime: Period,
    /// How long before the authority's certificate expires the last certificate issued under it must have expired.
    /// A change acts at the next issue. Default: `24h`.
    #[serde(default = "default_retirement")]
    pub retirement: Period,
}

/// The life of a managed authority's certificate unless the spec says otherwise: one year.
pub const DEFAULT_CA_LIFETIME: Period = Period::hours(8760);
/// The time kept free at the end of an authority's life unless the spec says otherwise: one day.
pub const DEFAULT_RETIREMENT: Period = Period::hours(24);

impl Default for ManagedSource {
    fn default() -> Self {
        Self { algorithm: KeyAlgorithm::default(), lifetime: DEFAULT_CA_LIFETIME, retirement: DEFAULT_RETIREMENT }
    }
}

fn default_ca_lifetime() -> Period {
    DEFAULT_CA_LIFETIME
}

fn default_retirement() -> Period {
    DEFAULT_RETIREMENT
}

/// Key algorithm of a certificate authority.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256.
    #[default]
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on NIST P-384 with SHA-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// Ed25519 (RFC 8410).
    #[serde(rename = "Ed25519")]
    Ed25519,
    /// RSA with a modulus of 3072 bits and SHA-256.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
}

/// An authority that exists elsewhere.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSource {
    /// The trusted CA certificates, PEM, one certificate an entry, at most 8. They are all in the bundle; the one whose
    /// key is in `signingKeySecretRef` issues. Adding or removing one publishes a new bundle at once; while one of them cannot be
    /// read, what is published stays.
    #[schemars(length(min = 1, max = 8), inner(length(max = 16384), regex(pattern = CERTIFICATE)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub certificates: Vec<String>,
    /// Secret in the operator's namespace whose entry `tls.key` holds the private key (PKCS#8 PEM) of one of the
    /// certificates. Unset: nothing can be issued here, a condition says so, and servers keep the leaves they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_secret_ref: Option<OperatorSecretRef>,
}

/// What a certificate looks like: one PEM block, blanks around it, no key.
pub const CERTIFICATE: &str = r"^\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*$";

/// Policy of the certificates issued to security servers.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        "duration(self.maxLifetime) >= duration('10m') && duration(self.maxLifetime) <= duration('8760h')"
    )
    .message("maxLifetime must be between 10m and 8760h (one year)")
    .field_path(".maxLifetime")
)]
#[serde(rename_all = "camelCase")]
pub struct LeafPolicy {
    /// The longest life of a security server's certificates, TLS and signing. They are renewed when 55 to 65 % of it
    /// has passed, so what is left then must cover `autonomy`. Between `10m` and `8760h`. Default: `360h` (15 days).
    #[serde(default = "default_leaf_lifetime")]
    pub max_lifetime: Period,
}

/// The longest life of a leaf unless the spec says otherwise: 15 days.
pub const DEFAULT_LEAF_LIFETIME: Period = Period::hours(360);

fn default_leaf_lifetime() -> Period {
    DEFAULT_LEAF_LIFETIME
}

impl Default for LeafPolicy {
    fn default() -> Self {
        Self { max_lifetime: DEFAULT_LEAF_LIFETIME }
    }
}

/// Who may claim a member identity.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AdmissionMode {
    /// A namespace that the governing authority has annotated with the identity.
    #[default]
    Annotated,
    /// Any namespace. For development.
    Open,
}

/// A group that all members of the instance may grant rights to.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GlobalGroup {
    /// The group's code, case-sensitive. Example: `hospitals`.
    pub code: GroupCode,
    /// What the group is for, in words. At most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub description: Option<String>,
    /// Who belongs to the group. Entries match exactly: a member does not cover its subsystems. At most 2000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    pub members: Vec<ClientIdRef>,
}

/// The observed state of an instance's trust.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustAnchorStatus {
    /// The `metadata.generation` of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not; see docs/reference/conditions.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The trusted CA certificates that are published now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// The authority's generations, oldest first. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["generation".into()]))]
    pub authorities: Vec<AuthorityStatus>,
    /// Every authority that was ever trusted, by generation: what was signed under one that is retired is verified
    /// with these. They are trusted in no handshake for standing here. The last 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub history: Vec<PastAuthority>,
    /// The generation that issues new certificates. Unset while nothing can be issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_generation: Option<u64>,
    /// How far a change of a managed authority is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// The instance configuration that is published now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<InstanceConfigurationStatus>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<TrustAnchorCounts>,
    /// The first 20 processes that have not stated what is waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub blocking: Vec<BlockingProcess>,
    /// Certificates of servers that are revoked, the newest first, and who has not confirmed that it refuses them. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub revocations: Vec<RevocationStatus>,
    /// What has come of `spec.emergency`, while the compromised authority is trusted or its end is not stated by all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<EmergencyStatus>,
    /// Until when the federation goes on exchanging messages if the operator stops now: the weakest of the signed
    /// documents and all certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves_without_operator_until: Option<Time>,
}

/// Revoked certificates of a server.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevocationStatus {
    /// Namespace of the SecurityServer.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the SecurityServer.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Every certificate of the server with an issue number up to this one is revoked.
    pub up_to_issue_number: i64,
    /// The instance configuration with which it was first seen published. A process that has loaded this one, or a later one, refuses them.
    pub instance_version: u64,
    /// How many processes of the instance, of how many, have stated that they have. Example: `38/40`.
    #[schemars(length(max = 23))]
    pub confirmed: String,
    /// The first 20 that have not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 512)))]
    pub waiting_for: Vec<String>,
    /// From when on the last of them must refuse: a process that hears of nothing serves by an older document until that expires.
    pub refused_by: Time,
}

/// How far an emergency is.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmergencyStatus {
    /// The generation that is compromised.
    pub compromised_generation: u64,
    /// The instance configuration with which it was first seen published. A process that has loaded this one, or a later one, refuses
    /// certificates of the compromised authority that Saatkond has not issued.
    pub instance_version: u64,
    /// How many processes of the instance, of how many, have stated that they have. Example: `38/40`.
    #[schemars(length(max = 23))]
    pub confirmed: String,
    /// The first 20 that have not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 512)))]
    pub waiting_for: Vec<String>,
    /// From when on the last of them must refuse: a process that hears of nothing serves by an older document until that expires.
    pub refused_by: Time,
    /// How many servers and processes would fail calls if the authority were dropped now, or do since it was.
    pub uncovered_count: u32,
    /// The first 20 of them, and why. Servers that are named as compromised are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 512)))]
    pub uncovered: Vec<String>,
}

/// The published bundle.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleStatus {
    /// Rises by one with each change of the bundle or of the signing generation, and with nothing else.
    pub sequence: u64,
    /// SHA-256 of the bundle, `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub hash: String,
    /// The generations whose certificates are in the bundle, ascending.
    #[schemars(length(max = 16))]
    pub generations: Vec<u64>,
}

/// How far a change of the authority is, as it is published.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// The phase.
    pub phase: RotationPhase,
    /// Since when.
    pub since: Time,
    /// The generation that issues.
    pub signing_generation: u64,
    /// The generation beside it: announced, replaced or withdrawn. Unset when stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_generation: Option<u64>,
    /// Whether this is the way back from a change that was cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returning: bool,
    /// The highest generation that was ever announced; none of them is used for another authority.
    pub highest_generation: u64,
    /// The requests that were taken up, oldest first. At most 128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 63)))]
    pub requests: Vec<String>,
    /// How many processes, of how many, have stated what the phase waits for. Example: `38/40`.
    #[schemars(length(max = 23))]
    pub acknowledged: String,
    /// While switching: which servers have their turn to get certificates of the authority that issues now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissuing: Option<Reissuing>,
    /// When stable: the next change, and when it begins. Unset once its time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_start: Option<NextStart>,
}

/// The next change of the authority.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextStart {
    /// What it is called: a `requestID`, or `scheduled-` and the generation that follows.
    #[schemars(length(max = 63))]
    pub request: String,
    /// When it begins, as long as nothing is changed: at a share of the authority's life, or when a maintenance window opens.
    pub at: Time,
}

/// Which servers get certificates of the next authority now.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reissuing {
    /// The wave. The next one begins when every process of the servers in this one presents its new certificate.
    pub wave: ReissuingWave,
    /// The last of them in the order, by the first 16 hexadecimal digits of SHA-256 of the generation, a line feed and the server's identifier.
    /// Unset: all have their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub up_to: Option<String>,
}

/// How many servers get new certificates at a time.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReissuingWave {
    /// One.
    Canary,
    /// A tenth.
    Tenth,
    /// All.
    All,
}

/// The phase of a change of the authority.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RotationPhase {
    /// One authority is trusted, and issues.
    Stable,
    /// A change was asked for: the next authority is made, or the end of the last change is waited for.
    Preparing,
    /// The next authority is trusted, and issues nothing yet.
    Announcing,
    /// The next authority issues every certificate anew; those of the old one are still trusted.
    Switching,
    /// The old authority is no longer trusted.
    Retiring,
    /// The announced authority is withdrawn; it has issued nothing.
    RollingBack,
}

/// An authority that is or was trusted.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastAuthority {
    /// Counts the authorities of the anchor.
    pub generation: u64,
    /// Its certificate, in PEM (RFC 7468).
    #[schemars(length(max = 8192))]
    pub certificate: String,
    /// Since when it was seen to be trusted.
    pub trusted_since: Time,
    /// When it was seen to be trusted no more. Unset while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_until: Option<Time>,
    /// Since when somebody else may have had its key, as `spec.emergency.compromisedSince` said. Unset: nothing of the kind is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromised_since: Option<Time>,
}

/// One generation of the authority.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// The generation's number; rises with each new authority.
    pub generation: u64,
    /// What the generation is used for. `Active`: trusted, and issues if it is the signing generation.
    pub state: AuthorityState,
    /// Serial number of its certificate, hexadecimal.
    #[schemars(length(max = 64))]
    pub serial: String,
    /// Subject key identifier of its certificate, hexadecimal.
    #[schemars(length(max = 128))]
    pub ski: String,
    /// From when its certificate is valid.
    pub not_before: Time,
    /// Until when its certificate is valid.
    pub not_after: Time,
}

/// What a generation of the authority is used for.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthorityState {
    /// In the bundle; issues if it is the signing generation.
    Active,
    /// In the bundle, past the last moment at which a certificate could be issued under it.
    Expiring,
    /// Its certificate has expired.
    Expired,
}

/// The published instance configuration.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfigurationStatus {
    /// Rises with each change; never goes back.
    pub version: u64,
    /// When it was signed.
    pub signed_at: Time,
    /// Until when it is accepted: signing plus `autonomy` plus one day. It is signed again daily.
    pub expires_at: Time,
    /// Generation of the configuration key that signed it.
    pub key_generation: u64,
    /// Generation of the next configuration key, which the document names ahead.
    pub next_key_generation: u64,
}

/// Numbers of an instance.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustAnchorCounts {
    /// Members that are registered in the instance configuration.
    pub members: u32,
    /// Security servers that are registered in the instance configuration.
    pub security_servers: u32,
    /// Processes of those servers, pending and terminating ones among them.
    pub processes: u32,
    /// Processes whose receipt says all that is waited for: the published bundle sequence and, while another authority takes over,
    /// that nothing of the old one is in use.
    pub receipts_current: u32,
}

/// A process that has not loaded the published bundle or, while another authority takes over, still uses the old one.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockingProcess {
    /// Namespace of its SecurityServer.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of its SecurityServer.
    #[schemars(length(max = 253))]
    pub name: String,
    /// UID of its pod. Unset where it is the server itself, or a pod of which no more is known than that it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub pod_uid: Option<String>,
    /// Why it blocks; a reason of docs/reference/conditions.md.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Since when.
    pub since: Time,
}
