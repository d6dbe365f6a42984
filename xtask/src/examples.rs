//! Every YAML under `examples/` as the API server would see it: our kinds strictly against their schemas and rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use saatkond_api::validation::Judge;
use saatkond_api::{crds, names};
use serde_json::Value;

/// The YAML files under `folder`, sorted.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The objects of one YAML stream.
pub fn objects(text: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

/// Judges objects of all kinds.
pub struct Judges(Vec<(String, bool, Judge)>);

impl Judges {
    /// Judges of the kinds as they are installed.
    pub fn new() -> Result<Self> {
        let definitions = crds::all()?;
        let judges = definitions
            .iter()
            .map(|crd| Ok((crd.spec.names.kind.clone(), crd.spec.scope == "Namespaced", Judge::new(crd)?)));
        judges.collect::<Result<_>>().map(Self)
    }
}

/// What is wrong with the YAML files under `folder`, a line each.
pub fn check(folder: &Path) -> Result<Vec<String>> {
    let judges = Judges::new()?;
    let mut wrong = Vec::new();
    for path in files(folder)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        match objects(&text) {
            Ok(objects) => {
                let lines = judges.judge(&objects);
                wrong.extend(lines.into_iter().map(|line| format!("{}: {line}", path.display())));
            }
            Err(error) => wrong.push(format!("{}: {error:#}", path.display())),
        }
    }
    Ok(wrong)
}

impl Judges {
    /// What is wrong with these objects, a line each.
    #[must_use]
    pub fn judge(&self, objects: &[Value]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        for object in objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let name = format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
            if object.get("openapi").is_some() && object.get("kind").is_none() {
                continue; // the description of a service, not an object of the cluster
            }
            if text("/kind").is_empty() || text("/apiVersion").is_empty() || text("/metadata/name").is_empty() {
                wrong.push(format!("{name}: without kind, apiVersion or name"));
                continue;
            }
            if !seen.insert(name.clone()) {
                wrong.push(format!("{name}: twice in one file"));
            }
            wrong.extend(
                self.one(object, text("/apiVersion"), text("/kind")).iter().map(|line| format!("{name}: {line}")),
            );
        }
        wrong
    }

    fn one(&self, object: &Value, version: &str, kind: &str) -> Vec<String> {
        if version != names::API_VERSION {
            // Kinds of other groups are the API server's own business.
            let ours = version.split('/').next() == Some(names::GROUP);
            return if ours { vec!["a version that does not exist".to_owned()] } else { Vec::new() };
        }
        let Some((_, namespaced, judge)) = self.0.iter().find(|(known, ..)| known == kind) else {
            return vec!["a kind that does not exist".to_owned()];
        };
        let mut wrong: Vec<_> = judge.refusals(object, None).iter().map(ToString::to_string).collect();
        if *namespaced != object.pointer("/metadata/namespace").is_some() {
            wrong.push(if *namespaced { "needs a namespace" } else { "has no namespace" }.to_owned());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn anchor() -> Value {
        json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "ee"},
            "spec": {"instance": "EE", "source": {"managed": {}}},
        })
    }

    fn judged(object: Value) -> Vec<String> {
        Judges::new().unwrap().judge(&[object])
    }

    #[test]
    fn a_good_object_passes() {
        assert_eq!(judged(anchor()), [""; 0]);
    }

    #[test]
    fn bad_objects_are_named_with_the_place() {
        let with = |pointer: &str, value: Value| {
            let mut object = anchor();
            let (parent, last) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[last] = value;
            judged(object).join("\n")
        };
        assert!(with("/spec/colour", json!("blue")).contains("spec.colour: unknown field"));
        assert!(with("/spec/autonomy", json!("127h")).contains("leaves less than autonomy"));
        assert!(with("/kind", json!("Anchor")).contains("a kind that does not exist"));
        assert!(with("/apiVersion", json!("saatkond.io/v1")).contains("a version that does not exist"));
        assert!(with("/metadata/namespace", json!("default")).contains("has no namespace"));
    }

    #[test]
    fn what_is_not_yaml_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "a: [").unwrap();
        let wrong = check(folder.path()).unwrap();
        assert!(wrong.len() == 1 && wrong[0].contains("a.yaml"), "{wrong:?}");
    }
}
