//! The demo's journey as a test, in a real region; whatever fails dumps the region's state.
//!
//! One test: its steps build on each other, and a second federation beside it would need another operator.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::time::Duration;

use saatkond_e2e::federation::{self, BENEFITS, CLINIC, PERSONS, POLICE, SPECIMEN};
use saatkond_e2e::install;
use saatkond_e2e::operator;
use saatkond_e2e::repair::{self, Gateway, POPULATION};
use saatkond_e2e::rotation;
use saatkond_e2e::thief::{Handshake, Thief};
use saatkond_testbed::{Cluster, Layout, Region, wait};
use serde_json::Value;

/// Says on failure what there was. Takes down the region that it started; one that was there gets its operator back.
struct Scene<'a> {
    region: &'a Region,
    was_there: bool,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.region.dump());
        }
        if !self.was_there {
            if let Err(error) = Region::down(self.region.name()) {
                eprintln!("the region could not be taken down: {error}");
            }
        } else if std::thread::panicking()
            && let Err(error) = operator::start(self.region.cluster())
        {
            eprintln!("the operator could not be started again: {error:#}");
        }
    }
}

fn step(what: &str) {
    println!("journey: {what}");
}

#[test]
fn a_federation_declared_in_yaml_exchanges_data() {
    if std::env::var_os("SAATKOND_SKIP_REGIONS").is_some_and(|value| value == "1") {
        println!("NOT RUN: journey: SAATKOND_SKIP_REGIONS=1");
        return;
    }
    let layout = Layout::find();
    let was_there = Region::list(&layout).unwrap().iter().any(|region| region.name() == "home");
    let region = Region::up("home").unwrap();
    let scene = Scene { region: &region, was_there };
    let cluster = region.cluster();
    let person = format!("{PERSONS}/{SPECIMEN}");

    step("install and apply");
    install::install(&layout, &region).unwrap();
    federation::apply(&layout, cluster).unwrap();
    federation::until_ready(cluster, |_, _, _| {}).unwrap();
    federation::until_apps_ready(cluster).unwrap();

    step("granted");
    let answer = federation::call_until_served(cluster, BENEFITS, &person, Duration::from_mins(1)).unwrap();
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["personalCode"], SPECIMEN);
    assert_eq!(answer.header("x-road-client"), Some(BENEFITS.client));
    assert_eq!(answer.header("x-road-service"), Some("EE/GOV/70000001/population/persons"));
    for name in ["x-road-id", "x-road-request-id", "x-road-request-hash"] {
        assert!(answer.header(name).is_some_and(|value| !value.is_empty()), "{name} in {answer:?}");
    }
    assert_eq!(answer.header("x-road-error"), None);

    step("granted by a group, as a guest on another member's server");
    federation::call_until_served(cluster, CLINIC, &person, Duration::from_mins(1)).unwrap();

    step("the information system's own answers pass unchanged");
    let missing = federation::call(cluster, BENEFITS, &format!("{PERSONS}/38001010001")).unwrap();
    assert_eq!((missing.status, missing.header("x-road-error")), (404, None), "{missing:?}");
    let list = federation::call(cluster, BENEFITS, &format!("{PERSONS}/?limit=2")).unwrap();
    let body: Value = serde_json::from_str(&list.body).unwrap();
    assert_eq!(body["persons"].as_array().map(Vec::len), Some(2), "{list:?}");

    step("denied");
    let answer = federation::call(cluster, POLICE, &person).unwrap();
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.header("x-road-error"), Some("server.serverproxy.access_denied"), "{answer:?}");

    step("repairs");
    POPULATION.kill_one(cluster, Duration::from_mins(2)).unwrap();
    for edited in [
        POPULATION.edit_service(cluster, Duration::from_secs(30)).unwrap(),
        POPULATION.delete_child(cluster, "poddisruptionbudget", Duration::from_secs(30)).unwrap(),
        POPULATION.delete_child(cluster, "networkpolicy", Duration::from_secs(30)).unwrap(),
    ] {
        println!("journey: {} put right after {:?}", edited.what, edited.took);
        assert!(edited.took < Duration::from_secs(5), "{edited:?}: drift is repaired within 5 s");
    }
    federation::until_ready(cluster, |_, _, _| {}).unwrap();

    step("gateways of both sides, and the operator, end in good order and start anew while calls go on");
    everything_is_restarted_under_calls(cluster, &person);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();

    step("a newer configuration, so that the copy of before is stale");
    let stale = start_copy(cluster, POPULATION);
    let before = published_version(cluster);
    grant_police(cluster);
    federation::call_until_served(cluster, POLICE, &person, Duration::from_mins(1)).unwrap();
    add_subsystem(cluster, true);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();
    assert!(published_version(cluster) > before, "a new subsystem is a new instance configuration");
    until_all_run_on(cluster, published_version(cluster));

    step("without the operator");
    operator::stop(cluster).unwrap();
    assert!(!operator::serves_until(cluster, "ee").unwrap().is_empty());
    assert_eq!(federation::failures(cluster, BENEFITS, &person, 20).unwrap(), Vec::<String>::new());

    step("a gateway starts without the operator");
    POPULATION.kill_one(cluster, Duration::from_secs(150)).unwrap();
    federation::call_until_served(cluster, BENEFITS, &person, Duration::from_secs(30)).unwrap();

    step("gateways start without the operator from a stale copy, and learn the newer document from their peers");
    put_start_copy(cluster, POPULATION, &stale);
    let started = POPULATION.kill_one(cluster, Duration::from_secs(150)).unwrap().successor;
    assert_eq!(
        gauge(cluster, POPULATION, &started, "instance_version"),
        published_version(cluster),
        "learnt from peers"
    );
    assert_eq!(gauge(cluster, POPULATION, &started, "started_alone"), 0, "it has met peers");
    federation::call_until_served(cluster, BENEFITS, &person, Duration::from_secs(30)).unwrap();

    step("the operator is back, and the copy is put right");
    operator::start(cluster).unwrap();
    federation::until_ready(cluster, |_, _, _| {}).unwrap();
    federation::apply(&layout, cluster).unwrap();
    add_subsystem(cluster, false);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();

    step("the authority is replaced, and taken back half way, while calls go on");
    the_authority_is_replaced_under_calls(cluster, &person);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();

    step("the authority's key is stolen, and it is thrown out while calls go on");
    a_stolen_authority_is_thrown_out_under_calls(&layout, &region, &person);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();

    step("the provider's keys are stolen");
    stolen_keys_are_refused(cluster, &person);
    federation::until_ready(cluster, |_, _, _| {}).unwrap();
    drop(scene);
}

