//! An operator with nothing to do writes nothing, and what falls due is written once.
//!
//! A day of the operator's own time passes in well under a minute: its clock ([`saatkond_operator::clock::Clock`]) runs at
//! the usual pace, and is put forward by two and a half minutes as soon as all that the last step has caused is over. By
//! that clock run the queue with its regular looks, renewals, documents, caches, the lease and its fence. Not by it run
//! watches (kube has a clock of its own): they end after 10 s here, so that many are opened anew in that minute.
//!
//! With `SAATKOND_CRASH=deep` (`make crash`) five real minutes are waited for too, with watches as they are by default.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use saatkond_operator::client::{Call, Fault, Verdict};
use saatkond_operator::clock::{Clock, Pause};
use saatkond_operator::context::Pace;
use serde_json::{Value, json};
use support::{SYSTEM, bed, federation, get, remove, until, until_condition};
use tokio::sync::watch;

/// A clock that runs at the usual pace and can be put forward.
struct Forward {
    started: Instant,
    began: Timestamp,
    skipped: watch::Sender<Duration>,
    /// Reconciles under way: each is bounded by a pause of its own length.
    reconciles: Arc<AtomicUsize>,
    /// One while the holder of the lease waits for its next renewal, and none while it renews.
    resting: Arc<AtomicUsize>,
}

/// Counts one while it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Forward {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            began: Timestamp::now(),
            skipped: watch::Sender::new(Duration::ZERO),
            reconciles: Arc::default(),
            resting: Arc::default(),
        })
    }

    fn skip(&self, by: Duration) {
        self.skipped.send_modify(|skipped| *skipped += by);
    }
}

impl Clock for Forward {
    fn now(&self) -> Timestamp {
        self.began + SignedDuration::try_from(self.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed() + *self.skipped.borrow()
    }

    fn pause(&self, duration: Duration) -> Pause {
        let counted = if duration == Pace::default().reconcile_timeout {
            Some(Counted::new(&self.reconciles))
        } else {
            (duration == LEASE / 7).then(|| Counted::new(&self.resting))
        };
        let (mut skips, end, started) = (self.skipped.subscribe(), self.elapsed() + duration, self.started);
        Box::pin(async move {
            let _counted = counted;
            loop {
                let left = end.saturating_sub(started.elapsed() + *skips.borrow_and_update());
                if left.is_zero() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    Ok(()) = skips.changed() => {}
                }
            }
        })
    }
}

/// Keeps every write but the lease's, and when anything was asked last.
struct Writes {
    clock: Arc<Forward>,
    all: Mutex<Vec<(Timestamp, String)>>,
    last: Mutex<Instant>,
}

impl Writes {
    /// Those since the last call.
    fn take(&self) -> Vec<(Timestamp, String)> {
        std::mem::take(&mut self.all.lock().unwrap())
    }

    fn quiet(&self) -> Duration {
        self.last.lock().unwrap().elapsed()
    }
}

impl Fault for Writes {
    fn judge(&self, call: &Call) -> Verdict {
        if call.resource != "leases" && call.verb != "watch" {
            *self.last.lock().unwrap() = Instant::now();
            if call.is_write() {
                self.all.lock().unwrap().push((self.clock.now(), call.to_string()));
            }
        }
        Verdict::Pass
    }

    fn died(&self) {}
}

/// The operator's time, and what is seen of the operator in it.
struct Passing {
    clock: Arc<Forward>,
    writes: Arc<Writes>,
    leases: Api<Lease>,
}

/// Below the two thirds of the longest lease after which its holder gives up.
const STEP: Duration = Duration::from_secs(150);
const LEASE: Duration = Duration::from_mins(5);

