//! The change from one authority to the next, without a request that fails on the way.
//!
//! **announce** (both are trusted) → every process states that it trusts both → **switch** (the next one issues, in waves) → every process
//! presents a new leaf, and no session with an old one is open → **retire** (the old one is no longer trusted) → every process
//! states that → stable.
//!
//! The published instance configuration is the state of the machine (ADR 10): the bundle, who issues, the phase and the request
//! that it serves are signed and written in one piece, so no crash can leave them apart, and what a guard compares receipts with is
//! what gateways are given.

mod guards;
mod standing;
mod step;
pub mod waves;

pub use guards::{Blocker, Obstacle, Process, Receipt, Server, blockers};
pub use standing::{MAX_REQUESTS, Phase, Standing};
pub use step::{Emergency, Held, NOBODY, Observed, Step, Wish, next_step};
