//! Connections that peers hold open, so that a receipt can say how old the oldest is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// The open sessions.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    since: BTreeMap<u64, Timestamp>,
}

/// An open session, until it is dropped.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    number: u64,
}

impl Sessions {
    /// One more.
    #[must_use]
    pub fn open(&self, now: Timestamp) -> Session {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.since.insert(number, now);
        drop(open);
        Session { sessions: self.clone(), number }
    }

    /// When the oldest that is still open was established.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.lock().since.values().min().copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.lock().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_oldest_that_is_open() {
        let (sessions, at) = (Sessions::default(), |second| Timestamp::from_second(second).unwrap());
        let first = sessions.open(at(1));
        let _second = sessions.open(at(2));
        assert_eq!(sessions.oldest(), Some(at(1)));
        drop(first);
        assert_eq!(sessions.oldest(), Some(at(2)));
    }
}
