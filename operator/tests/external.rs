//! An authority that exists elsewhere: what the operator makes of certificates and a key that are given to it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

mod support;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use saatkond_pki::authority::{Authority, AuthoritySpec};
use saatkond_pki::key::{Algorithm, SystemKeys};
use saatkond_pki::serial::Serial;
use serde_json::{Value, json};
use support::{Bed, bed, federation, get, objects, remove, until, until_condition};

const AVAILABLE: &str = "AuthorityAvailable";

/// An authority as somebody else's tools make one. Its number tells it apart in name and serial.
fn authority(stem: &str, number: u8) -> Authority {
    let spec = AuthoritySpec {
        instance: &stem.to_uppercase(),
        generation: number.into(),
        algorithm: Algorithm::EcdsaP256,
        not_before: Timestamp::now() - SignedDuration::from_mins(5),
        lifetime: SignedDuration::from_hours(8760),
        serial: Serial::from_random([number; 16]),
    };
    Authority::create(&spec, &SystemKeys).unwrap()
}

/// The Secret with an authority's key, as its owner brings it.
fn signer(name: &str, of: &Authority) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": support::SYSTEM},
        "stringData": {"tls.key": &*of.key_pem()},
    })
    .to_string()
}

fn source(certificates: &[&str], signer: &str) -> Value {
    json!({"external": {"certificates": certificates, "signingKeySecretRef": {"name": signer}}})
}

/// The usual federation under certificates from outside.
fn under(stem: &str, certificates: &[&str], signer: &str) -> String {
    let turn = |part: &str| {
        let mut object: Value = serde_json::from_str(part).unwrap();
        if object["kind"] == "TrustAnchor" {
            object["spec"]["source"] = source(certificates, signer);
        }
        object.to_string()
    };
    federation(stem).split("\n---\n").map(turn).collect::<Vec<_>>().join("\n---\n")
}

fn edit(bed: &Bed, anchor: &str, certificates: &[&str], signer: &str) {
    let patch = json!({"spec": {"source": source(certificates, signer)}}).to_string();
    bed.kubectl(&["patch", "ta", anchor, "--type=merge", "--patch", &patch]);
}

/// Until everything that needs no running gateway holds.
async fn until_set_up(admin: &Client, stem: &str) {
    let home = format!("{stem}-home");
    until_condition(admin, ("TrustAnchor", "", stem), AVAILABLE, "True/AsDeclared").await;
    for condition in ["Admitted", "IdentityIssued", "ConfigurationPublished", "ChildrenApplied", "Available"] {
        until_condition(admin, ("SecurityServer", &home, "ss1"), condition, "True/AsDeclared").await;
    }
}

async fn status(admin: &Client, kind: &str, namespace: &str, name: &str) -> Value {
    get(admin, kind, namespace, name).await.unwrap_or_default()["status"].clone()
}

