//! Two objects that claim one thing: the older stays. By creation time, then by UID, so that every replica of every
//! version of the operator picks the same one.

use jiff::Timestamp;
use kube::ResourceExt;

/// What decides between two claims: less is older.
#[must_use]
pub fn age<K: ResourceExt>(object: &K) -> (Timestamp, String) {
    let created = object.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
    (created, object.uid().unwrap_or_default())
}

/// The one among `others` that stays instead of `own`: older, and not on its way out. `None`: `own` stays.
#[must_use]
pub fn displaced_by<'a, K: ResourceExt>(own: &K, others: impl IntoIterator<Item = &'a K>) -> Option<&'a K> {
    preceded_by(own, others.into_iter().filter(|other| other.meta().deletion_timestamp.is_none()))
}

/// The oldest among `others` that is older than `own`, also one on its way out.
#[must_use]
pub fn preceded_by<'a, K: ResourceExt>(own: &K, others: impl IntoIterator<Item = &'a K>) -> Option<&'a K> {
    others.into_iter().filter(|other| age(*other) < age(own)).min_by_key(|other| age(*other))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    fn object(created: i64, uid: &str, deleting: bool) -> ConfigMap {
        let time = |second| Some(Time(Timestamp::from_second(second).unwrap()));
        let metadata = ObjectMeta {
            uid: Some(uid.into()),
            creation_timestamp: time(created),
            deletion_timestamp: if deleting { time(999) } else { None },
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn the_older_stays() {
        let own = object(100, "m", false);
        for (name, other, stays) in [
            ("a second older", object(99, "z", false), false),
            ("as old, lower UID", object(100, "l", false), false),
            ("as old, higher UID", object(100, "n", false), true),
            ("a second younger", object(101, "a", false), true),
            ("older, but going", object(99, "a", true), true),
        ] {
            assert_eq!(displaced_by(&own, [&other]).is_none(), stays, "{name}");
            let follows = preceded_by(&own, [&other]).is_none();
            assert_eq!(follows, stays && other.metadata.deletion_timestamp.is_none(), "{name}");
        }
    }

    #[test]
    fn the_oldest_of_several_is_named() {
        let (own, a, b) = (object(100, "m", false), object(50, "a", false), object(40, "b", false));
        assert_eq!(displaced_by(&own, [&a, &b]).and_then(|o| o.metadata.uid.as_deref()), Some("b"));
    }
}
