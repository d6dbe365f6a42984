//! What is changed by hand on a real API server is what it was again; what is not ours is left alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use saatkond_operator::client::{Call, Fault, Verdict};
use serde_json::{Value, json};
use support::{bed, federation, get, remove, until, until_condition};

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_repaired_and_a_foreign_object_is_left_alone() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    // Somebody's own Service stands where ours should.
    bed.apply(&support::namespace("drift-home", Some("DRIFT/GOV/70000001")));
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ss1", "namespace": "drift-home"},
        "spec": {"ports": [{"name": "own", "port": 1234}], "selector": {"app": "own"}},
    });
    bed.apply(&foreign.to_string());
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    bed.apply(&federation("drift"));
    let server = ("SecurityServer", "drift-home", "ss1");
    until_condition(&admin, server, "ChildrenApplied", "False/ForeignObject").await;
    let service = get(&admin, "Service", "drift-home", "ss1").await.unwrap();
    assert_eq!(service["spec"]["ports"][0]["port"], 1234, "what is not ours is never overwritten");
    let conditions = get(&admin, server.0, server.1, server.2).await.unwrap()["status"]["conditions"].to_string();
    assert!(conditions.contains("Service ss1"), "it is named: {conditions}");
    // It goes away, ours comes.
    bed.kubectl(&["delete", "service", "ss1", "--namespace=drift-home"]);
    until_condition(&admin, server, "ChildrenApplied", "True/AsDeclared").await;

    let home = "drift-home";
    let names = [
        ("Deployment", home, "ss1"),
        ("Service", home, "ss1"),
        ("ServiceAccount", home, "ss1"),
        ("PodDisruptionBudget", home, "ss1"),
        ("NetworkPolicy", home, "ss1"),
        ("ConfigMap", home, "ss1-configuration"),
        ("Secret", home, "ss1-identity"),
    ];
    for (kind, namespace, name) in names {
        comes_back(bed, &admin, kind, namespace, name).await;
    }
    // The key of a list's entry edited by hand: an apply alone would leave both ports, which the API server refuses.
    let edit = r#"{"spec":{"ports":[{"name":"client","port":81,"targetPort":"client"}]}}"#;
    bed.kubectl(&["patch", "service", "ss1", "--namespace=drift-home", "--type=merge", "--patch", edit]);
    until("the ports are ours again", Duration::from_secs(5), || async {
        let now = get(&admin, "Service", "drift-home", "ss1").await.unwrap();
        let ports: Vec<_> = now["spec"]["ports"].as_array().unwrap().iter().map(|port| port["port"].clone()).collect();
        if ports == [json!(80), json!(5500)] { Ok(()) } else { Err(now["spec"]["ports"].to_string()) }
    })
    .await;
    until("all that we own is applied", Duration::from_secs(5), || async {
        let now = get(&admin, "Service", "drift-home", "ss1").await.unwrap();
        let managers = now["metadata"]["managedFields"].as_array().unwrap().iter();
        let updates = managers.filter(|entry| entry["operation"] == "Update" && entry["manager"] != "kubectl-patch");
        let names: Vec<_> = updates.map(|entry| entry["manager"].clone()).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    // Additions that open a way to the pods, or hide them. Applying alone would leave all but one.
    let additions = [
        ("networkpolicy", r#"[{"op":"add","path":"/spec/ingress/-","value":{}}]"#),
        ("service", r#"[{"op":"add","path":"/spec/externalIPs","value":["192.0.2.1"]}]"#),
        ("service", r#"[{"op":"add","path":"/spec/selector/hidden","value":"yes"}]"#),
        ("service", r#"[{"op":"replace","path":"/spec/type","value":"NodePort"}]"#),
        ("service", r#"[{"op":"add","path":"/spec/ports/-","value":{"name":"more","port":9090}}]"#),
        (
            "deployment",
            r#"[{"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"more","image":"x"}}]"#,
        ),
        ("deployment", r#"[{"op":"add","path":"/spec/paused","value":true}]"#),
        ("deployment", r#"[{"op":"add","path":"/spec/template/spec/hostNetwork","value":true}]"#),
        (
            "deployment",
            r#"[{"op":"add","path":"/spec/template/spec/initContainers","value":[{"name":"more","image":"x"}]}]"#,
        ),
        ("deployment", r#"[{"op":"add","path":"/spec/template/spec/containers/0/command","value":["sh"]}]"#),
        ("deployment", r#"[{"op":"add","path":"/spec/template/spec/containers/0/ports/0/hostPort","value":8080}]"#),
        ("poddisruptionbudget", r#"[{"op":"replace","path":"/spec/maxUnavailable","value":2}]"#),
        // A token would make of whoever gets into a gateway somebody whom the API server knows.
        ("serviceaccount", r#"[{"op":"replace","path":"/automountServiceAccountToken","value":true}]"#),
        // The start copy: a gateway that starts alone would take it.
        ("configmap", r#"[{"op":"replace","path":"/binaryData/instance.jws.gz","value":"AAAA"}]"#),
        ("configmap", r#"[{"op":"remove","path":"/binaryData/server.jws.gz"}]"#),
    ];
    for (kind, patch) in additions {
        let kind = support::kinds().into_iter().find(|known| known.kind.to_lowercase() == kind).unwrap().kind;
        let name = if kind == "ConfigMap" { "ss1-configuration" } else { "ss1" };
        let before = declared(&get(&admin, &kind, "drift-home", name).await.unwrap());
        bed.kubectl(&["patch", &kind, name, "--namespace=drift-home", "--type=json", "--patch", patch]);
        until(&format!("{kind} says again what it did before {patch}"), Duration::from_secs(5), || async {
            let now = declared(&get(&admin, &kind, "drift-home", name).await.unwrap());
            if now == before { Ok(()) } else { Err(format!("{now:#}")) }
        })
        .await;
    }
    // Without its labels no watch shows an object, and no later drift of it would be seen.
    for (kind, namespace, name) in [
        ("Deployment", home, "ss1"),
        ("Service", home, "ss1"),
        ("ServiceAccount", home, "ss1"),
        ("PodDisruptionBudget", home, "ss1"),
        ("NetworkPolicy", home, "ss1"),
        ("Secret", "drift-home", "ss1-identity"),
        ("ConfigMap", "drift-home", "ss1-configuration"),
        ("ConfigMap", support::SYSTEM, "drift-home.ss1-server-configuration"),
        ("ConfigMap", support::SYSTEM, "drift-instance-configuration"),
        ("Secret", support::SYSTEM, "drift-ca-1"),
        ("Secret", support::SYSTEM, "drift-configuration-2"),
        ("Secret", support::SYSTEM, "saatkond-link-identity"),
    ] {
        let before = get(&admin, kind, namespace, name).await.unwrap()["metadata"]["labels"].clone();
        let off = r#"[{"op":"remove","path":"/metadata/labels/app.kubernetes.io~1managed-by"}]"#;
        let namespaced = format!("--namespace={namespace}");
        bed.kubectl(&["patch", kind, name, &namespaced, "--type=json", "--patch", off]);
        until(&format!("{kind} {name} has its labels again"), Duration::from_secs(5), || async {
            let now = get(&admin, kind, namespace, name).await.unwrap()["metadata"]["labels"].clone();
            if now == before { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
    // The link hands documents out by their annotations, and reads nothing of them.
    for (name, wrong) in [
        ("drift-instance-configuration", "999999"),
        ("drift-home.ss1-server-configuration", "999999"),
        ("drift-instance-configuration", "0"),
    ] {
        let version = async || {
            let map = get(&admin, "ConfigMap", support::SYSTEM, name).await.unwrap();
            map["metadata"]["annotations"]["saatkond.io/document-version"].as_str().unwrap().to_owned()
        };
        let before: u64 = version().await.parse().unwrap();
        let (told, namespaced) =
            (format!("saatkond.io/document-version={wrong}"), format!("--namespace={}", support::SYSTEM));
        bed.kubectl(&["annotate", "configmap", name, &namespaced, "--overwrite", &told]);
        let next = (before + 1).to_string();
        until(&format!("{name} is published anew"), Duration::from_secs(5), || async {
            let now = version().await;
            if now == next { Ok(()) } else { Err(format!("{now}, {before} before")) }
        })
        .await;
    }
    // After the start copy, which says what the document did that is published anew here.
    for (kind, name) in [
        ("ConfigMap", "drift-home.ss1-server-configuration"),
        ("ConfigMap", "drift-instance-configuration"),
        ("Secret", "saatkond-link-identity"),
    ] {
        comes_back(bed, &admin, kind, support::SYSTEM, name).await;
    }
    // Keys that are not what they were: nothing of the Secret can be used, so all of it is issued again, under a higher number.
    let number =
        async || get(&admin, "SecurityServer", "drift-home", "ss1").await.unwrap()["status"]["issueNumber"].as_u64();
    let before = number().await.unwrap();
    let edit = r#"[{"op":"replace","path":"/data/identity.json","value":"e30="}]"#;
    bed.kubectl(&["patch", "secret", "ss1-identity", "--namespace=drift-home", "--type=json", "--patch", edit]);
    until("a whole identity is stored again", Duration::from_secs(5), || async {
        let secret = get(&admin, "Secret", "drift-home", "ss1-identity").await.unwrap();
        let (stored, number) = (secret["data"]["identity.json"].clone(), number().await);
        if stored != "e30=" && number > Some(before) { Ok(()) } else { Err(format!("{number:?}, {before} before")) }
    })
    .await;
    // One field edited by hand.
    bed.kubectl(&["scale", "deployment/ss1", "--replicas=7", "--namespace=drift-home"]);
    until("the replicas are ours again", Duration::from_secs(5), || async {
        let now = get(&admin, "Deployment", "drift-home", "ss1").await.unwrap();
        if now["spec"]["replicas"] == 2 { Ok(()) } else { Err(now["spec"]["replicas"].to_string()) }
    })
    .await;
    operator.end().await;
    faker.abort();
    remove(&admin, "drift").await;
}

/// What is deleted is there again, as another object, within the time that drift of a child may last.
async fn comes_back(bed: &support::Bed, admin: &kube::Client, kind: &str, namespace: &str, name: &str) {
    let before = get(admin, kind, namespace, name).await.unwrap();
    bed.kubectl(&["delete", kind, name, &format!("--namespace={namespace}"), "--wait=false"]);
    let started = std::time::Instant::now();
    until(&format!("{kind} {name} is back"), Duration::from_secs(5), || async {
        match get(admin, kind, namespace, name).await {
            Some(now) if now["metadata"]["uid"] != before["metadata"]["uid"] => Ok(()),
            _ => Err(get(admin, "SecurityServer", "drift-home", "ss1").await.unwrap_or_default().to_string()),
        }
    })
    .await;
    eprintln!("{kind} {name} was back after {:?}", started.elapsed());
}

/// An object without what the API server adds to it, and without its versions.
fn declared(object: &Value) -> Value {
    let mut declared = object.as_object().unwrap().clone();
    declared.remove("metadata");
    declared.remove("status");
    // A port that was opened on the nodes is given back by the API server.
    let ports = declared.get_mut("spec").and_then(|spec| spec.get_mut("ports")).and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    declared.into()
}

/// Once armed: somebody puts a Service of their own in the place of ours between the operator's look and its write.
struct Between(AtomicBool);

const THEIRS: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ss1", "namespace": "between-home"},
    "spec": {"ports": [{"name": "own", "port": 1234}], "selector": {"app": "own"}}}"#;

impl Fault for Between {
    fn judge(&self, call: &Call) -> Verdict {
        if call.verb == "patch" && call.resource == "services" && self.0.swap(false, Ordering::SeqCst) {
            bed().kubectl(&["delete", "service", "ss1", "--namespace=between-home", "--ignore-not-found"]);
            bed().apply(THEIRS);
        }
        Verdict::Pass
    }

    fn died(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_between_the_look_and_the_write_is_left_alone() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let between = Arc::new(Between(AtomicBool::new(true)));
    let operator = bed.operator(Some(between.clone()), &[]).await;
    bed.apply(&federation("between"));
    let server = ("SecurityServer", "between-home", "ss1");
    // Where there was none before, and then where ours was.
    for round in ["made", "repaired"] {
        until_condition(&admin, server, "ChildrenApplied", "False/ForeignObject").await;
        let service = get(&admin, "Service", "between-home", "ss1").await.unwrap();
        assert!(!between.0.load(Ordering::SeqCst), "nobody came between");
        assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1, "{round}: {service:#}");
        assert_eq!(service["spec"]["selector"], json!({"app": "own"}), "{round}");
        assert_eq!(service["metadata"]["ownerReferences"], Value::Null, "{round}");
        bed.kubectl(&["delete", "service", "ss1", "--namespace=between-home"]);
        until_condition(&admin, server, "ChildrenApplied", "True/AsDeclared").await;
        if round == "made" {
            between.0.store(true, Ordering::SeqCst);
            let edit = r#"{"spec":{"selector":{"app":"elsewhere"}}}"#;
            bed.kubectl(&["patch", "service", "ss1", "--namespace=between-home", "--type=merge", "--patch", edit]);
        }
    }
    operator.end().await;
    faker.abort();
    remove(&admin, "between").await;
}
