//! The custom resource definitions as they are installed, and the one function that prints them.
//!
//! Both `saatkond crds` and the generator of `crds/` print through [`to_yaml`], so what the binary says and what the
//! repository holds cannot differ.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::v1alpha1::{Member, SecurityServer, TrustAnchor};

/// A definition could not be made or printed; a defect of this crate, not of its input.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// The schema does not survive a round trip through JSON.
    #[error("a custom resource definition is not valid JSON of its type")]
    Json(#[from] serde_json::Error),
    /// The definition cannot be written as YAML.
    #[error("a custom resource definition cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// All definitions, in the order in which they are best read.
pub fn all() -> Result<Vec<CustomResourceDefinition>, CrdError> {
    [TrustAnchor::crd(), Member::crd(), SecurityServer::crd()].iter().map(finish).collect()
}

/// Strips what the derive adds and Kubernetes has no use for.
///
/// - `format: uint64` and its like: unknown to OpenAPI v3, each would be a warning at every apply.
/// - `nullable`: without it the API server takes an explicit `null` for an unset field and drops it, so that no rule and
///   no reader ever meets one.
fn finish(crd: &CustomResourceDefinition) -> Result<CustomResourceDefinition, CrdError> {
    let mut value = serde_json::to_value(crd)?;
    strip(&mut value);
    Ok(serde_json::from_value(value)?)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                map.remove("format");
            }
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Prints definitions (or any other objects) as one YAML stream.
pub fn to_yaml<T: serde::Serialize>(objects: &[T]) -> Result<String, CrdError> {
    let mut text = String::new();
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            text.push_str("---\n");
        }
        // Through a JSON value: keys come out sorted, so the text does not depend on the order of fields.
        text.push_str(&serde_saphyr::to_string(&serde_json::to_value(object)?)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// Schema of `status.conditions`: `metav1.Condition` with the bounds that Kubernetes documents for it.
pub fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "description": "What is stated, for example Ready.",
                    "minLength": 1,
                    "maxLength": 64,
                    "pattern": "^[A-Z][A-Za-z]*$",
                },
                "status": {
                    "type": "string",
                    "description": "Whether it holds.",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "type": "string",
                    "description": "Why, as one word for machines; docs/reference/conditions.md lists them.",
                    "minLength": 1,
                    "maxLength": 64,
                    "pattern": "^[A-Z][A-Za-z]*$",
                },
                "message": {
                    "type": "string",
                    "description": "Why, in words, with the command to run where one helps.",
                    "maxLength": 2048,
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The metadata.generation of the spec that this speaks of.",
                },
            },
        },
    })
}
