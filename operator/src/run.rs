//! Starts and stops: what runs beside what, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::{Client, Config, Resource, ResourceExt as _};
use saatkond_api::names::{LEADER_LEASE, MANAGED_BY, label};
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::children::ChildKind;
use saatkond_pki::key::{KeySource, SystemKeys};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Fault, Fence, Hooks, connect};
use crate::clock::{Chance, Clock, SystemChance, SystemClock};
use crate::context::Context;
use crate::events::Recorder;
use crate::health::{self, Readiness};
use crate::lease::{Election, Ended, LeaseSettings};
use crate::link::Link;
use crate::link::server::{Limits, bind};
use crate::metrics::Metrics;
use crate::observe::caches::Caches;
use crate::pod_watch::PodWatch;
use crate::settings::{Role, Settings};
use crate::signer::Signer;
use crate::watches::{Change, follow, shown};
use crate::world::{Key, World};
use crate::{driver, gate};

/// Why the operator could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no way to the API server.
    #[error("failed to find out how to reach the API server")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client could not be built.
    #[error("failed to set up the client of the API server")]
    Client(#[source] Box<kube::Error>),
    /// A port could not be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A setting is missing.
    #[error("{0}")]
    Setting(&'static str),
}

/// What a process of the operator runs with, besides its settings. Tests give their own.
pub struct Surroundings {
    /// The way to the API server.
    pub config: Config,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub chance: Arc<dyn Chance>,
    /// Where key pairs come from.
    pub keys: Arc<dyn KeySource>,
    /// Faults; only in tests.
    pub fault: Option<Arc<dyn Fault>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is pending.
    pub readiness: Readiness,
}

impl Surroundings {
    /// The real ones, with the kubeconfig or the ServiceAccount that the environment gives.
    pub async fn real() -> Result<Self, RunError> {
        let config = Config::infer().await.map_err(|error| RunError::Config(Box::new(error)))?;
        Ok(Self::with(config))
    }

    /// The real ones, with this way to the API server.
    #[must_use]
    pub fn with(config: Config) -> Self {
        Self {
            config,
            clock: Arc::new(SystemClock::new()),
            chance: Arc::new(SystemChance),
            keys: Arc::new(SystemKeys),
            fault: None,
            metrics: Arc::new(Metrics::new()),
            readiness: Readiness::default(),
        }
    }
}

/// Runs `saatkond operator` until `stop`.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), RunError> {
    let surroundings = Surroundings::real().await?;
    let address = settings.health_address;
    let (readiness, metrics) = (surroundings.readiness.clone(), surroundings.metrics.clone());
    let ended = stop.child_token();
    let health = health::serve(address, readiness, metrics, ended.clone().cancelled_owned());
    let health = async { health.await.map_err(|source| RunError::Listen { address, source }) };
    let work = async {
        let done = run_with(settings, surroundings, stop).await;
        ended.cancel();
        done
    };
    tokio::try_join!(health, work).map(|_| ())
}

/// Runs the role of the settings in these surroundings until `stop`.
pub async fn run_with(settings: Settings, surroundings: Surroundings, stop: CancellationToken) -> Result<(), RunError> {
    match settings.role {
        Role::Controller => controller(settings, surroundings, stop).await,
        Role::Link => link(settings, surroundings, stop).await,
    }
}

async fn link(settings: Settings, surroundings: Surroundings, stop: CancellationToken) -> Result<(), RunError> {
    let Surroundings { config, clock, fault, metrics, readiness, .. } = surroundings;
    let hooks = Hooks { fence: None, fault };
    let client = connect(config, metrics.api_requests.clone(), hooks).map_err(RunError::Client)?;
    let address = settings.link_address;
    let listener = bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let link = Link {
        client,
        namespace: settings.namespace.clone(),
        identity: settings.link_identity.clone(),
        listener,
        limits: Limits::default(),
        watches: settings.watches(),
        clock,
        metrics,
        readiness,
    };
    link.run(stop).await;
    Ok(())
}

