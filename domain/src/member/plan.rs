//! What is to be done for a member.

use jiff::Timestamp;

use crate::effects::{Failure, FinalizerChange, PlannedEvent};

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
