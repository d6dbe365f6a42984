//! What is to be done for a security server.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use saatkond_wire::configuration::ServerConfiguration;
use saatkond_wire::identifier::{MemberId, ServerId};

use crate::children::Child;
use crate::effects::{Deletion, Failure, FinalizerChange, ForeignObject, LeafOrder, PlannedEvent};
use crate::publication::Publication;
use crate::security_server::observed::IdentityFacts;

/// Everything that is to be done for one security server now, in this order: `finalizer` unless it is to be removed,
/// `identity`, `configuration`, `start_copy`, `children`, `forget`, `deletions`, then the removal of the finalizer.
#[derive(Debug, Clone, PartialEq)]
pub struct SecurityServerPlan {
    /// Our finalizer on the SecurityServer.
    pub finalizer: FinalizerChange,
    /// The next content of the identity Secret.
    pub identity: Option<IdentityPlan>,
    /// The next server configuration.
    pub configuration: Option<Publication<ServerConfiguration>>,
    /// What to write to the start copy.
    pub start_copy: StartCopyPlan,
    /// Objects to apply, in this order.
    pub children: Vec<Child>,
    /// UIDs of pods that are gone: their receipts are taken out of the status.
    pub forget: Vec<String>,
    /// Objects to delete.
    pub deletions: Vec<Deletion>,
    /// What stands in the way.
    pub foreign: Vec<ForeignObject>,
    /// Events about what this plan does.
    pub events: Vec<PlannedEvent>,
    /// When to look again, at the latest.
    pub next_check: Timestamp,
}

/// The next identity: one write of one entry, so that no reader ever sees a torn pair.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityPlan {
    /// Name, namespace, labels, annotations and owner of the Secret.
    pub meta: ObjectMeta,
    /// The server that it is for.
    pub server: ServerId,
    /// The highest issue number in it. Every leaf that is issued now carries this one.
    pub issue_number: u64,
    /// Generation of the authority to issue under.
    pub generation: u64,
    /// The TLS leaf.
    pub authentication: LeafPlan,
    /// The signing leaves, ordered by member. Those of members that are not listed are dropped.
    pub signing: Vec<(MemberId, LeafPlan)>,
    /// `resourceVersion` of the Secret that this replaces. `None`: plain create.
    pub replaces: Option<String>,
}

/// What becomes of one leaf.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafPlan {
    /// The one in the Secret stays, with its key.
    Keep,
    /// A new one takes its place.
    Issue(LeafOrder),
}

/// What to write to the start copy. The two entries are applied under two field managers
/// ([`crate::names::INSTANCE_COPY_MANAGER`], [`crate::names::SERVER_COPY_MANAGER`]), so that one can be written without
/// reading the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StartCopyPlan {
    /// Apply the newest instance configuration, with this metadata.
    pub instance: Option<ObjectMeta>,
    /// Apply the newest server configuration (the one that this plan publishes, if it does), with this metadata.
    pub server: Option<ObjectMeta>,
}

/// What came of a [`SecurityServerPlan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedSecurityServer {
    /// The identity that was issued and stored, if one was.
    pub identity: Option<IdentityFacts>,
    /// Whether the plan's server configuration is published.
    pub configuration: bool,
    /// Why it ended early, if it did.
    pub failure: Option<Failure>,
}
