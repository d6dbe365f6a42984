//! What the instance configuration says: who is registered, and the document around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::names::finalizer;
use saatkond_api::refs::ClientIdRef;
use saatkond_api::v1alpha1::member::Subsystem;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_pki::bundle::Bundle;
use saatkond_wire::configuration::{
    AuthorityEntry, ConfigurationKeys, GroupEntry, InstanceConfiguration, MemberEntry, RotationEntry, ServedClient,
    ServerEntry, SubsystemEntry,
};
use saatkond_wire::document::FORMAT;
use saatkond_wire::identifier::{ClientId, MemberId};

use super::authority::AuthorityState;
use super::emergency;
use super::observed::ObservedTrustAnchor;
use crate::admission::{entry, holder, is_guarded, says_registered};
use crate::duplicates::age;
use crate::meta::{has_finalizer, is_deleting, is_paused};
use crate::observed::Candidate;
use crate::rotation::{Phase, Standing};
use crate::schedule::{document_expiry, whole_seconds};
use crate::serving::{address, guest_subsystems, own_subsystems, served_client};

/// Who takes part.
#[derive(Debug, Clone, Default)]
pub struct Registrations {
    /// Members, ordered by class and code.
    pub members: Vec<MemberEntry>,
    /// Servers, ordered by owner and code.
    pub servers: Vec<ServerEntry>,
    /// The objects behind `servers`, in the same order.
    pub registered: Vec<Arc<SecurityServer>>,
}

/// Who is registered: members that hold their identity and servers that they own, each with its finalizer set and
/// none being deleted. A paused object keeps the entry that it has.
#[must_use]
pub fn registrations(seen: &ObservedTrustAnchor) -> Registrations {
    let (anchor, published) = (&*seen.anchor, seen.published.payload());
    let frozen = is_paused(anchor);
    let mut claims: BTreeMap<(&str, &str), Vec<&Candidate>> = BTreeMap::new();
    for candidate in &seen.members {
        let spec = &candidate.member.spec;
        if spec.trust_anchor_ref.name == anchor.name_any() {
            claims.entry((spec.member_class.as_str(), spec.member_code.as_str())).or_default().push(candidate);
        }
    }
    let holders: BTreeMap<(&str, &str), &Member> = claims
        .into_iter()
        .filter_map(|(key, candidates)| Some((key, &*holder(anchor, seen.policy, published, candidates)?.member)))
        .filter(|(_, member)| is_guarded(member))
        // Else a server, or a guest on one, would be listed for somebody whom no entry announces.
        .filter(|((class, code), member)| {
            !is_paused(*member)
                || entry(published, class, code).is_some()
                || published.is_none() && says_registered(member)
        })
        .collect();
    let members = holders
        .iter()
        .filter_map(|((class, code), member)| {
            let standing = entry(published, class, code);
            match standing {
                Some(standing) if frozen || is_paused(*member) => Some(standing.clone()),
                None if frozen || is_paused(*member) => last_entry(member).filter(|_| published.is_none()),
                Some(_) | None => Some(member_entry(member)),
            }
        })
        .collect();

    let owners: BTreeMap<(String, String), &Member> =
        holders.values().map(|member| ((member.namespace().unwrap_or_default(), member.name_any()), *member)).collect();
    let mut servers: BTreeMap<(String, String, String), (&Arc<SecurityServer>, &Member)> = BTreeMap::new();
    for server in &seen.servers {
        let key = (server.namespace().unwrap_or_default(), server.spec.member_ref.name.clone());
        let Some(owner) = owners.get(&key) else { continue };
        if is_deleting(&**server) {
            continue;
        }
        let id = (
            owner.spec.member_class.to_string(),
            owner.spec.member_code.to_string(),
            server.spec.server_code.to_string(),
        );
        // The contest is decided before the finalizer is asked for: else a younger one could slip in for a moment.
        let older = servers.get(&id).is_some_and(|(other, _)| age(&***other) <= age(&**server));
        if !older {
            servers.insert(id, (server, owner));
        }
    }
    let (mut entries, mut registered) = (Vec::new(), Vec::new());
    for ((class, code, server_code), (server, owner)) in servers {
        if !has_finalizer(&**server, finalizer::SECURITY_SERVER) {
            continue;
        }
        let standing = published.and_then(|document| {
            let same =
                |e: &&ServerEntry| e.member_class == class && e.member_code == code && e.server_code == server_code;
            document.servers.iter().find(same).filter(|entry| !is_left_behind(entry, server, &seen.servers))
        });
        // A document that somebody has deleted must not take along what is paused: the spec is all that is left of it.
        let is_lost =
            published.is_none() && server.status.as_ref().is_some_and(|status| status.configuration.is_some());
        let built = if (frozen || is_paused(&**server)) && !is_lost {
            standing.map(|standing| without_strangers(standing.clone(), &holders))
        } else {
            Some(server_entry(server, owner, &holders, standing, is_lost))
        };
        if let Some(mut built) = built {
            // Of this no pause keeps anything back, and no older spec takes anything back.
            let standing = standing.map_or(0, |standing| standing.lowest_issue_number);
            built.lowest_issue_number = standing.max(server.spec.lowest_issue_number());
            // Of the emergency in which they were published.
            built.issued_keys.clear();
            entries.push(built);
            registered.push(Arc::clone(server));
        }
    }
    Registrations { members, servers: entries, registered }
}

