//! Which authorities a trust anchor has: what is trusted, what issues, and what has to be made.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::names::{ca_secret, role};
use saatkond_api::v1alpha1::trust_anchor::{
    AuthorityStatus, DEFAULT_RETIREMENT, ExternalSource, SourceChoice, TrustAnchorStatus,
};
use saatkond_pki::authority::AuthorityCertificate;

use super::history;
use super::keys::what_to_do;
use super::observed::{ObservedSigningKey, ObservedTrustAnchor};
use crate::meta::is_paused;
use crate::observed::{Published, Stored};
use crate::rotation::{Standing, Step, next_step};
use crate::schedule::{CannotIssue, can_issue};

/// What is concluded about a trust anchor's authorities.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityState {
    /// What is trusted: certificates by generation.
    pub bundle: BTreeMap<u64, AuthorityCertificate>,
    /// The generation that documents name as the one that issues.
    pub signing: Option<u64>,
    /// Whether that generation's key is at hand and its certificate lets it issue now.
    pub can_issue: bool,
    /// What is to be published of a managed authority's rotation.
    pub standing: Option<Standing>,
    /// What was decided about a managed authority. The first one is made only where no trace of any is left.
    pub step: Step,
    /// What is wrong, for machines and people.
    pub problem: Option<(Reason, String)>,
    /// Name of a Secret that stands in the way.
    pub foreign: Option<String>,
}

/// How long before an authority ends the last leaf under it ends.
#[must_use]
pub fn retirement(anchor: &saatkond_api::TrustAnchor) -> jiff::SignedDuration {
    match anchor.spec.source.choice() {
        Some(SourceChoice::Managed(managed)) => managed.retirement.as_signed(),
        Some(SourceChoice::External(_)) | None => DEFAULT_RETIREMENT.as_signed(),
    }
}

/// Concludes from what was seen.
#[must_use]
pub fn state(seen: &ObservedTrustAnchor, now: Timestamp) -> AuthorityState {
    let mut state = match seen.anchor.spec.source.choice() {
        Some(SourceChoice::Managed(_)) => rotated(seen, managed(seen), now),
        Some(SourceChoice::External(external)) => from_outside(seen, external, now),
        None => AuthorityState {
            problem: Some((
                Reason::InvalidSpec,
                "spec.source must have exactly one of managed and external".to_owned(),
            )),
            ..published(seen)
        },
    };
    prune(&mut state, now);
    judge_issuing(&mut state, seen, now);
    state
}

/// What the published document says, with nothing at hand.
fn published(seen: &ObservedTrustAnchor) -> AuthorityState {
    let document = seen.published.payload();
    let entries = document.map(|document| document.bundle.as_slice()).unwrap_or_default();
    let parse = |pem: &str| AuthorityCertificate::from_pem(pem).ok();
    AuthorityState {
        bundle: entries.iter().filter_map(|e| Some((e.generation, parse(&e.certificate)?))).collect(),
        signing: document.map(|document| document.signing_generation),
        can_issue: false,
        standing: None,
        step: Step::Rest,
        problem: None,
        foreign: None,
    }
}

pub(super) fn remembers(status: Option<&TrustAnchorStatus>) -> bool {
    status.is_some_and(|s| s.bundle.is_some() || s.configuration.is_some() || !s.authorities.is_empty())
}

/// The authority that Saatkond makes. Rule: generation 1 is made only if there is no trace of any authority, in a
/// Secret, a published document or the status. A Secret that got lost must never become a new root silently: every
/// gateway would go on trusting the old one and refuse what the new one signs.
fn managed(seen: &ObservedTrustAnchor) -> AuthorityState {
    let anchor = seen.anchor.name_any();
    let mut state = published(seen);
    let standing = |g: u64| seen.authorities.iter().find(|a| a.generation == g).map_or(&Stored::Absent, |a| &a.secret);
    let any_secret = seen.authorities.iter().any(|authority| authority.secret != Stored::Absent);
    let published = !matches!(seen.published, Published::Absent | Published::Foreign);
    let known = published || remembers(seen.anchor.status.as_ref());
    let traced = any_secret || known;
    let generation = match state.signing {
        Some(generation) => generation,
        // Nothing is published yet: the lowest that is there, so that a crash between making and publishing is no loss.
        None => seen
            .authorities
            .iter()
            .filter(|authority| authority.secret.facts().is_some())
            .map(|authority| authority.generation)
            .min()
            .unwrap_or(1),
    };
    let name = ca_secret(&anchor, generation);
    let lost = |why: String| Some((Reason::AuthorityLost, why));
    match standing(generation) {
        Stored::Present(certificate) => match state.bundle.get(&generation) {
            Some(trusted) if trusted.sha256() != certificate.sha256() => {
                state.problem = lost(format!(
                    "Secret {name} holds another certificate than the published one of generation {generation}; restore it from a backup"
                ));
            }
            Some(_) => state.can_issue = true,
            None => {
                state.bundle.insert(generation, certificate.clone());
                state.signing = Some(generation);
                state.can_issue = true;
            }
        },
        Stored::Foreign => {
            state.problem = Some((
                Reason::ForeignObject,
                format!(
                    "Secret {name} exists and is not known as ours; {}",
                    what_to_do(&seen.anchor, role::AUTHORITY, known)
                ),
            ));
            state.foreign = Some(name);
        }
        Stored::Unusable { why, resource_version: _ } => {
            state.problem = lost(format!("Secret {name} cannot be used: {why}; restore it from a backup"));
        }
        Stored::Absent if traced => {
            state.problem = lost(format!(
                "Secret {name} with the authority's key is gone, and no other is made in its place; restore it from a backup"
            ));
        }
        Stored::Absent => state.step = Step::Create(1),
    }
    state
}

