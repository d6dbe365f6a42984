//! Every rule of admission with an object that it refuses and one that just satisfies it, judged locally.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use saatkond_api::cases::{FILES, load};
use saatkond_api::validation::{Judge, schema_of};
use serde_json::Value;

fn crd(kind: &str) -> CustomResourceDefinition {
    let all = saatkond_api::crds::all().unwrap();
    all.into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

#[test]
fn cases_are_judged_as_they_say() {
    let mut wrong = Vec::new();
    for (kind, text) in FILES {
        let (judge, file) = (Judge::new(&crd(kind)).unwrap(), load(text));
        let found = judge.refusals(&file.base, None);
        assert!(found.is_empty(), "the base of {kind} is refused: {found:?}");
        for case in &file.cases {
            let object = case.object(&file.base);
            let found = judge.refusals(&object, case.update.then_some(&file.base));
            match (&case.refused, &case.admitted) {
                (Some(expected), None) if found.iter().any(|refusal| refusal.message.contains(expected)) => {}
                (None, Some(_)) if found.is_empty() => {}
                (Some(_), Some(_)) | (None, None) => wrong.push(format!("{kind}: {}: says neither or both", case.name)),
                _ => wrong.push(format!("{kind}: {}: {found:?}", case.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn at_least_sixty_malformed_objects() {
    let refused = FILES.iter().flat_map(|(_, text)| load(text).cases).filter(|case| case.refused.is_some()).count();
    assert!(refused >= 60, "{refused}");
}

#[test]
fn names_of_cases_tell_them_apart() {
    for (kind, text) in FILES {
        let mut seen = BTreeSet::new();
        for case in load(text).cases {
            assert!(seen.insert((case.name.clone(), case.refused.is_some())), "{kind}: {} twice", case.name);
        }
    }
}

#[test]
fn every_rule_has_a_refusing_and_an_accepting_case() {
    let mut missing = Vec::new();
    for (kind, text) in FILES {
        let mut rules = BTreeMap::new();
        collect_rules(&schema_of(&crd(kind)).unwrap(), &mut rules);
        let cases = load(text).cases;
        for message in rules.keys() {
            let names = |part: &Option<String>| part.as_ref().is_some_and(|part| message.contains(part.as_str()));
            if !cases.iter().any(|case| names(&case.refused)) {
                missing.push(format!("{kind}: nothing is refused by: {message}"));
            }
            if !cases.iter().any(|case| names(&case.admitted)) {
                missing.push(format!("{kind}: nothing just satisfies: {message}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Messages of all rules; each rule must have one of its own.
fn collect_rules(schema: &Value, found: &mut BTreeMap<String, String>) {
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        let text = rule["rule"].as_str().unwrap();
        let message = rule["message"].as_str().unwrap_or_else(|| panic!("no message: {text}"));
        assert!(!message.contains('\n'), "the API server refuses line breaks in a message: {message}");
        if let Some(other) = found.insert(message.to_owned(), text.to_owned()) {
            assert_eq!(other, text, "two rules say: {message}");
        }
    }
    let children = ["properties", "additionalProperties", "items"].into_iter().filter_map(|key| schema.get(key));
    for child in children {
        if child.get("type").is_some() || child.get("x-kubernetes-int-or-string").is_some() {
            collect_rules(child, found);
        }
        if let Value::Object(map) = child {
            map.values().filter(|value| value.is_object()).for_each(|value| collect_rules(value, found));
        }
    }
}
