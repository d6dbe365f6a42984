//! `Member`: an organisation of the federation, its subsystems, services and access rights.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identifiers::{GroupCode, MemberClass, MemberCode, ServiceCode, SubsystemCode};
use crate::refs::{ClientIdRef, ConfigMapEntryRef, SecurityServerRef, TrustAnchorRef};

/// The desired state of a member.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "saatkond.io",
    version = "v1alpha1",
    kind = "Member",
    plural = "members",
    shortname = "mbr",
    category = "saatkond",
    namespaced,
    status = "MemberStatus",
    derive = "PartialEq",
    selectable = ".spec.trustAnchorRef.name",
    doc = "Member is an organisation in an instance: its identity, its subsystems with their services, and who may call them.",
    printcolumn(name = "Identity", type_ = "string", json_path = ".status.identity"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Services", type_ = "integer", json_path = ".status.services"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Anchor", type_ = "string", json_path = ".spec.trustAnchorRef.name", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    validation = Rule::new("self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')")
        .message("the name must have at most 63 characters and no dots: it is part of labels")
)]
#[x_kube(
    validation = Rule::new("self.trustAnchorRef.name == oldSelf.trustAnchorRef.name")
        .message("trustAnchorRef is immutable: the instance is part of the member's identity")
        .field_path(".trustAnchorRef"),
    validation = Rule::new("self.memberClass == oldSelf.memberClass")
        .message("memberClass is immutable: it is part of the member's identity")
        .field_path(".memberClass"),
    validation = Rule::new("self.memberCode == oldSelf.memberCode")
        .message("memberCode is immutable: it is part of the member's identity")
        .field_path(".memberCode")
)]
#[serde(rename_all = "camelCase")]
pub struct MemberSpec {
    /// The trust anchor of the instance that the member belongs to. Immutable: the instance is part of the identity.
    pub trust_anchor_ref: TrustAnchorRef,
    /// The member's class, case-sensitive and immutable. Example: `GOV`.
    pub member_class: MemberClass,
    /// The member's code, unique in its class, case-sensitive and immutable. Example: `"70000001"` (quoted, or YAML
    /// reads a number).
    pub member_code: MemberCode,
    /// The member's name for people, published to the whole instance. At most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub display_name: Option<String>,
    /// The member's subsystems: the clients and providers of services. At most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["code".into()]))]
    pub subsystems: Vec<Subsystem>,
}

/// A subsystem: one information system of the member, as client and as provider.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        // Lower-cased once, outside the loops: inside them the estimated cost would exceed the API server's budget.
        "!has(self.services) || [self.services.map(s, s.code.lowerAscii())].all(codes, codes.all(a, codes.exists_one(b, a == b)))"
    )
    .message("service codes must be unique in a subsystem ignoring case")
    .field_path(".services")
)]
#[serde(rename_all = "camelCase")]
pub struct Subsystem {
    /// The subsystem's code, unique in the member, case-sensitive. Example: `population`. Another code is another
    /// subsystem: callers and rights that name the old one stop matching.
    pub code: SubsystemCode,
    /// The subsystem's name for people. At most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub display_name: Option<String>,
    /// How the subsystem's information system must connect to the security server when it calls. `HTTP`: plain HTTP is
    /// accepted, so whoever reaches the port may call in the subsystem's name. The NetworkPolicy of the security server admits the
    /// namespaces of the members that it serves, and those in its `clientAccess`: all of these may.
    pub connection_type: ConnectionType,
    /// The security servers that serve the subsystem, at most 16. Unset: every server that the member owns. A server
    /// of another member serves it only if that server lists this member in `guests`: both sides say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub servers: Option<Vec<SecurityServerRef>>,
    /// Groups that only this subsystem's access rights may name. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["code".into()]))]
    pub local_groups: Vec<LocalGroup>,
    /// The services that the subsystem offers. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["code".into()]))]
    pub services: Vec<Service>,
}

/// How an information system connects to its security server.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConnectionType {
    /// Plain HTTP, no client certificate.
    #[serde(rename = "HTTP")]
    Http,
}

/// A group that one subsystem may grant rights to.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalGroup {
    /// The group's code, case-sensitive. Example: `partners`.
    pub code: GroupCode,
    /// What the group is for, in words. At most 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub description: Option<String>,
    /// Who belongs to the group. Entries match exactly: a member does not cover its subsystems. At most 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub members: Vec<ClientIdRef>,
}

