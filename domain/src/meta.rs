//! Metadata that all objects of ours share, and short questions about objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use saatkond_api::names::{MANAGED_BY, PAUSED_VALUE, annotation, label};
use saatkond_api::{SecurityServer, TrustAnchor};

use crate::names::label_value;

/// Whether `saatkond.io/paused: "true"` stands on the object.
#[must_use]
pub fn is_paused<K: ResourceExt>(object: &K) -> bool {
    object.annotations().get(annotation::PAUSED).is_some_and(|value| value == PAUSED_VALUE)
}

/// Whether the object is on its way out.
#[must_use]
pub fn is_deleting<K: ResourceExt>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Whether the object carries a finalizer.
#[must_use]
pub fn has_finalizer<K: ResourceExt>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

/// The reference by which an object is ours, and by which the garbage collector takes it along.
#[must_use]
pub fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn common(component: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (label::MANAGED_BY.to_owned(), MANAGED_BY.to_owned()),
        (label::NAME.to_owned(), MANAGED_BY.to_owned()),
    ]);
    if let Some(component) = component {
        labels.insert(label::COMPONENT.to_owned(), component.to_owned());
    }
    labels
}

/// Metadata of an object in the operator's namespace that belongs to a trust anchor.
#[must_use]
pub fn anchor_object(
    anchor: &TrustAnchor,
    namespace: &str,
    name: String,
    role: &str,
    generation: Option<u64>,
) -> ObjectMeta {
    let mut labels = common(None);
    labels.insert(label::TRUST_ANCHOR.to_owned(), label_value(&anchor.name_any()));
    labels.insert(label::ROLE.to_owned(), role.to_owned());
    if let Some(generation) = generation {
        labels.insert(label::GENERATION.to_owned(), generation.to_string());
    }
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![owner_reference(anchor)]),
        ..ObjectMeta::default()
    }
}

/// Labels by which a server's pods are selected. Immutable in a Deployment: never add to them.
#[must_use]
pub fn selector(server: &SecurityServer) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::NAME.to_owned(), MANAGED_BY.to_owned()),
        (label::COMPONENT.to_owned(), saatkond_api::names::component::SECURITY_SERVER.to_owned()),
        (label::SECURITY_SERVER.to_owned(), label_value(&server.name_any())),
    ])
}

/// Labels of every object of a server in its own namespace.
#[must_use]
pub fn server_labels(server: &SecurityServer, role: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = common(Some(saatkond_api::names::component::SECURITY_SERVER));
    labels.insert(label::INSTANCE.to_owned(), label_value(&server.name_any()));
    labels.insert(label::SECURITY_SERVER.to_owned(), label_value(&server.name_any()));
    if let Some(role) = role {
        labels.insert(label::ROLE.to_owned(), role.to_owned());
    }
    labels
}

/// Whether an object of a server carries each of its labels, whatever others it has.
#[must_use]
pub fn is_labelled(found: &BTreeMap<String, String>, server: &SecurityServer, role: &str) -> bool {
    server_labels(server, Some(role)).iter().all(|(key, value)| found.get(key) == Some(value))
}

/// Metadata of an object of a server in its own namespace.
#[must_use]
pub fn server_object(server: &SecurityServer, name: String, role: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: server.namespace(),
        labels: Some(server_labels(server, role)),
        owner_references: Some(vec![owner_reference(server)]),
        ..ObjectMeta::default()
    }
}

/// The same with annotations.
#[must_use]
pub fn annotated(mut meta: ObjectMeta, annotations: impl IntoIterator<Item = (&'static str, String)>) -> ObjectMeta {
    let all = meta.annotations.get_or_insert_default();
    all.extend(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)));
    meta
}
