//! What a security server's status says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, Reason, Statement};
use saatkond_api::v1alpha1::security_server::{
    LeafStatus, ProcessReceipt, PublishedConfiguration, RegisteredKey, SecurityServerStatus, SigningStatus,
};

use super::configuration::{self, ConfigurationState, confirmed_guests};
use super::leaves::{due, ends_at, is_overdue, leaves};
use super::observed::{IdentityFacts, ObservedSecurityServer};
use super::plan::{AppliedSecurityServer, SecurityServerPlan, who_counts};
use super::processes::receipt;
use super::registration::{Place, is_deregistered, place, registered};
use crate::children::{Child, ChildKind};
use crate::effects::StatusUpdate;
use crate::meta::{is_deleting, is_paused, selector};
use crate::observed::{DeploymentFacts, NamespaceAccess};
use crate::schedule::whole_seconds;
use crate::statements::{conclude, failed, listed, ready};

/// The longest list of registered keys.
pub const MAX_REGISTERED_KEYS: usize = 4;
/// The most signing keys of one of them.
const MAX_SIGNING_KEYS: usize = 256;

/// The whole status after `plan` has been applied with the result `applied`, but for `processes`: those are the link's,
/// written under field managers of its own, and a controller that repeated them would own them from then on. They are
/// always empty here; compare with the standing status without them.
#[must_use]
pub fn status(
    seen: &ObservedSecurityServer,
    plan: &SecurityServerPlan,
    applied: &AppliedSecurityServer,
    now: Timestamp,
) -> StatusUpdate<SecurityServerStatus> {
    let server = &*seen.server;
    let standing = server.status.clone().unwrap_or_default();
    let facts = applied.identity.as_ref().or_else(|| seen.identity.facts());
    let statements = statements(seen, plan, applied, facts, now);
    let (conditions, events) = conclude(&standing.conditions, &statements, server.metadata.generation, now);
    let place = place(seen).ok();
    let labels: Vec<String> = selector(server).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let version = match &plan.configuration {
        Some(publication) if applied.configuration => Some(publication.payload.version),
        Some(_) | None => seen.configuration.payload().map(|document| document.version),
    };
    let status = SecurityServerStatus {
        observed_generation: server.metadata.generation,
        conditions,
        identity: place.map(|place| place.server_id(seen).to_string()).or(standing.identity),
        replicas: replicas(seen, standing.replicas, |deployment| deployment.replicas),
        ready_replicas: replicas(seen, standing.ready_replicas, |deployment| deployment.ready),
        selector: Some(labels.join(",")),
        issue_number: standing.issue_number.max(facts.map(|facts| facts.issue_number)),
        leaf: facts.map(|facts| leaf(seen, facts)).or(standing.leaf),
        signing: facts.map_or(standing.signing, |facts| signing(seen, facts)),
        registered_keys: registered_keys(&standing.registered_keys, facts, server.spec.lowest_issue_number(), now),
        configuration: published(seen, standing.configuration, version),
        // These two have writes of their own.
        processes: Vec::new(),
        pods: Vec::new(),
    };
    StatusUpdate { status, events }
}

/// Where the rights in the namespace are gone nothing is known of the pods, which go on serving: what was last seen stays.
fn replicas(seen: &ObservedSecurityServer, standing: Option<i32>, of: impl Fn(&DeploymentFacts) -> i32) -> Option<i32> {
    match seen.namespace.access {
        NamespaceAccess::Granted => Some(seen.deployment.as_ref().map_or(0, of)),
        NamespaceAccess::Denied | NamespaceAccess::Unknown => standing,
    }
}

fn leaf(seen: &ObservedSecurityServer, facts: &IdentityFacts) -> LeafStatus {
    let leaf = &facts.authentication;
    LeafStatus {
        serial: leaf.serial.clone(),
        issue_number: leaf.issue_number,
        issuer_generation: leaf.generation,
        not_after: Time(leaf.not_after),
        renew_at: Time(whole_seconds(due(seen, leaf))),
        dns_names: leaf.dns_names.clone(),
    }
}

