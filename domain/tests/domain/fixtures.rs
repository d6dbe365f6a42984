//! Objects as a user would write them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::settings::OperatorSettings;
use serde::de::DeserializeOwned;

/// 2027-01-01T00:00:00Z: when every world begins.
pub const START: i64 = 1_798_761_600;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub fn object<K: DeserializeOwned + ResourceExt>(yaml: &str, uid: &str, created: i64) -> K {
    let mut object: K = serde_saphyr::from_str(yaml).unwrap();
    let meta = object.meta_mut();
    meta.uid = Some(uid.to_owned());
    meta.creation_timestamp = Some(Time(at(created)));
    meta.generation = Some(1);
    object
}

pub fn settings() -> OperatorSettings {
    OperatorSettings {
        namespace: "saatkond-system".into(),
        image: "registry.example/saatkond:0.1.0".into(),
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: vec![],
        link_url: "https://saatkond-link.saatkond-system.svc:8443".into(),
        gateway_log: "info".into(),
    }
}

pub fn anchor() -> TrustAnchor {
    object(
        r"
apiVersion: saatkond.io/v1alpha1
kind: TrustAnchor
metadata: {name: ee}
spec:
  instance: EE
  source: {managed: {}}
  globalGroups:
  - code: hospitals
    members: [{memberClass: COM, memberCode: '2'}, {memberClass: COM, memberCode: '1', subsystem: wards}]
",
        "anchor-uid",
        START - 100,
    )
}

pub fn provider() -> Member {
    object(
        r#"
apiVersion: saatkond.io/v1alpha1
kind: Member
metadata: {name: population-register, namespace: population-register}
spec:
  trustAnchorRef: {name: ee}
  memberClass: GOV
  memberCode: "70000001"
  displayName: Population Register
  subsystems:
  - code: population
    connectionType: HTTP
    localGroups:
    - {code: partners, members: [{memberClass: GOV, memberCode: "70000002", subsystem: benefits}]}
    services:
    - code: persons
      openapi: {configMapRef: {name: persons-openapi}, url: "http://population-app:8080/persons"}
      access:
      - subject: {memberClass: GOV, memberCode: "70000002", subsystem: benefits}
        allow: [{method: GET, path: "/*"}]
      - subject: {globalGroup: hospitals}
      - subject: {localGroup: partners}
    - code: archive
      rest: {url: "http://archive:8080"}
      disabled: {notice: "Closed on Sundays"}
"#,
        "provider-uid",
        START - 90,
    )
}

pub fn consumer() -> Member {
    object(
        r#"
apiVersion: saatkond.io/v1alpha1
kind: Member
metadata: {name: benefits, namespace: benefits}
spec:
  trustAnchorRef: {name: ee}
  memberClass: GOV
  memberCode: "70000002"
  subsystems:
  - code: benefits
    connectionType: HTTP
  - code: archive
    connectionType: HTTP
    servers: [{name: ss1}]
"#,
        "consumer-uid",
        START - 80,
    )
}

pub fn guest() -> Member {
    object(
        r#"
apiVersion: saatkond.io/v1alpha1
kind: Member
metadata: {name: clinic, namespace: clinic}
spec:
  trustAnchorRef: {name: ee}
  memberClass: COM
  memberCode: "1"
  subsystems:
  - code: wards
    connectionType: HTTP
    servers: [{namespace: benefits, name: ss1}]
"#,
        "guest-uid",
        START - 70,
    )
}

pub fn provider_server() -> SecurityServer {
    object(
        r"
apiVersion: saatkond.io/v1alpha1
kind: SecurityServer
metadata: {name: ss1, namespace: population-register}
spec: {memberRef: {name: population-register}, serverCode: ss1, address: 'ss1.population.example'}
",
        "provider-server-uid",
        START - 60,
    )
}

pub fn consumer_server() -> SecurityServer {
    object(
        r#"
apiVersion: saatkond.io/v1alpha1
kind: SecurityServer
metadata: {name: ss1, namespace: benefits}
spec:
  memberRef: {name: benefits}
  serverCode: ss1
  guests: [{memberClass: COM, memberCode: "1"}]
  clientAccess: {namespaces: [frontend]}
"#,
        "consumer-server-uid",
        START - 50,
    )
}
