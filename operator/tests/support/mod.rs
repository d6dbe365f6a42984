//! What the tests of the operator share: an API server, the chart's rights, a federation, a stand-in for the Deployment
//! controller, and bounded waits that show what there was instead.
#![allow(dead_code, reason = "each program uses a part; the one of the rights checks that some program uses each item")]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use saatkond_api::names::{label, manager};
use saatkond_operator::client::Fault;
use saatkond_operator::clock::{Clock, SystemClock};
use saatkond_operator::health::Readiness;
use saatkond_operator::metrics::Metrics;
use saatkond_operator::run::{RunError, Surroundings, run_with};
use saatkond_operator::settings::Settings;
use saatkond_testbed::{ApiServer, ApiServerOptions};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The namespace that the chart was rendered for.
pub const SYSTEM: &str = "saatkond-system";

/// An API server with the CustomResourceDefinitions and the chart's rights, one for a test program. The operator sees all of
/// a cluster, so the tests of a program take turns.
pub struct Bed {
    server: ApiServer,
    pub turn: Mutex<()>,
}

static BED: OnceLock<Bed> = OnceLock::new();

/// The API server of this test program.
pub fn bed() -> &'static Bed {
    BED.get_or_init(|| start(&ApiServerOptions::default()))
}

/// One more of the kind, for a test that uses several side by side.
pub fn further_bed() -> &'static Bed {
    Box::leak(Box::new(start(&ApiServerOptions::default())))
}

/// The same, with the controllers that make deleting real.
pub fn bed_with_controllers() -> &'static Bed {
    BED.get_or_init(|| start(&ApiServerOptions::with_controllers()))
}

/// One of its own, with further flags of the API server.
pub fn bed_with_flags(flags: &[&str]) -> &'static Bed {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Box::leak(Box::new(start(&ApiServerOptions { api_server_flags: flags, ..ApiServerOptions::default() })))
}

fn start(options: &ApiServerOptions) -> Bed {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if std::env::var_os("OPERATOR_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_env("OPERATOR_LOG");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let server = ApiServer::start(options).unwrap();
    let cluster = server.cluster();
    let crds = saatkond_api::crds::to_yaml(&saatkond_api::crds::all().unwrap()).unwrap();
    cluster.apply(&crds).unwrap();
    cluster.apply(&namespace(SYSTEM, None)).unwrap();
    cluster.apply(&chart_without_workloads()).unwrap();
    for crd in ["trustanchors", "members", "securityservers"] {
        let name = format!("crd/{crd}.saatkond.io");
        cluster.kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"]).unwrap();
    }
    for account in ["saatkond-controller", "saatkond-link"] {
        cluster.service_account_kubeconfig(SYSTEM, account, &beside(&server, account)).unwrap();
    }
    Bed { server, turn: Mutex::new(()) }
}

/// Where a file of this test program goes together with the API server: what stands in a static is never dropped.
fn beside(server: &ApiServer, name: &str) -> PathBuf {
    server.kubeconfig().with_file_name(name)
}

/// The chart as it is installed by default, less what nothing here would run: its rights and policies are the real ones.
fn chart_without_workloads() -> String {
    let golden = include_str!("../../../charts/saatkond/tests/golden/default.yaml");
    let wanted = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let policies = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let kind = |part: &str| part.lines().find_map(|line| line.strip_prefix("kind: ").map(str::to_owned));
    let keep = |part: &&str| kind(part).is_some_and(|kind| wanted.contains(&&*kind) || policies.contains(&&*kind));
    golden.split("\n---\n").filter(keep).collect::<Vec<_>>().join("\n---\n")
}

/// A namespace, with the identities that it may claim.
pub fn namespace(name: &str, identities: Option<&str>) -> String {
    let annotations = identities.map_or_else(|| json!({}), |text| json!({"saatkond.io/member-identities": text}));
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}).to_string()
}

