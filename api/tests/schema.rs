//! What holds for the schemas of all kinds: bounds, descriptions, columns, subresources.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use saatkond_api::validation::schema_of;
use serde_json::Value;

fn all() -> Vec<CustomResourceDefinition> {
    saatkond_api::crds::all().unwrap()
}

fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(&format!("{path}.{name}"), child, visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = schema.get(key).filter(|child| child.is_object()) {
            walk(&format!("{path}{mark}"), child, visit);
        }
    }
}

fn each(mut visit: impl FnMut(&str, &Value)) {
    for crd in all() {
        walk(&crd.spec.names.kind, &schema_of(&crd).unwrap(), &mut visit);
    }
}

#[test]
fn every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    each(|path, schema| {
        let has = |key: &str| schema.get(key).is_some();
        let bounded = match schema.get("type").and_then(Value::as_str) {
            Some("string") => has("maxLength") || has("enum") || schema["format"] == "date-time",
            Some("array") => has("maxItems"),
            Some("object") => has("properties") || has("maxProperties"),
            _ => true,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

#[test]
fn every_field_is_described_in_sentences() {
    let mut bare = Vec::new();
    each(|path, schema| {
        // Entries of lists and maps are described by what holds them; an object's fields speak for themselves.
        let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        if !path.ends_with("[]") && !path.ends_with("{}") && !text.trim_end().ends_with('.') {
            bare.push(format!("{path}: {text:?}"));
        }
    });
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn nothing_that_kubernetes_does_not_know() {
    each(|path, schema| {
        let format = schema.get("format").and_then(Value::as_str);
        assert!(
            matches!(format, None | Some("date-time" | "int32" | "int64")),
            "{path}: format {format:?} is unknown to OpenAPI v3 or too narrow"
        );
        for keyword in ["nullable", "$ref", "oneOf", "x-kubernetes-preserve-unknown-fields"] {
            assert!(schema.get(keyword).is_none(), "{path}: {keyword}");
        }
    });
}

#[test]
fn optional_numbers_of_the_spec_have_a_default_or_say_what_unset_means() {
    each(|path, schema| {
        let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        let root = path.split('.').nth(1).unwrap_or_default();
        if root == "spec" && schema.get("default").is_some() && !schema["default"].is_object() {
            assert!(
                text.contains("Default:") || schema["default"].is_array(),
                "{path} has a default that it does not tell"
            );
        }
    });
}

#[test]
fn kinds_share_group_version_category_and_status() {
    for crd in all() {
        let kind = crd.spec.names.kind.clone();
        assert_eq!(crd.spec.group, saatkond_api::names::GROUP);
        assert_eq!(crd.spec.names.categories, Some(vec![saatkond_api::names::CATEGORY.to_owned()]), "{kind}");
        let version = crd.spec.versions.first().unwrap();
        assert_eq!(version.name, saatkond_api::names::VERSION);
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some(), "{kind}");
        assert_eq!(subresources.scale.is_some(), kind == "SecurityServer", "{kind}");
        let columns: Vec<_> = version.additional_printer_columns.iter().flatten().map(|c| c.name.as_str()).collect();
        for column in ["Ready", "Reason", "Age", "Message"] {
            assert!(columns.contains(&column), "{kind} has no column {column}");
        }
    }
}

#[test]
fn short_names_of_the_kinds() {
    let names: Vec<_> = all().into_iter().flat_map(|crd| crd.spec.names.short_names.unwrap_or_default()).collect();
    assert_eq!(names, ["ta", "mbr", "ss"]);
}

#[test]
fn conditions_are_a_map_by_type() {
    for crd in all() {
        let schema = schema_of(&crd).unwrap();
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type", "{}", crd.spec.names.kind);
        assert!(conditions["items"]["properties"]["observedGeneration"].is_object());
    }
}

#[test]
fn receipts_are_a_map_by_pod() {
    let crd = all().into_iter().find(|crd| crd.spec.names.kind == "SecurityServer").unwrap();
    let schema = schema_of(&crd).unwrap();
    let processes = &schema["properties"]["status"]["properties"]["processes"];
    assert_eq!(processes["x-kubernetes-list-type"], "map");
    assert_eq!(processes["x-kubernetes-list-map-keys"][0], "podUid");
    assert_eq!(processes["maxItems"], 100);
}

#[test]
fn printing_is_stable() {
    assert_eq!(saatkond_api::crds::to_yaml(&all()).unwrap(), saatkond_api::crds::to_yaml(&all()).unwrap());
}

#[test]
fn what_is_printed_is_what_is_read() {
    for crd in all() {
        let text = saatkond_api::crds::to_yaml(std::slice::from_ref(&crd)).unwrap();
        let read: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, crd);
    }
}