/// As an upgrade does it: each process is asked to end (SIGTERM), and another one takes its place. Not one call fails.
fn everything_is_restarted_under_calls(cluster: &Cluster, person: &str) {
    let before = POPULATION.pods(cluster).unwrap();
    let ((), calls) = rotation::under_calls(cluster, &[(BENEFITS, person), (CLINIC, person)], || {
        POPULATION.restart(cluster)?;
        repair::BENEFITS.restart(cluster)?;
        operator::restart(cluster)
    })
    .unwrap();
    println!("journey: {} calls meanwhile, {} failed", calls.made, calls.failed.len());
    assert!(calls.failed.is_empty(), "{:#?}", calls.failed);
    assert!(calls.made >= 100, "{} calls are too few to show anything", calls.made);
    let after = POPULATION.pods(cluster).unwrap();
    let stayed = after.iter().filter(|(_, uid, _)| before.iter().any(|(_, old, _)| old == uid)).count();
    assert_eq!((after.len(), stayed), (before.len(), 0), "all are new: {before:?}, then {after:?}");
    // Each has said goodbye, or its kubelet has said that it ended.
    until_vanished(cluster, 0);
}

/// Waits until so many pods are gone without a word.
fn until_vanished(cluster: &Cluster, count: usize) -> Vec<[String; 3]> {
    wait::until(
        &format!("{count} pods have vanished"),
        Duration::from_secs(30),
        || format!("{:?}", rotation::vanished(cluster)),
        || Ok(rotation::vanished(cluster).ok().filter(|found| found.len() == count)),
    )
    .unwrap()
}

