//! What a trust anchor shows of its rotation, and what is decided about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::v1alpha1::trust_anchor::{
    NextStart, Reissuing, ReissuingWave, RotationPhase, RotationStatus, TrustAnchorCounts,
};
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_wire::configuration::{self as wire, InstanceConfiguration, RotationEntry};
use saatkond_wire::identifier::ServerId;

use super::authority::{AuthorityState, retirement};
use super::build::{bundle_hash, registrations};
use super::calendar::{self, Due, Life};
use super::observed::ObservedTrustAnchor;
use crate::meta::is_paused;
use crate::observed::{Published, Stored};
use crate::rotation::waves::{Wave, last_rank, rank, wave};
use crate::rotation::{
    Blocker, Held, Observed, Obstacle, Phase, Process, Receipt, Server, Standing, Step, Wish, blockers,
};
use crate::schedule::{CannotIssue, can_issue, later};
use crate::security_server::processes::{Excluded, counted, receipt};

/// How far the clocks of gateways may be behind the operator's. A certificate that begins now is not announced yet.
pub const SKEW: SignedDuration = SignedDuration::from_secs(60);

/// An anchor of which nothing is published yet: a request that it is declared with is of no authority that there ever was.
#[must_use]
pub(super) fn first(seen: &ObservedTrustAnchor, generation: u64) -> Standing {
    let declared = seen.anchor.spec.rotation.as_ref().and_then(|rotation| rotation.request_id.clone());
    let is_new =
        seen.published == Published::Absent && seen.anchor.status.as_ref().is_none_or(|it| it.bundle.is_none());
    Standing { requests: declared.filter(|_| is_new).into_iter().collect(), ..Standing::first(generation) }
}

/// What is published of the rotation: what the document says, or what the status remembers where that is newer (the document was
/// deleted, or someone put an older one back).
#[must_use]
pub fn standing(seen: &ObservedTrustAnchor) -> Option<Standing> {
    let status = seen.anchor.status.as_ref();
    let version = status.and_then(|status| status.configuration.as_ref()).map_or(0, |it| it.version);
    match seen.published.payload() {
        Some(document) if document.version >= version => Standing::of(document),
        Some(_) | None => {
            let rotation = status?.rotation.as_ref()?;
            Standing::read(&remembered(rotation), rotation.signing_generation)
        }
    }
}

/// Everything that the next step is decided on.
pub(super) fn observed(seen: &ObservedTrustAnchor, standing: Standing, now: Timestamp) -> Observed {
    let document = seen.published.payload();
    let (sequence, hash) = document.map(|it| (it.bundle_sequence, bundle_hash(it))).unwrap_or_default();
    let since = document.map(|it| it.rotation.as_ref().map_or(it.signed_at, |rotation| rotation.since));
    let lifetime = seen.anchor.spec.leaf_policy.max_lifetime.as_signed();
    let fit = |certificate: &AuthorityCertificate| {
        let (begins, ends) = (certificate.not_before(), certificate.not_after());
        let from = later(begins, SKEW);
        match can_issue(begins, ends, lifetime, retirement(&seen.anchor), now) {
            Err(CannotIssue::NotYetValid) => Held::NotBefore(from),
            Err(CannotIssue::Expiring | CannotIssue::Expired) => Held::Unfit,
            Ok(()) if from > now => Held::NotBefore(from),
            Ok(()) if ends.duration_since(now) < now.duration_since(begins) => Held::Short,
            Ok(()) => Held::Good,
        }
    };
    let held = seen.authorities.iter().filter_map(|authority| match &authority.secret {
        Stored::Present(certificate) => Some((authority.generation, fit(certificate))),
        // Its name is taken, so the next one gets another number.
        Stored::Unusable { .. } | Stored::Foreign => Some((authority.generation, Held::Unfit)),
        Stored::Absent => None,
    });
    let wish = wish(seen, &standing, now);
    // Who has stated what is asked only where something waits for it: an anchor is looked at after every change of any member.
    let begins = wish.begin.as_ref().is_some_and(|request| !standing.requests.contains(request))
        || wish.emergency.as_ref().is_some_and(|emergency| emergency.concerns(&standing));
    let quiet = standing.phase == Phase::Stable && !begins;
    let servers = if quiet { Vec::new() } else { registrations(seen).registered };
    Observed {
        sequence,
        since: since.unwrap_or(now),
        held: held.collect(),
        servers: servers.iter().map(|server| self::server(seen, server, &hash, now)).collect(),
        link_issuer: seen.link_leaf.facts().map(|leaf| leaf.generation),
        wish,
        standing,
    }
}

fn wish(seen: &ObservedTrustAnchor, standing: &Standing, now: Timestamp) -> Wish {
    let cancelled = seen.anchor.spec.rotation.as_ref().and_then(|rotation| rotation.cancel.as_ref());
    Wish {
        begin: due(seen, standing, now).filter(|due| due.at <= now).map(|due| due.request),
        cancel: cancelled.is_some() && standing.requests.last() == cancelled,
        paused: is_paused(&*seen.anchor),
        emergency: super::emergency::declared(&seen.anchor, seen.published.payload()),
    }
}