async fn controller(settings: Settings, surroundings: Surroundings, stop: CancellationToken) -> Result<(), RunError> {
    if settings.image.is_empty() {
        return Err(RunError::Setting("--image is missing: gateways run the image that it names"));
    }
    let fence = Fence::new(surroundings.clock.clone());
    let hooks = Hooks { fence: Some(fence.clone()), fault: surroundings.fault.clone() };
    let requests = surroundings.metrics.api_requests.clone();
    let client = connect(surroundings.config.clone(), requests, hooks).map_err(RunError::Client)?;
    let identity = if settings.identity.is_empty() {
        format!("saatkond-{}-{:08x}", std::process::id(), surroundings.chance.number() >> 32)
    } else {
        settings.identity.clone()
    };
    let duration = Duration::from_secs(settings.lease_seconds.into());
    let lease = LeaseSettings {
        name: LEADER_LEASE.to_owned(),
        identity: identity.clone(),
        duration,
        renew_deadline: duration * 2 / 3,
        retry: duration / 7,
    };
    let api: Api<Lease> = Api::namespaced(client.clone(), &settings.namespace);
    let mut election = Election::new(api, lease, surroundings.clock.clone(), surroundings.chance.clone(), fence);
    let pods = PodWatch::open(client.clone(), settings.watches(), surroundings.readiness.clone());
    loop {
        let lead = || lead(&client, &settings, &surroundings, &identity, &pods, stop.clone());
        let ended = election.lead(&stop, lead).await;
        surroundings.metrics.leading.set(0);
        // What a leader waited for is no concern of a standby.
        for what in surroundings.readiness.list().into_keys() {
            surroundings.readiness.done(&what);
        }
        match ended {
            None | Some(Ended::Finished) if stop.is_cancelled() => return Ok(()),
            None => return Ok(()),
            Some(Ended::Finished | Ended::Lost) => {}
        }
    }
}

/// What the leader does. All of it ends when this future is dropped.
async fn lead(
    client: &Client,
    settings: &Settings,
    surroundings: &Surroundings,
    identity: &str,
    pods: &PodWatch,
    stop: CancellationToken,
) {
    surroundings.metrics.leading.set(1);
    let (wakes, woken) = mpsc::unbounded_channel();
    let news = watch::Sender::new(0_u64);
    let world = Arc::new(World::with(pods.lead(wakes.clone(), news.clone())));
    surroundings.metrics.state.show(&world);
    let (doubts, doubted) = mpsc::unbounded_channel();
    let context = Arc::new(Context {
        client: client.clone(),
        settings: Arc::new(settings.operator()),
        pace: settings.pace(),
        clock: surroundings.clock.clone(),
        chance: surroundings.chance.clone(),
        keys: surroundings.keys.clone(),
        metrics: surroundings.metrics.clone(),
        recorder: Recorder::new(client.clone(), identity.to_owned(), surroundings.clock.clone()),
        world,
        signer: Signer::default(),
        caches: Caches::default(),
        wakes,
        doubts,
    });
    let mut tasks = JoinSet::new();
    let watcher = Watcher { context: &context, settings, readiness: &surroundings.readiness, news: &news };
    watcher.open(&mut tasks);
    tasks.spawn(gate::keep(context.clone(), settings.watches(), news.subscribe(), doubted));
    let mut seen = news.subscribe();
    let listed = async {
        // Nothing is decided before everything is listed: what is merely not listed yet would be taken for gone.
        while !context.world.is_listed() {
            if seen.changed().await.is_err() {
                return;
            }
        }
        // The children's lists only spare requests: they are waited for a little.
        let patience = context.clock.pause(Duration::from_secs(3));
        let rest = async { while !surroundings.readiness.list().is_empty() && seen.changed().await.is_ok() {} };
        tokio::select! { () = patience => {}, () = rest => {} }
    };
    tokio::select! {
        () = stop.cancelled() => return,
        () = listed => {}
    }
    tracing::info!("everything is listed");
    context.wake(context.world.everything());
    let grace = Duration::from_secs(settings.grace_seconds.into());
    let bound = async {
        stop.cancelled().await;
        surroundings.clock.pause(grace).await;
    };
    tokio::select! {
        () = driver::run(context.clone(), woken, stop.clone()) => {}
        () = bound => tracing::warn!("reconciles were still under way at the end"),
    }
}

/// Opens the watches of the leader.
struct Watcher<'a> {
    context: &'a Arc<Context>,
    settings: &'a Settings,
    readiness: &'a Readiness,
    news: &'a watch::Sender<u64>,
}