/// Whether a standing entry is that of another server with the same code, which is going. A paused one that kept it would
/// hold the other for as long as it is paused.
fn is_left_behind(entry: &ServerEntry, server: &SecurityServer, all: &[Arc<SecurityServer>]) -> bool {
    let leaves = |other: &SecurityServer| {
        is_deleting(other)
            && other.namespace() == server.namespace()
            && other.spec.member_ref == server.spec.member_ref
            && other.spec.server_code == server.spec.server_code
            && address(other) == entry.address
    };
    address(server) != entry.address && all.iter().any(|other| leaves(other))
}

/// The entry that a member had in a document which cannot be read any more, as far as its status remembers it.
fn last_entry(member: &Member) -> Option<MemberEntry> {
    let status = member.status.as_ref().filter(|_| says_registered(member))?;
    let mut entry = member_entry(member);
    entry.subsystems.retain(|subsystem| status.registered_subsystems.contains(&subsystem.code));
    Some(entry)
}

fn member_entry(member: &Member) -> MemberEntry {
    let spec = &member.spec;
    let mut subsystems: Vec<_> = spec
        .subsystems
        .iter()
        .map(|subsystem| SubsystemEntry { code: subsystem.code.to_string(), name: subsystem.display_name.clone() })
        .collect();
    subsystems.sort_by(|a, b| a.code.cmp(&b.code));
    MemberEntry {
        member_class: spec.member_class.to_string(),
        member_code: spec.member_code.to_string(),
        name: spec.display_name.clone(),
        subsystems,
    }
}

fn server_entry(
    server: &SecurityServer,
    owner: &Member,
    holders: &BTreeMap<(&str, &str), &Member>,
    standing: Option<&ServerEntry>,
    is_lost: bool,
) -> ServerEntry {
    let own = served(owner, own_subsystems(server, owner), standing, is_lost);
    let guests = server.spec.guests.iter().filter_map(|guest| {
        let member = holders.get(&(guest.member_class.as_str(), guest.member_code.as_str()))?;
        (member.uid() != owner.uid()).then_some(*member)
    });
    let theirs = guests.flat_map(|guest| served(guest, guest_subsystems(server, guest), standing, is_lost));
    let mut clients: Vec<_> = own.into_iter().chain(theirs).collect();
    clients.sort();
    clients.dedup();
    ServerEntry {
        member_class: owner.spec.member_class.to_string(),
        member_code: owner.spec.member_code.to_string(),
        server_code: server.spec.server_code.to_string(),
        address: address(server),
        clients,
        lowest_issue_number: 0,
        issued_keys: Vec::new(),
    }
}

/// What a server serves of one member. Of a paused one that is what stands: its entry alone would be frozen else, and a
/// subsystem that its spec moves or drops would change servers all the same. Where the document is lost it is what the member's
/// status remembers.
fn served(
    member: &Member,
    declared: Vec<&Subsystem>,
    standing: Option<&ServerEntry>,
    is_lost: bool,
) -> Vec<ServedClient> {
    let clients = |of: &mut dyn Iterator<Item = &Subsystem>| of.map(|it| served_client(member, it)).collect();
    if !is_paused(member) {
        return clients(&mut declared.into_iter());
    }
    if is_lost {
        let known = last_entry(member).map(|entry| entry.subsystems).unwrap_or_default();
        return clients(&mut declared.into_iter().filter(|it| known.iter().any(|known| *known.code == *it.code)));
    }
    let (class, code) = (member.spec.member_class.as_str(), member.spec.member_code.as_str());
    let all = standing.into_iter().flat_map(|entry| &entry.clients);
    all.filter(|client| client.member_class == class && client.member_code == code).cloned().collect()
}

