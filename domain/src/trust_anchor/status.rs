//! What a trust anchor's status says.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::SecurityServer;
use saatkond_api::conditions::{ConditionType, Reason, Statement};
use saatkond_api::names::{LINK_IDENTITY_SECRET, role};
use saatkond_api::v1alpha1::trust_anchor::{
    AdmissionMode, AuthorityState as Phase, AuthorityStatus, BlockingProcess, BundleStatus, ExcludedServer,
    InstanceConfigurationStatus, TrustAnchorCounts, TrustAnchorStatus,
};
use saatkond_wire::configuration::InstanceConfiguration;

use super::authority::{self, AuthorityState};
use super::build::{bundle_hash, registrations};
use super::calendar;
use super::emergency;
use super::history::history;
use super::keys::{self, KeyState};
use super::observed::{ObservedSigningKey, ObservedTrustAnchor};
use super::plan::{AppliedTrustAnchor, TrustAnchorPlan};
use super::revocations::revocations;
use super::rotation;
use crate::effects::StatusUpdate;
use crate::meta::{is_deleting, is_paused};
use crate::observed::{AdmissionPolicy, Published};
use crate::rotation::Step;
use crate::schedule::{CannotIssue, can_issue, whole_seconds};
use crate::security_server::processes::{Excluded, excluded_alive};
use crate::statements::{conclude, failed, listed, ready};

/// The longest list of blocking processes.
pub const MAX_BLOCKING: usize = 20;
/// The longest list of authorities.
const MAX_AUTHORITIES: usize = 16;

/// The whole status after `plan` has been applied with the result `applied`.
#[must_use]
pub fn status(
    seen: &ObservedTrustAnchor,
    plan: &TrustAnchorPlan,
    applied: &AppliedTrustAnchor,
    now: Timestamp,
) -> StatusUpdate<TrustAnchorStatus> {
    let anchor = &*seen.anchor;
    let standing = anchor.status.clone().unwrap_or_default();
    let authority = authority::state(seen, now);
    let published = match &plan.publish {
        Some(publication) if applied.published => Some((&publication.payload, publication.key_generation)),
        Some(_) | None => match &seen.published {
            Published::Valid(document) => Some((&*document.payload, document.key_generation)),
            Published::Absent | Published::Invalid { .. } | Published::Foreign => None,
        },
    };
    let turns = published.map(|(document, _)| rotation::turns(seen, document, now)).unwrap_or_default();
    let statements = statements(seen, plan, applied, &authority, published.map(|(document, _)| document), &turns, now);
    let (conditions, events) = conclude(&standing.conditions, &statements, anchor.metadata.generation, now);
    let mut status = TrustAnchorStatus {
        observed_generation: anchor.metadata.generation,
        conditions,
        // Only what is published: a decision that could not be written is none.
        signing_generation: authority.signing.filter(|signing| {
            authority.can_issue && published.is_none_or(|(document, _)| document.signing_generation == *signing)
        }),
        // What was published is never forgotten, even while it cannot be read: versions must not go back.
        ..standing.clone()
    };
    if !authority.bundle.is_empty() {
        status.authorities = authorities(seen, &authority, now);
    }
    if let Some((document, key_generation)) = published
        && standing.configuration.as_ref().is_none_or(|known| document.version >= known.version)
    {
        status.bundle = Some(BundleStatus {
            sequence: document.bundle_sequence,
            hash: format!("sha256:{}", bundle_hash(document)),
            generations: document.bundle.iter().map(|entry| entry.generation).collect(),
        });
        status.configuration = Some(InstanceConfigurationStatus {
            version: document.version,
            signed_at: Time(document.signed_at),
            expires_at: Time(document.expires_at),
            key_generation,
            next_key_generation: document.configuration_keys.next.generation,
        });
        status.history = history(seen, document, &standing.history, now);
        let registrations = registrations(seen);
        status.emergency = emergency::status(seen, document, &registrations, standing.emergency.as_ref(), now);
        status.revocations = revocations(seen, document, &registrations, &standing.revocations, now);
        let servers = registrations.registered;
        let (counts, blocking) = receipts(seen, document, &servers, &standing.blocking, &turns, now);
        status.rotation =
            rotation::status(document, &authority, &counts, &turns, rotation::next_start(seen, &authority, now));
        status.counts = Some(counts);
        status.blocking = blocking;
        status.serves_without_operator_until = serves_until(seen, document, &authority, &servers).map(Time);
    }
    StatusUpdate { status, events }
}

