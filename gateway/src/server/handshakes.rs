//! Handshakes under way. Whoever has shown no certificate yet may keep nobody out: beyond the bound the oldest one gives way. A
//! handshake takes milliseconds, so of a flood of connections that say nothing none stays for long, and a peer gets through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All that are under way.
#[derive(Debug)]
pub struct Handshakes {
    bound: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    oldest_first: VecDeque<(u64, CancellationToken)>,
    next: u64,
}

/// One of them; it ends on drop.
#[derive(Debug)]
pub struct Handshake {
    number: u64,
    ousted: CancellationToken,
    of: Arc<Handshakes>,
}

impl Handshakes {
    /// At most so many at a time; `bound` is one at least.
    #[must_use]
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, under_way: Mutex::default() })
    }

    /// One more, and whether another had to give way.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> (Handshake, bool) {
        let mut under_way = self.lock();
        let ousted = under_way.oldest_first.len() >= self.bound;
        if ousted && let Some((_, oldest)) = under_way.oldest_first.pop_front() {
            oldest.cancel();
        }
        let number = under_way.next;
        under_way.next += 1;
        let token = CancellationToken::new();
        under_way.oldest_first.push_back((number, token.clone()));
        (Handshake { number, ousted: token, of: self.clone() }, ousted)
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handshake {
    /// Ends when it has to give way.
    pub async fn ousted(&self) {
        self.ousted.cancelled().await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.of.lock().oldest_first.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_who_has_ended_has_not_to() {
        let handshakes = Handshakes::new(2);
        let (first, ousted) = handshakes.begin();
        assert!(!ousted);
        drop(first);
        let ([second, third], fourth) = ([0, 0].map(|_| handshakes.begin()), handshakes.begin());
        assert_eq!((second.1, third.1, fourth.1), (false, false, true));
        let is_ousted = |it: &Handshake| it.ousted.is_cancelled();
        assert!(is_ousted(&second.0) && !is_ousted(&third.0) && !is_ousted(&fourth.0));
        drop((second, third));
        assert!(!handshakes.begin().1, "there is room again");
        assert_eq!(handshakes.lock().oldest_first.len(), 1);
    }
}
