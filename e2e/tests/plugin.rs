//! Verbs of the plugin on a real API server, as people with exactly the rights that each verb states. What the operator would have
//! written into each status is written here.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::process::{Command, Output};

use saatkond_testbed::{ApiServer, ApiServerOptions, Cluster, Layout};
use serde_json::{Value, json};

/// A person who may do `rules` and nothing else; the plugin as that person.
fn person(cluster: &Cluster, folder: &Path, name: &str, rules: &Value) -> impl Fn(&[&str]) -> Output + use<> {
    let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": "plugin"}]);
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("plugin-{name}")});
    let meta = json!({"name": format!("plugin-{name}")});
    let parts = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "plugin"}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta, "roleRef": role,
            "subjects": subject,
        }),
    ];
    cluster.apply(&parts.map(|part| part.to_string()).join("\n---\n")).unwrap();
    let kubeconfig = folder.join(format!("{name}.kubeconfig"));
    cluster.service_account_kubeconfig("plugin", name, &kubeconfig).unwrap();
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let program = folder.join("kubectl-saatkond");
    assert!(program.exists(), "{} is not built: cargo build -p saatkond-plugin", program.display());
    move |arguments| Command::new(&program).args(arguments).env("KUBECONFIG", &kubeconfig).output().unwrap()
}

fn rule(resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": ["saatkond.io"], "resources": resources, "verbs": verbs})
}

fn status(cluster: &Cluster, object: [&str; 3], status: &Value) {
    let [kind, namespace, name] = object;
    let patch = json!({"status": status}).to_string();
    let arguments =
        ["patch", kind, name, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch", &patch];
    cluster.kubectl(&arguments).unwrap();
}

fn rotation(cluster: &Cluster) -> Value {
    let said = cluster.kubectl(&["get", "trustanchor", "plugin", "--output=jsonpath={.spec.rotation}"]).unwrap();
    if said.is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap() }
}

fn says(output: &Output, code: i32, words: &str) {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.code() == Some(code) && said.contains(words),
        "{:?}, expected {words:?}:\n{said}",
        output.status
    );
}