/// The binding that admits a namespace.
pub fn binding(namespace: &str) -> String {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "saatkond-member-namespace", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "saatkond-member-namespace"},
        "subjects": [{"kind": "ServiceAccount", "name": "saatkond-controller", "namespace": SYSTEM}],
    })
    .to_string()
}

impl Bed {
    /// The kubeconfig of one of our ServiceAccounts.
    pub fn kubeconfig(&self, account: &str) -> PathBuf {
        beside(&self.server, account)
    }

    /// Applies YAML or JSON as the administrator.
    pub fn apply(&self, manifests: &str) {
        self.server.cluster().apply(manifests).unwrap();
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.server.cluster().kubectl(arguments).unwrap()
    }

    /// The administrator's client. One a test: a client lives on the runtime that made it.
    pub async fn admin(&self) -> Client {
        Client::try_from(self.administrator().await).unwrap()
    }

    /// The administrator's way to the API server.
    pub async fn administrator(&self) -> Config {
        config(self.server.kubeconfig().to_owned()).await
    }

    /// The way of one of our ServiceAccounts to the API server.
    pub async fn account(&self, name: &str) -> Config {
        config(self.kubeconfig(name)).await
    }

    /// Runs a controller with the chart's rights.
    pub async fn operator(&self, fault: Option<Arc<dyn Fault>>, arguments: &[&str]) -> Operator {
        self.operator_by(Arc::new(SystemClock::new()), fault, arguments).await
    }

    /// The same, by another clock.
    pub async fn operator_by(
        &self,
        clock: Arc<dyn Clock>,
        fault: Option<Arc<dyn Fault>>,
        arguments: &[&str],
    ) -> Operator {
        let usual = [
            "--image=registry.invalid/saatkond:test",
            "--lease-seconds=3",
            "--debounce-milliseconds=20",
            "--anchor-debounce-milliseconds=40",
            "--longest-backoff-seconds=2",
            "--identity=operator-0",
        ];
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let given: Vec<_> = arguments.iter().map(|argument| name(argument)).collect();
        let usual = usual.into_iter().filter(|argument| !given.contains(&name(argument)));
        let all = ["operator"].into_iter().chain(usual).chain(arguments.iter().copied());
        let settings = Command::try_parse_from(all).unwrap().settings;
        let mut surroundings = Surroundings::with(self.account("saatkond-controller").await);
        surroundings.fault = fault;
        surroundings.clock = clock;
        let (metrics, readiness) = (surroundings.metrics.clone(), surroundings.readiness.clone());
        let stop = CancellationToken::new();
        let handle = tokio::spawn(run_with(settings, surroundings, stop.clone()));
        Operator { handle: Some(handle), stop, metrics, readiness }
    }
}