fn signing(seen: &ObservedSecurityServer, facts: &IdentityFacts) -> Vec<SigningStatus> {
    let mut signing: Vec<_> = facts
        .signing
        .iter()
        .map(|signing| SigningStatus {
            // The instance is the same for all and stands in `identity`.
            member: signing.member.to_string().split_once('/').map_or_else(String::new, |(_, rest)| rest.to_owned()),
            serial: signing.leaf.serial.clone(),
            issue_number: signing.leaf.issue_number,
            issuer_generation: signing.leaf.generation,
            not_after: Time(signing.leaf.not_after),
            renew_at: Time(whole_seconds(due(seen, &signing.leaf))),
        })
        .collect();
    signing.sort_by(|a, b| a.member.cmp(&b.member));
    signing
}

/// The keys by which the link knows the server's processes: that of the leaf in the Secret, and those before it until
/// their leaves end, since a process changes over only when its mount has. None that is revoked: whoever has stolen it could state what
/// the server's processes have not loaded.
fn registered_keys(
    standing: &[RegisteredKey],
    facts: Option<&IdentityFacts>,
    lowest: u64,
    now: Timestamp,
) -> Vec<RegisteredKey> {
    let current = facts.map(|facts| RegisteredKey {
        spki_sha256: facts.authentication.spki_sha256.clone(),
        issue_number: facts.authentication.issue_number,
        not_after: Time(facts.authentication.not_after),
        issuer_generation: Some(facts.authentication.generation),
        signing_keys: facts.signing.iter().map(|signing| signing.leaf.spki_sha256.clone()).collect(),
    });
    let mut keys: BTreeMap<&str, &RegisteredKey> =
        standing.iter().filter(|key| key.not_after.0 > now).map(|key| (key.spki_sha256.as_str(), key)).collect();
    let current = current.map(|mut current| {
        // A member's key may be another one while the server's stays, and processes sign with the one before until their mount has it.
        let before = keys.get(current.spki_sha256.as_str()).into_iter().flat_map(|known| &known.signing_keys);
        let before: Vec<_> = before.filter(|key| !current.signing_keys.contains(key)).cloned().collect();
        current.signing_keys.extend(before);
        current.signing_keys.truncate(MAX_SIGNING_KEYS);
        current
    });
    if let Some(current) = &current {
        keys.insert(&current.spki_sha256, current);
    }
    let mut keys: Vec<RegisteredKey> = keys.into_values().filter(|key| key.issue_number >= lowest).cloned().collect();
    keys.sort_by(|a, b| b.issue_number.cmp(&a.issue_number).then_with(|| a.spki_sha256.cmp(&b.spki_sha256)));
    keys.truncate(MAX_REGISTERED_KEYS);
    keys
}

/// Written anew when the sequence or the server's own version changes: not 258 times because one member was added.
fn published(
    seen: &ObservedSecurityServer,
    standing: Option<PublishedConfiguration>,
    version: Option<u64>,
) -> Option<PublishedConfiguration> {
    let (Some(document), Some(server_version)) = (seen.instance.payload(), version) else { return standing };
    let (instance_version, bundle_sequence) = (document.version, document.bundle_sequence);
    match standing {
        // A version that was published is never taken back, also while someone has put an older document there.
        Some(known) if known.server_version > server_version => Some(known),
        Some(known) if known.server_version == server_version && known.bundle_sequence == bundle_sequence => {
            Some(known)
        }
        Some(_) | None => Some(PublishedConfiguration { server_version, instance_version, bundle_sequence }),
    }
}

