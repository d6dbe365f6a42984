//! What every reconcile has at hand.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use saatkond_domain::settings::OperatorSettings;
use saatkond_pki::key::KeySource;
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::{Chance, Clock};
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::observe::caches::Caches;
use crate::signer::Signer;
use crate::world::{Key, World};

/// How soon things are done.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Reconciles at once.
    pub concurrency: usize,
    /// How long changes of one object are gathered before it is looked at.
    pub debounce: Duration,
    /// The same for a trust anchor: a federation that is set up changes it with each member.
    pub anchor_debounce: Duration,
    /// The longest that one reconcile may take.
    pub reconcile_timeout: Duration,
    /// How long failing objects wait.
    pub backoff: crate::queue::Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            concurrency: 16,
            debounce: Duration::from_millis(100),
            anchor_debounce: Duration::from_millis(500),
            reconcile_timeout: Duration::from_mins(2),
            backoff: crate::queue::Backoff::default(),
        }
    }
}

/// Everything that reconciles share.
pub struct Context {
    /// The one client.
    pub client: Client,
    /// What shows in the objects that are made.
    pub settings: Arc<OperatorSettings>,
    /// How soon things are done.
    pub pace: Pace,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness of serial numbers and jitter.
    pub chance: Arc<dyn Chance>,
    /// Where key pairs come from.
    pub keys: Arc<dyn KeySource>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Events.
    pub recorder: Recorder,
    /// What has been seen.
    pub world: Arc<World>,
    /// The keys at hand.
    pub signer: Signer,
    /// What was read and need not be read again while it is unchanged.
    pub caches: Caches,
    /// Wakes objects.
    pub wakes: UnboundedSender<Key>,
    /// Asks to look again at a namespace whose rights have failed.
    pub doubts: UnboundedSender<String>,
}

impl Context {
    /// Wakes these objects. Once each, however often they are named, is the queue's business.
    pub fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        for key in keys {
            // The driver is gone only when this process stops leading: nobody is left to wake.
            let _ = self.wakes.send(key);
        }
    }
}
