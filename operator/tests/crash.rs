//! A crash at every write to the API server, in three variants: before it is sent; carried out, and the process dies;
//! carried out, and the answer is lost. After each, a new process must reach what a run without faults reaches, with the
//! same objects made and deleted as often.
//!
//! All plans run on one API server. A plan is a federation with names of its own, so nothing of one is in another's way.
//! Writes of the lease are not cut: when they happen is a matter of time, and losing it has tests of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use saatkond_operator::client::{Call, Fault, Verdict};
use serde_json::Value;
use support::{Bed, bed, federation, objects, remove};
use tokio::sync::Notify;

/// Cuts one write, and counts them all.
struct Cut {
    at: Option<(usize, Verdict)>,
    writes: AtomicUsize,
    sites: Mutex<Vec<String>>,
    died: Notify,
}

impl Cut {
    fn new(at: Option<(usize, Verdict)>) -> Arc<Self> {
        Arc::new(Self { at, writes: AtomicUsize::new(0), sites: Mutex::default(), died: Notify::new() })
    }
}

impl Fault for Cut {
    fn judge(&self, call: &Call) -> Verdict {
        if !call.is_write() || call.resource == "leases" {
            return Verdict::Pass;
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        self.sites.lock().unwrap().push(call.to_string());
        match self.at {
            Some((at, verdict)) if at == number => verdict,
            _ => Verdict::Pass,
        }
    }

    fn died(&self) {
        self.died.notify_one();
    }
}

/// How often each object was made and deleted, by name with the stem taken out.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, Life>>>);

/// The UIDs under which an object was seen, and how often it was deleted.
type Life = (Vec<String>, usize);

impl Ledger {
    fn open(client: &Client) -> (Self, tokio::task::JoinSet<()>) {
        let ledger = Self::default();
        let mut tasks = tokio::task::JoinSet::new();
        for kind in support::kinds() {
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &kind);
            let (ledger, name) = (ledger.clone(), kind.kind.clone());
            tasks.spawn(async move {
                let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
                while let Some(event) = stream.next().await {
                    let (object, gone) = match event {
                        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
                        Ok(watcher::Event::Delete(object)) => (object, true),
                        _ => continue,
                    };
                    let key = format!("{name} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
                    let mut all = ledger.0.lock().unwrap();
                    let entry = all.entry(key).or_default();
                    let uid = object.uid().unwrap_or_default();
                    if gone {
                        entry.1 += 1;
                    } else if !entry.0.contains(&uid) {
                        entry.0.push(uid);
                    }
                }
            });
        }
        (ledger, tasks)
    }

    /// Creates and deletes per object of one plan.
    fn of(&self, stem: &str) -> BTreeMap<String, (usize, usize)> {
        let all = self.0.lock().unwrap();
        let ours =
            all.iter().filter(|(key, _)| key.contains(&format!("/{stem}-")) || key.contains(&format!(" {stem}-")));
        ours.filter(|(key, _)| !key.ends_with("/kube-root-ca.crt"))
            .map(|(key, (made, gone))| (key.replace(stem, "STEM"), (made.len(), *gone)))
            .collect()
    }
}

/// What is the same in every run: times, numbers of versions and random material are not.
fn normal(value: &Value, stem: &str) -> Value {
    const VARIES: [&str; 22] = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "lastTransitionTime",
        "serial",
        "ski",
        "hash",
        "notBefore",
        "notAfter",
        "renewAt",
        "signedAt",
        "expiresAt",
        "servesWithoutOperatorUntil",
        "spkiSha256",
        "binaryData",
        "data",
        "version",
        "instanceVersion",
        "serverVersion",
        "observedGeneration",
    ];
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !VARIES.contains(&&***key) && !key.starts_with("saatkond.io/"))
            .filter(|(key, _)| {
                !matches!(
                    &***key,
                    "issueNumber" | "clusterIP" | "clusterIPs" | "since" | "deployment.kubernetes.io/revision"
                )
            })
            .map(|(key, value)| (key.replace(stem, "STEM"), normal(value, stem)))
            .collect(),
        Value::Array(items) => items.iter().map(|item| normal(item, stem)).collect(),
        // Upper case is the instance. Anchor keys are random.
        Value::String(text) if text.split(',').all(|part| part.len() == 44 && part.ends_with('=')) => "KEYS".into(),
        Value::String(text) => text.replace(stem, "STEM").replace(&stem.to_uppercase(), "STEM").into(),
        other => other.clone(),
    }
}

async fn state(client: &Client, stem: &str) -> BTreeMap<String, Value> {
    let all = objects(client, stem).await;
    all.into_iter().map(|(key, value)| (key.replace(stem, "STEM"), normal(&value, stem))).collect()
}

