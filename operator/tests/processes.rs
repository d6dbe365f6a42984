//! Whose statement a change of the authority waits for, on a real API server: a pod that ended, one that vanished, one that is none
//! of ours, one that a person has excluded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use saatkond_api::names::label;
use serde_json::{Value, json};
use support::{bed, end_pod, federation, get, kinds, remove, until, until_authority, until_condition, until_stated};

async fn ask(client: &Client, anchor: &str, rotation: Value) {
    let kind = kinds().into_iter().find(|kind| kind.kind == "TrustAnchor").unwrap();
    let api: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &kind);
    let patch = Patch::Merge(json!({"spec": {"rotation": rotation}}));
    api.patch(anchor, &PatchParams::default(), &patch).await.unwrap();
}

/// Names and whether they have vanished, as the server's status has them.
async fn counted(client: &Client, stem: &str) -> Vec<(String, bool)> {
    let status = get(client, "SecurityServer", &format!("{stem}-home"), "ss1").await.unwrap()["status"].clone();
    let pods = status["pods"].as_array().cloned().unwrap_or_default();
    let mut pods: Vec<_> = pods
        .iter()
        .map(|pod| (pod["name"].as_str().unwrap_or_default().to_owned(), !pod["vanishedAt"].is_null()))
        .collect();
    pods.sort();
    pods
}

async fn until_counted(client: &Client, stem: &str, wanted: &[(&str, bool)]) {
    until(&format!("{wanted:?} of {stem} count"), Duration::from_secs(20), || async {
        let seen = counted(client, stem).await;
        let same = seen.iter().map(|(name, vanished)| (&**name, *vanished)).eq(wanted.iter().copied());
        if same { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_a_pod_that_has_vanished_and_for_none_that_has_ended() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let (faker, gateways) = (support::fake_deployments(admin.clone()), support::fake_receipts(admin.clone()));
    let operator = bed.operator(None, &[]).await;
    bed.apply(&federation("gone"));
    until_condition(&admin, ("SecurityServer", "gone-home", "ss1"), "Available", "True/AsDeclared").await;
    support::gateway_pods(&admin, "gone-home", "ss1").await;
    until_stated(&admin, "gone-home", "ss1", 2).await;
    let pods: Api<Pod> = Api::namespaced(admin.clone(), "gone-home");
    // With our label and of nobody's making: it would hold up every change.
    let stray = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "stray", "labels": {label::SECURITY_SERVER: "ss1", "pod-template-hash": "faked"}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "a", "image": "registry.invalid/a"}]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(stray).unwrap()).await.unwrap();
    until_counted(&admin, "gone", &[("ss1-0", false), ("ss1-1", false)]).await;

    // One ends as the kubelet reports it. Its receipt goes while its object is there still, and when that goes nobody misses it.
    end_pod(&admin, "gone-home", "ss1-0").await;
    until_counted(&admin, "gone", &[("ss1-1", false)]).await;
    until_stated(&admin, "gone-home", "ss1", 1).await;
    pods.delete("ss1-0", &DeleteParams::default().grace_period(0)).await.unwrap();

    // The other one is deleted by force: it may run on.
    let uid = pods.get("ss1-1").await.unwrap().uid().unwrap();
    pods.delete("ss1-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    until_counted(&admin, "gone", &[("ss1-1", true)]).await;
    ask(&admin, "gone", json!({"requestID": "r1"})).await;
    until("the change says whom it waits for", Duration::from_secs(20), || async {
        let status = get(&admin, "TrustAnchor", "", "gone").await.unwrap()["status"].clone();
        let said = status["conditions"].to_string();
        let named = status["blocking"][0]["podUid"] == uid && status["blocking"][0]["reason"] == "Vanished";
        let told = said.contains(&format!("pod {uid} of SecurityServer gone-home/ss1 has vanished without a word"));
        if named && told { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    // Neither does a new process of the operator know more of it, once it has looked.
    operator.end().await;
    let operator = bed.operator(None, &[]).await;
    let kind = kinds().into_iter().find(|kind| kind.kind == "SecurityServer").unwrap();
    let servers: Api<kube::api::DynamicObject> = Api::namespaced_with(admin.clone(), "gone-home", &kind);
    let edit = Patch::Merge(json!({"spec": {"replicas": 1}}));
    let generation = servers.patch("ss1", &PatchParams::default(), &edit).await.unwrap().metadata.generation;
    until("the edit is seen", Duration::from_secs(20), || async {
        let status = get(&admin, "SecurityServer", "gone-home", "ss1").await.unwrap()["status"].clone();
        if status["observedGeneration"] == json!(generation) { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    until_counted(&admin, "gone", &[("ss1-1", true)]).await;
    // What it had stated of the bundle before the change was true when it vanished, so that much it does not hold up.
    assert_eq!(get(&admin, "TrustAnchor", "", "gone").await.unwrap()["status"]["rotation"]["phase"], "Announcing");

    let server = json!({"namespace": "gone-home", "name": "ss1"});
    let excluded =
        json!([{"server": server, "process": uid, "reason": "its node burnt down", "until": "2100-01-01T00:00:00Z"}]);
    support::gateway_pods(&admin, "gone-home", "ss1").await;
    ask(&admin, "gone", json!({"excluded": excluded})).await;
    until_authority(&admin, "gone", 2).await;
    until_counted(&admin, "gone", &[("ss1-0", false), ("ss1-1", false)]).await;
    until_stated(&admin, "gone-home", "ss1", 2).await;
    operator.end().await;
    faker.abort();
    gateways.abort();
    remove(&admin, "gone").await;
}

/// Whoever leads next has seen it, though nobody who led did and its process has said nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_while_nobody_leads_has_not_vanished() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let (faker, gateways) = (support::fake_deployments(admin.clone()), support::fake_receipts(admin.clone()));
    let first = bed.operator(None, &["--identity=operator-0"]).await;
    bed.apply(&federation("heir"));
    until_condition(&admin, ("SecurityServer", "heir-home", "ss1"), "Available", "True/AsDeclared").await;
    support::gateway_pods(&admin, "heir-home", "ss1").await;
    until_stated(&admin, "heir-home", "ss1", 2).await;
    until_counted(&admin, "heir", &[("ss1-0", false), ("ss1-1", false)]).await;
    let second = bed.operator(None, &["--identity=operator-1"]).await;
    until("the standby has listed the pods", Duration::from_secs(20), || async {
        let pending = second.readiness.list();
        if pending.is_empty() { Ok(()) } else { Err(format!("{pending:?}")) }
    })
    .await;
    first.crash().await;
    end_pod(&admin, "heir-home", "ss1-0").await;
    let pods: Api<Pod> = Api::namespaced(admin.clone(), "heir-home");
    pods.delete("ss1-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    // One of which nobody sees an end goes at the same time.
    pods.delete("ss1-1", &DeleteParams::default().grace_period(0)).await.unwrap();
    until_counted(&admin, "heir", &[("ss1-1", true)]).await;
    until_stated(&admin, "heir-home", "ss1", 1).await;
    second.end().await;
    faker.abort();
    gateways.abort();
    remove(&admin, "heir").await;
}
