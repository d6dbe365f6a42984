//! Time and chance, as things that are handed over: tests advance them, the operator takes the system's.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A wait that ends by itself.
pub type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: for certificates, documents and status.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment of this process; never goes back: for deadlines and leases.
    fn elapsed(&self) -> Duration;
    /// Ends when this much time has passed.
    fn pause(&self, duration: Duration) -> Pause;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts to count.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn pause(&self, duration: Duration) -> Pause {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Where chance comes from.
pub trait Chance: Send + Sync + 'static {
    /// Fills the bytes: serial numbers.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoChance>;

    /// A number for jitter.
    fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        // Jitter without randomness is only less spread out; a serial number without it would be a fault.
        if self.fill(&mut bytes).is_err() { 0 } else { u64::from_le_bytes(bytes) }
    }
}

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoChance;

/// The random source of the cryptographic library.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoChance> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(bytes).map_err(|_| NoChance)
    }
}
