//! Where plans are carried out: an API server, processes of the operator one after the other, and what must hold in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use saatkond_api::names::{API_VERSION, entry, manager};
use saatkond_pki::configuration_key::ConfigurationKey;
use saatkond_wire::configuration::InstanceConfiguration;
use saatkond_wire::document;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::ledger::Ledger;
use crate::life::{Fate, Life, Site};
use crate::scenario::{Scenario, declare};
use crate::state::{difference, objects, state, within};
use crate::support::{self, Bed, Operator, SYSTEM};

/// How long a plan may take. Far above the usual seconds: other programs may have the cores.
pub const BOUND: Duration = Duration::from_mins(1);
/// No request for so long: nothing is under way, and nothing that was seen waits to be looked at.
pub const CALM: Duration = Duration::from_millis(400);
/// No write for so long although all is reached: the write that was to be cut does not come.
pub const OVER: Duration = Duration::from_secs(3);

/// An API server with what stands beside every plan on it.
pub struct Stage {
    bed: &'static Bed,
    admin: Client,
    ledger: Ledger,
    faker: JoinHandle<()>,
    gateways: JoinHandle<()>,
    /// End with it.
    _watches: JoinSet<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.faker.abort();
        self.gateways.abort();
    }
}

/// What a run without faults reaches.
pub struct Reference {
    pub reached: BTreeMap<String, Value>,
    pub counts: BTreeMap<String, (usize, usize)>,
    pub sites: Vec<Site>,
}

impl Stage {
    pub async fn open(bed: &'static Bed) -> Self {
        let admin = bed.admin().await;
        let (ledger, watches) = Ledger::open(&admin);
        let faker = support::fake_deployments(admin.clone());
        let gateways = support::fake_receipts(admin.clone());
        Self { bed, admin, ledger, faker, gateways, _watches: watches }
    }

    pub async fn start(&self, fate: Fate, concurrency: &str) -> (Arc<Life>, Operator) {
        let life = Life::new(fate);
        let operator = self.bed.operator(Some(life.clone()), &[&format!("--concurrency={concurrency}")]).await;
        (life, operator)
    }

    /// Brings federations up, all at once, and leaves them alone when nothing more is written.
    pub async fn bring_up(&self, stems: &[String]) {
        if stems.is_empty() {
            return;
        }
        join_all(stems.iter().map(|stem| declare(&self.admin, stem))).await;
        let (life, operator) = self.start(Fate::Well, "16").await;
        for stem in stems {
            self.until_up(stem).await;
        }
        self.until_settled(&life).await;
        operator.crash().await;
    }

    pub async fn until_up(&self, stem: &str) {
        let home = format!("{stem}-home");
        for (kind, name, condition) in [("Member", "register", "Registered"), ("SecurityServer", "ss1", "Available")] {
            // Many come up at once.
            support::until(&format!("{kind} of {stem} {condition}"), BOUND * 2, || async {
                let seen = support::condition(&self.admin, kind, &home, name, condition).await?;
                if seen == "True/AsDeclared" { Ok(()) } else { Err(seen) }
            })
            .await;
        }
    }

    pub async fn until_settled(&self, life: &Life) {
        support::until("no more writes", BOUND, || async {
            let (_, written) = life.quiet();
            if written > Duration::from_secs(2) { Ok(()) } else { Err(format!("{:#?}", life.sites.lock().unwrap())) }
        })
        .await;
    }

    /// A run without faults: what it reaches, and where it writes.
    pub async fn reference(&self, scenario: Scenario, stem: &str) -> Reference {
        if scenario != Scenario::SetUp {
            self.bring_up(&[stem.to_owned()]).await;
            scenario.begin(&self.admin, stem).await;
        }
        let (life, operator) = self.start(Fate::Well, "1").await;
        if scenario == Scenario::SetUp {
            scenario.begin(&self.admin, stem).await;
        }
        if scenario == Scenario::Departure {
            support::until("the anchor is gone", BOUND, || async {
                let seen = within(&self.admin, "TrustAnchor", "").get_opt(stem).await.unwrap();
                seen.map_or(Ok(()), |anchor| Err(format!("{anchor:#?}")))
            })
            .await;
        } else {
            self.until_up(stem).await;
        }
        if scenario.is_rotation() {
            support::until_authority(&self.admin, stem, 2).await;
        }
        self.until_settled(&life).await;
        let reached = state(&self.admin, stem).await;
        operator.crash().await;
        let counts = self.ledger.caught_up(stem, &reached.keys().cloned().collect()).await;
        let sites = Site::all(&life.sites.lock().unwrap(), stem);
        self.check(scenario, stem, &reached).await.unwrap();
        self.clear(stem).await;
        Reference { reached, counts, sites }
    }