impl Passing {
    /// Lets time pass until then, and what it causes come to its end.
    async fn until(&self, then: Timestamp) {
        while self.clock.now() < then {
            let left = Duration::try_from(then.duration_since(self.clock.now())).unwrap_or_default();
            let before = self.clock.now();
            let written = self.writes.all.lock().unwrap().len();
            self.clock.skip(left.min(STEP));
            if left < STEP {
                // Too short a step for the lease to be renewed.
                self.calm(Duration::from_millis(300)).await;
                continue;
            }
            until("the lease is renewed", Duration::from_secs(20), || async {
                let lease = self.leases.get("saatkond-controller").await.unwrap();
                let renewed = lease.spec.and_then(|spec| spec.renew_time).unwrap();
                if renewed.0 > before { Ok(()) } else { Err(format!("{renewed:?}")) }
            })
            .await;
            self.calm(Duration::from_millis(10)).await;
            if self.writes.all.lock().unwrap().len() > written {
                // A write wakes whom it concerns, after a moment.
                self.calm(Duration::from_millis(500)).await;
            }
        }
    }

    /// Neither a reconcile nor a renewal of the lease under way, and nothing asked for so long.
    async fn calm(&self, bound: Duration) {
        until("the operator is calm", Duration::from_secs(30), || async {
            let (reconciles, resting) = (&self.clock.reconciles, &self.clock.resting);
            let (under_way, resting) = (reconciles.load(Ordering::SeqCst), resting.load(Ordering::SeqCst) == 1);
            let quiet = self.writes.quiet();
            if under_way == 0 && resting && quiet >= bound {
                Ok(())
            } else {
                Err(format!("{under_way} under way, resting: {resting}, {quiet:?}"))
            }
        })
        .await;
    }
}

/// A federation whose leaves live a day, so that a day sees them renewed.
fn declared(stem: &str) -> String {
    let change = |part: &str| {
        let mut object: Value = serde_json::from_str(part).unwrap();
        if object["kind"] == "TrustAnchor" {
            object["spec"]["autonomy"] = json!("8h");
            object["spec"]["leafPolicy"] = json!({"maxLifetime": "24h"});
        }
        object.to_string()
    };
    federation(stem).split("\n---\n").map(change).collect::<Vec<_>>().join("\n---\n")
}

