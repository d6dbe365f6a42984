//! The published documents as the link hands them out: from watched ConfigMaps of the operator's namespace, and for
//! processes that start from a read of the API server itself.
//!
//! Nothing is verified here: documents are signed, and whoever takes one verifies it. The link could not change one
//! without being noticed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use saatkond_api::names::{annotation, entry, label, role};

/// Which security server: namespace and name of the object, as the labels say them.
pub type ServerKey = (String, String);

/// A document to hand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its version.
    pub version: u64,
    /// The signed bytes.
    pub packed: Bytes,
}

/// What a ConfigMap of ours holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The instance configuration of this trust anchor.
    Instance(String, Document),
    /// The configuration of this server, which belongs to this trust anchor.
    Server(ServerKey, String, Document),
}

/// Both documents for one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pair {
    /// The instance configuration.
    pub instance: Option<Document>,
    /// The server configuration.
    pub server: Option<Document>,
}

/// Reads a ConfigMap. Nothing where it is none of ours or has lost a part.
#[must_use]
pub fn read(map: &ConfigMap) -> Option<Kept> {
    let labels = map.labels();
    let name = match labels.get(label::ROLE)?.as_str() {
        role::INSTANCE_CONFIGURATION => entry::INSTANCE_CONFIGURATION,
        role::SERVER_CONFIGURATION => entry::SERVER_CONFIGURATION,
        _ => return None,
    };
    let version = map.annotations().get(annotation::DOCUMENT_VERSION)?.parse().ok()?;
    let packed = Bytes::from(map.binary_data.as_ref()?.get(name)?.0.clone());
    let anchor = labels.get(label::TRUST_ANCHOR)?.clone();
    let document = Document { version, packed };
    if name == entry::INSTANCE_CONFIGURATION {
        return Some(Kept::Instance(anchor, document));
    }
    let server = (labels.get(label::SECURITY_SERVER_NAMESPACE)?.clone(), labels.get(label::SECURITY_SERVER)?.clone());
    Some(Kept::Server(server, anchor, document))
}

/// The label selector of the ConfigMaps that hold documents.
#[must_use]
pub fn selector() -> String {
    format!("{} in ({},{})", label::ROLE, role::INSTANCE_CONFIGURATION, role::SERVER_CONFIGURATION)
}

/// What has been seen of the published documents.
#[derive(Debug, Default)]
pub struct Documents {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    instances: HashMap<String, Document>,
    servers: HashMap<ServerKey, (String, Document)>,
}

impl Documents {
    /// A ConfigMap is there. What the watch shows last counts, whatever version it says: the annotation is anybody's who may edit
    /// the ConfigMap, and one that was set too high must not keep out all that comes after. A process takes no older document.
    pub fn keep(&self, map: &ConfigMap) {
        let mut seen = self.lock();
        match read(map) {
            Some(Kept::Instance(anchor, document)) => {
                seen.instances.insert(anchor, document);
            }
            Some(Kept::Server(server, anchor, document)) => {
                seen.servers.insert(server, (anchor, document));
            }
            None => {}
        }
    }

    /// A ConfigMap is gone.
    pub fn drop(&self, map: &ConfigMap) {
        let mut seen = self.lock();
        match read(map) {
            Some(Kept::Instance(anchor, _)) => drop(seen.instances.remove(&anchor)),
            Some(Kept::Server(server, ..)) => drop(seen.servers.remove(&server)),
            None => {}
        }
    }