/// The next change, while the key of the authority that issues is at hand.
fn due(seen: &ObservedTrustAnchor, standing: &Standing, now: Timestamp) -> Option<Due> {
    let issuing = seen.authorities.iter().find(|authority| authority.generation == standing.signing)?;
    let facts = issuing.secret.facts()?;
    calendar::due(&seen.anchor, standing, Life { begins: facts.not_before(), ends: facts.not_after() }, now)
}

/// The next change, while none is under way and its time has not come.
pub(super) fn next_start(seen: &ObservedTrustAnchor, authority: &AuthorityState, now: Timestamp) -> Option<NextStart> {
    let standing =
        authority.standing.as_ref().filter(|it| it.phase == Phase::Stable && authority.step == Step::Rest)?;
    let due = due(seen, standing, now).filter(|due| due.at > now)?;
    Some(NextStart { request: due.request, at: Time(due.at) })
}

/// What the status says, given what is published now.
pub(super) fn status(
    document: &InstanceConfiguration,
    authority: &AuthorityState,
    counts: &TrustAnchorCounts,
    turns: &Turns,
    next_start: Option<NextStart>,
) -> Option<RotationStatus> {
    authority.standing.as_ref()?;
    let standing = Standing::of(document)?;
    let since = document.rotation.as_ref().map_or(document.signed_at, |rotation| rotation.since);
    let RotationEntry { phase, other, returning, highest, requests, since } = standing.entry(since);
    let prepares = matches!(&authority.step, Step::Create(_) | Step::Wait { .. });
    let phase = match phase {
        wire::RotationPhase::Stable if prepares => RotationPhase::Preparing,
        wire::RotationPhase::Stable => RotationPhase::Stable,
        wire::RotationPhase::Announcing => RotationPhase::Announcing,
        wire::RotationPhase::Switching => RotationPhase::Switching,
        wire::RotationPhase::Retiring => RotationPhase::Retiring,
        wire::RotationPhase::RollingBack => RotationPhase::RollingBack,
    };
    Some(RotationStatus {
        phase,
        since: Time(since),
        signing_generation: standing.signing,
        other_generation: other,
        returning,
        highest_generation: highest,
        requests,
        acknowledged: format!("{}/{}", counts.receipts_current, counts.processes),
        reissuing: turns.said.clone(),
        next_start,
    })
}

/// Who gets certificates of the authority that issues now.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    /// As the status says it; `None` while no certificates are issued anew in waves.
    said: Option<Reissuing>,
    /// Namespace and name of the servers whose turn has not come.
    later: BTreeSet<(String, String)>,
}

impl Turns {
    /// Whether somebody holds up what goes on now: a server whose turn has not come is not late with its certificates.
    pub(super) fn is_due(&self, blocker: &Blocker) -> bool {
        blocker.obstacle != Obstacle::LeavesNotIssued || !self.later.contains(&blocker.server)
    }
}

/// Whose turn it is, given what is published. A change that is being taken back has no waves: the authority that issues again is known to
/// be good.
pub(super) fn turns(seen: &ObservedTrustAnchor, document: &InstanceConfiguration, now: Timestamp) -> Turns {
    let Some(standing) = document.rotation.as_ref().and_then(|_| Standing::of(document)) else {
        return Turns::default();
    };
    // What may be wrong with the next authority is known not to be as bad.
    if document.emergency.is_some() {
        return Turns::default();
    }
    if !matches!(standing.phase, Phase::Switching { returning: false, .. }) {
        return Turns::default();
    }
    let (hash, registrations) = (bundle_hash(document), registrations(seen));
    let (mut done, mut names) = (BTreeMap::new(), BTreeMap::new());
    for (entry, object) in registrations.servers.iter().zip(&registrations.registered) {
        let server = server(seen, object, &hash, now);
        let on = blockers(&standing, document.bundle_sequence, std::slice::from_ref(&server));
        let rank = rank(standing.signing, &entry.id(&document.instance));
        done.insert(rank.clone(), on.iter().all(|blocker| blocker.obstacle == Obstacle::OldSession));
        names.insert(rank, server.name);
    }
    let known = seen.anchor.status.as_ref().and_then(|status| status.rotation.as_ref());
    let known = known.filter(|it| it.phase == RotationPhase::Switching && it.signing_generation == standing.signing);
    let begun = known.and_then(|it| it.reissuing.as_ref()).map_or(Wave::Canary, |it| match it.wave {
        ReissuingWave::Canary => Wave::Canary,
        ReissuingWave::Tenth => Wave::Tenth,
        ReissuingWave::All => Wave::All,
    });
    let wave = wave(&done, begun);
    let up_to = last_rank(&done, wave);
    let later = names.into_iter().filter(|(rank, _)| up_to.as_ref().is_some_and(|last| rank > last));
    let later = later.map(|(_, name)| name).collect();
    let wave = match wave {
        Wave::Canary => ReissuingWave::Canary,
        Wave::Tenth => ReissuingWave::Tenth,
        Wave::All => ReissuingWave::All,
    };
    Turns { said: Some(Reissuing { wave, up_to }), later }
}