#[test]
fn an_authority_is_replaced_taken_back_and_freed_of_who_is_gone() {
    let server = ApiServer::shared(&ApiServerOptions::default()).unwrap();
    let cluster = server.cluster();
    for file in ["trustanchors", "members", "securityservers"] {
        let path = Layout::find().root().join(format!("crds/{file}.yaml"));
        cluster.apply(&std::fs::read_to_string(path).unwrap()).unwrap();
    }
    for kind in ["trustanchors", "members", "securityservers"] {
        let crd = format!("customresourcedefinition/{kind}.saatkond.io");
        cluster.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=60s"]).unwrap();
    }
    let saatkond = "saatkond.io/v1alpha1";
    let parts = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plugin"}}),
        json!({
            "apiVersion": saatkond, "kind": "TrustAnchor", "metadata": {"name": "plugin"},
            "spec": {"instance": "PLUGIN", "source": {"managed": {}}},
        }),
        json!({
            "apiVersion": saatkond, "kind": "Member", "metadata": {"name": "register", "namespace": "plugin"},
            "spec": {"trustAnchorRef": {"name": "plugin"}, "memberClass": "GOV", "memberCode": "1"},
        }),
        json!({
            "apiVersion": saatkond, "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": "plugin"},
            "spec": {"memberRef": {"name": "register"}, "serverCode": "ss1"},
        }),
    ];
    cluster.apply(&parts.map(|part| part.to_string()).join("\n---\n")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let reader = [rule(&["trustanchors"], &["get"]), rule(&["members", "securityservers"], &["list"])];
    let planner = person(cluster, folder.path(), "planner", &json!(reader));
    let writer = [rule(&["trustanchors"], &["get", "patch"]), rule(&["securityservers"], &["get"])];
    let rotator = person(cluster, folder.path(), "rotator", &json!(writer));

    says(&rotator(&["rotate", "plugin"]), 2, "published no authority yet");
    let stable = json!({
        "phase": "Stable", "since": "2026-01-02T00:00:00Z", "signingGeneration": 1, "highestGeneration": 1, "requests": [],
        "acknowledged": "1/2",
    });
    let anchor = ["trustanchor", "", "plugin"];
    let bundle = json!({"sequence": 3, "hash": "sha256:ab", "generations": [1]});
    status(cluster, anchor, &json!({"rotation": stable, "bundle": bundle}));
    let receipt = json!({
        "podUid": "there", "incarnation": 1, "instanceVersion": 1, "serverVersion": 1, "bundleSequence": 3, "bundleHash": "ab",
        "leafIssueNumber": 1, "leafSerial": "1", "oldSessions": [], "highestFormat": 1,
    });
    let leaf = json!({
        "serial": "1", "ski": "1", "issueNumber": 1, "issuerGeneration": 1, "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2026-02-01T00:00:00Z", "renewAt": "2026-01-20T00:00:00Z",
    });
    let pods = json!([
        {"uid": "there", "name": "ss1-0"}, {"uid": "gone", "name": "ss1-1", "vanishedAt": "2026-01-02T00:00:00Z"},
    ]);
    let of_server = json!({"leaf": leaf, "issueNumber": 1, "pods": pods, "processes": [receipt]});
    status(cluster, ["securityserver", "plugin", "ss1"], &of_server);

    says(&planner(&["rotate", "plugin", "--plan"]), 1, "✗ pod gone of SecurityServer plugin/ss1 has vanished");
    let found: Value =
        serde_json::from_slice(&planner(&["rotate", "plugin", "--plan", "--output=json"]).stdout).unwrap();
    assert_eq!(found["blocking"][0]["podUid"], "gone", "{found:#}");
    assert_eq!((&found["processes"], &found["nextGeneration"]), (&json!(2), &json!(2)), "{found:#}");

    let exclude = |more: &[&str]| rotator(&[&["exclude", "plugin", "plugin/ss1"], more].concat());
    says(&exclude(&["there", "--reason=x"]), 2, "pod ss1-0 of SecurityServer plugin/ss1 is there");
    says(&exclude(&["gone", "--reason=burnt", "--dry-run"]), 0, "(dry run)");
    assert_eq!(rotation(cluster), Value::Null, "a dry run changes nothing");
    says(&exclude(&["gone", "--reason=burnt"]), 0, "no change waits for pod gone of SecurityServer plugin/ss1 until");
    assert_eq!(rotation(cluster)["excluded"][0]["process"], "gone");
    says(&planner(&["rotate", "plugin", "--plan"]), 0, "nobody holds it up");

    says(&planner(&["rotate", "plugin", "--request-id=r1"]), 1, "forbidden");
    says(&rotator(&["rotate", "plugin", "--request-id=r1"]), 0, "authority 2 will take the place of 1");
    let written = rotation(cluster);
    assert_eq!((&written["requestID"], &written["excluded"][0]["process"]), (&json!("r1"), &json!("gone")));
    says(&rotator(&["rotate", "plugin"]), 2, "asked for already");
    says(&rotator(&["rotate", "plugin", "--cancel"]), 0, "\"r1\" will not begin");
    assert_eq!(rotation(cluster)["cancel"], "r1");
    says(&exclude(&["gone", "--remove"]), 0, "is waited for again");
    assert_eq!(rotation(cluster)["excluded"], Value::Null);
    says(&rotator(&["exclude", "plugin", "plugin/ss9", "--reason=x"]), 2, "there is no SecurityServer plugin/ss9");

    let revoker = person(cluster, folder.path(), "revoker", &json!([rule(&["securityservers"], &["get", "patch"])]));
    let revoke = |more: &[&str]| revoker(&[&["revoke", "plugin/ss1", "--reason=stolen"], more].concat());
    says(&revoke(&["--up-to=2"]), 2, "its highest is 1");
    says(&revoke(&["--dry-run"]), 0, "(dry run)");
    says(&revoke(&[]), 0, "its certificates with issue numbers up to 1 are revoked");
    says(&revoke(&[]), 2, "those up to 1 are revoked already");
    let field = "--output=jsonpath={.spec.revocation.upToIssueNumber} {.spec.revocation.reason}";
    let written = cluster.kubectl(&["get", "securityserver", "ss1", "--namespace=plugin", field]).unwrap();
    assert_eq!(written, "1 stolen");
    for object in ["securityserver/ss1", "member/register", "trustanchor/plugin"] {
        cluster.kubectl(&["delete", object, "--namespace=plugin", "--wait=false"]).unwrap();
    }
}
