//! The gateways' pods: those that there are, those that are gone, and which of these were seen to end.
//!
//! That a process has ended is learnt from the kubelet's report in its pod, and the object goes a moment after. So pods are watched:
//! whoever lists them finds some gone and cannot tell one that has ended from one that was deleted by force and still runs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use saatkond_api::names::label;
use saatkond_domain::observed::ObservedPod;
use serde::Deserialize;

use crate::watches::Change;

/// Of a Pod what is needed to tell whose it is and whether its process has ended.
#[derive(Debug, Clone, Deserialize)]
pub struct GatewayPod {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    start_time: Option<serde::de::IgnoredAny>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    state: State,
    restart_count: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<serde::de::IgnoredAny>,
}

impl Resource for GatewayPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl GatewayPod {
    /// The SecurityServer whose process it runs. Its label selects it and its owner decides: a ReplicaSet of the server's Deployment, as
    /// the Deployment's controller names it. A pod that somebody has made with our label is nobody's.
    pub fn server(&self) -> Option<&str> {
        let labels = self.labels();
        let server = labels.get(label::SECURITY_SERVER)?;
        let replica_set = format!("{server}-{}", labels.get("pod-template-hash")?);
        let is_ours = self
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.kind == "ReplicaSet" && owner.name == replica_set);
        is_ours.then_some(server)
    }

    /// The pod as decisions see it. `gone`: its object is, this is how it was seen last.
    pub fn observed(&self, gone: bool) -> ObservedPod {
        let deleting = self.metadata.deletion_timestamp.is_some();
        // Until the kubelet gives a pod up, by such a phase, it starts containers again that have terminated: also while the object is
        // being deleted or gone already, where it has not heard of that.
        let over = matches!(&*self.status.phase, "Failed" | "Succeeded");
        let containers = &self.status.container_statuses;
        let all_terminated = containers.iter().all(|it| it.state.terminated.is_some());
        // One that the kubelet has refused to run has no containers; one whose node never answered has no time of start either.
        let ended = all_terminated && (!containers.is_empty() || self.status.start_time.is_some());
        // No kubelet has ever heard of a pod without a node, and none will once it is being deleted.
        let never_ran = self.spec.node_name.is_none() && (gone || deleting);
        ObservedPod {
            name: self.name_any(),
            uid: self.uid().unwrap_or_default(),
            deleting,
            gone,
            ended: never_ran || (over && ended),
            restarts: containers.iter().map(|it| it.restart_count).max().unwrap_or_default(),
        }
    }
}

/// How many pods that are gone are remembered of a server: something may speak of them a moment longer.
const REMEMBERED: usize = 100;

/// Namespace and name of a SecurityServer.
type Server = (String, String);

/// All gateways' pods.
#[derive(Debug, Default)]
pub struct Pods {
    all: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    listed: bool,
    servers: BTreeMap<Server, OfServer>,
}

#[derive(Debug, Default)]
struct OfServer {
    there: BTreeMap<String, ObservedPod>,
    /// Gone. One that was not seen to have ended stands here until the status says that it has vanished: that could not be written at
    /// once, say.
    gone: VecDeque<ObservedPod>,
}

impl Pods {
    /// Takes over what a watch says. Returns the servers that it concerns.
    pub fn take(&self, change: Change<GatewayPod>) -> Vec<Server> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::All(pods) => {
                all.listed = true;
                let mut concerned: Vec<_> = all.servers.keys().cloned().collect();
                let listed: Vec<_> = pods.iter().filter_map(|pod| Some((all.place(pod)?, pod))).collect();
                let uids: BTreeSet<_> = pods.iter().filter_map(ResourceExt::uid).collect();
                for of in all.servers.values_mut() {
                    // Of those that are missing now nobody has seen more than this.
                    let before = std::mem::take(&mut of.there).into_values();
                    before.filter(|pod| !uids.contains(&pod.uid)).for_each(|pod| of.remember(pod));
                }
                for (server, pod) in listed {
                    let pod = pod.observed(false);
                    all.servers.entry(server.clone()).or_default().there.insert(pod.uid.clone(), pod);
                    concerned.push(server);
                }
                concerned.sort();
                concerned.dedup();
                concerned
            }
            Change::There(pod) => {
                let Some(server) = all.place(&pod) else { return Vec::new() };
                let pod = pod.observed(false);
                all.servers.entry(server.clone()).or_default().there.insert(pod.uid.clone(), pod);
                vec![server]
            }
            Change::Gone(pod) => {
                let Some(server) = all.place(&pod) else { return Vec::new() };
                let of = all.servers.entry(server.clone()).or_default();
                let pod = pod.observed(true);
                let before = of.there.remove(&pod.uid);
                of.remember(ObservedPod { ended: pod.ended || before.is_some_and(|before| before.ended), ..pod });
                vec![server]
            }
        }
    }

    /// A process that begins to lead keeps of those that are gone what it saw end. Of the others it cannot know what was made of them
    /// meanwhile: what is to be known of them stands in the status.
    pub fn take_over(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.servers.values_mut().for_each(|of| of.gone.retain(|pod| pod.ended));
    }

    /// Whether the first list has arrived.
    pub fn is_listed(&self) -> bool {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).listed
    }

    /// The pods of a server: those that there are, and those that are gone and of which something may still speak.
    pub fn of(&self, namespace: &str, server: &str) -> Vec<ObservedPod> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.servers.get(&(namespace.to_owned(), server.to_owned()));
        of.into_iter().flat_map(|of| of.there.values().chain(&of.gone)).cloned().collect()
    }

    /// Those of a server that are gone.
    pub fn gone(&self, namespace: &str, server: &str) -> Vec<ObservedPod> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.servers.get(&(namespace.to_owned(), server.to_owned()));
        of.into_iter().flat_map(|of| &of.gone).cloned().collect()
    }

    /// Forgets those of `seen` that have vanished, but for the `untold`: what is to be known of them stands in the server's status. From
    /// here they would come back when a person has said that they do not run.
    pub fn told(&self, server: &Server, seen: &[ObservedPod], untold: &[String]) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = all.servers.get_mut(server) else { return };
        of.gone.retain(|pod| pod.ended || !seen.contains(pod) || untold.contains(&pod.uid));
    }

    /// Forgets a server that is gone.
    pub fn forget(&self, namespace: &str, server: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (namespace.to_owned(), server.to_owned());
        if all.servers.get(&place).is_some_and(|of| of.there.is_empty()) {
            all.servers.remove(&place);
        }
    }
}

