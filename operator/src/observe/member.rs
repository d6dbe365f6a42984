//! What is seen for one member.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::Api;
use saatkond_api::Member;
use saatkond_domain::member::observed::ObservedMember;
use saatkond_domain::observed::{NamespaceAccess, ObservedDescription, ObservedDescriptions, ObservedNamespace};
use serde_json::Value;

use super::caches::ReadDescriptions;
use super::documents::{ReadDocument, Unseen};
use super::{candidate, documents, keys, policy};
use crate::context::Context;
use crate::error::Error;
use crate::store::place;
use crate::world::named_servers;

/// How long descriptions count that were all found, and that were not: users' ConfigMaps are not watched.
const FOUND: Duration = Duration::from_mins(5);
const LACKING: Duration = Duration::from_secs(10);

/// Gathers everything.
pub async fn gather(
    context: &Context,
    member: Arc<Member>,
    namespace: Arc<ObservedNamespace>,
) -> Result<ObservedMember, Error> {
    let world = &context.world;
    let here = member.namespace().unwrap_or_default();
    let spec = &member.spec;
    let anchor = world.anchors.get("", &spec.trust_anchor_ref.name);
    let instance = match &anchor {
        Some(anchor) => {
            let known = keys::observe(context, &anchor.name_any(), false).await?;
            documents::instance(context, &anchor.name_any(), &known, Unseen::of(&*member)).await?
        }
        None => Arc::new(ReadDocument::absent()),
    };
    let own = place(&*member);
    let rivals = world.members.filter(|other| {
        place(other) != own
            && other.spec.trust_anchor_ref == spec.trust_anchor_ref
            && other.spec.member_class == spec.member_class
            && other.spec.member_code == spec.member_code
    });
    let named: BTreeSet<_> = named_servers(&member).collect();
    let servers = world.servers.filter(|server| {
        let at = place(server);
        at.0 == here || named.contains(&at)
    });
    let owners: BTreeSet<_> = servers
        .iter()
        .map(|server| (server.namespace().unwrap_or_default(), server.spec.member_ref.name.clone()))
        // A host may live in the same namespace.
        .filter(|owner| *owner != own)
        .collect();
    Ok(ObservedMember {
        policy: policy::observe(context).await?,
        instance: instance.published.clone(),
        rivals: rivals.into_iter().map(|other| candidate(context, other)).collect(),
        hosts: owners.iter().filter_map(|(namespace, name)| world.members.get(namespace, name)).collect(),
        descriptions: descriptions(context, &member, &namespace).await?,
        anchor,
        servers,
        namespace,
        member,
    })
}

async fn descriptions(
    context: &Context,
    member: &Member,
    namespace: &ObservedNamespace,
) -> Result<ObservedDescriptions, Error> {
    let services = member.spec.subsystems.iter().flat_map(|subsystem| &subsystem.services);
    let named: BTreeSet<_> = services
        .filter_map(|service| service.openapi.as_ref())
        .map(|openapi| (openapi.config_map_ref.name.clone(), openapi.config_map_ref.key.clone()))
        .collect();
    if named.is_empty() || namespace.access != NamespaceAccess::Granted {
        return Ok(ObservedDescriptions::new());
    }
    let now = context.clock.elapsed();
    let at = place(member);
    let generation = member.metadata.generation;
    let known = context.caches.descriptions.lock().unwrap_or_else(PoisonError::into_inner).get(&at).cloned();
    if let Some(known) = known.filter(|known| known.generation == generation) {
        let whole = known.found.values().all(|found| matches!(found, ObservedDescription::Read { .. }));
        if now.saturating_sub(known.at) < if whole { FOUND } else { LACKING } {
            return Ok(known.found);
        }
    }
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace.name);
    let maps: BTreeSet<_> = named.iter().map(|(map, _)| map.clone()).collect();
    let mut found = ObservedDescriptions::new();
    for name in maps {
        let map = api.get_opt(&name).await.map_err(Error::api(format!("read ConfigMap {}/{name}", namespace.name)))?;
        let keys: Vec<_> = named.iter().filter(|(of, _)| *of == name).map(|(_, key)| key.clone()).collect();
        // Users write these, up to a mebibyte each, and all other looks and the lease share this thread.
        let read = move || keys.into_iter().map(|key| (describe(map.as_ref(), &key), key)).collect::<Vec<_>>();
        let read = tokio::task::spawn_blocking(read).await;
        let read = read.map_err(|source| Error::Decide(source.into()))?;
        found.extend(read.into_iter().map(|(description, key)| ((name.clone(), key), description)));
    }
    let read = ReadDescriptions { generation, at: now, found: found.clone() };
    context.caches.descriptions.lock().unwrap_or_else(PoisonError::into_inner).insert(at, read);
    Ok(found)
}

