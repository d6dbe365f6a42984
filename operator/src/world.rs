//! Everything the controller has seen, and who must look again when something changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;
use saatkond_api::names::{annotation, label};
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::children::ChildKind;
use saatkond_domain::observed::{NamespaceAccess, ObservedNamespace};

use crate::child_meta::ChildMeta;
use crate::pods::Pods;
use crate::store::{Place, Store};

/// An object that is reconciled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// By name.
    TrustAnchor(String),
    /// By namespace and name.
    Member(String, String),
    /// By namespace and name.
    SecurityServer(String, String),
}

impl Key {
    /// Its kind, for metrics and logs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TrustAnchor(_) => "TrustAnchor",
            Self::Member(..) => "Member",
            Self::SecurityServer(..) => "SecurityServer",
        }
    }
}

impl Key {
    /// Its namespace, if it has one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::TrustAnchor(_) => None,
            Self::Member(namespace, _) | Self::SecurityServer(namespace, _) => Some(namespace),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TrustAnchor(name) => write!(f, "TrustAnchor {name}"),
            Self::Member(namespace, name) => write!(f, "Member {namespace}/{name}"),
            Self::SecurityServer(namespace, name) => write!(f, "SecurityServer {namespace}/{name}"),
        }
    }
}

/// Metadata of a child, by kind, namespace and name.
pub type ChildPlace = (ChildKind, String, String);

/// All stores.
#[derive(Debug, Default)]
pub struct World {
    /// TrustAnchors.
    pub anchors: Store<TrustAnchor>,
    /// Members.
    pub members: Store<Member>,
    /// SecurityServers.
    pub servers: Store<SecurityServer>,
    /// Metadata of all namespaces.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// The gateways' pods.
    pub pods: Arc<Pods>,
    children: Mutex<BTreeMap<ChildPlace, Arc<ChildMeta>>>,
    access: Mutex<HashMap<String, NamespaceAccess>>,
}

impl World {
    /// Nothing but these pods.
    #[must_use]
    pub fn with(pods: Arc<Pods>) -> Self {
        Self { pods, ..Self::default() }
    }

    /// Whether all lists that decisions rest on have arrived. Before that nothing may be decided: an object that is
    /// merely not listed yet would be taken out of the configuration.
    pub fn is_listed(&self) -> bool {
        self.anchors.is_listed()
            && self.members.is_listed()
            && self.servers.is_listed()
            && self.namespaces.is_listed()
            && self.pods.is_listed()
    }

    /// As [`Self::namespace`], once the rights in it are known: nothing is decided about an object before.
    pub fn known_namespace(&self, name: &str, operator: &str) -> Option<Arc<ObservedNamespace>> {
        self.namespace(name, operator).filter(|namespace| namespace.access != NamespaceAccess::Unknown)
    }

    /// A namespace with what is known of the operator's rights in it. `None`: it is not listed. The annotation does not wait
    /// for the rights: whoever has lost an identity would else pass for its holder until a first answer.
    pub fn namespace(&self, name: &str, operator: &str) -> Option<Arc<ObservedNamespace>> {
        let namespace = self.namespaces.get("", name)?;
        let access = lock(&self.access).get(name).copied().unwrap_or(NamespaceAccess::Unknown);
        Some(Arc::new(ObservedNamespace {
            name: name.to_owned(),
            identities: namespace.annotations().get(annotation::MEMBER_IDENTITIES).cloned(),
            access,
            operator: operator.to_owned(),
            terminating: namespace.metadata.deletion_timestamp.is_some(),
        }))
    }

    /// What was learnt of the operator's rights in a namespace; `None` forgets it. Says whether that is news.
    pub fn set_access(&self, namespace: &str, access: Option<NamespaceAccess>) -> bool {
        let mut all = lock(&self.access);
        match access {
            Some(access) => all.insert(namespace.to_owned(), access) != Some(access),
            None => all.remove(namespace).is_some(),
        }
    }

    /// Namespaces that hold Members or SecurityServers, with whether there is a SecurityServer.
    pub fn inhabited(&self) -> BTreeMap<String, bool> {
        let members = self.members.all().into_iter().filter_map(|member| Some((member.namespace()?, false)));
        let servers = self.servers.all().into_iter().filter_map(|server| Some((server.namespace()?, true)));
        members.chain(servers).collect()
    }

