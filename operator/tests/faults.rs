//! What the operator makes of a Kubernetes that refuses, forgets, falls silent or takes a namespace away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use saatkond_api::names::annotation;
use saatkond_operator::client::{Call, Fault, Verdict};
use serde_json::json;
use support::{bed_with_controllers, condition, federation, get, remove, until, until_condition};

type Judge = dyn Fn(&Call, usize) -> Verdict + Send + Sync;

/// Gives a verdict by the call and how many such calls there were.
struct Rule {
    judge: Box<Judge>,
    matches: fn(&Call) -> bool,
    seen: AtomicUsize,
}

impl Rule {
    fn new(matches: fn(&Call) -> bool, judge: impl Fn(&Call, usize) -> Verdict + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { judge: Box::new(judge), matches, seen: AtomicUsize::new(0) })
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Fault for Rule {
    fn judge(&self, call: &Call) -> Verdict {
        if !(self.matches)(call) {
            return Verdict::Pass;
        }
        (self.judge)(call, self.seen.fetch_add(1, Ordering::SeqCst))
    }

    fn died(&self) {}
}

fn first(count: usize, verdict: Verdict) -> impl Fn(&Call, usize) -> Verdict + Send + Sync + 'static {
    move |_, number| if number < count { verdict } else { Verdict::Pass }
}

const AVAILABLE: (&str, &str) = ("Available", "True/AsDeclared");

#[tokio::test(flavor = "multi_thread")]
async fn one_verb_that_is_refused_is_named_and_the_rest_goes_on() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let rule = Rule::new(|call| call.verb == "patch" && call.resource == "services", first(3, Verdict::Answer(403)));
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    bed.apply(&federation("forb"));
    let server = ("SecurityServer", "forb-home", "ss1");
    until_condition(&admin, server, "ChildrenApplied", "False/Forbidden").await;
    until_condition(&admin, ("Member", "forb-home", "register"), "Registered", "True/AsDeclared").await;
    // When the right is there the object recovers by itself.
    until_condition(&admin, server, "ChildrenApplied", "True/AsDeclared").await;
    until_condition(&admin, server, AVAILABLE.0, AVAILABLE.1).await;
    assert!(rule.seen() > 3);
    operator.end().await;
    faker.abort();
    remove(&admin, "forb").await;
}

/// Everything but the renewal of the lease gets through: another operator would take over, so this one may write nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_its_lease_writes_nothing_more() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let outage = Arc::new(AtomicBool::new(false));
    let is_out = outage.clone();
    let rule = Rule::new(
        |call| call.verb == "update" && call.resource == "leases",
        move |_, _| if is_out.load(Ordering::SeqCst) { Verdict::Answer(500) } else { Verdict::Pass },
    );
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    bed.apply(&federation("renew"));
    until_condition(&admin, ("SecurityServer", "renew-home", "ss1"), AVAILABLE.0, AVAILABLE.1).await;
    outage.store(true, Ordering::SeqCst);
    until("it leads no more", Duration::from_secs(10), || {
        let leads = operator.metrics.leading.get() == 1;
        async move { if leads { Err("it still leads".to_owned()) } else { Ok(()) } }
    })
    .await;
    let (written, asked) = (operator.writes(), rule.seen());
    bed.kubectl(&["delete", "poddisruptionbudget", "ss1", "--namespace=renew-home", "--wait=false"]);
    until("it has asked for the lease some more times", Duration::from_secs(20), || {
        let more = rule.seen() - asked;
        async move { if more >= 3 { Ok(()) } else { Err(format!("{more} times")) } }
    })
    .await;
    assert_eq!(operator.writes(), written, "what somebody has deleted is not put back meanwhile");
    outage.store(false, Ordering::SeqCst);
    until("it leads again and puts it back", Duration::from_secs(20), || async {
        let there = get(&admin, "PodDisruptionBudget", "renew-home", "ss1").await;
        there.map(|_| ()).ok_or_else(|| "no PodDisruptionBudget".to_owned())
    })
    .await;
    operator.end().await;
    faker.abort();
    remove(&admin, "renew").await;
}

