//! References from one object to another. A target that is absent is a condition, never an error loop.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identifiers::{MemberClass, MemberCode, SubsystemCode};

/// Names the trust anchor of the instance that a member belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustAnchorRef {
    /// Name of the TrustAnchor (a cluster-scoped object). Example: `ee`.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub name: String,
}

/// Names a Member in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberRef {
    /// Name of the Member in the same namespace. Example: `population-register`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// Names a SecurityServer, here or in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityServerRef {
    /// Namespace of the SecurityServer. Unset: the namespace of this object. Example: `benefits-agency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// Name of the SecurityServer. Example: `ss1`.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub name: String,
}

/// Names a Secret in the operator's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorSecretRef {
    /// Name of the Secret in the operator's namespace. Example: `ee-offline-root-signer`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// Names one entry of a ConfigMap in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapEntryRef {
    /// Name of the ConfigMap in the same namespace. Example: `persons-openapi`.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    /// Entry of the ConfigMap that holds the document. Default: `openapi.yaml`.
    #[serde(default = "default_openapi_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn default_openapi_key() -> String {
    "openapi.yaml".to_owned()
}

/// A Kubernetes name of one label: RFC 1123, lower case.
pub const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A Kubernetes name of several labels: RFC 1123 subdomain, lower case.
pub const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A member of the same instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberIdRef {
    /// The member's class, case-sensitive. Example: `GOV`.
    pub member_class: MemberClass,
    /// The member's code, case-sensitive. Example: `"70000002"` (quoted, or YAML reads a number).
    pub member_code: MemberCode,
}

/// A member or one of its subsystems, in the same instance.
///
/// Matching is exact, as in X-Road: an entry for a member does not cover its subsystems, nor the reverse.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientIdRef {
    /// The member's class, case-sensitive. Example: `GOV`.
    pub member_class: MemberClass,
    /// The member's code, case-sensitive. Example: `"70000002"` (quoted, or YAML reads a number).
    pub member_code: MemberCode,
    /// The subsystem's code, case-sensitive. Unset: the member itself, which does not cover its subsystems.
    /// Example: `benefits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<SubsystemCode>,
}
