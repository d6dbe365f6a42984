//! Objects as Rust values: defaults, choices, and what is written back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use saatkond_api::cases::{FILES, load};
use saatkond_api::v1alpha1::member::{ServiceChoice, SubjectChoice};
use saatkond_api::v1alpha1::trust_anchor::{AdmissionMode, KeyAlgorithm, SourceChoice};
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use serde_json::json;

#[test]
fn the_shortest_trust_anchor_has_the_documented_defaults() {
    let anchor: TrustAnchor = serde_json::from_value(json!({
        "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "ee"},
        "spec": {"instance": "EE", "source": {"managed": {}}},
    }))
    .unwrap();
    let Some(SourceChoice::Managed(managed)) = anchor.spec.source.choice() else { panic!("managed") };
    assert_eq!(managed.algorithm, KeyAlgorithm::EcdsaP256);
    assert_eq!(managed.lifetime.to_string(), "8760h");
    assert_eq!(managed.retirement.to_string(), "24h");
    assert_eq!(anchor.spec.leaf_policy.max_lifetime.to_string(), "360h");
    assert_eq!(anchor.spec.autonomy.to_string(), "72h");
    assert_eq!(anchor.spec.admission, AdmissionMode::Annotated);
}

#[test]
fn the_shortest_security_server_has_the_documented_defaults() {
    let server: SecurityServer = serde_json::from_value(json!({
        "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1"},
        "spec": {"memberRef": {"name": "population-register"}, "serverCode": "ss1"},
    }))
    .unwrap();
    assert_eq!(server.spec.replicas, 2);
    assert_eq!(server.spec.limits.spool_bytes(), Some(1 << 30));
    assert_eq!(server.spec.limits.max_body_bytes, None);
}

#[test]
fn choices_of_a_member() {
    let member: Member = serde_json::from_value(load(FILES[1].1).base).unwrap();
    let services = &member.spec.subsystems[0].services;
    assert!(matches!(services[0].choice(), Some(ServiceChoice::OpenApi(o)) if o.config_map_ref.key == "openapi.yaml"));
    assert!(matches!(services[1].choice(), Some(ServiceChoice::Rest(_))));
    assert_eq!(services[1].url(), Some("http://population-app:8080/deaths"));
    let subject = services[0].access[0].subject.choice();
    assert!(matches!(subject, Some(SubjectChoice::Client { subsystem: Some(code), .. }) if code == "benefits"));
    assert!(matches!(services[1].access[0].subject.choice(), Some(SubjectChoice::LocalGroup(_))));
}

#[test]
fn what_is_read_is_written_back() {
    for (kind, text) in FILES {
        let base = load(text).base;
        let written = match kind {
            "TrustAnchor" => serde_json::to_value(serde_json::from_value::<TrustAnchor>(base.clone()).unwrap()),
            "Member" => serde_json::to_value(serde_json::from_value::<Member>(base.clone()).unwrap()),
            _ => serde_json::to_value(serde_json::from_value::<SecurityServer>(base.clone()).unwrap()),
        }
        .unwrap();
        let crds = saatkond_api::crds::all().unwrap();
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        // What is added are defaults alone: the object is still admitted, and as an update of what it was.
        assert_eq!(saatkond_api::validation::Judge::new(crd).unwrap().refusals(&written, Some(&base)), []);
        assert_eq!(written["spec"]["subsystems"][0]["code"], base["spec"]["subsystems"][0]["code"]);
    }
}
