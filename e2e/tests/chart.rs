//! The Helm chart: it lints, renders what is reviewed (`charts/saatkond/tests/golden`), refuses unknown values, and
//! its roles are exactly what the operator calls (`operator/RBAC.md`).
//!
//! `make chart UPDATE=1` writes the golden files anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use saatkond_api::names;
use saatkond_testbed::Layout;
use serde_json::Value;

fn root() -> PathBuf {
    Layout::find().root().to_owned()
}

fn chart() -> PathBuf {
    root().join("charts/saatkond")
}

fn helm(arguments: &[&str]) -> Output {
    let helm = Layout::find().tool("helm").unwrap();
    // Nothing of the caller's own Helm: neither repositories nor plugins nor a kubeconfig.
    let nowhere = env::temp_dir().join("saatkond-no-helm-home");
    let mut command = Command::new(helm);
    command.args(arguments).env("KUBECONFIG", "/dev/null");
    for variable in ["HELM_CONFIG_HOME", "HELM_DATA_HOME", "HELM_CACHE_HOME"] {
        command.env(variable, &nowhere);
    }
    command.output().unwrap()
}

fn template(arguments: &[&str]) -> Output {
    let chart = chart();
    let mut all = vec!["template", "saatkond", chart.to_str().unwrap(), "--namespace", "saatkond-system"];
    all.extend(arguments);
    helm(&all)
}

fn render(arguments: &[&str]) -> String {
    let output = template(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    // A document separator is a line of its own; block scalars in our templates hold none.
    let parts = format!("\n{text}");
    parts
        .split("\n---")
        .filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')))
        .map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}\n{part}")))
        .collect()
}

fn objects(arguments: &[&str]) -> Vec<Value> {
    documents(&render(arguments))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = of_kind(objects, kind).into_iter().find(|object| text(object, "/metadata/name") == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} is rendered"))
}

#[test]
fn it_lints() {
    for values in value_files() {
        let output = helm(&["lint", "--strict", "--values", values.to_str().unwrap(), chart().to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}\n{said}{}", values.display(), String::from_utf8_lossy(&output.stderr));
    }
}

fn value_files() -> Vec<PathBuf> {
    let folder = chart().join("tests/values");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{files:?}");
    files
}

#[test]
fn it_renders_what_was_reviewed() {
    let update = env::var("UPDATE").is_ok_and(|value| value == "1");
    for values in value_files() {
        let rendered = render(&["--values", values.to_str().unwrap()]);
        // The definitions are generated and reviewed in crds/; here they would bury everything else.
        let rendered = without_definitions(&rendered);
        let golden = chart().join("tests/golden").join(values.file_name().unwrap());
        if update {
            fs::write(&golden, &rendered).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if rendered != expected {
            let actual = root().join("target").join(format!("chart-{}", values.file_name().unwrap().to_str().unwrap()));
            fs::write(&actual, &rendered).unwrap();
            panic!("diff {} {}\n(make chart UPDATE=1 takes it over)", golden.display(), actual.display());
        }
    }
}

fn without_definitions(text: &str) -> String {
    let parts = text.split("---\n").filter(|part| !part.contains("kind: CustomResourceDefinition\n"));
    parts.collect::<Vec<_>>().join("---\n")
}

#[test]
fn values_that_are_not_known_are_refused() {
    for (name, set) in [
        ("an unknown key", "replicas=2"),
        ("an unknown key deep down", "controller.replica=2"),
        ("a wrong type", "controller.replicas=two"),
        ("below the range", "link.replicas=-1"),
        ("above the range", "link.replicas=10"),
        ("a digest that is none", "image.digest=sha256:12"),
        ("an unknown policy", "image.pullPolicy=Sometimes"),
        ("no ports", "networkPolicies.apiServerPorts=null"),
        ("a port that is none", "networkPolicies.apiServerPorts[0]=70000"),
        ("a resource that is none", "controller.resources.request.cpu=1"),
        ("a level with a shell in it", "controller.logLevel=$(id)"),
        ("a switch that is a word", "crds.install=maybe"),
    ] {
        let output = template(&["--set", set]);
        assert!(!output.status.success(), "{name}: --set {set} was accepted");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("schema") || said.contains("values"), "{name}: refused for another reason: {said}");
    }
}

#[test]
fn the_schema_names_every_value_and_no_other() {
    let values: Value = serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    let schema: Value = serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let mut compared = 0;
    compare(&values, &schema, &schema, "values", &mut compared);
    assert!(compared > 20, "only {compared} values were compared");
}

fn compare(value: &Value, schema: &Value, whole: &Value, at: &str, compared: &mut usize) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    let (Some(values), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
    assert_eq!(schema["additionalProperties"], false, "{at} lets anything in");
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, value) in values {
        *compared += 1;
        assert!(known.contains_key(name), "{at}.{name} is not in the schema");
        compare(value, &known[name], whole, &format!("{at}.{name}"), compared);
    }
    for name in known.keys().filter(|name| *name != "global") {
        // Resources are the user's: both parts may be left out.
        assert!(values.contains_key(name), "the schema's {at}.{name} is not in values.yaml");
        assert!(required.is_empty() || required.contains(name.as_str()), "{at}.{name} may be set to null");
    }
}

