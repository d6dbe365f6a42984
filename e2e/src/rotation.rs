//! The authority replaced in a region, with calls going on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use saatkond_testbed::{Cluster, wait};
use serde_json::{Value, json};

use crate::federation::{self, Caller};

/// How long a change may take. Two of its steps wait for the kubelet to refresh mounted Secrets, each up to about a minute.
pub const BOUND: Duration = Duration::from_mins(6);

/// Calls of one batch, over one connection of the caller's.
const BATCH: usize = 50;

/// What is stated of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `Stable`, `Preparing`, ...
    pub phase: String,
    /// The generation that issues.
    pub generation: u64,
    /// The highest generation that was ever announced.
    pub highest: u64,
    /// Whether a change that was cancelled is on its way back.
    pub returning: bool,
    /// Processes that have stated what is waited for, of how many.
    pub acknowledged: String,
}

/// Reads it from the anchor's status.
pub fn standing(cluster: &Cluster, anchor: &str) -> anyhow::Result<Standing> {
    let said = cluster.kubectl(&["get", "trustanchor", anchor, "--output=jsonpath={.status.rotation}"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| format!("status.rotation of {anchor}: {said:?}"))?;
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| said[name].as_u64().unwrap_or_default();
    Ok(Standing {
        phase: text("phase"),
        generation: number("signingGeneration"),
        highest: number("highestGeneration"),
        returning: said["returning"] == true,
        acknowledged: text("acknowledged"),
    })
}

/// Asks for another authority.
pub fn ask(cluster: &Cluster, anchor: &str, request: &str) -> anyhow::Result<()> {
    patch(cluster, anchor, &json!({"requestID": request}))
}

/// Declares that somebody else may have the key of an authority.
pub fn declare_compromised(cluster: &Cluster, anchor: &str, generation: u64) -> anyhow::Result<()> {
    let emergency =
        json!({"compromisedGeneration": generation, "compromisedSince": "2026-01-01T00:00:00Z", "reason": "journey"});
    let patch = json!({"spec": {"emergency": emergency}}).to_string();
    cluster.kubectl(&["patch", "trustanchor", anchor, "--type=merge", "--patch", &patch])?;
    Ok(())
}

/// Takes a change back.
pub fn cancel(cluster: &Cluster, anchor: &str, request: &str) -> anyhow::Result<()> {
    patch(cluster, anchor, &json!({"cancel": request}))
}

/// The pods of which nobody has learnt that their process has ended, by namespace and name of their server and UID.
pub fn vanished(cluster: &Cluster) -> anyhow::Result<Vec<[String; 3]>> {
    let said = cluster.kubectl(&["get", "securityservers", "--all-namespaces", "--output=json"])?;
    let list: Value = serde_json::from_str(&said)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for server in list["items"].as_array().into_iter().flatten() {
        let pods = server["status"]["pods"].as_array().into_iter().flatten();
        let gone = pods.filter(|pod| !pod["vanishedAt"].is_null());
        let (namespace, name) = (&server["metadata"]["namespace"], &server["metadata"]["name"]);
        found.extend(gone.map(|pod| [text(namespace), text(name), text(&pod["uid"])]));
    }
    Ok(found)
}

/// Says of processes that they do not run.
pub fn exclude(cluster: &Cluster, anchor: &str, processes: &[[String; 3]]) -> anyhow::Result<()> {
    let exclusion = |[namespace, name, pod]: &[String; 3]| {
        let server = json!({"namespace": namespace, "name": name});
        json!({"server": server, "process": pod, "reason": "journey", "until": "2100-01-01T00:00:00Z"})
    };
    patch(cluster, anchor, &json!({"excluded": processes.iter().map(exclusion).collect::<Vec<_>>()}))
}

fn patch(cluster: &Cluster, anchor: &str, rotation: &Value) -> anyhow::Result<()> {
    let patch = json!({"spec": {"rotation": rotation}}).to_string();
    cluster.kubectl(&["patch", "trustanchor", anchor, "--type=merge", "--patch", &patch])?;
    Ok(())
}

/// Waits until the change stands so; the phases on the way, each with when it was first seen.
pub fn until(
    cluster: &Cluster,
    anchor: &str,
    what: &str,
    wanted: impl Fn(&Standing) -> bool,
) -> anyhow::Result<Vec<(String, Duration)>> {
    let (began, mut seen) = (Instant::now(), Vec::<(String, Duration)>::new());
    let dump = || {
        let anchor = cluster.kubectl(&["get", "trustanchor", anchor, "--output=yaml"]).unwrap_or_default();
        let servers = cluster.kubectl(&["get", "securityservers", "-A", "--output=yaml"]).unwrap_or_default();
        format!("{anchor}\n{servers}")
    };
    wait::until(&format!("{anchor} is {what}"), BOUND, dump, || {
        // An answer that fails is asked for again: the API server may be busy.
        let Ok(standing) = standing(cluster, anchor) else { return Ok(None) };
        if seen.last().is_none_or(|(phase, _)| *phase != standing.phase) {
            seen.push((standing.phase.clone(), began.elapsed()));
        }
        Ok(wanted(&standing).then_some(()))
    })?;
    Ok(seen)
}

/// What came of the calls that went on meanwhile.
#[derive(Debug, Default)]
pub struct Calls {
    /// How many were made.
    pub made: usize,
    /// Those that were not answered with 200, as the caller saw them.
    pub failed: Vec<String>,
}

/// Calls without a pause and without a retry from each of the callers until `change` has ended.
pub fn under_calls<T>(
    cluster: &Cluster,
    callers: &[(Caller, &str)],
    change: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Calls)> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let calling: Vec<_> = callers
            .iter()
            .map(|(caller, path)| {
                let ended = &ended;
                scope.spawn(move || -> anyhow::Result<Calls> {
                    let mut calls = Calls::default();
                    while !ended.load(Ordering::Relaxed) {
                        calls.failed.extend(federation::failures(cluster, *caller, path, BATCH)?);
                        calls.made += BATCH;
                    }
                    Ok(calls)
                })
            })
            .collect();
        let changed = change();
        ended.store(true, Ordering::Relaxed);
        let mut all = Calls::default();
        for calling in calling {
            let Ok(calls) = calling.join() else { anyhow::bail!("a caller has ended with a panic") };
            let calls = calls?;
            all.made += calls.made;
            all.failed.extend(calls.failed);
        }
        Ok((changed?, all))
    })
}