fn statements(
    seen: &ObservedTrustAnchor,
    plan: &TrustAnchorPlan,
    applied: &AppliedTrustAnchor,
    authority: &AuthorityState,
    published: Option<&InstanceConfiguration>,
    turns: &rotation::Turns,
    now: Timestamp,
) -> Vec<Statement> {
    use ConditionType::{AdmissionGuarded, AuthorityAvailable, Ready};
    let anchor = &*seen.anchor;
    if let Some(older) = seen.predecessor() {
        let (name, instance) = (older.name_any(), &anchor.spec.instance);
        let why = if is_deleting(older) {
            let members = older.status.as_ref().and_then(|status| status.counts.as_ref()).map_or(0, |it| it.members);
            format!(
                "TrustAnchor {name} of instance {instance} is older, and acts until the {members} members registered with it have gone"
            )
        } else {
            format!("TrustAnchor {name} of instance {instance} is older and stays; delete one of the two")
        };
        return vec![Statement::fails(Ready, Reason::DuplicateInstance, why)];
    }
    let available = match (&authority.problem, &authority.step) {
        (Some((reason, why)), _) => Statement::fails(AuthorityAvailable, *reason, why.clone()),
        (None, _) if authority.can_issue => {
            let generation = authority.signing.unwrap_or_default();
            Statement::holds(AuthorityAvailable, format!("generation {generation} issues"))
        }
        (None, Step::Create(_)) => {
            Statement::unknown(AuthorityAvailable, Reason::Pending, "the authority is being made")
        }
        // The key of another generation is at hand: it issues once everybody trusts it.
        (None, _) => Statement::fails(
            AuthorityAvailable,
            Reason::Waiting,
            "the signing key belongs to a certificate that not every process has loaded yet",
        ),
    };
    let guarded = match (anchor.spec.admission, seen.policy) {
        (AdmissionMode::Open, _) => Statement::fails(
            AdmissionGuarded,
            Reason::AdmissionOpen,
            "spec.admission is Open: any namespace may claim any identity; for development only",
        ),
        (AdmissionMode::Annotated, AdmissionPolicy::Missing) => Statement::fails(
            AdmissionGuarded,
            Reason::AdmissionPolicyMissing,
            "the ValidatingAdmissionPolicy saatkond-member-identities or its binding is missing: nothing new is \
             admitted; install it with the chart",
        ),
        (AdmissionMode::Annotated, AdmissionPolicy::Installed) => {
            Statement::holds(AdmissionGuarded, "claims need the annotation, and the annotation needs the verb admit")
        }
    };
    let document = published_statement(seen, plan, applied, published);
    let unblocked = unblocked(seen, authority, turns, now);
    let mut parts = Vec::new();
    if is_deleting(anchor) {
        let count = seen.members.len();
        let why = format!("{count} members still refer to it; it stays until they are gone");
        parts.push(Statement::fails(Ready, Reason::Deregistering, why));
    }
    // Told before what it has caused.
    if let Some(failure) = &applied.failure {
        parts.push(failed(Ready, failure));
    }
    if plan.foreign.iter().any(|it| it.name == LINK_IDENTITY_SECRET) {
        let why = format!(
            "Secret {LINK_IDENTITY_SECRET} exists and is not ours, so the link has no certificate and no change reaches the \
             security servers; rename or delete it"
        );
        parts.push(Statement::fails(Ready, Reason::ForeignObject, why));
    }
    // An external source without a signing key is complete as it is declared; servers say what it means for them.
    if !(seen.signing_key == ObservedSigningKey::NotNamed
        && authority.problem.as_ref().is_some_and(|(reason, _)| *reason == Reason::SigningKeyMissing))
    {
        parts.push(available.clone());
    }
    parts.push(document.clone());
    if anchor.spec.admission == AdmissionMode::Annotated {
        parts.push(guarded.clone());
    }
    if is_paused(anchor) {
        parts.push(Statement::fails(Ready, Reason::Paused, "saatkond.io/paused is set: changes of the spec wait"));
    }
    let servers = published.map_or(0, |document| document.servers.len());
    let members = published.map_or(0, |document| document.members.len());
    let ready = ready(&parts, &format!("{members} members and {servers} security servers are registered"));
    vec![ready, available, unblocked, guarded, document]
}

