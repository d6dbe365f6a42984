//! What the operator brings about on a real API server, with the rights of the chart and no more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

#[path = "support/rights.rs"]
mod rights;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use saatkond_api::SecurityServer;
use saatkond_api::names::{entry, finalizer};
use saatkond_operator::client::{Call, Fault, Verdict};
use saatkond_pki::authority::Authority;
use saatkond_pki::certificate::CertificateFacts;
use saatkond_pki::configuration_key::ConfigurationKey;
use saatkond_pki::key::KeyPair;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document;
use saatkond_wire::identity::{Credential, Identity};
use serde_json::{Value, json};
use support::{Bed, bed, federation, get, objects, remove, until, until_condition};

/// Until everything that needs no running gateway holds.
async fn until_set_up(admin: &Client, stem: &str) {
    let home = format!("{stem}-home");
    until_condition(admin, ("TrustAnchor", "", stem), "AuthorityAvailable", "True/AsDeclared").await;
    until_condition(admin, ("Member", &home, "register"), "Registered", "True/AsDeclared").await;
    for condition in ["Admitted", "IdentityIssued", "ConfigurationPublished", "ChildrenApplied", "Available"] {
        until_condition(admin, ("SecurityServer", &home, "ss1"), condition, "True/AsDeclared").await;
    }
}

