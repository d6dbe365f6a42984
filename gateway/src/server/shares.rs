//! What one peer may take of the exchanges under way: half of them. Whoever is registered may still be slow, broken or malicious, and must
//! keep no other peer out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use saatkond_pki::digest::sha256;
use tokio::sync::Semaphore;

/// The shares of all peers that are connected.
#[derive(Debug)]
pub struct Shares {
    bound: usize,
    by_leaf: Mutex<HashMap<[u8; 32], Weak<Semaphore>>>,
}

impl Shares {
    /// Of so many exchanges in all. One share is one exchange at least.
    #[must_use]
    pub fn of(exchanges: usize) -> Self {
        Self { bound: (exchanges / 2).max(1), by_leaf: Mutex::default() }
    }

    /// The share of whoever presents this leaf, on whichever connection: all processes of a server have the same one.
    #[must_use]
    pub fn share(&self, leaf: &[u8]) -> Arc<Semaphore> {
        let mut by_leaf = self.by_leaf.lock().unwrap_or_else(PoisonError::into_inner);
        let key = sha256(leaf);
        if let Some(share) = by_leaf.get(&key).and_then(Weak::upgrade) {
            return share;
        }
        // Of those that are not connected any more nothing is kept.
        by_leaf.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.bound));
        by_leaf.insert(key, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_belongs_to_a_leaf_while_somebody_holds_it() {
        let shares = Shares::of(5);
        let (one, same, other) = (shares.share(b"one"), shares.share(b"one"), shares.share(b"other"));
        let taken = [(); 2].map(|()| one.clone().try_acquire_owned().unwrap());
        assert!(same.try_acquire().is_err(), "half of five, on whichever connection");
        assert!(other.try_acquire().is_ok(), "another's is its own");
        drop((one, same, other));
        assert!(shares.share(b"one").try_acquire().is_err(), "its exchanges are still under way");
        drop(taken);
        assert!(shares.share(b"one").try_acquire().is_ok());
        let _third = shares.share(b"third");
        assert_eq!(shares.by_leaf.lock().unwrap().len(), 1);
        assert_eq!(Shares::of(1).share(b"one").available_permits(), 1);
    }
}
