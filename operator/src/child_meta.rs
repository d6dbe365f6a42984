//! Metadata of a child: as little of it as decisions need.
//!
//! A server has eight children and a country has hundreds of servers. With all its maps and owners the metadata of each
//! takes some four kilobytes; this takes one eighth of that.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_api::names::{annotation, label};

/// The labels that are looked at.
const LABELS: [&str; 4] = [label::TRUST_ANCHOR, label::SECURITY_SERVER, label::SECURITY_SERVER_NAMESPACE, label::ROLE];

/// The annotations that are looked at.
const ANNOTATIONS: [&str; 7] = [
    annotation::APPLIED_HASH,
    annotation::EXPIRES_AT,
    annotation::INSTANCE_VERSION,
    annotation::BUNDLE_SEQUENCE,
    annotation::SERVERS,
    annotation::COPIED_AT,
    annotation::SERVER_VERSION,
];

type Words = Box<[(&'static str, Box<str>)]>;

/// What is kept of a child's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChildMeta {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID.
    pub uid: Box<str>,
    /// Its resourceVersion.
    pub version: Box<str>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Who owns it.
    pub owners: Box<[Owner]>,
    labels: Words,
    annotations: Words,
}

/// An owner of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID.
    pub uid: Box<str>,
    /// Whether it is the one that controls the child.
    pub controller: bool,
}

impl ChildMeta {
    /// The UID of the owner that controls it.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        self.owners.iter().find(|owner| owner.controller).map(|owner| &*owner.uid)
    }

    /// The value of one of the labels that are kept.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        debug_assert!(LABELS.contains(&key), "{key} is not kept");
        value(&self.labels, key)
    }

    /// The value of one of the annotations that are kept.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        debug_assert!(ANNOTATIONS.contains(&key), "{key} is not kept");
        value(&self.annotations, key)
    }
}

fn value<'a>(words: &'a Words, key: &str) -> Option<&'a str> {
    words.iter().find(|(known, _)| *known == key).map(|(_, value)| &**value)
}

impl From<&ObjectMeta> for ChildMeta {
    fn from(meta: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let owners = meta.owner_references.iter().flatten().map(|owner| Owner {
            kind: owner.kind.as_str().into(),
            name: owner.name.as_str().into(),
            uid: owner.uid.as_str().into(),
            controller: owner.controller == Some(true),
        });
        let words = |all: Option<&std::collections::BTreeMap<String, String>>, kept: &[&'static str]| {
            let found = kept.iter().filter_map(|key| Some((*key, all?.get(*key)?.as_str().into())));
            found.collect()
        };
        Self {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            version: text(&meta.resource_version),
            deleting: meta.deletion_timestamp.is_some(),
            owners: owners.collect(),
            labels: words(meta.labels.as_ref(), &LABELS),
            annotations: words(meta.annotations.as_ref(), &ANNOTATIONS),
        }
    }
}
