//! The one next step of a rotation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::guards::{Blocker, Server, blockers};
use super::standing::{Phase, Standing};
use crate::schedule::later;

/// How long a phase lasts at least where no process counts: "all have stated it" is true of nobody, and the first pods may be on
/// their way.
pub const NOBODY: SignedDuration = SignedDuration::from_secs(60);

/// Everything that a decision about a rotation is made from. For a step that a guard allows, all of it is read from the API server
/// itself right before the write.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What is published.
    pub standing: Standing,
    /// Under which sequence.
    pub sequence: u64,
    /// Since when the phase is published.
    pub since: Timestamp,
    /// The authorities whose keys are at hand, by generation.
    pub held: BTreeMap<u64, Held>,
    /// Every registered server.
    pub servers: Vec<Server>,
    /// The generation that issued the link's own leaf.
    pub link_issuer: Option<u64>,
    /// What is asked for.
    pub wish: Wish,
}

/// An authority whose key is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// It can issue, for most of its life.
    Good,
    /// Its certificate begins at this time, what clocks differ counted in.
    NotBefore(Timestamp),
    /// It can issue, and is too old to begin with.
    Short,
    /// It cannot issue any more.
    Unfit,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// The request under which a change should begin. One that has been taken up already does not begin again.
    pub begin: Option<String>,
    /// The change under way should be undone.
    pub cancel: bool,
    /// Nothing that the spec asks for is to be done now.
    pub paused: bool,
    /// Somebody else may have the key of an authority.
    pub emergency: Option<Emergency>,
}

/// An authority that is compromised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emergency {
    /// Its generation.
    pub compromised: u64,
    /// Namespace and name of the servers whose keys are compromised as well: nobody waits for them.
    pub servers: BTreeSet<(String, String)>,
    /// When it is to be dropped.
    pub drop_at: Option<Timestamp>,
}

/// How long before an authority is to be dropped the next one issues at the latest: kubelets take a minute to refresh a mounted Secret, and
/// one who is not ready must not take all others along.
const LEAD: SignedDuration = SignedDuration::from_mins(10);
/// How long an announcement lasts at least before somebody is passed over: processes that are well state it within seconds.
const ANNOUNCED: SignedDuration = SignedDuration::from_secs(60);
/// How long certificates are issued anew at least before the old authority is dropped.
const REISSUED: SignedDuration = SignedDuration::from_mins(2);

impl Emergency {
    /// The change to another authority that it calls for.
    fn request(standing: &Standing) -> String {
        format!("emergency-{}", standing.highest + 1)
    }

    /// From when on the phase that is published since then waits for nobody.
    fn patience(&self, phase: Phase, since: Timestamp) -> Option<Timestamp> {
        let drop_at = self.drop_at?;
        Some(match phase {
            Phase::Announcing { .. } => later(drop_at, SignedDuration::ZERO - LEAD).max(later(since, ANNOUNCED)),
            Phase::Switching { .. } => drop_at.max(later(since, REISSUED)),
            Phase::Stable | Phase::Retiring { .. } | Phase::RollingBack { .. } => drop_at,
        })
    }

    /// Whether the compromised authority is of concern to what is published: it is trusted, or its end is not stated by all.
    #[must_use]
    pub fn concerns(&self, standing: &Standing) -> bool {
        let beside = match standing.phase {
            Phase::Stable => None,
            Phase::Announcing { next } => Some(next),
            Phase::Switching { old, .. } | Phase::Retiring { old, .. } => Some(old),
            Phase::RollingBack { withdrawn } => Some(withdrawn),
        };
        [Some(standing.signing), beside].contains(&Some(self.compromised))
    }

    /// Whether the change under way leads to the compromised authority, and is to be taken back.
    fn takes_back(&self, standing: &Standing) -> bool {
        match standing.phase {
            Phase::Announcing { next } => next == self.compromised,
            Phase::Switching { returning: false, .. } | Phase::Retiring { returning: false, .. } => {
                standing.signing == self.compromised
            }
            Phase::Stable | Phase::Switching { .. } | Phase::Retiring { .. } | Phase::RollingBack { .. } => false,
        }
    }
}

/// What is to be done now: one thing.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// The authority of this generation is made.
    Create(u64),
    /// This is published.
    Publish(Standing),
    /// The key of an authority that will never issue again is deleted.
    Destroy(u64),
    /// Somebody, or a time, is waited for.
    Wait {
        /// Who.
        on: Vec<Blocker>,
        /// Until when, if for a time.
        until: Option<Timestamp>,
    },
    /// The key of this generation should issue next and is not at hand. Nothing goes on until it is restored or the change is
    /// cancelled: a signer without a key would leave every leaf to run out.
    KeyMissing(u64),
}

