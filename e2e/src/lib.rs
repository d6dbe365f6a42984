//! Whole journeys on real regions, and the demo.
//!
//! [`install`] puts Saatkond into a region, [`federation`] applies the example and makes calls through it, [`repair`]
//! breaks things and times their repair, [`operator`] takes the operator away and brings it back, [`rotation`] replaces
//! the authority while calls go on, [`thief`] has stolen its key. The demo
//! (`make demo`) tells these steps to a person; `tests/journey.rs` asserts them.

pub mod answer;
pub mod federation;
pub mod install;
pub mod narrate;
pub mod operator;
pub mod repair;
pub mod rotation;
pub mod thief;