/// The managed authority after the next step of its rotation, where one can be taken.
fn rotated(seen: &ObservedTrustAnchor, mut state: AuthorityState, now: Timestamp) -> AuthorityState {
    let Some(generation) = state.signing else { return state };
    let standing = super::rotation::standing(seen).unwrap_or_else(|| super::rotation::first(seen, generation));
    // Without the key that should issue there is nothing to change from; it has been said what is to be done.
    let step = match &state.problem {
        None => next_step(&super::rotation::observed(seen, standing.clone(), now), now),
        Some(_) => Step::Rest,
    };
    let target = if let Step::Publish(target) = &step { target } else { &standing };
    let held = |generation: u64| {
        seen.authorities.iter().find(|authority| authority.generation == generation).and_then(|it| it.secret.facts())
    };
    let trusted: BTreeMap<_, _> = target
        .bundle()
        .into_iter()
        .filter_map(|generation| {
            Some((generation, state.bundle.get(&generation).or_else(|| held(generation))?.clone()))
        })
        .collect();
    if trusted.len() < target.bundle().len() {
        let missing =
            target.bundle().into_iter().find(|generation| !trusted.contains_key(generation)).unwrap_or_default();
        let name = ca_secret(&seen.anchor.name_any(), missing);
        let why = format!(
            "the certificate of generation {missing} is gone, and Secret {name} with it; restore it from a backup"
        );
        state.problem.get_or_insert((Reason::AuthorityLost, why));
        return AuthorityState { step: Step::Rest, standing: Some(standing), ..state };
    }
    if let Step::KeyMissing(generation) = &step {
        let name = ca_secret(&seen.anchor.name_any(), *generation);
        let why = format!(
            "Secret {name} with the key that should issue next is gone; restore it from a backup, or set spec.rotation.cancel"
        );
        state.problem = Some((Reason::AuthorityLost, why));
    }
    AuthorityState {
        can_issue: state.can_issue && (target.signing == generation || held(target.signing).is_some()),
        signing: Some(target.signing),
        bundle: trusted,
        standing: Some(target.clone()),
        step,
        ..state
    }
}

/// Whether a status tells of this certificate.
fn is_of(status: &AuthorityStatus, certificate: &AuthorityCertificate) -> bool {
    let facts = certificate.facts();
    status.serial == facts.serial && status.ski == key_id(certificate) && status.not_after.0 == facts.not_after
}

/// The subject key identifier as a status tells it.
pub(super) fn key_id(certificate: &AuthorityCertificate) -> String {
    certificate.facts().subject_key_id.as_deref().map(hex::encode).unwrap_or_default()
}

