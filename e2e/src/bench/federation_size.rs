//! `federation-size`: a federation of Estonia's size from nothing to all Ready, pods faked; then a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use saatkond_testbed::{Cluster, Layout};
use saatkond_xtask::estonia::{self, Federation};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::calibration::{self, Calibration, Run};
use super::controller::{Controller, api_server, writes};
use super::view::View;
use super::{Goal, Sheet, faker, proc};

/// What is measured.
pub const GOALS: &[Goal] = &[
    Goal { metric: "ready_seconds", unit: "s", target: Some("<= 60") },
    Goal { metric: "rss_peak_mib", unit: "MiB", target: Some("<= 64") },
    Goal { metric: "requests_per_object", unit: "", target: None },
    Goal { metric: "cpu_seconds", unit: "s", target: None },
    Goal { metric: "restart_writes", unit: "", target: Some("== 0") },
];

/// Beyond this the run has failed; its values would say nothing.
const BOUND: Duration = Duration::from_mins(10);
/// How long a restarted controller is watched for writes.
const QUIET: Duration = Duration::from_secs(30);

/// A time is the median of as many runs, each on an API server of its own.
const RUNS: usize = 5;

/// Runs it.
pub async fn run(layout: &Layout, sheet: &mut Sheet) -> anyhow::Result<()> {
    let mut runs = Vec::with_capacity(RUNS);
    for number in 1..=RUNS {
        let load = calibration::load()?;
        let (machine, slower) = Calibration::take(&layout.root().join("target/bench"))?;
        let value = once(layout, (number == RUNS).then_some(&mut *sheet)).await?;
        println!(
            "run {number} of {RUNS}: {value:.1} s on a machine {slower:.2} times slower than at its best, load {load}"
        );
        runs.push(Run { value, machine, slower, load });
    }
    let (ready, details) = calibration::judged(&runs)?;
    sheet.note("ready_seconds", ready, details)
}

/// One federation from nothing; the answer is after how many seconds all was Ready. Counts, memory and the restart go to the sheet of
/// one of the runs: they do not depend on how busy the machine is.
async fn once(layout: &Layout, sheet: Option<&mut Sheet>) -> anyhow::Result<f64> {
    let server = api_server(layout)?;
    let client = client(server.cluster()).await?;
    let federation = estonia::federation()?;
    let controller = Controller::start(layout, server.cluster())?;
    let stop = Arc::new(AtomicBool::new(false));
    let view = Arc::new(View::open(&client).await?);
    let faking = tokio::spawn(faker::run(client.clone(), view.clone(), stop.clone()));

    let began = Instant::now();
    let objects = apply(&client, &federation).await?;
    println!("{objects} objects applied after {:.1} s", began.elapsed().as_secs_f64());
    until_ready(&view, began).await.with_context(|| format!("the log is {}", controller.log().display()))?;
    let ready = began.elapsed().as_secs_f64();
    if let Some(sheet) = sheet {
        weigh(sheet, &controller, objects)?;
        restart(layout, sheet, server.cluster(), controller).await?;
    }
    stop.store(true, Ordering::Relaxed);
    faking.await.context("the faker panicked")??;
    Ok(ready)
}

fn weigh(sheet: &mut Sheet, controller: &Controller, objects: usize) -> anyhow::Result<()> {
    let requests = controller.requests()?;
    let count: u64 = requests.values().sum();
    let by_kind: serde_json::Map<_, _> =
        requests.iter().map(|((verb, resource), count)| (format!("{verb} {resource}"), json!(count))).collect();
    sheet.note("rss_peak_mib", proc::memory_mib(controller.pid(), "VmHWM")?, json!({}))?;
    sheet.note("requests_per_object", ratio(count, objects), json!({"objects": objects, "requests": by_kind}))?;
    sheet.note("cpu_seconds", proc::cpu(controller.pid())?.as_secs_f64(), json!({}))
}

