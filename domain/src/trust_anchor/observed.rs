//! What a decision about a trust anchor is made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_pki::configuration_key::ConfigurationPublicKey;

use crate::observed::{AdmissionPolicy, Candidate, LeafFacts, ObservedPod, PublishedInstance, Stored};
use crate::settings::OperatorSettings;

/// Everything that was seen for one trust anchor.
#[derive(Debug, Clone)]
pub struct ObservedTrustAnchor {
    /// The object itself.
    pub anchor: Arc<TrustAnchor>,
    /// Settings of the operator.
    pub settings: Arc<OperatorSettings>,
    /// All other TrustAnchors.
    pub others: Vec<Arc<TrustAnchor>>,
    /// Whether claims of identities are guarded.
    pub policy: AdmissionPolicy,
    /// Managed source: every authority Secret of this anchor (by label), and `<anchor>-ca-1` if an object of that name
    /// exists. From a read of the API server itself, never a cache.
    pub authorities: Vec<ObservedAuthority>,
    /// External source: the key that `signingKeySecretRef` names.
    pub signing_key: ObservedSigningKey,
    /// Every configuration-key Secret of this anchor (by label), and those of generation 1 and 2 if objects of their
    /// names exist. From a read of the API server itself, never a cache.
    pub configuration_keys: Vec<ObservedConfigurationKey>,
    /// Those Secrets with one of our keys that have lost a label of ours: no list shows them, and no watch that they change.
    pub unlabelled: Vec<UnlabelledKey>,
    /// The published instance configuration, verified with the configuration keys at hand and those that
    /// `status` remembers.
    pub published: PublishedInstance,
    /// The entry of this anchor in the Secret `saatkond-link-identity`.
    pub link_leaf: Stored<LeafFacts>,
    /// All Members that refer to this anchor.
    pub members: Vec<Candidate>,
    /// All SecurityServers in the namespaces of those Members and wherever a subsystem's `servers` points.
    pub servers: Vec<Arc<SecurityServer>>,
    /// The gateways' pods by namespace and name of their server, as of [`crate::security_server::observed::ObservedSecurityServer`].
    pub pods: BTreeMap<(String, String), Vec<ObservedPod>>,
    /// Whether `servers`, `pods` and `authorities` were read from the API server itself for this look. What the caches show may be
    /// behind, so a transition that is decided on it is decided again.
    pub live: bool,
    /// When the published server configuration of each of `servers` under this anchor ends (annotation
    /// `saatkond.io/expires-at`), by namespace and name of the server; nothing for one that has none.
    pub server_documents_expire: BTreeMap<(String, String), Timestamp>,
}

/// A Secret that holds, or should hold, one generation of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedAuthority {
    /// Its generation, from its name.
    pub generation: u64,
    /// Its UID, for its deletion.
    pub uid: String,
    /// What is in it: certificate and key belong together where it is present.
    pub secret: Stored<AuthorityCertificate>,
}

/// A Secret with one of our keys, known as ours by the UID of its owner alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlabelledKey {
    /// Whose it is: [`saatkond_api::names::role`].
    pub role: &'static str,
    /// The key's generation, from the Secret's name.
    pub generation: u64,
    /// The Secret's name.
    pub name: String,
    /// The Secret's UID.
    pub uid: String,
}

/// The signing key of an external source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedSigningKey {
    /// The spec names none.
    NotNamed,
    /// The Secret or its entry does not exist.
    Absent,
    /// Not a private key that can be used.
    Unusable {
        /// Why, without any of its content.
        why: String,
    },
    /// A private key.
    Present {
        /// SHA-256 of its SubjectPublicKeyInfo in lower-case hex: it belongs to the certificate with the same.
        spki_sha256: String,
    },
}

/// A Secret that holds, or should hold, one generation of the configuration key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedConfigurationKey {
    /// Its generation, from its name.
    pub generation: u64,
    /// Its public key, where it is present.
    pub secret: Stored<ConfigurationPublicKey>,
}
