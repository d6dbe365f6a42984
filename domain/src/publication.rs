//! A document to sign and publish, with the object that carries it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_api::names::annotation;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};

/// A document of which the object that carries it says something in annotations: for the link, which reads no documents,
/// for watches of metadata alone, and for people. What they say must be what the document says, or the link hands out
/// nothing, and nobody looks at the document when its time is over.
pub trait Annotated {
    /// The annotations, by name.
    fn annotations(&self) -> Vec<(&'static str, String)>;
}

impl Annotated for InstanceConfiguration {
    fn annotations(&self) -> Vec<(&'static str, String)> {
        let mut all = of_any(self.version, self.signed_at, self.expires_at);
        all.push((annotation::BUNDLE_SEQUENCE, self.bundle_sequence.to_string()));
        all
    }
}

impl Annotated for ServerConfiguration {
    fn annotations(&self) -> Vec<(&'static str, String)> {
        of_any(self.version, self.signed_at, self.expires_at)
    }
}

fn of_any(version: u64, signed_at: Timestamp, expires_at: Timestamp) -> Vec<(&'static str, String)> {
    vec![
        (annotation::DOCUMENT_VERSION, version.to_string()),
        (annotation::SIGNED_AT, signed_at.to_string()),
        (annotation::EXPIRES_AT, expires_at.to_string()),
    ]
}

/// A signed document to be written to a ConfigMap. Who applies it signs `payload` as it is: version and times are set.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication<P> {
    /// Name, namespace, labels, annotations and owner of the ConfigMap.
    pub meta: ObjectMeta,
    /// The entry of `binaryData` that holds the packed document.
    pub entry: &'static str,
    /// What to sign.
    pub payload: P,
    /// Generation of the configuration key to sign with.
    pub key_generation: u64,
    /// `resourceVersion` that the write replaces. `None`: the object must not exist (plain create). Either way a
    /// second writer's document is never overwritten unseen.
    pub replaces: Option<String>,
}