/// A change waits for pods whose processes nobody has heard to end, until a person has excluded them: one is deleted by force here; what
/// was killed while no operator was there may be another.
fn vanished_pods_hold_a_change_up(cluster: &Cluster, request: &str) {
    let generation = rotation::standing(cluster, "ee").unwrap().generation;
    let before = rotation::vanished(cluster).unwrap().len();
    POPULATION.delete_one_by_force(cluster).unwrap();
    let vanished = until_vanished(cluster, before + 1);
    println!("journey: {} pods have vanished, {before} of them while no operator was there", vanished.len());
    rotation::ask(cluster, "ee", request).unwrap();
    let field = r#"jsonpath={.status.conditions[?(@.type=="RotationUnblocked")].message}"#;
    let said = || cluster.kubectl(&["get", "trustanchor", "ee", "-o", field]).unwrap_or_default();
    let expected =
        |[namespace, name, pod]: &[String; 3]| format!("pod {pod} of SecurityServer {namespace}/{name} has vanished");
    // Any of them: the one that was deleted just now may state something more before its kubelet has ended it. Whose last statement was of
    // another bundle than the published one holds up the announcement, the others what comes after it.
    let named = || vanished.iter().map(expected).any(|expected| said().contains(&expected));
    wait::until("the change names whom it waits for", Duration::from_mins(1), said, || Ok(named().then_some(())))
        .unwrap();
    let standing = rotation::standing(cluster, "ee").unwrap();
    assert!(matches!(&*standing.phase, "Preparing" | "Announcing"), "the next authority issues nothing: {standing:?}");
    assert_eq!(standing.generation, generation, "{standing:?}");
    rotation::exclude(cluster, "ee", &vanished).unwrap();
    until_vanished(cluster, 0);
}

/// Once to the end, once cancelled when the next authority already issues. Not one call fails.
fn the_authority_is_replaced_under_calls(cluster: &Cluster, person: &str) {
    let callers = [(BENEFITS, person), (CLINIC, person)];
    let before = rotation::standing(cluster, "ee").unwrap();
    assert_eq!(before.phase, "Stable", "{before:?}");
    let (whole, cancelled) = (format!("journey-{}", before.highest + 1), format!("journey-{}", before.highest + 2));
    vanished_pods_hold_a_change_up(cluster, &whole);
    let (changes, calls) = rotation::under_calls(cluster, &callers, || {
        let next = before.highest + 1;
        let whole = rotation::until(cluster, "ee", &format!("stable with generation {next}"), |now| {
            now.phase == "Stable" && now.generation == next
        })?;
        rotation::ask(cluster, "ee", &cancelled)?;
        let there = rotation::until(cluster, "ee", "switching", |now| now.phase == "Switching")?;
        rotation::cancel(cluster, "ee", &cancelled)?;
        let back = rotation::until(cluster, "ee", &format!("back with generation {next}"), |now| {
            now.phase == "Stable" && now.generation == next && now.highest == next + 1
        })?;
        Ok([whole, there, back])
    })
    .unwrap();
    for phases in changes {
        println!("journey: {phases:?}");
    }
    println!("journey: {} calls meanwhile, {} failed", calls.made, calls.failed.len());
    assert!(calls.failed.is_empty(), "{:#?}", calls.failed);
    assert!(calls.made >= 100, "{} calls are too few to show anything", calls.made);
    // That the change is over is published first; then the other's key is deleted.
    let keys = || {
        let all = cluster.kubectl(&["-n", install::NAMESPACE, "get", "secrets", "-o", "name"]).unwrap_or_default();
        all.lines().filter(|name| name.starts_with("secret/ee-ca-")).map(str::to_owned).collect::<Vec<_>>()
    };
    let in_use = [format!("secret/ee-ca-{}", before.highest + 1)];
    let state = || format!("{:?}", keys());
    let alone = || Ok((keys() == in_use).then_some(()));
    wait::until("only the authority in use has a key", Duration::from_secs(30), state, alone).unwrap();
}

