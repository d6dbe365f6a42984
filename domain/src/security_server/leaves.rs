//! Which leaves a server needs, and which of them are issued now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::names::{annotation, role};
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_pki::key::Algorithm;
use saatkond_pki::leaf::{LeafRequest, Usage};
use saatkond_pki::renewal;
use saatkond_wire::identifier::{MemberId, ServerId};
use saatkond_wire::leaf_name::LeafName;

use super::observed::{IdentityFacts, Issuer, ObservedSecurityServer};
use super::plan::{IdentityPlan, LeafPlan};
use super::registration::{Place, registered, signers};
use crate::admission::member_id;
use crate::effects::LeafOrder;
use crate::meta::{annotated, is_paused, server_object};
use crate::names::identity;
use crate::observed::{LeafFacts, Stored};
use crate::schedule::{CannotIssue, can_issue, may_renew_at, renew_at};
use crate::serving::dns_names;
use crate::trust_anchor::authority::retirement;
use crate::trust_anchor::rotation::has_turn;

/// Algorithm of every leaf's key: the fastest to sign with, and accepted by everything.
pub const LEAF_ALGORITHM: Algorithm = Algorithm::EcdsaP256;

/// What is concluded about a server's leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafState {
    /// What to store now, if anything.
    pub identity: Option<IdentityPlan>,
    /// Why something that is due is not issued.
    pub blocked: Option<(Reason, String)>,
    /// When the next leaf falls due.
    pub next_due: Option<Timestamp>,
}

/// Why no leaf can be issued now, if so.
fn issuer<'a>(
    seen: &'a ObservedSecurityServer,
    place: &Place<'_>,
    now: Timestamp,
) -> Result<&'a Issuer, (Reason, String)> {
    let anchor = place.anchor.name_any();
    let Some(document) = seen.instance.payload() else {
        return Err((Reason::Waiting, format!("TrustAnchor {anchor} has not published an instance configuration yet")));
    };
    let Some(issuer) = &seen.issuer else {
        let why = format!("TrustAnchor {anchor} has no signing key at hand; its conditions say why");
        return Err((Reason::SigningKeyMissing, why));
    };
    // Announce before use (INV-1): what gateways have been told to trust, and not what lies at hand.
    let announced = document.bundle.iter().find(|entry| entry.generation == issuer.generation);
    let same = announced
        .and_then(|entry| AuthorityCertificate::from_pem(&entry.certificate).ok())
        .is_some_and(|certificate| certificate.sha256() == issuer.certificate);
    if !same || document.signing_generation != issuer.generation {
        let why = format!("the authority of generation {} is not the one that is published", issuer.generation);
        return Err((Reason::Waiting, why));
    }
    let lifetime = place.anchor.spec.leaf_policy.max_lifetime.as_signed();
    match can_issue(issuer.not_before, issuer.not_after, lifetime, retirement(place.anchor), now) {
        Ok(()) => Ok(issuer),
        Err(CannotIssue::NotYetValid) => {
            Err((Reason::Waiting, format!("the authority is not valid before {}", issuer.not_before)))
        }
        Err(CannotIssue::Expiring) => {
            let why = format!(
                "the authority of TrustAnchor {anchor} ends at {}: too soon to issue under it",
                issuer.not_after
            );
            Err((Reason::AuthorityExpiring, why))
        }
        Err(CannotIssue::Expired) => {
            let why = format!("the authority of TrustAnchor {anchor} has ended at {}", issuer.not_after);
            Err((Reason::AuthorityExpired, why))
        }
    }
}

/// What one leaf should be.
struct Wanted {
    usage: Usage,
    common_name: String,
    dns_names: Vec<String>,
    name: Box<dyn Fn(u64) -> LeafName>,
}

/// How urgent a leaf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// It is good for longer.
    None,
    /// It is good, and may be renewed along with another.
    Along,
    /// It is issued now.
    Now,
}