/// Decides.
#[must_use]
pub fn next_step(seen: &Observed, now: Timestamp) -> Step {
    let standing = &seen.standing;
    // What was announced once and is no longer trusted never issues again: its key is only a danger. One with a higher number was
    // made and not announced, and is the next to be.
    let bundle = standing.bundle();
    if standing.phase == Phase::Stable
        && let Some(over) = seen.held.keys().find(|held| **held <= standing.highest && !bundle.contains(held))
    {
        return Step::Destroy(*over);
    }
    let blocking = waited_for(seen, now);
    if let Some(back) = undone(seen, &blocking, now) {
        return publish(seen, back);
    }
    if standing.phase == Phase::Stable {
        return begin(seen, blocking, now);
    }
    if seen.wish.paused && seen.emergency().is_none() {
        return Step::Rest;
    }
    if let Some(wait) = wait(seen, blocking, now) {
        return wait;
    }
    // Gateways that trust the old authority no more could not reach the link to say so. Its leaf is issued by the same plan.
    if matches!(standing.phase, Phase::Switching { old, .. } if seen.link_issuer == Some(old)) {
        return Step::Rest;
    }
    standing.advance().map_or(Step::Rest, |next| publish(seen, next))
}

impl Observed {
    /// The emergency, while it is of concern.
    fn emergency(&self) -> Option<&Emergency> {
        self.wish.emergency.as_ref().filter(|emergency| emergency.concerns(&self.standing))
    }
}

/// Whom the phase waits for. Only what a person says of an emergency, and whom one excludes, cuts a wait short.
fn waited_for(seen: &Observed, now: Timestamp) -> Vec<Blocker> {
    let mut blocking = blockers(&seen.standing, seen.sequence, &seen.servers);
    if let Some(emergency) = seen.emergency() {
        let is_over = emergency.patience(seen.standing.phase, seen.since).is_some_and(|until| until <= now);
        blocking.retain(|blocker| !is_over && !emergency.servers.contains(&blocker.server));
    }
    blocking
}

/// Publishes it if whoever issues then can.
fn publish(seen: &Observed, next: Standing) -> Step {
    let can =
        next.signing == seen.standing.signing || seen.held.get(&next.signing).is_some_and(|held| *held != Held::Unfit);
    if can { Step::Publish(next) } else { Step::KeyMissing(next.signing) }
}

/// The way back, if it is asked for and safe. An authority that is announced has issued nothing, and one that is being retired may
/// be trusted again at any time; but the old one may issue again only when everyone is known to trust both *now*: after it had
/// been retired and trusted again, some may not yet.
fn undone(seen: &Observed, blocking: &[Blocker], now: Timestamp) -> Option<Standing> {
    use super::guards::Obstacle::{LeavesNotIssued, OldSession, OtherLeaf};
    // Not to an authority that somebody else may issue with.
    let wished = seen.emergency().map_or(seen.wish.cancel, |emergency| emergency.takes_back(&seen.standing));
    if !wished {
        return None;
    }
    let about_leaves = |blocker: &Blocker| matches!(blocker.obstacle, LeavesNotIssued | OtherLeaf | OldSession);
    let all_trust_both = || blocking.iter().all(about_leaves) && nobody_until(seen, now).is_none();
    match seen.standing.phase {
        Phase::Switching { .. } if !all_trust_both() => None,
        _ => seen.standing.cancel(),
    }
}

fn begin(seen: &Observed, blocking: Vec<Blocker>, now: Timestamp) -> Step {
    let standing = &seen.standing;
    let emergency = seen.emergency().map(|_| Emergency::request(standing));
    let is_emergency = emergency.is_some();
    let begin = emergency.as_ref().or(seen.wish.begin.as_ref());
    let Some(request) = begin.filter(|request| !standing.requests.contains(request)) else {
        return Step::Rest;
    };
    if seen.wish.paused && !is_emergency {
        return Step::Rest;
    }
    // The bundle of the last change must be everywhere before the next one begins: two are trusted at a time, not three. In Stable
    // everyone has stated it once, and an emergency waits for nobody to state it again.
    if let Some(wait) = wait(seen, blocking, now).filter(|_| !is_emergency) {
        return wait;
    }
    // The lowest that was never announced: made by one that died before it announced it.
    let mut made = seen.held.iter().filter(|(generation, _)| **generation > standing.highest);
    let Some((next, fit)) = made.find(|(_, fit)| matches!(fit, Held::Good | Held::NotBefore(_))) else {
        let above = seen.held.keys().max().copied().unwrap_or(0).max(standing.highest);
        return Step::Create(above + 1);
    };
    match fit {
        Held::NotBefore(at) if *at > now => Step::Wait { on: Vec::new(), until: Some(*at) },
        _ => Step::Publish(standing.announce(*next, request.clone())),
    }
}

fn wait(seen: &Observed, on: Vec<Blocker>, now: Timestamp) -> Option<Step> {
    let nobody = nobody_until(seen, now);
    let patience = seen.emergency().and_then(|emergency| emergency.patience(seen.standing.phase, seen.since));
    let until = nobody.or(patience.filter(|until| *until > now));
    (!on.is_empty() || nobody.is_some()).then_some(Step::Wait { on, until })
}

/// Until when the phase lasts because no process counts.
fn nobody_until(seen: &Observed, now: Timestamp) -> Option<Timestamp> {
    let nobody = seen.servers.iter().all(|server| server.processes.is_empty());
    let until = later(seen.since, NOBODY);
    (nobody && now < until).then_some(until)
}