async fn restart(layout: &Layout, sheet: &mut Sheet, cluster: &Cluster, controller: Controller) -> anyhow::Result<()> {
    // What the last receipts have set off is written before the restart, or it would be counted as the restart's.
    until_quiet(&controller).await?;
    drop(controller);
    let controller = Controller::start(layout, cluster)?;
    tokio::time::sleep(QUIET).await;
    let requests = controller.requests()?;
    let written: serde_json::Map<_, _> = requests
        .iter()
        .filter(|((verb, _), _)| !["get", "list", "watch"].contains(&verb.as_str()))
        .map(|((verb, resource), count)| (format!("{verb} {resource}"), json!(count)))
        .collect();
    let details =
        json!({"watched_seconds": QUIET.as_secs(), "written": written, "requests": requests.values().sum::<u64>()});
    sheet.note("restart_writes", ratio(writes(&requests), 1), details)
}

/// Two whole numbers that are far below what an f64 holds exactly.
#[expect(clippy::cast_precision_loss, reason = "counts of requests and objects are below 2^52")]
fn ratio(count: u64, of: usize) -> f64 {
    count as f64 / of as f64
}

/// An administrator's client: it stands for the people who declare, and for the faked pods.
pub async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig =
        kube::config::Kubeconfig::read_from(cluster.kubeconfig()).context("failed to read the kubeconfig")?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    Client::try_from(config).context("failed to make a client")
}

async fn put<K>(api: Api<K>, object: &K) -> anyhow::Result<()>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let name = object.meta().name.clone().unwrap_or_default();
    let parameters = PatchParams::apply("bench").force();
    api.patch(&name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("failed to apply {name}"))?;
    Ok(())
}

/// Applies everything in the order of dependence; the answer is how many objects of ours there are.
pub async fn apply(client: &Client, federation: &Federation) -> anyhow::Result<usize> {
    use futures_util::{StreamExt, TryStreamExt, stream};
    macro_rules! put_all {
        ($objects:expr, $api:expr) => {
            stream::iter($objects.iter())
                .map(Ok::<_, anyhow::Error>)
                .try_for_each_concurrent(8, |object| {
                    put($api(object.meta().namespace.clone().unwrap_or_default()), object)
                })
                .await?
        };
    }
    let scoped = |_: String| Api::all(client.clone());
    put(Api::all(client.clone()), &federation.anchor).await?;
    put_all!(federation.namespaces, scoped);
    put_all!(federation.role_bindings, |namespace: String| Api::namespaced(client.clone(), &namespace));
    put_all!(federation.descriptions, |namespace: String| Api::namespaced(client.clone(), &namespace));
    put_all!(federation.members, |namespace: String| Api::namespaced(client.clone(), &namespace));
    put_all!(federation.servers, |namespace: String| Api::namespaced(client.clone(), &namespace));
    Ok(1 + federation.members.len() + federation.servers.len())
}

async fn until_ready(view: &View, began: Instant) -> anyhow::Result<()> {
    let mut told = Instant::now();
    loop {
        let (anchors, members, servers) = (view.anchors.state(), view.members.state(), view.servers.state());
        let anchors = anchors.iter().map(|o| is_ready(o.status.as_ref().map(|s| &s.conditions[..]), &o.metadata));
        let members = members.iter().map(|o| is_ready(o.status.as_ref().map(|s| &s.conditions[..]), &o.metadata));
        let servers = servers.iter().map(|o| is_ready(o.status.as_ref().map(|s| &s.conditions[..]), &o.metadata));
        let all: Vec<bool> = anchors.chain(members).chain(servers).collect();
        let ready = all.iter().filter(|ready| **ready).count();
        if !all.is_empty() && ready == all.len() {
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(10) {
            println!("{ready} of {} objects are Ready after {:.0} s", all.len(), began.elapsed().as_secs_f64());
            told = Instant::now();
        }
        anyhow::ensure!(began.elapsed() < BOUND, "{ready} of {} objects are Ready after {BOUND:?}", all.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_ready(conditions: Option<&[Condition]>, metadata: &ObjectMeta) -> bool {
    conditions.unwrap_or_default().iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.observed_generation == metadata.generation
    })
}

/// Waits until the controller has written nothing for ten seconds.
async fn until_quiet(controller: &Controller) -> anyhow::Result<()> {
    let (began, mut last, mut since) = (Instant::now(), 0, Instant::now());
    while since.elapsed() < Duration::from_secs(10) {
        let now = writes(&controller.requests()?);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        anyhow::ensure!(began.elapsed() < BOUND, "the controller still writes {BOUND:?} after all was Ready");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
