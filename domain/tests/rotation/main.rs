//! The decision about a rotation, explored through every order of events that three processes, an operator that may die or be slow,
//! and a person can make of it; and with each rule of the protocol broken, to see that the search would find out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod model;
mod search;
mod trust;

use model::{Limits, Model, Rule};
use search::{Found, explore};

/// One change; three processes come and go as they like.
const ONE: Limits =
    Limits { processes: 3, changes: 1, cancels: 0, emergencies: 0, slow: false, restarts: false, sessions: false };

/// The same with two, where three are for `make crash`: millions of states.
fn two_or_three() -> Limits {
    let deep = std::env::var("SAATKOND_CRASH").is_ok_and(|mode| mode == "deep");
    Limits { processes: if deep { 3 } else { 2 }, ..ONE }
}

fn holds(name: &str, limits: Limits) {
    match explore(&Model::new(limits, None)) {
        Found::Nothing { states, ends } => {
            println!("{name}: {states} states, 0 violations");
            assert!(ends > 0, "{name}: no run completes its changes");
        }
        Found::Violation { states, what, trace } => panic!("{name}, state {states}: {what}\n  {}", trace.join("\n  ")),
    }
}

fn caught(rule: Rule, limits: Limits) {
    match explore(&Model::new(limits, Some(rule))) {
        Found::Nothing { states, .. } => panic!("{rule:?} broken, and nobody notices in {states} states"),
        Found::Violation { states, what, trace } => {
            println!("{rule:?} broken: found in {states} states, {} steps: {what}: {}", trace.len(), trace.join("; "));
        }
    }
}

#[test]
fn two_changes_one_after_the_other() {
    holds("two changes", Limits { changes: 2, ..ONE });
}

#[test]
fn an_operator_that_writes_late() {
    holds("late writes", Limits { slow: true, ..ONE });
}

#[test]
fn a_change_that_is_cancelled_at_any_time() {
    holds("cancelled", Limits { cancels: 2, ..two_or_three() });
}

#[test]
fn an_authority_that_is_compromised_at_any_time() {
    holds("emergency", Limits { emergencies: 1, cancels: 1, ..two_or_three() });
}

#[test]
fn containers_that_restart_in_place() {
    holds("restarts", Limits { restarts: true, ..ONE });
}

#[test]
fn sessions_that_outlive_leaves() {
    holds("sessions", Limits { processes: 2, cancels: 1, sessions: true, ..ONE });
}

#[test]
fn every_rule_is_needed() {
    let late = Limits { slow: true, ..two_or_three() };
    let cancelled = Limits { cancels: 1, ..two_or_three() };
    let restarted = Limits { restarts: true, ..ONE };
    let connected = Limits { processes: 2, sessions: true, ..ONE };
    for (rule, limits) in [
        (Rule::AnnounceBeforeUse, ONE),
        (Rule::TrustReceipts, ONE),
        (Rule::LoadedNotStored, ONE),
        (Rule::MissingIsNotLoaded, ONE),
        (Rule::TerminatingCount, ONE),
        (Rule::PendingCount, ONE),
        (Rule::DropAfterUnused, ONE),
        (Rule::RetireReceipts, ONE),
        (Rule::StartBarrier, ONE),
        (Rule::Alone, ONE),
        (Rule::LeafOfTheSigner, ONE),
        (Rule::SwitchIsPublished, ONE),
        (Rule::WriteIfUnchanged, late),
        (Rule::SequenceNotContent, cancelled),
        (Rule::CancelNeedsReceipts, cancelled),
        (Rule::SavedBeforeReceipt, restarted),
        (Rule::SessionsEnd, connected),
    ] {
        caught(rule, limits);
    }
}