impl Known {
    /// The server whose process a pod runs. What was once a server's stays so: a ReplicaSet that gives a pod up, since somebody has
    /// changed a label of it, does not end what runs in it.
    fn place(&self, pod: &GatewayPod) -> Option<Server> {
        let namespace = pod.namespace()?;
        if let Some(server) = pod.server() {
            return Some((namespace, server.to_owned()));
        }
        let uid = pod.uid()?;
        let mut all = self.servers.iter();
        all.find(|(server, of)| server.0 == namespace && of.there.contains_key(&uid)).map(|(server, _)| server.clone())
    }
}

impl OfServer {
    fn remember(&mut self, pod: ObservedPod) {
        self.gone.push_back(ObservedPod { gone: true, ..pod });
        if self.gone.len() > REMEMBERED {
            // The end of a process is no loss as the one is that nobody has seen end.
            let oldest = self.gone.iter().position(|pod| pod.ended).unwrap_or_default();
            self.gone.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, status: &Value) -> GatewayPod {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "ss1-abc", "uid": "r", "controller": true,
        });
        serde_json::from_value(json!({
            "metadata": {
                "name": uid, "namespace": "n", "uid": uid, "ownerReferences": [owner],
                "labels": {label::SECURITY_SERVER: "ss1", "pod-template-hash": "abc"},
            },
            "spec": {"nodeName": "node"},
            "status": status,
        }))
        .unwrap()
    }

    fn running() -> Value {
        json!({"phase": "Running", "containerStatuses": [{"state": {"running": {"startedAt": "2026-01-02T00:00:00Z"}}}]})
    }

    fn terminated() -> Value {
        json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}]})
    }

    /// Between two starts of its container.
    fn crashed() -> Value {
        json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]})
    }

    fn deleted(mut pod: GatewayPod) -> GatewayPod {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-02T00:00:00Z")).unwrap();
        pod
    }

    #[test]
    fn a_process_has_ended_where_the_kubelet_says_so_of_a_pod_that_does_not_come_back() {
        let unscheduled = |pod: GatewayPod| GatewayPod { spec: Spec::default(), ..pod };
        let failed = |state: Value| json!({"phase": "Failed", "containerStatuses": [{"state": state}]});
        for (what, pod, gone, expected) in [
            ("it runs", pod("p", &running()), false, false),
            ("its container is started again", pod("p", &crashed()), false, false),
            ("it is being deleted, and its kubelet may not know", deleted(pod("p", &crashed())), false, false),
            ("it was deleted by force between two starts", deleted(pod("p", &crashed())), true, false),
            (
                "its kubelet has refused it",
                pod("p", &json!({"phase": "Failed", "startTime": "2026-01-02T00:00:00Z"})),
                false,
                true,
            ),
            ("its kubelet has never answered", pod("p", &json!({"phase": "Failed"})), false, false),
            ("it is being deleted and runs", deleted(pod("p", &running())), false, false),
            ("it is being deleted and has ended", deleted(pod("p", &terminated())), false, true),
            ("it is gone and had ended", pod("p", &terminated()), true, true),
            ("it was deleted by force", deleted(pod("p", &running())), true, false),
            ("it was deleted by force before the kubelet said anything", deleted(pod("p", &json!({}))), true, false),
            ("it was evicted", pod("p", &failed(json!({"terminated": {}}))), false, true),
            ("its node is gone", pod("p", &failed(json!({"running": {}}))), false, false),
            ("it waits for a node", unscheduled(pod("p", &json!({}))), false, false),
            ("it never had a node", unscheduled(deleted(pod("p", &json!({})))), false, true),
            ("it never had a node and is gone", unscheduled(pod("p", &json!({}))), true, true),
        ] {
            assert_eq!(pod.observed(gone).ended, expected, "{what}");
        }
    }

    #[test]
    fn its_owner_decides_whose_it_is() {
        let of = |edit: &dyn Fn(&mut ObjectMeta)| {
            let mut pod = pod("p", &running());
            edit(&mut pod.metadata);
            pod.server().map(str::to_owned)
        };
        let owner =
            |meta: &mut ObjectMeta,
             edit: &dyn Fn(&mut k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference)| {
                meta.owner_references.iter_mut().flatten().for_each(edit);
            };
        assert_eq!(of(&|_| {}).as_deref(), Some("ss1"));
        assert_eq!(of(&|meta| meta.owner_references = None), None, "made by hand");
        assert_eq!(of(&|meta| owner(meta, &|it| it.controller = None)), None);
        assert_eq!(of(&|meta| owner(meta, &|it| it.kind = "Job".into())), None);
        assert_eq!(of(&|meta| owner(meta, &|it| it.name = "other-abc".into())), None, "another Deployment's");
        assert_eq!(of(&|meta| meta.labels = None), None);
    }

    #[test]
    fn what_ended_is_remembered_and_what_vanished_until_it_is_told() {
        let pods = Pods::default();
        let seen = |pods: &Pods| pods.of("n", "ss1");
        let uids = |pods: &Pods| seen(pods).into_iter().map(|pod| (pod.uid, pod.gone, pod.ended)).collect::<Vec<_>>();
        let place = ("n".into(), "ss1".into());
        assert!(!pods.is_listed());
        assert_eq!(
            pods.take(Change::All(vec![pod("a", &running()), pod("b", &running())])),
            [("n".into(), "ss1".into())]
        );
        assert!(pods.is_listed());
        pods.take(Change::Gone(deleted(pod("a", &terminated()))));
        assert_eq!(uids(&pods), [("b".into(), false, false), ("a".into(), true, true)]);
        pods.take(Change::There(pod("e", &running())));
        let before = seen(&pods);
        pods.take(Change::Gone(deleted(pod("b", &running()))));
        let b = || ("b".into(), true, false);
        // What was told is another state of it, and another pod.
        pods.told(&place, &before, &[]);
        assert_eq!(uids(&pods), [("e".into(), false, false), ("a".into(), true, true), b()]);
        // And there was no room for it.
        pods.told(&place, &seen(&pods), &["b".to_owned()]);
        assert_eq!(uids(&pods), [("e".into(), false, false), ("a".into(), true, true), b()]);
        pods.told(&place, &seen(&pods), &[]);
        assert_eq!(uids(&pods), [("e".into(), false, false), ("a".into(), true, true)]);
        // A list after a gap: what had ended before it has ended, of the others nothing is known.
        pods.take(Change::There(deleted(pod("d", &terminated()))));
        pods.take(Change::All(Vec::new()));
        assert_eq!(uids(&pods), [("a".into(), true, true), ("d".into(), true, true), ("e".into(), true, false)]);
        pods.forget("n", "ss1");
        assert_eq!(uids(&pods), []);
    }

    #[test]
    fn what_was_once_a_servers_stays_so_when_its_replica_set_gives_it_up() {
        let released = |status: &Value| {
            let mut pod = pod("p", status);
            pod.metadata.owner_references = None;
            pod
        };
        let uids = |pods: &Pods| pods.of("n", "ss1").into_iter().map(|pod| (pod.gone, pod.ended)).collect::<Vec<_>>();
        for relisted in [false, true] {
            let pods = Pods::default();
            pods.take(Change::There(released(&running())));
            assert_eq!(uids(&pods), [], "nobody's");
            pods.take(Change::There(pod("p", &running())));
            if relisted {
                pods.take(Change::All(vec![released(&terminated())]));
            } else {
                pods.take(Change::There(released(&terminated())));
            }
            assert_eq!(uids(&pods), [(false, true)]);
            pods.take(Change::Gone(released(&terminated())));
            assert_eq!(uids(&pods), [(true, true)]);
        }
    }

    #[test]
    fn only_so_many_that_are_gone_are_remembered() {
        let pods = Pods::default();
        pods.take(Change::Gone(deleted(pod("v", &running()))));
        for number in 0..REMEMBERED {
            pods.take(Change::Gone(pod(&number.to_string(), &terminated())));
        }
        let gone = pods.gone("n", "ss1");
        assert_eq!(
            (gone.len(), &*gone[0].uid, &*gone[1].uid),
            (REMEMBERED, "v", "1"),
            "what vanished stands nowhere else"
        );
    }
}
