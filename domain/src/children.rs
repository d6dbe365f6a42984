//! The objects that run a gateway: which kinds there are, how what should be is compared with what is.

use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_api::names::annotation;
use serde_json::{Map, Value};

use crate::names::hash_hex;
use crate::observed::{ObservedChild, is_ours};
use crate::quantity;

/// The kinds of objects that plans name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// v1 ServiceAccount.
    ServiceAccount,
    /// v1 Service.
    Service,
    /// apps/v1 Deployment.
    Deployment,
    /// policy/v1 PodDisruptionBudget.
    PodDisruptionBudget,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// v1 ConfigMap: documents and their copies.
    ConfigMap,
    /// v1 Secret: keys.
    Secret,
}

impl fmt::Display for ChildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::Deployment => "Deployment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

/// An object to apply by server-side apply, complete with the annotation `saatkond.io/applied-hash`.
#[derive(Debug, Clone, PartialEq)]
pub enum Child {
    /// Who the pods are. It holds no rights and no token.
    ServiceAccount(Box<ServiceAccount>),
    /// How the pods are reached.
    Service(Box<Service>),
    /// The pods.
    Deployment(Box<Deployment>),
    /// How many may be away at a time.
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    /// Who may reach them.
    NetworkPolicy(Box<NetworkPolicy>),
}

impl Child {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ChildKind {
        match self {
            Self::ServiceAccount(_) => ChildKind::ServiceAccount,
            Self::Service(_) => ChildKind::Service,
            Self::Deployment(_) => ChildKind::Deployment,
            Self::PodDisruptionBudget(_) => ChildKind::PodDisruptionBudget,
            Self::NetworkPolicy(_) => ChildKind::NetworkPolicy,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        match self {
            Self::ServiceAccount(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::Deployment(object) => &object.metadata,
            Self::PodDisruptionBudget(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::ServiceAccount(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::Deployment(object) => &mut object.metadata,
            Self::PodDisruptionBudget(object) => &mut object.metadata,
            Self::NetworkPolicy(object) => &mut object.metadata,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// The whole object with `apiVersion` and `kind`, as it is applied.
    #[must_use]
    pub fn value(&self) -> Value {
        let value = match self {
            Self::ServiceAccount(object) => serde_json::to_value(object),
            Self::Service(object) => serde_json::to_value(object),
            Self::Deployment(object) => serde_json::to_value(object),
            Self::PodDisruptionBudget(object) => serde_json::to_value(object),
            Self::NetworkPolicy(object) => serde_json::to_value(object),
        };
        // These types hold no maps with keys other than strings and no fallible serializers: it cannot fail.
        value.unwrap_or_default()
    }

    /// SHA-256 of what is applied, as it stands in the annotation.
    #[must_use]
    pub fn applied_hash(&self) -> &str {
        let annotations = self.meta().annotations.as_ref();
        annotations.and_then(|all| all.get(annotation::APPLIED_HASH)).map_or("", String::as_str)
    }

    /// Writes the hash of everything else into the annotation. The hash is over canonical JSON: keys sorted.
    pub(crate) fn sealed(mut self) -> Self {
        let hash = hash_hex(self.value().to_string().as_bytes());
        self.meta_mut().annotations.get_or_insert_default().insert(annotation::APPLIED_HASH.to_owned(), hash);
        self
    }
}

/// What a look at an existing object says about the one that should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is there as it should be.
    InPlace,
    /// It is missing, changed by someone, or another one is wanted now.
    Apply {
        /// Whether it stood there under our hash and someone changed it or took it away: worth an event.
        repair: bool,
    },
    /// An object of this kind and name exists that is not controlled by `owner`.
    Foreign,
}

/// Compares an object that should be with what is there. `owner` is the UID of the object that it belongs to.
#[must_use]
pub fn judge(wanted: &Child, there: &[ObservedChild], owner: &str) -> Verdict {
    let same = |seen: &&ObservedChild| seen.kind == wanted.kind() && seen.name == wanted.name();
    match there.iter().find(same) {
        None => Verdict::Apply { repair: false },
        Some(seen) if !is_ours(seen.controller.as_deref(), owner) => Verdict::Foreign,
        Some(seen) if seen.applied_hash.as_deref() != Some(wanted.applied_hash()) => Verdict::Apply { repair: false },
        Some(seen) if !seen.intact => Verdict::Apply { repair: true },
        Some(_) => Verdict::InPlace,
    }
}

/// Whether a live object still says what was applied, and where it matters nothing beyond it.
///
/// What others have added elsewhere does not matter: defaults, status, metadata of their own. But lists are compared as a
/// whole, and selectors and rules of who may reach the pods exactly: an entry or a key that somebody adds there opens a
/// way to the pods, or hides them. So do some fields that we leave out on purpose.
#[must_use]
pub fn covers(live: &Value, applied: &Value) -> bool {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            let said = applied.iter().all(|(key, wanted)| {
                let found = live.get(key).unwrap_or(&Value::Null);
                match &**key {
                    "metadata" => says(found, wanted),
                    key if is_exact(key) => pruned(found) == pruned(wanted),
                    "requests" | "limits" | "sizeLimit" => says_quantities(found, wanted),
                    _ => (found.is_null() && is_empty(wanted)) || covers(found, wanted),
                }
            });
            said && !live.iter().any(|(key, found)| is_unwanted(key, found) && !applied.contains_key(key))
        }
        (Value::Array(live), Value::Array(applied)) if applied.iter().any(Value::is_object) => {
            live.len() == applied.len() && applied.iter().all(|wanted| live.iter().any(|found| covers(found, wanted)))
        }
        _ => live == applied,
    }
}

/// Whether each applied quantity is there, in whichever form.
fn says_quantities(live: &Value, applied: &Value) -> bool {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            applied.iter().all(|(key, wanted)| live.get(key).is_some_and(|found| says_quantities(found, wanted)))
        }
        (Value::String(live), Value::String(applied)) => quantity::same(live, applied),
        _ => live == applied || is_empty(live) && is_empty(applied),
    }
}

/// Fields in which nothing but what was applied may stand, at whatever depth they are.
fn is_exact(key: &str) -> bool {
    matches!(key, "selector" | "podSelector" | "ingress" | "egress")
}

/// Fields that may stand only where we apply them, at whatever depth they are.
///
/// Not simply all that we leave out: a default that a later API server adds would read as drift and come back after each
/// repair. None of these is ever a default.
fn is_unwanted(key: &str, found: &Value) -> bool {
    let listed = matches!(
        key,
        // A pod on the node's network is none that the NetworkPolicy stops others from reaching, nor is a port of the node.
        "hostNetwork" | "hostPort" | "hostIP"
        // Whoever shares the processes reads the keys from their memory.
        | "hostPID" | "hostIPC" | "shareProcessNamespace"
        // Other code than the gateway's, with its mounts and its account: the identity is among them.
        | "initContainers" | "command" | "args" | "lifecycle" | "startupProbe" | "envFrom" | "volumeDevices"
        // What these say of one container or of its confinement wins over what is said of the pod.
        | "privileged" | "add" | "runAsUser" | "runAsGroup" | "runAsNonRoot" | "supplementalGroups"
        | "seccompProfile" | "seLinuxOptions" | "appArmorProfile" | "windowsOptions" | "sysctls"
        // Requests to information systems are plain HTTP to whomever a name leads to.
        | "hostAliases" | "dnsConfig"
        // A part of a mount never sees an update: the certificates in it end.
        | "subPath" | "subPathExpr" | "items"
        // What is applied would never come to run, or never count as ready.
        | "paused" | "minReadySeconds" | "readinessGates" | "initialDelaySeconds"
        // Probes that ask another host, and clients that are led to pods which refuse them.
        | "host" | "publishNotReadyAddresses"
    );
    listed && !found.is_null()
}

/// Whether each applied field is there with its value, whatever else is. The API server drops what is empty.
fn says(live: &Value, applied: &Value) -> bool {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => applied.iter().all(|(key, wanted)| match live.get(key) {
            Some(found) => says(found, wanted),
            None => is_empty(wanted),
        }),
        (Value::Array(live), Value::Array(applied)) if applied.iter().any(Value::is_object) => {
            applied.iter().all(|wanted| live.iter().any(|found| says(found, wanted)))
        }
        _ => live == applied,
    }
}