#[test]
fn names_are_those_that_the_operator_and_the_plugin_use() {
    let objects = objects(&[]);
    named(&objects, "ServiceAccount", names::CONTROLLER_SERVICE_ACCOUNT);
    named(&objects, "ServiceAccount", names::LINK_SERVICE_ACCOUNT);
    named(&objects, "ClusterRole", names::MEMBER_NAMESPACE_ROLE);
    named(&objects, "ValidatingAdmissionPolicy", names::ADMISSION_POLICY);
    named(&objects, "ValidatingAdmissionPolicyBinding", names::ADMISSION_POLICY);
    let service = named(&objects, "Service", names::LINK);
    assert_eq!(service["spec"]["ports"][0]["port"], names::LINK_PORT);
    let link = named(&objects, "Deployment", names::LINK);
    assert_eq!(
        text(link, "/spec/template/spec/volumes/0/secret/secretName"),
        names::LINK_IDENTITY_SECRET,
        "the link mounts its own leaf"
    );
    let policy = named(&objects, "ValidatingAdmissionPolicy", names::ADMISSION_POLICY).to_string();
    assert!(policy.contains(names::annotation::MEMBER_IDENTITIES));
    assert!(policy.contains(&format!("check('{}')", names::ADMIT_VERB)));
}

/// `(scope, group, resource, verb, name)`; the name is empty where the rule holds for all.
type Right = (String, String, String, String, String);

fn rights(role: &Value, scope: &str) -> BTreeSet<Right> {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = match strings(&rule["resourceNames"]) {
            names if names.is_empty() => vec![String::new()],
            names => names,
        };
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    for name in &names {
                        found.insert((scope.to_owned(), group.clone(), resource.clone(), verb.clone(), name.clone()));
                    }
                }
            }
        }
    }
    found
}

/// The tables of operator/RBAC.md by ServiceAccount.
fn documented() -> BTreeMap<String, BTreeSet<Right>> {
    let page = fs::read_to_string(root().join("operator/RBAC.md")).unwrap();
    let mut tables: BTreeMap<String, BTreeSet<Right>> = BTreeMap::new();
    let mut account = String::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("## ServiceAccount `") {
            rest.split('`').next().unwrap().clone_into(&mut account);
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [scope, group, resource, verbs, resource_names, _reason] = cells[..] else { continue };
        if !["cluster", "operator", "member"].contains(&scope) {
            continue;
        }
        for verb in verbs.split(',') {
            for name in resource_names.split(',') {
                let right = [scope, group, resource, verb.trim(), name.trim()].map(str::to_owned);
                tables.entry(account.clone()).or_default().insert(right.into());
            }
        }
    }
    tables
}

#[test]
fn roles_are_exactly_what_the_operator_calls() {
    let objects = objects(&[]);
    let documented = documented();
    for (account, roles) in [
        (
            names::CONTROLLER_SERVICE_ACCOUNT,
            vec![
                ("ClusterRole", "saatkond-controller", "cluster"),
                ("Role", "saatkond-controller", "operator"),
                ("ClusterRole", names::MEMBER_NAMESPACE_ROLE, "member"),
            ],
        ),
        (
            names::LINK_SERVICE_ACCOUNT,
            vec![("ClusterRole", "saatkond-link", "cluster"), ("Role", "saatkond-link", "operator")],
        ),
    ] {
        let granted: BTreeSet<Right> =
            roles.into_iter().flat_map(|(kind, name, scope)| rights(named(&objects, kind, name), scope)).collect();
        let needed = &documented[account];
        assert!(!needed.is_empty());
        let missing: Vec<_> = needed.difference(&granted).collect();
        let unused: Vec<_> = granted.difference(needed).collect();
        assert!(missing.is_empty() && unused.is_empty(), "{account}\nmissing: {missing:#?}\nunused: {unused:#?}");
    }
}

#[test]
fn no_role_is_wide() {
    for object in objects(&[]).iter().filter(|object| text(object, "/kind").ends_with("Role")) {
        let name = text(object, "/metadata/name");
        let wide =
            rights(object, "").into_iter().find(|right| [&right.1, &right.2, &right.3].iter().any(|part| *part == "*"));
        assert_eq!(wide, None, "{name}");
        // Bound in single namespaces alone.
        if object["kind"] == "ClusterRole" && name != names::MEMBER_NAMESPACE_ROLE {
            assert!(rights(object, "").iter().all(|right| right.2 != "secrets"), "{name} reads Secrets everywhere");
        }
    }
    let bindings = objects(&[]);
    for binding in of_kind(&bindings, "ClusterRoleBinding") {
        assert_ne!(text(binding, "/roleRef/name"), names::MEMBER_NAMESPACE_ROLE, "bound everywhere");
    }
}

