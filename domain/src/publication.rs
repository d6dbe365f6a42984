//! A document to sign and publish, with the object that carries it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
