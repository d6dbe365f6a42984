//! The authorities that were ever trusted. A retired one is gone from every handshake, its key is deleted, and what was signed under it must
//! be verifiable all the same.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use saatkond_api::v1alpha1::trust_anchor::PastAuthority;
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_wire::configuration::InstanceConfiguration;

use super::observed::ObservedTrustAnchor;
use crate::schedule::whole_seconds;

/// The longest history.
const MAX_HISTORY: usize = 64;

/// What the status says of them: what it said before, whatever is published, and whatever was announced and withdrawn before a status
/// could be written of it, as long as its key is there.
pub(super) fn history(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    standing: &[PastAuthority],
    now: Timestamp,
) -> Vec<PastAuthority> {
    let now = Time(whole_seconds(now));
    let mut history = standing.to_vec();
    let mut add = |generation, certificate: String, until: Option<&Time>| {
        if !history.iter().any(|known| known.certificate == certificate) {
            let (trusted_since, trusted_until) = (now.clone(), until.cloned());
            let compromised_since = None;
            history.push(PastAuthority { generation, certificate, trusted_since, trusted_until, compromised_since });
        }
    };
    for entry in &document.bundle {
        add(entry.generation, entry.certificate.clone(), None);
    }
    let highest = super::rotation::standing(seen).map_or(0, |standing| standing.highest);
    for authority in seen.authorities.iter().filter(|authority| authority.generation <= highest) {
        if let Some(certificate) = authority.secret.facts() {
            add(authority.generation, certificate.to_pem(), Some(&now));
        }
    }
    for known in &mut history {
        let is_trusted = document.bundle.iter().any(|entry| entry.certificate == known.certificate);
        match (is_trusted, &known.trusted_until) {
            (true, Some(_)) => known.trusted_until = None,
            (false, None) => known.trusted_until = Some(now.clone()),
            _ => {}
        }
    }
    // What is known of it is not forgotten with the spec that said it.
    let emergency = super::emergency::spec(&seen.anchor);
    for known in
        history.iter_mut().filter(|known| emergency.is_some_and(|it| it.compromised_generation == known.generation))
    {
        known.compromised_since = emergency.map(|it| it.compromised_since.clone());
    }
    history.sort_by_key(|past| past.generation);
    let over = history.len().saturating_sub(MAX_HISTORY);
    history.drain(..over);
    history
}

/// The number under which a certificate stands in it.
pub(super) fn generation(seen: &ObservedTrustAnchor, certificate: &AuthorityCertificate) -> Option<u64> {
    let pem = certificate.to_pem();
    known(seen).find(|known| known.certificate == pem).map(|known| known.generation)
}

/// All numbers in it.
pub(super) fn generations(seen: &ObservedTrustAnchor) -> impl Iterator<Item = u64> {
    known(seen).map(|known| known.generation)
}

fn known(seen: &ObservedTrustAnchor) -> impl Iterator<Item = &PastAuthority> {
    seen.anchor.status.iter().flat_map(|status| &status.history)
}
