//! What the API server holds, followed by watches: a benchmark that lists everything twice a second would measure its own
//! lists.

use std::fmt::Debug;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
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

    /// How many objects of ours are there, and how many of them are Ready.
    pub fn count(&self) -> (usize, usize) {
        let (mut there, mut ready) = (0, 0);
        self.each(|_, metadata, conditions| {
            there += 1;
            ready += usize::from(is_ready(metadata, conditions));
        });
        (there, ready)
    }

    /// The objects that are not Ready, each with what it says of itself.
    pub fn unready(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.each(|kind, metadata, conditions| {
            if !is_ready(metadata, conditions) {
                all.push(told(kind, metadata, conditions));
            }
        });
        all
    }

    /// Shows every object of ours: its kind, its metadata and its conditions.
    fn each(&self, mut show: impl FnMut(&str, &ObjectMeta, &[Condition])) {
        for it in self.anchors.state() {
            let conditions = it.status.as_ref().map(|status| status.conditions.as_slice());
            show("TrustAnchor", &it.metadata, conditions.unwrap_or_default());
        }
        for it in self.members.state() {
            let conditions = it.status.as_ref().map(|status| status.conditions.as_slice());
            show("Member", &it.metadata, conditions.unwrap_or_default());
        }
        for it in self.servers.state() {
            let conditions = it.status.as_ref().map(|status| status.conditions.as_slice());
            show("SecurityServer", &it.metadata, conditions.unwrap_or_default());
        }
    }
}

fn readiness(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// Whether it is Ready as it is declared now, not as it was before.
fn is_ready(metadata: &ObjectMeta, conditions: &[Condition]) -> bool {
    readiness(conditions)
        .is_some_and(|ready| ready.status == "True" && ready.observed_generation == metadata.generation)
}

fn told(kind: &str, metadata: &ObjectMeta, conditions: &[Condition]) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    let place = metadata.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    match readiness(conditions) {
        None => format!("{kind} {place} says nothing yet"),
        Some(ready) => format!(
            "{kind} {place} of generation {}: Ready is {} for {}, {}: {}",
            metadata.generation.unwrap_or_default(),
            ready.status,
            ready.observed_generation.unwrap_or_default(),
            ready.reason,
            ready.message
        ),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_is_who_says_so_of_what_is_declared_now() {
        let metadata = ObjectMeta {
            name: Some("ss1".to_owned()),
            namespace: Some("a".to_owned()),
            generation: Some(2),
            ..ObjectMeta::default()
        };
        let condition = |kind: &str, status: &str, generation: i64| -> Condition {
            serde_json::from_value(json!({
                "type": kind, "status": status, "observedGeneration": generation, "reason": "Waiting",
                "message": "it waits", "lastTransitionTime": "2026-11-22T10:00:00Z",
            }))
            .unwrap()
        };
        for (conditions, expected) in [
            (vec![condition("Admitted", "False", 2), condition("Ready", "True", 2)], true),
            (vec![condition("Ready", "True", 1)], false),
            (vec![condition("Ready", "False", 2)], false),
            (vec![condition("Admitted", "True", 2)], false),
            (Vec::new(), false),
        ] {
            assert_eq!(is_ready(&metadata, &conditions), expected, "{conditions:?}");
        }
        let said = told("SecurityServer", &metadata, &[condition("Ready", "True", 1)]);
        assert_eq!(said, "SecurityServer a/ss1 of generation 2: Ready is True for 1, Waiting: it waits");
        assert_eq!(told("SecurityServer", &metadata, &[]), "SecurityServer a/ss1 says nothing yet");
    }
}