/// Reads an OpenAPI document as far as it concerns us. YAML covers JSON.
fn describe(map: Option<&ConfigMap>, key: &str) -> ObservedDescription {
    let text = map.and_then(|map| {
        let text = map.data.as_ref().and_then(|data| data.get(key).cloned());
        text.or_else(|| {
            let bytes = map.binary_data.as_ref()?.get(key)?;
            String::from_utf8(bytes.0.clone()).ok()
        })
    });
    let Some(text) = text else { return ObservedDescription::Absent };
    match serde_saphyr::from_str_with_options::<Value>(&text, bounded(&text)) {
        Err(error) => {
            let why: String = error.to_string().lines().next().unwrap_or_default().chars().take(200).collect();
            ObservedDescription::Unreadable { why }
        }
        Ok(document) => ObservedDescription::Read {
            version: document.get("openapi").and_then(Value::as_str).map(str::to_owned),
            has_paths: document.get("paths").is_some_and(Value::is_object),
        },
    }
}

/// A text of 400 bytes whose aliases name each other stands for any number of nodes, and one long word for as many bytes as it has
/// aliases. Written out, none has more of either than its bytes.
fn bounded(text: &str) -> serde_saphyr::Options {
    let length = text.len();
    let budget = serde_saphyr::budget! {
        max_nodes: length + 1, max_events: 4 * length + 16, max_total_scalar_bytes: 4 * length + 16,
    };
    serde_saphyr::options! { budget: budget }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> ConfigMap {
        ConfigMap { data: Some([("k".to_owned(), text.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn descriptions_are_read_as_json_and_as_yaml() {
        let read = ObservedDescription::Read { version: Some("3.0.3".into()), has_paths: true };
        for text in [r#"{"openapi": "3.0.3", "paths": {}}"#, "openapi: 3.0.3\npaths:\n  /a: {}\n"] {
            assert_eq!(describe(Some(&map(text)), "k"), read, "{text}");
        }
        assert_eq!(describe(None, "k"), ObservedDescription::Absent);
        assert_eq!(describe(Some(&map("a: 1")), "other"), ObservedDescription::Absent);
        assert!(matches!(describe(Some(&map("a: [")), "k"), ObservedDescription::Unreadable { .. }));
        let bare = ObservedDescription::Read { version: None, has_paths: false };
        assert_eq!(describe(Some(&map("just text")), "k"), bare);
    }

    #[test]
    fn what_stands_for_more_than_it_is_long_is_refused() {
        // Each list names the one before it nine times.
        let levels =
            (1..12).map(|level| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")));
        let text = format!("a0: &a0 x\n{}openapi: 3.0.3\npaths: {{}}\n", levels.collect::<String>());
        assert!(matches!(describe(Some(&map(&text)), "k"), ObservedDescription::Unreadable { .. }), "{text}");
        let word = "x".repeat(10_000);
        let of_words = |times: usize| {
            format!("openapi: 3.0.3\npaths: {{}}\nx-a: &a {word}\nx-b: [{}]\n", vec!["*a"; times].join(", "))
        };
        let (few, many) = (describe(Some(&map(&of_words(2))), "k"), describe(Some(&map(&of_words(50))), "k"));
        assert_eq!(few, ObservedDescription::Read { version: Some("3.0.3".into()), has_paths: true });
        assert!(matches!(many, ObservedDescription::Unreadable { .. }), "{many:?}");
        // As people use them: one answer in several places.
        let text = "openapi: 3.0.3\npaths:\n  /a: {get: {responses: &r {default: {description: error}}}}\n  /b: {get: {responses: *r}}\n";
        let read = ObservedDescription::Read { version: Some("3.0.3".into()), has_paths: true };
        assert_eq!(describe(Some(&map(text)), "k"), read);
    }
}