/// A standing entry less the clients of members that are no longer registered: deregistration is never paused.
fn without_strangers(mut entry: ServerEntry, holders: &BTreeMap<(&str, &str), &Member>) -> ServerEntry {
    entry.clients.retain(|client| holders.contains_key(&(client.member_class.as_str(), client.member_code.as_str())));
    entry
}

/// Clients of the instance, as documents name them, sorted.
#[must_use]
pub fn client_ids(instance: &str, members: &[ClientIdRef]) -> Vec<ClientId> {
    let mut ids: Vec<_> = members
        .iter()
        .map(|it| ClientId {
            member: MemberId {
                instance: instance.to_owned(),
                member_class: it.member_class.to_string(),
                member_code: it.member_code.to_string(),
            },
            subsystem: it.subsystem.as_ref().map(ToString::to_string),
        })
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn global_groups(anchor: &TrustAnchor) -> Vec<GroupEntry> {
    let mut groups: Vec<_> = anchor
        .spec
        .global_groups
        .iter()
        .map(|group| GroupEntry {
            code: group.code.to_string(),
            members: client_ids(&anchor.spec.instance, &group.members),
        })
        .collect();
    groups.sort_by(|a, b| a.code.cmp(&b.code));
    groups
}

/// The document that should be published, with version and sequence of the one that is: equal to it but for the times
/// if nothing has changed. `None` while nothing is trusted yet.
#[must_use]
pub fn content(
    seen: &ObservedTrustAnchor,
    authority: &AuthorityState,
    keys: &ConfigurationKeys,
    now: Timestamp,
) -> Option<InstanceConfiguration> {
    let (anchor, published) = (&*seen.anchor, seen.published.payload());
    let Registrations { members, servers, registered } = registrations(seen);
    let global_groups = match published {
        Some(document) if is_paused(anchor) => document.global_groups.clone(),
        _ => global_groups(anchor),
    };
    let bundle: Vec<_> = authority
        .bundle
        .iter()
        .map(|(generation, certificate)| AuthorityEntry { generation: *generation, certificate: certificate.to_pem() })
        .collect();
    if bundle.is_empty() {
        return None;
    }
    let signed_at = whole_seconds(now);
    let mut document = InstanceConfiguration {
        format: FORMAT,
        instance: anchor.spec.instance.to_string(),
        trust_anchor: anchor.name_any(),
        version: published.map_or(0, |document| document.version),
        bundle_sequence: published.map_or(0, |document| document.bundle_sequence),
        signed_at,
        expires_at: document_expiry(signed_at, anchor.spec.autonomy.as_signed()),
        bundle,
        signing_generation: authority.signing?,
        rotation: authority.standing.as_ref().and_then(|standing| entry_of(standing, published, signed_at)),
        emergency: None,
        configuration_keys: keys.clone(),
        members,
        servers,
        global_groups,
    };
    emergency::publish(&mut document, seen, &registered);
    Some(document)
}

/// What the document says of the rotation. One that never was is not spoken of, and a phase that goes on keeps its time.
fn entry_of(
    standing: &Standing,
    published: Option<&InstanceConfiguration>,
    signed_at: Timestamp,
) -> Option<RotationEntry> {
    if standing.requests.is_empty() && standing.phase == Phase::Stable {
        return None;
    }
    let before = published.and_then(|document| document.rotation.as_ref());
    let same = published.and_then(Standing::of).is_some_and(|before| before == *standing);
    let since = before.filter(|_| same).map_or(signed_at, |before| before.since);
    Some(standing.entry(since))
}

/// SHA-256 of a document's bundle in hex; empty if it holds something that is no authority.
#[must_use]
pub fn bundle_hash(document: &InstanceConfiguration) -> String {
    let pem: String = document.bundle.iter().map(|entry| entry.certificate.as_str()).collect();
    Bundle::from_pem(&pem).map(|bundle| bundle.hash()).unwrap_or_default()
}
