//! From statements to conditions, and from changed conditions to events.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use saatkond_api::conditions::{ConditionType, Holds, Reason, Statement, find, update};

use crate::effects::{Failure, PlannedEvent};

/// `Ready`, from the statements that it depends on: the first that does not hold says why.
#[must_use]
pub fn ready(parts: &[Statement], all_is_well: &str) -> Statement {
    match parts.iter().find(|part| part.holds != Holds::True) {
        None => Statement::holds(ConditionType::Ready, all_is_well),
        Some(part) => Statement { condition: ConditionType::Ready, ..part.clone() },
    }
}

/// What a failure to apply says about `condition`.
#[must_use]
pub fn failed(condition: ConditionType, failure: &Failure) -> Statement {
    Statement::fails(condition, failure.reason, failure.message.clone())
}

/// The new conditions, and an event where `Ready` has become true, has ceased to be, or has a reason that a person must
/// hear of. The other conditions explain it and would only repeat it; steps on the way to it are no news.
#[must_use]
pub fn conclude(
    standing: &[Condition],
    statements: &[Statement],
    generation: Option<i64>,
    now: Timestamp,
) -> (Vec<Condition>, Vec<PlannedEvent>) {
    let conditions = update(standing, statements.iter().cloned(), generation, now);
    let before = find(standing, ConditionType::Ready);
    let after = find(&conditions, ConditionType::Ready);
    let changed = after.filter(|after| before.is_none_or(|b| b.status != after.status || b.reason != after.reason));
    let stated = statements.iter().find(|statement| statement.condition == ConditionType::Ready);
    let was_ready = before.is_some_and(|before| before.status == "True");
    let events = match (changed, stated) {
        (Some(_), Some(ready)) if was_ready || ready.holds == Holds::True || needs_a_person(ready.reason) => {
            vec![PlannedEvent {
                warning: ready.holds == Holds::False && needs_a_person(ready.reason),
                reason: ready.reason,
                action: "Observe",
                note: ready.message.clone(),
            }]
        }
        _ => Vec::new(),
    };
    (conditions, events)
}

/// The conditions where the look at the object failed: `Ready` says why, and of the rest nothing new is known.
#[must_use]
pub fn unseen(
    standing: &[Condition],
    failure: &Failure,
    generation: Option<i64>,
    now: Timestamp,
) -> (Vec<Condition>, Vec<PlannedEvent>) {
    let (mut conditions, events) = conclude(standing, &[failed(ConditionType::Ready, failure)], generation, now);
    let ready = ConditionType::Ready.as_str();
    conditions.extend(standing.iter().filter(|condition| condition.type_ != ready).cloned());
    (conditions, events)
}

/// Whether the reason goes away only if somebody does something.
fn needs_a_person(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::AsDeclared
            | Reason::Pending
            | Reason::Paused
            | Reason::Deregistering
            | Reason::Waiting
            | Reason::UpdatePending
            | Reason::TrustAnchorNotReady
            | Reason::Issuing
            | Reason::ReceiptsPending
            | Reason::StartedAlone
            | Reason::NoProcess
            | Reason::PodsNotReady
            | Reason::RollingOut
            | Reason::ScaledToZero
            | Reason::NamespaceTerminating
    )
}

/// Several findings as one message: the first three, and how many more there are.
#[must_use]
pub fn listed(findings: &[String]) -> String {
    let shown = findings.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; ");
    match findings.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn ready_repeats_the_first_that_does_not_hold() {
        let parts = [
            Statement::holds(ConditionType::Admitted, ""),
            Statement::fails(ConditionType::IdentityIssued, Reason::SigningKeyMissing, "no key"),
            Statement::fails(ConditionType::Available, Reason::PodsNotReady, "pods"),
        ];
        let ready = ready(&parts, "well");
        assert_eq!(
            (ready.condition, ready.reason, &*ready.message),
            (ConditionType::Ready, Reason::SigningKeyMissing, "no key")
        );
        assert_eq!(super::ready(&parts[..1], "well").message, "well");
    }

    #[test]
    fn events_come_with_transitions_only() {
        let fails = || vec![Statement::fails(ConditionType::Ready, Reason::IdentityNotAdmitted, "run this")];
        let (conditions, events) = conclude(&[], &fails(), Some(1), at(1));
        assert_eq!(events.len(), 1);
        assert!(events[0].warning);
        let (same, events) = conclude(&conditions, &fails(), Some(1), at(2));
        assert_eq!((same, events.len()), (conditions.clone(), 0));
        let holds = vec![Statement::holds(ConditionType::Ready, "well")];
        let (ready, events) = conclude(&conditions, &holds, Some(1), at(3));
        assert!(!events[0].warning);
        let more = vec![Statement::fails(ConditionType::Ready, Reason::UpdatePending, "subsystem b")];
        assert!(!conclude(&ready, &more, Some(2), at(4)).1[0].warning, "an edit is nothing to warn of");
        // A step on the way is told only to whom it takes something away from.
        let waits = vec![Statement::fails(ConditionType::Ready, Reason::PodsNotReady, "0 of 1")];
        assert!(conclude(&[], &waits, Some(1), at(4)).1.is_empty());
        assert!(conclude(&conditions, &waits, Some(1), at(4)).1.is_empty());
        let (_, events) = conclude(&ready, &waits, Some(1), at(4));
        assert!(events.len() == 1 && !events[0].warning);
    }

    #[test]
    fn a_look_that_failed_leaves_what_was_known() {
        let known = [
            Statement::holds(ConditionType::Ready, "well"),
            Statement::holds(ConditionType::Admitted, "it may"),
            Statement::fails(ConditionType::Available, Reason::PodsNotReady, "0 of 1"),
        ];
        let (standing, _) = conclude(&[], &known, Some(1), at(1));
        let refused = Failure { reason: Reason::Forbidden, message: "list pods: forbidden".into() };
        let (conditions, events) = unseen(&standing, &refused, Some(2), at(2));
        assert_eq!((conditions.len(), &conditions[1..]), (3, &standing[1..]));
        assert_eq!((&*conditions[0].reason, conditions[0].observed_generation), ("Forbidden", Some(2)));
        assert!(events.len() == 1 && events[0].warning);
        let (again, events) = unseen(&conditions, &refused, Some(2), at(3));
        assert_eq!((again, events.len()), (conditions, 0));
    }

    #[test]
    fn long_lists_are_counted() {
        let findings: Vec<String> = ["a", "b", "c", "d", "e"].map(Into::into).into();
        assert_eq!(listed(&findings[..3]), "a; b; c");
        assert_eq!(listed(&findings), "a; b; c; and 2 more");
    }
}
