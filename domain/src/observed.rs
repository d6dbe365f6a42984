//! What is seen of the world, in the parts that several kinds share. All of it is read by the operator; nothing here
//! has been judged yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use saatkond_api::Member;
use saatkond_pki::key::Algorithm;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};

use crate::children::ChildKind;

/// A namespace with objects of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedNamespace {
    /// Its name.
    pub name: String,
    /// The text of `saatkond.io/member-identities`, if it is annotated.
    pub identities: Option<String>,
    /// Whether the operator has its rights there.
    pub access: NamespaceAccess,
    /// The operator's own namespace: a binding is for its ServiceAccount there.
    pub operator: String,
    /// Whether it is being deleted: nothing can be created in it any more.
    pub terminating: bool,
}

/// Whether the operator has the rights of `saatkond-member-namespace` in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceAccess {
    /// It has them.
    Granted,
    /// It has not: the RoleBinding is missing or binds someone else.
    Denied,
    /// Not learnt yet. What the namespace may claim is known all the same.
    Unknown,
}

/// Whether the ValidatingAdmissionPolicy that guards the annotation, and its binding, are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionPolicy {
    /// Both are.
    Installed,
    /// One of them is missing, or it could not be learnt.
    Missing,
}

/// A member that claims an identity, with the namespace that may or may not be allowed to.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The member.
    pub member: Arc<Member>,
    /// Its namespace. Absent when it is not (yet) seen: such a member is neither admitted anew nor thrown out.
    pub namespace: Option<Arc<ObservedNamespace>>,
}

/// A document of ours as it stands published, read back and verified.
#[derive(Debug, Clone, PartialEq)]
pub enum Published<P> {
    /// There is none.
    Absent,
    /// There is one, signed by one of the trust anchor's configuration keys.
    Valid(PublishedDocument<P>),
    /// The object is ours, its content is not a document that our keys verify: someone has edited it.
    Invalid {
        /// `metadata.resourceVersion` of the object: what a repair replaces.
        resource_version: String,
        /// `metadata.uid` of the object: for its deletion.
        uid: String,
        /// Why, for people.
        why: String,
    },
    /// An object of this name exists and is not ours.
    Foreign,
}

/// A verified document.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedDocument<P> {
    /// What it says.
    pub payload: Arc<P>,
    /// Generation of the configuration key that signed it.
    pub key_generation: u64,
    /// `metadata.resourceVersion` of the object: what the next version replaces.
    pub resource_version: String,
    /// `metadata.uid` of the object: for its deletion.
    pub uid: String,
    /// Whether the object carries our labels, and its annotations say what the document says. Without the labels no watch
    /// shows it: not the operator's, nor the link's. See [`crate::publication::Annotated`] for the annotations.
    pub intact: bool,
}

impl<P> Published<P> {
    /// What the document says, if there is a valid one.
    #[must_use]
    pub fn payload(&self) -> Option<&P> {
        match self {
            Self::Valid(document) => Some(&document.payload),
            Self::Absent | Self::Invalid { .. } | Self::Foreign => None,
        }
    }

    /// What a write of the next version replaces: nothing, or exactly what was seen.
    #[must_use]
    pub fn replaces(&self) -> Option<String> {
        match self {
            Self::Valid(PublishedDocument { resource_version, .. }) | Self::Invalid { resource_version, .. } => {
                Some(resource_version.clone())
            }
            Self::Absent | Self::Foreign => None,
        }
    }
}

/// The instance configuration as published.
pub type PublishedInstance = Published<InstanceConfiguration>;
/// A server configuration as published.
pub type PublishedServer = Published<ServerConfiguration>;

/// A Secret of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<F> {
    /// There is none. Read from the API server itself, never from a cache: keys are made on this ground.
    Absent,
    /// It is ours and its parts belong together.
    Present(F),
    /// It is ours and cannot be used. No part of its content is in the text.
    Unusable {
        /// Why, for people.
        why: String,
        /// `metadata.resourceVersion` of the Secret: what a new content replaces, where one may be made.
        resource_version: String,
    },
    /// A Secret of this name exists and is not ours.
    Foreign,
}

impl<F> Stored<F> {
    /// What is known of the content, if it can be used.
    #[must_use]
    pub fn facts(&self) -> Option<&F> {
        match self {
            Self::Present(facts) => Some(facts),
            Self::Absent | Self::Unusable { .. } | Self::Foreign => None,
        }
    }
}

/// What a leaf says, parsed from the certificate itself, and never a byte of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFacts {
    /// The one URI among its alternative names, as text.
    pub uri: String,
    /// Its DNS names, sorted.
    pub dns_names: Vec<String>,
    /// Its issue number; 0 for the link's leaf, which has none.
    pub issue_number: u64,
    /// The authority's generation that issued it.
    pub generation: u64,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// SHA-256 of its SubjectPublicKeyInfo in lower-case hex.
    pub spki_sha256: String,
    /// Algorithm of its key.
    pub algorithm: Algorithm,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A child object as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedChild {
    /// What it is.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// UID of its controlling owner reference, if it has one.
    pub controller: Option<String>,
    /// Annotation `saatkond.io/applied-hash`.
    pub applied_hash: Option<String>,
    /// Whether every field that we applied is still as we applied it. `false` where it is not known.
    pub intact: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A gateway's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its name.
    pub name: String,
    /// Its UID: the key of its receipt.
    pub uid: String,
    /// Whether it is being deleted. It still counts: it may still serve.
    pub deleting: bool,
    /// Whether its object is gone. It is shown for as long as something remembers it, as it was seen last.
    pub gone: bool,
    /// Whether its process is known to have ended for good: the kubelet has reported so of a pod that does not come back, or it never had
    /// a node.
    pub ended: bool,
    /// How often its container was started again.
    pub restarts: u64,
}

/// What the Deployment's status says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeploymentFacts {
    /// Whether its controller has seen the newest spec.
    pub observed: bool,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods of the newest template.
    pub updated: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// What hinders it, from its own conditions, if anything does.
    pub message: Option<String>,
}

/// Annotations of the start copy beside the gateways, by which its state is known without reading a megabyte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedStartCopy {
    /// Its UID.
    pub uid: String,
    /// UID of its controlling owner reference, if it has one.
    pub controller: Option<String>,
    /// The instance configuration in it, if any.
    pub instance: Option<InstanceCopy>,
    /// Version of the server configuration in it, if any.
    pub server_version: Option<u64>,
    /// Whether both entries and their annotations are still as we applied them. `false` where it is not known.
    pub intact: bool,
}

/// The instance configuration in a start copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceCopy {
    /// Its version.
    pub version: u64,
    /// Its bundle sequence.
    pub bundle_sequence: u64,
    /// How many servers it lists.
    pub servers: usize,
    /// When the copy was written.
    pub written_at: Timestamp,
}

/// An OpenAPI document that a service refers to, by ConfigMap name and entry.
pub type ObservedDescriptions = BTreeMap<(String, String), ObservedDescription>;

/// What was found where a service says its OpenAPI document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedDescription {
    /// No such ConfigMap, or no such entry in it.
    Absent,
    /// Neither JSON nor YAML.
    Unreadable {
        /// Where and why, for people.
        why: String,
    },
    /// Read. `openapi` is its version field, if it has one.
    Read {
        /// The value of the field `openapi`.
        version: Option<String>,
        /// Whether it has an object `paths`.
        has_paths: bool,
    },
}

/// A Deployment's or a child's owner is known by UID; names are reused.
#[must_use]
pub fn is_ours(controller: Option<&str>, owner: &str) -> bool {
    controller == Some(owner)
}
