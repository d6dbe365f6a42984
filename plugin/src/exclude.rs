//! `kubectl saatkond exclude`: a person says of a process what nobody else can know.

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use saatkond_api::duration::Period;
use saatkond_api::names::manager;
use saatkond_api::v1alpha1::trust_anchor::{ExcludedServer, Exclusion};
use saatkond_api::{SecurityServer, TrustAnchor};
use serde_json::json;

use crate::Outcome;
use crate::cluster::{Cluster, api_status};
use crate::place::{Place, server};

/// Lets a change of the authority go on without a process that does not run any more.
///
/// Adds to spec.rotation.excluded, and takes entries out whose time is over. A process that runs after all lacks trust once the change
/// goes on without it, and its calls fail: so this refuses processes whose pods are there, unless --force is given.
#[derive(clap::Args)]
#[command(after_long_help = RIGHTS)]
pub struct Arguments {
    /// The trust anchor.
    anchor: String,
    /// The security server, as namespace/name.
    #[arg(value_name = "NAMESPACE/SERVER", value_parser = server)]
    server: Place,
    /// UID of the pod, as `kubectl saatkond rotate ANCHOR --plan` names it. Unset: every process of the server.
    #[arg(value_name = "POD-UID")]
    process: Option<String>,
    /// Why, for those who read it later.
    #[arg(long, value_name = "TEXT", required_unless_present = "remove")]
    reason: Option<String>,
    /// For how long, for example 24h. A process that has vanished is forgotten at once and stays so.
    #[arg(long = "for", value_name = "TIME", default_value = "24h")]
    lasts: Period,
    /// Exclude it although its pod is there.
    #[arg(long)]
    force: bool,
    /// Take the exclusion away again.
    #[arg(long, conflicts_with_all = ["reason", "force"])]
    remove: bool,
    /// Let the API server check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
}

const RIGHTS: &str = "\
Rights needed:
  get, patch     trustanchors.saatkond.io
  get            securityservers.saatkond.io in the server's namespace (not with --remove)";

/// Carries the verb out.
pub async fn run(cluster: &Cluster, arguments: Arguments) -> anyhow::Result<Outcome> {
    let (name, now) = (&arguments.anchor, Timestamp::now());
    let anchors: Api<TrustAnchor> = Api::all(cluster.client.clone());
    let anchor = anchors.get(name).await.with_context(|| format!("failed to read trust anchor {name}"))?;
    let standing = anchor.spec.rotation.clone().unwrap_or_default().excluded;
    let place = &arguments.server;
    let excluded = ExcludedServer { namespace: place.namespace.clone(), name: place.name.clone() };
    let (next, told) = if arguments.remove {
        removed(standing, &excluded, arguments.process.as_deref(), now)?
    } else {
        let servers: Api<SecurityServer> = Api::namespaced(cluster.client.clone(), &place.namespace);
        let server = match servers.get(&place.name).await {
            Ok(server) => server,
            Err(error) if api_status(&error).is_some_and(|(code, _)| code == 404) => {
                bail!("there is no SecurityServer {place}: no change waits for it")
            }
            Err(error) => return Err(error).context(format!("failed to read SecurityServer {place}")),
        };
        let until = now.checked_add(arguments.lasts.as_signed()).context("--for ends later than time can be told")?;
        let exclusion = Exclusion {
            server: excluded,
            process: arguments.process.clone(),
            reason: arguments.reason.clone().unwrap_or_default(),
            until: Time(Timestamp::from_second(until.as_second()).unwrap_or(until)),
        };
        added(standing, &server, exclusion, arguments.force, now)?
    };
    // The version read is the version written: somebody else's entry in between is a conflict, never undone.
    let body = json!({
        "metadata": {"resourceVersion": anchor.resource_version()},
        "spec": {"rotation": {"excluded": if next.is_empty() { None } else { Some(next) }}},
    });
    let mut parameters = PatchParams { field_manager: Some(manager::PLUGIN.to_owned()), ..PatchParams::default() };
    parameters.dry_run = arguments.dry_run;
    let changed = anchors.patch(name, &parameters, &Patch::Merge(body)).await;
    changed.with_context(|| format!("failed to change trust anchor {name}"))?;
    println!("trustanchor/{name}: {told}{}", if arguments.dry_run { " (dry run)" } else { "" });
    Ok(Outcome::AsDeclared)
}

fn who(server: &ExcludedServer, process: Option<&str>) -> String {
    let place = format!("SecurityServer {}/{}", server.namespace, server.name);
    process.map_or_else(|| format!("every process of {place}"), |pod| format!("pod {pod} of {place}"))
}

fn is_same(one: &Exclusion, server: &ExcludedServer, process: Option<&str>) -> bool {
    one.server == *server && one.process.as_deref() == process
}

