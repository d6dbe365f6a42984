//! Sessions that peers hold open, so that a receipt can say which authorities' leaves are still in use in one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The open sessions: for each generation, in how many of them a leaf of it was presented.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<BTreeMap<u64, usize>>>);

/// An open session, until it is closed or dropped.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    generations: Vec<u64>,
}

impl Sessions {
    /// One more, in which leaves of these generations were presented.
    #[must_use]
    pub fn open(&self, generations: impl IntoIterator<Item = u64>) -> Session {
        let generations: Vec<_> = generations.into_iter().collect();
        let mut open = self.lock();
        for generation in &generations {
            *open.entry(*generation).or_default() += 1;
        }
        drop(open);
        Session { sessions: self.clone(), generations }
    }

    /// The generations in use other than this one.
    #[must_use]
    pub fn other_than(&self, signing: u64) -> Vec<u64> {
        self.lock().keys().copied().filter(|generation| *generation != signing).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Ends it. Whether it was the last of one of its generations.
    pub fn close(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        let mut open = self.sessions.lock();
        let mut was_last = false;
        for generation in std::mem::take(&mut self.generations) {
            if let Some(count) = open.get_mut(&generation) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&generation);
                    was_last = true;
                }
            }
        }
        was_last
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_in_use_until_its_last_session_ends() {
        let sessions = Sessions::default();
        let (first, second, third) = (sessions.open([1, 1]), sessions.open([1, 2]), sessions.open([2, 2]));
        assert_eq!((sessions.other_than(1), sessions.other_than(2)), (vec![2], vec![1]));
        assert_eq!(sessions.other_than(3), [1, 2]);
        assert!(!first.close(), "another has a leaf of 1");
        assert!(second.close());
        assert_eq!(sessions.other_than(2), Vec::<u64>::new());
        drop(third);
        assert_eq!(sessions.other_than(3), Vec::<u64>::new());
    }
}