/// What the thief has minted is refused within seconds, and every certificate that was issued is accepted until there is a new one: not one
/// call fails. OpenSSL is the judge.
fn a_stolen_authority_is_thrown_out_under_calls(layout: &Layout, region: &Region, person: &str) {
    let cluster = region.cluster();
    let before = rotation::standing(cluster, "ee").unwrap();
    let gateways = POPULATION.addresses(cluster).unwrap();
    let thief = Thief::mint(layout, region, "ee", before.generation, &gateways[0]).unwrap();
    let knock = || gateways.iter().map(|address| thief.knock(region, address).unwrap()).collect::<Vec<_>>();
    let none = knock();
    assert!(none.len() >= 2 && none.iter().all(|it| *it == Handshake::Accepted), "as long as nobody knows: {none:?}");
    let all_refuse = |alert: &str| {
        for said in knock() {
            let Handshake::Refused(why) = said else { panic!("a minted certificate is accepted") };
            assert!(why.contains(alert), "{why}");
        }
    };
    let ((), calls) = rotation::under_calls(cluster, &[(BENEFITS, person), (CLINIC, person)], || {
        let began = std::time::Instant::now();
        rotation::declare_compromised(cluster, "ee", before.generation)?;
        let field = "jsonpath={.status.emergency}";
        let said = || cluster.kubectl(&["get", "trustanchor", "ee", "-o", field]).unwrap_or_default();
        wait::until("every process has confirmed it", Duration::from_secs(30), said, || {
            let said: Value = serde_json::from_str(&said()).unwrap_or_default();
            let told = said["compromisedGeneration"] == before.generation && said["waitingFor"].is_null();
            Ok(told.then_some(()))
        })?;
        println!("journey: {} after {:?}", said(), began.elapsed());
        all_refuse("alert certificate revoked");
        let next = before.highest + 1;
        let phases = rotation::until(cluster, "ee", &format!("stable with generation {next}"), |now| {
            now.phase == "Stable" && now.generation == next
        })?;
        println!("journey: {phases:?}");
        Ok(())
    })
    .unwrap();
    println!("journey: {} calls meanwhile, {} failed", calls.made, calls.failed.len());
    assert!(calls.failed.is_empty(), "{:#?}", calls.failed);
    assert!(calls.made >= 100, "{} calls are too few to show anything", calls.made);
    all_refuse("alert unknown ca");
}

