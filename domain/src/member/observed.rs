//! What a decision about a member is made from.

use std::sync::Arc;

use saatkond_api::{Member, SecurityServer, TrustAnchor};

use crate::observed::{AdmissionPolicy, Candidate, ObservedDescriptions, ObservedNamespace, PublishedInstance};

/// Everything that was seen for one member.
#[derive(Debug, Clone)]
pub struct ObservedMember {
    /// The object itself.
    pub member: Arc<Member>,
    /// Its namespace.
    pub namespace: Arc<ObservedNamespace>,
    /// Whether claims of identities are guarded.
    pub policy: AdmissionPolicy,
    /// The TrustAnchor that it refers to, if it exists.
    pub anchor: Option<Arc<TrustAnchor>>,
    /// The published instance configuration of that anchor.
    pub instance: PublishedInstance,
    /// All other Members of the same anchor with the same class and code.
    pub rivals: Vec<Candidate>,
    /// All SecurityServers of its namespace, and those that its subsystems name.
    pub servers: Vec<Arc<SecurityServer>>,
    /// The Members that own those of `servers` that stand in other namespaces.
    pub hosts: Vec<Arc<Member>>,
    /// What was found at each `configMapRef` of its services.
    pub descriptions: ObservedDescriptions,
}
