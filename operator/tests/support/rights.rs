//! The rights of `RBAC.md`, read from its tables.
#![allow(dead_code, reason = "each program uses a part; the one of the rights checks that some program uses each item")]

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

/// What the reason of a row begins with whose right no request shows.
const UNSEEN: &str = "unseen: ";

/// All rows, one for each verb and name.
pub fn rows() -> BTreeSet<Row> {
    rows_with(|_| true)
}

/// The rows whose reason is such a one.
fn rows_with(reasons: impl Fn(&str) -> bool) -> BTreeSet<Row> {
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
        for verb in verbs.split(", ").filter(|_| reasons(reason)) {
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
        let calls = self.0.lock().unwrap();
        calls.iter().filter(|call| used(&rows, account, system, call).is_none()).map(ToString::to_string).collect()
    }

    /// Rows of the account that no request used, but for those whose use no request shows.
    pub fn without_use(&self, account: &str, system: &str) -> Vec<Row> {
        let rows = rows_with(|reason| !reason.starts_with(UNSEEN));
        let calls = self.0.lock().unwrap();
        let used: BTreeSet<_> = calls.iter().filter_map(|call| used(&rows, account, system, call)).collect();
        rows.iter().filter(|row| row.account == account && !used.contains(row)).cloned().collect()
    }
}

/// The row that allows a request, of several the one with the widest scope: a narrower one beside it gives nothing.
fn used<'a>(rows: &'a BTreeSet<Row>, account: &str, system: &str, call: &Call) -> Option<&'a Row> {
    let allows = |row: &&Row, scope: &str| {
        let within = match scope {
            "cluster" => true,
            "operator" => call.namespace.as_deref() == Some(system),
            _ => call.namespace.as_deref().is_some_and(|namespace| namespace != system),
        };
        let name = row.name.is_empty() || call.name.as_deref() == Some(&row.name);
        within
            && name
            && row.scope == scope
            && row.account == account
            && row.group == call.group
            && row.resource == call.resource
            && row.verb == call.verb
    };
    ["cluster", "operator", "member"].into_iter().find_map(|scope| rows.iter().find(|row| allows(row, scope)))
}

impl Fault for Recorder {
    fn judge(&self, call: &Call) -> Verdict {
        self.0.lock().unwrap().insert(call.clone());
        Verdict::Pass
    }

    fn died(&self) {}
}
