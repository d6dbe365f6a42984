//! Reading published documents back: what stands in a ConfigMap counts only when one of our configuration keys verifies it.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::Api;
use saatkond_api::names::{self, MANAGED_BY, entry, label, role};
use saatkond_domain::children::ChildKind;
use saatkond_domain::names::label_value;
use saatkond_domain::observed::{Published, PublishedDocument};
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document::{self, Payload, Verified};

use super::caches::Versioned;
use super::keys;
use crate::context::Context;
use crate::error::{Error, chain};
use crate::signer::AnchorKeys;

/// A document as it was read, with its bytes for the copies.
#[derive(Debug, Clone)]
pub struct ReadDocument<P> {
    /// For decisions.
    pub published: Published<P>,
    /// The signed bytes; empty where there is no valid document.
    pub packed: Bytes,
}

impl<P> ReadDocument<P> {
    /// A document that does not exist.
    #[must_use]
    pub fn absent() -> Self {
        Self { published: Published::Absent, packed: Bytes::new() }
    }
}

/// Whether a ConfigMap that the watch does not show is asked for. Who may create it must know of one that is not ours;
/// who only reads it need not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// Ask the API server.
    Ask,
    /// It is absent.
    Absent,
}

/// The instance configuration of a trust anchor.
pub async fn instance(
    context: &Context,
    anchor: &str,
    keys: &AnchorKeys,
    unseen: Unseen,
) -> Result<Arc<ReadDocument<InstanceConfiguration>>, Error> {
    let name = names::instance_configuration_config_map(anchor);
    let value = label_value(anchor);
    let ours = [(label::ROLE, role::INSTANCE_CONFIGURATION), (label::TRUST_ANCHOR, &*value)];
    let shown = context.world.child(ChildKind::ConfigMap, &context.settings.namespace, &name);
    let owner = keys::owner(context, anchor);
    if shown.is_some_and(|meta| keys::is_left_over(meta.controller(), owner.as_deref())) {
        return Ok(Arc::new(ReadDocument { published: Published::Foreign, packed: Bytes::new() }));
    }
    read(context, name, entry::INSTANCE_CONFIGURATION, &ours, keys, unseen, &context.caches.instances).await
}

/// The configuration of a server.
pub async fn server(
    context: &Context,
    namespace: &str,
    name: &str,
    keys: &AnchorKeys,
) -> Result<Arc<ReadDocument<ServerConfiguration>>, Error> {
    let map = saatkond_domain::names::server_configuration(namespace, name);
    let value = label_value(name);
    let ours = [
        (label::ROLE, role::SERVER_CONFIGURATION),
        (label::SECURITY_SERVER, &*value),
        (label::SECURITY_SERVER_NAMESPACE, namespace),
    ];
    let cache = &context.caches.configurations;
    read(context, map, entry::SERVER_CONFIGURATION, &ours, keys, Unseen::Ask, cache).await
}

async fn read<P: Payload>(
    context: &Context,
    name: String,
    entry: &str,
    ours: &[(&str, &str)],
    keys: &AnchorKeys,
    unseen: Unseen,
    cache: &Versioned<String, Arc<ReadDocument<P>>>,
) -> Result<Arc<ReadDocument<P>>, Error> {
    if let Some(known) = at_hand(context, &name, unseen, cache) {
        return Ok(known);
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let map = api.get_opt(&name).await.map_err(Error::api(format!("read ConfigMap {name}")))?;
    let Some(map) = map else { return Ok(Arc::new(ReadDocument::absent())) };
    let version = map.resource_version().unwrap_or_default();
    // Written by us a moment ago, and the watch has not shown it yet.
    if let Some(known) = cache.get(&name, &version) {
        return Ok(known);
    }
    let document = Arc::new(open(map, entry, ours, keys));
    // One that does not verify may do so when more keys are at hand: only the good ones are kept.
    if matches!(document.published, Published::Valid(_)) {
        cache.put(name, version, document.clone());
    }
    Ok(document)
}

/// What is known without asking.
fn at_hand<P>(
    context: &Context,
    name: &String,
    unseen: Unseen,
    cache: &Versioned<String, Arc<ReadDocument<P>>>,
) -> Option<Arc<ReadDocument<P>>> {
    match context.world.child(ChildKind::ConfigMap, &context.settings.namespace, name) {
        None => (unseen == Unseen::Absent).then(|| Arc::new(ReadDocument::absent())),
        Some(meta) => cache.get(name, &meta.version),
    }
}

fn open<P: Payload>(mut map: ConfigMap, entry: &str, ours: &[(&str, &str)], keys: &AnchorKeys) -> ReadDocument<P> {
    let says = |key: &str, value: &str| map.labels().get(key).is_some_and(|found| found == value);
    let is_ours = says(label::MANAGED_BY, MANAGED_BY) && ours.iter().all(|(key, value)| says(key, value));
    if !is_ours {
        return ReadDocument { published: Published::Foreign, packed: Bytes::new() };
    }
    let resource_version = map.resource_version().unwrap_or_default();
    let uid = map.uid().unwrap_or_default();
    let invalid = |why: String| ReadDocument {
        published: Published::Invalid { resource_version: resource_version.clone(), uid: uid.clone(), why },
        packed: Bytes::new(),
    };
    let Some(packed) = map.binary_data.as_mut().and_then(|data| data.remove(entry)) else {
        return invalid(format!("{entry} is missing"));
    };
    let keys = keys.public_keys();
    let trusted: Vec<_> = keys.iter().map(|(_, key)| *key).collect();
    match document::open::<P>(&packed.0, &trusted) {
        Ok(verified) => {
            let signer = keys.iter().find(|(_, key)| key.key_id() == verified.key_id);
            let generation = signer.map_or(0, |(generation, _)| *generation);
            kept(verified, generation, resource_version, uid)
        }
        Err(error) => invalid(chain(&error)),
    }
}

/// A verified document as it stands in an object of this version.
#[must_use]
pub fn kept<P>(verified: Verified<P>, key_generation: u64, resource_version: String, uid: String) -> ReadDocument<P> {
    ReadDocument {
        packed: Bytes::from(verified.packed),
        published: Published::Valid(PublishedDocument {
            payload: Arc::new(verified.payload),
            key_generation,
            resource_version,
            uid,
        }),
    }
}
