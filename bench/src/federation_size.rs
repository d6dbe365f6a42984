//! `federation-size`: a federation of Estonia's size from nothing to all Ready, pods faked; then a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use saatkond_testbed::{Cluster, Layout};
use saatkond_xtask::estonia::{self, Federation};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use super::calibration::{self, Before, Run};
use super::controller::{Controller, Counts, api_server, asked, writes};
use super::view::View;
use super::{Goal, Sheet, faker, proc};

/// What is measured.
pub const GOALS: &[Goal] = &[
    Goal { metric: "ready_seconds", unit: "s", target: Some(READY) },
    Goal { metric: "rss_peak_mib", unit: "MiB", target: Some("<= 64") },
    Goal { metric: "requests_per_object", unit: "", target: None },
    Goal { metric: "cpu_seconds", unit: "s", target: None },
    Goal { metric: "restart_writes", unit: "", target: Some("== 0") },
];

/// The bound on `ready_seconds`.
const READY: &str = "<= 60";
/// Beyond this the run has failed; its values would say nothing.
const BOUND: Duration = Duration::from_mins(10);
/// For how long a restarted controller must have asked for nothing.
const QUIET: Duration = Duration::from_secs(30);
/// Within this it must be so far: ten minutes after they were made, start copies are written anew, and that is not the restart's doing.
const RESTART: Duration = Duration::from_mins(5);

/// A time is the median of as many runs, each on an API server of its own.
const RUNS: usize = 5;

/// Runs it.
pub async fn run(layout: &Layout, sheet: &mut Sheet) -> anyhow::Result<()> {
    let (mut runs, mut peaks) = (Vec::with_capacity(RUNS), Vec::with_capacity(RUNS));
    for number in 1..=RUNS {
        let before = Before::take(&layout.root().join("target/bench"))?;
        let (value, peak) = once(layout, (number == RUNS).then_some(&mut *sheet)).await?;
        println!("run {number} of {RUNS}: {value:.1} s and {peak:.1} MiB {before}");
        runs.push(Run { value, before });
        peaks.push(peak);
    }
    let (ready, details) = calibration::judged(&runs, READY)?;
    sheet.note("ready_seconds", ready, details)?;
    // What the controller may take is what it takes at the worst, on whatever machine.
    let worst = peaks.iter().copied().max_by(f64::total_cmp).context("there was no run")?;
    sheet.note("rss_peak_mib", worst, json!({"runs": peaks}))
}

/// One federation from nothing; the answer is after how many seconds all was Ready, and the controller's largest resident memory until
/// then in MiB. Counts and the restart go to the sheet of one of the runs: they do not depend on how busy the machine is.
async fn once(layout: &Layout, sheet: Option<&mut Sheet>) -> anyhow::Result<(f64, f64)> {
    let server = api_server(layout)?;
    let client = client(server.cluster()).await?;
    let federation = estonia::federation()?;
    let controller = Controller::start(layout, server.cluster())?;
    let stop = Arc::new(AtomicBool::new(false));
    let view = Arc::new(View::open(&client).await?);
    let mut faking = tokio::spawn(faker::run(client.clone(), view.clone(), stop.clone()));

    let began = Instant::now();
    let objects = apply(&client, &federation).await?;
    println!("{objects} objects applied after {:.1} s", began.elapsed().as_secs_f64());
    let ready = until_ready(&view, objects, began, &mut faking).await;
    ready.with_context(|| format!("the log is {}", controller.log().display()))?;
    let measured = (began.elapsed().as_secs_f64(), proc::memory_mib(controller.pid(), "VmHWM")?);
    if let Some(sheet) = sheet {
        weigh(sheet, &controller, objects)?;
        restart(layout, sheet, server.cluster(), controller, &federation).await?;
    }
    stop.store(true, Ordering::Relaxed);
    faking.await.context("the faker panicked")??;
    Ok(measured)
}

fn weigh(sheet: &mut Sheet, controller: &Controller, objects: usize) -> anyhow::Result<()> {
    let requests = controller.requests()?;
    let count: u64 = requests.values().sum();
    let details = json!({"objects": objects, "requests": listed(&requests)});
    sheet.note("requests_per_object", ratio(count, objects), details)?;
    sheet.note("cpu_seconds", proc::cpu(controller.pid())?.as_secs_f64(), json!({}))
}

async fn restart(
    layout: &Layout,
    sheet: &mut Sheet,
    cluster: &Cluster,
    controller: Controller,
    federation: &Federation,
) -> anyhow::Result<()> {
    // What the last receipts have set off is written before the restart, or it would be counted as the restart's.
    until_quiet(&controller).await?;
    drop(controller);
    let controller = Controller::start(layout, cluster)?;
    let Counts { requests, reconciles, .. } = until_looked_at(&controller, federation).await?;
    let written = requests.iter().filter(|((verb, _), _)| !["get", "list", "watch"].contains(&verb.as_str()));
    let details = json!({
        "quiet_seconds": QUIET.as_secs(), "written": listed(written), "requests": requests.values().sum::<u64>(),
        "reconciles": listed(&reconciles),
    });
    sheet.note("restart_writes", ratio(writes(&requests), 1), details)
}

