//! Who may say which namespace is which member, on a real API server: the chart's ValidatingAdmissionPolicy and the
//! plugin's `admit`, each as a person with exactly the rights in question.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use saatkond_testbed::{ApiServer, ApiServerOptions, Cluster, Layout, wait};

const ANNOTATION: &str = "saatkond.io/member-identities";

/// An API server with what the chart installs; nothing runs its Deployments. Not the shared one: a policy is in force
/// for all of a cluster, and other tests look at clusters that have none.
fn server() -> &'static ApiServer {
    static SERVER: OnceLock<ApiServer> = OnceLock::new();
    SERVER.get_or_init(start)
}

fn start() -> ApiServer {
    let server = ApiServer::start(&ApiServerOptions::with_controllers()).unwrap();
    let layout = Layout::find();
    let helm = layout.tool("helm").unwrap();
    let output = Command::new(helm)
        .args(["template", "saatkond", "charts/saatkond", "--namespace", "saatkond-system"])
        .current_dir(layout.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: saatkond-system}\n---\n";
    server.cluster().apply(&format!("{namespace}{}", String::from_utf8(output.stdout).unwrap())).unwrap();
    server.cluster().apply(PEOPLE).unwrap();
    // A policy is in force some moments after it is stored; until then it refuses nobody.
    let probe =
        ["annotate", "namespace", "saatkond-system", "saatkond.io/member-identities=EE/GOV/0", "--dry-run=server"];
    wait::until(
        "the policy is in force",
        Duration::from_mins(1),
        || server.logs(),
        || Ok((!as_user(server.cluster(), "nobody", &probe).status.success()).then_some(())),
    )
    .unwrap();
    let probe = ["create", "rolebinding", "probe", "-n", "kube-system", "--dry-run=server"];
    let role = ["--clusterrole=saatkond-member-namespace", "--user=nobody"];
    wait::until(
        "the policy on bindings is in force",
        Duration::from_mins(1),
        || server.logs(),
        || {
            let output = server.cluster().kubectl_command().args(probe).args(role).output().unwrap();
            Ok((!output.status.success()).then_some(()))
        },
    )
    .unwrap();
    server
}

/// All may edit namespaces; who may admit differs.
const PEOPLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-namespace-editor}
rules:
- {apiGroups: [""], resources: [namespaces, namespaces/status, namespaces/finalize], verbs: [get, create, update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-namespace-editors}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-namespace-editor}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: nobody}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: of-ee}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-admits-ee}
rules:
- {apiGroups: [saatkond.io], resources: [trustanchors], resourceNames: [ee], verbs: [admit]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-admits-ee}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-admits-ee}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: of-ee}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-authority}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: saatkond-admitter}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: authority}]
"#;

fn as_user(cluster: &Cluster, user: &str, arguments: &[&str]) -> Output {
    cluster.kubectl_command().arg(format!("--as={user}")).args(arguments).output().unwrap()
}

fn namespace(cluster: &Cluster, name: &str) {
    cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).unwrap();
}

fn annotation(cluster: &Cluster, namespace: &str) -> String {
    let field = r"jsonpath={.metadata.annotations.saatkond\.io/member-identities}";
    cluster.kubectl(&["get", "namespace", namespace, "-o", field]).unwrap()
}

fn refused(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    !output.status.success() && said.contains("needs the verb admit on trustanchors.saatkond.io")
}

