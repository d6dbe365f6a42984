//! Reading published documents back: what stands in a ConfigMap counts only when one of our configuration keys verifies it.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use kube::{Resource, ResourceExt as _};
use saatkond_api::names::{self, MANAGED_BY, entry, label, role};
use saatkond_domain::children::ChildKind;
use saatkond_domain::names::label_value;
use saatkond_domain::observed::{Published, PublishedDocument};
use saatkond_domain::publication::Annotated;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document::{self, DocumentError, Payload, Verified};

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

/// Documents that were read or written, each good while its ConfigMap is of the same version.
pub trait Remembered<P> {
    /// The document in this version of the ConfigMap.
    fn recall(&self, name: &str, version: &str, keys: &AnchorKeys) -> Option<Arc<ReadDocument<P>>>;
    /// Keeps a valid document.
    fn keep(&self, name: String, document: &Arc<ReadDocument<P>>);
}

/// As they are: for the few that every look at anything needs.
pub type Parsed<P> = Versioned<String, Arc<ReadDocument<P>>>;

impl<P> Remembered<P> for Parsed<P> {
    fn recall(&self, name: &str, version: &str, _: &AnchorKeys) -> Option<Arc<ReadDocument<P>>> {
        self.get(name, version)
    }

    fn keep(&self, name: String, document: &Arc<ReadDocument<P>>) {
        if let Published::Valid(valid) = &document.published {
            self.put(name, valid.resource_version.clone(), document.clone());
        }
    }
}

/// As they travel, and opened anew at each look: a server's takes a tenth of the memory so, and there are as many as servers.
pub type Packed = Versioned<String, PackedDocument>;

/// A document of [`Packed`], with what its ConfigMap says of it.
#[derive(Debug, Clone)]
pub struct PackedDocument {
    packed: Bytes,
    uid: String,
    intact: bool,
}

impl<P: Payload> Remembered<P> for Packed {
    fn recall(&self, name: &str, version: &str, keys: &AnchorKeys) -> Option<Arc<ReadDocument<P>>> {
        let PackedDocument { packed, uid, intact } = self.get(name, version)?;
        let (verified, generation) = verified(&packed, keys).ok()?;
        Some(Arc::new(kept(verified, generation, version.to_owned(), uid, intact)))
    }

    fn keep(&self, name: String, document: &Arc<ReadDocument<P>>) {
        if let Published::Valid(valid) = &document.published {
            let packed = document.packed.clone();
            let document = PackedDocument { packed, uid: valid.uid.clone(), intact: valid.intact };
            self.put(name, valid.resource_version.clone(), document);
        }
    }
}

/// Whether a ConfigMap that the watch does not show is asked for. Who may create it must know of one that is not ours, and
/// who is being deleted must not take a list that has not arrived for a deregistration; who else reads it need not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// Ask the API server.
    Ask,
    /// It is absent.
    Absent,
}

impl Unseen {
    /// For the instance configuration that an object of ours is registered in.
    #[must_use]
    pub fn of<K: Resource>(registered: &K) -> Self {
        if registered.meta().deletion_timestamp.is_some() { Self::Ask } else { Self::Absent }
    }
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
    anchor: Option<&str>,
    keys: &AnchorKeys,
) -> Result<Arc<ReadDocument<ServerConfiguration>>, Error> {
    let map = saatkond_domain::names::server_configuration(namespace, name);
    let value = label_value(name);
    let mut ours = vec![
        (label::ROLE, role::SERVER_CONFIGURATION),
        (label::SECURITY_SERVER, &*value),
        (label::SECURITY_SERVER_NAMESPACE, namespace),
    ];
    let anchor = anchor.map(label_value);
    // The link hands out no document without it.
    ours.extend(anchor.as_deref().map(|anchor| (label::TRUST_ANCHOR, anchor)));
    let cache = &context.caches.configurations;
    read(context, map, entry::SERVER_CONFIGURATION, &ours, keys, Unseen::Ask, cache).await
}