/// Concludes what to issue.
#[must_use]
pub fn leaves(seen: &ObservedSecurityServer, place: &Place<'_>, now: Timestamp) -> LeafState {
    let nothing = LeafState { identity: None, blocked: None, next_due: None };
    let id = place.server_id(seen);
    let name = identity(&seen.server.name_any());
    if seen.identity == Stored::Foreign {
        let why = format!("Secret {name} exists and is not ours; rename or delete it");
        return LeafState { blocked: Some((Reason::ForeignObject, why)), ..nothing };
    }
    let facts = seen.identity.facts();
    let (Some(entry), Some(document)) = (registered(seen, &id), seen.instance.payload()) else {
        let why = "the published instance configuration does not list the server yet".to_owned();
        return LeafState {
            blocked: Some((Reason::Waiting, why)),
            next_due: facts.map(|f| first_due(seen, f)),
            ..nothing
        };
    };
    let issuer = issuer(seen, place, now);
    let generation = document.signing_generation;
    let members = signers(entry, document, &member_id(place.anchor, place.owner));
    let paused = is_paused(&*seen.server);

    let mut wanted = authentication(seen, &id);
    if let Some(facts) = facts.filter(|_| paused) {
        // Names come from the spec, so a paused server keeps its own; whom it speaks for is not negotiable.
        wanted.dns_names.clone_from(&facts.authentication.dns_names);
    }
    // Old leaves are good while their authority is trusted; whose turn has not come keeps them.
    let turn = has_turn(place.anchor, document, &id);
    let may_stay = |leaf: &LeafFacts| !turn && document.bundle.iter().any(|entry| entry.generation == leaf.generation);
    let need = |leaf: Option<&LeafFacts>, wanted: &Wanted| {
        let generation = leaf.filter(|leaf| may_stay(leaf)).map_or(generation, |leaf| leaf.generation);
        need(seen, leaf, wanted, generation, now)
    };
    let authentication = need(facts.map(|f| &f.authentication), &wanted);
    let standing: BTreeMap<&MemberId, &LeafFacts> =
        facts.iter().flat_map(|facts| &facts.signing).map(|signing| (&signing.member, &signing.leaf)).collect();
    let signing: Vec<(&MemberId, Need)> = members
        .iter()
        .filter(|member| !paused || facts.is_none() || standing.contains_key(member))
        .map(|member| {
            let leaf = standing.get(member).copied();
            (member, need(leaf, &signing(member, &id)))
        })
        .collect();
    let urgent = authentication == Need::Now || signing.iter().any(|(_, need)| *need == Need::Now);
    let dropped = standing.keys().any(|member| !members.contains(member));
    let next_due = facts.map(|facts| first_due(seen, facts));
    let unlabelled = facts.is_some_and(|facts| !facts.labelled);
    if !urgent && !dropped && !unlabelled {
        return LeafState { next_due, ..nothing };
    }
    // Neither taking a leaf away nor putting labels back needs an authority.
    let issuing = match (urgent, issuer) {
        (true, Ok(issuer)) => issuer.generation,
        (true, Err(blocked)) => return LeafState { blocked: Some(blocked), next_due, ..nothing },
        (false, _) => generation,
    };
    let highest = facts.map_or(0, |facts| facts.issue_number);
    let remembered = seen.server.status.as_ref().and_then(|status| status.issue_number).unwrap_or(0);
    // The number of the status too: a Secret that was deleted must not make numbers come back.
    let accepted = seen.server.spec.lowest_issue_number();
    let number = if urgent { (highest.max(remembered) + 1).max(accepted) } else { highest };
    let order = |wanted: &Wanted, need: Need| match need {
        Need::None => LeafPlan::Keep,
        Need::Along | Need::Now if !urgent => LeafPlan::Keep,
        Need::Along | Need::Now => LeafPlan::Issue(LeafOrder {
            request: LeafRequest {
                usage: wanted.usage,
                common_name: wanted.common_name.clone(),
                uri: (wanted.name)(number).to_string(),
                dns_names: wanted.dns_names.clone(),
            },
            algorithm: LEAF_ALGORITHM,
            now,
            lifetime: place.anchor.spec.leaf_policy.max_lifetime.as_signed(),
            retirement: retirement(place.anchor),
        }),
    };
    let meta = server_object(&seen.server, name, Some(role::IDENTITY));
    LeafState {
        identity: Some(IdentityPlan {
            meta: annotated(meta, [(annotation::ISSUE_NUMBER, number.to_string())]),
            server: id.clone(),
            issue_number: number,
            generation: issuing,
            authentication: order(&wanted, authentication),
            signing: signing
                .into_iter()
                .map(|(member, need)| (member.clone(), order(&self::signing(member, &id), need)))
                .collect(),
            replaces: match &seen.identity {
                Stored::Present(facts) => Some(facts.resource_version.clone()),
                Stored::Unusable { resource_version, .. } => Some(resource_version.clone()),
                Stored::Absent | Stored::Foreign => None,
            },
        }),
        blocked: None,
        next_due: None,
    }
}

