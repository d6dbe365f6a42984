//! What the API server would say to an object, without one: defaults, the structural schema, and the CEL rules.
//!
//! Used by the check of the examples and by tests; the same cases run against a real API server, so that both agree.
//! It is strict as `kubectl apply --validate=strict` is: an unknown field is refused.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use regex::Regex;
use serde_json::Value;

/// One reason to refuse an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Where, for example `spec.subsystems[0].code`.
    pub path: String,
    /// Why.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a definition cannot be judged by; a defect of the definition.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It has no schema.
    #[error("the definition of {kind} has no schema")]
    NoSchema {
        /// The kind.
        kind: String,
    },
    /// The schema is not JSON.
    #[error("the schema of {kind} is not JSON")]
    Json {
        /// The kind.
        kind: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A CEL rule does not compile.
    #[error("the rules of {kind} do not compile: {errors}")]
    Rules {
        /// The kind.
        kind: String,
        /// What is wrong with each.
        errors: String,
    },
    /// A pattern is no regular expression.
    #[error("a pattern of {kind} is no regular expression: {pattern}")]
    Pattern {
        /// The kind.
        kind: String,
        /// The pattern.
        pattern: String,
    },
}

/// Judges objects of one kind. Rules and patterns are compiled once.
pub struct Judge {
    schema: Value,
    compiled: CompiledSchema,
    validator: Validator,
    patterns: BTreeMap<String, Regex>,
}

/// The schema of the one version, as JSON.
pub fn schema_of(crd: &CustomResourceDefinition) -> Result<Value, DefinitionError> {
    let kind = || crd.spec.names.kind.clone();
    crd.spec
        .versions
        .first()
        .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref())
        .ok_or_else(|| DefinitionError::NoSchema { kind: kind() })
        .and_then(|schema| {
            serde_json::to_value(schema).map_err(|source| DefinitionError::Json { kind: kind(), source })
        })
}

impl Judge {
    /// A judge of the definition's kind.
    pub fn new(crd: &CustomResourceDefinition) -> Result<Self, DefinitionError> {
        let kind = || crd.spec.names.kind.clone();
        let schema = schema_of(crd)?;
        let compiled = compile_schema(&schema);
        if compiled.has_errors() {
            let errors: Vec<_> = compiled.compilation_errors().iter().map(ToString::to_string).collect();
            return Err(DefinitionError::Rules { kind: kind(), errors: errors.join("; ") });
        }
        let mut patterns = BTreeMap::new();
        compile_patterns(&schema, &mut patterns)
            .map_err(|pattern| DefinitionError::Pattern { kind: kind(), pattern })?;
        Ok(Self { schema, compiled, validator: Validator::new(), patterns })
    }

    /// Why the API server would refuse `object`; empty if it would not.
    ///
    /// `old` is the object that stands there, for an update. Defaults are filled in first, in both.
    #[must_use]
    pub fn refusals(&self, object: &Value, old: Option<&Value>) -> Vec<Refusal> {
        let mut object = object.clone();
        drop_nulls(&mut object);
        let object = apply_defaults(&self.schema, &object);
        let mut found = Vec::new();
        self.root(&object, &mut found);
        // Rules are not evaluated on what is not of the right shape, as on the API server.
        if found.is_empty()
            && let Err(errors) = self.validator.validate_compiled(&self.compiled, &object, old)
        {
            found.extend(errors.into_iter().map(|e| Refusal { path: e.field_path, message: e.message }));
        }
        found
    }

    /// The root knows `apiVersion`, `kind` and `metadata` although the schema does not say so.
    fn root(&self, object: &Value, found: &mut Vec<Refusal>) {
        let Value::Object(map) = object else {
            found.push(Refusal { path: String::new(), message: "must be an object".to_owned() });
            return;
        };
        let mut rest = map.clone();
        for known in ["apiVersion", "kind", "metadata"] {
            rest.remove(known);
        }
        self.walk(&self.schema, &Value::Object(rest), "", found);
    }

