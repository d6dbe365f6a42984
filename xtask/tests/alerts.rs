//! The alert rules: each fires as `docs/runbooks/alerts_test.yaml` says, speaks of metrics that the operator shows, and has a runbook.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn rules() -> Vec<Value> {
    let file = yaml("docs/runbooks/alerts.yaml");
    let groups = file["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn each_alert_has_a_runbook_and_a_test_and_each_runbook_an_alert() {
    let tested: BTreeSet<String> = yaml("docs/runbooks/alerts_test.yaml")["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap().clone())
        .filter(|case| !case["exp_alerts"].is_null())
        .map(|case| case["alertname"].as_str().unwrap().to_owned())
        .collect();
    let mut named = BTreeSet::new();
    for rule in rules() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(tested.contains(alert), "{alert} never fires in alerts_test.yaml");
        let runbook = rule["annotations"]["runbook"].as_str().unwrap().to_owned();
        let text = std::fs::read_to_string(root().join("docs/runbooks").join(&runbook)).unwrap_or_default();
        assert!(text.contains(&format!("`{alert}`")), "{runbook} does not speak of {alert}");
        named.insert(runbook);
    }
    let files = std::fs::read_dir(root().join("docs/runbooks")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let runbooks: BTreeSet<_> = files.filter(|name| Path::new(name).extension().is_some_and(|it| it == "md")).collect();
    assert_eq!(named, runbooks);
}

#[test]
fn rules_speak_of_metrics_that_are_shown() {
    let shown = ["operator/src/state_metrics.rs", "operator/src/metrics.rs"];
    let shown = shown.map(|file| std::fs::read_to_string(root().join(file)).unwrap()).concat();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut seen = 0;
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        for word in expression.split(|c| !is_name(c)).filter_map(|word| word.strip_prefix("saatkond_")) {
            assert!(shown.contains(&format!("\"{word}\"")), "nothing shows saatkond_{word}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn rules_fire_when_they_should() {
    let run = |arguments: &[&str]| {
        Command::new("promtool").args(arguments).current_dir(root().join("docs/runbooks")).output()
    };
    let Ok(checked) = run(&["check", "rules", "alerts.yaml"]) else {
        println!("NOT RUN: alert rules: there is no promtool; testbed/install.sh promtool installs it");
        return;
    };
    let said = |output: &std::process::Output| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert!(checked.status.success(), "{}", said(&checked));
    let tested = run(&["test", "rules", "alerts_test.yaml"]).unwrap();
    assert!(tested.status.success(), "{}", said(&tested));
}
