//! What pods would do, where none run: for each gateway's Deployment its pods, their readiness, and the receipts that
//! the link would store. Works in rounds over everything, so that it needs no memory of what it has done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use saatkond_api::SecurityServer;
use saatkond_api::names::{label, manager};
use saatkond_api::v1alpha1::security_server::ProcessReceipt;
use serde_json::{Value, json};

use super::view::View;

/// Requests that are under way at a time: enough to keep the API server busy, few enough to leave it to the operator.
const AT_ONCE: usize = 8;

/// Runs rounds until `stop` is set.
pub async fn run(client: Client, view: Arc<View>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        round(&client, &view).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// One look at everything; writes only what is missing.
async fn round(client: &Client, view: &View) -> anyhow::Result<()> {
    let mut of_server: BTreeMap<(String, String), Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in view.pods.state() {
        let server = pod.labels().get(label::SECURITY_SERVER).cloned().unwrap_or_default();
        of_server.entry((pod.namespace().unwrap_or_default(), server)).or_default().push(pod);
    }
    stream::iter(view.deployments.state().iter().map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(AT_ONCE, |deployment| {
            let pods = of_server.get(&(deployment.namespace().unwrap_or_default(), deployment.name_any()));
            run_deployment(client, deployment, pods.map_or(0, Vec::len))
        })
        .await?;
    receipts(client, view, &of_server).await
}

async fn run_deployment(client: &Client, deployment: &Deployment, pods: usize) -> anyhow::Result<()> {
    let namespace = deployment.namespace().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let wanted_pods = usize::try_from(wanted).unwrap_or_default();
    if pods < wanted_pods {
        let owner = make_replica_set(client, deployment).await?;
        for number in pods..wanted_pods {
            make_pod(client, deployment, &owner, number).await?;
        }
    }
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
    if seen == deployment.metadata.generation && ready == Some(wanted) {
        return Ok(());
    }
    let status = json!({"status": {
        "observedGeneration": deployment.metadata.generation,
        "replicas": wanted, "updatedReplicas": wanted, "readyReplicas": wanted, "availableReplicas": wanted,
        "conditions": [{"type": "Available", "status": "True", "reason": "Faked", "message": "faked"}],
    }});
    let api: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let name = deployment.name_any();
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("failed to fake a Deployment")?;
    Ok(())
}

fn labels(deployment: &Deployment) -> BTreeMap<String, String> {
    let template = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let mut labels = template.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert("pod-template-hash".to_owned(), "faked".to_owned());
    labels
}

/// The owner of a Deployment's pods. It must exist: the garbage collector takes pods of an owner that does not.
async fn make_replica_set(client: &Client, deployment: &Deployment) -> anyhow::Result<Value> {
    let name = format!("{}-faked", deployment.name_any());
    let labels = labels(deployment);
    let replica_set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "gateway", "image": "registry.invalid/faked"}]},
            },
        },
    }))?;
    let api: Api<ReplicaSet> = Api::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
    let made = match api.create(&PostParams::default(), &replica_set).await {
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await,
        other => other,
    };
    let uid = made.context("failed to fake a ReplicaSet")?.uid();
    Ok(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid, "controller": true}))
}

async fn make_pod(client: &Client, deployment: &Deployment, owner: &Value, number: usize) -> anyhow::Result<()> {
    let Some(template) = deployment.spec.as_ref().map(|spec| &spec.template) else { return Ok(()) };
    let labels = labels(deployment);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{}-{number}", deployment.name_any()), "labels": labels, "ownerReferences": [owner],
        },
        "spec": template.spec,
    }))?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &deployment.namespace().unwrap_or_default());
    match api.create(&PostParams::default(), &pod).await {
        Ok(pod) => {
            let status = json!({"status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
            }});
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
                .await
                .context("failed to fake a pod's readiness")?;
            Ok(())
        }
        // Made in a round before that this list did not show yet.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context("failed to fake a pod"),
    }
}

async fn receipts(
    client: &Client,
    view: &View,
    pods: &BTreeMap<(String, String), Vec<Arc<Pod>>>,
) -> anyhow::Result<()> {
    let Some((bundle_hash, version)) = view.anchors.state().iter().find_map(|anchor| {
        let status = anchor.status.as_ref()?;
        Some((status.bundle.as_ref()?.hash.clone(), status.configuration.as_ref()?.version))
    }) else {
        return Ok(());
    };
    let servers = view.servers.state();
    let due = servers.iter().flat_map(|server| {
        let key = (server.namespace().unwrap_or_default(), server.name_any());
        let uids = pods.get(&key).into_iter().flatten().filter_map(|pod| pod.uid());
        let hash = &bundle_hash;
        uids.filter_map(move |uid| receipt(server, &uid, hash, version).map(|receipt| (&**server, receipt)))
    });
    stream::iter(due.collect::<Vec<_>>())
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |(server, receipt)| store(client, server, receipt))
        .await
}

/// The receipt that the pod owes, if it has not given it.
fn receipt(server: &SecurityServer, pod_uid: &str, bundle_hash: &str, version: u64) -> Option<ProcessReceipt> {
    let status = server.status.as_ref()?;
    let (leaf, published) = (status.leaf.as_ref()?, status.configuration.as_ref()?);
    let receipt = ProcessReceipt {
        pod_uid: pod_uid.to_owned(),
        incarnation: 1,
        instance_version: published.instance_version.max(version),
        server_version: published.server_version,
        bundle_sequence: published.bundle_sequence,
        bundle_hash: bundle_hash.to_owned(),
        leaf_issue_number: status.issue_number?,
        leaf_serial: leaf.serial.clone(),
        old_sessions: Some(Vec::new()),
        started_alone: None,
        ended_at: None,
        highest_format: 1,
        reported_at: None,
    };
    let given = status.processes.iter().find(|process| process.pod_uid == pod_uid);
    // As the link does: a new instance version alone is told only with the next change of something else.
    let same = given.is_some_and(|given| {
        (given.server_version, given.bundle_sequence, given.leaf_issue_number, &given.leaf_serial, &given.bundle_hash)
            == (
                receipt.server_version,
                receipt.bundle_sequence,
                receipt.leaf_issue_number,
                &receipt.leaf_serial,
                &receipt.bundle_hash,
            )
    });
    (!same).then_some(receipt)
}

async fn store(client: &Client, server: &SecurityServer, receipt: ProcessReceipt) -> anyhow::Result<()> {
    let parameters = PatchParams::apply(&manager::link(&receipt.pod_uid)).force();
    let receipt: Value = serde_json::to_value(receipt)?;
    let body = json!({
        "apiVersion": saatkond_api::names::API_VERSION,
        "kind": "SecurityServer",
        "metadata": {"name": server.name_any()},
        "status": {"processes": [receipt]},
    });
    let api: Api<SecurityServer> = Api::namespaced(client.clone(), &server.namespace().unwrap_or_default());
    api.patch_status(&server.name_any(), &parameters, &Patch::Apply(body)).await.context("failed to fake a receipt")?;
    Ok(())
}
