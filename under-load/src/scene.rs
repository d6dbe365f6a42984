//! A run from its beginning to its end.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use saatkond_api::TrustAnchor;
use saatkond_api::v1alpha1::trust_anchor::{RotationPhase, RotationStatus};
use saatkond_e2e::install::{self, NAMESPACE};
use saatkond_testbed::{Cluster, Layout, Region};
use serde_json::json;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::callers::{self, Pair};
use crate::echo;
use crate::federation::{self, ANCHOR, MEMBERS};
use crate::mortal::{self, Fates};
use crate::outcome::Outcome;
use crate::scrape::Scraped;
use crate::tally::Tally;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// At least so many changes of the authority.
    pub rotations: u64,
    /// Changes go on until so many calls were made.
    pub requests: u64,
    /// Ways in which each write of the controller is cut, up to three.
    pub ways: usize,
    /// Whether gateways are replaced and the link is taken away meanwhile.
    pub is_rough: bool,
    /// Of the order of faults.
    pub seed: u64,
    /// The run is broken off after it.
    pub bound: Duration,
}

/// Calls beyond these are none: a run is bounded in count too.
const MOST_CALLS: u64 = 20_000_000;
/// How often the phase is asked for.
const LOOK: Duration = Duration::from_millis(200);
/// How long a change may take. Two of its steps wait for kubelets to refresh mounted Secrets.
const CHANGE_BOUND: Duration = Duration::from_mins(10);
/// How long the link is gone at a time.
const LINK_GONE: Duration = Duration::from_mins(1);
/// Between two readings of the gateways' counts.
const SCRAPE: Duration = Duration::from_secs(5);

/// Runs it in region `home`, which stays if it was there.
pub fn run(layout: &Layout, settings: Settings) -> anyhow::Result<Outcome> {
    let was_there = Region::list(layout)?.iter().any(|region| region.name() == "home");
    let region = Region::up("home")?;
    let result = in_region(layout, &region, settings);
    if result.is_err() {
        eprintln!("{}", region.dump());
    }
    if was_there {
        let namespaces = MEMBERS.map(|member| member.namespace);
        region
            .cluster()
            .kubectl(&[&["delete", "namespace", "--ignore-not-found", "--wait=false"], &namespaces[..]].concat())?;
        scale(region.cluster(), "saatkond-controller", 2)?;
    } else {
        Region::down("home")?;
    }
    result
}

fn in_region(layout: &Layout, region: &Region, settings: Settings) -> anyhow::Result<Outcome> {
    // First: a cluster that the testbed cannot reach into has none, and is not to be touched in vain.
    let node = IpAddr::from(region.address()?);
    tell("install");
    install::install(layout, region)?;
    scale(region.cluster(), "saatkond-controller", 0)?;
    let folder = layout.root().join("target/under-load");
    std::fs::create_dir_all(&folder).context("failed to make target/under-load")?;
    let kubeconfig = folder.join("controller.kubeconfig");
    region.cluster().service_account_kubeconfig(NAMESPACE, "saatkond-controller", &kubeconfig)?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    region.inside_network(|| {
        // Its threads are children of this one, and so in the region's network as it is.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
        let scene = Scene::new(layout, region, node, kubeconfig, settings);
        let run = runtime.block_on(async { timeout(settings.bound, scene.run()).await });
        run.with_context(|| format!("it is not over after {} s", settings.bound.as_secs()))?
    })?
}

fn tell(what: &str) {
    println!("under load: {what}");
}

fn scale(cluster: &Cluster, deployment: &str, replicas: u8) -> anyhow::Result<()> {
    let (name, count) = (format!("deployment/{deployment}"), format!("--replicas={replicas}"));
    cluster.kubectl(&["-n", NAMESPACE, "scale", &name, &count])?;
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", &name, "--timeout=120s"])?;
    Ok(())
}

struct Scene<'a> {
    layout: &'a Layout,
    region: &'a Region,
    node: IpAddr,
    kubeconfig: PathBuf,
    settings: Settings,
    tally: Arc<Tally>,
    fates: Arc<Fates>,
    scraped: Arc<Scraped>,
    stop: CancellationToken,
}

impl<'a> Scene<'a> {
    fn new(layout: &'a Layout, region: &'a Region, node: IpAddr, kubeconfig: PathBuf, settings: Settings) -> Self {
        let fates = Fates::new(settings.ways, settings.seed);
        let (tally, scraped, stop) = (Arc::default(), Arc::default(), CancellationToken::new());
        Self { layout, region, node, kubeconfig, settings, tally, fates, scraped, stop }
    }

