//! What the two signed documents say: the instance configuration, one for all, and the server configuration, one for
//! each security server.

use jiff::Timestamp;
use saatkond_pki::configuration_key::ConfigurationPublicKey;
use serde::{Deserialize, Serialize};

use crate::document::Payload;
use crate::identifier::{ClientId, MemberId, ServerId};

/// Who takes part, how to reach them and whom to trust: the same for all gateways of an instance, written by the
/// authority's operator alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfiguration {
    /// [`crate::document::FORMAT`] of the writer.
    pub format: u32,
    /// The instance, for example `EE`.
    pub instance: String,
    /// The name of the TrustAnchor: part of the link's server name.
    pub trust_anchor: String,
    /// Rises with every change and never goes back.
    pub version: u64,
    /// Rises only when the bundle or the signing generation changes. Guards of a rotation compare this one.
    pub bundle_sequence: u64,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// From then on nobody may use it.
    pub expires_at: Timestamp,
    /// The certificates trusted in handshakes and signatures now.
    pub bundle: Vec<AuthorityEntry>,
    /// The generation that signs leaves now.
    pub signing_generation: u64,
    /// How far a change of the authority is; absent where there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationEntry>,
    /// Set while authorities of the bundle are compromised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<EmergencyEntry>,
    /// Who may sign the next documents.
    pub configuration_keys: ConfigurationKeys,
    /// Every registered member with its subsystems, ordered by class and code.
    pub members: Vec<MemberEntry>,
    /// Every registered security server, ordered by owner and code.
    pub servers: Vec<ServerEntry>,
    /// Groups that access rights may name, ordered by code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub global_groups: Vec<GroupEntry>,
}

impl Payload for InstanceConfiguration {
    const TYPE: &'static str = "saatkond-instance-configuration";
}

/// One CA generation in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityEntry {
    /// Counts the authorities of a trust anchor.
    pub generation: u64,
    /// The certificate in PEM.
    pub certificate: String,
}

/// Authorities whose keys somebody else may have, and that are still trusted for the leaves that the operator has issued with them and for no
/// other ones: the entry of each server names the keys of its leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmergencyEntry {
    /// Their generations, ascending.
    pub compromised_generations: Vec<u64>,
}

/// How far the change from one authority to the next is. It stands in the document so that phase, bundle and who signs are one
/// write (ADR 10); gateways do not act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationEntry {
    /// The phase.
    pub phase: RotationPhase,
    /// The generation beside the one that signs: announced, replaced or withdrawn. Absent when stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<u64>,
    /// Whether this is the way back from a change that was cancelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returning: bool,
    /// The highest generation that was ever announced.
    pub highest: u64,
    /// The requests that were taken up, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<String>,
    /// Since when the phase is published.
    pub since: Timestamp,
}

/// The phases of a change of the authority that are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotationPhase {
    /// One authority is trusted, and signs.
    Stable,
    /// The next one is trusted, and signs nothing yet.
    Announcing,
    /// The next one signs; leaves of the old one are still trusted.
    Switching,
    /// The old one is no longer trusted.
    Retiring,
    /// The announced one is no longer trusted; it has signed nothing.
    RollingBack,
}

/// The keys that may sign documents: the current one and the one that follows it, announced ahead so that a change of
/// key needs no other channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationKeys {
    /// Signs now.
    pub current: ConfigurationKeyEntry,
    /// Signs after it.
    pub next: ConfigurationKeyEntry,
}

/// One configuration key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationKeyEntry {
    /// Counts the configuration keys of a trust anchor.
    pub generation: u64,
    /// The public key.
    pub key: ConfigurationPublicKey,
}

/// A registered member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberEntry {
    /// The member class.
    pub member_class: String,
    /// The member code.
    pub member_code: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its registered subsystems, ordered by code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subsystems: Vec<SubsystemEntry>,
}

/// A registered subsystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubsystemEntry {
    /// The subsystem code.
    pub code: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A registered security server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerEntry {
    /// Class and code of the member that owns it.
    pub member_class: String,
    /// Code of the owner.
    pub member_code: String,
    /// The server code.
    pub server_code: String,
    /// Where its port for other servers is reached: `host:port`.
    pub address: String,
    /// Whom it serves: the owner's and guests' members and subsystems. The owner itself is always served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ServedClient>,
    /// The lowest issue number with which a leaf of this server is accepted, for TLS and for signatures: those below are revoked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lowest_issue_number: u64,
    /// In an emergency: SHA-256 of the SubjectPublicKeyInfo, in lower-case hex and ascending, of each leaf that a compromised authority has
    /// issued to this server. Its other leaves under such an authority are minted by somebody else, and are refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issued_keys: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A client that a server serves, without the instance (it is the document's).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServedClient {
    /// The member class.
    pub member_class: String,
    /// The member code.
    pub member_code: String,
    /// The subsystem; absent for the member itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<String>,
}