/// Whom a change of the authority waits for, if for anybody.
fn unblocked(
    seen: &ObservedTrustAnchor,
    authority: &AuthorityState,
    turns: &rotation::Turns,
    now: Timestamp,
) -> Statement {
    let mut said = match (&authority.step, &authority.standing) {
        (Step::Wait { on, .. }, Some(standing)) if !on.is_empty() => {
            let due = on.iter().filter(|blocker| turns.is_due(blocker));
            let who: Vec<_> = due.map(ToString::to_string).collect();
            // What waits in Stable is the change that has not begun.
            let phase = if standing.phase == crate::rotation::Phase::Stable {
                "Preparing".into()
            } else {
                standing.phase.to_string()
            };
            let why = format!("{phase}: {}", listed(&who));
            Statement::fails(ConditionType::RotationUnblocked, Reason::RotationWaiting, why)
        }
        (_, Some(standing)) if standing.phase != crate::rotation::Phase::Stable => {
            Statement::holds(ConditionType::RotationUnblocked, format!("{} goes on", standing.phase))
        }
        _ => match calendar::problem(&seen.anchor, now) {
            Some(why) => Statement::fails(ConditionType::RotationUnblocked, Reason::InvalidSpec, why),
            None => Statement::holds(ConditionType::RotationUnblocked, "no change of the authority is under way"),
        },
    };
    // A name that is misspelt would else exclude nobody, and nobody would know.
    let is_known = |excluded: &ExcludedServer| {
        seen.servers
            .iter()
            .any(|it| it.namespace().as_ref() == Some(&excluded.namespace) && it.name_any() == excluded.name)
    };
    let all = seen.anchor.spec.rotation.iter().flat_map(|rotation| &rotation.excluded);
    let unknown: BTreeSet<_> = all.map(|it| &it.server).filter(|server| !is_known(server)).collect();
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
        said.message =
            format!("{}; no SecurityServer of this instance, but excluded: {}", said.message, listed(&names));
    }
    let alive: Vec<_> = seen.servers.iter().flat_map(|server| excluded_alive_of(seen, server, now)).collect();
    if !alive.is_empty() {
        said.message = format!("{}; excluded, but running: {}", said.message, listed(&alive));
    }
    said
}

/// A person was wrong about these: a change that goes on without them makes them fail calls.
fn excluded_alive_of(seen: &ObservedTrustAnchor, server: &SecurityServer, now: Timestamp) -> Vec<String> {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let excluded = Excluded::of(&seen.anchor, server, now);
    let pods = seen.pods.get(&(namespace.clone(), name.clone())).map(Vec::as_slice).unwrap_or_default();
    let alive = excluded_alive(server, pods, &excluded).into_iter();
    alive.map(|pod| format!("pod {pod} of SecurityServer {namespace}/{name}")).collect()
}

fn published_statement(
    seen: &ObservedTrustAnchor,
    plan: &TrustAnchorPlan,
    applied: &AppliedTrustAnchor,
    published: Option<&InstanceConfiguration>,
) -> Statement {
    use ConditionType::ConfigurationPublished;
    match keys::state(seen) {
        KeyState::Lost { why } => {
            return Statement::fails(ConfigurationPublished, Reason::ConfigurationKeyLost, why);
        }
        KeyState::Foreign { name } => {
            let known = authority::remembers(seen.anchor.status.as_ref());
            let todo = keys::what_to_do(&seen.anchor, role::CONFIGURATION_KEY, known);
            let why = format!("Secret {name} exists and is not known as ours; {todo}");
            return Statement::fails(ConfigurationPublished, Reason::ForeignObject, why);
        }
        KeyState::Make(_) if published.is_none() => {
            return Statement::unknown(ConfigurationPublished, Reason::Pending, "configuration keys are being made");
        }
        KeyState::Make(_) | KeyState::Ready(_) => {}
    }
    if seen.published == Published::Foreign {
        let name = saatkond_api::names::instance_configuration_config_map(&seen.anchor.name_any());
        let why = format!("ConfigMap {name} exists and is not ours; rename or delete it");
        return Statement::fails(ConfigurationPublished, Reason::ForeignObject, why);
    }
    match (published, &plan.publish, &applied.failure) {
        (_, Some(_), Some(failure)) if !applied.published => failed(ConfigurationPublished, failure),
        (Some(document), _, _) => Statement::holds(
            ConfigurationPublished,
            // No version here: it would make every change of any member a write of this status' message too.
            format!("bundle sequence {} is published", document.bundle_sequence),
        ),
        (None, _, _) => Statement::fails(ConfigurationPublished, Reason::Waiting, "nothing is published yet"),
    }
}

