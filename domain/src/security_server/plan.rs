//! What is to be done for a security server.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::names::{annotation, finalizer, role};
use saatkond_api::v1alpha1::security_server::CountedPod;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::identifier::{MemberId, ServerId};

use super::build::children;
use super::configuration::{self, ConfigurationState};
use super::leaves::{LeafState, leaves};
use super::observed::{IdentityFacts, ObservedSecurityServer};
use super::processes::{Endings, Excluded, counted, endings, kept};
use super::registration::{Place, is_deregistered, place};
use crate::children::{Child, ChildKind, Verdict, judge};
use crate::effects::{Deletion, Failure, FinalizerChange, ForeignObject, LeafOrder, PlannedEvent};
use crate::meta::{annotated, has_finalizer, is_deleting, is_paused, server_object};
use crate::names::{server_configuration, start_copy};
use crate::observed::{InstanceCopy, Published, is_ours};
use crate::publication::Publication;
use crate::schedule::{copy_at, next_check, whole_seconds};

/// Everything that is to be done for one security server now, in this order: `finalizer` unless it is to be removed, `pods`, `endings`,
/// `identity`, `configuration`, `start_copy`, `children`, `deletions`, then the removal of the finalizer.
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
    /// Whose processes count, where that is not what stands in the status. It has a write of its own, whose precondition is the
    /// version that it was decided from: it is all that is known of a pod that has vanished, and another writer's older view of it
    /// must not take its place.
    pub pods: Option<Vec<CountedPod>>,
    /// UIDs of pods that count and find no room there.
    pub untold: Vec<String>,
    /// What becomes of the receipts of processes that have ended.
    pub endings: Endings,
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
/// ([`saatkond_api::names::manager::INSTANCE_COPY`], [`saatkond_api::names::manager::SERVER_COPY`]), so that one can be written without
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

/// Decides what is to be done now.
#[must_use]
pub fn plan(seen: &ObservedSecurityServer, now: Timestamp) -> SecurityServerPlan {
    let server = &*seen.server;
    let uid = server.uid().unwrap_or_default();
    let standing = server.status.as_ref().map(|status| status.pods.clone()).unwrap_or_default();
    let (pods, untold) = who_counts(seen, now);
    let mut plan = SecurityServerPlan {
        finalizer: FinalizerChange::Keep,
        identity: None,
        configuration: None,
        start_copy: StartCopyPlan::default(),
        children: Vec::new(),
        pods: Some(pods).filter(|pods| *pods != standing),
        untold,
        endings: endings(&seen.server, &seen.pods, &excluded(seen, now)),
        deletions: Vec::new(),
        foreign: Vec::new(),
        events: Vec::new(),
        next_check: next_check(now, &uid, []),
    };
    if is_deleting(server) {
        depart(seen, &mut plan);
        return plan;
    }
    let Ok(place) = place(seen) else { return plan };
    if seen.namespace.terminating {
        return plan;
    }
    if !has_finalizer(server, finalizer::SECURITY_SERVER) {
        plan.finalizer = FinalizerChange::Add;
    }
    let Some(document) = seen.instance.payload() else { return plan };

    let LeafState { identity, blocked, next_due } = leaves(seen, &place, now);
    let mut deadlines: Vec<Timestamp> = next_due.filter(|due| *due > now).into_iter().collect();
    if matches!(&blocked, Some((Reason::ForeignObject, _))) {
        let name = crate::names::identity(&server.name_any());
        plan.foreign.push(ForeignObject { kind: ChildKind::Secret, name });
    }
    if let Some(identity) = &identity {
        plan.events.extend(issued_event(identity));
        if seen.identity.facts().is_some_and(|facts| !facts.labelled) {
            plan.events.push(repaired(ChildKind::Secret, identity.meta.name.as_deref().unwrap_or_default()));
        }
    }
    let has_identity = identity.is_some() || seen.identity.facts().is_some();
    plan.identity = identity;

    let version = configuration(seen, &place, now, &mut plan, &mut deadlines);
    let has_copy = copies(seen, document, version, now, &mut plan, &mut deadlines);
    objects(seen, &place, document, has_identity && version.is_some() && has_copy, &mut plan);
    plan.next_check = next_check(now, &uid, deadlines);
    plan
}

/// The server goes: once nothing published speaks of it, its document is deleted and the finalizer lets it and its
/// pods go. The objects beside it have it as their owner; the garbage collector takes them.
fn depart(seen: &ObservedSecurityServer, plan: &mut SecurityServerPlan) {
    let server = &*seen.server;
    if !has_finalizer(server, finalizer::SECURITY_SERVER) || !is_deregistered(seen) {
        return;
    }
    let uid = match &seen.configuration {
        Published::Valid(document) => Some(document.uid.clone()),
        Published::Invalid { uid, .. } => Some(uid.clone()),
        Published::Absent | Published::Foreign => None,
    };
    plan.deletions.extend(uid.map(|uid| Deletion {
        kind: ChildKind::ConfigMap,
        namespace: seen.settings.namespace.clone(),
        name: server_configuration(&server.namespace().unwrap_or_default(), &server.name_any()),
        uid,
    }));
    plan.finalizer = FinalizerChange::Remove;
}

