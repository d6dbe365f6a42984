//! The rights of `RBAC.md`, read from its tables.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use saatkond_operator::client::{Call, Fault, Verdict};

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub account: String,
    pub scope: String,
    pub group: String,
    pub resource: String,
    pub verb: String,
    pub name: String,
}

/// All rows, one for each verb and name.
pub fn rows() -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    let mut account = String::new();
    for line in include_str!("../../RBAC.md").lines() {
        if let Some(title) = line.strip_prefix("## ServiceAccount `") {
            title.split('`').next().unwrap().clone_into(&mut account);
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [scope @ ("cluster" | "operator" | "member"), group, resource, verbs, names, reason] = cells[..] else {
            continue;
        };
        assert!(!reason.is_empty(), "a right without a reason: {line}");
        for verb in verbs.split(", ") {
            for name in names.split(", ") {
                rows.insert(Row {
                    account: account.clone(),
                    scope: scope.to_owned(),
                    group: group.to_owned(),
                    resource: resource.to_owned(),
                    verb: verb.to_owned(),
                    name: name.to_owned(),
                });
            }
        }
    }
    rows
}

/// Keeps every request.
#[derive(Default)]
pub struct Recorder(Mutex<BTreeSet<Call>>);

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Requests that no row of the account allows.
    pub fn without_right(&self, account: &str, system: &str) -> Vec<String> {
        let rows = rows();
        let allowed = |call: &Call| {
            rows.iter().any(|row| {
                let scope = match row.scope.as_str() {
                    "cluster" => true,
                    "operator" => call.namespace.as_deref() == Some(system),
                    _ => call.namespace.is_some(),
                };
                let name = row.name.is_empty() || call.name.as_deref() == Some(&row.name);
                row.account == account
                    && row.group == call.group
                    && row.resource == call.resource
                    && row.verb == call.verb
                    && scope
                    && name
            })
        };
        let calls = self.0.lock().unwrap();
        calls.iter().filter(|call| !allowed(call)).map(ToString::to_string).collect()
    }

    /// How many different requests there were.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Fault for Recorder {
    fn judge(&self, call: &Call) -> Verdict {
        self.0.lock().unwrap().insert(call.clone());
        Verdict::Pass
    }

    fn died(&self) {}
}