    async fn run(self) -> anyhow::Result<Outcome> {
        let cluster = self.region.cluster();
        let admin = Kubeconfig::read_from(self.region.kubeconfig())?;
        let admin = Client::try_from(Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await?)?;
        for member in MEMBERS {
            echo::serve(member.code, member.address(self.node)).await?;
        }
        let (fates, stop, kubeconfig) = (self.fates.clone(), self.stop.clone(), self.kubeconfig.clone());
        let mut controller = tokio::spawn(async move { mortal::run(&kubeconfig, fates, stop).await });
        tell("declare the federation");
        block_in_place(|| {
            federation::apply(self.layout, cluster, self.node)?;
            federation::until_ready(cluster)
        })?;
        let mut pairs = Vec::new();
        for (from, to) in federation::pairs() {
            pairs.push(Pair { from, to, entrance: block_in_place(|| federation::entrance(cluster, from.server()))? });
        }
        callers::until_answered(&pairs).await?;
        tell(&format!("{} members call each other through {} gateways", MEMBERS.len(), federation::gateways()));
        let calling = tokio::spawn(callers::call(pairs, self.tally.clone(), MOST_CALLS, self.stop.clone()));
        let scraping = self.scrape(admin.clone());
        let changes = tokio::select! {
            changes = self.changes(&admin) => changes,
            // It runs until it is asked to end.
            ended = &mut controller => Err(match ended? {
                Ok(()) => anyhow::anyhow!("the controller has ended"),
                Err(error) => error,
            }),
        };
        self.fates.turn(false);
        self.stop.cancel();
        calling.await?;
        scraping.await?;
        self.scraped.read(&admin).await?;
        let rotations = changes.with_context(|| format!("{:#?}", self.tally.failures()))?;
        controller.await??;
        Ok(Outcome {
            counts: self.tally.counts(),
            failures: self.tally.failures(),
            peers: self.scraped.sum(),
            rotations,
            deaths: self.fates.deaths(),
            seed: self.settings.seed,
        })
    }

    fn scrape(&self, client: Client) -> JoinHandle<()> {
        let (scraped, stop) = (self.scraped.clone(), self.stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                if let Err(error) = scraped.read(&client).await {
                    eprintln!("the gateways' counts were not read: {error:#}");
                }
                let _ = timeout(SCRAPE, stop.cancelled()).await;
            }
        })
    }

    /// One authority after the other, until there were enough of them and of calls.
    async fn changes(&self, client: &Client) -> anyhow::Result<u64> {
        let anchors: Api<TrustAnchor> = Api::all(client.clone());
        let mut done = 0;
        while done < self.settings.rotations || self.tally.counts().requests < self.settings.requests {
            let trouble = self.settings.is_rough.then(|| self.trouble(done));
            let began = Instant::now();
            self.change(&anchors, done).await?;
            if let Some(trouble) = trouble {
                trouble.await??;
            }
            done += 1;
            let (counts, deaths) = (self.tally.counts(), self.fates.deaths());
            tell(&format!(
                "change {done} took {:.0} s; {} calls, {} failed; the controller has died {} times, {} of {} ways to cut a write",
                began.elapsed().as_secs_f64(),
                counts.requests,
                counts.failures,
                deaths.kills,
                deaths.hit,
                deaths.all,
            ));
        }
        Ok(done)
    }

    /// One change, from its request until the new authority is trusted alone.
    async fn change(&self, anchors: &Api<TrustAnchor>, number: u64) -> anyhow::Result<()> {
        let before = standing(anchors).await?.context("the trust anchor has no authority")?;
        let request = format!("under-load-{}-{number}", before.highest_generation + 1);
        self.fates.turn(true);
        let patch = json!({"spec": {"rotation": {"requestID": request}}});
        anchors
            .patch(ANCHOR, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("failed to ask for a change")?;
        let (began, mut phase) = (Instant::now(), before.phase);
        loop {
            if began.elapsed() > CHANGE_BOUND {
                bail!("the change is {phase:?} after {} s", CHANGE_BOUND.as_secs());
            }
            // An answer that fails is asked for again: the API server may be busy.
            if let Ok(Some(now)) = standing(anchors).await {
                if now.phase != phase {
                    phase = now.phase;
                    let rotating = !matches!(phase, RotationPhase::Stable | RotationPhase::Preparing);
                    self.tally.phase(rotating);
                    tell(&format!("{phase:?} after {:.1} s", began.elapsed().as_secs_f64()));
                }
                if phase == RotationPhase::Stable && now.signing_generation > before.signing_generation {
                    return Ok(());
                }
            }
            sleep(LOOK).await;
        }
    }

    /// What else happens during a change: in each the pods of one server are replaced one after the other, and in every other one the
    /// link is gone for a minute.
    fn trouble(&self, number: u64) -> JoinHandle<anyhow::Result<()>> {
        let kubeconfig = self.region.kubeconfig().to_owned();
        let layout = self.layout.clone();
        tokio::spawn(async move {
            let cluster = Cluster::new(&layout, kubeconfig)?;
            let servers: Vec<_> = MEMBERS.into_iter().filter(|member| member.server() == member.namespace).collect();
            let namespace = servers[usize::try_from(number)? % servers.len()].namespace;
            block_in_place(|| -> anyhow::Result<()> {
                cluster.kubectl(&["-n", namespace, "rollout", "restart", "deployment/ss1"])?;
                cluster.kubectl(&["-n", namespace, "rollout", "status", "deployment/ss1", "--timeout=300s"])?;
                Ok(())
            })?;
            if number.is_multiple_of(2) {
                block_in_place(|| scale(&cluster, "saatkond-link", 0))?;
                // Not for anything to happen: this long nobody hears of anything.
                sleep(LINK_GONE).await;
                block_in_place(|| scale(&cluster, "saatkond-link", 2))?;
            }
            Ok(())
        })
    }
}

async fn standing(anchors: &Api<TrustAnchor>) -> anyhow::Result<Option<RotationStatus>> {
    Ok(anchors.get(ANCHOR).await?.status.and_then(|status| status.rotation))
}