fn statements(
    seen: &ObservedSecurityServer,
    plan: &SecurityServerPlan,
    applied: &AppliedSecurityServer,
    facts: Option<&IdentityFacts>,
    now: Timestamp,
) -> Vec<Statement> {
    use ConditionType::{Admitted, Ready, ReferencesResolved};
    let server = &*seen.server;
    let deleting = is_deleting(server).then(|| {
        let why = if is_deregistered(seen) {
            "it is out of the published configuration"
        } else {
            "it is being taken out of the published configuration; its pods stay until then"
        };
        Statement::fails(Ready, Reason::Deregistering, why)
    });
    let place = match place(seen) {
        Ok(place) => place,
        Err(refusal) => {
            let refused = Statement::fails(Admitted, refusal.reason, refusal.message);
            let ready = ready(&deleting.into_iter().chain([refused.clone()]).collect::<Vec<_>>(), "");
            // The rest is as it was last known to be; with no place it is not looked at.
            return vec![ready, refused];
        }
    };
    let admitted = Statement::holds(Admitted, "its owner holds its identity, and no older server has its code");
    let identity = identity(seen, plan, applied, &place, facts, now);
    let configuration = published_statement(seen, plan, applied, &place, now);
    let children = children(seen, plan, applied);
    let loaded = loaded(seen, facts, now);
    let available = available(seen, plan);
    let strangers = unconfirmed(seen, &place);
    let resolved = if strangers.is_empty() {
        Statement::holds(ReferencesResolved, "every guest names this server")
    } else {
        Statement::fails(ReferencesResolved, Reason::GuestNotConfirmed, listed(&strangers))
    };
    let mut parts: Vec<Statement> = deleting.into_iter().chain([admitted.clone()]).collect();
    if seen.namespace.terminating {
        parts.push(Statement::fails(Ready, Reason::NamespaceTerminating, "the namespace is being deleted"));
    }
    if let Some(failure) = &applied.failure {
        parts.push(failed(Ready, failure));
    }
    // Not `loaded`: for a minute after each renewal some process still runs on the old identity, and serves.
    parts.extend([identity.clone(), configuration.clone(), children.clone(), available.clone(), resolved.clone()]);
    if is_paused(server) {
        parts.push(Statement::fails(Ready, Reason::Paused, "saatkond.io/paused is set: changes of the spec wait"));
    }
    let ready = ready(&parts, &format!("{} processes serve", server.spec.replicas));
    vec![ready, admitted, configuration, resolved, identity, loaded, children, available]
}

fn identity(
    seen: &ObservedSecurityServer,
    plan: &SecurityServerPlan,
    applied: &AppliedSecurityServer,
    place: &Place<'_>,
    facts: Option<&IdentityFacts>,
    now: Timestamp,
) -> Statement {
    use ConditionType::IdentityIssued;
    if plan.identity.is_some() && applied.identity.is_none() {
        return match &applied.failure {
            Some(failure) => failed(IdentityIssued, failure),
            None => Statement::fails(IdentityIssued, Reason::Issuing, "certificates are being issued"),
        };
    }
    let blocked = if applied.identity.is_some() { None } else { leaves(seen, place, now).blocked };
    match (facts, blocked) {
        (Some(facts), blocked) if ends_at(facts) <= now => {
            let why = blocked.map(|(_, why)| format!(": {why}")).unwrap_or_default();
            let message = format!("a certificate has ended at {}{why}", ends_at(facts));
            Statement::fails(IdentityIssued, Reason::RenewalOverdue, message)
        }
        (Some(facts), Some((_, why))) if is_overdue(facts, now) => {
            Statement::fails(IdentityIssued, Reason::RenewalOverdue, format!("certificates are not renewed: {why}"))
        }
        (_, Some((reason, why))) => Statement::fails(IdentityIssued, reason, why),
        (Some(_), None) => Statement::holds(IdentityIssued, "all certificates are issued and stored"),
        (None, None) => Statement::unknown(IdentityIssued, Reason::Pending, "certificates are not issued yet"),
    }
}