/// A global or local group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupEntry {
    /// The group code.
    pub code: String,
    /// The clients in it, exactly: a member does not stand for its subsystems, nor the reverse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ClientId>,
}

impl InstanceConfiguration {
    /// The server with this id, if it is registered.
    #[must_use]
    pub fn server(&self, id: &ServerId) -> Option<&ServerEntry> {
        self.servers.iter().find(|entry| entry.is(&self.instance, id))
    }

    /// Whether the client is registered: its member, and its subsystem where it names one.
    #[must_use]
    pub fn has_client(&self, client: &ClientId) -> bool {
        client.member.instance == self.instance
            && self.members.iter().any(|entry| {
                entry.member_class == client.member.member_class
                    && entry.member_code == client.member.member_code
                    && client.subsystem.as_ref().is_none_or(|code| entry.subsystems.iter().any(|s| s.code == *code))
            })
    }
}

impl ServerEntry {
    /// The server's id in `instance`.
    #[must_use]
    pub fn id(&self, instance: &str) -> ServerId {
        let owner = MemberId {
            instance: instance.to_owned(),
            member_class: self.member_class.clone(),
            member_code: self.member_code.clone(),
        };
        ServerId { owner, server_code: self.server_code.clone() }
    }

    fn is(&self, instance: &str, id: &ServerId) -> bool {
        instance == id.owner.instance
            && self.member_class == id.owner.member_class
            && self.member_code == id.owner.member_code
            && self.server_code == id.server_code
    }

    /// Whether the server may act for `client` (of the document's own instance): its owner, or a client listed for it.
    #[must_use]
    pub fn serves(&self, client: &ClientId) -> bool {
        let owner = client.subsystem.is_none()
            && self.member_class == client.member.member_class
            && self.member_code == client.member.member_code;
        owner
            || self.clients.iter().any(|served| {
                served.member_class == client.member.member_class
                    && served.member_code == client.member.member_code
                    && served.subsystem == client.subsystem
            })
    }
}

/// What one security server offers and to whom, written by the operator of its own cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerConfiguration {
    /// [`crate::document::FORMAT`] of the writer.
    pub format: u32,
    /// The server that it is for.
    pub server: ServerId,
    /// Rises with every change and never goes back.
    pub version: u64,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// From then on nobody may use it.
    pub expires_at: Timestamp,
    /// Which statuses this server's own errors have.
    pub error_profile: ErrorProfile,
    /// The clients of this server, ordered by id.
    pub clients: Vec<ClientEntry>,
    /// Bounds of this server.
    pub limits: Limits,
}

impl Payload for ServerConfiguration {
    const TYPE: &'static str = "saatkond-server-configuration";
}

/// Where X-Road's document and its code differ, which of them own errors follow (design §6.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ErrorProfile {
    /// As X-Road 7.8 does: every own error of a call is 500. What callers have met.
    #[default]
    XRoad78,
    /// As the protocol document says: 400 for what the caller did wrong, 500 otherwise.
    Document,
}

/// A member or subsystem that uses this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientEntry {
    /// Who it is.
    pub id: ClientId,
    /// How its information systems connect.
    pub connection_type: ConnectionType,
    /// What it offers, ordered by code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceEntry>,
    /// Groups that its access rights may name, ordered by code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_groups: Vec<GroupEntry>,
}

/// How a client's information systems connect to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionType {
    /// Plain HTTP.
    #[serde(rename = "HTTP")]
    Http,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEntry {
    /// The service code.
    pub code: String,
    /// How it is described.
    pub description: ServiceDescription,
    /// What is called: this, then what follows the service code in the request.
    pub url: String,
    /// The longest silence of the information system between two bytes, in seconds; 0 for no bound.
    pub timeout_seconds: u32,
    /// Set while the service is out of order: the notice that authorised callers get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
    /// Who may call it. Nobody else may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessRight>,
}

/// How a service is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceDescription {
    /// By its base path alone.
    #[serde(rename = "REST")]
    Rest,
    /// By an OpenAPI 3 document.
    #[serde(rename = "OPENAPI3")]
    OpenApi3,
}

/// One subject's right on a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRight {
    /// Who.
    pub subject: Subject,
    /// On which endpoints; absent for the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
}

/// Who an access right is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// Exactly this client.
    Client(ClientId),
    /// Every client in the global group of this code.
    GlobalGroup(String),
    /// Every client in the local group of this code of the service's own client.
    LocalGroup(String),
}

/// A method and a path pattern (gateway.md 9.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// A method, or `*`.
    pub method: String,
    /// A pattern on what follows the service code: `*` any run without `/`, `**` any run.
    pub path: String,
}

/// Bounds of a server. All sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The largest body of a request or response; absent for no bound but the spool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// How much may be spooled to disk at one time, over all calls.
    pub spool_bytes: u64,
}
