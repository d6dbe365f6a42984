//! Whether a server may act in its owner's name, and for whom.
//!
//! Leaves are issued for what the published, signed instance configuration registers, and for nothing else: the
//! authority decides who takes part, and this is where that decision meets the keys.

use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, Holds, Reason, find};
use saatkond_api::{Member, TrustAnchor};
use saatkond_wire::configuration::{InstanceConfiguration, ServerEntry};
use saatkond_wire::identifier::{MemberId, ServerId};

use super::observed::ObservedSecurityServer;
use crate::admission::{self, Refusal, holder, member_id};
use crate::duplicates::displaced_by;
use crate::meta::{is_deleting, is_paused};
use crate::observed::{AdmissionPolicy, Published};
use crate::serving::{address, server_id};

/// The server's place in the federation: its owner holds its identity and no older server has its code.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The anchor.
    pub anchor: &'a TrustAnchor,
    /// The owner.
    pub owner: &'a Member,
}

impl Place<'_> {
    /// The server's identifier.
    #[must_use]
    pub fn server_id(&self, seen: &ObservedSecurityServer) -> ServerId {
        server_id(self.anchor, self.owner, &seen.server)
    }
}

/// Finds the server's place, or says why it has none.
pub fn place(seen: &ObservedSecurityServer) -> Result<Place<'_>, Refusal> {
    let spec = &seen.server.spec;
    let refuse = |reason, message| Err(Refusal { reason, message });
    let Some(owner) = seen.owner.as_deref() else {
        let why = format!("Member {} does not exist in this namespace", spec.member_ref.name);
        return refuse(Reason::MemberNotFound, why);
    };
    let Some(anchor) = seen.anchor.as_deref() else {
        let why = format!("TrustAnchor {} does not exist", owner.spec.trust_anchor_ref.name);
        return refuse(Reason::TrustAnchorNotFound, why);
    };
    admission::namespace(&seen.namespace)?;
    let holder = holds_identity(seen, anchor, owner);
    if holder.is_none_or(|member| member.uid() != owner.uid()) {
        let (member, name) = (owner.name_any(), anchor.name_any());
        if holder.is_some() || is_deleting(owner) || is_refused(seen, anchor, owner) {
            return refuse(
                Reason::MemberNotAdmitted,
                format!("Member {member} is not admitted; its conditions say why"),
            );
        }
        // On the way to it, or held up by the anchor: nothing that a person at the member's could do.
        let (reason, why) = match &seen.instance {
            Published::Absent => {
                (Reason::TrustAnchorNotReady, format!("TrustAnchor {name} has published no instance configuration yet"))
            }
            Published::Invalid { .. } | Published::Foreign => (
                Reason::TrustAnchorNotReady,
                format!("the instance configuration of TrustAnchor {name} cannot be read; its conditions say why"),
            ),
            Published::Valid(_) if is_paused(owner) || is_paused(anchor) => {
                (Reason::Paused, format!("Member {member} or TrustAnchor {name} is paused before it was registered"))
            }
            Published::Valid(_) => {
                (Reason::Waiting, format!("Member {member} is not registered with TrustAnchor {name} yet"))
            }
        };
        return refuse(reason, why);
    }
    if let Some(older) = twin(seen) {
        let why = format!(
            "SecurityServer {} of the same owner has code {} and is older, so it stays; delete one of the two",
            older.name_any(),
            spec.server_code
        );
        return refuse(Reason::DuplicateServerCode, why);
    }
    Ok(Place { anchor, owner })
}

/// Whether the owner may not claim its identity, by the annotation or by its own condition, which knows of the policy too.
fn is_refused(seen: &ObservedSecurityServer, anchor: &TrustAnchor, owner: &Member) -> bool {
    let (mode, identity) = (anchor.spec.admission, admission::identity(anchor, owner));
    let conditions = owner.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    admission::claim(mode, AdmissionPolicy::Installed, Some(&seen.namespace), &identity, false).is_err()
        || find(conditions, ConditionType::Admitted).is_some_and(|it| it.status == Holds::False.as_str())
}