async fn config(path: PathBuf) -> Config {
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

/// A controller that runs in this process.
pub struct Operator {
    handle: Option<JoinHandle<Result<(), RunError>>>,
    stop: CancellationToken,
    pub metrics: Arc<Metrics>,
    pub readiness: Readiness,
}

impl Operator {
    /// Ends it as a crash would: it is dropped where it stands, and nothing of it goes on.
    pub async fn crash(mut self) {
        if let Some(handle) = self.handle.take() {
            handle.abort();
            let _ = handle.await;
        }
    }

    /// Ends it as Kubernetes would: it is asked to, and releases its lease.
    pub async fn end(mut self) {
        self.stop.cancel();
        if let Some(handle) = self.handle.take() {
            handle.await.unwrap().unwrap();
        }
    }

    /// Requests that changed something, the lease's aside.
    pub fn writes(&self) -> u64 {
        self.metrics
            .text()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("saatkond_api_requests_total{"))
            .filter(|line| !["get", "list", "watch"].iter().any(|verb| line.contains(&format!("verb=\"{verb}\""))))
            .filter(|line| !line.contains("resource=\"leases\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}

/// The kinds that the operator makes, and its own.
pub fn kinds() -> Vec<ApiResource> {
    [
        ("saatkond.io", "v1alpha1", "TrustAnchor", "trustanchors"),
        ("saatkond.io", "v1alpha1", "Member", "members"),
        ("saatkond.io", "v1alpha1", "SecurityServer", "securityservers"),
        ("", "v1", "Secret", "secrets"),
        ("", "v1", "ConfigMap", "configmaps"),
        ("", "v1", "Service", "services"),
        ("", "v1", "ServiceAccount", "serviceaccounts"),
        ("apps", "v1", "Deployment", "deployments"),
        ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    ]
    .map(|(group, version, kind, plural)| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    })
    .into()
}

/// One anchor, one member with a service, one server; all names start with `stem`.
pub fn federation(stem: &str) -> String {
    let upper = stem.to_uppercase();
    let home = format!("{stem}-home");
    [
        namespace(&home, Some(&format!("{upper}/GOV/70000001"))),
        binding(&home),
        json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": stem},
            "spec": {"instance": upper, "source": {"managed": {}}},
        })
        .to_string(),
        json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "Member",
            "metadata": {"name": "register", "namespace": home},
            "spec": {
                "trustAnchorRef": {"name": stem}, "memberClass": "GOV", "memberCode": "70000001",
                "subsystems": [{"code": "population", "connectionType": "HTTP", "services": [
                    {"code": "persons", "rest": {"url": "http://population-app:8080/persons"}},
                ]}],
            },
        })
        .to_string(),
        json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer",
            "metadata": {"name": "ss1", "namespace": home},
            "spec": {"memberRef": {"name": "register"}, "serverCode": "ss1", "replicas": 2},
        })
        .to_string(),
    ]
    .join("\n---\n")
}

/// Answers for the Deployment controller: whatever is asked for is there and ready at once. Until dropped.
pub fn fake_deployments(client: Client) -> tokio::task::JoinHandle<()> {
    use futures_util::StreamExt as _;
    use kube::runtime::{WatchStreamExt as _, watcher};
    let all: Api<Deployment> = Api::all(client.clone());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(watcher(all, watcher::Config::default()).default_backoff().applied_objects());
        while let Some(event) = stream.next().await {
            let Ok(deployment) = event else { continue };
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let generation = deployment.metadata.generation;
            let status = deployment.status.clone().unwrap_or_default();
            if status.observed_generation == generation && status.ready_replicas == Some(replicas) {
                continue;
            }
            let api: Api<Deployment> = Api::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
            let status = json!({"status": {
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
                "readyReplicas": replicas, "availableReplicas": replicas,
            }});
            let _ = api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
        }
    })
}

/// The pods of a server of two replicas, as the Deployment's controller would make them. Nothing runs them.
pub async fn gateway_pods(client: &Client, namespace: &str, server: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for number in 0..2 {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{server}-{number}"),
                "labels": {label::SECURITY_SERVER: server, "pod-template-hash": "faked"},
                // Nothing there collects garbage, so nobody misses the ReplicaSet.
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{server}-faked"), "uid": "faked",
                    "controller": true,
                }],
            },
            "spec": {
                // Else it would be known that it never ran.
                "nodeName": "faked",
                "serviceAccountName": server, "automountServiceAccountToken": false,
                "containers": [{"name": "gateway", "image": "registry.invalid/saatkond:test"}],
            },
        });
        api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
}

