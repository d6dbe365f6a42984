//! What every part of a running gateway shares.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use saatkond_wire::configuration::ErrorProfile;
use saatkond_wire::exchange::Fault;
use tracing::{info, warn};
use uuid::Uuid;

use crate::error::Failure;
use crate::memory::{Capacity, HeldBytes};
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
    /// What fits into the memory of this process.
    pub capacity: Capacity,
    /// Bytes of bodies that are held whole.
    pub held: HeldBytes,
    /// How long a message between gateways may stand still.
    pub peer_silence: Duration,
    /// When it began to serve, if it did so without having met the link or any peer.
    pub started_alone: OnceLock<Timestamp>,
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
