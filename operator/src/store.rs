//! What the watches have seen, by namespace and name.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt as _};

use crate::watches::{Change, lighten};

/// Namespace (empty for cluster-scoped objects) and name.
pub type Place = (String, String);

/// Objects of one kind. Not complete before its first list.
#[derive(Debug)]
pub struct Store<K> {
    objects: RwLock<Objects<K>>,
}

#[derive(Debug)]
struct Objects<K> {
    listed: bool,
    by_place: BTreeMap<Place, Arc<K>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self { objects: RwLock::new(Objects { listed: false, by_place: BTreeMap::new() }) }
    }
}

/// Where an object stands.
pub fn place<K: Resource>(object: &K) -> Place {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl<K: Resource> Store<K> {
    /// Takes over what a watch says. Returns all versions that it concerns: what was there and what is there now, since
    /// those that an object pointed at before must hear of the change as well.
    pub fn take(&self, change: Change<K>) -> Vec<Arc<K>> {
        let mut objects = self.write();
        match change {
            Change::All(all) => {
                objects.listed = true;
                let fresh: BTreeMap<_, _> = all.into_iter().map(|object| (place(&object), Arc::new(object))).collect();
                let old = std::mem::replace(&mut objects.by_place, fresh);
                old.into_values().chain(objects.by_place.values().cloned()).collect()
            }
            Change::There(object) => {
                let object = Arc::new(object);
                let old = objects.by_place.insert(place(&*object), object.clone());
                old.into_iter().chain([object]).collect()
            }
            Change::Gone(object) => {
                let old = objects.by_place.remove(&place(&object));
                old.into_iter().chain([Arc::new(object)]).collect()
            }
        }
    }

    /// Takes over what a watch says of objects some of which may be unreadable: those are left as they were seen last, and
    /// told in the log. One that was never readable is as if it were not there: it must not stop all others.
    pub fn take_readable(&self, change: Change<DeserializeGuard<K>>) -> Vec<Arc<K>>
    where
        K: Clone,
    {
        match change {
            Change::All(all) => {
                let mut readable = Vec::with_capacity(all.len());
                for guarded in all {
                    let at = place(&guarded);
                    match guarded.0 {
                        Ok(object) => readable.push(object),
                        Err(error) => {
                            warn(&at, &error.error);
                            readable.extend(self.get(&at.0, &at.1).map(|kept| (*kept).clone()));
                        }
                    }
                }
                self.take(Change::All(readable))
            }
            Change::There(guarded) => {
                let at = place(&guarded);
                match guarded.0 {
                    Ok(object) => self.take(Change::There(object)),
                    Err(error) => {
                        warn(&at, &error.error);
                        Vec::new()
                    }
                }
            }
            Change::Gone(guarded) => {
                let at = place(&guarded);
                match guarded.0 {
                    Ok(object) => self.take(Change::Gone(object)),
                    Err(_) => self.write().by_place.remove(&at).into_iter().collect(),
                }
            }
        }
    }

    /// Takes over what a write of ours has made of the version `seen`, if nothing else has been shown since. Whoever is
    /// woken before the watch shows it would else decide by what stood before, and write the same once more.
    pub fn wrote(&self, seen: &K, mut now: K) {
        lighten(&mut now);
        if let Some(standing) = self.write().by_place.get_mut(&place(seen))
            && standing.meta().uid == seen.meta().uid
            && standing.meta().resource_version == seen.meta().resource_version
        {
            *standing = Arc::new(now);
        }
    }

    /// Whether the first list has arrived.
    pub fn is_listed(&self) -> bool {
        self.read().listed
    }

    /// The object at this place.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.read().by_place.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects, ordered by place.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read().by_place.values().cloned().collect()
    }

    /// All objects that `keep` wants, ordered by place.
    pub fn filter(&self, mut keep: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        self.read().by_place.values().filter(|object| keep(object)).cloned().collect()
    }

    /// All objects of a namespace, ordered by name.
    pub fn within(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = (namespace.to_owned(), String::new());
        let objects = self.read();
        let here = objects.by_place.range(from..).take_while(|((found, _), _)| found == namespace);
        here.map(|(_, object)| object.clone()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects<K>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warn((namespace, name): &Place, error: &str) {
    tracing::warn!(namespace, name, error, "an object cannot be read: it is left as it was");
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    fn names(maps: &[Arc<ConfigMap>]) -> Vec<String> {
        maps.iter().map(|map| format!("{}@{}", map.name_any(), map.resource_version().unwrap_or_default())).collect()
    }

    #[test]
    fn both_what_was_and_what_is_are_named() {
        let store = Store::default();
        assert!(!store.is_listed());
        assert_eq!(names(&store.take(Change::There(map("a", "x", "1")))), ["x@1"]);
        assert_eq!(names(&store.take(Change::There(map("a", "x", "2")))), ["x@1", "x@2"]);
        assert_eq!(names(&store.take(Change::All(vec![map("a", "y", "3")]))), ["x@2", "y@3"]);
        assert!(store.is_listed());
        assert!(store.get("a", "x").is_none(), "what a fresh list has not is gone");
        assert_eq!(names(&store.take(Change::Gone(map("a", "y", "4")))), ["y@3", "y@4"]);
    }

    #[test]
    fn what_we_wrote_replaces_the_version_it_was_made_of_and_no_other() {
        let store = Store::default();
        store.take(Change::There(map("a", "x", "1")));
        store.wrote(&map("a", "x", "1"), map("a", "x", "2"));
        assert_eq!(names(&store.all()), ["x@2"]);
        store.wrote(&map("a", "x", "1"), map("a", "x", "3"));
        assert_eq!(names(&store.all()), ["x@2"], "something else has been shown since");
        let mut again = map("a", "x", "2");
        again.metadata.uid = Some("another".into());
        store.wrote(&again, map("a", "x", "4"));
        assert_eq!(names(&store.all()), ["x@2"], "another object of the same name");
        store.wrote(&map("a", "y", "1"), map("a", "y", "2"));
        assert_eq!(names(&store.all()), ["x@2"], "what is gone does not come back");
    }

    #[test]
    fn a_namespace_is_not_its_prefix() {
        let store = Store::default();
        store.take(Change::All(vec![
            map("a", "x", "1"),
            map("a-b", "y", "1"),
            map("ab", "z", "1"),
            map("a", "w", "1"),
        ]));
        assert_eq!(names(&store.within("a")), ["w@1", "x@1"]);
        assert_eq!(names(&store.within("a-b")), ["y@1"]);
        assert!(store.within("b").is_empty());
    }
}
