//! Which configuration key signs, which one follows it, and which have to be made.

use kube::ResourceExt;
use saatkond_api::TrustAnchor;
use saatkond_api::names::{configuration_key_secret, role};
use saatkond_wire::configuration::{ConfigurationKeyEntry, ConfigurationKeys};

use super::observed::ObservedTrustAnchor;
use crate::meta::anchor_object;
use crate::observed::Stored;

/// What is concluded about a trust anchor's configuration keys.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyState {
    /// Generations to make before anything can be signed.
    Make(Vec<u64>),
    /// One signs, one follows.
    Ready(ConfigurationKeys),
    /// Neither the key that signs nor the announced one is there: gateways would believe no other.
    Lost {
        /// For people.
        why: String,
    },
    /// A Secret that is not ours stands where a key should.
    Foreign {
        /// Its name.
        name: String,
    },
}

/// Concludes from what was seen.
///
/// A document names the key that follows, so losing the one that signs is no disaster: the announced one takes over
/// and a new one is announced. A generation number is never used for two keys, so a lost one is skipped.
#[must_use]
pub fn state(seen: &ObservedTrustAnchor) -> KeyState {
    let anchor = seen.anchor.name_any();
    let key_of = |generation: u64| {
        let found = seen.configuration_keys.iter().find(|key| key.generation == generation);
        found.and_then(|found| Some(ConfigurationKeyEntry { generation, key: *found.secret.facts()? }))
    };
    let foreign = |generation: u64| {
        let found = seen.configuration_keys.iter().find(|key| key.generation == generation);
        found.is_some_and(|found| found.secret == Stored::Foreign)
    };
    let there = || seen.configuration_keys.iter().filter(|key| key.secret.facts().is_some()).map(|key| key.generation);

    let announced = announced(seen);
    let Some((current, next)) = announced else {
        // Nothing is published and nothing remembered: the lowest two, made if need be.
        let wanted: Vec<u64> = match there().min() {
            Some(lowest) => vec![lowest, lowest + 1],
            None => vec![1, 2],
        };
        if let Some(generation) = wanted.iter().copied().find(|generation| foreign(*generation)) {
            return KeyState::Foreign { name: configuration_key_secret(&anchor, generation) };
        }
        let missing: Vec<u64> = wanted.iter().copied().filter(|generation| key_of(*generation).is_none()).collect();
        return match (key_of(wanted[0]), key_of(wanted[1])) {
            (Some(current), Some(next)) => KeyState::Ready(ConfigurationKeys { current, next }),
            _ => KeyState::Make(missing),
        };
    };
    let Some(signing) = key_of(current).or_else(|| key_of(next)) else {
        let (a, b) = (configuration_key_secret(&anchor, current), configuration_key_secret(&anchor, next));
        let why = match [(current, &a), (next, &b)].into_iter().find(|(generation, _)| foreign(*generation)) {
            Some((_, name)) => format!(
                "Secret {name} exists and is not known as ours; {}",
                what_to_do(&seen.anchor, role::CONFIGURATION_KEY, true)
            ),
            None => {
                format!(
                    "neither Secret {a} nor the announced {b} is there to sign documents; restore one from a backup"
                )
            }
        };
        return KeyState::Lost { why };
    };
    let following = there().filter(|generation| *generation > signing.generation).min().and_then(key_of);
    if let Some(next) = following {
        return KeyState::Ready(ConfigurationKeys { current: signing, next });
    }
    let free = there().chain([current, next]).max().unwrap_or(next) + 1;
    if foreign(free) {
        return KeyState::Foreign { name: configuration_key_secret(&anchor, free) };
    }
    KeyState::Make(vec![free])
}

/// What a person does about a Secret that has the name of one with a key of ours. Where there is or was such a key it may hold the
/// only copy, say brought back from a backup: nobody may be told to delete that.
pub(super) fn what_to_do(anchor: &TrustAnchor, role: &str, known: bool) -> String {
    if !known {
        return "keep a copy under another name if it holds anything, then delete it: ours cannot be stored".to_owned();
    }
    let labels = anchor_object(anchor, "", String::new(), role, None).labels.unwrap_or_default();
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "if it holds our key, say from a backup, it needs the labels {} and no ownerReferences; do not delete it before that is known",
        labels.join(" ")
    )
}

/// The generations that gateways know: from the published document, else from the status.
fn announced(seen: &ObservedTrustAnchor) -> Option<(u64, u64)> {
    let published = seen.published.payload().map(|document| &document.configuration_keys);
    let remembered = seen.anchor.status.as_ref().and_then(|status| status.configuration.as_ref());
    published
        .map(|keys| (keys.current.generation, keys.next.generation))
        .or_else(|| remembered.map(|it| (it.key_generation, it.next_key_generation)))
}
