//! The life of a gateway: read what is at hand, wait until it may serve, serve, drain, say goodbye.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use saatkond_wire::link::ProcessId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::context::Context;
use crate::files::{self, Files};
use crate::http1::serve::Ending;
use crate::link::{self, Link};
use crate::memory::{Capacity, HeldBytes};
use crate::metrics::Metrics;
use crate::peer::ask;
use crate::provider::information_system::InformationSystems;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::signing::Signing;
use crate::spool::Spool;
use crate::start::{self, Basis, Decision, Peers, Seen};
use crate::state::saved::Saved;
use crate::state::{Origin, State};
use crate::{client, probes, server};

/// How often a start that waits looks again, besides at each change.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often peers are asked while the link is silent.
const ASK_PEERS: Duration = Duration::from_secs(2);

/// Runs a gateway until `stop` resolves, then drains it.
pub async fn run_until(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let gateway = Gateway::new(settings)?;
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        result = gateway.serve() => result?,
        () = &mut stop => {}
    }
    gateway.drain().await;
    Ok(())
}

/// A gateway in this process.
pub struct Gateway {
    /// What its parts share.
    pub context: Arc<Context>,
    settings: Settings,
    link: Link,
    /// Ends the listeners.
    exit: Ending,
    /// Ends everything else.
    ending: CancellationToken,
    tasks: TaskTracker,
}

impl Gateway {
    /// Prepares a gateway: counts this start, reads nothing yet, opens no port.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let saved = Saved::new(settings.state_dir.clone());
        let incarnation = saved.next_incarnation().context("failed to count this start in the state directory")?;
        let process = ProcessId { pod_uid: settings.pod_uid.clone(), incarnation };
        let host = settings.link_url.host_str().context("the link's URL names no host")?;
        let port = settings.link_url.port_or_known_default().context("the link's URL names no port")?;
        let link = Link { address: format!("{host}:{port}"), server_name: settings.link_server_name.clone(), process };
        let metrics = Arc::new(Metrics::default());
        let capacity = settings.memory_limit.map_or_else(Capacity::of_this_container, Capacity::within);
        let held = HeldBytes::new(capacity.held);
        let context = Context {
            state: Arc::new(State::new(settings.anchor_keys.clone(), saved, metrics.clone())),
            metrics,
            spool: Spool::new(settings.spool_dir.clone(), held.clone()),
            sessions: Sessions::default(),
            information_systems: InformationSystems::default(),
            signing: Signing::default(),
            capacity,
            held,
            peer_silence: settings.peer_silence,
            started_alone: OnceLock::new(),
            is_serving: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        };
        Ok(Self {
            context: Arc::new(context),
            settings,
            link,
            exit: Ending::default(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts and serves; returns only with a fault, or after [`Self::drain`].
    pub async fn serve(&self) -> anyhow::Result<()> {
        let (context, settings) = (&self.context, &self.settings);
        let admin = bind(settings.admin_address).await?;
        tokio::spawn(probes::listen(context.clone(), admin, self.ending.clone()));
        // The newest of the own saved copy and the mounted one: whichever is newer wins, in any order.
        Files::new(Origin::Saved, &settings.state_dir, &settings.state_dir).read(context).await;
        let mut mounts = Files::new(Origin::Mount, &settings.configuration_dir, &settings.identity_dir);
        mounts.read(context).await;
        tokio::spawn(files::watch(context.clone(), mounts, settings.files_interval, self.ending.clone()));
        let (seen, link) = watch::channel(start::Link::Unknown);
        tokio::spawn(link::poll_forever(context.clone(), self.link.clone(), seen, self.ending.clone()));
        let basis = self.wait_to_open(link).await;
        if basis == Basis::Alone {
            warn!("serving without having met the link or any peer: documents may be behind");
            context.metrics.started_alone.set(1);
            let _ = context.started_alone.set(context.now());
        }
        let servers = bind(settings.server_address).await?;
        let clients = bind(settings.client_address).await?;
        self.tasks.spawn(server::listen(context.clone(), servers, self.tasks.clone(), self.exit.closing.clone()));
        self.tasks.spawn(client::listen(context.clone(), clients, self.tasks.clone(), self.exit.clone()));
        context.is_serving.store(true, Ordering::Release);
        context.state.tell();
        info!(?basis, "serving");
        self.exit.closing.cancelled().await;
        Ok(())
    }

    async fn wait_to_open(&self, mut link: watch::Receiver<start::Link>) -> Basis {
        let started = Instant::now();
        let (mut changes, mut peers, mut asked) = (self.context.state.changes(), Peers::Unknown, None::<Instant>);
        let (mut last, mut behind) = (None, None::<Instant>);
        loop {
            let mut seen = Seen {
                held: self.context.state.held(self.context.now()),
                link: *link.borrow_and_update(),
                peers,
                waited: started.elapsed(),
                alone_after: self.settings.alone_after,
                behind: behind.map(|since| since.elapsed()).unwrap_or_default(),
                behind_after: self.settings.behind_after,
            };
            if seen.needs_peers() && asked.is_none_or(|at| at.elapsed() >= ASK_PEERS) {
                let found = ask::ask(&self.context).await;
                // A peer that has answered once has answered.
                peers = if peers == Peers::Answered { peers } else { found };
                asked = Some(Instant::now());
                (seen.held, seen.peers) = (self.context.state.held(self.context.now()), peers);
            }
            let decision = start::decide(&seen);
            if decision.is_behind() {
                behind.get_or_insert_with(Instant::now);
            }
            match decision {
                Decision::Open(basis) => return basis,
                Decision::Wait(reason) if last != Some(reason) => {
                    info!(reason = reason.as_str(), "waiting to serve");
                    last = Some(reason);
                }
                Decision::Wait(_) => {}
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = link.changed() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Ends in order: not ready first, and callers are told to go elsewhere; then no new connections, then the calls under way
    /// (bounded), then the goodbye.
    pub async fn drain(&self) {
        self.context.is_draining.store(true, Ordering::Release);
        self.exit.leaving.cancel();
        if self.context.is_serving.load(Ordering::Acquire) {
            sleep(self.settings.drain_delay).await;
        }
        self.exit.closing.cancel();
        self.tasks.close();
        if timeout(self.settings.drain_bound, self.tasks.wait()).await.is_err() {
            warn!(connections = self.tasks.len(), "calls are still under way at the end of the time to drain");
        }
        self.ending.cancel();
        link::goodbye(&self.context, &self.link).await;
        info!("ended");
    }
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}
