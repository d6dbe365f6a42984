//! The schema of the chart's values: these types are the chart's interface, `charts/saatkond/values.schema.json` is
//! made of them. Every field is obligatory, because `values.yaml` states every default: `null` would remove one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Values of the saatkond chart.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Values {
    /// Set by Helm for charts that depend on this one; not used.
    #[serde(default)]
    global: Map<String, Value>,
    image: Image,
    #[schemars(length(max = 16))]
    image_pull_secrets: Vec<SecretReference>,
    controller: Workload,
    link: Workload,
    gateway: Gateway,
    crds: Crds,
    admission_policy: AdmissionPolicy,
    network_policies: NetworkPolicies,
    pod_disruption_budgets: PodDisruptionBudgets,
}

/// The one image: controller, link and gateways.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    /// Without tag and digest.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9]+([._:/-]+[a-z0-9]+)*$"))]
    repository: String,
    /// Empty: the chart's appVersion.
    #[schemars(length(max = 128), regex(pattern = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$"))]
    tag: String,
    /// Wins over the tag.
    #[schemars(regex(pattern = r"^(sha256:[0-9a-f]{64})?$"))]
    digest: String,
    pull_policy: PullPolicy,
}

#[derive(JsonSchema, Serialize, Deserialize)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// A Secret of the release namespace.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretReference {
    name: DnsName,
}

/// A name of an object.
#[derive(JsonSchema, Serialize, Deserialize)]
#[schemars(extend("minLength" = 1, "maxLength" = 253, "pattern" = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
struct DnsName(String);

/// error, warn, info, debug or trace, or directives such as info,saatkond_operator=debug.
#[derive(JsonSchema, Serialize, Deserialize)]
#[schemars(extend("minLength" = 1, "maxLength" = 256, "pattern" = "^[A-Za-z0-9_:=,]+$"))]
struct LogLevel(String);

/// A Deployment.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Workload {
    #[schemars(range(min = 0, max = 9))]
    replicas: u8,
    log_level: LogLevel,
    resources: Resources,
    pod_annotations: StringMap,
    pod_labels: StringMap,
    node_selector: StringMap,
    #[schemars(length(max = 32))]
    tolerations: Vec<Map<String, Value>>,
    affinity: Map<String, Value>,
    #[schemars(length(max = 253))]
    priority_class_name: String,
}

/// Of a container; both parts may be left out.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    requests: BTreeMap<String, Quantity>,
    #[serde(default)]
    limits: BTreeMap<String, Quantity>,
}

/// A resource quantity of Kubernetes.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(#[schemars(range(min = 0))] f64),
    Text(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?([numkMGTPE]|[KMGTPE]i|e[0-9]+)?$"))] String),
}

/// Labels or annotations.
#[derive(JsonSchema, Serialize, Deserialize)]
#[schemars(extend("maxProperties" = 64))]
struct StringMap(BTreeMap<String, String>);

/// The security servers.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gateway {
    log_level: LogLevel,
    /// Names of Secrets in each member's namespace.
    #[schemars(length(max = 16))]
    image_pull_secrets: Vec<DnsName>,
}

/// The CustomResourceDefinitions.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Crds {
    /// Off: somebody else installs them.
    install: bool,
    /// On: they outlive `helm uninstall`.
    keep: bool,
}

/// Who may be which member.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionPolicy {
    install: bool,
    /// A ClusterRole for those who decide.
    admitter_role: bool,
}

/// Of controller and link.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkPolicies {
    enabled: bool,
    /// Where the API server listens.
    #[schemars(length(min = 1, max = 8), inner(range(min = 1, max = 65535)), extend("uniqueItems" = true))]
    api_server_ports: Vec<u16>,
}

/// Of controller and link.
#[derive(JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PodDisruptionBudgets {
    enabled: bool,
}

/// The schema as JSON.
pub fn schema() -> Result<String> {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Values>();
    let mut value = serde_json::to_value(schema).context("the schema of the chart's values is no JSON")?;
    strip(&mut value);
    Ok(format!("{value:#}\n"))
}

/// Takes out what only Rust knows: widths of integers, and defaults, which `values.yaml` states.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("format").is_some_and(Value::is_string) {
                fields.remove("format");
            }
            fields.remove("default");
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_charts_own_values_are_all_that_there_is() {
        let text = include_str!("../../charts/saatkond/values.yaml");
        let values: Values = serde_saphyr::from_str(text).unwrap();
        let (mut ours, stated) =
            (serde_json::to_value(&values).unwrap(), serde_saphyr::from_str::<Value>(text).unwrap());
        ours.as_object_mut().unwrap().remove("global");
        assert_eq!(ours, stated);
        let more = serde_saphyr::from_str::<Values>(&format!("{text}\nreplicas: 2\n"));
        assert!(more.is_err(), "a value that is not known");
        let fewer = serde_saphyr::from_str::<Values>(&text.replace("logLevel: info", ""));
        assert!(fewer.is_err(), "a value without a default");
    }
}
