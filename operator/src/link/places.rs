//! Who may have how many of the link's connections: nobody may take the places of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of all connections.
#[derive(Debug, Clone)]
pub struct Places {
    /// For peers whose key is registered.
    known: Arc<Semaphore>,
    /// For handshakes under way, and for whoever has some other key.
    strangers: Arc<Semaphore>,
    of_key: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    per_key: usize,
}

/// A connection's place, given back on drop.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    key: Option<(Places, Arc<str>)>,
}

impl Places {
    /// So many for registered peers, so many for all others together, and so many for each registered key.
    #[must_use]
    pub fn new(known: usize, strangers: usize, per_key: usize) -> Self {
        let of_key = Arc::default();
        Self { known: Arc::new(Semaphore::new(known)), strangers: Arc::new(Semaphore::new(strangers)), of_key, per_key }
    }

    /// A place for a handshake, once there is one.
    pub async fn stranger(&self) -> Option<Place> {
        let permit = self.strangers.clone().acquire_owned().await.ok()?;
        Some(Place { _permit: permit, key: None })
    }

    /// Moves a connection whose handshake is done to where it belongs. `false`: there is no place for it.
    #[must_use]
    pub fn admit(&self, place: &mut Place, key: &Arc<str>, is_registered: bool) -> bool {
        if !is_registered {
            return true;
        }
        let Some(known) = self.known(key) else { return false };
        *place = known;
        true
    }

    /// A place for a peer with this registered key; `None` where it has its share, or all are taken.
    fn known(&self, key: &Arc<str>) -> Option<Place> {
        let permit = self.known.clone().try_acquire_owned().ok()?;
        let mut of_key = self.of_key.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_key.entry(key.clone()).or_default();
        if *count >= self.per_key {
            return None;
        }
        *count += 1;
        drop(of_key);
        Some(Place { _permit: permit, key: Some((self.clone(), key.clone())) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, key)) = self.key.take() else { return };
        let mut of_key = places.of_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_key.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                of_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_key_takes_more_than_its_share_and_strangers_take_nothing_of_it() {
        let places = Places::new(3, 1, 2);
        let (one, other) = (Arc::from("one"), Arc::from("other"));
        let stranger = places.stranger().await;
        let held = [places.known(&one), places.known(&one)];
        assert!(held.iter().all(Option::is_some) && stranger.is_some());
        assert!(places.known(&one).is_none(), "its share is two");
        let third = places.known(&other);
        assert!(third.is_some() && places.known(&other).is_none(), "there are three");
        drop(held);
        assert!(places.known(&one).is_some(), "what is given back can be taken");
        drop((third, stranger));
        assert!(places.of_key.lock().unwrap().is_empty(), "nothing is kept of who is gone");
        assert!(places.stranger().await.is_some());
    }
}