fn difference(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> String {
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:#}"));
    let mut lines = Vec::new();
    for key in keys.into_iter().filter(|key| one.get(*key) != other.get(*key)) {
        let (expected, found) = (show(one.get(key)), show(other.get(key)));
        lines.push(format!("== {key}"));
        let lost = expected.lines().filter(|line| !found.contains(line.trim()));
        let new = found.lines().filter(|line| !expected.contains(line.trim()));
        lines.extend(lost.map(|line| format!("  expected {}", line.trim())));
        lines.extend(new.map(|line| format!("  found    {}", line.trim())));
    }
    lines.join("\n")
}

const SETTLED: Duration = Duration::from_secs(40);

/// A run without faults: what it reaches, and where it writes.
async fn reference(bed: &Bed, admin: &Client, stem: &str) -> (BTreeMap<String, Value>, Vec<String>) {
    let cut = Cut::new(None);
    let operator = bed.operator(Some(cut.clone()), &["--concurrency=1"]).await;
    bed.apply(&federation(stem));
    support::until_condition(admin, ("Member", &format!("{stem}-home"), "register"), "Registered", "True/AsDeclared")
        .await;
    support::until_condition(admin, ("SecurityServer", &format!("{stem}-home"), "ss1"), "Available", "True/AsDeclared")
        .await;
    // Settled: no write for a while.
    let mut last = (cut.writes.load(Ordering::SeqCst), Instant::now());
    support::until("the run without faults settles", SETTLED, || {
        let now = cut.writes.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        let calm = last.1.elapsed() > Duration::from_secs(3);
        async move { if calm { Ok(()) } else { Err(format!("{now} writes")) } }
    })
    .await;
    let reached = state(admin, stem).await;
    operator.crash().await;
    let sites = cut.sites.lock().unwrap().clone();
    (reached, sites)
}

/// One plan. Says what differed.
async fn plan(
    bed: &Bed,
    admin: &Client,
    stem: &str,
    at: (usize, Verdict),
    expected: &BTreeMap<String, Value>,
) -> Result<bool, String> {
    let cut = Cut::new(Some(at));
    let operator = bed.operator(Some(cut.clone()), &["--concurrency=1"]).await;
    bed.apply(&federation(stem));
    let mut reached = String::from("nothing was looked at");
    let mut operator = Some(operator);
    let mut died = false;
    let deadline = Instant::now() + SETTLED;
    while Instant::now() < deadline {
        tokio::select! {
            () = cut.died.notified(), if !died => {
                died = true;
                if let Some(dead) = operator.take() {
                    dead.crash().await;
                }
                // The same pod comes back: it holds the lease still.
                operator = Some(bed.operator(None, &["--concurrency=1"]).await);
            }
            () = tokio::time::sleep(Duration::from_millis(250)) => {
                // Not before the cut: the end state without it is no news.
                if cut.writes.load(Ordering::SeqCst) > at.0 {
                    let now = state(admin, stem).await;
                    if now == *expected {
                        if let Some(operator) = operator.take() {
                            operator.crash().await;
                        }
                        return Ok(true);
                    }
                    reached = difference(expected, &now);
                } else if state(admin, stem).await == *expected && cut.writes.load(Ordering::SeqCst) <= at.0 {
                    // This run needed fewer writes than the one without faults: there is nothing to cut.
                    if let Some(operator) = operator.take() {
                        operator.crash().await;
                    }
                    return Ok(false);
                }
            }
        }
    }
    if let Some(operator) = operator.take() {
        operator.crash().await;
    }
    Err(format!("not reached within {SETTLED:?}:\n{reached}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_single_crash_ends_where_a_run_without_faults_ends() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let (ledger, _watches) = Ledger::open(&admin);
    let (expected, sites) = reference(bed, &admin, "quiet0").await;
    let counts = ledger.of("quiet0");
    remove(&admin, "quiet0").await;
    assert!(sites.len() > 15, "{sites:#?}");
    let only = std::env::var("CRASH_PLAN").ok();
    let (mut plans, mut cut, mut failures) = (0, 0, Vec::new());
    for (number, site) in sites.iter().enumerate() {
        for (letter, verdict) in [("a", Verdict::DieBefore), ("b", Verdict::DieAfter), ("c", Verdict::LoseAnswer)] {
            let stem = format!("p{number}{letter}");
            if only.as_ref().is_some_and(|only| *only != stem) {
                continue;
            }
            plans += 1;
            match plan(bed, &admin, &stem, (number, verdict), &expected).await {
                Ok(was_cut) => cut += usize::from(was_cut),
                Err(why) => {
                    // At once, so that a long run shows where it stands.
                    eprintln!("{stem} {verdict:?} at {site}: {why}");
                    failures.push(format!("{stem} {verdict:?} at {site}: {why}"));
                }
            }
            let made = ledger.of(&stem);
            if made != counts {
                let differing: Vec<_> = made.iter().filter(|(key, value)| counts.get(*key) != Some(value)).collect();
                failures.push(format!("{stem} {verdict:?} at {site}: made or deleted otherwise: {differing:?}"));
            }
            remove(&admin, &stem).await;
        }
    }
    println!("crash plans: {plans} over {} write sites ({cut} cut, {} failed)", sites.len(), failures.len());
    faker.abort();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
