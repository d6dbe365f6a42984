//! The watch of the gateways' pods, which a standby keeps too: a process that ends while the lead changes hands is seen to end by
//! whoever leads next.

use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use kube::api::Api;
use saatkond_api::names::label;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::health::Readiness;
use crate::pods::{GatewayPod, Pods};
use crate::watches::{WatchSettings, follow, shown};
use crate::world::Key;

/// What the watch is called where it is pending.
const WHAT: &str = "Pods";

/// Runs until it is dropped.
pub struct PodWatch {
    pods: Arc<Pods>,
    leader: Arc<Mutex<Option<Leader>>>,
    _task: JoinSet<()>,
}

/// Who acts on what is seen. Its ends are closed when it does not lead any more: then nobody does.
struct Leader {
    wakes: mpsc::UnboundedSender<Key>,
    news: watch::Sender<u64>,
}

impl PodWatch {
    /// Begins to watch.
    pub fn open(client: Client, settings: WatchSettings, readiness: Readiness) -> Self {
        let (pods, leader) = (Arc::<Pods>::default(), Arc::<Mutex<Option<Leader>>>::default());
        readiness.pending(WHAT, "not listed yet");
        let mut task = JoinSet::new();
        let config = settings.config(Some(label::SECURITY_SERVER));
        let (seen, audience) = (pods.clone(), leader.clone());
        task.spawn(async move {
            let mut show = shown(&readiness, WHAT);
            let tell = |servers: Vec<(String, String)>| {
                let leader = audience.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(Leader { wakes, news }) = &*leader else { return };
                for (namespace, server) in servers {
                    let _ = wakes.send(Key::SecurityServer(namespace, server));
                }
                news.send_modify(|count| *count = count.wrapping_add(1));
            };
            let on = |change| tell(seen.take(change));
            let trouble = |trouble| {
                show(trouble);
                tell(Vec::new());
            };
            follow(Api::<GatewayPod>::all(client), config, on, trouble).await;
        });
        Self { pods, leader, _task: task }
    }

    /// From now on these hear of changes: the queue of servers to look at, and whoever waits for lists. Returns the pods, as one who
    /// begins to lead may take them.
    pub fn lead(&self, wakes: mpsc::UnboundedSender<Key>, news: watch::Sender<u64>) -> Arc<Pods> {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = Some(Leader { wakes, news });
        self.pods.take_over();
        self.pods.clone()
    }
}
