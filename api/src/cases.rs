//! Cases of admission, `tests/cases/*.yaml`: objects and what is to become of them. The tests of this crate put them before
//! the local judge, those of xtask before an API server.
#![expect(clippy::panic, clippy::expect_used, reason = "a malformed case is a defect of the test that it fails")]

use serde::Deserialize;
use serde_json::{Map, Value};

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// An object that is admitted.
    pub base: Value,
    /// Changes of it.
    pub cases: Vec<Case>,
}

/// One change of the base, and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    #[serde(default)]
    /// Values by JSON pointer.
    pub set: Map<String, Value>,
    #[serde(default)]
    /// JSON pointers of what is taken out.
    pub unset: Vec<String>,
    #[serde(default)]
    /// Whether it replaces the base instead of being created.
    pub update: bool,
    /// Part of the message of the rule that refuses it.
    pub refused: Option<String>,
    /// Part of the message of the rule that it just satisfies.
    pub admitted: Option<String>,
}

/// The files by kind.
pub const FILES: [(&str, &str); 3] = [
    ("TrustAnchor", include_str!("../tests/cases/trust-anchor.yaml")),
    ("Member", include_str!("../tests/cases/member.yaml")),
    ("SecurityServer", include_str!("../tests/cases/security-server.yaml")),
];

/// Reads a file.
///
/// # Panics
/// Where it is no file of cases.
#[must_use]
pub fn load(text: &str) -> File {
    serde_saphyr::from_str(text).expect("a file of cases is well-formed")
}

impl Case {
    /// The object of this case.
    ///
    /// # Panics
    /// Where a pointer leads nowhere.
    #[must_use]
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
