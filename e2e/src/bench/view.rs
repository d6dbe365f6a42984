//! What the API server holds, followed by watches: a benchmark that lists everything twice a second would measure its own
//! lists.

use std::fmt::Debug;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use saatkond_api::names::label;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

/// Stores of all that a benchmark looks at. Dropping it ends the watches.
#[derive(Debug)]
pub struct View {
    /// TrustAnchors.
    pub anchors: Store<TrustAnchor>,
    /// Members.
    pub members: Store<Member>,
    /// SecurityServers.
    pub servers: Store<SecurityServer>,
    /// Deployments of gateways.
    pub deployments: Store<Deployment>,
    /// Pods of gateways.
    pub pods: Store<Pod>,
    _watches: JoinSet<()>,
}

impl View {
    /// Opens the watches and waits for their first lists.
    pub async fn open(client: &Client) -> anyhow::Result<Self> {
        let mut watches = JoinSet::new();
        let all = watcher::Config::default();
        let gateways = watcher::Config::default().labels(label::SECURITY_SERVER);
        let view = Self {
            anchors: follow(&mut watches, Api::all(client.clone()), all.clone()),
            members: follow(&mut watches, Api::all(client.clone()), all.clone()),
            servers: follow(&mut watches, Api::all(client.clone()), all),
            deployments: follow(&mut watches, Api::all(client.clone()), gateways.clone()),
            pods: follow(&mut watches, Api::all(client.clone()), gateways),
            _watches: watches,
        };
        view.anchors.wait_until_ready().await?;
        view.members.wait_until_ready().await?;
        view.servers.wait_until_ready().await?;
        view.deployments.wait_until_ready().await?;
        view.pods.wait_until_ready().await?;
        Ok(view)
    }
}

fn follow<K>(watches: &mut JoinSet<()>, api: Api<K>, config: watcher::Config) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, config).default_backoff().reflect(writer);
    watches.spawn(changes.for_each(|_| std::future::ready(())));
    store
}