fn authentication(seen: &ObservedSecurityServer, id: &ServerId) -> Wanted {
    let id = id.clone();
    Wanted {
        usage: Usage::Authentication,
        common_name: id.to_string(),
        dns_names: dns_names(&seen.server),
        name: Box::new(move |issue| LeafName::Authentication { server: id.clone(), issue }),
    }
}

fn signing(member: &MemberId, id: &ServerId) -> Wanted {
    let (member, server) = (member.clone(), id.clone());
    Wanted {
        usage: Usage::Signing,
        common_name: member.to_string(),
        dns_names: Vec::new(),
        name: Box::new(move |issue| LeafName::Signing { member: member.clone(), server: server.clone(), issue }),
    }
}

/// Compares a leaf with what it should be: by what the certificate says, never by what some annotation claims.
fn need(
    seen: &ObservedSecurityServer,
    leaf: Option<&LeafFacts>,
    wanted: &Wanted,
    generation: u64,
    now: Timestamp,
) -> Need {
    let Some(leaf) = leaf else { return Need::Now };
    if leaf.issue_number < seen.server.spec.lowest_issue_number() {
        return Need::Now;
    }
    let same_name = leaf.uri == (wanted.name)(leaf.issue_number).to_string();
    let same_dns = leaf.dns_names == wanted.dns_names;
    if leaf.generation != generation || !same_name || !same_dns || leaf.algorithm != LEAF_ALGORITHM {
        return Need::Now;
    }
    if now >= due(seen, leaf) {
        Need::Now
    } else if now >= may_renew_at(leaf) {
        Need::Along
    } else {
        Need::None
    }
}

/// When a leaf of this server is renewed: as the status has kept it, if it speaks of this very leaf.
#[must_use]
pub fn due(seen: &ObservedSecurityServer, leaf: &LeafFacts) -> Timestamp {
    let status = seen.server.status.as_ref();
    let kept = status.and_then(|status| {
        let authentication = status.leaf.iter().map(|kept| (&kept.serial, kept.renew_at.0));
        let signing = status.signing.iter().map(|kept| (&kept.serial, kept.renew_at.0));
        authentication.chain(signing).find(|(serial, _)| **serial == leaf.serial).map(|(_, at)| at)
    });
    renew_at(leaf, &seen.server.uid().unwrap_or_default(), kept)
}

fn first_due(seen: &ObservedSecurityServer, facts: &IdentityFacts) -> Timestamp {
    let signing = facts.signing.iter().map(|signing| due(seen, &signing.leaf));
    signing.fold(due(seen, &facts.authentication), Timestamp::min)
}

/// Whether a leaf is older than renewal can explain: a third of its life is left.
#[must_use]
pub fn is_overdue(facts: &IdentityFacts, now: Timestamp) -> bool {
    let overdue = |leaf: &LeafFacts| now >= renewal::floor(leaf.not_before, leaf.not_after);
    overdue(&facts.authentication) || facts.signing.iter().any(|signing| overdue(&signing.leaf))
}

/// When the first leaf of an identity ends.
#[must_use]
pub fn ends_at(facts: &IdentityFacts) -> Timestamp {
    let signing = facts.signing.iter().map(|signing| signing.leaf.not_after);
    signing.fold(facts.authentication.not_after, Timestamp::min)
}
