//! The link: where gateways ask for documents and state what they have loaded. A process of its own, without a right to
//! any key (`saatkond operator --role=link`).

pub mod documents;
pub mod peers;
pub mod places;
pub mod receipts;
pub mod server;
pub mod tls;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::core::DeserializeGuard;
use saatkond_api::SecurityServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::documents::Documents;
use self::peers::Peers;
use self::server::{Limits, LinkState, serve};
use self::tls::CurrentTls;
use crate::clock::Clock;
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::watches::{Change, WatchSettings, follow, shown};

/// How often the mounted leaf is looked at. The kubelet itself takes up to a minute to bring a new one.
const LEAF_CHECK: Duration = Duration::from_secs(5);

const DOCUMENTS: &str = "documents";
const SERVERS: &str = "security servers";
const LEAF: &str = "the link's own leaf";

/// Everything the link runs with.
pub struct Link {
    /// Its client, through the counting layer.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The folder where the Secret `saatkond-link-identity` is mounted.
    pub identity: std::path::PathBuf,
    /// Where it listens.
    pub listener: TcpListener,
    /// Bounds.
    pub limits: Limits,
    /// Watches.
    pub watches: WatchSettings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is pending.
    pub readiness: Readiness,
}

impl Link {
    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self { client, namespace, identity, listener, limits, watches, clock, metrics, readiness } = self;
        for what in [DOCUMENTS, SERVERS, LEAF] {
            readiness.pending(what, "not read yet");
        }
        let state = Arc::new(LinkState {
            client: client.clone(),
            namespace: namespace.clone(),
            documents: Documents::default(),
            peers: Peers::default(),
            changes: watch::Sender::new(0),
            clock: clock.clone(),
            metrics,
            stop,
        });
        let tls = Arc::new(CurrentTls::default());
        let maps = follow(
            Api::<ConfigMap>::namespaced(client.clone(), &namespace),
            watches.config(Some(&documents::selector())),
            |change| {
                match change {
                    Change::All(maps) => state.documents.replace(maps.iter()),
                    Change::There(map) => state.documents.keep(&map),
                    Change::Gone(map) => state.documents.drop(&map),
                }
                state.changed();
            },
            shown(&readiness, DOCUMENTS),
        );
        let servers = follow(
            Api::<DeserializeGuard<SecurityServer>>::all(client),
            watches.config(None),
            |change| {
                match change {
                    Change::All(all) => state.peers.replace(all.into_iter().filter_map(readable).collect()),
                    Change::There(server) => readable(server).into_iter().for_each(|server| state.peers.keep(server)),
                    Change::Gone(server) => readable(server).iter().for_each(|server| state.peers.drop(server)),
                }
                state.changed();
            },
            shown(&readiness, SERVERS),
        );
        let leaf = keep_leaf(&identity, &tls, &state, &readiness);
        let server = serve(listener, tls.clone(), state.clone(), limits);
        tokio::select! { () = maps => {}, () = servers => {}, () = leaf => {}, () = server => {} }
    }
}

/// One object that cannot be read must not blind the link to all others.
fn readable(guarded: DeserializeGuard<SecurityServer>) -> Option<SecurityServer> {
    match guarded.0 {
        Ok(server) => Some(server),
        Err(error) => {
            let (namespace, name) = (error.metadata.namespace.as_deref(), error.metadata.name.as_deref());
            tracing::warn!(namespace, name, error = error.error, "a SecurityServer cannot be read");
            None
        }
    }
}

/// Takes up the mounted leaf and each that follows. Without a document there is nothing to serve and no authority that
/// could have issued one: that must not hold up whoever waits for an installation before declaring the first trust anchor.
async fn keep_leaf(folder: &Path, tls: &CurrentTls, state: &LinkState, readiness: &Readiness) {
    let mut changes = state.changes.subscribe();
    loop {
        match tls.refresh(folder) {
            Ok(true) => tracing::info!("the link's leaf was taken up"),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %error, "the link's leaf cannot be used"),
        }
        let mut next = pin!(state.clock.pause(LEAF_CHECK));
        loop {
            if tls.get().is_some() || state.documents.is_none_published() {
                readiness.done(LEAF);
            } else {
                readiness
                    .pending(LEAF, "the Secret holds no usable leaf yet; the kubelet brings it within about a minute");
            }
            tokio::select! {
                () = &mut next => break,
                // The first document ends the time in which there is nothing to serve. The sender lives in `state`.
                _ = changes.changed() => {}
            }
        }
    }
}