    /// Replaces everything: what a fresh list does not have is gone.
    pub fn replace<'a>(&self, maps: impl Iterator<Item = &'a ConfigMap>) {
        let fresh = Self::default();
        maps.for_each(|map| fresh.keep(map));
        *self.lock() = std::mem::take(&mut fresh.lock());
    }

    /// The documents for a server of this trust anchor, as seen last.
    #[must_use]
    pub fn pair(&self, server: &ServerKey) -> Pair {
        let seen = self.lock();
        let Some((anchor, document)) = seen.servers.get(server) else { return Pair::default() };
        Pair { instance: seen.instances.get(anchor).cloned(), server: Some(document.clone()) }
    }

    /// Whether no trust anchor has published anything.
    #[must_use]
    pub fn is_none_published(&self) -> bool {
        self.lock().instances.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The documents for a server, read from the API server itself: a starting process must not get what a cache that is
/// behind would give it (design §6.2).
pub async fn read_fresh(client: &Client, namespace: &str, server: &ServerKey) -> Result<Pair, Box<kube::Error>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let selector = format!(
        "{}={},{}={},{}={}",
        label::ROLE,
        role::SERVER_CONFIGURATION,
        label::SECURITY_SERVER_NAMESPACE,
        server.0,
        label::SECURITY_SERVER,
        server.1,
    );
    // A list without a resourceVersion is a quorum read.
    let list = api.list(&ListParams::default().labels(&selector)).await.map_err(Box::new)?;
    let Some(Kept::Server(_, anchor, document)) = list.items.iter().find_map(read) else { return Ok(Pair::default()) };
    let selector = format!("{}={},{}={anchor}", label::ROLE, role::INSTANCE_CONFIGURATION, label::TRUST_ANCHOR);
    let list = api.list(&ListParams::default().labels(&selector)).await.map_err(Box::new)?;
    let instance = list.items.iter().find_map(|map| match read(map) {
        Some(Kept::Instance(_, document)) => Some(document),
        _ => None,
    });
    Ok(Pair { instance, server: Some(document) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn map(role: &str, name: &str, version: &str, bytes: &[u8]) -> ConfigMap {
        let mut map = ConfigMap::default();
        for (key, value) in [
            (label::ROLE, role),
            (label::TRUST_ANCHOR, "ee"),
            (label::SECURITY_SERVER, "ss1"),
            (label::SECURITY_SERVER_NAMESPACE, "police"),
        ] {
            map.labels_mut().insert(key.into(), value.into());
        }
        map.annotations_mut().insert(annotation::DOCUMENT_VERSION.into(), version.into());
        map.binary_data = Some([(name.to_owned(), ByteString(bytes.to_vec()))].into());
        map
    }

    fn instance(version: &str) -> ConfigMap {
        map(role::INSTANCE_CONFIGURATION, entry::INSTANCE_CONFIGURATION, version, version.as_bytes())
    }

    fn server(version: &str) -> ConfigMap {
        map(role::SERVER_CONFIGURATION, entry::SERVER_CONFIGURATION, version, version.as_bytes())
    }

    fn versions(documents: &Documents) -> (Option<u64>, Option<u64>) {
        let pair = documents.pair(&("police".into(), "ss1".into()));
        (pair.instance.map(|d| d.version), pair.server.map(|d| d.version))
    }

    #[test]
    fn the_newest_of_each_is_handed_out() {
        let documents = Documents::default();
        assert_eq!(versions(&documents), (None, None));
        documents.keep(&instance("3"));
        documents.keep(&server("7"));
        assert_eq!(versions(&documents), (Some(3), Some(7)));
        documents.keep(&instance("4"));
        documents.keep(&server("8"));
        assert_eq!(versions(&documents), (Some(4), Some(8)));
        documents.keep(&instance("18446744073709551615"));
        documents.keep(&instance("5"));
        assert_eq!(versions(&documents), (Some(5), Some(8)), "an annotation that was set too high keeps nothing out");
        documents.drop(&server("8"));
        assert_eq!(versions(&documents), (None, None));
        documents.replace([instance("2"), server("1")].iter());
        assert_eq!(versions(&documents), (Some(2), Some(1)), "a fresh list is the truth");
    }

    #[test]
    fn what_has_lost_a_part_is_not_handed_out() {
        let mut without = server("1");
        without.metadata.annotations = None;
        assert_eq!(read(&without), None);
        assert_eq!(read(&server("x")), None);
        assert_eq!(read(&map(role::START_COPY, entry::SERVER_CONFIGURATION, "1", b"1")), None);
        assert_eq!(read(&map(role::SERVER_CONFIGURATION, entry::INSTANCE_CONFIGURATION, "1", b"1")), None);
    }
}