async fn read<P: Payload + Annotated>(
    context: &Context,
    name: String,
    entry: &str,
    ours: &[(&str, &str)],
    keys: &AnchorKeys,
    unseen: Unseen,
    cache: &impl Remembered<P>,
) -> Result<Arc<ReadDocument<P>>, Error> {
    if let Some(known) = at_hand(context, &name, unseen, keys, cache) {
        return Ok(known);
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let map = api.get_opt(&name).await.map_err(Error::api(format!("read ConfigMap {name}")))?;
    let Some(map) = map else { return Ok(Arc::new(ReadDocument::absent())) };
    let version = map.resource_version().unwrap_or_default();
    // Written by us a moment ago, and the watch has not shown it yet.
    if let Some(known) = cache.recall(&name, &version, keys) {
        return Ok(known);
    }
    let document = Arc::new(open(map, entry, ours, keys));
    // One that does not verify may do so when more keys are at hand: only the good ones are kept.
    cache.keep(name, &document);
    Ok(document)
}

/// What is known without asking.
fn at_hand<P>(
    context: &Context,
    name: &str,
    unseen: Unseen,
    keys: &AnchorKeys,
    cache: &impl Remembered<P>,
) -> Option<Arc<ReadDocument<P>>> {
    match context.world.child(ChildKind::ConfigMap, &context.settings.namespace, name) {
        None => (unseen == Unseen::Absent).then(|| Arc::new(ReadDocument::absent())),
        Some(meta) => cache.recall(name, &meta.version, keys),
    }
}

/// Labels alone do not say whose it is: whoever takes one off would keep the operator from ever putting the document back.
/// One without them is ours by the UID of the trust anchor that owns it, or, where nobody does, by its signature.
fn open<P: Payload + Annotated>(
    mut map: ConfigMap,
    entry: &str,
    ours: &[(&str, &str)],
    keys: &AnchorKeys,
) -> ReadDocument<P> {
    let says = |key: &str, value: &str| map.labels().get(key).is_some_and(|found| found == value);
    let labelled = says(label::MANAGED_BY, MANAGED_BY) && ours.iter().all(|(key, value)| says(key, value));
    let foreign = || ReadDocument { published: Published::Foreign, packed: Bytes::new() };
    let controller = map.owner_references().iter().find(|owner| owner.controller == Some(true));
    let (owned, free) = (controller.is_some_and(|it| Some(&it.uid) == keys.owner.as_ref()), controller.is_none());
    if !(labelled || owned || free) {
        return foreign();
    }
    let resource_version = map.resource_version().unwrap_or_default();
    let uid = map.uid().unwrap_or_default();
    let invalid = |why: String| {
        if !(labelled || owned) {
            return foreign();
        }
        ReadDocument {
            published: Published::Invalid { resource_version: resource_version.clone(), uid: uid.clone(), why },
            packed: Bytes::new(),
        }
    };
    let Some(packed) = map.binary_data.as_mut().and_then(|data| data.remove(entry)) else {
        return invalid(format!("{entry} is missing"));
    };
    match verified::<P>(&packed.0, keys) {
        Ok((verified, generation)) => {
            let annotations = map.annotations();
            let told = verified.payload.annotations();
            let intact = labelled && told.iter().all(|(key, value)| annotations.get(*key) == Some(value));
            kept(verified, generation, resource_version, uid, intact)
        }
        Err(error) => invalid(chain(&error)),
    }
}

/// A document that one of our keys verifies, with the generation of that key.
fn verified<P: Payload>(packed: &[u8], keys: &AnchorKeys) -> Result<(Verified<P>, u64), DocumentError> {
    let keys = keys.public_keys();
    let trusted: Vec<_> = keys.iter().map(|(_, key)| *key).collect();
    let verified = document::open::<P>(packed, &trusted)?;
    let signer = keys.iter().find(|(_, key)| key.key_id() == verified.key_id);
    Ok((verified, signer.map_or(0, |(generation, _)| *generation)))
}

/// A verified document as it stands in an object of this version.
#[must_use]
pub fn kept<P>(
    verified: Verified<P>,
    key_generation: u64,
    resource_version: String,
    uid: String,
    intact: bool,
) -> ReadDocument<P> {
    ReadDocument {
        packed: Bytes::from(verified.packed),
        published: Published::Valid(PublishedDocument {
            payload: Arc::new(verified.payload),
            key_generation,
            resource_version,
            uid,
            intact,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
    use saatkond_pki::configuration_key::ConfigurationKey;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Payload for Note {
        const TYPE: &'static str = "note";
    }

    impl Annotated for Note {
        fn annotations(&self) -> Vec<(&'static str, String)> {
            vec![("text", self.text.clone())]
        }
    }

    fn key(seed: u8) -> ConfigurationKey {
        ConfigurationKey::from_seed(&[seed; 32]).unwrap()
    }

    fn keys() -> AnchorKeys {
        AnchorKeys {
            owner: Some("anchor".into()),
            document_signers: BTreeMap::from([(1, Arc::new(key(1)))]),
            ..AnchorKeys::default()
        }
    }

    #[test]
    fn a_packed_document_is_recalled_as_it_was_read_while_its_key_counts() {
        let ours = [(label::MANAGED_BY, MANAGED_BY), (label::ROLE, "note")];
        let document = Arc::new(opened(&ours, Some("anchor"), 1));
        let cache = Packed::default();
        cache.keep("note".to_owned(), &document);
        let recalled = cache.recall("note", "7", &keys()).unwrap();
        assert_eq!((&recalled.published, &recalled.packed), (&document.published, &document.packed));
        let recall = |version: &str, keys: &AnchorKeys| Remembered::<Note>::recall(&cache, "note", version, keys);
        assert!(recall("8", &keys()).is_none(), "another version");
        assert!(recall("7", &AnchorKeys::default()).is_none(), "its key is not ours any more");
        cache.keep("invalid".to_owned(), &Arc::new(opened(&ours, Some("anchor"), 2)));
        assert!(Remembered::<Note>::recall(&cache, "invalid", "7", &keys()).is_none());
    }

    /// Whose it is said to be, and by which key it is signed.
    fn opened(labels: &[(&str, &str)], owner: Option<&str>, seed: u8) -> ReadDocument<Note> {
        annotated("t", labels, owner, seed)
    }

    fn annotated(told: &str, labels: &[(&str, &str)], owner: Option<&str>, seed: u8) -> ReadDocument<Note> {
        let signed = document::sign(&Note { text: "t".into() }, &key(seed)).unwrap();
        let owner =
            owner.map(|uid| OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() });
        let map = ConfigMap {
            metadata: ObjectMeta {
                labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
                annotations: Some(BTreeMap::from([("text".to_owned(), told.to_owned())])),
                owner_references: owner.map(|owner| vec![owner]),
                resource_version: Some("7".into()),
                ..ObjectMeta::default()
            },
            binary_data: Some(BTreeMap::from([("entry".to_owned(), ByteString(signed.packed))])),
            ..ConfigMap::default()
        };
        open(map, "entry", &[(label::ROLE, "note")], &keys())
    }

    fn read(labels: &[(&str, &str)], owner: Option<&str>, seed: u8) -> Published<Note> {
        opened(labels, owner, seed).published
    }

    #[test]
    fn a_document_is_ours_by_its_labels_its_owner_or_its_signature() {
        let ours = [(label::MANAGED_BY, MANAGED_BY), (label::ROLE, "note")];
        let intact = |published: &Published<Note>| match published {
            Published::Valid(document) => Some(document.intact),
            _ => None,
        };
        assert_eq!(intact(&read(&ours, Some("anchor"), 1)), Some(true));
        for one in ours {
            assert_eq!(intact(&read(&[one], Some("anchor"), 1)), Some(false), "a label was taken off: {one:?}");
        }
        assert_eq!(intact(&read(&[], None, 1)), Some(false), "put back by hand, without its metadata");
        let told = annotated("9", &ours, Some("anchor"), 1).published;
        assert_eq!(intact(&told), Some(false), "an annotation was changed");
        let invalid = |published: &Published<Note>| matches!(published, Published::Invalid { .. });
        assert!(invalid(&read(&ours, Some("anchor"), 2)), "edited");
        assert!(invalid(&read(&[], Some("anchor"), 2)), "edited, and its labels taken off");
        assert_eq!(read(&[], None, 2), Published::Foreign, "somebody's own");
        assert_eq!(read(&[], Some("other"), 1), Published::Foreign, "another owner's, which will take it along");
    }
}