/// Whose processes count, as the status is to say it, and the UIDs of those that find no room there.
pub(super) fn who_counts(seen: &ObservedSecurityServer, now: Timestamp) -> (Vec<CountedPod>, Vec<String>) {
    kept(counted(&seen.server, &seen.pods, &excluded(seen, now), now))
}

/// What the anchor says of the server's processes.
#[must_use]
pub(super) fn excluded(seen: &ObservedSecurityServer, now: Timestamp) -> Excluded {
    seen.anchor.as_ref().map_or_else(Excluded::default, |anchor| Excluded::of(anchor, &seen.server, now))
}

fn issued_event(identity: &IdentityPlan) -> Option<PlannedEvent> {
    let issued = |leaf: &LeafPlan| matches!(leaf, LeafPlan::Issue(_));
    let signing = identity.signing.iter().filter(|(_, leaf)| issued(leaf)).count();
    let count = signing + usize::from(issued(&identity.authentication));
    (count > 0).then(|| PlannedEvent {
        warning: false,
        reason: Reason::IdentityIssued,
        action: "Issue",
        note: format!("issued {count} certificates under number {}", identity.issue_number),
    })
}

fn repaired(kind: ChildKind, name: &str) -> PlannedEvent {
    PlannedEvent {
        warning: true,
        reason: Reason::DriftRepaired,
        action: "Repair",
        note: format!("{kind} {name} had been changed by someone; put it back"),
    }
}

/// Plans the server configuration and answers the version that is published when the plan has been applied.
fn configuration(
    seen: &ObservedSecurityServer,
    place: &Place<'_>,
    now: Timestamp,
    plan: &mut SecurityServerPlan,
    deadlines: &mut Vec<Timestamp>,
) -> Option<u64> {
    match configuration::state(seen, place, now) {
        ConfigurationState::Current { version, resign_at } => {
            deadlines.push(resign_at);
            Some(version)
        }
        ConfigurationState::Publish { publication, repair } => {
            if repair {
                plan.events.push(repaired(ChildKind::ConfigMap, publication.meta.name.as_deref().unwrap_or_default()));
            }
            let version = publication.payload.version;
            plan.configuration = Some(*publication);
            Some(version)
        }
        ConfigurationState::NoKey => seen.configuration.payload().map(|document| document.version),
        ConfigurationState::Foreign { name } => {
            plan.foreign.push(ForeignObject { kind: ChildKind::ConfigMap, name });
            None
        }
    }
}

/// Plans the start copy and answers whether there is one, with both entries, when the plan has been applied.
fn copies(
    seen: &ObservedSecurityServer,
    document: &InstanceConfiguration,
    version: Option<u64>,
    now: Timestamp,
    plan: &mut SecurityServerPlan,
    deadlines: &mut Vec<Timestamp>,
) -> bool {
    let server = &*seen.server;
    let name = start_copy(&server.name_any());
    let standing = seen.start_copy.as_ref();
    if standing.is_some_and(|copy| !is_ours(copy.controller.as_deref(), &server.uid().unwrap_or_default())) {
        plan.foreign.push(ForeignObject { kind: ChildKind::ConfigMap, name });
        return false;
    }
    let meta = || server_object(server, name.clone(), Some(role::START_COPY));
    let changed = standing.is_some_and(|copy| !copy.intact);
    let instance = standing.filter(|_| !changed).and_then(|copy| copy.instance.as_ref());
    let published = InstanceCopy {
        version: document.version,
        bundle_sequence: document.bundle_sequence,
        servers: document.servers.len(),
        written_at: now,
    };
    match copy_at(instance, &published, now) {
        Some(at) if at <= now => {
            plan.start_copy.instance = Some(annotated(
                meta(),
                [
                    (annotation::INSTANCE_VERSION, document.version.to_string()),
                    (annotation::BUNDLE_SEQUENCE, document.bundle_sequence.to_string()),
                    (annotation::SERVERS, document.servers.len().to_string()),
                    (annotation::COPIED_AT, whole_seconds(now).to_string()),
                ],
            ));
        }
        Some(at) => deadlines.push(at),
        None => {}
    }
    let copied = standing.and_then(|copy| copy.server_version);
    if let Some(version) = version.filter(|version| changed || copied != Some(*version)) {
        plan.start_copy.server = Some(annotated(meta(), [(annotation::SERVER_VERSION, version.to_string())]));
    }
    version.is_some()
}

/// Plans the objects that run the gateways. The Deployment waits until there is something to mount: pods that cannot
/// start only fill the events.
fn objects(
    seen: &ObservedSecurityServer,
    place: &Place<'_>,
    document: &InstanceConfiguration,
    complete: bool,
    plan: &mut SecurityServerPlan,
) {
    let server = &*seen.server;
    if is_paused(server) {
        return;
    }
    let keys = &document.configuration_keys;
    let uid = server.uid().unwrap_or_default();
    for child in children(seen, place, &[keys.current.key, keys.next.key]) {
        if child.kind() == ChildKind::Deployment && !complete {
            continue;
        }
        match judge(&child, &seen.children, &uid) {
            Verdict::InPlace => {}
            Verdict::Apply { repair } => {
                if repair {
                    plan.events.push(repaired(child.kind(), child.name()));
                }
                plan.children.push(child);
            }
            Verdict::Foreign => {
                plan.foreign.push(ForeignObject { kind: child.kind(), name: child.name().to_owned() });
            }
        }
    }
}