/// What may not even be looked at: without a word the status would stay empty, or as it was when all was well.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_is_refused_is_told_in_the_status() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let rule = Rule::new(|call| call.verb == "get" && call.resource == "deployments", first(3, Verdict::Answer(403)));
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    bed.apply(&federation("look"));
    let server = ("SecurityServer", "look-home", "ss1");
    until_condition(&admin, server, "Ready", "False/Forbidden").await;
    let told = get(&admin, "SecurityServer", "look-home", "ss1").await.unwrap()["status"]["conditions"][0].to_string();
    assert!(told.contains("Deployment"), "it names what was refused: {told}");
    until_condition(&admin, server, "Ready", "True/AsDeclared").await;
    assert!(rule.seen() > 3);
    operator.end().await;
    faker.abort();
    remove(&admin, "look").await;
}

/// Turns that hang hold their places: were there no bound, all would be under way at once.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_objects_are_looked_at_at_once_than_was_asked_for() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let stems = ["bounda", "boundb", "boundc", "boundd"];
    for stem in stems {
        bed.apply(&federation(stem));
    }
    let hung = Arc::new(AtomicBool::new(true));
    let hangs = hung.clone();
    // New objects: each has something to write. A request of a process that has died is never answered.
    let rule = Rule::new(
        |call| call.is_write() && call.resource != "leases",
        move |_, _| if hangs.load(Ordering::SeqCst) { Verdict::DieBefore } else { Verdict::Pass },
    );
    let operator = bed.operator(Some(rule.clone()), &["--concurrency=2"]).await;
    until("two turns hang and all others wait", Duration::from_secs(20), || {
        let (hanging, waiting) = (rule.seen(), operator.metrics.queue_depth.get());
        async move {
            // One of each kind in each federation, less the two.
            if (hanging, waiting) == (2, 10) { Ok(()) } else { Err(format!("{hanging} hang, {waiting} wait")) }
        }
    })
    .await;
    hung.store(false, Ordering::SeqCst);
    operator.crash().await;
    let operator = bed.operator(None, &["--concurrency=2"]).await;
    for stem in stems {
        until_condition(&admin, ("SecurityServer", &format!("{stem}-home"), "ss1"), AVAILABLE.0, AVAILABLE.1).await;
    }
    operator.end().await;
    faker.abort();
    for stem in stems {
        remove(&admin, stem).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_and_server_errors_are_got_over() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let verdicts = |_: &Call, number: usize| match number % 6 {
        1 => Verdict::Answer(409),
        3 => Verdict::Answer(500),
        5 => Verdict::Answer(429),
        _ => Verdict::Pass,
    };
    // Half of all writes fail, for a while.
    let rule = Rule::new(
        |call| call.is_write() && call.resource != "leases",
        move |call, number| {
            if number < 60 { verdicts(call, number) } else { Verdict::Pass }
        },
    );
    let operator = bed.operator(Some(rule), &[]).await;
    bed.apply(&federation("conf"));
    until_condition(&admin, ("SecurityServer", "conf-home", "ss1"), AVAILABLE.0, AVAILABLE.1).await;
    until_condition(&admin, ("Member", "conf-home", "register"), "Registered", "True/AsDeclared").await;
    let authorities =
        bed.kubectl(&["get", "secrets", "-n", support::SYSTEM, "-l", "saatkond.io/trust-anchor=conf", "-o", "name"]);
    assert_eq!(authorities.lines().count(), 3, "one authority and two configuration keys:\n{authorities}");
    operator.end().await;
    faker.abort();
    remove(&admin, "conf").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_watch_and_one_that_falls_silent_are_opened_anew() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let rule = Rule::new(
        |call| call.verb == "watch" && matches!(&*call.resource, "members" | "securityservers" | "trustanchors"),
        |_, number| match number {
            0..3 => Verdict::Answer(410),
            3..6 => Verdict::Silence,
            _ => Verdict::Pass,
        },
    );
    let operator = bed.operator(Some(rule.clone()), &["--watch-seconds=5"]).await;
    until("all watches have been opened badly", Duration::from_secs(30), || async {
        if rule.seen() >= 6 { Ok(()) } else { Err(format!("{} so far", rule.seen())) }
    })
    .await;
    // The objects come while the watches are silent.
    bed.apply(&federation("gone"));
    until_condition(&admin, ("SecurityServer", "gone-home", "ss1"), AVAILABLE.0, AVAILABLE.1).await;
    operator.end().await;
    faker.abort();
    remove(&admin, "gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_half_way_goes_and_takes_nothing_along() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    // The identity is stored, then nothing else gets through until the namespace is on its way out.
    let rule = Rule::new(
        |call| call.verb == "patch" && call.resource == "deployments",
        first(usize::MAX, Verdict::Answer(500)),
    );
    let operator = bed.operator(Some(rule), &[]).await;
    bed.apply(&federation("half"));
    until("the identity is stored", Duration::from_secs(30), || async {
        get(&admin, "Secret", "half-home", "ss1-identity").await.map(|_| ()).ok_or_else(|| "no identity".to_owned())
    })
    .await;
    bed.kubectl(&["delete", "namespace", "half-home", "--wait=false"]);
    until("the namespace is gone", Duration::from_mins(1), || async {
        let text = bed.kubectl(&["get", "namespace", "half-home", "--ignore-not-found", "-o", "yaml"]);
        if text.trim().is_empty() { Ok(()) } else { Err(text) }
    })
    .await;
    // The anchor lives on, and knows nobody any more.
    until("the anchor is well", Duration::from_secs(20), || async {
        condition(&admin, "TrustAnchor", "", "half", "AuthorityAvailable")
            .await
            .and_then(|seen| if seen == "True/AsDeclared" { Ok(()) } else { Err(seen) })
    })
    .await;
    operator.end().await;
    faker.abort();
    remove(&admin, "half").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_comes_before_the_policy_of_who_may_reach_it() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let allowed = Arc::new(AtomicBool::new(false));
    let open = allowed.clone();
    let verdict = move |_: &Call, _| if open.load(Ordering::SeqCst) { Verdict::Pass } else { Verdict::Answer(422) };
    let rule = Rule::new(|call| call.verb == "patch" && call.resource == "networkpolicies", verdict);
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    bed.apply(&federation("bare"));
    let server = ("SecurityServer", "bare-home", "ss1");
    until("the policy was refused twice", Duration::from_secs(30), || async {
        if rule.seen() >= 2 { Ok(()) } else { Err(format!("{} so far", rule.seen())) }
    })
    .await;
    until("what is no pod is there", Duration::from_secs(10), || async {
        get(&admin, "Service", "bare-home", "ss1").await.map(|_| ()).ok_or_else(|| "no Service".to_owned())
    })
    .await;
    assert_eq!(get(&admin, "Deployment", "bare-home", "ss1").await, None);
    allowed.store(true, Ordering::SeqCst);
    until_condition(&admin, server, AVAILABLE.0, AVAILABLE.1).await;
    operator.end().await;
    faker.abort();
    remove(&admin, "bare").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_cannot_be_stored_holds_up_no_server_configuration() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let refused = Arc::new(AtomicBool::new(false));
    let closed = refused.clone();
    let verdict = move |_: &Call, _| if closed.load(Ordering::SeqCst) { Verdict::Answer(422) } else { Verdict::Pass };
    let rule = Rule::new(|call| call.verb == "patch" && call.name.as_deref() == Some("ss1-identity"), verdict);
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    bed.apply(&federation("leaf"));
    let server = ("SecurityServer", "leaf-home", "ss1");
    until_condition(&admin, server, AVAILABLE.0, AVAILABLE.1).await;
    refused.store(true, Ordering::SeqCst);
    // Another address asks for another leaf.
    let address = r#"{"spec": {"address": "ss1.leaf.example"}}"#;
    bed.kubectl(&["patch", "ss", "ss1", "--namespace=leaf-home", "--type=merge", "--patch", address]);
    until_condition(&admin, server, "IdentityIssued", "False/ApplyFailed").await;
    let published = async || {
        let document = get(&admin, "ConfigMap", support::SYSTEM, "leaf-home.ss1-server-configuration").await.unwrap();
        let version = document["metadata"]["annotations"][annotation::DOCUMENT_VERSION].as_str().unwrap();
        version.parse::<u64>().unwrap()
    };
    let before = published().await;
    let limit = r#"{"spec": {"limits": {"maxBodyBytes": 4096}}}"#;
    bed.kubectl(&["patch", "ss", "ss1", "--namespace=leaf-home", "--type=merge", "--patch", limit]);
    until("the limit is published", Duration::from_secs(20), || async {
        let version = published().await;
        if version > before { Ok(()) } else { Err(format!("version {version}")) }
    })
    .await;
    until_condition(&admin, server, "ConfigurationPublished", "True/AsDeclared").await;
    until_condition(&admin, server, "IdentityIssued", "False/ApplyFailed").await;
    // It is tried again until it succeeds.
    refused.store(false, Ordering::SeqCst);
    until_condition(&admin, server, "IdentityIssued", "True/AsDeclared").await;
    operator.end().await;
    faker.abort();
    remove(&admin, "leaf").await;
}

/// An admission policy that adds to every Service of a namespace as it is written.
fn meddler(namespace: &str) -> String {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "meddler"},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"],
            }]},
            "matchConditions": [{"name": "here", "expression": format!("object.metadata.namespace == '{namespace}'")}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
                "expression": "[JSONPatch{op: 'add', path: '/spec/externalIPs', value: ['192.0.2.1']}]",
            }}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "meddler"}, "spec": {"policyName": "meddler"},
    });
    format!("{policy}\n---\n{binding}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_changed_as_it_is_written_is_named_and_not_fought_over() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    bed.apply(&meddler("cont-home"));
    bed.apply(&support::namespace("cont-home", Some("CONT/GOV/70000001")));
    until("the policy acts", Duration::from_secs(30), || async {
        let tried =
            ["create", "service", "clusterip", "probe", "--tcp=80", "--namespace=cont-home", "--dry-run=server"];
        let seen = bed.kubectl(&[&tried[..], &["--output=yaml"]].concat());
        if seen.contains("192.0.2.1") { Ok(()) } else { Err(seen) }
    })
    .await;
    let writes = Rule::new(|call| call.is_write() && call.resource == "services", |_, _| Verdict::Pass);
    let operator = bed.operator(Some(writes.clone()), &[]).await;
    bed.apply(&federation("cont"));
    let server = ("SecurityServer", "cont-home", "ss1");
    let said = until("the condition names the object", Duration::from_secs(30), || async {
        let object = get(&admin, server.0, server.1, server.2).await.unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let children = conditions.into_iter().find(|condition| condition["type"] == "ChildrenApplied");
        let message = children.as_ref().and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        if message.contains("as it is written") { Ok(message.to_owned()) } else { Err(format!("{object:#}")) }
    })
    .await;
    assert!(said.contains("Service cont-home/ss1"), "{said}");
    // All else of the server is there: one object that is fought over holds up nothing.
    until("the Deployment is there", Duration::from_secs(10), || async {
        get(&admin, "Deployment", "cont-home", "ss1").await.map(|_| ()).ok_or_else(|| "no Deployment".to_owned())
    })
    .await;
    // A round is four writes: apply, overwrite, apply again, give up the update. Between two of them lies a second at least.
    let (before, began) = (writes.seen(), Instant::now());
    until("three more rounds", Duration::from_secs(30), || async {
        let rounds = (writes.seen() - before) / 4;
        if rounds >= 3 { Ok(()) } else { Err(format!("{rounds} rounds in {:?}", began.elapsed())) }
    })
    .await;
    assert!(began.elapsed() > Duration::from_secs(2), "three rounds in {:?}", began.elapsed());
    bed.kubectl(&["delete", "mutatingadmissionpolicybinding,mutatingadmissionpolicy", "meddler"]);
    until_condition(&admin, server, "ChildrenApplied", "True/AsDeclared").await;
    let service = get(&admin, "Service", "cont-home", "ss1").await.unwrap_or_default();
    assert_eq!(service["spec"].get("externalIPs"), None, "what was added is gone: {service:#}");
    operator.end().await;
    faker.abort();
    remove(&admin, "cont").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_documents_that_does_not_arrive_lets_nobody_go_who_is_registered() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let (server, member) = (("SecurityServer", "dere-home", "ss1"), ("Member", "dere-home", "register"));
    let operator = bed.operator(None, &[]).await;
    bed.apply(&federation("dere"));
    until_condition(&admin, server, AVAILABLE.0, AVAILABLE.1).await;
    until_condition(&admin, member, "Registered", "True/AsDeclared").await;
    operator.end().await;
    for kind in ["securityserver/ss1", "member/register"] {
        bed.kubectl(&["delete", kind, "-n", "dere-home", "--wait=false"]);
    }
    // Neither is a ConfigMap listed nor one written: the document names both as long as this lasts.
    let allowed = Arc::new(AtomicBool::new(false));
    let open = allowed.clone();
    let verdict = move |_: &Call, _| if open.load(Ordering::SeqCst) { Verdict::Pass } else { Verdict::Answer(500) };
    let rule = Rule::new(|call| call.resource == "configmaps" && (call.verb == "list" || call.is_write()), verdict);
    let operator = bed.operator(Some(rule.clone()), &[]).await;
    for object in [server, member] {
        until_condition(&admin, object, "Ready", "False/Deregistering").await;
    }
    assert!(rule.seen() > 0);
    for (kind, namespace, name) in [server, member] {
        let object = get(&admin, kind, namespace, name).await.unwrap_or_default();
        assert!(object["metadata"]["finalizers"].is_array(), "{kind} {name} was let go: {object:#}");
    }
    allowed.store(true, Ordering::SeqCst);
    for (kind, namespace, name) in [server, member] {
        until(&format!("{kind} {name} is gone"), Duration::from_secs(30), || async {
            get(&admin, kind, namespace, name).await.map_or(Ok(()), |object| Err(format!("{object:#}")))
        })
        .await;
    }
    operator.end().await;
    faker.abort();
    remove(&admin, "dere").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_is_made_anew_takes_up_nothing_of_the_one_before() {
    let bed = bed_with_controllers();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let operator = bed.operator(None, &[]).await;
    let anchor = json!({
        "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "anew"},
        "spec": {"instance": "ANEW", "source": {"managed": {}}},
    });
    bed.apply(&anchor.to_string());
    let ready = ("TrustAnchor", "", "anew");
    until_condition(&admin, ready, "ConfigurationPublished", "True/AsDeclared").await;
    let owner = async |kind: &str, name: &str| {
        let object = get(&admin, kind, support::SYSTEM, name).await?;
        object["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned)
    };
    let before = owner("Secret", "anew-ca-1").await.unwrap();
    // What the first one owned is taken away by the garbage collector, a moment after the second one is there.
    bed.kubectl(&["delete", "trustanchor", "anew"]);
    bed.apply(&anchor.to_string());
    let after = get(&admin, "TrustAnchor", "", "anew").await.unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_ne!(before, after);
    for (kind, name) in [
        ("Secret", "anew-ca-1"),
        ("Secret", "anew-configuration-1"),
        ("Secret", "anew-configuration-2"),
        ("ConfigMap", "anew-instance-configuration"),
    ] {
        until(&format!("{kind} {name} is of the new anchor"), Duration::from_mins(1), || async {
            let seen = owner(kind, name).await;
            if seen.as_deref() == Some(&*after) { Ok(()) } else { Err(format!("{seen:?}, not {after}")) }
        })
        .await;
    }
    until_condition(&admin, ready, "AuthorityAvailable", "True/AsDeclared").await;
    until_condition(&admin, ready, "ConfigurationPublished", "True/AsDeclared").await;
    operator.end().await;
    remove(&admin, "anew").await;
}