    fn walk(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<Refusal>) {
        let mut refuse = |message: String| found.push(Refusal { path: path.to_owned(), message });
        if !has_type(schema, value) {
            let expected = schema.get("type").and_then(Value::as_str).unwrap_or("integer or string");
            return refuse(format!("must be of type {expected}"));
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            refuse(format!("Unsupported value: supported values: {}", Value::from(allowed.clone())));
        }
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        match value {
            Value::String(text) => {
                let length = text.chars().count() as u64;
                if bound("minLength").is_some_and(|min| length < min) {
                    refuse("should be at least minLength chars long".to_owned());
                }
                if bound("maxLength").is_some_and(|max| length > max) {
                    refuse("Too long: may not be more than maxLength bytes".to_owned());
                }
                if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                    && !self.patterns.get(pattern).is_some_and(|pattern| pattern.is_match(text))
                {
                    refuse(format!("should match '{pattern}'"));
                }
            }
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or(f64::NAN);
                let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
                if limit("minimum").is_some_and(|min| number < min) {
                    refuse("should be greater than or equal to minimum".to_owned());
                }
                if limit("maximum").is_some_and(|max| number > max) {
                    refuse("should be less than or equal to maximum".to_owned());
                }
            }
            Value::Array(items) => {
                if bound("minItems").is_some_and(|min| (items.len() as u64) < min) {
                    refuse("should have at least minItems items".to_owned());
                }
                if bound("maxItems").is_some_and(|max| items.len() as u64 > max) {
                    refuse("Too many: must have at most maxItems items".to_owned());
                }
                for duplicate in duplicates(schema, items) {
                    refuse(format!("Duplicate value: {duplicate}"));
                }
                if let Some(schema) = schema.get("items") {
                    for (at, item) in items.iter().enumerate() {
                        self.walk(schema, item, &format!("{path}[{at}]"), found);
                    }
                }
            }
            Value::Object(map) => {
                if bound("maxProperties").is_some_and(|max| map.len() as u64 > max) {
                    refuse("Too many: must have at most maxProperties items".to_owned());
                }
                for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                    if name.as_str().is_some_and(|name| !map.contains_key(name)) {
                        refuse(format!("Required value: {}", name.as_str().unwrap_or_default()));
                    }
                }
                for (name, child) in map {
                    let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let property = schema.get("properties").and_then(|all| all.get(name));
                    match property.or_else(|| schema.get("additionalProperties")) {
                        Some(schema) => self.walk(schema, child, &below, found),
                        None => found.push(Refusal { path: below, message: "unknown field".to_owned() }),
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

/// A `null` counts as unset, as for every field that is not nullable; none of ours is.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Compiles every pattern of a schema; the error is the pattern that does not compile.
fn compile_patterns(schema: &Value, found: &mut BTreeMap<String, Regex>) -> Result<(), String> {
    match schema {
        Value::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                let regex = Regex::new(pattern).map_err(|_| pattern.to_owned())?;
                found.insert(pattern.to_owned(), regex);
            }
            map.values().try_for_each(|child| compile_patterns(child, found))
        }
        Value::Array(items) => items.iter().try_for_each(|child| compile_patterns(child, found)),
        _ => Ok(()),
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema.get("x-kubernetes-int-or-string").is_some_and(|v| v == true) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    }
}

/// Entries that a set or map list holds twice.
fn duplicates(schema: &Value, items: &[Value]) -> Vec<String> {
    let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Vec::new(),
        Some("map") => schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
        _ => return Vec::new(),
    };
    let mut seen = BTreeSet::new();
    items
        .iter()
        .map(|item| match keys.as_slice() {
            [] => item.to_string(),
            keys => {
                keys.iter().map(|key| item.get(*key).unwrap_or(&Value::Null).to_string()).collect::<Vec<_>>().join(",")
            }
        })
        .filter(|key| !seen.insert(key.clone()))
        .collect()
}
