//! What a member's status says.

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::TrustAnchor;
use saatkond_api::conditions::{ConditionType, Reason, Statement, is_true};
use saatkond_api::v1alpha1::member::{MemberStatus, ServingServer};
use saatkond_api::v1alpha1::trust_anchor::AdmissionMode;

use super::observed::ObservedMember;
use super::plan::{AppliedMember, claim, is_deregistered, rival};
use super::references::{Finding, findings, serving};
use crate::admission::{self, member_id};
use crate::effects::StatusUpdate;
use crate::meta::{is_deleting, is_paused};
use crate::observed::NamespaceAccess;
use crate::serving::server_id;
use crate::statements::{conclude, failed, listed, ready};

/// The longest list of servers.
const MAX_SERVERS: usize = 64;

/// The whole status after a plan has been applied with the result `applied`.
#[must_use]
pub fn status(seen: &ObservedMember, applied: &AppliedMember, now: Timestamp) -> StatusUpdate<MemberStatus> {
    let member = &*seen.member;
    let standing = member.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let (conditions, events) = conclude(standing, &statements(seen, applied), member.metadata.generation, now);
    let services: usize = member.spec.subsystems.iter().map(|subsystem| subsystem.services.len()).sum();
    let servers = |anchor: &TrustAnchor| {
        let mut servers: Vec<_> = serving(seen)
            .into_iter()
            .map(|(server, owner)| ServingServer {
                namespace: server.namespace().unwrap_or_default(),
                name: server.name_any(),
                identity: server_id(anchor, owner, server).to_string(),
            })
            .collect();
        servers.truncate(MAX_SERVERS);
        servers
    };
    let anchor = seen.anchor.as_deref();
    StatusUpdate {
        status: MemberStatus {
            observed_generation: member.metadata.generation,
            conditions,
            identity: anchor.map(|anchor| member_id(anchor, member).to_string()),
            servers: anchor.map(servers).unwrap_or_default(),
            services: u32::try_from(services).ok(),
            registered_subsystems: registered_subsystems(seen),
        },
        events,
    }
}

fn registered_subsystems(seen: &ObservedMember) -> Vec<String> {
    let spec = &seen.member.spec;
    // The entry of a duplicate belongs to the older one.
    if claim(seen).is_err() || rival(seen).is_some() {
        return Vec::new();
    }
    if seen.instance.payload().is_none() {
        return seen.member.status.as_ref().map(|status| status.registered_subsystems.clone()).unwrap_or_default();
    }
    let entry = admission::entry(seen.instance.payload(), &spec.member_class, &spec.member_code);
    entry.map(|entry| entry.subsystems.iter().map(|s| s.code.clone()).collect()).unwrap_or_default()
}

fn statements(seen: &ObservedMember, applied: &AppliedMember) -> Vec<Statement> {
    use ConditionType::{Ready, ReferencesResolved};
    let member = &*seen.member;
    let admitted = admitted(seen);
    let registered = registered(seen);
    let found = findings(seen);
    let mut services = member.spec.subsystems.iter().flat_map(|subsystem| &subsystem.services);
    let unread = seen.namespace.access != NamespaceAccess::Granted && services.any(|service| service.openapi.is_some());
    let resolved = match found.first() {
        None if unread => {
            let why = "the OpenAPI documents of its services are looked at once the namespace is admitted";
            Statement::unknown(ReferencesResolved, Reason::Waiting, why)
        }
        None => Statement::holds(ReferencesResolved, "everything that the spec refers to is there"),
        Some(first) => {
            let messages: Vec<String> = found.iter().map(|Finding { message, .. }| message.clone()).collect();
            Statement::fails(ReferencesResolved, first.reason, listed(&messages))
        }
    };
    let mut parts = Vec::new();
    if is_deleting(member) {
        let why = if is_deregistered(seen) {
            "it is out of the published configuration"
        } else {
            "it is being taken out of the published configuration"
        };
        parts.push(Statement::fails(Ready, Reason::Deregistering, why));
    }
    // A refused right in a namespace that is not admitted is what that condition says already.
    parts.push(admitted.clone());
    if let Some(failure) = &applied.failure {
        parts.push(failed(Ready, failure));
    }
    if let Some(anchor) = &seen.anchor {
        let status = anchor.status.as_ref();
        if !status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready)) {
            let why = format!("TrustAnchor {} is not ready; its conditions say why", anchor.name_any());
            parts.push(Statement::fails(Ready, Reason::TrustAnchorNotReady, why));
        }
    }
    parts.extend([registered.clone(), resolved.clone()]);
    if is_paused(member) {
        parts.push(Statement::fails(Ready, Reason::Paused, "saatkond.io/paused is set: changes of the spec wait"));
    }
    vec![ready(&parts, "registered, and everything that it refers to is there"), admitted, registered, resolved]
}

fn admitted(seen: &ObservedMember) -> Statement {
    use ConditionType::Admitted;
    // The identity first: where both are missing, its command mends both.
    let refused = claim(seen).and_then(|()| admission::namespace(&seen.namespace));
    if let Err(refusal) = refused {
        return Statement::fails(Admitted, refusal.reason, refusal.message);
    }
    if let Some(older) = rival(seen) {
        let name = format!("{}/{}", older.namespace().unwrap_or_default(), older.name_any());
        let why = format!("Member {name} has this identity and is older, so it stays; delete one of the two");
        return Statement::fails(Admitted, Reason::DuplicateIdentity, why);
    }
    let open = seen.anchor.as_ref().is_some_and(|anchor| anchor.spec.admission == AdmissionMode::Open);
    if open {
        return Statement {
            reason: Reason::AdmissionOpen,
            ..Statement::holds(
                Admitted,
                "the trust anchor's admission is Open: nobody has approved this identity; for development only",
            )
        };
    }
    Statement::holds(Admitted, "the namespace may claim this identity")
}

/// What the published document says, whatever has become of the rights in the namespace: what is registered stays so without them,
/// and that this object is the one that is registered stands nowhere else.
fn registered(seen: &ObservedMember) -> Statement {
    use ConditionType::Registered;
    let (member, spec) = (&*seen.member, &seen.member.spec);
    if claim(seen).is_err() || rival(seen).is_some() {
        return Statement::fails(Registered, Reason::Waiting, "it is not admitted");
    }
    // Gateways hold the last good one, and it is published anew with whom it had.
    if seen.instance.payload().is_none() && admission::says_registered(member) {
        return Statement::holds(Registered, "the last instance configuration that could be read lists it");
    }
    match admission::entry(seen.instance.payload(), &spec.member_class, &spec.member_code) {
        None => Statement::fails(Registered, Reason::Waiting, "the next instance configuration will list it"),
        Some(entry) => {
            let wanted = spec.subsystems.iter().map(|subsystem| subsystem.code.as_str());
            let missing: Vec<_> = wanted.filter(|code| !entry.subsystems.iter().any(|s| s.code == *code)).collect();
            match missing.first() {
                None => Statement::holds(Registered, "the published instance configuration lists it"),
                Some(code) => {
                    let why = format!("the next instance configuration will list subsystem {code}");
                    Statement::fails(Registered, Reason::UpdatePending, why)
                }
            }
        }
    }
}