#[test]
fn only_who_may_admit_changes_the_annotation() {
    let server = server();
    let cluster = server.cluster();
    namespace(cluster, "e2e-guarded");
    let set = |user: &str, value: &str| {
        let pair = format!("{ANNOTATION}={value}");
        as_user(cluster, user, &["annotate", "--overwrite", "namespace", "e2e-guarded", &pair])
    };

    assert!(refused(&set("nobody", "EE/GOV/1")), "without any right");
    assert!(!refused(&set("of-ee", "EE/GOV/1")), "with the right on ee");
    assert_eq!(annotation(cluster, "e2e-guarded"), "EE/GOV/1");
    assert!(refused(&set("of-ee", "EE/GOV/1,FI/GOV/1")), "another instance is another anchor's");
    assert!(refused(&set("of-ee", "FI/GOV/1")), "giving one away and taking another");
    assert!(refused(&set("nobody", "EE/GOV/1,EE/GOV/2")), "adding to what is there");
    assert!(refused(&set("nobody", "")), "emptying is taking away");
    let gone = format!("{ANNOTATION}-");
    assert!(refused(&as_user(cluster, "nobody", &["annotate", "namespace", "e2e-guarded", &gone])), "removing");

    let other = as_user(cluster, "nobody", &["annotate", "namespace", "e2e-guarded", "example.org/other=1"]);
    assert!(other.status.success(), "other annotations are nobody's business: {other:?}");
    assert!(set("authority", "EE/GOV/1,FI/GOV/1").status.success(), "with the right on all");
    assert_eq!(annotation(cluster, "e2e-guarded"), "EE/GOV/1,FI/GOV/1");
}

#[test]
fn neither_creation_nor_a_subresource_is_a_way_around() {
    let server = server();
    let cluster = server.cluster();
    namespace(cluster, "e2e-around");
    let manifest = tempfile::NamedTempFile::new().unwrap();
    let path = manifest.path().to_str().unwrap();
    let text = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: e2e-born, annotations: {{{ANNOTATION}: EE/GOV/1}}}}}}"
    );
    std::fs::write(manifest.path(), text).unwrap();
    assert!(refused(&as_user(cluster, "nobody", &["create", "-f", path])), "creation");
    assert!(as_user(cluster, "of-ee", &["create", "-f", path, "--dry-run=server"]).status.success());

    let annotated = format!(r#"{{"metadata":{{"annotations":{{"{ANNOTATION}":"EE/GOV/1"}}}}}}"#);
    let status = as_user(
        cluster,
        "nobody",
        &["patch", "namespace", "e2e-around", "--subresource=status", "--type=merge", "-p", &annotated],
    );
    assert!(refused(&status), "{status:?}");
    // kubectl offers no --subresource=finalize; the API does.
    let object = format!(
        r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"e2e-around","annotations":{{"{ANNOTATION}":"EE/GOV/1"}}}},"spec":{{"finalizers":["kubernetes"]}}}}"#
    );
    std::fs::write(manifest.path(), object).unwrap();
    let finalize = as_user(cluster, "nobody", &["replace", "--raw=/api/v1/namespaces/e2e-around/finalize", "-f", path]);
    assert!(refused(&finalize), "{finalize:?}");
    assert_eq!(annotation(cluster, "e2e-around"), "");
}

#[test]
fn who_admits_gains_nothing_by_it() {
    let cluster = server().cluster();
    namespace(cluster, "e2e-bound");
    let bind = |kind: &str, namespace: &[&str], subject: &str| {
        let arguments = [
            "create",
            kind,
            "saatkond-member-namespace",
            "--clusterrole=saatkond-member-namespace",
            "--dry-run=server",
        ];
        as_user(cluster, "authority", &[&arguments[..], &[subject], namespace].concat())
    };
    let operator = "--serviceaccount=saatkond-system:saatkond-controller";
    let good = bind("rolebinding", &["-n", "e2e-bound"], operator);
    assert!(good.status.success(), "{good:?}");
    for (namespace, subject, why) in [
        ("e2e-bound", "--user=authority", "to nobody else"),
        ("e2e-bound", "--group=system:authenticated", "to nobody else"),
        ("e2e-bound", "--serviceaccount=e2e-bound:saatkond-controller", "to nobody else"),
        ("e2e-bound", "--serviceaccount=saatkond-system:default", "to nobody else"),
        ("saatkond-system", operator, "in the namespace of a member"),
        ("kube-system", operator, "in the namespace of a member"),
    ] {
        let refused = bind("rolebinding", &["-n", namespace], subject);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{namespace} {subject}: {said}");
    }
    // The role has no right on cluster-wide bindings; for who has, the policy stands.
    let arguments = ["create", "clusterrolebinding", "all", "--clusterrole=saatkond-member-namespace", operator];
    let refused = cluster.kubectl_command().args(arguments).output().unwrap();
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("not for the whole cluster")
    );
}

