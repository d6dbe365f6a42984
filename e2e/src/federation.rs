//! `examples/federation/` in a region: applied, waited for, called.

use std::time::{Duration, Instant};

use anyhow::Context;
use saatkond_testbed::{Cluster, Layout, wait};
use serde_json::Value;

use crate::answer::Answer;
use crate::install;

/// How long a federation of this size may take, images loaded. Far above what it takes: a build may have both cores.
pub const READY_BOUND: Duration = Duration::from_mins(4);

/// A pod that calls, and the security server it calls through.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Namespace of the pod.
    pub namespace: &'static str,
    /// The Deployment of the pod.
    pub app: &'static str,
    /// What it calls itself in `X-Road-Client`.
    pub client: &'static str,
    /// Host of the security server, as the pod names it.
    pub server: &'static str,
}

/// The benefits agency, which may read persons.
pub const BENEFITS: Caller =
    Caller { namespace: "benefits-agency", app: "benefits-app", client: "EE/GOV/70000002/benefits", server: "ss1" };
/// The police, which may not.
pub const POLICE: Caller =
    Caller { namespace: "police", app: "police-app", client: "EE/GOV/70000003/police", server: "ss1" };
/// The clinic, a guest on the benefits agency's server, which may by its group.
pub const CLINIC: Caller =
    Caller { namespace: "clinic", app: "clinic-app", client: "EE/COM/10000001/clinic", server: "ss1.benefits-agency" };
/// The service of the population register.
pub const PERSONS: &str = "/r1/EE/GOV/70000001/population/persons";
/// The person who is in every register.
pub const SPECIMEN: &str = "38001010000";

/// The three kinds, as `kubectl get` names them.
const KINDS: &str = "trustanchors,members,securityservers";

/// Applies the example, as its README tells a person to.
pub fn apply(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    let folder = layout.root().join("examples/federation").display().to_string();
    cluster
        .kubectl(&["apply", "--server-side", "--force-conflicts", "--field-manager=kubectl", "-f", &folder])
        .context("failed to apply examples/federation/")?;
    Ok(())
}

/// Every TrustAnchor, Member and SecurityServer with whether it is Ready for its newest spec.
pub fn readiness(cluster: &Cluster) -> anyhow::Result<Vec<(String, bool)>> {
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", KINDS, "--all-namespaces", "--output=json"])?)?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().map(|item| (name(item), is_ready(item))).collect())
}

fn name(item: &Value) -> String {
    let text = |pointer| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn is_ready(item: &Value) -> bool {
    let conditions = item.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice);
    conditions.unwrap_or_default().iter().any(|condition| {
        condition["type"] == "Ready"
            && condition["status"] == "True"
            && condition["observedGeneration"] == item["metadata"]["generation"]
    })
}

/// Waits until all objects are Ready; `tell` hears of each as it becomes so.
pub fn until_ready(cluster: &Cluster, mut tell: impl FnMut(&str, usize, usize)) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut told = Vec::new();
    wait::until(
        "every object is Ready",
        READY_BOUND,
        || cluster.kubectl(&["get", "saatkond", "-A", "-o", "wide"]).unwrap_or_default(),
        || {
            // An answer that fails is asked for again: the API server may be restarting.
            let Ok(objects) = readiness(cluster) else { return Ok(None) };
            for (object, _) in objects.iter().filter(|(_, ready)| *ready) {
                if !told.contains(object) {
                    told.push(object.clone());
                    tell(object, told.len(), objects.len());
                }
            }
            Ok((!objects.is_empty() && objects.iter().all(|(_, ready)| *ready)).then_some(()))
        },
    )
    .map_err(|error| install::with_missing_images(cluster, error.into()))?;
    Ok(began.elapsed())
}

/// Waits until the information systems run.
pub fn until_apps_ready(cluster: &Cluster) -> anyhow::Result<()> {
    for (namespace, what) in [
        ("population-register", "statefulset/population-database"),
        ("population-register", "deployment/population-app"),
        (BENEFITS.namespace, "deployment/benefits-app"),
        (POLICE.namespace, "deployment/police-app"),
        (CLINIC.namespace, "deployment/clinic-app"),
    ] {
        cluster
            .kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=240s"])
            .with_context(|| format!("{what} in {namespace} does not become ready"))
            .map_err(|error| install::with_missing_images(cluster, error))?;
    }
    Ok(())
}

/// The command that a person would type in the caller's pod.
pub fn curl(caller: Caller, path: &str) -> String {
    format!("curl -H 'X-Road-Client: {}' http://{}{path}", caller.client, caller.server)
}

/// Calls from the caller's pod through its security server.
pub fn call(cluster: &Cluster, caller: Caller, path: &str) -> anyhow::Result<Answer> {
    let header = format!("X-Road-Client: {}", caller.client);
    let url = format!("http://{}{path}", caller.server);
    let pod = format!("deployment/{}", caller.app);
    let said = cluster.kubectl(&[
        "-n",
        caller.namespace,
        "exec",
        &pod,
        "--",
        "curl",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "20",
        "--header",
        &header,
        &url,
    ])?;
    Answer::parse(&said)
}

/// Calls until one is answered with 200, for at most `bound`.
pub fn call_until_served(cluster: &Cluster, caller: Caller, path: &str, bound: Duration) -> anyhow::Result<Answer> {
    let last = std::cell::RefCell::new(String::new());
    let served = wait::until(
        &format!("{} is answered", curl(caller, path)),
        bound,
        || format!("the last answer: {}", last.borrow()),
        || match call(cluster, caller, path) {
            Ok(answer) if answer.status == 200 => Ok(Some(answer)),
            other => {
                *last.borrow_mut() = format!("{other:?}");
                Ok(None)
            }
        },
    )?;
    Ok(served)
}

/// Calls `count` times over one connection, each once; what was said of those that were not answered with 200.
pub fn failures(cluster: &Cluster, caller: Caller, path: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let header = format!("X-Road-Client: {}", caller.client);
    // What follows the # stays with curl, which makes a call of each number.
    let url = format!("http://{}{path}#[1-{count}]", caller.server);
    let pod = format!("deployment/{}", caller.app);
    let each = "\n%{response_code} %header{x-road-error} %{errormsg} %{time_total} s\n";
    let curl = [
        "curl",
        "--silent",
        "--max-time",
        "20",
        "--header",
        &header,
        "--output",
        "/dev/null",
        "--write-out",
        each,
        &url,
    ];
    let command = ["-n", caller.namespace, "exec", &pod, "--", "sh", "-c", r#""$@" || true"#, "calls"];
    let said = cluster.kubectl(&[&command[..], &curl].concat())?;
    let (served, failed): (Vec<&str>, Vec<&str>) =
        said.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with("200 "));
    if served.len() + failed.len() != count {
        anyhow::bail!("{} of {count} calls were reported:\n{said}", served.len() + failed.len());
    }
    Ok(failed.into_iter().map(|line| format!("{}: {line}", caller.client)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_means_ready_for_the_newest_spec() {
        let item = |status: &str, observed: u64| {
            json!({
                "kind": "Member",
                "metadata": {"namespace": "n", "name": "m", "generation": 2},
                "status": {"conditions": [{"type": "Ready", "status": status, "observedGeneration": observed}]},
            })
        };
        assert!(is_ready(&item("True", 2)));
        assert!(!is_ready(&item("True", 1)));
        assert!(!is_ready(&item("False", 2)));
        assert!(!is_ready(&json!({"metadata": {"generation": 1}})));
        assert_eq!(name(&item("True", 2)), "Member n/m");
    }
}
