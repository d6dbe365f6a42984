//! What is to be done for a member.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use saatkond_api::conditions::Reason;
use saatkond_api::names::finalizer;
use saatkond_api::{Member, TrustAnchor};

use super::observed::ObservedMember;
use crate::admission::{self, Refusal, is_guarded};
use crate::duplicates::age;
use crate::effects::{Failure, FinalizerChange, PlannedEvent};
use crate::meta::{has_finalizer, is_deleting};
use crate::observed::{Candidate, Published};
use crate::schedule::next_check;

/// Everything that is to be done for one member now.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberPlan {
    /// Our finalizer on the Member.
    pub finalizer: FinalizerChange,
    /// Events about what this plan does.
    pub events: Vec<PlannedEvent>,
    /// When to look again, at the latest.
    pub next_check: Timestamp,
}

/// What came of a [`MemberPlan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedMember {
    /// Why it ended early, if it did.
    pub failure: Option<Failure>,
}

/// Decides what is to be done now: the finalizer, so that a member that is registered is taken out of the published
/// configuration before its object goes.
#[must_use]
pub fn plan(seen: &ObservedMember, now: Timestamp) -> MemberPlan {
    let uid = seen.member.uid().unwrap_or_default();
    MemberPlan { finalizer: finalizer_change(seen), events: Vec::new(), next_check: next_check(now, &uid, []) }
}

fn finalizer_change(seen: &ObservedMember) -> FinalizerChange {
    let member = &*seen.member;
    let set = has_finalizer(member, finalizer::MEMBER);
    if is_deleting(member) {
        return if set && is_deregistered(seen) { FinalizerChange::Remove } else { FinalizerChange::Keep };
    }
    // Without rights in the namespace it cannot be set; without a claim that holds it guards nothing.
    let admitted = admission::namespace(&seen.namespace).is_ok() && claim(seen).is_ok_and(|()| rival(seen).is_none());
    if !set && admitted && !seen.namespace.terminating { FinalizerChange::Add } else { FinalizerChange::Keep }
}

/// Whether nothing published speaks of this member any more.
///
/// An anchor that is gone publishes nothing. If another member has taken the identity over, the entry that is left is
/// that one's.
pub(crate) fn is_deregistered(seen: &ObservedMember) -> bool {
    let Some(anchor) = &seen.anchor else { return true };
    let spec = &seen.member.spec;
    let published = seen.instance.payload();
    // It is being deleted, so it is not the holder itself.
    let taken_over = || holder(seen, anchor).is_some_and(|it| is_guarded(&it));
    match &seen.instance {
        Published::Absent | Published::Foreign => true,
        Published::Valid(_) => {
            admission::entry(published, &spec.member_class, &spec.member_code).is_none() || taken_over()
        }
        // What stands there is no document: gateways refuse it too, but hold the last good one. Wait for the repair.
        Published::Invalid { .. } => false,
    }
}

/// Whether the namespace may claim the identity.
pub(crate) fn claim(seen: &ObservedMember) -> Result<(), Refusal> {
    let Some(anchor) = &seen.anchor else {
        let name = &seen.member.spec.trust_anchor_ref.name;
        return Err(Refusal {
            reason: Reason::TrustAnchorNotFound,
            message: format!("TrustAnchor {name} does not exist"),
        });
    };
    let rivals = seen.rivals.iter().filter(|rival| admission::may_hold(anchor, rival)).map(|rival| &*rival.member);
    let registered = admission::is_registered(seen.instance.payload(), &seen.member, rivals);
    let identity = admission::identity(anchor, &seen.member);
    admission::claim(anchor.spec.admission, seen.policy, Some(&seen.namespace), &identity, registered)
}

/// The older member that holds the identity instead of this one.
pub(crate) fn rival(seen: &ObservedMember) -> Option<Arc<Member>> {
    let other = holder(seen, seen.anchor.as_ref()?)?;
    (age(&*other) < age(&*seen.member)).then_some(other)
}

/// Who of this member and all that claim the same holds the identity.
fn holder(seen: &ObservedMember, anchor: &TrustAnchor) -> Option<Arc<Member>> {
    let own = Candidate { member: seen.member.clone(), namespace: Some(seen.namespace.clone()) };
    let all = seen.rivals.iter().chain([&own]);
    Some(admission::holder(anchor, seen.policy, seen.instance.payload(), all)?.member.clone())
}