async fn set_up(bed: &'static Bed, stem: &str) -> (Client, tokio::task::JoinHandle<()>, support::Operator) {
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    bed.apply(&federation(stem));
    until_set_up(&admin, stem).await;
    (admin, faker, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_converges_stays_quiet_and_a_restart_writes_nothing() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let calls = rights::Recorder::new();
    let operator = bed.operator(Some(calls.clone()), &[]).await;
    bed.apply(&federation("conv"));
    until_set_up(&admin, "conv").await;
    let seen = objects(&admin, "conv").await;
    for object in [
        "Secret saatkond-system/conv-ca-1",
        "Secret saatkond-system/conv-configuration-1",
        "Secret saatkond-system/conv-configuration-2",
        "ConfigMap saatkond-system/conv-instance-configuration",
        "ConfigMap saatkond-system/conv-home.ss1-server-configuration",
        "ConfigMap conv-home/ss1-configuration",
        "Secret conv-home/ss1-identity",
        "Deployment conv-home/ss1",
        "Service conv-home/ss1",
        "PodDisruptionBudget conv-home/ss1",
        "ServiceAccount conv-home/ss1",
    ] {
        assert!(seen.contains_key(object), "no {object} among {:?}", seen.keys().collect::<Vec<_>>());
    }
    assert_eq!(seen["Secret saatkond-system/conv-ca-1"]["immutable"], true);

    // Quiet: not one write while nothing changes.
    quiet(&[&operator], Duration::from_secs(8)).await;
    assert_eq!(calls.without_right("saatkond-controller", support::SYSTEM), Vec::<String>::new(), "not in RBAC.md");
    // A restart finds everything as it should be.
    operator.end().await;
    let again = bed.operator(None, &[]).await;
    until("the second operator has looked at everything", Duration::from_secs(20), || async {
        let text = again.metrics.text().unwrap();
        let done = ["TrustAnchor", "Member", "SecurityServer"]
            .iter()
            .all(|kind| text.contains(&format!("saatkond_reconciles_total{{kind=\"{kind}\",result=\"ok\"}}")));
        if done { Ok(()) } else { Err(text) }
    })
    .await;
    quiet(&[&again], Duration::from_secs(4)).await;
    assert_eq!(again.writes(), 0, "a restart on a converged state writes nothing\n{}", again.metrics.text().unwrap());
    again.end().await;
    faker.abort();
    remove(&admin, "conv").await;
}

/// No write but the lease's until `bound` is over; the first one is shown at once.
async fn quiet(operators: &[&support::Operator], bound: Duration) {
    let writes = || operators.iter().map(|operator| operator.writes()).sum::<u64>();
    // What the last change still causes may finish first.
    let mut last = writes();
    let mut since = std::time::Instant::now();
    until("no more writes", Duration::from_secs(40), || {
        let now = writes();
        if now != last {
            last = now;
            since = std::time::Instant::now();
        }
        let calm = since.elapsed() >= bound;
        async move { if calm { Ok(()) } else { Err(format!("{now} writes so far")) } }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_binding_and_without_the_identity_nothing_is_made_and_both_are_said() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let operator = bed.operator(None, &[]).await;
    // As applied by a user before anybody has admitted the namespace.
    let all = federation("adm");
    let parts: Vec<_> = all.split("\n---\n").collect();
    bed.apply(&support::namespace("adm-home", None));
    bed.apply(&parts[2..].join("\n---\n"));
    let member = ("Member", "adm-home", "register");
    // Where both are missing the member names the command that mends both.
    until_condition(&admin, member, "Admitted", "False/IdentityNotAdmitted").await;
    until_condition(&admin, ("SecurityServer", "adm-home", "ss1"), "Admitted", "False/NamespaceNotAdmitted").await;
    bed.apply(parts[0]);
    until_condition(&admin, member, "Admitted", "False/NamespaceNotAdmitted").await;
    assert!(get(&admin, "Secret", "adm-home", "ss1-identity").await.is_none());
    bed.apply(parts[1]);
    until_condition(&admin, member, "Admitted", "True/AsDeclared").await;
    until_condition(&admin, member, "Registered", "True/AsDeclared").await;
    operator.end().await;
    remove(&admin, "adm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_server_leaves_the_configuration_before_it_goes() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let (admin, faker, operator) = set_up(bed, "del").await;
    let servers: Api<SecurityServer> = Api::namespaced(admin.clone(), "del-home");
    let finalizers = servers.get("ss1").await.unwrap().finalizers().to_vec();
    assert!(finalizers.contains(&finalizer::SECURITY_SERVER.to_owned()), "{finalizers:?}");
    servers.delete("ss1", &DeleteParams::default()).await.unwrap();
    until("the server is gone", Duration::from_secs(30), || async {
        match servers.get_opt("ss1").await.unwrap() {
            None => Ok(()),
            Some(server) => Err(format!("{:#?}", server.status)),
        }
    })
    .await;
    let members: Api<DynamicObject> = Api::namespaced_with(admin.clone(), "del-home", &support::kinds()[1]);
    members.delete("register", &DeleteParams::default()).await.unwrap();
    until("the member is gone", Duration::from_secs(30), || async {
        match members.get_opt("register").await.unwrap() {
            None => Ok(()),
            Some(member) => Err(serde_json::to_string_pretty(&member).unwrap()),
        }
    })
    .await;
    operator.end().await;
    faker.abort();
    remove(&admin, "del").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_owner_has_gone_before_it_takes_its_document_along() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let (admin, faker, operator) = set_up(bed, "orph").await;
    // As one operator may leave it, or two finalizers whose order nobody promises.
    operator.end().await;
    let of = |kind| Api::<DynamicObject>::namespaced_with(admin.clone(), "orph-home", &support::kinds()[kind]);
    let (members, servers) = (of(1), of(2));
    servers.delete("ss1", &DeleteParams::default()).await.unwrap();
    members.delete("register", &DeleteParams::default()).await.unwrap();
    let bare = json!({"metadata": {"finalizers": []}});
    members.patch("register", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    assert!(members.get_opt("register").await.unwrap().is_none());
    let operator = bed.operator(None, &[]).await;
    until("the server is gone", Duration::from_secs(30), || async {
        servers.get_opt("ss1").await.unwrap().map_or(Ok(()), |server| Err(format!("{server:#?}")))
    })
    .await;
    let document = get(&admin, "ConfigMap", support::SYSTEM, "orph-home.ss1-server-configuration").await;
    assert_eq!(document, None, "it is still handed out");
    operator.end().await;
    faker.abort();
    remove(&admin, "orph").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_were_made_anew_from_a_dump_go_and_keep_what_others_hold_them_by() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    // As `kubectl get -o yaml` shows them: the finalizer stands there, and belongs to whoever creates the object.
    let foreign = "example.org/hold";
    let held = |part: &str| {
        let mut object: Value = serde_json::from_str(part).unwrap();
        object["metadata"]["finalizers"] = match object["kind"].as_str() {
            Some("TrustAnchor") => json!([finalizer::TRUST_ANCHOR]),
            Some("Member") => json!([finalizer::MEMBER, foreign]),
            Some("SecurityServer") => json!([finalizer::SECURITY_SERVER]),
            _ => return part.to_owned(),
        };
        object.to_string()
    };
    bed.apply(&federation("dump").split("\n---\n").map(held).collect::<Vec<_>>().join("\n---\n"));
    until_set_up(&admin, "dump").await;
    let until_gone = async |kind: &str, namespace: &str, name: &str| {
        until(&format!("{kind} {name} is gone"), Duration::from_secs(30), || async {
            get(&admin, kind, namespace, name).await.map_or(Ok(()), |object| Err(format!("{object:#}")))
        })
        .await;
    };
    bed.kubectl(&["delete", "securityserver", "ss1", "--namespace=dump-home", "--wait=false"]);
    until_gone("SecurityServer", "dump-home", "ss1").await;
    bed.kubectl(&["delete", "member", "register", "--namespace=dump-home", "--wait=false"]);
    until("the member is held by the other finalizer alone", Duration::from_secs(30), || async {
        let member = get(&admin, "Member", "dump-home", "register").await.unwrap_or_default();
        if member["metadata"]["finalizers"] == json!([foreign]) { Ok(()) } else { Err(format!("{member:#}")) }
    })
    .await;
    let bare = r#"{"metadata": {"finalizers": null}}"#;
    bed.kubectl(&["patch", "member", "register", "--namespace=dump-home", "--type=merge", "--patch", bare]);
    until_gone("Member", "dump-home", "register").await;
    bed.kubectl(&["delete", "trustanchor", "dump", "--wait=false"]);
    until_gone("TrustAnchor", "", "dump").await;
    operator.end().await;
    faker.abort();
    remove(&admin, "dump").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_race_and_make_one_key_a_generation() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let first = bed.operator(None, &["--identity=racer-1"]).await;
    let second = bed.operator(None, &["--identity=racer-2"]).await;
    bed.apply(&federation("race"));
    until_set_up(&admin, "race").await;
    let leading = |operator: &support::Operator| operator.metrics.leading.get();
    assert_eq!(leading(&first) + leading(&second), 1, "exactly one leads");
    let (leader, standby) = if leading(&first) == 1 { (first, second) } else { (second, first) };
    assert_eq!(standby.writes(), 0);
    let before = get(&admin, "Secret", support::SYSTEM, "race-ca-1").await.unwrap();
    // Somebody steals the lease: the leader drops its writer, and writes nothing under it any more.
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> = Api::namespaced(admin.clone(), support::SYSTEM);
    let stolen = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 4}});
    leases.patch("saatkond-controller", &PatchParams::default(), &Patch::Merge(stolen)).await.unwrap();
    until("the leader has noticed", Duration::from_secs(10), || {
        let now = leading(&leader);
        async move { if now == 0 { Ok(()) } else { Err(String::from("it still leads")) } }
    })
    .await;
    let written = (leader.writes(), standby.writes());
    bed.kubectl(&["delete", "poddisruptionbudget", "ss1", "--namespace=race-home", "--wait=false"]);
    // The thief never renews: one of the two takes over, and nothing is made twice.
    until("one leads again", Duration::from_secs(20), || {
        // Looked at first: whoever takes over meanwhile may write.
        let same = (leader.writes(), standby.writes()) == written;
        let now = leading(&leader) + leading(&standby);
        assert!(same || now > 0, "something was written while neither led");
        async move { if now == 1 { Ok(()) } else { Err(format!("{now} lead")) } }
    })
    .await;
    bed.kubectl(&["delete", "deployment", "ss1", "--namespace=race-home", "--wait=false"]);
    until("the new leader works", Duration::from_secs(10), || async {
        get(&admin, "Deployment", "race-home", "ss1").await.map(|_| ()).ok_or_else(|| "no Deployment".to_owned())
    })
    .await;
    let after = get(&admin, "Secret", support::SYSTEM, "race-ca-1").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert!(get(&admin, "Secret", support::SYSTEM, "race-ca-2").await.is_none());
    leader.end().await;
    standby.end().await;
    faker.abort();
    remove(&admin, "race").await;
}

/// Holds the first making of each kind of object back until both of two operators are about to make it: each has then seen that
/// there is none. Wherever only one comes it goes on alone after a while, and is missing among those that have met.
struct Meeting {
    /// How many have come to each place.
    come: Mutex<BTreeMap<String, usize>>,
    changed: Condvar,
}

/// One of the two.
struct Racer {
    meeting: Arc<Meeting>,
    made: Mutex<BTreeSet<String>>,
}

impl Racer {
    fn pair() -> [Arc<Self>; 2] {
        let meeting = Arc::new(Meeting { come: Mutex::default(), changed: Condvar::new() });
        [(); 2].map(|()| Arc::new(Self { meeting: meeting.clone(), made: Mutex::default() }))
    }

    /// Where both have come.
    fn met(&self) -> BTreeSet<String> {
        let come = self.meeting.come.lock().unwrap();
        come.iter().filter(|(_, count)| **count == 2).map(|(place, _)| place.clone()).collect()
    }
}

impl Fault for Racer {
    fn judge(&self, call: &Call) -> Verdict {
        let place = call.to_string();
        if call.verb != "create" || !matches!(&*call.resource, "secrets" | "configmaps") {
            return Verdict::Pass;
        }
        if self.made.lock().unwrap().insert(place.clone()) {
            // The other one needs a thread to get here.
            tokio::task::block_in_place(|| {
                let mut come = self.meeting.come.lock().unwrap();
                *come.entry(place.clone()).or_default() += 1;
                self.meeting.changed.notify_all();
                let alone = |come: &mut BTreeMap<String, usize>| come[&place] < 2;
                drop(self.meeting.changed.wait_timeout_while(come, Duration::from_secs(10), alone).unwrap());
            });
        }
        Verdict::Pass
    }

    fn died(&self) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_operators_that_both_lead_make_everything_once() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    // Both renew the Lease as their own, as they would if an identity were given twice: nothing keeps them apart but what the writes
    // themselves carry. Long, since a renewal waits behind what is held back.
    let racers = Racer::pair();
    let arguments = ["--identity=twin", "--lease-seconds=30"];
    let one = bed.operator(Some(racers[0].clone()), &arguments).await;
    let other = bed.operator(Some(racers[1].clone()), &arguments).await;
    let operators = [&one, &other];
    until("both lead and have listed everything", Duration::from_mins(1), || async {
        let ready = operators.map(|it| (it.metrics.leading.get(), it.readiness.list()));
        if ready.iter().all(|(leading, pending)| *leading == 1 && pending.is_empty()) {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    })
    .await;
    bed.apply(&federation("twin"));
    until_set_up(&admin, "twin").await;
    quiet(&operators, Duration::from_secs(8)).await;
    for operator in operators {
        assert!(operator.writes() > 0, "it took no part");
        assert_eq!(operator.metrics.leading.get(), 1, "it does not lead any more");
    }
    // Else this shows nothing: the authority and its keys, the instance's document, the server's identity.
    let met = racers[0].met();
    for place in ["secrets in saatkond-system", "configmaps in saatkond-system", "secrets in twin-home"] {
        assert!(met.contains(&format!("create {place}")), "only one came to create {place}: {met:?}");
    }

    let seen = objects(&admin, "twin").await;
    let named = |of: &str| -> Vec<_> { seen.keys().filter(|key| key.starts_with(of)).cloned().collect() };
    assert_eq!(
        named("Secret "),
        [
            "Secret saatkond-system/twin-ca-1",
            "Secret saatkond-system/twin-configuration-1",
            "Secret saatkond-system/twin-configuration-2",
            "Secret twin-home/ss1-identity",
        ]
    );
    assert_eq!(
        named("ConfigMap "),
        [
            "ConfigMap saatkond-system/twin-home.ss1-server-configuration",
            "ConfigMap saatkond-system/twin-instance-configuration",
            "ConfigMap twin-home/ss1-configuration",
        ]
    );
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), support::SYSTEM);
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), support::SYSTEM);
    let text = async |name: &str, entry: &str| {
        let data = secrets.get(name).await.unwrap().data.unwrap();
        String::from_utf8(data[entry].0.clone()).unwrap()
    };
    let packed = async |name: &str, entry: &str| maps.get(name).await.unwrap().binary_data.unwrap()[entry].0.clone();

    // The key that stands is the certificate's that is published, under the configuration keys that stand.
    let (certificate, key) = (text("twin-ca-1", entry::CA_CERTIFICATE).await, text("twin-ca-1", entry::CA_KEY).await);
    let authority = Authority::load(&certificate, &key).unwrap();
    let mut keys = Vec::new();
    for generation in [1, 2] {
        let pem = text(&format!("twin-configuration-{generation}"), entry::CONFIGURATION_KEY).await;
        keys.push(ConfigurationKey::from_pkcs8_pem(&pem).unwrap().public());
    }
    let instance = packed("twin-instance-configuration", entry::INSTANCE_CONFIGURATION).await;
    let instance = document::open::<InstanceConfiguration>(&instance, &keys).unwrap().payload;
    let published: Vec<_> = instance.bundle.iter().map(|it| it.certificate.clone()).collect();
    assert_eq!(published, [authority.certificate().to_pem()]);
    assert_eq!((&instance.configuration_keys.current.key, &instance.configuration_keys.next.key), (&keys[0], &keys[1]));
    let server = packed("twin-home.ss1-server-configuration", entry::SERVER_CONFIGURATION).await;
    document::open::<ServerConfiguration>(&server, &keys).unwrap();

    // One of the two identities is stored, and it is the one that the others are told of.
    let homes: Api<Secret> = Api::namespaced(admin.clone(), "twin-home");
    let stored = homes.get("ss1-identity").await.unwrap().data.unwrap();
    let identity: Identity = serde_json::from_slice(&stored[entry::IDENTITY].0).unwrap();
    let credentials = identity.signing.iter().map(|signing| &signing.credential).chain([&identity.authentication]);
    for Credential { certificate, key, .. } in credentials {
        let leaf = CertificateFacts::parse(&CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        assert_eq!(leaf.spki_sha256, KeyPair::from_pkcs8_pem(key.expose()).unwrap().spki_sha256(), "a torn pair");
        assert_eq!(leaf.authority_key_id, authority.certificate().facts().subject_key_id, "of another authority");
    }
    let spki = KeyPair::from_pkcs8_pem(identity.authentication.key.expose()).unwrap().spki_sha256().to_string();
    let registered = &seen["SecurityServer twin-home/ss1"]["status"]["registeredKeys"];
    let registered: Vec<_> = registered.as_array().unwrap().iter().map(|key| key["spkiSha256"].clone()).collect();
    assert_eq!(registered, [json!(spki)]);
    one.end().await;
    other.end().await;
    faker.abort();
    remove(&admin, "twin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_may_live_in_the_namespace_of_its_host() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let (admin, faker, operator) = set_up(bed, "near").await;
    bed.apply(&support::namespace("near-home", Some("NEAR/GOV/70000001, NEAR/COM/1")));
    let clinic = json!({
        "apiVersion": "saatkond.io/v1alpha1", "kind": "Member", "metadata": {"name": "clinic", "namespace": "near-home"},
        "spec": {
            "trustAnchorRef": {"name": "near"}, "memberClass": "COM", "memberCode": "1",
            "subsystems": [{"code": "clinic", "connectionType": "HTTP", "servers": [{"name": "ss1"}]}],
        },
    });
    bed.apply(&clinic.to_string());
    let guests = r#"{"spec":{"guests":[{"memberClass":"COM","memberCode":"1"}]}}"#;
    bed.kubectl(&["patch", "securityserver", "ss1", "--namespace=near-home", "--type=merge", "--patch", guests]);
    until_condition(&admin, ("Member", "near-home", "clinic"), "Registered", "True/AsDeclared").await;
    until("the host signs for it", Duration::from_secs(20), || async {
        let status = get(&admin, "SecurityServer", "near-home", "ss1").await.unwrap()["status"].clone();
        let signs = status["signing"].as_array().into_iter().flatten().any(|leaf| leaf["member"] == "COM/1");
        if signs { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    until_condition(&admin, ("Member", "near-home", "clinic"), "ReferencesResolved", "True/AsDeclared").await;
    operator.end().await;
    faker.abort();
    remove(&admin, "near").await;
}