/// Whether a server has its turn, by what the anchor's status says of what is published.
#[must_use]
pub fn has_turn(anchor: &TrustAnchor, document: &InstanceConfiguration, server: &ServerId) -> bool {
    let Some(entry) = &document.rotation else { return true };
    if entry.phase != wire::RotationPhase::Switching || entry.returning || document.emergency.is_some() {
        return true;
    }
    let known = anchor.status.as_ref().and_then(|status| status.rotation.as_ref());
    let known =
        known.filter(|it| it.phase == RotationPhase::Switching && it.signing_generation == document.signing_generation);
    known.and_then(|it| it.reissuing.as_ref()).is_some_and(|it| match &it.up_to {
        None => it.wave == ReissuingWave::All,
        Some(last) => rank(document.signing_generation, server) <= *last,
    })
}

/// How many processes there are, and whom the document that is published waits for: who has not stated to run on its bundle and, while another authority takes over, who
/// still uses the old one.
#[must_use]
pub fn waits_for(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    servers: &[Arc<SecurityServer>],
    now: Timestamp,
) -> (usize, Vec<Blocker>) {
    let hash = bundle_hash(document);
    let servers: Vec<_> = servers.iter().map(|server| self::server(seen, server, &hash, now)).collect();
    let standing = Standing::of(document).unwrap_or_else(|| Standing::first(document.signing_generation));
    let processes = servers.iter().map(|server| server.processes.len()).sum();
    (processes, blockers(&standing, document.bundle_sequence, &servers))
}

/// The reason under which the status names it.
#[must_use]
pub fn reason(obstacle: Obstacle) -> Reason {
    match obstacle {
        Obstacle::NoReceipt => Reason::NoProcess,
        Obstacle::Vanished => Reason::Vanished,
        Obstacle::OtherBundle | Obstacle::OtherLeaf => Reason::ReceiptsPending,
        Obstacle::LeavesNotIssued => Reason::Issuing,
        Obstacle::OldSession => Reason::RotationWaiting,
    }
}

/// What stands in the status, as it stood in the document.
fn remembered(status: &RotationStatus) -> RotationEntry {
    let phase = match status.phase {
        RotationPhase::Stable | RotationPhase::Preparing => wire::RotationPhase::Stable,
        RotationPhase::Announcing => wire::RotationPhase::Announcing,
        RotationPhase::Switching => wire::RotationPhase::Switching,
        RotationPhase::Retiring => wire::RotationPhase::Retiring,
        RotationPhase::RollingBack => wire::RotationPhase::RollingBack,
    };
    RotationEntry {
        phase,
        other: status.other_generation,
        returning: status.returning,
        highest: status.highest_generation,
        requests: status.requests.clone(),
        since: status.since.0,
    }
}

/// A server with all who may run in its name, as far as they are waited for.
fn server(seen: &ObservedTrustAnchor, server: &SecurityServer, hash: &str, now: Timestamp) -> Server {
    let name = (server.namespace().unwrap_or_default(), server.name_any());
    let status = server.status.as_ref();
    let receipts = status.map(|status| status.processes.as_slice()).unwrap_or_default();
    let pods = seen.pods.get(&name).map(Vec::as_slice).unwrap_or_default();
    let excluded = Excluded::of(&seen.anchor, server, now);
    let counted = counted(server, pods, &excluded, now).into_iter().filter(|pod| excluded.waits_for(&pod.uid));
    let processes = counted.map(|pod| Process {
        vanished: pod.vanished_at.is_some(),
        receipt: receipt(receipts, &pod.uid).map(|receipt| Receipt {
            sequence: receipt.bundle_sequence,
            same_bundle: receipt.bundle_hash.trim_start_matches("sha256:") == hash,
            issue_number: receipt.leaf_issue_number,
            sessions: receipt.old_sessions.clone(),
        }),
        pod: pod.uid,
    });
    let leaves = status.into_iter().flat_map(|status| {
        let signing = status.signing.iter().map(|leaf| leaf.issuer_generation);
        status.leaf.iter().map(|leaf| leaf.issuer_generation).chain(signing)
    });
    // A server that is excluded as a whole may be one whose namespace nobody may write in: its certificates are not waited for either.
    let leaves = leaves.filter(|_| !excluded.all);
    Server {
        issue_number: status.and_then(|status| status.issue_number).unwrap_or(0),
        issuers: leaves.collect::<BTreeSet<_>>().into_iter().collect(),
        processes: processes.collect(),
        name,
    }
}
