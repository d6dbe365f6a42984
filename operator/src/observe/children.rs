//! Looking at the objects that run a gateway.
//!
//! The watches show metadata alone. An object is read whole only when its version is one that was not looked at yet; what
//! remains is whether it still says everything that was applied, and for a Deployment its status.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use saatkond_api::SecurityServer;
use saatkond_api::names::{annotation, entry, label, role};
use saatkond_domain::children::{Child, ChildKind, covers};
use saatkond_domain::meta::is_labelled;
use saatkond_domain::names::label_value;
use saatkond_domain::observed::{DeploymentFacts, InstanceCopy, ObservedChild, ObservedPod, ObservedStartCopy};
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document::{self, Payload};
use serde::{Deserialize, Serialize};

use super::caches::CheckedChild;
use super::ownership;
use crate::child_meta::ChildMeta;
use crate::context::Context;
use crate::error::Error;
use crate::pods::GatewayPod;
use crate::signer::AnchorKeys;

/// The kinds of children.
pub const KINDS: [ChildKind; 5] = [
    ChildKind::ServiceAccount,
    ChildKind::Service,
    ChildKind::Deployment,
    ChildKind::PodDisruptionBudget,
    ChildKind::NetworkPolicy,
];

/// How the API server calls a kind.
#[must_use]
pub fn resource(kind: ChildKind) -> ApiResource {
    let (group, name, plural) = match kind {
        ChildKind::ServiceAccount => ("", "ServiceAccount", "serviceaccounts"),
        ChildKind::Service => ("", "Service", "services"),
        ChildKind::Deployment => ("apps", "Deployment", "deployments"),
        ChildKind::PodDisruptionBudget => ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
        ChildKind::NetworkPolicy => ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
        ChildKind::ConfigMap => ("", "ConfigMap", "configmaps"),
        ChildKind::Secret => ("", "Secret", "secrets"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", name), plural)
}

/// Children of one kind in a namespace, of whatever content.
pub fn api(context: &Context, kind: ChildKind, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(context.client.clone(), namespace, &resource(kind))
}

/// What is there of a server's children: those that the watches show, and whatever stands under the name of a wanted one.
pub async fn observe(
    context: &Context,
    server: &SecurityServer,
    wanted: &[Child],
) -> Result<(Vec<ObservedChild>, Option<DeploymentFacts>), Error> {
    let namespace = server.namespace().unwrap_or_default();
    let uid = server.uid().unwrap_or_default();
    let mut seen = Vec::new();
    let mut deployment = None;
    for kind in KINDS {
        let shown = context.world.children_in(kind, &namespace);
        let wanted: Vec<_> = wanted.iter().filter(|child| child.kind() == kind).collect();
        for child in &wanted {
            let meta = shown.iter().find(|meta| *meta.name == *child.name());
            let facts = match meta {
                Some(meta) => check(context, kind, &namespace, meta, Some(child)).await?,
                // Not shown: it does not exist, or it has none of our labels. Only asking tells.
                None => look(context, kind, &namespace, child.name(), Some(child)).await?,
            };
            let Some((found, facts)) = facts else { continue };
            deployment = deployment.or(facts);
            seen.push(found);
        }
        for meta in shown.iter().filter(|meta| is_of(meta, &uid, &server.name_any())) {
            if wanted.iter().any(|child| *meta.name == *child.name()) {
                continue;
            }
            if let Some((found, facts)) = check(context, kind, &namespace, meta, None).await? {
                deployment = deployment.or(facts);
                seen.push(found);
            }
        }
    }
    Ok((seen, deployment))
}

fn is_of(meta: &ChildMeta, uid: &str, name: &str) -> bool {
    meta.controller() == Some(uid) || meta.label(label::SECURITY_SERVER).is_some_and(|of| *of == label_value(name))
}

type Found = Option<(ObservedChild, Option<DeploymentFacts>)>;

/// A child that the watch shows.
async fn check(
    context: &Context,
    kind: ChildKind,
    namespace: &str,
    meta: &ChildMeta,
    wanted: Option<&Child>,
) -> Result<Found, Error> {
    let name = meta.name.to_string();
    let hash = applied_hash(meta);
    let settled = wanted.is_none() || hash != wanted.map(Child::applied_hash);
    let place = (kind, namespace.to_owned(), name.clone());
    let version = &*meta.version;
    let known = context.caches.children.get(&place, version);
    let known = known.filter(|known| settled || Some(known.wanted.as_str()) == hash);
    match known {
        Some(known) => Ok(Some((observed(kind, meta, known.intact), known.deployment))),
        // Another one is wanted, or none: what it says is of no matter, but for the Deployment's status.
        None if settled && kind != ChildKind::Deployment => Ok(Some((observed(kind, meta, false), None))),
        None => look(context, kind, namespace, &name, wanted).await,
    }
}

/// Reads a child whole and remembers what was learnt of it.
async fn look(
    context: &Context,
    kind: ChildKind,
    namespace: &str,
    name: &str,
    wanted: Option<&Child>,
) -> Result<Found, Error> {
    let answer = api(context, kind, namespace).get_opt(name).await;
    let Some(object) = answer.map_err(Error::api(format!("read {kind} {namespace}/{name}")))? else { return Ok(None) };
    let facts = learn(context, kind, &object, wanted);
    Ok(Some((observed(kind, &(&object.metadata).into(), facts.intact), facts.deployment)))
}

/// What a whole object says, kept for its version.
pub fn learn(context: &Context, kind: ChildKind, object: &DynamicObject, wanted: Option<&Child>) -> CheckedChild {
    let meta = ChildMeta::from(&object.metadata);
    let hash = applied_hash(&meta);
    let comparable = wanted.filter(|wanted| hash == Some(wanted.applied_hash()));
    let live = serde_json::to_value(object).unwrap_or_default();
    let facts = CheckedChild {
        wanted: hash.unwrap_or_default().to_owned(),
        intact: comparable.is_some_and(|wanted| covers(&live, &wanted.value()))
            && !ownership::is_updated_by_us(&object.metadata),
        deployment: (kind == ChildKind::Deployment).then(|| deployment_facts(object)),
    };
    let place = (kind, object.namespace().unwrap_or_default(), object.name_any());
    context.caches.children.put(place, object.resource_version().unwrap_or_default(), facts.clone());
    facts
}

fn applied_hash(meta: &ChildMeta) -> Option<&str> {
    meta.annotation(annotation::APPLIED_HASH)
}

fn observed(kind: ChildKind, meta: &ChildMeta, intact: bool) -> ObservedChild {
    ObservedChild {
        kind,
        name: meta.name.to_string(),
        uid: meta.uid.to_string(),
        controller: meta.controller().map(str::to_owned),
        applied_hash: applied_hash(meta).map(str::to_owned),
        intact,
        deleting: meta.deleting,
    }
}

fn deployment_facts(object: &DynamicObject) -> DeploymentFacts {
    let status = object.data.get("status").cloned().unwrap_or_default();
    let status: DeploymentStatus = serde_json::from_value(status).unwrap_or_default();
    let hindered = status.conditions.iter().flatten().find(|condition| {
        (condition.type_ == "Progressing" && condition.status == "False")
            || (condition.type_ == "ReplicaFailure" && condition.status == "True")
    });
    DeploymentFacts {
        observed: status.observed_generation >= object.metadata.generation && object.metadata.generation.is_some(),
        replicas: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        message: hindered.and_then(|condition| condition.message.clone()),
    }
}

/// The copy that the gateways start from.
pub async fn start_copy(
    context: &Context,
    server: &SecurityServer,
    keys: &AnchorKeys,
) -> Result<Option<ObservedStartCopy>, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let name = saatkond_domain::names::start_copy(&server.name_any());
    let place = (namespace.clone(), server.name_any());
    if let Some(meta) = context.world.child(ChildKind::ConfigMap, &namespace, &name)
        && let Some(known) = context.caches.start_copies.get(&place, &meta.version)
    {
        return Ok(Some(known));
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let answer = api.get_opt(&name).await;
    let Some(map) = answer.map_err(Error::api(format!("read ConfigMap {namespace}/{name}")))? else { return Ok(None) };
    let trusted: Vec<_> = keys.public_keys().into_iter().map(|(_, key)| key).collect();
    let data = |name: &str| map.binary_data.as_ref().and_then(|data| data.get(name));
    let mut copy = copy_of(&(&map.metadata).into());
    // The bytes are signed: a copy that verifies and has the version that its annotation says is the one we wrote.
    let instance = data(entry::INSTANCE_CONFIGURATION)
        .and_then(|packed| document::open::<InstanceNumbers>(&packed.0, &trusted).ok())
        .is_some_and(|found| {
            copy.instance.is_some_and(|said| {
                said.version == found.payload.version && said.bundle_sequence == found.payload.bundle_sequence
            })
        });
    let configuration = data(entry::SERVER_CONFIGURATION)
        .and_then(|packed| document::open::<ServerNumbers>(&packed.0, &trusted).ok())
        .is_some_and(|found| copy.server_version == Some(found.payload.version));
    // Without our labels the watches do not show it: that it is edited or taken away would be noticed an hour late.
    copy.intact = instance && configuration && is_labelled(map.labels(), server, role::START_COPY);
    context.caches.start_copies.put(place, map.resource_version().unwrap_or_default(), copy.clone());
    Ok(Some(copy))
}

/// What is looked at of the instance configuration in a start copy. Whole, it takes megabytes at the size of a country,
/// and after a start of the operator all copies are looked at.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstanceNumbers {
    version: u64,
    bundle_sequence: u64,
}

impl Payload for InstanceNumbers {
    const TYPE: &'static str = InstanceConfiguration::TYPE;
}

/// What is looked at of the server configuration in a start copy.
#[derive(Serialize, Deserialize)]
struct ServerNumbers {
    version: u64,
}

impl Payload for ServerNumbers {
    const TYPE: &'static str = ServerConfiguration::TYPE;
}

/// What the metadata of a start copy says; `intact` is left for who has seen its content.
#[must_use]
pub fn copy_of(meta: &ChildMeta) -> ObservedStartCopy {
    let says = |key: &str| meta.annotation(key);
    let instance = || {
        Some(InstanceCopy {
            version: says(annotation::INSTANCE_VERSION)?.parse().ok()?,
            bundle_sequence: says(annotation::BUNDLE_SEQUENCE)?.parse().ok()?,
            servers: says(annotation::SERVERS).and_then(|text| text.parse().ok()).unwrap_or(0),
            written_at: says(annotation::COPIED_AT)?.parse().ok()?,
        })
    };
    ObservedStartCopy {
        uid: meta.uid.to_string(),
        controller: meta.controller().map(str::to_owned),
        instance: instance(),
        server_version: says(annotation::SERVER_VERSION).and_then(|text| text.parse().ok()),
        intact: false,
    }
}

/// All gateways' pods of a namespace as they are now, with the server of each.
pub async fn pods_in(context: &Context, namespace: &str) -> Result<Vec<(String, ObservedPod)>, Error> {
    let api: Api<GatewayPod> = Api::namespaced(context.client.clone(), namespace);
    let params = ListParams::default().labels(label::SECURITY_SERVER);
    let listed = api.list(&params).await.map_err(Error::api(format!("list the pods of {namespace}")))?;
    Ok(listed.items.iter().filter_map(|pod| Some((pod.server()?.to_owned(), pod.observed(false)))).collect())
}
