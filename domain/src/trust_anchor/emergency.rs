//! An authority whose key somebody else may have: what is published of it, and what the status says.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::v1alpha1::trust_anchor::{Emergency as Spec, EmergencyStatus, SourceChoice};
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_wire::configuration::{EmergencyEntry, InstanceConfiguration};

use super::build::Registrations;
use super::observed::ObservedTrustAnchor;
use super::revocations::{MAX_WAITING, unconfirmed};
use super::rotation::waits_for;
use crate::rotation::{Emergency, Standing};

/// The longest list of whoever would fail calls.
const MAX_UNCOVERED: usize = 20;

/// What the spec says, where there is an authority that it can be said of.
pub(super) fn spec(anchor: &TrustAnchor) -> Option<&Spec> {
    let is_managed = matches!(anchor.spec.source.choice(), Some(SourceChoice::Managed(_)));
    anchor.spec.emergency.as_ref().filter(|_| is_managed)
}

/// The generations that a document says to be compromised and that it trusts.
fn published(document: &InstanceConfiguration) -> impl Iterator<Item = u64> {
    let all = document.emergency.iter().flat_map(|it| &it.compromised_generations).copied();
    all.filter(|generation| trusts(document, *generation))
}

fn trusts(document: &InstanceConfiguration, generation: u64) -> bool {
    document.bundle.iter().any(|entry| entry.generation == generation)
}

/// What is declared, or was. A person who takes it out of the spec before its end, or names another authority, takes back whom not to wait for and
/// until when; that an authority is compromised is not taken back while it is trusted: what somebody has minted would be accepted again.
pub(super) fn declared(anchor: &TrustAnchor, document: Option<&InstanceConfiguration>) -> Option<Emergency> {
    let known = document.and_then(|document| published(document).max());
    let is_trusted = |generation| document.is_some_and(|document| trusts(document, generation));
    match (spec(anchor), known) {
        (Some(spec), known) if known.is_none() || is_trusted(spec.compromised_generation) => Some(Emergency {
            compromised: spec.compromised_generation,
            servers: compromised_servers(anchor),
            drop_at: spec.drop_at.as_ref().map(|at| at.0),
        }),
        (_, known) => Some(Emergency { compromised: known?, servers: BTreeSet::new(), drop_at: None }),
    }
}

fn compromised_servers(anchor: &TrustAnchor) -> BTreeSet<(String, String)> {
    let named = spec(anchor).into_iter().flat_map(|spec| &spec.compromised_servers);
    named.map(|it| (it.namespace.clone(), it.name.clone())).collect()
}

/// Puts it into a document that is to be published, with the keys that compromised authorities really have issued certificates for.
pub(super) fn publish(
    document: &mut InstanceConfiguration,
    seen: &ObservedTrustAnchor,
    registered: &[impl AsRef<SecurityServer>],
) {
    let spec = spec(&seen.anchor).map(|spec| spec.compromised_generation);
    let known = seen.published.payload().into_iter().flat_map(published);
    let compromised: BTreeSet<_> = known.chain(spec).filter(|generation| trusts(document, *generation)).collect();
    if compromised.is_empty() {
        return;
    }
    let servers = compromised_servers(&seen.anchor);
    for (entry, server) in document.servers.iter_mut().zip(registered) {
        let server = server.as_ref();
        let place = (server.namespace().unwrap_or_default(), server.name_any());
        // Whoever has these keys as well is refused with them.
        if servers.contains(&place) {
            continue;
        }
        let keys = server.status.iter().flat_map(|status| &status.registered_keys);
        // One that was registered before issuers were noted may be of a compromised one.
        let keys = keys.filter(|key| key.issuer_generation.is_none_or(|issuer| compromised.contains(&issuer)));
        let keys: BTreeSet<_> =
            keys.flat_map(|key| [&key.spki_sha256].into_iter().chain(&key.signing_keys)).cloned().collect();
        entry.issued_keys = keys.into_iter().collect();
    }
    document.emergency = Some(EmergencyEntry { compromised_generations: compromised.into_iter().collect() });
}

/// What the status says. `standing` is what it said before: in which document the emergency was first seen, which no document tells.
pub(super) fn status(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    registrations: &Registrations,
    standing: Option<&EmergencyStatus>,
    now: Timestamp,
) -> Option<EmergencyStatus> {
    let emergency = declared(&seen.anchor, Some(document))?;
    let compromised = emergency.compromised;
    let known = standing.filter(|it| it.compromised_generation == compromised);
    // Declared and not published yet is refused by nobody.
    let is_published = published(document).any(|generation| generation == compromised);
    if !emergency.concerns(&Standing::of(document)?) || !(is_published || known.is_some()) {
        return None;
    }
    let registered = &registrations.registered;
    let instance_version = known.map_or(document.version, |known| known.instance_version);
    let (processes, waiting) = unconfirmed(seen, registered, instance_version, now);
    let (_, on) = waits_for(seen, document, registered, now);
    let named = emergency.servers.iter().map(|(namespace, name)| {
        format!("SecurityServer {namespace}/{name} is named as compromised, and has no certificate that is accepted but a new one")
    });
    let others = on.iter().filter(|blocker| !emergency.servers.contains(&blocker.server)).map(ToString::to_string);
    let uncovered: Vec<_> = named.chain(others).collect();
    Some(EmergencyStatus {
        compromised_generation: compromised,
        instance_version,
        confirmed: format!("{}/{processes}", processes - waiting.len()),
        waiting_for: waiting.into_iter().take(MAX_WAITING).collect(),
        // Every earlier document was signed earlier, and ends no later than this one.
        refused_by: known.map_or(Time(document.expires_at), |known| known.refused_by.clone()),
        uncovered_count: u32::try_from(uncovered.len()).unwrap_or(u32::MAX),
        uncovered: uncovered.into_iter().take(MAX_UNCOVERED).collect(),
    })
}