/// Until the published bundle has these generations.
async fn until_bundle(admin: &Client, anchor: &str, generations: &[u64]) -> Value {
    until(&format!("the bundle of {anchor} has {generations:?}"), Duration::from_secs(30), || async {
        let status = status(admin, "TrustAnchor", "", anchor).await;
        if status["bundle"]["generations"] == json!(generations) { Ok(status) } else { Err(format!("{status:#}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_under_an_authority_from_outside_converges_and_no_authority_is_made() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    let one = authority("given", 1);
    bed.apply(&signer("given-signer", &one));
    bed.apply(&under("given", &[&one.certificate().to_pem()], "given-signer"));
    until_set_up(&admin, "given").await;
    let anchor = until_bundle(&admin, "given", &[1]).await;
    assert_eq!(anchor["signingGeneration"], 1, "{anchor:#}");
    let known = &anchor["authorities"][0];
    assert_eq!((&known["generation"], &known["serial"]), (&json!(1), &json!(one.certificate().facts().serial)));
    let server = status(&admin, "SecurityServer", "given-home", "ss1").await;
    assert_eq!(server["leaf"]["issuerGeneration"], 1, "{server:#}");
    let seen = objects(&admin, "given").await;
    let made: Vec<_> = seen.keys().filter(|name| name.contains("given-ca-")).collect();
    assert!(made.is_empty(), "a root that nobody asked for: {made:?}");
    assert!(seen.contains_key("Secret saatkond-system/given-configuration-1"), "{:?}", seen.keys());
    // What its owner brings stays as it was brought.
    let brought = &seen["Secret saatkond-system/given-signer"]["metadata"];
    assert_eq!(brought.get("ownerReferences").or(brought.get("labels")), None, "{brought:#}");
    operator.end().await;
    faker.abort();
    remove(&admin, "given").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_everything_but_issuing_goes_on_and_the_key_is_found_when_it_comes() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    let one = authority("keyless", 1);
    bed.apply(&under("keyless", &[&one.certificate().to_pem()], "keyless-signer"));
    let (anchor, server) = (("TrustAnchor", "", "keyless"), ("SecurityServer", "keyless-home", "ss1"));
    until_condition(&admin, anchor, AVAILABLE, "False/SigningKeyMissing").await;
    // Who takes part is published and signed all the same: that needs the configuration keys alone.
    until_condition(&admin, anchor, "ConfigurationPublished", "True/AsDeclared").await;
    until_condition(&admin, ("Member", "keyless-home", "register"), "Registered", "True/AsDeclared").await;
    until_condition(&admin, server, "ConfigurationPublished", "True/AsDeclared").await;
    until_condition(&admin, server, "IdentityIssued", "False/SigningKeyMissing").await;
    let seen = objects(&admin, "keyless").await;
    for name in
        ["Secret keyless-home/ss1-identity", "Secret saatkond-system/keyless-ca-1", "Deployment keyless-home/ss1"]
    {
        assert!(!seen.contains_key(name), "{name} is there");
    }

    // Another authority's key is said to be one, and signs nothing.
    bed.apply(&signer("keyless-signer", &authority("keyless", 2)));
    until_condition(&admin, anchor, AVAILABLE, "False/SigningKeyMismatch").await;
    assert_eq!(get(&admin, "Secret", "keyless-home", "ss1-identity").await, None);
    // A Secret of another name, so that its coming is a change of what is watched.
    bed.apply(&signer("keyless-right", &one));
    edit(bed, "keyless", &[&one.certificate().to_pem()], "keyless-right");
    until_set_up(&admin, "keyless").await;
    operator.end().await;
    faker.abort();
    remove(&admin, "keyless").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_takes_over_when_every_process_trusts_it_and_a_damaged_list_changes_nothing() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let operator = bed.operator(None, &[]).await;
    let (one, two) = (authority("turn", 1), authority("turn", 2));
    let (first, second) = (one.certificate().to_pem(), two.certificate().to_pem());
    bed.apply(&signer("turn-signer-1", &one));
    bed.apply(&signer("turn-signer-2", &two));
    bed.apply(&under("turn", &[&first], "turn-signer-1"));
    until_set_up(&admin, "turn").await;
    let before = until_bundle(&admin, "turn", &[1]).await["bundle"]["sequence"].as_u64().unwrap();
    support::gateway_pods(&admin, "turn-home", "ss1").await;
    let anchor = ("TrustAnchor", "", "turn");
    let issuer =
        async || status(&admin, "SecurityServer", "turn-home", "ss1").await["leaf"]["issuerGeneration"].clone();

    // Certificate and key at once: announced, and not used before those who run have stated that they trust it.
    edit(bed, "turn", &[&first, &second], "turn-signer-2");
    let announced = until_bundle(&admin, "turn", &[1, 2]).await;
    assert_eq!(announced["bundle"]["sequence"], before + 1, "one step, the signing generation stays: {announced:#}");
    until_condition(&admin, anchor, AVAILABLE, "False/Waiting").await;
    assert_eq!(issuer().await, 1);
    let gateways = support::fake_receipts(admin.clone());
    until("the second one issues, and has issued what the server runs on", Duration::from_secs(30), || async {
        let status = status(&admin, "TrustAnchor", "", "turn").await;
        if status["signingGeneration"] == 2 && issuer().await == 2 { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    until_condition(&admin, anchor, AVAILABLE, "True/AsDeclared").await;

    // Every peer that still shows a leaf of the first one would be refused if the rest of this list were published.
    let damaged = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    edit(bed, "turn", &[damaged, &second], "turn-signer-2");
    until_condition(&admin, anchor, AVAILABLE, "False/CertificateInvalid").await;
    let kept = status(&admin, "TrustAnchor", "", "turn").await;
    assert_eq!(kept["bundle"]["generations"], json!([1, 2]), "{kept:#}");
    assert_eq!(kept["signingGeneration"], 2, "the second one is whole: it goes on issuing");

    edit(bed, "turn", &[&second], "turn-signer-2");
    until_bundle(&admin, "turn", &[2]).await;
    until_condition(&admin, anchor, AVAILABLE, "True/AsDeclared").await;
    gateways.abort();
    operator.end().await;
    faker.abort();
    remove(&admin, "turn").await;
}
