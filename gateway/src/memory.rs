//! How much memory a gateway uses for whom. A container that outgrows its limit is killed with every call under way, so what callers
//! and peers can make it hold is bounded for the process, not only for each of them.
//!
//! | share of the limit | for | at 256 MiB |
//! |---|---|---|
//! | 1/4 | bodies held whole: short requests, the spool's memory, answers until they are verified and taken | 64 MiB |
//! | 1/8 | connections of callers, 32 KiB each: read buffer, head, task | 1024 |
//! | 3/16 | connections of peers, 64 KiB each: TLS, HTTP/2 | 768 |
//! | 1/16 | connections of whoever has shown no certificate yet, 64 KiB each | 256 |
//! | 1/8 | exchanges of peers under way, 32 KiB each: REST part, frames | 1024 |
//! | 1/4 | the process: documents, chains, its own calls, pieces on their way | |
//!
//! Of the connections and exchanges of peers one peer may have half ([`crate::server`]).
//!
//! What a peer has sent and nobody has read yet stays within its connection's window; exchanges read on without a pause and put on disk
//! what finds no room, so no more than the pieces on their way gathers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The limit that is taken where the container has none: the default of a SecurityServer's processes.
const DEFAULT_LIMIT: u64 = 256 << 20;
const CALLER: u64 = 32 << 10;
const PEER: u64 = 64 << 10;
const EXCHANGE: u64 = 32 << 10;
/// Where a container finds its own limit: control groups of version 2, then of version 1.
const LIMIT_FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// What fits into the memory of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of bodies held whole.
    pub held: u64,
    /// Connections of callers.
    pub callers: usize,
    /// Connections of peers.
    pub peers: usize,
    /// Handshakes under way on the port of peers.
    pub handshakes: usize,
    /// Exchanges of peers under way.
    pub exchanges: usize,
}

impl Capacity {
    /// For a limit in bytes.
    #[must_use]
    pub fn within(limit: u64) -> Self {
        let places = |share: u64, each: u64| usize::try_from((share / each).max(1)).unwrap_or(usize::MAX);
        Self {
            held: limit / 4,
            callers: places(limit / 8, CALLER),
            peers: places(limit / 16 * 3, PEER),
            handshakes: places(limit / 16, PEER),
            exchanges: places(limit / 8, EXCHANGE),
        }
    }

    /// For the limit of the container that this process runs in.
    #[must_use]
    pub fn of_this_container() -> Self {
        let limit = LIMIT_FILES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        Self::within(limit.as_deref().and_then(limit_of).unwrap_or(DEFAULT_LIMIT))
    }
}

/// What such a file says; `None` where it says that there is no limit (`max`, or a number beyond all memory).
fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < 1 << 50)
}

/// A bound on what all calls together hold in memory.
#[derive(Debug, Clone)]
pub struct HeldBytes {
    total: Arc<AtomicU64>,
    bound: u64,
}

/// A part of the bound, given back on drop.
#[derive(Debug)]
pub struct Hold {
    of: HeldBytes,
    bytes: u64,
}

/// Bytes with their part of the bound.
struct Kept {
    bytes: Bytes,
    /// Given back with the bytes.
    _hold: Hold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HeldBytes {
    /// Nothing yet, of so many.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self { total: Arc::default(), bound }
    }

    /// Nothing yet.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { of: self.clone(), bytes: 0 }
    }

    /// What all calls hold now.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// Takes more, all of it or, where there is no room, nothing.
    #[must_use]
    pub fn grow(&mut self, by: usize) -> bool {
        let by = by as u64;
        let add = |total: u64| total.checked_add(by).filter(|sum| *sum <= self.of.bound);
        let has_room = self.of.total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        self.bytes += if has_room { by } else { 0 };
        has_room
    }

    /// Gives a part back.
    pub fn shrink(&mut self, by: usize) {
        let by = self.bytes.min(by as u64);
        self.bytes -= by;
        self.of.total.fetch_sub(by, Ordering::Relaxed);
    }

    /// Ties the part to the bytes that it was taken for: it is given back with the last of them, however slowly they are taken.
    #[must_use]
    pub fn keep(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Kept { bytes, _hold: self }) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.of.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_the_limit() {
        assert_eq!(
            Capacity::within(256 << 20),
            Capacity { held: 64 << 20, callers: 1024, peers: 768, handshakes: 256, exchanges: 1024 }
        );
        for limit in [0, 1, 64 << 20, 100_000_000, 8 << 30] {
            let Capacity { held, callers, peers, handshakes, exchanges } = Capacity::within(limit);
            let connections = callers as u64 * CALLER + (peers + handshakes) as u64 * PEER;
            let sum = held + connections + exchanges as u64 * EXCHANGE;
            assert!(sum <= limit / 4 * 3 || (callers, peers, handshakes, exchanges) == (1, 1, 1, 1), "{limit}");
        }
        assert_eq!([limit_of("max\n"), limit_of("9223372036854771712\n"), limit_of("")], [None; 3]);
        assert_eq!(limit_of("268435456\n"), Some(256 << 20));
    }

    #[test]
    fn what_is_held_is_given_back_with_its_bytes() {
        let held = HeldBytes::new(100);
        let (mut one, mut two) = (held.hold(), held.hold());
        assert!(one.grow(60) && two.grow(40) && !one.grow(1));
        assert_eq!(held.total(), 100, "what found no room was not taken");
        two.shrink(30);
        assert!(one.grow(30) && !two.grow(1));
        let bytes = one.keep(Bytes::from_static(b"ninety"));
        let part = bytes.slice(..3);
        drop((bytes, two));
        assert_eq!((held.total(), &part[..]), (90, &b"nin"[..]));
        drop(part);
        assert_eq!(held.total(), 0);
    }
}
