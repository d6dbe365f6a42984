//! The rights of the chart are those of `RBAC.md`, row for row, and the controller uses each of them and needs no other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

#[path = "support/rights.rs"]
mod rights;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use rights::{Recorder, Row, rows};
use serde_json::{Value, json};
use support::{bed_with_flags, federation, get, remove, until, until_condition};

/// The rules of the chart's roles, in the words of the tables.
fn chart() -> BTreeSet<Row> {
    let golden = include_str!("../../charts/saatkond/tests/golden/default.yaml");
    let mut found = BTreeSet::new();
    for part in golden.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(part).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let (account, scope) = match (kind.as_str(), name.as_str()) {
            ("ClusterRole", "saatkond-member-namespace") => ("saatkond-controller", "member"),
            ("ClusterRole", "saatkond-controller" | "saatkond-link") => (&*name, "cluster"),
            ("Role", "saatkond-controller" | "saatkond-link") => (&*name, "operator"),
            _ => continue,
        };
        let list = |value: &Value| -> Vec<String> {
            value.as_array().map_or_else(|| vec![String::new()], |items| items.iter().map(text).collect())
        };
        for rule in object["rules"].as_array().unwrap() {
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        for name in list(&rule["resourceNames"]) {
                            found.insert(Row {
                                account: account.to_owned(),
                                scope: scope.to_owned(),
                                group: group.clone(),
                                resource: resource.clone(),
                                verb: verb.clone(),
                                name,
                            });
                        }
                    }
                }
            }
        }
    }
    found
}

#[test]
fn the_chart_gives_exactly_what_the_tables_say() {
    let (said, given) = (rows(), chart());
    let missing: Vec<_> = said.difference(&given).collect();
    let needless: Vec<_> = given.difference(&said).collect();
    assert!(missing.is_empty() && needless.is_empty(), "missing in the chart: {missing:#?}\nonly there: {needless:#?}");
}

#[test]
fn nothing_is_granted_wholesale() {
    for row in rows() {
        assert!(row.verb != "*" && row.resource != "*" && row.group != "*", "{row:?}");
        assert!(row.scope != "cluster" || row.resource != "secrets", "no right on Secrets cluster-wide: {row:?}");
    }
}

/// The compiler cannot say this of modules that several programs share.
#[test]
fn every_helper_of_tests_is_used_by_one() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let read = |folder: &std::path::Path| -> String {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.is_file()).map(|path| std::fs::read_to_string(path).unwrap()).collect()
    };
    let programs = read(&folder) + &read(&folder.join("crash"));
    let helpers = read(&folder.join("support"));
    let words = |text: &str, word: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|found| *found == word).count()
    };
    let mut seen = 0;
    for line in helpers.lines().map(str::trim_start) {
        let Some(item) = line.strip_prefix("pub ") else { continue };
        let item = item.trim_start_matches("async ").trim_start_matches("fn ").trim_start_matches("struct ");
        let item = item.trim_start_matches("const ");
        let name: String = item.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        seen += 1;
        // Its own line is one; helpers use each other.
        assert!(words(&programs, &name) > 0 || words(&helpers, &name) > 1, "{name} is used by no test");
    }
    assert!(seen > 30, "only {seen} items were looked at");
}

/// On an API server that also asks for the right on an owner's finalizers: who sets `blockOwnerDeletion` without it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_controller_uses_every_right_and_needs_no_other() {
    let bed = bed_with_flags(&["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]);
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let faker = support::fake_deployments(admin.clone());
    let calls = Recorder::new();
    let operator = bed.operator(Some(calls.clone()), &[]).await;
    bed.apply(&federation("right"));
    let (member, server) = (("Member", "right-home", "register"), ("SecurityServer", "right-home", "ss1"));
    until_condition(&admin, member, "Registered", "True/AsDeclared").await;
    until_condition(&admin, server, "Available", "True/AsDeclared").await;

    // An identity that cannot be read is written anew in its place.
    let of = |kind: &str| -> Api<DynamicObject> {
        let kind = support::kinds().into_iter().find(|known| known.kind == kind).unwrap();
        Api::namespaced_with(admin.clone(), "right-home", &kind)
    };
    let broken = json!({"stringData": {"identity.json": "{}"}});
    of("Secret").patch("ss1-identity", &PatchParams::default(), &Patch::Merge(broken)).await.unwrap();
    until("the identity is written anew", Duration::from_secs(20), || async {
        let secret = get(&admin, "Secret", "right-home", "ss1-identity").await.unwrap();
        // `{}` in base64.
        if secret["data"]["identity.json"] == "e30=" { Err("it is broken still".to_owned()) } else { Ok(()) }
    })
    .await;

    // The key of an authority that was replaced is deleted.
    let gateways = support::fake_receipts(admin.clone());
    support::gateway_pods(&admin, "right-home", "ss1").await;
    bed.kubectl(&["patch", "ta", "right", "--type=merge", "--patch", r#"{"spec": {"rotation": {"requestID": "r1"}}}"#]);
    support::until_authority(&admin, "right", 2).await;
    until("the old key is gone", Duration::from_secs(20), || async {
        get(&admin, "Secret", support::SYSTEM, "right-ca-1").await.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
    gateways.abort();

    // The documents go with their server.
    of("SecurityServer").delete("ss1", &DeleteParams::default()).await.unwrap();
    until("the server is gone", Duration::from_secs(30), || async {
        get(&admin, "SecurityServer", "right-home", "ss1").await.map_or(Ok(()), |server| Err(format!("{server:#}")))
    })
    .await;
    operator.end().await;
    faker.abort();
    remove(&admin, "right").await;
    let account = "saatkond-controller";
    assert_eq!(calls.without_right(account, support::SYSTEM), Vec::<String>::new(), "not in RBAC.md");
    assert_eq!(calls.without_use(account, support::SYSTEM), Vec::<Row>::new(), "no request uses these");
}
