//! What was read and is good while the object's resourceVersion is the same.
//!
//! Each entry is a fact about one version of one object, so it is never stale: whoever uses it compares the version with
//! what the watches show. That makes a look at a quiet object cost no request, and bounds memory to facts, not objects.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use saatkond_domain::observed::Stored;
use saatkond_domain::observed::{AdmissionPolicy, DeploymentFacts, ObservedDescriptions, ObservedStartCopy};
use saatkond_domain::security_server::observed::IdentityFacts;
use saatkond_wire::configuration::InstanceConfiguration;

use super::documents::{Packed, Parsed};
use crate::store::Place;
use crate::world::ChildPlace;

/// Facts about one version each.
#[derive(Debug)]
pub struct Versioned<P, F> {
    facts: Mutex<HashMap<P, (String, F)>>,
}

impl<P, F> Default for Versioned<P, F> {
    fn default() -> Self {
        Self { facts: Mutex::new(HashMap::new()) }
    }
}

impl<P: Eq + Hash, F: Clone> Versioned<P, F> {
    /// The facts about this version.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, place: &Q, version: &str) -> Option<F>
    where
        P: Borrow<Q>,
    {
        self.lock().get(place).filter(|(known, _)| known == version).map(|(_, facts)| facts.clone())
    }

    /// Keeps the facts about a version; those about an earlier one are dropped.
    pub fn put(&self, place: P, version: String, facts: F) {
        self.lock().insert(place, (version, facts));
    }

    /// Forgets an object.
    pub fn forget(&self, place: &P) {
        self.lock().remove(place);
    }

    /// Forgets all that `keep` does not want.
    pub fn retain(&self, mut keep: impl FnMut(&P) -> bool) {
        self.lock().retain(|place, _| keep(place));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<P, (String, F)>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of one version of a child.
#[derive(Debug, Clone)]
pub struct CheckedChild {
    /// Hash of what it was compared with.
    pub wanted: String,
    /// Whether it says all of that.
    pub intact: bool,
    /// A Deployment's status.
    pub deployment: Option<DeploymentFacts>,
}

/// Descriptions of a member's services, as read last.
#[derive(Debug, Clone)]
pub struct ReadDescriptions {
    /// The Member's generation at that time.
    pub generation: Option<i64>,
    /// When, by the monotonic clock.
    pub at: Duration,
    /// What was found.
    pub found: ObservedDescriptions,
}

/// All caches.
#[derive(Debug, Default)]
pub struct Caches {
    /// Children.
    pub children: Versioned<ChildPlace, CheckedChild>,
    /// Identity Secrets, without their keys.
    pub identities: Versioned<Place, Stored<IdentityFacts>>,
    /// Start copies.
    pub start_copies: Versioned<Place, ObservedStartCopy>,
    /// Instance configurations by name of the ConfigMap.
    pub instances: Parsed<InstanceConfiguration>,
    /// Server configurations by name of the ConfigMap.
    pub configurations: Packed,
    /// Descriptions by member.
    pub descriptions: Mutex<HashMap<Place, ReadDescriptions>>,
    /// Whether claims are guarded, and when that was read.
    pub policy: Mutex<Option<(Duration, AdmissionPolicy)>>,
}

impl Caches {
    /// Forgets everything about a SecurityServer that is gone.
    pub fn forget_server(&self, place: &Place) {
        self.identities.retain(|known| known != place);
        self.start_copies.retain(|known| known != place);
        self.configurations.forget(&saatkond_domain::names::server_configuration(&place.0, &place.1));
    }

    /// Forgets everything about a Member that is gone.
    pub fn forget_member(&self, place: &Place) {
        self.descriptions.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_about_one_version_alone() {
        let cache = Versioned::default();
        cache.put("a", "1".into(), true);
        assert_eq!(cache.get(&"a", "1"), Some(true));
        assert_eq!(cache.get(&"a", "2"), None);
        cache.put("a", "2".into(), false);
        assert_eq!(cache.get(&"a", "1"), None, "an earlier version does not come back");
        assert_eq!(cache.get(&"a", "2"), Some(false));
    }
}
