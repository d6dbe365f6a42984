//! Carrying plans out: every request that changes something, in the order that the plan's type states.
//!
//! Each plan is taken apart without `..`: a new part of a plan does not compile until it is carried out. What ends early
//! is reported with what had been done before; the next round goes on from there.

pub mod objects;
pub mod security_server;
pub mod trust_anchor;

use saatkond_api::conditions::Reason;
use saatkond_domain::effects::Failure;

use crate::error::{Error, chain};

/// What a failed request means to the object's conditions. `None` where it means nothing to users: the API server did not
/// answer, or something changed between reading and writing.
#[must_use]
pub fn failure(error: &Error) -> Option<Failure> {
    if error.is_unreachable() || error.is_conflict() {
        return None;
    }
    let reason = if error.is_forbidden() { Reason::Forbidden } else { Reason::ApplyFailed };
    Some(Failure { reason, message: chain(error) })
}
