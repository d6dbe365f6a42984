//! What a member's spec refers to, and what of it is not there. Nothing here stops what works: a member whose OpenAPI
//! document was deleted by mistake keeps its services, and its condition says what is wrong.

use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::v1alpha1::member::{Service, ServiceChoice, SubjectChoice, Subsystem};
use saatkond_api::{Member, SecurityServer};

use super::observed::ObservedMember;
use crate::observed::ObservedDescription;
use crate::serving::{accepts, guest_subsystems, own_subsystems};

/// Something that is referred to and not usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// For machines.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// The servers that serve the member, with their owners: its own first, then by namespace and name.
#[must_use]
pub fn serving(seen: &ObservedMember) -> Vec<(&SecurityServer, &Member)> {
    let member = &*seen.member;
    let mut found: Vec<(bool, &SecurityServer, &Member)> = seen
        .servers
        .iter()
        .filter_map(|server| {
            let server = &**server;
            if owns(member, server) {
                return Some((false, server, member));
            }
            let host = seen.hosts.iter().find(|host| owns(host, server))?;
            let named = !guest_subsystems(server, member).is_empty();
            (named && accepts(server, member)).then_some((true, server, &**host))
        })
        .collect();
    found.sort_by_key(|(guest, server, _)| (*guest, server.namespace(), server.name_any()));
    found.into_iter().map(|(_, server, owner)| (server, owner)).collect()
}

/// Whether the server's `memberRef` names this member.
#[must_use]
pub fn owns(member: &Member, server: &SecurityServer) -> bool {
    member.namespace() == server.namespace() && server.spec.member_ref.name == member.name_any()
}

/// Everything that is referred to and not usable, in the order of the spec.
#[must_use]
pub fn findings(seen: &ObservedMember) -> Vec<Finding> {
    let mut found = Vec::new();
    for subsystem in &seen.member.spec.subsystems {
        servers(seen, subsystem, &mut found);
        for service in &subsystem.services {
            description(seen, subsystem, service, &mut found);
            groups(seen, subsystem, service, &mut found);
        }
    }
    let own = seen.servers.iter().any(|server| owns(&seen.member, server));
    if found.is_empty() && !own && serving(seen).is_empty() {
        let message =
            "no security server serves the member: create a SecurityServer, or name one that accepts it as a \
                       guest in a subsystem's servers"
                .to_owned();
        found.push(Finding { reason: Reason::NoSecurityServer, message });
    }
    found
}

fn servers(seen: &ObservedMember, subsystem: &Subsystem, found: &mut Vec<Finding>) {
    let (member, code) = (&*seen.member, &subsystem.code);
    let own_namespace = member.namespace().unwrap_or_default();
    for wanted in subsystem.servers.iter().flatten() {
        let namespace = wanted.namespace.as_deref().unwrap_or(&own_namespace);
        let name = format!("{namespace}/{}", wanted.name);
        let named = |server: &&std::sync::Arc<SecurityServer>| {
            server.namespace().as_deref() == Some(namespace) && server.name_any() == wanted.name
        };
        match seen.servers.iter().find(named) {
            None => found.push(Finding {
                reason: Reason::SecurityServerNotFound,
                message: format!("subsystem {code} names SecurityServer {name}, which does not exist"),
            }),
            Some(server) if !owns(member, server) && !accepts(server, member) => found.push(Finding {
                reason: Reason::GuestNotAccepted,
                message: format!(
                    "subsystem {code} names SecurityServer {name}, which does not list {}/{} in its guests",
                    member.spec.member_class, member.spec.member_code
                ),
            }),
            Some(_) => {}
        }
    }
    let orphan = subsystem.servers.is_none()
        && !seen.servers.iter().any(|server| owns(member, server) && !own_subsystems(server, member).is_empty());
    if orphan {
        found.push(Finding {
            reason: Reason::NoSecurityServer,
            message: format!(
                "subsystem {code} names no servers and the member owns none: create a SecurityServer, or name one that accepts it as a guest"
            ),
        });
    }
}

fn description(seen: &ObservedMember, subsystem: &Subsystem, service: &Service, found: &mut Vec<Finding>) {
    let Some(ServiceChoice::OpenApi(openapi)) = service.choice() else { return };
    let (name, key) = (&openapi.config_map_ref.name, &openapi.config_map_ref.key);
    let place = format!("service {}/{}: entry {key} of ConfigMap {name}", subsystem.code, service.code);
    let finding = |reason, what: &str| Some(Finding { reason, message: format!("{place} {what}") });
    let verdict = match seen.descriptions.get(&(name.clone(), key.clone())) {
        Some(ObservedDescription::Absent) => finding(Reason::DescriptionNotFound, "does not exist"),
        Some(ObservedDescription::Unreadable { why }) => {
            finding(Reason::DescriptionInvalid, &format!("is neither JSON nor YAML: {why}"))
        }
        Some(ObservedDescription::Read { version: None, .. }) => {
            finding(Reason::DescriptionInvalid, "has no field openapi: only OpenAPI 3 is understood")
        }
        Some(ObservedDescription::Read { version: Some(version), .. }) if !is_supported(version) => {
            let version: String = version.chars().take(20).collect();
            finding(Reason::DescriptionInvalid, &format!("is OpenAPI {version}; understood are 3.0.x and 3.1.0"))
        }
        Some(ObservedDescription::Read { has_paths: false, .. }) => {
            finding(Reason::DescriptionInvalid, "has no object paths")
        }
        // `None`: not looked at, since the namespace is not admitted.
        Some(ObservedDescription::Read { .. }) | None => None,
    };
    found.extend(verdict);
}

/// The versions that X-Road reads: any 3.0, and 3.1.0.
fn is_supported(version: &str) -> bool {
    let patch = version.strip_prefix("3.0.");
    version == "3.1.0" || patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

fn groups(seen: &ObservedMember, subsystem: &Subsystem, service: &Service, found: &mut Vec<Finding>) {
    let place = format!("service {}/{}", subsystem.code, service.code);
    for right in &service.access {
        match right.subject.choice() {
            Some(SubjectChoice::LocalGroup(code)) if !subsystem.local_groups.iter().any(|g| g.code == *code) => {
                found.push(Finding {
                    reason: Reason::LocalGroupNotFound,
                    message: format!("{place} grants a right to local group {code}, which the subsystem does not have"),
                });
            }
            Some(SubjectChoice::GlobalGroup(code)) => {
                let anchor = seen.anchor.as_ref();
                if anchor.is_some_and(|anchor| !anchor.spec.global_groups.iter().any(|g| g.code == *code)) {
                    found.push(Finding {
                        reason: Reason::GlobalGroupNotFound,
                        message: format!(
                            "{place} grants a right to global group {code}, which the trust anchor does not have"
                        ),
                    });
                }
            }
            Some(SubjectChoice::LocalGroup(_) | SubjectChoice::Client { .. }) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_supported;

    #[test]
    fn versions() {
        for version in ["3.0.0", "3.0.3", "3.0.10", "3.1.0"] {
            assert!(is_supported(version), "{version}");
        }
        for version in ["2.0", "3.0", "3.0.", "3.0.x", "3.1.1", "3.2.0", "4.0.0", ""] {
            assert!(!is_supported(version), "{version}");
        }
    }
}