fn published_statement(
    seen: &ObservedSecurityServer,
    plan: &SecurityServerPlan,
    applied: &AppliedSecurityServer,
    place: &Place<'_>,
    now: Timestamp,
) -> Statement {
    use ConditionType::ConfigurationPublished;
    let fails = |reason, why: String| Statement::fails(ConfigurationPublished, reason, why);
    let anchor = place.anchor.name_any();
    if seen.instance.payload().is_none() {
        return fails(
            Reason::TrustAnchorNotReady,
            format!("TrustAnchor {anchor} has published no instance configuration yet"),
        );
    }
    if registered(seen, &place.server_id(seen)).is_none() {
        return fails(Reason::Waiting, "the next instance configuration will list the server".to_owned());
    }
    match configuration::state(seen, place, now) {
        ConfigurationState::Foreign { name } => {
            fails(Reason::ForeignObject, format!("ConfigMap {name} in the operator's namespace exists and is not ours"))
        }
        ConfigurationState::NoKey => fails(
            Reason::TrustAnchorNotReady,
            format!("TrustAnchor {anchor} has no configuration key at hand; its conditions say why"),
        ),
        ConfigurationState::Publish { .. } if !(plan.configuration.is_some() && applied.configuration) => {
            match &applied.failure {
                Some(failure) => failed(ConfigurationPublished, failure),
                None => fails(Reason::Waiting, "the server configuration is being published".to_owned()),
            }
        }
        ConfigurationState::Publish { .. } | ConfigurationState::Current { .. } => {
            Statement::holds(ConfigurationPublished, "the server is registered and its configuration is published")
        }
    }
}

fn children(seen: &ObservedSecurityServer, plan: &SecurityServerPlan, applied: &AppliedSecurityServer) -> Statement {
    use ConditionType::ChildrenApplied;
    let mut foreign: Vec<String> = plan.foreign.iter().map(|it| format!("{} {}", it.kind, it.name)).collect();
    foreign.sort();
    if !foreign.is_empty() {
        let why = format!("not ours, and never overwritten: {}; rename or delete it", listed(&foreign));
        return Statement::fails(ChildrenApplied, Reason::ForeignObject, why);
    }
    let deployed = seen.children.iter().map(|it| it.kind).chain(plan.children.iter().map(Child::kind));
    match &applied.failure {
        Some(failure) => failed(ChildrenApplied, failure),
        None if !deployed.into_iter().any(|kind| kind == ChildKind::Deployment) => {
            if is_paused(&*seen.server) {
                let why =
                    "there is no Deployment, and none is made while saatkond.io/paused is set; remove the annotation";
                return Statement::fails(ChildrenApplied, Reason::Paused, why);
            }
            let why = "the Deployment waits for certificates and configuration to mount";
            Statement::fails(ChildrenApplied, Reason::Waiting, why)
        }
        None => Statement::holds(ChildrenApplied, "all objects are as they should be"),
    }
}

/// Whether every process has stated that it runs on what is published. A pod without a statement has not.
fn loaded(seen: &ObservedSecurityServer, facts: Option<&IdentityFacts>, now: Timestamp) -> Statement {
    use ConditionType::ConfigurationLoaded;
    let all = seen.server.status.iter().flat_map(|status| &status.processes).cloned().collect::<Vec<_>>();
    // One that has vanished may be over: it must not make the server unready, and must not go unseen.
    let (pods, vanished): (Vec<_>, Vec<_>) =
        who_counts(seen, now).0.into_iter().partition(|pod| pod.vanished_at.is_none());
    let receipts: Vec<&ProcessReceipt> = pods.iter().filter_map(|pod| receipt(&all, &pod.uid)).collect();
    let pod_name = |uid: &str| {
        let pod = pods.iter().find(|pod| pod.uid == uid).filter(|pod| !pod.name.is_empty());
        pod.map_or_else(|| uid.to_owned(), |pod| pod.name.clone())
    };
    let sequence = seen.instance.payload().map_or(0, |document| document.bundle_sequence);
    let version = seen.configuration.payload().map_or(0, |document| document.version);
    let number = facts.map_or(0, |facts| facts.issue_number);
    let mut behind: Vec<String> = receipts
        .iter()
        .filter_map(|it| {
            let what = if it.bundle_sequence != sequence {
                "bundle"
            } else if it.leaf_issue_number != number {
                "identity"
            } else if it.server_version < version {
                "configuration"
            } else {
                return None;
            };
            Some(format!("pod {} has not loaded the published {what}", pod_name(&it.pod_uid)))
        })
        .collect();
    let silent = pods.iter().filter(|pod| !receipts.iter().any(|receipt| receipt.pod_uid == pod.uid));
    let mut silent: Vec<String> = silent.map(|pod| format!("pod {} has not reported", pod_name(&pod.uid))).collect();
    behind.sort();
    silent.sort();
    match (receipts.is_empty(), behind.is_empty(), silent.is_empty()) {
        (true, _, _) => Statement::fails(ConfigurationLoaded, Reason::NoProcess, "no process has reported"),
        (false, true, true) => {
            let well = "every process runs on what is published";
            let mut alone: Vec<String> = receipts
                .iter()
                .filter_map(|it| Some((pod_name(&it.pod_uid), it.started_alone.as_ref()?)))
                .map(|(pod, since)| format!("pod {pod} began at {} without having met anybody", since.0))
                .collect();
            alone.sort();
            let gone = vanished.iter().filter_map(|pod| Some((pod, pod.vanished_at.as_ref()?)));
            let gone: Vec<String> = gone
                .map(|(pod, since)| {
                    let name = if pod.name.is_empty() { &pod.uid } else { &pod.name };
                    format!("pod {name} ({}) has vanished without a word, seen at {}", pod.uid, since.0)
                })
                .collect();
            let (reason, unusual) = match (gone.as_slice(), alone.as_slice()) {
                ([], []) => return Statement::holds(ConfigurationLoaded, well),
                ([], _) => (Reason::StartedAlone, alone),
                _ => (Reason::Vanished, gone),
            };
            // It does hold: what is over must not make the server unready, and must not go unseen.
            Statement { reason, ..Statement::holds(ConfigurationLoaded, format!("{well} now; {}", listed(&unusual))) }
        }
        (false, _, _) => {
            let all: Vec<String> = behind.into_iter().chain(silent).collect();
            Statement::fails(ConfigurationLoaded, Reason::ReceiptsPending, listed(&all))
        }
    }
}

