//! What is counted of the calls, while they are made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Failures that are kept to be shown. All are counted.
const SHOWN: usize = 20;

/// Shared by all callers.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    in_rotation: AtomicU64,
    new: AtomicU64,
    old: AtomicU64,
    failures: AtomicU64,
    shown: Mutex<Vec<String>>,
    pairs: Mutex<BTreeMap<String, u64>>,
    /// How many times the phase has changed.
    phases: AtomicU64,
    rotating: AtomicBool,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls that were made.
    pub requests: u64,
    /// Of them, between the announcement of an authority and the end of the change.
    pub in_rotation: u64,
    /// Over a connection that was opened for this call.
    pub new: u64,
    /// Over one that has outlived a phase.
    pub old: u64,
    /// Not answered as they must be.
    pub failures: u64,
    /// Of the ordered pair of members with the fewest.
    pub fewest_of_a_pair: u64,
}

impl Tally {
    /// The phase has changed; `rotating` from the announcement to the end.
    pub fn phase(&self, rotating: bool) {
        self.phases.fetch_add(1, Ordering::Relaxed);
        self.rotating.store(rotating, Ordering::Relaxed);
    }

    /// How many times it has.
    #[must_use]
    pub fn phases(&self) -> u64 {
        self.phases.load(Ordering::Relaxed)
    }

    /// Whether an authority is being replaced.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.rotating.load(Ordering::Relaxed)
    }

    /// A call was made over a connection that was opened at this count of phases; `None`: for it.
    pub fn call(&self, pair: &str, opened: Option<u64>, rotating: bool, failure: Option<String>) {
        let add = |to: &AtomicU64, condition: bool| to.fetch_add(u64::from(condition), Ordering::Relaxed);
        add(&self.requests, true);
        add(&self.in_rotation, rotating);
        add(&self.new, opened.is_none());
        // The first change ends the phase that it was opened in, the second one a phase that it has seen whole.
        add(&self.old, opened.is_some_and(|opened| self.phases() >= opened + 2));
        *self.pairs.lock().unwrap_or_else(PoisonError::into_inner).entry(pair.to_owned()).or_default() += 1;
        let Some(failure) = failure else { return };
        add(&self.failures, true);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.len() < SHOWN {
            shown.push(failure);
        }
    }

    /// How it stands.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            requests: of(&self.requests),
            in_rotation: of(&self.in_rotation),
            new: of(&self.new),
            old: of(&self.old),
            failures: of(&self.failures),
            fewest_of_a_pair: self
                .pairs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .min()
                .copied()
                .unwrap_or_default(),
        }
    }

    /// The first failures.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_old_once_it_has_outlived_a_phase() {
        let tally = Tally::default();
        tally.phase(true);
        let opened = tally.phases();
        for (changes, old) in [(0, 0), (1, 0), (1, 1), (1, 2)] {
            (0..changes).for_each(|_| tally.phase(false));
            tally.call("a b", Some(opened), false, None);
            assert_eq!(tally.counts().old, old);
        }
    }

    #[test]
    fn every_failure_is_counted_and_the_first_are_shown() {
        let tally = Tally::default();
        (0..30).for_each(|number| tally.call("a b", None, true, Some(number.to_string())));
        tally.call("b a", None, false, None);
        let counts = tally.counts();
        let expected = Counts { requests: 31, in_rotation: 30, new: 31, old: 0, failures: 30, fewest_of_a_pair: 1 };
        assert_eq!(counts, expected);
        assert_eq!((tally.failures().len(), &*tally.failures()[0]), (SHOWN, "0"));
    }
}