/// An authority that exists elsewhere: the certificates in the spec, the key where the spec says.
fn from_outside(seen: &ObservedTrustAnchor, external: &ExternalSource, now: Timestamp) -> AuthorityState {
    let before = published(seen);
    let remembered = || seen.anchor.status.iter().flat_map(|status| &status.authorities);
    // One that was taken off the list keeps its number.
    let past = history::generations(seen);
    let numbers = before.bundle.keys().copied().chain(remembered().map(|a| a.generation)).chain(past);
    let mut highest = numbers.max().unwrap_or(0);
    let mut bundle = BTreeMap::new();
    let mut problem = None;
    let mut declared = Vec::new();
    for (pem, number) in external.certificates.iter().zip(1..) {
        match AuthorityCertificate::from_pem(pem) {
            Ok(certificate) => declared.push(certificate),
            Err(error) => {
                let why = format!("certificate {number} of spec.source.external cannot be used: {error}");
                problem.get_or_insert((Reason::CertificateInvalid, why));
            }
        }
    }
    let whole = problem.is_none() && !declared.is_empty();
    if before.bundle.is_empty() && !whole {
        // Nothing is published that could stay, and a part of the list would be announced as the whole of it.
        return AuthorityState { problem, ..before };
    }
    // A list with an entry that cannot be read waits as that of a paused anchor does: the entry may be one that is
    // published, and every peer under that authority would be refused.
    if !before.bundle.is_empty() && (is_paused(&*seen.anchor) || !whole) {
        bundle.clone_from(&before.bundle);
    } else {
        for certificate in &declared {
            let known = before.bundle.iter().find(|(_, old)| old.sha256() == certificate.sha256());
            let known = known.map(|(generation, _)| *generation).or_else(|| {
                // Not published yet, or lost with its document: under another number every leaf would be issued anew.
                let known = remembered().find(|status| is_of(status, certificate)).map(|status| status.generation);
                known.or_else(|| history::generation(seen, certificate))
            });
            let listed = bundle.values().any(|other: &AuthorityCertificate| other.sha256() == certificate.sha256());
            if !listed {
                let generation = known.unwrap_or(highest + 1);
                highest = highest.max(generation);
                bundle.insert(generation, certificate.clone());
            }
        }
    }
    let at_hand = match &seen.signing_key {
        ObservedSigningKey::Present { spki_sha256 } => {
            let of_key = |c: &AuthorityCertificate| c.facts().spki_sha256.to_string() == *spki_sha256;
            // One that is kept and that the spec does not hold cannot issue: beside its key there is no certificate.
            let mut usable = bundle.iter().filter(|(_, certificate)| declared.contains(certificate));
            let found = usable.find(|(_, certificate)| of_key(certificate)).map(|(generation, _)| *generation);
            if found.is_none() {
                let why = "the key in signingKeySecretRef belongs to none of the certificates in spec.source.external";
                problem.get_or_insert((Reason::SigningKeyMismatch, why.to_owned()));
            }
            found
        }
        ObservedSigningKey::NotNamed => {
            let why = "spec.source.external.signingKeySecretRef is not set: nothing can be issued here, servers keep \
                       the certificates they have";
            problem.get_or_insert((Reason::SigningKeyMissing, why.to_owned()));
            None
        }
        ObservedSigningKey::Absent => {
            let why = "the Secret in spec.source.external.signingKeySecretRef, or its entry tls.key, does not exist in \
                       the operator's namespace";
            problem.get_or_insert((Reason::SigningKeyMissing, why.to_owned()));
            None
        }
        ObservedSigningKey::Unusable { why } => {
            let why = format!("the key in spec.source.external.signingKeySecretRef cannot be used: {why}");
            problem.get_or_insert((Reason::SigningKeyMismatch, why));
            None
        }
    };
    let old = before.signing.filter(|generation| bundle.contains_key(generation));
    let signing = match (old, at_hand) {
        (Some(old), Some(new)) if old != new && !may_switch(seen, new, now) => old,
        (_, Some(new)) => new,
        (Some(old), None) => old,
        // The bundle is not empty.
        (None, None) => bundle.keys().next().copied().unwrap_or(1),
    };
    AuthorityState {
        can_issue: at_hand == Some(signing),
        signing: Some(signing),
        bundle,
        standing: None,
        step: Step::Rest,
        problem,
        foreign: None,
    }
}

/// Announce before use (INV-1): another generation may issue only when every process has stated that it runs on a
/// published bundle that holds it. Whom a change of a managed authority waits for, that waits for the same.
fn may_switch(seen: &ObservedTrustAnchor, generation: u64, now: Timestamp) -> bool {
    let Some(document) = seen.published.payload() else { return true };
    document.bundle.iter().any(|entry| entry.generation == generation)
        && super::rotation::waits_for(seen, document, &super::build::registrations(seen).registered, now).1.is_empty()
}

/// An authority that has expired is taken out, its leaves ended before it did. The last one stays: an empty bundle
/// trusts nobody and hides why.
fn prune(state: &mut AuthorityState, now: Timestamp) {
    let expired = |certificate: &AuthorityCertificate| certificate.not_after() < now;
    if state.bundle.values().any(|certificate| !expired(certificate)) {
        let signing = state.signing;
        state.bundle.retain(|generation, certificate| !expired(certificate) || Some(*generation) == signing);
    }
}

/// Whether the authority that should issue can, by its dates.
fn judge_issuing(state: &mut AuthorityState, seen: &ObservedTrustAnchor, now: Timestamp) {
    let Some(certificate) = state.signing.and_then(|generation| state.bundle.get(&generation)) else {
        state.can_issue = false;
        return;
    };
    let lifetime = seen.anchor.spec.leaf_policy.max_lifetime.as_signed();
    let (begins, ends) = (certificate.not_before(), certificate.not_after());
    let verdict = can_issue(begins, ends, lifetime, retirement(&seen.anchor), now);
    let (reason, message) = match verdict {
        Ok(()) => return,
        Err(CannotIssue::NotYetValid) => {
            (Reason::CertificateInvalid, format!("the authority's certificate is not valid before {begins}"))
        }
        Err(CannotIssue::Expiring) => (
            Reason::AuthorityExpiring,
            format!(
                "the authority's certificate ends at {ends}: too soon to issue another certificate under it; servers keep those they have"
            ),
        ),
        Err(CannotIssue::Expired) => {
            (Reason::AuthorityExpired, format!("the authority's certificate has ended at {ends}"))
        }
    };
    state.can_issue = false;
    state.problem = Some((reason, message));
}
