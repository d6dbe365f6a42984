//! What a decision about a security server is made from.

use std::sync::Arc;

use jiff::Timestamp;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_pki::certificate::CertificateHash;
use saatkond_wire::identifier::MemberId;

use crate::observed::{
    Candidate, DeploymentFacts, LeafFacts, ObservedChild, ObservedNamespace, ObservedPod, ObservedStartCopy,
    PublishedInstance, PublishedServer, Stored,
};
use crate::settings::OperatorSettings;

/// Everything that was seen for one security server.
#[derive(Debug, Clone)]
pub struct ObservedSecurityServer {
    /// The object itself.
    pub server: Arc<SecurityServer>,
    /// Settings of the operator.
    pub settings: Arc<OperatorSettings>,
    /// Its namespace.
    pub namespace: Arc<ObservedNamespace>,
    /// The Member of the name in `spec.memberRef`, in the same namespace.
    pub owner: Option<Arc<Member>>,
    /// The TrustAnchor that the owner refers to.
    pub anchor: Option<Arc<TrustAnchor>>,
    /// All other SecurityServers of the same namespace.
    pub neighbours: Vec<Arc<SecurityServer>>,
    /// All Members of the anchor that claim the owner's identity (the owner among them) or that of one of
    /// `spec.guests`.
    pub members: Vec<Candidate>,
    /// The published instance configuration.
    pub instance: PublishedInstance,
    /// The authority that can issue now, if its key is at hand.
    pub issuer: Option<Issuer>,
    /// Generation of the configuration key that can sign now, if it is at hand.
    pub configuration_key: Option<u64>,
    /// What stands in the Secret `<server>-identity`.
    pub identity: Stored<IdentityFacts>,
    /// The server configuration in the operator's namespace.
    pub configuration: PublishedServer,
    /// The start copy in the server's namespace, if it exists.
    pub start_copy: Option<ObservedStartCopy>,
    /// Every object of the kinds of [`crate::children::ChildKind`] that has the name of one of ours.
    pub children: Vec<ObservedChild>,
    /// The gateways' pods, pending and terminating ones among them, and those that are gone and were seen to end.
    pub pods: Vec<ObservedPod>,
    /// The Deployment's status, if it exists.
    pub deployment: Option<DeploymentFacts>,
}

/// The authority that issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its generation.
    pub generation: u64,
    /// From when its certificate is valid: nothing is issued before.
    pub not_before: Timestamp,
    /// Until when its certificate is valid.
    pub not_after: Timestamp,
    /// SHA-256 of its certificate: the one in the published bundle is meant, and no other.
    pub certificate: CertificateHash,
}

/// What is known of an identity without its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFacts {
    /// `metadata.resourceVersion` of the Secret: what a new identity replaces.
    pub resource_version: String,
    /// Whether the Secret carries all our labels. Without them the watches do not show it, nor that somebody changes it.
    pub labelled: bool,
    /// The highest issue number in it.
    pub issue_number: u64,
    /// The TLS leaf.
    pub authentication: LeafFacts,
    /// The signing leaves, ordered by member.
    pub signing: Vec<SigningFacts>,
}

/// A member's signing leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningFacts {
    /// The member.
    pub member: MemberId,
    /// Its leaf.
    pub leaf: LeafFacts,
}