/// Every gateway confirms that it refuses them, and the provider is called again once its processes have new ones.
fn stolen_keys_are_refused(cluster: &Cluster, person: &str) {
    let of_server = |field: &str| {
        let field = format!("jsonpath={{{field}}}");
        cluster.kubectl(&["-n", POPULATION.namespace, "get", "securityserver", "ss1", "-o", &field]).unwrap()
    };
    let issued: u64 = of_server(".status.issueNumber").parse().unwrap();
    let patch = format!(r#"{{"spec":{{"revocation":{{"upToIssueNumber":{issued},"reason":"journey"}}}}}}"#);
    let server = ["-n", POPULATION.namespace, "patch", "securityserver", "ss1", "--type=merge", "--patch", &patch];
    cluster.kubectl(&server).unwrap();
    let began = std::time::Instant::now();
    let field = "jsonpath={.status.revocations}";
    let said = || cluster.kubectl(&["get", "trustanchor", "ee", "-o", field]).unwrap_or_default();
    wait::until("every process has confirmed it", Duration::from_secs(30), said, || {
        let said: Value = serde_json::from_str(&said()).unwrap_or_default();
        let revoked = said[0]["upToIssueNumber"] == issued && said[0]["waitingFor"].is_null();
        Ok(revoked.then_some(()))
    })
    .unwrap();
    println!("journey: {} after {:?}", said(), began.elapsed());
    federation::call_until_served(cluster, BENEFITS, person, Duration::from_mins(3)).unwrap();
    println!("journey: the provider is called again after {:?}", began.elapsed());
    let now: u64 = of_server(".status.leaf.issueNumber").parse().unwrap();
    assert!(now > issued, "{now} was issued after {issued}");
}

/// The entries of a gateway's start copy, as they stand in the ConfigMap.
fn start_copy(cluster: &Cluster, gateway: Gateway) -> Value {
    let name = format!("{}-configuration", gateway.name);
    let said = cluster.kubectl(&["-n", gateway.namespace, "get", "configmap", &name, "-o", "json"]).unwrap();
    let object: Value = serde_json::from_str(&said).unwrap();
    assert!(object["binaryData"].is_object(), "{object}");
    object["binaryData"].clone()
}

fn put_start_copy(cluster: &Cluster, gateway: Gateway, entries: &Value) {
    let name = format!("{}-configuration", gateway.name);
    let patch = serde_json::json!({"binaryData": entries}).to_string();
    cluster.kubectl(&["-n", gateway.namespace, "patch", "configmap", &name, "--type=merge", "-p", &patch]).unwrap();
}

/// What a gateway's metrics say, through the API server's proxy.
fn gauge(cluster: &Cluster, gateway: Gateway, pod: &str, name: &str) -> u64 {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics", gateway.namespace);
    let said = cluster.kubectl(&["get", "--raw", &path]).unwrap();
    let name = format!("saatkond_gateway_{name} ");
    let found = said.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name}in\n{said}"));
    found.trim().parse().unwrap()
}

/// Waits until the gateways that the others will learn from have the instance configuration: some had to find the link anew.
fn until_all_run_on(cluster: &Cluster, version: u64) {
    for gateway in [POPULATION, repair::BENEFITS] {
        let loaded = || {
            let pods = gateway.pods(cluster).unwrap_or_default();
            pods.into_iter().map(|(pod, ..)| gauge(cluster, gateway, &pod, "instance_version")).collect::<Vec<_>>()
        };
        wait::until(
            &format!("{gateway:?} runs on version {version}"),
            Duration::from_mins(1),
            || format!("{:?}", loaded()),
            || Ok(loaded().iter().all(|it| *it >= version).then_some(())),
        )
        .unwrap();
    }
}

fn published_version(cluster: &Cluster) -> u64 {
    let field = "jsonpath={.status.configuration.version}";
    cluster.kubectl(&["get", "trustanchor", "ee", "-o", field]).unwrap().trim().parse().unwrap()
}

fn grant_police(cluster: &Cluster) {
    let patch = r#"[{"op":"add","path":"/spec/subsystems/0/services/0/access/-","value":
        {"subject":{"memberClass":"GOV","memberCode":"70000003","subsystem":"police"},"allow":[{"method":"GET","path":"/*"}]}}]"#;
    let member = ["-n", "population-register", "patch", "member", "population-register", "--type=json", "-p", patch];
    cluster.kubectl(&member).unwrap();
}

/// Declares one more subsystem of the police, as a field manager of its own; `false` takes it back.
fn add_subsystem(cluster: &Cluster, there: bool) {
    let spec = if there { "spec: {subsystems: [{code: archive, connectionType: HTTP}]}" } else { "" };
    cluster
        .apply(&format!(
            "apiVersion: saatkond.io/v1alpha1\nkind: Member\nmetadata: {{name: police, namespace: police}}\n{spec}\n"
        ))
        .unwrap();
}
