//! The controller, in this process against the region's API server, with its real rights; it dies at its writes and is started again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use clap::Parser;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use saatkond_e2e::install::IMAGE;
use saatkond_operator::client::{Call, Fault, Verdict};
use saatkond_operator::run::{Surroundings, run_with};
use saatkond_operator::settings::Settings;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How a process ends at a write: before it is sent; after it was carried out; and, without an end, with its answer lost.
const WAYS: [Verdict; 3] = [Verdict::DieBefore, Verdict::DieAfter, Verdict::LoseAnswer];

/// How many processes in a row may end by themselves.
const MOST_ENDS: usize = 20;

/// What befalls the controller's requests.
#[derive(Debug)]
pub struct Fates {
    inner: Mutex<Inner>,
    died: Notify,
    deaths: AtomicU64,
    refused: AtomicU64,
    /// How many ways each write is cut in.
    ways: usize,
}

#[derive(Debug)]
struct Inner {
    /// Whether writes are cut at present.
    on: bool,
    /// The writes that there were, and in which ways each was cut.
    sites: BTreeMap<String, BTreeSet<usize>>,
    seed: u64,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deaths {
    /// Processes that died at a write.
    pub kills: u64,
    /// Requests that the API server seemed to refuse.
    pub refused: u64,
    /// Ways in which writes were cut.
    pub hit: usize,
    /// Ways in which they could have been.
    pub all: usize,
    /// Those that were not.
    pub missed: Vec<String>,
}

impl Fates {
    /// Every write that there is while they are on is cut in so many ways, up to three, each once.
    #[must_use]
    pub fn new(ways: usize, seed: u64) -> Arc<Self> {
        let inner = Inner { on: false, sites: BTreeMap::new(), seed: seed.max(1) };
        Arc::new(Self {
            inner: Mutex::new(inner),
            died: Notify::new(),
            deaths: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ways: ways.min(WAYS.len()),
        })
    }

    /// From now on.
    pub fn turn(&self, on: bool) {
        self.lock().on = on;
    }

    /// What became of it so far.
    #[must_use]
    pub fn deaths(&self) -> Deaths {
        let inner = self.lock();
        let missed = inner.sites.iter().filter(|(_, cut)| cut.len() < self.ways);
        Deaths {
            kills: self.deaths.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            hit: inner.sites.values().map(BTreeSet::len).sum(),
            all: inner.sites.len() * self.ways,
            missed: missed.map(|(site, cut)| format!("{site}: {} of {}", cut.len(), self.ways)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn judge(&mut self, call: &Call, ways: usize) -> Verdict {
        if !self.on {
            return Verdict::Pass;
        }
        if call.is_write() {
            let number = self.sites.len();
            let cut = self.sites.entry(site(call)).or_default();
            // Which is first differs from write to write.
            let next = (0..WAYS.len()).map(|way| (way + number) % WAYS.len()).find(|way| !cut.contains(way));
            if let Some(way) = next.filter(|_| cut.len() < ways) {
                cut.insert(way);
                return WAYS[way];
            }
        }
        match draw(&mut self.seed) % 50 {
            0 => Verdict::Answer(500),
            1 => Verdict::Answer(409),
            2 => Verdict::Answer(429),
            _ => Verdict::Pass,
        }
    }
}

/// The write that a request is: what is written, of which kind of object. Numbers are those of generations and of objects of one kind.
fn site(call: &Call) -> String {
    let mut text = format!("{} {}", call.verb, call.resource);
    if let Some(namespace) = &call.namespace {
        text.push_str(" in ");
        text.push_str(namespace);
    }
    let mut name = String::new();
    for letter in call.name.iter().flat_map(|name| name.chars()) {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        // The ninth and the tenth of a kind are of one kind.
        if letter != '#' || !name.ends_with('#') {
            name.push(letter);
        }
    }
    // An event has a name of its own each time.
    if !name.is_empty() && call.resource != "events" {
        text.push(' ');
        text.push_str(&name);
    }
    text
}

impl Fault for Fates {
    fn judge(&self, call: &Call) -> Verdict {
        if call.resource == "leases" || call.verb == "watch" {
            return Verdict::Pass;
        }
        let verdict = self.lock().judge(call, self.ways);
        self.refused.fetch_add(u64::from(matches!(verdict, Verdict::Answer(_))), Ordering::Relaxed);
        verdict
    }

    fn died(&self) {
        self.deaths.fetch_add(1, Ordering::Relaxed);
        self.died.notify_one();
    }
}

/// The next number of a sequence that the seed alone decides (xorshift64*).
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// Runs it until `stop`, a process after the other.
pub async fn run(kubeconfig: &Path, fates: Arc<Fates>, stop: CancellationToken) -> anyhow::Result<()> {
    // As the chart installs it but for its lease: a process that has died is not waited for.
    let arguments =
        ["operator", "--image", IMAGE, "--identity=under-load", "--lease-seconds=3", "--longest-backoff-seconds=2"];
    let settings = Arguments::try_parse_from(arguments).context("the controller's settings")?.settings;
    let mut ends = 0;
    while !stop.is_cancelled() {
        let read = Kubeconfig::read_from(kubeconfig).context("failed to read the controller's kubeconfig")?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        let mut surroundings = Surroundings::with(config);
        surroundings.fault = Some(fates.clone());
        let mut process = tokio::spawn(run_with(settings.clone(), surroundings, stop.clone()));
        tokio::select! {
            ended = &mut process => match ended {
                Ok(Ok(())) if stop.is_cancelled() => return Ok(()),
                Ok(Ok(())) => anyhow::bail!("the controller has ended by itself"),
                // Refused where it starts: Kubernetes would start it again.
                Ok(Err(error)) if ends < MOST_ENDS => {
                    ends += 1;
                    eprintln!("the controller has ended and is started again: {error}");
                }
                Ok(Err(error)) => return Err(error).context("the controller ends again and again"),
                Err(error) => return Err(error).context("the controller has panicked"),
            },
            () = fates.died.notified() => {
                process.abort();
                let _ = process.await;
                ends = 0;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(name: &str) -> Call {
        let (group, resource) = ("saatkond.io".into(), "trustanchors/status".into());
        Call { verb: "patch", group, resource, namespace: None, name: Some(name.into()), manager: None }
    }

    #[test]
    fn every_write_is_cut_in_each_way_once_while_it_is_on() {
        let fates = Fates::new(2, 7);
        let judge = |name: &str| fates.judge(&write(name));
        assert_eq!((judge("ca-1"), fates.deaths().all), (Verdict::Pass, 0));
        fates.turn(true);
        assert_eq!([judge("ca-9"), judge("ca-10"), judge("link-3")], [WAYS[0], WAYS[1], WAYS[1]]);
        let deaths = fates.deaths();
        assert_eq!(
            (deaths.hit, deaths.all, deaths.missed),
            (3, 4, vec!["patch trustanchors/status link-#: 1 of 2".into()])
        );
        // From here on it is refused now and then, as any other request.
        assert!((0..100).all(|_| matches!(judge("ca-1"), Verdict::Pass | Verdict::Answer(_))));
        assert!(fates.deaths().refused > 0);
    }
}
