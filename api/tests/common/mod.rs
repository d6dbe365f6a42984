//! Cases of `tests/cases/*.yaml` as objects.
#![allow(clippy::panic, reason = "a malformed case is a defect of the test")]

use serde::Deserialize;
use serde_json::{Map, Value};

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub base: Value,
    pub cases: Vec<Case>,
}

/// One change of the base, and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    pub set: Map<String, Value>,
    #[serde(default)]
    pub unset: Vec<String>,
    #[serde(default)]
    pub update: bool,
    pub refused: Option<String>,
    pub admitted: Option<String>,
}

pub const FILES: [(&str, &str); 3] = [
    ("TrustAnchor", include_str!("../cases/trust-anchor.yaml")),
    ("Member", include_str!("../cases/member.yaml")),
    ("SecurityServer", include_str!("../cases/security-server.yaml")),
];

pub fn load(text: &str) -> File {
    serde_saphyr::from_str(text).expect("a file of cases is well-formed")
}

impl Case {
    /// The object of this case.
    pub fn object(&self, base: &Value) -> Value {
        let mut object = base.clone();
        for pointer in &self.unset {
            let (parent, last) = split(pointer);
            let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{}: no {pointer}", self.name));
            let gone = match parent {
                Value::Object(map) => map.remove(last).is_some(),
                _ => false,
            };
            assert!(gone, "{}: nothing at {pointer}", self.name);
        }
        for (pointer, value) in &self.set {
            put(&mut object, pointer, value.clone());
        }
        object
    }
}

fn split(pointer: &str) -> (&str, &str) {
    pointer.rsplit_once('/').expect("a JSON pointer has a slash")
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = split(pointer);
    if object.pointer(parent).is_none() {
        put(object, parent, Value::Object(Map::new()));
    }
    match object.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(last.to_owned(), value);
        }
        Some(Value::Array(items)) if last == "-" => items.push(value),
        Some(Value::Array(items)) => items[last.parse::<usize>().expect("an index")] = value,
        _ => panic!("nothing can be put at {pointer}"),
    }
}