#[test]
fn each_rule_says_why() {
    let mut rules = 0;
    for file in ["rbac.yaml", "admission.yaml"] {
        let source = fs::read_to_string(chart().join("templates").join(file)).unwrap();
        let lines: Vec<&str> = source.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups:")) {
            rules += 1;
            // One reason may stand above a run of rules.
            let mut above = at;
            while above > 0 && !lines[above].trim_start().starts_with('#') && !lines[above].starts_with("rules:") {
                above -= 1;
            }
            assert!(lines[above].trim_start().starts_with('#'), "{file}:{}: {line} has no reason", at + 1);
        }
    }
    assert!(rules > 15, "only {rules} rules were looked at");
}

#[test]
fn pods_are_restricted() {
    for object in of_kind(&objects(&[]), "Deployment") {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(text(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault");
        let containers = pod["containers"].as_array().unwrap();
        assert!(!containers.is_empty());
        for container in containers {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["memory"].is_string());
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{probe}");
            }
        }
        assert!(object.to_string().find("subPath").is_none(), "files under subPath are never renewed");
    }
}

/// A field that is added to the status must be added to what the link may not change.
#[test]
fn of_a_servers_status_the_link_writes_receipts_alone() {
    let all = objects(&[]);
    let crds = of_kind(&all, "CustomResourceDefinition");
    let servers = crds.iter().find(|crd| text(crd, "/spec/names/kind") == "SecurityServer").unwrap();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let fields = servers.pointer(status).and_then(Value::as_object).unwrap().keys().cloned();
    let policies = of_kind(&all, "ValidatingAdmissionPolicy");
    let policy = policies.iter().find(|policy| text(policy, "/metadata/name") == "saatkond-link-receipts").unwrap();
    let guarded = policy["spec"]["validations"].as_array().unwrap().iter();
    let guarded: BTreeSet<_> = guarded.map(|rule| rule["expression"].as_str().unwrap().to_owned()).collect();
    let expected = fields.filter(|field| field != "processes");
    let expected: BTreeSet<_> = expected.map(|it| format!("object.?status.?{it} == oldObject.?status.?{it}")).collect();
    assert_eq!(guarded, expected);
}

#[test]
fn each_switch_does_what_it_says() {
    let count = |arguments: &[&str], kind: &str| of_kind(&objects(arguments), kind).len();
    for (kind, arguments, expected) in [
        ("PodDisruptionBudget", vec![], 2),
        ("PodDisruptionBudget", vec!["--set", "link.replicas=1"], 1),
        ("PodDisruptionBudget", vec!["--set", "podDisruptionBudgets.enabled=false"], 0),
        ("NetworkPolicy", vec![], 2),
        ("NetworkPolicy", vec!["--set", "networkPolicies.enabled=false"], 0),
        ("CustomResourceDefinition", vec![], 3),
        ("CustomResourceDefinition", vec!["--set", "crds.install=false"], 0),
        ("ValidatingAdmissionPolicy", vec![], 3),
        ("ValidatingAdmissionPolicyBinding", vec![], 3),
    ] {
        assert_eq!(count(&arguments, kind), expected, "{kind} with {arguments:?}");
    }
    // Who brings one policy must not lose the two others: the link could then write the registered keys of servers.
    let brought = objects(&["--set", "admissionPolicy.install=false"]);
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        let left: BTreeSet<_> =
            of_kind(&brought, kind).into_iter().map(|policy| text(policy, "/metadata/name")).collect();
        assert_eq!(left, BTreeSet::from(["saatkond-link-receipts", "saatkond-member-namespace-bindings"]), "{kind}");
    }
    named(&brought, "ClusterRole", "saatkond-admitter");
    let without = objects(&["--set", "admissionPolicy.admitterRole=false"]);
    assert!(!without.iter().any(|object| text(object, "/metadata/name") == "saatkond-admitter"));
    let keep = "/metadata/annotations/helm.sh~1resource-policy";
    let kept = |arguments: &[&str]| {
        of_kind(&objects(arguments), "CustomResourceDefinition").iter().filter(|crd| text(crd, keep) == "keep").count()
    };
    assert_eq!((kept(&[]), kept(&["--set", "crds.keep=false"])), (3, 0));
}

#[test]
fn the_charts_definitions_are_those_of_the_repository() {
    let rendered = objects(&["--set", "crds.keep=false"]);
    let mut compared = 0;
    for entry in fs::read_dir(root().join("crds")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        for crd in documents(&fs::read_to_string(&path).unwrap()) {
            let shipped = named(&rendered, "CustomResourceDefinition", text(&crd, "/metadata/name"));
            assert_eq!(shipped["spec"], crd["spec"], "{}", path.display());
            compared += 1;
        }
    }
    assert_eq!(compared, of_kind(&rendered, "CustomResourceDefinition").len());
}

#[test]
fn notes_name_three_commands() {
    let notes = fs::read_to_string(chart().join("templates/NOTES.txt")).unwrap();
    let commands: Vec<&str> = notes.lines().map(str::trim).filter(|line| line.starts_with("kubectl ")).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for file in commands.iter().filter_map(|command| command.split(" -f ").nth(1)) {
        assert!(Path::new(&root()).join(file).exists(), "{file} is named in the notes and is not there");
    }
}