    /// Metadata of a child.
    pub fn child(&self, kind: ChildKind, namespace: &str, name: &str) -> Option<Arc<ChildMeta>> {
        lock(&self.children).get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Metadata of all children of a kind in a namespace.
    pub fn children_in(&self, kind: ChildKind, within: &str) -> Vec<Arc<ChildMeta>> {
        let children = lock(&self.children);
        let here = children.range((kind, within.to_owned(), String::new())..);
        here.take_while(|((of, namespace, _), _)| *of == kind && namespace == within).map(|(_, m)| m.clone()).collect()
    }

    /// Replaces the metadata of all children of a kind, in one namespace or in all that `within` covers. Returns the
    /// metadata of all that were there and are there now.
    pub fn replace_children(
        &self,
        kind: ChildKind,
        within: impl Fn(&str) -> bool,
        all: impl Iterator<Item = ChildMeta>,
    ) -> Vec<Arc<ChildMeta>> {
        let mut children = lock(&self.children);
        let mut concerned = Vec::new();
        children.retain(|(of, namespace, _), meta| {
            let replaced = *of == kind && within(namespace);
            if replaced {
                concerned.push(meta.clone());
            }
            !replaced
        });
        for meta in all {
            let meta = Arc::new(meta);
            concerned.push(meta.clone());
            children.insert(child_place(kind, &meta), meta);
        }
        concerned
    }

    /// A child is there. Returns what was there as well.
    pub fn put_child(&self, kind: ChildKind, meta: ChildMeta) -> Vec<Arc<ChildMeta>> {
        let meta = Arc::new(meta);
        let old = lock(&self.children).insert(child_place(kind, &meta), meta.clone());
        old.into_iter().chain([meta]).collect()
    }

    /// A child is gone.
    pub fn drop_child(&self, kind: ChildKind, meta: ChildMeta) -> Vec<Arc<ChildMeta>> {
        let old = lock(&self.children).remove(&child_place(kind, &meta));
        old.into_iter().chain([Arc::new(meta)]).collect()
    }

    /// Who looks again when a TrustAnchor changes: itself, others (of two of one instance the older stays), and all who
    /// refer to it.
    pub fn woken_by_anchor(&self, name: &str) -> Vec<Key> {
        let mut keys: Vec<_> = self.anchors.all().iter().map(|other| Key::TrustAnchor(other.name_any())).collect();
        keys.push(Key::TrustAnchor(name.to_owned()));
        keys.extend(self.dependants(name));
        keys
    }

    /// The Members of a trust anchor and the SecurityServers that they own.
    pub fn dependants(&self, anchor: &str) -> Vec<Key> {
        let members = self.members.filter(|member| member.spec.trust_anchor_ref.name == anchor);
        let owners: BTreeSet<Place> = members.iter().map(|member| crate::store::place(&**member)).collect();
        let servers = self.servers.filter(|server| {
            owners.contains(&(server.namespace().unwrap_or_default(), server.spec.member_ref.name.clone()))
        });
        members.iter().map(|m| member_key(m)).chain(servers.iter().map(|s| server_key(s))).collect()
    }

    /// Who looks again when a Member changes: itself, its anchor, those who claim the same identity, and the servers
    /// that serve it or might.
    pub fn woken_by_member(&self, member: &Member) -> Vec<Key> {
        let namespace = member.namespace().unwrap_or_default();
        let spec = &member.spec;
        let mut keys = vec![member_key(member), Key::TrustAnchor(spec.trust_anchor_ref.name.clone())];
        let rivals = self
            .members
            .filter(|other| other.spec.member_class == spec.member_class && other.spec.member_code == spec.member_code);
        keys.extend(rivals.iter().map(|other| member_key(other)));
        let hosts = self.servers.filter(|server| {
            server.namespace().as_deref() == Some(&*namespace)
                || server
                    .spec
                    .guests
                    .iter()
                    .any(|guest| guest.member_class == spec.member_class && guest.member_code == spec.member_code)
        });
        keys.extend(hosts.iter().map(|server| server_key(server)));
        keys.extend(named_servers(member).map(|(namespace, name)| Key::SecurityServer(namespace, name)));
        keys
    }

    /// Who looks again when a SecurityServer changes: itself, its neighbours, its anchor, and the members it serves.
    pub fn woken_by_server(&self, server: &SecurityServer) -> Vec<Key> {
        let namespace = server.namespace().unwrap_or_default();
        let place = (namespace.clone(), server.name_any());
        let mut keys = vec![server_key(server)];
        keys.extend(self.servers.within(&namespace).iter().map(|other| server_key(other)));
        let concerned = self.members.filter(|member| {
            member.namespace().as_deref() == Some(&*namespace) || named_servers(member).any(|named| named == place)
        });
        for member in &concerned {
            keys.push(member_key(member));
            keys.push(Key::TrustAnchor(member.spec.trust_anchor_ref.name.clone()));
        }
        keys
    }

    /// Who looks again when a namespace, or what is known of it, changes.
    pub fn woken_by_namespace(&self, namespace: &str) -> Vec<Key> {
        let mut keys: Vec<_> = self.servers.within(namespace).iter().map(|server| server_key(server)).collect();
        for member in self.members.within(namespace) {
            keys.extend(self.woken_by_member(&member));
        }
        keys
    }

    /// Who looks again when a child changes: whom its labels and its owner name.
    pub fn woken_by_child(&self, meta: &ChildMeta) -> Vec<Key> {
        let mut keys = Vec::new();
        let namespace = meta.namespace.to_string();
        if let Some(server) = meta.label(label::SECURITY_SERVER) {
            let namespace = meta.label(label::SECURITY_SERVER_NAMESPACE).unwrap_or(&namespace);
            keys.push(Key::SecurityServer(namespace.to_owned(), server.to_owned()));
        }
        // Owners are named even where somebody has taken the labels away.
        for owner in &meta.owners {
            match &*owner.kind {
                "SecurityServer" => keys.push(Key::SecurityServer(namespace.clone(), owner.name.to_string())),
                "TrustAnchor" => {
                    keys.push(Key::TrustAnchor(owner.name.to_string()));
                    // An instance configuration concerns all who stand in it, a key all who have leaves of it.
                    if meta.label(label::SECURITY_SERVER).is_none() {
                        keys.extend(self.dependants(&owner.name));
                    }
                }
                _ => {}
            }
        }
        if *meta.name == *saatkond_api::names::LINK_IDENTITY_SECRET {
            keys.extend(self.anchors.all().iter().map(|anchor| Key::TrustAnchor(anchor.name_any())));
        }
        keys
    }

    /// Everything there is.
    pub fn everything(&self) -> Vec<Key> {
        let anchors = self.anchors.all().into_iter().map(|anchor| Key::TrustAnchor(anchor.name_any()));
        let members = self.members.all().into_iter().map(|member| member_key(&member));
        let servers = self.servers.all().into_iter().map(|server| server_key(&server));
        anchors.chain(members).chain(servers).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn child_place(kind: ChildKind, meta: &ChildMeta) -> ChildPlace {
    (kind, meta.namespace.to_string(), meta.name.to_string())
}

fn member_key(member: &Member) -> Key {
    Key::Member(member.namespace().unwrap_or_default(), member.name_any())
}

fn server_key(server: &SecurityServer) -> Key {
    Key::SecurityServer(server.namespace().unwrap_or_default(), server.name_any())
}

/// The servers that a member's subsystems name.
pub fn named_servers(member: &Member) -> impl Iterator<Item = Place> {
    let here = member.namespace().unwrap_or_default();
    let named = member.spec.subsystems.iter().flat_map(|subsystem| subsystem.servers.iter().flatten());
    named.map(move |server| (server.namespace.clone().unwrap_or_else(|| here.clone()), server.name.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watches::Change;

    #[test]
    fn what_a_namespace_may_claim_is_known_before_the_rights_in_it() {
        let world = World::default();
        let namespace =
            json!({"metadata": {"name": "benefits", "annotations": {annotation::MEMBER_IDENTITIES: "EE/GOV/1"}}});
        world.namespaces.take(Change::All(vec![serde_json::from_value(namespace).unwrap()]));
        let seen = world.namespace("benefits", "saatkond-system").unwrap();
        assert_eq!((seen.identities.as_deref(), seen.access), (Some("EE/GOV/1"), NamespaceAccess::Unknown));
        assert_eq!(world.known_namespace("benefits", "saatkond-system"), None);
        world.set_access("benefits", Some(NamespaceAccess::Denied));
        assert_eq!(world.namespace("benefits", "saatkond-system").unwrap().access, NamespaceAccess::Denied);
        assert_eq!(world.namespace("elsewhere", "saatkond-system"), None);
    }
}
