//! Which server serves whom: both sides must say so. And where a server is reached.

use kube::ResourceExt;
use saatkond_api::v1alpha1::member::Subsystem;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_wire::configuration::ServedClient;
use saatkond_wire::identifier::ServerId;

use crate::admission::member_id;
use crate::names::service;

/// The port for other security servers, where an address names none (X-Road's).
pub const SERVER_PORT: u16 = 5500;

/// The subsystems of the server's owner that it serves: those that name it, and those that name no server at all.
#[must_use]
pub fn own_subsystems<'a>(server: &SecurityServer, owner: &'a Member) -> Vec<&'a Subsystem> {
    let all = owner.spec.subsystems.iter();
    sorted(all.filter(|subsystem| subsystem.servers.is_none() || names(subsystem, owner, server)).collect())
}

/// The subsystems of another member that name the server. It serves them if it lists the member in `guests`.
#[must_use]
pub fn guest_subsystems<'a>(server: &SecurityServer, guest: &'a Member) -> Vec<&'a Subsystem> {
    sorted(guest.spec.subsystems.iter().filter(|subsystem| names(subsystem, guest, server)).collect())
}

/// Whether the server lists this member in `guests`.
#[must_use]
pub fn accepts(server: &SecurityServer, member: &Member) -> bool {
    let spec = &member.spec;
    server.spec.guests.iter().any(|g| g.member_class == spec.member_class && g.member_code == spec.member_code)
}

fn names(subsystem: &Subsystem, member: &Member, server: &SecurityServer) -> bool {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    let own = member.namespace().unwrap_or_default();
    let mut listed = subsystem.servers.iter().flatten();
    listed.any(|it| it.name == name && *it.namespace.as_ref().unwrap_or(&own) == namespace)
}

fn sorted(mut subsystems: Vec<&Subsystem>) -> Vec<&Subsystem> {
    subsystems.sort_by(|a, b| a.code.cmp(&b.code));
    subsystems
}

/// The subsystem as a client in the instance configuration.
#[must_use]
pub fn served_client(member: &Member, subsystem: &Subsystem) -> ServedClient {
    ServedClient {
        member_class: member.spec.member_class.to_string(),
        member_code: member.spec.member_code.to_string(),
        subsystem: Some(subsystem.code.to_string()),
    }
}

/// The server's identifier.
#[must_use]
pub fn server_id(anchor: &TrustAnchor, owner: &Member, server: &SecurityServer) -> ServerId {
    ServerId { owner: member_id(anchor, owner), server_code: server.spec.server_code.to_string() }
}

/// Where other servers reach it, always with a port: the address in the spec, else its Service.
#[must_use]
pub fn address(server: &SecurityServer) -> String {
    match &server.spec.address {
        // The host of an IPv6 address stands in brackets: a colon after them, or without any, begins the port.
        Some(address) if address.rsplit(']').next().is_some_and(|rest| rest.contains(':')) => address.clone(),
        Some(address) => format!("{address}:{SERVER_PORT}"),
        None => format!("{}:{SERVER_PORT}", service_host(server)),
    }
}

/// The name of the server's Service inside the cluster, without the cluster's domain, which nobody tells us.
#[must_use]
pub fn service_host(server: &SecurityServer) -> String {
    format!("{}.{}.svc", service(&server.name_any()), server.namespace().unwrap_or_default())
}

/// The DNS names in the server's TLS certificate, sorted: its Service in the spellings that clients use, and the host of
/// its public address where that is a name. (Peers go by the URI; these serve tools that know DNS names only.)
#[must_use]
pub fn dns_names(server: &SecurityServer) -> Vec<String> {
    let (name, namespace) = (service(&server.name_any()), server.namespace().unwrap_or_default());
    let mut names = vec![name.clone(), format!("{name}.{namespace}"), service_host(server)];
    if let Some(address) = &server.spec.address {
        let host = address.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let last = host.rsplit('.').next().unwrap_or_default();
        let is_name = !host.starts_with('[') && last.bytes().any(|byte| !byte.is_ascii_digit());
        if is_name {
            names.push(host);
        }
    }
    names.sort();
    names.dedup();
    names
}