/// The plugin as a person whose only rights are those of the chart's ClusterRole.
fn plugin(cluster: &Cluster, folder: &std::path::Path, user: &str, arguments: &[&str]) -> Output {
    let path = folder.join(format!("{user}.kubeconfig"));
    let account = format!("e2e-{user}");
    cluster.service_account_kubeconfig("e2e-people", &account, &path).unwrap();
    let layout = Layout::find();
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let program = folder.join("kubectl-saatkond");
    assert!(program.exists(), "{} is not built: cargo build -p saatkond-plugin", program.display());
    Command::new(program).args(arguments).env("KUBECONFIG", path).current_dir(layout.root()).output().unwrap()
}

#[test]
fn the_plugin_admits_with_the_rights_it_states_and_no_others() {
    let server = server();
    let cluster = server.cluster();
    cluster
        .apply(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: e2e-people}\n---\n\
             {apiVersion: v1, kind: ServiceAccount, metadata: {name: e2e-admitter, namespace: e2e-people}}\n---\n\
             {apiVersion: v1, kind: ServiceAccount, metadata: {name: e2e-visitor, namespace: e2e-people}}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: e2e-admitter}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: saatkond-admitter}\n\
             subjects: [{kind: ServiceAccount, name: e2e-admitter, namespace: e2e-people}]\n",
        )
        .unwrap();
    namespace(cluster, "e2e-member");
    let folder = tempfile::tempdir().unwrap();
    let admitter = |arguments: &[&str]| plugin(cluster, folder.path(), "admitter", arguments);
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();

    let dry = admitter(&["admit", "e2e-member", "EE/GOV/1", "--dry-run"]);
    assert!(dry.status.success() && said(&dry).contains("admitted as EE/GOV/1 (dry run)"), "{dry:?}");
    assert_eq!(annotation(cluster, "e2e-member"), "", "a dry run changes nothing");

    assert!(admitter(&["admit", "e2e-member", "EE/GOV/1"]).status.success());
    let second = admitter(&["admit", "e2e-member", "EE/GOV/2"]);
    assert!(second.status.success(), "{second:?}");
    assert_eq!(annotation(cluster, "e2e-member"), "EE/GOV/1,EE/GOV/2", "it adds to what is there");
    assert!(said(&second).contains("rolebinding/saatkond-member-namespace in e2e-member unchanged"), "{second:?}");
    let role =
        ["-n", "e2e-member", "get", "rolebinding", "saatkond-member-namespace", "-o", "jsonpath={.roleRef.name}"];
    assert_eq!(cluster.kubectl(&role).unwrap(), "saatkond-member-namespace");

    // Of the namespace's other bindings it may neither change nor take away any.
    for (verb, binding, may) in [
        ("delete", "rolebindings/saatkond-member-namespace", true),
        ("delete", "rolebindings/other", false),
        ("patch", "rolebindings/other", false),
        ("get", "rolebindings/other", false),
    ] {
        let account = "--as=system:serviceaccount:e2e-people:e2e-admitter";
        let answer = cluster.kubectl(&["auth", "can-i", verb, binding, "-n", "e2e-member", account]);
        assert_eq!(answer.is_ok(), may, "{verb} {binding}: {answer:?}");
    }
    assert!(admitter(&["admit", "e2e-member", "EE/GOV/1", "EE/GOV/2", "--remove"]).status.success());
    assert_eq!(annotation(cluster, "e2e-member"), "");
    assert!(admitter(&["admit", "e2e-member", "--remove"]).status.success());
    assert!(cluster.kubectl(&role).is_err(), "the RoleBinding is gone");

    let refused = plugin(cluster, folder.path(), "visitor", &["admit", "e2e-member", "EE/GOV/1"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let misused = admitter(&["admit", "e2e-member", "EE/GOV"]);
    assert_eq!(misused.status.code(), Some(2), "{misused:?}");
}