fn authorities(seen: &ObservedTrustAnchor, authority: &AuthorityState, now: Timestamp) -> Vec<AuthorityStatus> {
    let lifetime = seen.anchor.spec.leaf_policy.max_lifetime.as_signed();
    let retirement = authority::retirement(&seen.anchor);
    let newest = authority.bundle.len().saturating_sub(MAX_AUTHORITIES);
    let state = |begins, ends| match can_issue(begins, ends, lifetime, retirement, now) {
        Ok(()) | Err(CannotIssue::NotYetValid) => Phase::Active,
        Err(CannotIssue::Expiring) => Phase::Expiring,
        Err(CannotIssue::Expired) => Phase::Expired,
    };
    authority
        .bundle
        .iter()
        .skip(newest)
        .map(|(generation, certificate)| {
            let facts = certificate.facts();
            AuthorityStatus {
                generation: *generation,
                state: state(facts.not_before, facts.not_after),
                serial: facts.serial.clone(),
                ski: super::authority::key_id(certificate),
                not_before: Time(facts.not_before),
                not_after: Time(facts.not_after),
            }
        })
        .collect()
}

/// How many processes have stated what is waited for, and the first who have not. A process without a receipt has not.
fn receipts(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    servers: &[std::sync::Arc<SecurityServer>],
    standing: &[BlockingProcess],
    turns: &rotation::Turns,
    now: Timestamp,
) -> (TrustAnchorCounts, Vec<BlockingProcess>) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (processes, on) = rotation::waits_for(seen, document, servers, now);
    let mut blocking: Vec<_> = on
        .iter()
        .filter(|blocker| turns.is_due(blocker))
        .map(|blocker| {
            let (namespace, name) = blocker.server.clone();
            let pod_uid = blocker.pod.clone().filter(|uid| !uid.is_empty());
            let known = standing.iter().find(|b| b.namespace == namespace && b.name == name && b.pod_uid == pod_uid);
            let since = known.map_or_else(|| Time(whole_seconds(now)), |known| known.since.clone());
            BlockingProcess { namespace, name, pod_uid, reason: rotation::reason(blocker.obstacle).to_string(), since }
        })
        .collect();
    blocking.sort_by(|a, b| (&a.namespace, &a.name, &a.pod_uid).cmp(&(&b.namespace, &b.name, &b.pod_uid)));
    // Of pods that are only counted there may be several.
    blocking.dedup();
    blocking.truncate(MAX_BLOCKING);
    let blocked = on.iter().filter(|blocker| blocker.pod.is_some()).count();
    let counts = TrustAnchorCounts {
        members: count(document.members.len()),
        security_servers: count(document.servers.len()),
        processes: count(processes),
        receipts_current: count(processes - blocked),
    };
    (counts, blocking)
}

/// The weakest of the signed documents and all certificates in use, cut to the hour: never too late, and not a new
/// status for each of many documents that are signed again in turn.
fn serves_until(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    authority: &AuthorityState,
    servers: &[std::sync::Arc<SecurityServer>],
) -> Option<Timestamp> {
    let leaves = servers.iter().filter_map(|server| server.status.as_ref()).flat_map(|status| {
        let signing = status.signing.iter().map(|leaf| leaf.not_after.0);
        status.leaf.iter().map(|leaf| leaf.not_after.0).chain(signing)
    });
    // That of a server which was taken out stays and is not signed again: counted, it would say for good that time is over.
    let documents = servers.iter().filter_map(|server| {
        let place = (server.namespace().unwrap_or_default(), server.name_any());
        seen.server_documents_expire.get(&place).copied()
    });
    let issuing = authority.signing.and_then(|generation| authority.bundle.get(&generation));
    let until = leaves
        .chain(issuing.map(saatkond_pki::authority::AuthorityCertificate::not_after))
        .chain(documents)
        .chain([document.expires_at])
        .min()?;
    let hour = SignedDuration::from_hours(1).as_secs();
    Timestamp::from_second(until.as_second().div_euclid(hour) * hour).ok()
}