/// A service: one API of the subsystem's information system. Exactly one of `rest` and `openapi` is set.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        "!(self.code.lowerAscii() in ['listclients', 'listmethods', 'allowedmethods', 'getwsdl', 'getopenapi', 'getsecurityservermetrics', 'getsecurityserveroperationaldata', 'getsecurityserverhealthdata'])"
    )
    .message("this service code is reserved for X-Road's own metadata and monitoring services")
    .field_path(".code"),
    validation = Rule::new("has(self.rest) != has(self.openapi)")
        .message("exactly one of rest and openapi must be set")
)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// The service's code, the last part of its identifier: case-sensitive when called, but unique in the subsystem
    /// ignoring case. X-Road's own codes (`listMethods`, `getOpenAPI` and six more) are refused. Example: `persons`.
    pub code: ServiceCode,
    /// A REST API without a description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestService>,
    /// A REST API with an OpenAPI 3 description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openapi: Option<OpenApiService>,
    /// How long the security server waits for the next bytes of the information system's answer, in seconds. `0`: no
    /// limit. Between 0 and 1000. Default: 60.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 0, max = 1000))]
    pub timeout_seconds: u32,
    /// Takes the service out of use: callers get an error with the notice. Unset: the service is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Disabled>,
    /// Who may call the service. Rights only add up; without any, nobody may. At most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub access: Vec<AccessRight>,
}

/// The service time-out unless the spec says otherwise, in seconds (X-Road's default).
pub const DEFAULT_TIMEOUT_SECONDS: u32 = 60;

fn default_timeout_seconds() -> u32 {
    DEFAULT_TIMEOUT_SECONDS
}

/// The one form that a [`Service`] has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServiceChoice<'a> {
    /// A REST API without a description.
    Rest(&'a RestService),
    /// A REST API with an OpenAPI description.
    OpenApi(&'a OpenApiService),
}

impl Service {
    /// The form that is set. `None` if not exactly one is, which admission refuses.
    #[must_use]
    pub fn choice(&self) -> Option<ServiceChoice<'_>> {
        match (&self.rest, &self.openapi) {
            (Some(rest), None) => Some(ServiceChoice::Rest(rest)),
            (None, Some(openapi)) => Some(ServiceChoice::OpenApi(openapi)),
            _ => None,
        }
    }

    /// The base URL of the information system. `None` if not exactly one form is set.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.choice().map(|choice| match choice {
            ServiceChoice::Rest(rest) => rest.url.as_str(),
            ServiceChoice::OpenApi(openapi) => openapi.url.as_str(),
        })
    }
}

/// A REST API without a description.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestService {
    /// Base URL of the API: called is this, followed by what the caller wrote after the service code.
    /// `http` only yet, without user, query and fragment, at most 255 characters.
    /// Example: `http://population-app:8080/persons`.
    #[schemars(length(min = 8, max = 255), regex(pattern = SERVICE_URL))]
    pub url: String,
}

/// A REST API with an OpenAPI 3 description.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenApiService {
    /// The ConfigMap entry, in the same namespace, that holds the OpenAPI 3.0 document (YAML or JSON). That it is there
    /// and can be read is said by the condition `ReferencesResolved`, within 10 minutes of an edit; nothing hands it
    /// out yet.
    pub config_map_ref: ConfigMapEntryRef,
    /// Base URL of the API, as in `rest.url`; the document's `servers` are not used.
    /// Example: `http://population-app:8080/persons`.
    #[schemars(length(min = 8, max = 255), regex(pattern = SERVICE_URL))]
    pub url: String,
}

/// What a service URL looks like: `http`, a host name or address, an optional port, an optional path of RFC 3986
/// characters. No user (it would be logged), no query and no fragment (the caller's path is appended to it).
pub const SERVICE_URL: &str = r"^http://([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]{2,45}\])(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?(/([-A-Za-z0-9._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)?$";

/// A service out of use.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disabled {
    /// What callers are told. At most 255 characters. Default: `Out of order`.
    #[serde(default = "default_notice")]
    #[schemars(length(min = 1, max = 255))]
    pub notice: String,
}

fn default_notice() -> String {
    "Out of order".to_owned()
}

/// A right to call a service.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRight {
    /// Who is granted the right.
    pub subject: AccessSubject,
    /// Which requests: each matches a method and a path. Unset: every request to the service. At most 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub allow: Option<Vec<Endpoint>>,
}