/// Counts by two words, as details.
fn listed<'a>(counts: impl IntoIterator<Item = (&'a (String, String), &'a u64)>) -> Map<String, Value> {
    counts.into_iter().map(|((one, other), count)| (format!("{one} {other}"), json!(count))).collect()
}

/// Waits until a restarted controller has looked at everything and has nothing more to ask; the answer is what it has counted by then.
/// One that does not get to work writes nothing either.
async fn until_looked_at(controller: &Controller, federation: &Federation) -> anyhow::Result<Counts> {
    let (began, mut last, mut since) = (Instant::now(), 0, Instant::now());
    loop {
        let counts = controller.counts()?;
        let (now, missing) = (asked(&counts.requests), missing(&counts, federation));
        if now != last || !missing.is_empty() {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= QUIET {
            return Ok(counts);
        }
        if began.elapsed() > RESTART {
            let state = if missing.is_empty() { "it still asks".to_owned() } else { missing.join(", ") };
            bail!(
                "{RESTART:?} after its restart the controller is not done: {state}; the requests were {:?}, the reconciles {:?}; the \
                 log is {}",
                counts.requests,
                counts.reconciles,
                controller.log().display()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What a controller lacks that has looked at every object of the federation.
fn missing(counts: &Counts, federation: &Federation) -> Vec<String> {
    let count = |of: &BTreeMap<(String, String), u64>, one: &str, other: &str| {
        of.get(&(one.to_owned(), other.to_owned())).copied().unwrap_or(0)
    };
    let looks = |kind: &str| count(&counts.reconciles, kind, "ok");
    let (members, servers) = (federation.members.len() as u64, federation.servers.len() as u64);
    let parts = [
        ("looks at the TrustAnchor", looks("TrustAnchor"), 1),
        ("looks at Members", looks("Member"), members),
        ("looks at SecurityServers", looks("SecurityServer"), servers),
        // Before it is known whether a namespace is admitted, a look ends well at once. One that goes on reads the server's Deployment.
        ("reads of Deployments", count(&counts.requests, "get", "deployments"), servers),
    ];
    let short = parts.into_iter().filter(|(_, found, wanted)| found < wanted);
    let short = short.map(|(what, found, wanted)| format!("{found} {what} where {wanted} are due"));
    (!counts.leads).then(|| "it does not lead".to_owned()).into_iter().chain(short).collect()
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
    Ok(federation.size())
}

/// Waits until as many objects as were applied are there, and all of them are Ready, which they do not become without who fakes the pods.
pub async fn until_ready(
    view: &View,
    objects: usize,
    began: Instant,
    faking: &mut JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut told = Instant::now();
    loop {
        let (there, ready) = view.count();
        if there == objects && ready == objects {
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(10) {
            println!("{ready} of {objects} objects are Ready after {:.0} s", began.elapsed().as_secs_f64());
            told = Instant::now();
        }
        if began.elapsed() > BOUND {
            bail!(
                "{ready} of {objects} objects are Ready after {BOUND:?}, {there} are there; those that are not Ready:\n{}",
                view.unready().join("\n")
            );
        }
        tokio::select! {
            ended = &mut *faking => {
                ended.context("the faker panicked")?.context("the faker gave up")?;
                bail!("the faker ended by itself");
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_does_nothing_is_not_taken_for_one_that_finds_nothing_to_do() {
        let federation = estonia::federation().unwrap();
        let key = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        let done = Counts {
            requests: BTreeMap::from([(key("get", "deployments"), 258)]),
            reconciles: BTreeMap::from([
                (key("TrustAnchor", "ok"), 3),
                (key("Member", "ok"), 472),
                (key("SecurityServer", "ok"), 300),
            ]),
            leads: true,
        };
        assert_eq!(missing(&done, &federation), Vec::<String>::new());
        assert_eq!(missing(&Counts { leads: false, ..done.clone() }, &federation), ["it does not lead"]);
        let mut some = done.clone();
        some.reconciles.insert(key("Member", "ok"), 471);
        some.reconciles.insert(key("Member", "failed"), 1);
        assert_eq!(missing(&some, &federation), ["471 looks at Members where 472 are due"]);
        let blind = Counts { requests: BTreeMap::new(), ..done };
        assert_eq!(missing(&blind, &federation), ["0 reads of Deployments where 258 are due"]);
        assert_eq!(missing(&Counts::default(), &federation).len(), 5);
    }
}
