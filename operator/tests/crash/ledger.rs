//! What the API server has seen of all plans: how often each object was made and deleted, and what was published when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use saatkond_api::names::{entry, label, role};

use crate::support::{self, SYSTEM};

/// How often each object was made and deleted, and what was published when.
#[derive(Clone, Default)]
pub struct Ledger {
    pub objects: Arc<Mutex<BTreeMap<String, Story>>>,
    /// The instance configurations of each trust anchor.
    pub published: Arc<Mutex<BTreeMap<String, Vec<Version>>>>,
}

/// One version of a document: at which revision of the store, and its bytes.
pub type Version = (u64, Vec<u8>);

/// The UIDs under which an object was seen, and at which revisions of the store it was deleted.
#[derive(Default)]
pub struct Story {
    pub made: Vec<String>,
    pub gone: Vec<u64>,
}

pub fn revision(version: Option<String>) -> u64 {
    version.and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Ledger {
    pub fn open(client: &Client) -> (Self, tokio::task::JoinSet<()>) {
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
                    let mut all = ledger.objects.lock().unwrap();
                    let story = all.entry(key).or_default();
                    let uid = object.uid().unwrap_or_default();
                    if gone {
                        story.gone.push(revision(object.resource_version()));
                    } else if !story.made.contains(&uid) {
                        story.made.push(uid);
                    }
                }
            });
        }
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM);
        let selector = format!("{}={}", label::ROLE, role::INSTANCE_CONFIGURATION);
        let published = ledger.published.clone();
        tasks.spawn(async move {
            let config = watcher::Config::default().labels(&selector);
            let mut stream = std::pin::pin!(watcher(maps, config).default_backoff().applied_objects());
            while let Some(event) = stream.next().await {
                let Ok(map) = event else { continue };
                let Some(anchor) = map.labels().get(label::TRUST_ANCHOR).cloned() else { continue };
                let packed = map.binary_data.as_ref().and_then(|data| data.get(entry::INSTANCE_CONFIGURATION));
                let packed = packed.map(|ByteString(bytes)| bytes.clone()).unwrap_or_default();
                let version = revision(map.resource_version());
                published.lock().unwrap().entry(anchor).or_default().push((version, packed));
            }
        });
        (ledger, tasks)
    }

    /// Creates and deletes per object of one plan, its name with the stem taken out.
    pub fn of(&self, stem: &str) -> BTreeMap<String, (usize, usize)> {
        let all = self.objects.lock().unwrap();
        let ours = all.iter().filter(|(key, _)| is_of(key, stem));
        ours.filter(|(key, _)| !key.ends_with("/kube-root-ca.crt") && !key.ends_with("/default"))
            .map(|(key, story)| (key.replace(stem, "STEM"), (story.made.len(), story.gone.len())))
            .collect()
    }

    /// The counts, once the watches have shown what is there now.
    pub async fn caught_up(&self, stem: &str, there: &BTreeSet<String>) -> BTreeMap<String, (usize, usize)> {
        support::until("the watches have caught up", Duration::from_secs(10), || async {
            let counts = self.of(stem);
            let shown: BTreeSet<_> =
                counts.iter().filter(|(_, (made, gone))| made > gone).map(|(key, _)| key.clone()).collect();
            if shown == *there { Ok(counts) } else { Err(format!("shown {shown:#?}\nthere {there:#?}")) }
        })
        .await
    }

    pub fn gone(&self, key: &str) -> Option<u64> {
        self.objects.lock().unwrap().get(key)?.gone.last().copied()
    }
}

pub fn is_of(key: &str, stem: &str) -> bool {
    let ours = |mark: char| {
        key.split_once(mark)
            .and_then(|(_, rest)| rest.strip_prefix(stem))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    ours(' ') || ours('/')
}