/// Who is granted a right: exactly one of a member or subsystem, a global group, or a local group.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        "has(self.memberCode) ? has(self.memberClass) && !has(self.globalGroup) && !has(self.localGroup) : !has(self.memberClass) && !has(self.subsystem) && has(self.globalGroup) != has(self.localGroup)"
    )
    .message("the subject must be exactly one of memberClass with memberCode (and subsystem), globalGroup, or localGroup")
)]
#[serde(rename_all = "camelCase")]
pub struct AccessSubject {
    /// Class of a member, together with `memberCode`. Example: `GOV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_class: Option<MemberClass>,
    /// Code of a member, together with `memberClass`. Example: `"70000002"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_code: Option<MemberCode>,
    /// Code of a subsystem of that member. Unset: the member itself, which does not cover its subsystems.
    /// Example: `benefits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<SubsystemCode>,
    /// Code of a group of the trust anchor. Example: `hospitals`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_group: Option<GroupCode>,
    /// Code of a group of this subsystem. Example: `partners`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_group: Option<GroupCode>,
}

/// The one subject that an [`AccessSubject`] names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SubjectChoice<'a> {
    /// A member or one of its subsystems, in the same instance.
    Client {
        /// The member's class.
        member_class: &'a MemberClass,
        /// The member's code.
        member_code: &'a MemberCode,
        /// The subsystem; `None` is the member itself.
        subsystem: Option<&'a SubsystemCode>,
    },
    /// A group of the trust anchor.
    GlobalGroup(&'a GroupCode),
    /// A group of the subsystem that offers the service.
    LocalGroup(&'a GroupCode),
}

impl AccessSubject {
    /// The subject that is set. `None` if not exactly one is, which admission refuses.
    #[must_use]
    pub fn choice(&self) -> Option<SubjectChoice<'_>> {
        match (&self.member_class, &self.member_code, &self.subsystem, &self.global_group, &self.local_group) {
            (Some(member_class), Some(member_code), subsystem, None, None) => {
                Some(SubjectChoice::Client { member_class, member_code, subsystem: subsystem.as_ref() })
            }
            (None, None, None, Some(group), None) => Some(SubjectChoice::GlobalGroup(group)),
            (None, None, None, None, Some(group)) => Some(SubjectChoice::LocalGroup(group)),
            _ => None,
        }
    }
}

/// Requests of one method and one path pattern.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The HTTP method, or `*` for every method. `GET` does not cover `HEAD`.
    pub method: Method,
    /// Pattern of what follows the service code in the URL, without the query, matched as a whole and case-sensitive.
    /// `*` is any run of characters but `/`, `**` any run at all, `\*` a star, `\\` a backslash. Starts with `/` or `**`.
    /// Example: `/*` matches `/38001010000`, not `/38001010000/photo`.
    #[schemars(length(min = 1, max = 255), regex(pattern = ENDPOINT_PATH))]
    pub path: String,
}

/// What a path pattern looks like: `/` or `**` first; no control characters, no `?` and no `#`, which end a path and so
/// could only be a mistake.
pub const ENDPOINT_PATH: &str = r"^(/|\*\*)[^?#\x00-\x1f\x7f]*$";

/// An HTTP method in an access right.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// Every method.
    #[serde(rename = "*")]
    Any,
    /// GET.
    #[serde(rename = "GET")]
    Get,
    /// POST.
    #[serde(rename = "POST")]
    Post,
    /// PUT.
    #[serde(rename = "PUT")]
    Put,
    /// PATCH.
    #[serde(rename = "PATCH")]
    Patch,
    /// DELETE.
    #[serde(rename = "DELETE")]
    Delete,
    /// HEAD.
    #[serde(rename = "HEAD")]
    Head,
    /// OPTIONS.
    #[serde(rename = "OPTIONS")]
    Options,
}

impl Method {
    /// The text in the spec and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "*",
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }
}

/// The observed state of a member.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The `metadata.generation` of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What holds and what does not; see docs/reference/conditions.md.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::crds::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The member's full identifier, `instance/class/code`. Example: `EE/GOV/70000001`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub identity: Option<String>,
    /// The security servers that serve the member now, its own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub servers: Vec<ServingServer>,
    /// How many services its subsystems offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Codes of the subsystems that stand in the published instance configuration, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 100)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub registered_subsystems: Vec<String>,
}

/// A security server that serves a member.
#[derive(JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServingServer {
    /// Namespace of the SecurityServer.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of the SecurityServer.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The server's full identifier, `instance/class/code/serverCode`. Example: `EE/GOV/70000001/ss1`.
    #[schemars(length(max = 512))]
    pub identity: String,
}
