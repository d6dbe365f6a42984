//! What a plan has reached, in words that are the same for all of them, and in what two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::ledger::is_of;
use crate::support::{self, SYSTEM};

/// What is the same in every run: times, numbers of versions and random material are not.
pub fn normal(value: &Value, stem: &str) -> Value {
    pub const VARIES: [&str; 26] = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "lastTransitionTime",
        "serial",
        "ski",
        "hash",
        "notBefore",
        "notAfter",
        "renewAt",
        "signedAt",
        "expiresAt",
        "servesWithoutOperatorUntil",
        "spkiSha256",
        "binaryData",
        "data",
        "version",
        "instanceVersion",
        "serverVersion",
        "observedGeneration",
        "podUid",
        "bundleHash",
        "leafSerial",
        "reportedAt",
    ];
    /// Of these, that they are there is the same.
    const STANDS: [&str; 7] =
        ["at", "certificate", "compromisedSince", "refusedBy", "signingKeys", "trustedSince", "trustedUntil"];
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !VARIES.contains(&&***key) && !key.starts_with("saatkond.io/"))
            .filter(|(key, _)| {
                !matches!(
                    &***key,
                    "issueNumber"
                        | "leafIssueNumber"
                        | "clusterIP"
                        | "clusterIPs"
                        | "since"
                        | "deployment.kubernetes.io/revision"
                )
            })
            .map(|(key, value)| {
                let value = if STANDS.contains(&&**key) { "VARIES".into() } else { normal(value, stem) };
                (key.replace(stem, "STEM"), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| normal(item, stem)).collect(),
        // Upper case is the instance. Anchor keys are random.
        Value::String(text) if text.split(',').all(|part| part.len() == 44 && part.ends_with('=')) => "KEYS".into(),
        Value::String(text) => text.replace(stem, "STEM").replace(&stem.to_uppercase(), "STEM").into(),
        other => other.clone(),
    }
}

pub fn difference(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> String {
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#}"));
    let mut lines = Vec::new();
    for key in keys.into_iter().filter(|key| one.get(*key) != other.get(*key)) {
        let (expected, found) = (show(one.get(key)), show(other.get(key)));
        lines.push(format!("== {key}"));
        let lost = expected.lines().filter(|line| !found.contains(line.trim()));
        let new = found.lines().filter(|line| !expected.contains(line.trim()));
        lines.extend(lost.map(|line| format!("  expected {}", line.trim())));
        lines.extend(new.map(|line| format!("  found    {}", line.trim())));
    }
    lines.join("\n")
}

/// Kinds that are written by apply alone: who holds fields of theirs, and how, is part of what a plan must reach.
pub const CHILDREN: [&str; 5] = ["Service", "ServiceAccount", "Deployment", "PodDisruptionBudget", "NetworkPolicy"];

/// Who holds fields, without which and since when.
pub fn managers(object: &DynamicObject) -> Value {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let entries = object.metadata.managed_fields.iter().flatten();
    let all: BTreeSet<_> = entries
        .map(|entry| format!("{} {} {}", text(&entry.manager), text(&entry.operation), text(&entry.subresource)))
        .collect();
    json!(all)
}

pub fn kind(name: &str) -> ApiResource {
    support::kinds().into_iter().find(|known| known.kind == name).unwrap()
}

pub fn within(client: &Client, name: &str, namespace: &str) -> Api<DynamicObject> {
    if name == "TrustAnchor" {
        Api::all_with(client.clone(), &kind(name))
    } else {
        Api::namespaced_with(client.clone(), namespace, &kind(name))
    }
}

/// All objects of one plan.
pub async fn objects(client: &Client, stem: &str) -> Vec<(String, DynamicObject)> {
    let home = format!("{stem}-home");
    let look = |name: String, namespace: String| async move {
        let listed = within(client, &name, &namespace).list(&ListParams::default()).await.unwrap();
        let keyed = move |object: DynamicObject| {
            (format!("{name} {}/{}", object.namespace().unwrap_or_default(), object.name_any()), object)
        };
        listed.items.into_iter().map(keyed).collect::<Vec<_>>()
    };
    let here = support::kinds().into_iter().map(|kind| look(kind.kind, home.clone()));
    let central = ["Secret", "ConfigMap"].map(|name| look(name.to_owned(), SYSTEM.to_owned()));
    let all = join_all(here.chain(central)).await.into_iter().flatten();
    all.filter(|(key, _)| is_of(key, stem) && !key.ends_with("/kube-root-ca.crt") && !key.ends_with("/default"))
        .collect()
}

/// What a plan has reached, in words that are the same for all of them.
pub async fn state(client: &Client, stem: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (key, object) in objects(client, stem).await {
        let mut value = normal(&serde_json::to_value(&object).unwrap(), stem);
        if CHILDREN.iter().any(|kind| key.starts_with(&format!("{kind} "))) {
            value["managers"] = managers(&object);
        }
        all.insert(key.replace(stem, "STEM"), value);
    }
    all
}
