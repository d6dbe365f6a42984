//! Breadth first, so that the trace to a violation is a shortest one.

use std::collections::HashSet;
use std::rc::Rc;

use crate::model::{Model, World};

/// The most states of one search: beyond it the search has not said anything.
const MOST: usize = 6_000_000;

/// What came of a search.
#[derive(Debug)]
pub enum Found {
    /// Every state was seen, and none is a violation.
    Nothing {
        /// How many.
        states: usize,
        /// In how many of them everything that was asked for is done.
        ends: usize,
    },
    /// A state that must not be.
    Violation {
        /// How many states were seen before.
        states: usize,
        /// What is wrong in it.
        what: String,
        /// The events that lead to it.
        trace: Vec<String>,
    },
}

/// Sees every state that can be reached.
pub fn explore(model: &Model) -> Found {
    let first = Rc::new(model.first());
    // In the order in which they were found, each with the place of the one before it.
    let mut states: Vec<(Rc<World>, usize)> = vec![(first.clone(), 0)];
    let mut known = HashSet::from([first]);
    let (mut at, mut ends) = (0, 0);
    while at < states.len() {
        let state = states[at].0.clone();
        if let Some(what) = Model::violation(&state) {
            return Found::Violation { states: states.len(), what, trace: trace(model, &states, at) };
        }
        ends += usize::from(model.is_done(&state));
        for (_, next) in model.successors(&state) {
            if !known.contains(&next) {
                let next = Rc::new(next);
                known.insert(next.clone());
                states.push((next, at));
            }
        }
        assert!(states.len() < MOST, "more than {MOST} states: the limits are too wide");
        at += 1;
    }
    Found::Nothing { states: states.len(), ends }
}

/// The events from the first state to this one.
fn trace(model: &Model, states: &[(Rc<World>, usize)], mut at: usize) -> Vec<String> {
    let mut events = Vec::new();
    while at != 0 {
        let (state, before) = &states[at];
        let successors = model.successors(&states[*before].0);
        let event = successors.into_iter().find(|(_, next)| *next == **state).map(|(event, _)| event);
        events.extend(event.map(|event| event.to_string()));
        at = *before;
    }
    events.reverse();
    events
}