    /// One plan: processes with these fates one after the other, and a last one that is well. Answers how many of the
    /// fates came to pass.
    pub async fn plan(
        &self,
        scenario: Scenario,
        stem: &str,
        fates: &[Fate],
        wanted: &Reference,
    ) -> Result<usize, String> {
        if scenario != Scenario::SetUp {
            scenario.begin(&self.admin, stem).await;
        }
        let mut fates = fates.iter().map(|fate| fate.clone().of(stem));
        let first = fates.next().unwrap_or(Fate::Well);
        let mut last = matches!(first, Fate::Well);
        let (mut life, operator) = self.start(first, "1").await;
        // Taken out while it is replaced; dropping it ends it as a crash would.
        let mut operator = Some(operator);
        if scenario == Scenario::SetUp {
            scenario.begin(&self.admin, stem).await;
        }
        let (mut struck, mut leading, mut died) = (0, None, false);
        let mut missing = String::from("nothing was looked at");
        let deadline = Instant::now() + BOUND;
        while Instant::now() < deadline {
            let over = tokio::select! {
                () = life.died.notified(), if !died => {
                    died = true;
                    true
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    let runs = operator.as_ref().is_some_and(|operator| {
                        operator.metrics.leading.get() == 1 && operator.readiness.list().is_empty()
                    });
                    if !runs {
                        continue;
                    }
                    let since = *leading.get_or_insert_with(Instant::now);
                    let (asked, written) = life.quiet();
                    if since.elapsed() < CALM || asked < CALM {
                        continue;
                    }
                    let now = state(&self.admin, stem).await;
                    missing = difference(&wanted.reached, &now);
                    // Nothing more to come: the fate has come to pass, there is none, or it would have by now.
                    now == wanted.reached && (last || life.struck() > 0 || (written > OVER && since.elapsed() > OVER))
                }
            };
            if !over {
                continue;
            }
            struck += life.struck().min(1);
            if let Some(ended) = operator.take() {
                ended.crash().await;
            }
            if last {
                let there = wanted.reached.keys().cloned().collect();
                let counts = self.ledger.caught_up(stem, &there).await;
                if counts != wanted.counts {
                    let differ: Vec<_> =
                        counts.iter().filter(|(key, value)| wanted.counts.get(*key) != Some(value)).collect();
                    return Err(format!("made or deleted otherwise: {differ:?}"));
                }
                self.check(scenario, stem, &wanted.reached).await?;
                return Ok(struck);
            }
            // The same pod comes back: it holds the lease still.
            let next = fates.next().unwrap_or(Fate::Well);
            last = matches!(next, Fate::Well);
            let (born, started) = self.start(next, "1").await;
            (life, operator, leading, died) = (born, Some(started), None, false);
        }
        if let Some(operator) = operator.take() {
            operator.crash().await;
        }
        Err(format!("not reached within {BOUND:?}:\n{missing}"))
    }

    /// What holds at the end of every run, whatever the run without faults did.
    pub async fn check(&self, scenario: Scenario, stem: &str, reached: &BTreeMap<String, Value>) -> Result<(), String> {
        for (key, value) in reached {
            let ours = format!("{} Update ", manager::SECURITY_SERVER);
            if value["managers"].as_array().into_iter().flatten().any(|held| *held == *ours) {
                return Err(format!("{key} holds fields of ours that are not applied: {}", value["managers"]));
            }
        }
        if scenario.is_rotation() {
            let has = |generation: u64| reached.contains_key(&format!("Secret {SYSTEM}/STEM-ca-{generation}"));
            let issuer = &reached["SecurityServer STEM-home/ss1"]["status"]["leaf"]["issuerGeneration"];
            if has(1) || !has(2) || *issuer != json!(2) {
                return Err(format!("generation 1 {}, 2 {}, leaf of {issuer}", has(1), has(2)));
            }
        }
        if scenario != Scenario::Departure {
            return Ok(());
        }
        let home = format!("{stem}-home");
        let gone = |key: String| self.ledger.gone(&key).ok_or_else(|| format!("{key} is not gone"));
        let server = gone(format!("SecurityServer {home}/ss1"))?;
        let document = gone(format!("ConfigMap {SYSTEM}/{home}.ss1-server-configuration"))?;
        let (member, anchor) = (gone(format!("Member {home}/register"))?, gone(format!("TrustAnchor /{stem}"))?);
        if !(document < server && member < anchor) {
            return Err(format!(
                "out of order: document {document}, server {server}, member {member}, anchor {anchor}"
            ));
        }
        // What stood published when the server went, and its pods with it, spoke of it no more.
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), SYSTEM);
        let mut keys = Vec::new();
        for generation in [1, 2] {
            let name = saatkond_api::names::configuration_key_secret(stem, generation);
            let data = secrets.get(&name).await.unwrap().data.unwrap();
            let text = String::from_utf8(data[entry::CONFIGURATION_KEY].0.clone()).unwrap();
            keys.push(ConfigurationKey::from_pkcs8_pem(&text).unwrap().public());
        }
        let all = self.ledger.published.lock().unwrap().get(stem).cloned().unwrap_or_default();
        let standing = all.iter().filter(|(version, _)| *version < server).max_by_key(|(version, _)| *version);
        let packed = &standing.ok_or("nothing was published")?.1;
        let found = document::open::<InstanceConfiguration>(packed, &keys).unwrap().payload;
        if found.servers.is_empty() { Ok(()) } else { Err(format!("the server went while it stood in {found:#?}")) }
    }

    /// Takes away all of a plan: nothing here collects garbage, and the next operator is to find nothing of it.
    pub async fn clear(&self, stem: &str) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &format!("{stem}-home"));
        let _ = pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await;
        for (key, object) in objects(&self.admin, stem).await {
            let (name, _) = key.split_once(' ').unwrap();
            let api = within(&self.admin, name, &object.namespace().unwrap_or_default());
            if object.types.as_ref().is_some_and(|types| types.api_version == API_VERSION)
                || !object.finalizers().is_empty()
            {
                let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
                let bare = json!({"metadata": {"finalizers": []}});
                let _ = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(bare)).await;
            } else {
                let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
            }
        }
    }
}