async fn until_up(admin: &Client, stem: &str) {
    let home = format!("{stem}-home");
    until_condition(admin, ("Member", &home, "register"), "Registered", "True/AsDeclared").await;
    until_condition(admin, ("SecurityServer", &home, "ss1"), "Available", "True/AsDeclared").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_day_exactly_what_falls_due_is_written_and_nothing_else() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let clock = Forward::new();
    let writes = Arc::new(Writes { clock: clock.clone(), all: Mutex::default(), last: Mutex::new(Instant::now()) });
    let arguments = ["--lease-seconds=300", "--watch-seconds=10"];
    let operator = bed.operator_by(clock.clone(), Some(writes.clone()), &arguments).await;
    bed.apply(&declared("idle"));
    until_up(&admin, "idle").await;
    let leases = Api::namespaced(admin.clone(), SYSTEM);
    let passing = Passing { clock: clock.clone(), writes: writes.clone(), leases };
    passing.calm(Duration::from_secs(2)).await;
    // A start copy takes a newer document only some minutes after the last: that belongs to setting up.
    passing.until(clock.now() + SignedDuration::from_mins(15)).await;
    writes.take();

    // Five minutes, as they are promised.
    let settled = clock.now();
    passing.until(settled + SignedDuration::from_mins(5)).await;
    assert_eq!(writes.take(), [], "five minutes in which nothing falls due");

    // Until the first certificate can fall due, at 55 % of its day, all is looked at many times, and nothing is written.
    let looks = || reconciles(&operator.metrics.text().unwrap());
    let before = looks();
    let server = get(&admin, "SecurityServer", "idle-home", "ss1").await.unwrap();
    let renewals = times(&server["status"], "renewAt");
    let renewal = *renewals.iter().min().unwrap();
    let first = settled + SignedDuration::from_hours(12);
    assert!(renewals.len() == 2 && renewal > first, "{renewals:?}");
    passing.until(first).await;
    assert_eq!(writes.take(), [], "hours in which nothing falls due");
    let looked = looks() - before;
    // Each of the three kinds at least once an hour, and a step of the clock later: eleven times in what is left of twelve hours.
    assert!(looked >= 33, "only {looked} looks in 12 hours");

    // The rest of the day: both certificates in one write, the documents each once, and what follows from them.
    // An hour more, since what nobody waits for is seen at a regular look.
    passing.until(settled + SignedDuration::from_hours(25)).await;
    let all = writes.take();
    let shown = all.iter().map(|(at, write)| format!("{at} {write}")).collect::<Vec<_>>().join("\n");
    let count = |write: &str| all.iter().filter(|(_, found)| found == write).count();
    let expected = [
        ("patch secrets in idle-home ss1-identity", 1),
        ("create events.events.k8s.io in idle-home", 1),
        ("patch secrets in saatkond-system saatkond-link-identity", 1),
        ("patch configmaps in saatkond-system idle-home.ss1-server-configuration", 1),
        ("patch configmaps in saatkond-system idle-instance-configuration", 1),
        // A copy of each document lies beside the gateways.
        ("patch configmaps in idle-home ss1-configuration", 2),
        // Renewed; its document signed; the key of before has ended with its certificate.
        ("patch securityservers/status.saatkond.io in idle-home ss1", 3),
    ];
    for (write, times) in expected {
        assert_eq!(count(write), times, "{write} among\n{shown}");
    }
    // How long all goes on by itself follows from what ends first: the certificates until they are renewed, then one
    // document or the other, as their spread has drawn.
    let anchor = count("patch trustanchors/status.saatkond.io idle");
    assert!((2..=4).contains(&anchor), "{shown}");
    let due = expected.iter().map(|(_, times)| times).sum::<usize>() + anchor;
    assert_eq!(all.len(), due, "something else was written:\n{shown}");
    let renewed = all.iter().find(|(_, write)| write == expected[0].0).unwrap().0;
    let late = renewed.duration_since(renewal);
    assert!(late >= SignedDuration::ZERO && late <= SignedDuration::try_from(STEP * 2).unwrap(), "{late}");
    operator.end().await;
    faker.abort();
    remove(&admin, "idle").await;
}

/// All times under this name, wherever they stand.
fn times(value: &Value, name: &str) -> Vec<Timestamp> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| {
                let found = value.as_str().filter(|_| key == name).map(|text| text.parse().unwrap());
                found.into_iter().chain(times(value, name)).collect::<Vec<_>>()
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| times(item, name)).collect(),
        _ => Vec::new(),
    }
}

/// How often anything was looked at with success.
fn reconciles(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("saatkond_reconciles_total{"));
    let ok = lines.filter(|line| line.contains("result=\"ok\""));
    ok.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// The same in real time, five minutes long: no clock but the machine's.
#[tokio::test(flavor = "multi_thread")]
async fn five_real_minutes_without_a_write() {
    if std::env::var("SAATKOND_CRASH").is_ok_and(|mode| mode == "deep") {
        let bed = bed();
        let _turn = bed.turn.lock().await;
        let admin = bed.admin().await;
        let faker = support::fake_deployments(admin.clone());
        let operator = bed.operator(None, &[]).await;
        bed.apply(&federation("real"));
        until_up(&admin, "real").await;
        let mut last = (operator.writes(), Instant::now());
        until("five minutes without a write", Duration::from_mins(8), || {
            let now = operator.writes();
            if now != last.0 {
                last = (now, Instant::now());
            }
            let since = last.1.elapsed();
            async move { if since >= Duration::from_mins(5) { Ok(()) } else { Err(format!("{now} writes, {since:?}")) } }
        })
        .await;
        operator.end().await;
        faker.abort();
        remove(&admin, "real").await;
    } else {
        println!("NOT RUN: five real minutes of idling: they are part of make crash");
    }
}