/// Ready pods alone do not say it: those from before an edit stay ready until newer ones are, for ever where these never start.
fn available(seen: &ObservedSecurityServer, plan: &SecurityServerPlan) -> Statement {
    use ConditionType::Available;
    let wanted = seen.server.spec.replicas;
    if wanted == 0 {
        return Statement::fails(
            Available,
            Reason::ScaledToZero,
            "replicas is 0: the server is out of service by its spec",
        );
    }
    match &seen.deployment {
        None if is_paused(&*seen.server) => {
            Statement::fails(Available, Reason::Paused, "there is no Deployment, and none is made while it is paused")
        }
        None => Statement::fails(Available, Reason::Waiting, "its pods are not declared yet"),
        Some(deployment) => {
            let detail = deployment.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            // The status was read before this plan is applied: what it counts as updated is as declared before.
            let changed = plan.children.iter().any(|child| child.kind() == ChildKind::Deployment);
            let older = deployment.replicas.saturating_sub(deployment.updated).max(0);
            if deployment.ready < wanted {
                let why = format!("{} of {wanted} processes are ready{detail}", deployment.ready);
                Statement::fails(Available, Reason::PodsNotReady, why)
            } else if changed || !deployment.observed {
                let why = format!("{wanted} processes are ready, and a change of the Deployment is to be rolled out");
                Statement::fails(Available, Reason::RollingOut, why)
            } else if deployment.updated < wanted || older > 0 {
                let updated = deployment.updated;
                let why = format!("{updated} of {wanted} processes are as declared now, {older} are older{detail}");
                Statement::fails(Available, Reason::RollingOut, why)
            } else {
                Statement::holds(Available, format!("{wanted} of {wanted} processes are ready"))
            }
        }
    }
}

/// Guests that the server lists and that do not name it.
fn unconfirmed(seen: &ObservedSecurityServer, place: &Place<'_>) -> Vec<String> {
    let confirmed: Vec<(String, String)> = confirmed_guests(seen, place)
        .map(|guest| (guest.spec.member_class.to_string(), guest.spec.member_code.to_string()))
        .collect();
    let listed = seen.server.spec.guests.iter();
    listed
        .filter(|guest| {
            !confirmed.iter().any(|(class, code)| guest.member_class == **class && guest.member_code == **code)
        })
        .map(|guest| {
            let (class, code) = (&guest.member_class, &guest.member_code);
            format!("guest {class}/{code} is not registered, or none of its subsystems names this server in servers")
        })
        .collect()
}