impl Watcher<'_> {
    fn open(&self, tasks: &mut JoinSet<()>) {
        self.own::<TrustAnchor>(tasks, "TrustAnchors", |world, change| {
            let anchors = world.anchors.take_readable(change);
            anchors.iter().flat_map(|anchor| world.woken_by_anchor(&anchor.name_any())).collect()
        });
        self.own::<Member>(tasks, "Members", |world, change| {
            let members = world.members.take_readable(change);
            members.iter().flat_map(|member| world.woken_by_member(member)).collect()
        });
        self.own::<SecurityServer>(tasks, "SecurityServers", |world, change| {
            let servers = world.servers.take_readable(change);
            servers.iter().flat_map(|server| world.woken_by_server(server)).collect()
        });
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.context.client.clone());
        self.watch(tasks, "Namespaces", api, None, false, |world, change| {
            let namespaces = world.namespaces.take(change);
            namespaces.iter().flat_map(|namespace| world.woken_by_namespace(&namespace.name_any())).collect()
        });
        self.children::<ServiceAccount>(tasks, ChildKind::ServiceAccount);
        self.children::<Service>(tasks, ChildKind::Service);
        self.children::<Deployment>(tasks, ChildKind::Deployment);
        self.children::<PodDisruptionBudget>(tasks, ChildKind::PodDisruptionBudget);
        self.children::<NetworkPolicy>(tasks, ChildKind::NetworkPolicy);
        self.children::<ConfigMap>(tasks, ChildKind::ConfigMap);
        // Secrets only here and in admitted namespaces (see `gate`): never cluster-wide.
        let namespace = self.settings.namespace.clone();
        let api = Api::<PartialObjectMeta<Secret>>::namespaced(self.context.client.clone(), &namespace);
        self.watch(tasks, "Secrets of the operator", api, Some(&ours()), false, move |world, change| {
            children_changed(world, ChildKind::Secret, change, |of| of == namespace)
        });
    }

    fn own<K>(
        &self,
        tasks: &mut JoinSet<()>,
        what: &'static str,
        take: impl Fn(&World, Change<DeserializeGuard<K>>) -> Vec<Key> + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let api = Api::<DeserializeGuard<K>>::all(self.context.client.clone());
        self.watch(tasks, what, api, None, true, take);
    }

    fn children<K>(&self, tasks: &mut JoinSet<()>, kind: ChildKind)
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let api = Api::<PartialObjectMeta<K>>::all(self.context.client.clone());
        let what = match kind {
            ChildKind::ServiceAccount => "ServiceAccounts",
            ChildKind::Service => "Services",
            ChildKind::Deployment => "Deployments",
            ChildKind::PodDisruptionBudget => "PodDisruptionBudgets",
            ChildKind::NetworkPolicy => "NetworkPolicies",
            ChildKind::ConfigMap => "ConfigMaps",
            ChildKind::Secret => "Secrets",
        };
        let take =
            move |world: &World, change: Change<PartialObjectMeta<K>>| children_changed(world, kind, change, |_| true);
        self.watch(tasks, what, api, Some(&ours()), false, take);
    }

    fn watch<K>(
        &self,
        tasks: &mut JoinSet<()>,
        what: &'static str,
        api: Api<K>,
        labels: Option<&str>,
        telling: bool,
        take: impl Fn(&World, Change<K>) -> Vec<Key> + Send + Sync + 'static,
    ) where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    {
        self.readiness.pending(what, "not listed yet");
        let config = self.settings.watches().config(labels);
        let (context, readiness, news) = (self.context.clone(), self.readiness.clone(), self.news.clone());
        tasks.spawn(async move {
            let mut show = shown(&readiness, what);
            follow(
                api,
                config,
                |change| {
                    context.wake(take(&context.world, change));
                    if telling {
                        bump(&news);
                    }
                },
                |trouble| {
                    show(trouble);
                    bump(&news);
                },
            )
            .await;
        });
    }
}

/// Says that something of which others wait was seen: a list has arrived, or who lives where may have changed.
fn bump(news: &watch::Sender<u64>) {
    news.send_modify(|count| *count = count.wrapping_add(1));
}

fn ours() -> String {
    format!("{}={MANAGED_BY}", label::MANAGED_BY)
}

fn children_changed<K: Resource>(
    world: &World,
    kind: ChildKind,
    change: Change<PartialObjectMeta<K>>,
    within: impl Fn(&str) -> bool,
) -> Vec<Key> {
    let metas = match change {
        Change::All(all) => world.replace_children(kind, within, all.iter().map(|object| (&object.metadata).into())),
        Change::There(object) => world.put_child(kind, (&object.metadata).into()),
        Change::Gone(object) => world.drop_child(kind, (&object.metadata).into()),
    };
    metas.iter().flat_map(|meta| world.woken_by_child(meta)).collect()
}
