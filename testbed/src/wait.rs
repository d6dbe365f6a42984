//! Waiting for a condition, always with a bound.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Asks `probe` until it answers with something, or `bound` is over; `state` then says what there was instead.
pub fn until<T>(
    what: &str,
    bound: Duration,
    state: impl FnOnce() -> String,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Error::Timeout { what: what.to_owned(), bound, state: state() });
        }
        pause();
    }
}

/// The time between two looks that start a program each: looking must not be what keeps the processor busy.
pub(crate) fn long_pause() {
    for _ in 0..6 {
        pause();
    }
}

/// The time between two looks at a condition.
#[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a condition that has a bound")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(30));
}
