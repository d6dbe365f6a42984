//! What every part of a running gateway shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use saatkond_wire::configuration::ErrorProfile;
use saatkond_wire::exchange::Fault;
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::Failure;
use crate::metrics::Metrics;
use crate::provider::information_system::InformationSystems;
use crate::sessions::Sessions;
use crate::signing::Signing;
use crate::spool::Spool;
use crate::state::State;

/// Shared by all connections.
pub struct Context {
    /// What is in force.
    pub state: Arc<State>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where bodies wait.
    pub spool: Spool,
    /// Connections of peers.
    pub sessions: Sessions,
    /// Calls information systems.
    pub information_systems: InformationSystems,
    /// Messages that wait for a signature.
    pub signing: Signing,
    /// Bytes of answers that are held until they are verified.
    pub held: HeldBytes,
    /// Set while listeners are open for business.
    pub is_serving: AtomicBool,
    /// Set once the process has been asked to end.
    pub is_draining: AtomicBool,
}

impl Context {
    /// The time. The one place where a running gateway looks at the clock for decisions.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Words a failure, and logs it under the id that the caller gets.
    #[must_use]
    pub fn fault(&self, failure: &Failure, profile: ErrorProfile) -> Fault {
        let fault = failure.fault(profile, Uuid::new_v4());
        match failure {
            Failure::Own { .. } => {
                warn!(error_id = fault.detail, kind = fault.kind, message = fault.message, "an exchange failed");
            }
            Failure::Peer(_) => info!(error_id = fault.detail, kind = fault.kind, "the peer reported an error"),
        }
        fault
    }
}

/// A bound on what all calls together hold in memory until it is verified.
#[derive(Debug, Default)]
pub struct HeldBytes(Arc<AtomicU64>);

/// For all answers together. One that finds no room is streamed with its end held back, which takes next to none.
const MAX_HELD: u64 = 64 << 20;

/// A part of the bound, given back on drop.
#[derive(Debug)]
pub struct Hold {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl HeldBytes {
    /// Nothing yet.
    #[must_use]
    pub fn hold(&self) -> Hold {
        Hold { total: self.0.clone(), bytes: 0 }
    }
}

impl Hold {
    /// Takes more; `false` when there is no room.
    pub fn grow(&mut self, by: usize) -> bool {
        let by = by as u64;
        let before = self.total.fetch_add(by, Ordering::Relaxed);
        self.bytes += by;
        before + by <= MAX_HELD
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