/// Waits until as many processes of a server have stated something.
pub async fn until_stated(client: &Client, namespace: &str, server: &str, count: usize) {
    until(&format!("{count} receipts of {namespace}/{server}"), Duration::from_secs(30), || async {
        let status = get(client, "SecurityServer", namespace, server).await.unwrap_or_default()["status"].clone();
        let stated = status["processes"].as_array().map_or(0, Vec::len);
        if stated == count { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

/// Ends one of [`gateway_pods`] as the kubelet would: asked to, its container terminated and reported so. Its object stays until it is
/// deleted by force, which is what the kubelet does last.
pub async fn end_pod(client: &Client, namespace: &str, name: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    api.delete(name, &DeleteParams::default()).await.unwrap();
    let terminated = json!({"exitCode": 0, "reason": "Completed"});
    let container = json!({
        "name": "gateway", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": terminated},
    });
    let status = json!({"status": {"phase": "Succeeded", "containerStatuses": [container]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Answers for the gateways: each of [`gateway_pods`] loads at once what is published and stored for its server, and states it as the
/// link would store it. Until dropped.
pub fn fake_receipts(client: Client) -> tokio::task::JoinHandle<()> {
    use futures_util::StreamExt as _;
    use kube::runtime::{WatchStreamExt as _, watcher};
    let of = |kind: &str| {
        let kind = kinds().into_iter().find(|known| known.kind == kind).unwrap();
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let changes = watcher(api, watcher::Config::default()).default_backoff().touched_objects();
        changes.map(|_| ()).boxed()
    };
    let label = watcher::Config::default().labels(label::SECURITY_SERVER);
    let pods: Api<Pod> = Api::all(client.clone());
    let new = watcher(pods.clone(), label).default_backoff().touched_objects().map(|_| ()).boxed();
    // Whatever has changed meanwhile is one change: each look costs requests.
    let changes = futures_util::stream::select_all([of("TrustAnchor"), of("SecurityServer"), new]).ready_chunks(1000);
    let mut changes = Box::pin(changes);
    tokio::spawn(async move {
        while changes.next().await.is_some() {
            let listed = pods.list_metadata(&ListParams::default().labels(label::SECURITY_SERVER)).await;
            let mut processes = BTreeMap::<_, Vec<_>>::new();
            for pod in listed.map(|list| list.items).unwrap_or_default() {
                // Nothing runs what is being deleted; and what has no owner is no gateway.
                if pod.metadata.deletion_timestamp.is_some() || pod.owner_references().is_empty() {
                    continue;
                }
                let server = pod.labels().get(label::SECURITY_SERVER).cloned().unwrap_or_default();
                processes.entry((pod.namespace().unwrap_or_default(), server)).or_default().extend(pod.uid());
            }
            for ((namespace, server), uids) in processes {
                let _ = state_receipts(&client, &namespace, &server, &uids).await;
            }
        }
    })
}

/// Waits until a change of the authority has ended with this generation.
pub async fn until_authority(client: &Client, anchor: &str, generation: u64) {
    until(&format!("generation {generation} of {anchor} is stable"), Duration::from_mins(1), || async {
        let status = get(client, "TrustAnchor", "", anchor).await.unwrap_or_default()["status"].clone();
        let rotation = &status["rotation"];
        let done = rotation["phase"] == "Stable" && rotation["signingGeneration"] == generation;
        if done { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

async fn state_receipts(client: &Client, namespace: &str, name: &str, uids: &[String]) -> Option<()> {
    let server = get(client, "SecurityServer", namespace, name).await?;
    let member = get(client, "Member", namespace, server["spec"]["memberRef"]["name"].as_str()?).await?;
    let anchor = get(client, "TrustAnchor", "", member["spec"]["trustAnchorRef"]["name"].as_str()?).await?;
    let (published, leaf) = (&anchor["status"]["configuration"], &server["status"]["leaf"]);
    if leaf.is_null() {
        return None;
    }
    for uid in uids {
        let receipt = json!({
            "podUid": uid, "incarnation": 1, "instanceVersion": published["version"], "serverVersion": 1,
            "bundleSequence": anchor["status"]["bundle"]["sequence"],
            "bundleHash": anchor["status"]["bundle"]["hash"].as_str()?.trim_start_matches("sha256:"),
            "leafIssueNumber": server["status"]["issueNumber"], "leafSerial": leaf["serial"],
            "oldSessions": [], "highestFormat": 1,
        });
        let mut standing = server["status"]["processes"].as_array().into_iter().flatten();
        // Another version of the document alone is nothing that anybody waits for.
        let same = |other: &Value| {
            let keys = ["podUid", "bundleSequence", "bundleHash", "leafIssueNumber"];
            keys.iter().all(|key| other[*key] == receipt[*key])
        };
        if standing.any(same) {
            continue;
        }
        let body = json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": name},
            "status": {"processes": [receipt]},
        });
        let kind = kinds().into_iter().find(|known| known.kind == "SecurityServer")?;
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let params = PatchParams::apply(&manager::link(uid)).force();
        // Whoever has gone meanwhile states nothing.
        let _ = api.patch_status(name, &params, &Patch::Apply(body)).await;
    }
    Some(())
}

/// Waits until `look` finds something. What it saw instead is shown when the bound is over.
pub async fn until<T, F>(what: &str, bound: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + bound;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= deadline => panic!("not within {bound:?}: {what}\n{seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(40)).await,
        }
    }
}

/// One of our objects as JSON.
pub async fn get(client: &Client, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let kind = kinds().into_iter().find(|known| known.kind == kind).unwrap();
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &kind)
    } else {
        Api::namespaced_with(client.clone(), namespace, &kind)
    };
    api.get_opt(name).await.unwrap().map(|object| serde_json::to_value(object).unwrap())
}

/// Status of a condition, and everything known of it for a failing test.
pub async fn condition(
    client: &Client,
    kind: &str,
    namespace: &str,
    name: &str,
    type_: &str,
) -> Result<String, String> {
    let object = get(client, kind, namespace, name).await;
    let conditions = object.as_ref().map(|object| object["status"]["conditions"].clone()).unwrap_or_default();
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == type_);
    match found {
        Some(condition) => Ok(format!("{}/{}", text(&condition["status"]), text(&condition["reason"]))),
        None => Err(format!("{kind} {namespace}/{name}: {conditions:#}")),
    }
}

/// Waits until a condition reads so, for example `True/AsDeclared`.
pub async fn until_condition(client: &Client, object: (&str, &str, &str), type_: &str, wanted: &str) {
    let (kind, namespace, name) = object;
    until(&format!("{kind} {namespace}/{name} {type_} {wanted}"), Duration::from_secs(30), || async {
        let seen = condition(client, kind, namespace, name, type_).await?;
        if seen == wanted {
            Ok(())
        } else {
            Err(format!("{seen}\n{:#}", get(client, kind, namespace, name).await.unwrap_or_default()["status"]))
        }
    })
    .await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// All objects of these kinds whose namespace or name begins with `stem`, and the operator's of that anchor.
pub async fn objects(client: &Client, stem: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for kind in kinds() {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        for object in api.list(&ListParams::default()).await.unwrap() {
            let namespace = object.namespace().unwrap_or_default();
            let ours = namespace.starts_with(stem) || object.name_any().starts_with(stem);
            if ours && object.name_any() != "kube-root-ca.crt" && object.name_any() != "default" {
                all.insert(
                    format!("{} {namespace}/{}", kind.kind, object.name_any()),
                    serde_json::to_value(&object).unwrap(),
                );
            }
        }
    }
    all
}

/// Takes a federation away, finalizers and all, so that the next test's operator does not meet it.
pub async fn remove(client: &Client, stem: &str) {
    for kind in kinds().into_iter().filter(|kind| kind.group == "saatkond.io") {
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        for object in all.list(&ListParams::default()).await.unwrap() {
            let namespace = object.namespace();
            if !(object.name_any().starts_with(stem) || namespace.as_deref().unwrap_or_default().starts_with(stem)) {
                continue;
            }
            let api: Api<DynamicObject> = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
                None => all.clone(),
            };
            let _ = api.delete(&object.name_any(), &kube::api::DeleteParams::default()).await;
            let bare = json!({"metadata": {"finalizers": []}});
            let _ = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(bare)).await;
        }
    }
}