/// The list with one more, and what is said of it.
fn added(
    mut standing: Vec<Exclusion>,
    server: &SecurityServer,
    exclusion: Exclusion,
    force: bool,
    now: Timestamp,
) -> anyhow::Result<(Vec<Exclusion>, String)> {
    let process = exclusion.process.as_deref();
    let pods = server.status.as_ref().map(|status| status.pods.as_slice()).unwrap_or_default();
    let named = |pod: &&saatkond_api::v1alpha1::security_server::CountedPod| process.is_none_or(|uid| uid == pod.uid);
    let meant: Vec<_> = pods.iter().filter(named).collect();
    let place = format!("{}/{}", exclusion.server.namespace, exclusion.server.name);
    if meant.is_empty()
        && let Some(uid) = process
    {
        let known: Vec<_> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("no change waits for pod {uid} of SecurityServer {place}; those that count: {known}");
    }
    let there: Vec<_> = meant.iter().filter(|pod| pod.vanished_at.is_none()).map(|pod| pod.name.as_str()).collect();
    ensure!(
        force || there.is_empty(),
        "pod {} of SecurityServer {place} is there and states for itself what it trusts; if it runs, its calls fail once a change goes on \
         without it: --force excludes it all the same",
        there.join(", ")
    );
    let until = exclusion.until.0;
    let told = format!("no change waits for {} until {until}", who(&exclusion.server, process));
    standing.retain(|other| other.until.0 > now && !is_same(other, &exclusion.server, process));
    standing.push(exclusion);
    Ok((standing, told))
}

/// The list without one, and what is said of it.
fn removed(
    mut standing: Vec<Exclusion>,
    server: &ExcludedServer,
    process: Option<&str>,
    now: Timestamp,
) -> anyhow::Result<(Vec<Exclusion>, String)> {
    let before = standing.len();
    standing.retain(|other| !is_same(other, server, process));
    ensure!(standing.len() < before, "{} is not excluded", who(server, process));
    standing.retain(|other| other.until.0 > now);
    Ok((standing, format!("{} is waited for again, if it is still known", who(server, process))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn exclusion(name: &str, process: Option<&str>, until: i64) -> Exclusion {
        Exclusion {
            server: ExcludedServer { namespace: "n".into(), name: name.into() },
            process: process.map(str::to_owned),
            reason: "its node burnt down".into(),
            until: Time(at(until)),
        }
    }

    fn ss1() -> SecurityServer {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": "n"},
            "spec": {"memberRef": {"name": "m"}, "serverCode": "ss1"},
            "status": {"pods": [
                {"uid": "there", "name": "ss1-0"}, {"uid": "gone", "name": "ss1-1", "vanishedAt": "2026-01-02T00:00:00Z"},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn what_has_vanished_is_excluded_and_what_is_there_by_force_alone() {
        let (list, told) = added(Vec::new(), &ss1(), exclusion("ss1", Some("gone"), 60), false, at(0)).unwrap();
        assert_eq!(list, [exclusion("ss1", Some("gone"), 60)]);
        assert_eq!(told, "no change waits for pod gone of SecurityServer n/ss1 until 1970-01-01T00:01:00Z");
        for process in [Some("there"), None] {
            let said = added(Vec::new(), &ss1(), exclusion("ss1", process, 60), false, at(0)).unwrap_err().to_string();
            assert!(said.contains("pod ss1-0 of SecurityServer n/ss1 is there"), "{said}");
            assert_eq!(added(Vec::new(), &ss1(), exclusion("ss1", process, 60), true, at(0)).unwrap().0.len(), 1);
        }
        let said = added(Vec::new(), &ss1(), exclusion("ss1", Some("gnoe"), 60), true, at(0)).unwrap_err().to_string();
        assert!(said.contains("those that count: there, gone"), "{said}");
    }

    #[test]
    fn others_stay_and_those_whose_time_is_over_go() {
        let standing =
            vec![exclusion("ss1", Some("gone"), 50), exclusion("ss2", None, 20), exclusion("ss3", Some("x"), 10)];
        let (list, _) = added(standing.clone(), &ss1(), exclusion("ss1", Some("gone"), 60), false, at(10)).unwrap();
        assert_eq!(list, [exclusion("ss2", None, 20), exclusion("ss1", Some("gone"), 60)]);
        let (list, told) = removed(standing.clone(), &standing[0].server, Some("gone"), at(10)).unwrap();
        assert_eq!(list, [exclusion("ss2", None, 20)]);
        assert!(told.contains("pod gone of SecurityServer n/ss1 is waited for again"), "{told}");
        assert!(removed(standing.clone(), &standing[0].server, None, at(10)).is_err(), "the server as a whole is not");
    }
}
