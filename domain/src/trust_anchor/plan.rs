//! What is to be done for a trust anchor.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_pki::key::Algorithm;
use saatkond_wire::configuration::InstanceConfiguration;

use crate::effects::{FinalizerChange, ForeignObject, LeafOrder, PlannedEvent};
use crate::observed::LeafFacts;
use crate::publication::Publication;

/// Everything that is to be done for one trust anchor now, in this order: `finalizer` unless it is to be removed,
/// `create_authority`, `create_configuration_keys`, `publish`, `link_leaf`, then the removal of the finalizer.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustAnchorPlan {
    /// Our finalizer on the TrustAnchor.
    pub finalizer: FinalizerChange,
    /// An authority to make.
    pub create_authority: Option<AuthorityRequest>,
    /// Configuration keys to make.
    pub create_configuration_keys: Vec<ConfigurationKeyRequest>,
    /// The next instance configuration.
    pub publish: Option<Publication<InstanceConfiguration>>,
    /// The link's own leaf for this anchor.
    pub link_leaf: Option<LinkLeafRequest>,
    /// What stands in the way.
    pub foreign: Vec<ForeignObject>,
    /// Events about what this plan does.
    pub events: Vec<PlannedEvent>,
    /// When to look again, at the latest.
    pub next_check: Timestamp,
}

/// A certificate authority to make: key and self-signed certificate in one immutable Secret, by a plain create. If
/// the object exists already, nothing is written and the next look decides. The fields after `meta` are those of
/// `pki::authority::AuthoritySpec`, but for the serial number, which is drawn at the making.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityRequest {
    /// Name, namespace, labels and owner of the Secret.
    pub meta: ObjectMeta,
    /// The instance: part of its subject.
    pub instance: String,
    /// Counts the authorities of the anchor: part of its subject.
    pub generation: u32,
    /// Of its key.
    pub algorithm: Algorithm,
    /// From when its certificate is valid.
    pub not_before: Timestamp,
    /// For how long.
    pub lifetime: SignedDuration,
}

/// A configuration key (Ed25519) to make, in an immutable Secret, by a plain create.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigurationKeyRequest {
    /// Name, namespace, labels and owner of the Secret.
    pub meta: ObjectMeta,
    /// Counts the configuration keys of the anchor.
    pub generation: u64,
}

/// The link's own leaf, with a new key, to be written as the entry `<anchor>.json` of `saatkond-link-identity`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkLeafRequest {
    /// Name, namespace and labels of the Secret. Nobody owns it: it is shared by all anchors.
    pub meta: ObjectMeta,
    /// The entry of `data`.
    pub entry: String,
    /// Field manager of the apply: one an anchor, so that entries do not erase each other.
    pub manager: String,
    /// Generation of the authority to issue under.
    pub generation: u64,
    /// The leaf.
    pub leaf: LeafOrder,
}

/// What came of a [`TrustAnchorPlan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedTrustAnchor {
    /// Whether the plan's document is published.
    pub published: bool,
    /// The link's leaf, if one was issued and stored.
    pub link_leaf: Option<LeafFacts>,
    /// Why it ended early, if it did.
    pub failure: Option<crate::effects::Failure>,
}