/// The older server of the same owner with the same code.
pub(crate) fn twin(seen: &ObservedSecurityServer) -> Option<&saatkond_api::SecurityServer> {
    let spec = &seen.server.spec;
    let same = seen.neighbours.iter().map(|other| &**other).filter(|other| {
        other.spec.member_ref == spec.member_ref
            && other.spec.server_code == spec.server_code
            && other.uid() != seen.server.uid()
    });
    displaced_by(&*seen.server, same)
}

/// The member that holds the identity which `like` claims.
pub(crate) fn holds_identity<'a>(
    seen: &'a ObservedSecurityServer,
    anchor: &TrustAnchor,
    like: &Member,
) -> Option<&'a Member> {
    let (class, code) = (&like.spec.member_class, &like.spec.member_code);
    holder_of(seen, anchor, class, code)
}

/// The member that holds this identity.
pub(crate) fn holder_of<'a>(
    seen: &'a ObservedSecurityServer,
    anchor: &TrustAnchor,
    class: &str,
    code: &str,
) -> Option<&'a Member> {
    let claims = seen.members.iter().filter(|candidate| {
        let spec = &candidate.member.spec;
        spec.trust_anchor_ref.name == anchor.name_any() && spec.member_class == *class && spec.member_code == *code
    });
    // `Missing`: whoever is not registered is not admitted here. Nothing is issued before the configuration that
    // registers is published, and by then the anchor's own look at the policy has decided.
    holder(anchor, AdmissionPolicy::Missing, seen.instance.payload(), claims).map(|candidate| &*candidate.member)
}

/// The server's entry in the published instance configuration.
#[must_use]
pub fn registered<'a>(seen: &'a ObservedSecurityServer, id: &ServerId) -> Option<&'a ServerEntry> {
    seen.instance.payload()?.server(id)
}

/// The members whose messages the server signs: its owner and whoever of its registered clients belongs to another.
#[must_use]
pub fn signers(entry: &ServerEntry, document: &InstanceConfiguration, owner: &MemberId) -> Vec<MemberId> {
    let mut members: Vec<MemberId> = entry
        .clients
        .iter()
        .map(|client| MemberId {
            instance: document.instance.clone(),
            member_class: client.member_class.clone(),
            member_code: client.member_code.clone(),
        })
        .filter(|member| document.has_client(&member.client()))
        .chain([owner.clone()])
        .collect();
    members.sort();
    members.dedup();
    members
}

/// Whether nothing published speaks of this server any more.
#[must_use]
pub fn is_deregistered(seen: &ObservedSecurityServer) -> bool {
    let (Some(owner), Some(anchor)) = (seen.owner.as_deref(), seen.anchor.as_deref()) else {
        // Who its owner was cannot be told any more; without owner or anchor nothing registers it either.
        return true;
    };
    let id = ServerId { owner: member_id(anchor, owner), server_code: seen.server.spec.server_code.to_string() };
    // A server that never was the holder leaves the holder's entry behind, and so does one that a younger follows. But
    // that there is another does not make the entry its own: while it leads here, peers still call these pods.
    let passed_on = |entry: &ServerEntry| {
        seen.neighbours.iter().any(|other| {
            other.spec.member_ref == seen.server.spec.member_ref
                && other.spec.server_code == seen.server.spec.server_code
                && other.uid() != seen.server.uid()
                && other.metadata.deletion_timestamp.is_none()
                && address(other) == entry.address
        })
    };
    let foreign_owner = holds_identity(seen, anchor, owner)
        .is_some_and(|member| member.uid() != owner.uid() && admission::is_guarded(member));
    match &seen.instance {
        Published::Absent | Published::Foreign => true,
        Published::Valid(_) => registered(seen, &id).is_none_or(|entry| passed_on(entry) || foreign_owner),
        Published::Invalid { .. } => false,
    }
}