/// Without fields that are empty. Entries of lists stay: an empty rule of a NetworkPolicy allows everything.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), pruned(value)))
            .filter(|(_, value)| !(value.is_null() || value.as_array().is_some_and(Vec::is_empty)))
            .collect(),
        Value::Array(list) => list.iter().map(pruned).collect(),
        other => other.clone(),
    }
}

/// The JSON merge patch that makes a live object say what was applied where applying does not: server-side apply leaves
/// what others added to lists and selectors beside ours, and fields that we leave out on purpose.
#[must_use]
pub fn overwriting(live: &Value, applied: &Value) -> Value {
    fn patch(live: &Value, applied: &Value, exact: bool) -> Value {
        let Value::Object(wanted) = applied else { return applied.clone() };
        let mut fields: Map<String, Value> = wanted
            .iter()
            .map(|(key, value)| (key.clone(), patch(&live[key.as_str()], value, exact || is_exact(key))))
            .collect();
        let others = live.as_object().into_iter().flatten().filter(|(key, _)| !wanted.contains_key(*key));
        let unwanted = others.filter(|(key, found)| exact || is_unwanted(key, found));
        fields.extend(unwanted.map(|(key, _)| (key.clone(), Value::Null)));
        Value::Object(fields)
    }
    let mut whole = patch(live, applied, false);
    if let Value::Object(fields) = &mut whole {
        fields.remove("metadata");
    }
    whole
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
