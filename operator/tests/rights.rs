//! The rights of the chart are those of `RBAC.md`, row for row.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

#[path = "support/rights.rs"]
mod rights;

use std::collections::BTreeSet;

use rights::{Row, rows};
use serde_json::Value;

/// The rules of the chart's roles, in the words of the tables.
fn chart() -> BTreeSet<Row> {
    let golden = include_str!("../../charts/saatkond/tests/golden/default.yaml");
    let mut found = BTreeSet::new();
    for part in golden.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(part).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let (account, scope) = match (kind.as_str(), name.as_str()) {
            ("ClusterRole", "saatkond-member-namespace") => ("saatkond-controller", "member"),
            ("ClusterRole", "saatkond-controller" | "saatkond-link") => (&*name, "cluster"),
            ("Role", "saatkond-controller" | "saatkond-link") => (&*name, "operator"),
            _ => continue,
        };
        let list = |value: &Value| -> Vec<String> {
            value.as_array().map_or_else(|| vec![String::new()], |items| items.iter().map(text).collect())
        };
        for rule in object["rules"].as_array().unwrap() {
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        for name in list(&rule["resourceNames"]) {
                            found.insert(Row {
                                account: account.to_owned(),
                                scope: scope.to_owned(),
                                group: group.clone(),
                                resource: resource.clone(),
                                verb: verb.clone(),
                                name,
                            });
                        }
                    }
                }
            }
        }
    }
    found
}

#[test]
fn the_chart_gives_exactly_what_the_tables_say() {
    let (said, given) = (rows(), chart());
    let missing: Vec<_> = said.difference(&given).collect();
    let needless: Vec<_> = given.difference(&said).collect();
    assert!(missing.is_empty() && needless.is_empty(), "missing in the chart: {missing:#?}\nonly there: {needless:#?}");
}

#[test]
fn nothing_is_granted_wholesale() {
    for row in rows() {
        assert!(row.verb != "*" && row.resource != "*" && row.group != "*", "{row:?}");
        assert!(row.scope != "cluster" || row.resource != "secrets", "no right on Secrets cluster-wide: {row:?}");
    }
}
