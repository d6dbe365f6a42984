//! `kubectl saatkond rotate`: another authority, taking it back, and who would hold it up.

mod prospect;

use anyhow::{Context, bail};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use saatkond_api::names::{PAUSED_VALUE, annotation, manager};
use saatkond_api::v1alpha1::trust_anchor::{RotationPhase, RotationStatus};
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::Cluster;

/// Replaces the authority of a trust anchor, key and all, without a request that fails.
///
/// Sets spec.rotation.requestID, and the operator does the rest: each step waits until every process has stated that it is ready for it.
/// With --cancel it takes the change back that is under way; with --plan it changes nothing and shows who would hold a change up, and
/// exits with 1 if anybody would.
#[derive(clap::Args)]
#[command(after_long_help = RIGHTS)]
pub struct Arguments {
    /// The trust anchor.
    anchor: String,
    /// What the change is called in spec.rotation.requestID; a value never begins a second change. Unset: the time now.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["plan", "cancel"])]
    request_id: Option<String>,
    /// Show who would hold a change up, and change nothing.
    #[arg(long, conflicts_with = "cancel")]
    plan: bool,
    /// Take the change back that is under way or asked for.
    #[arg(long)]
    cancel: bool,
    /// Let the API server check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// For programs, with --plan: json or yaml. Fields may be added in later versions, none is taken away in v1alpha1.
    #[arg(short, long, value_name = "FORMAT", requires = "plan")]
    output: Option<crate::output::Format>,
}

const RIGHTS: &str = "\
Rights needed:
  get, patch     trustanchors.saatkond.io (--plan: get alone)
  list           members.saatkond.io, securityservers.saatkond.io in all namespaces, for --plan";

/// What is written into `spec.rotation`, and what is said of it.
#[derive(Debug, PartialEq)]
struct Change {
    rotation: Value,
    told: String,
}

/// Carries the verb out.
pub async fn run(cluster: &Cluster, arguments: Arguments) -> anyhow::Result<Outcome> {
    let (name, now) = (&arguments.anchor, Timestamp::now());
    let anchors: Api<TrustAnchor> = Api::all(cluster.client.clone());
    let anchor = anchors.get(name).await.with_context(|| format!("failed to read trust anchor {name}"))?;
    if arguments.plan {
        let everything = ListParams::default();
        let members: Api<Member> = Api::all(cluster.client.clone());
        let servers: Api<SecurityServer> = Api::all(cluster.client.clone());
        let members = members.list(&everything).await.context("failed to list members")?.items;
        let servers = servers.list(&everything).await.context("failed to list security servers")?.items;
        standing(&anchor)?;
        let prospect = prospect::of(&anchor, &members, &servers, now)?;
        print!("{}", crate::output::written(&prospect, arguments.output, ToString::to_string)?);
        return Ok(if prospect.blocking.is_empty() { Outcome::AsDeclared } else { Outcome::NotAsDeclared });
    }
    let change = if arguments.cancel {
        take_back(&anchor)?
    } else {
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        begin(&anchor, &arguments.request_id.unwrap_or_else(|| seconds.to_string()))?
    };
    // The version read is the version written: what was decided holds for that one.
    let body =
        json!({"metadata": {"resourceVersion": anchor.resource_version()}, "spec": {"rotation": change.rotation}});
    let mut parameters = PatchParams { field_manager: Some(manager::PLUGIN.to_owned()), ..PatchParams::default() };
    parameters.dry_run = arguments.dry_run;
    let changed = anchors.patch(name, &parameters, &Patch::Merge(body)).await;
    changed.with_context(|| format!("failed to change trust anchor {name}"))?;
    println!("{}{}", change.told, if arguments.dry_run { " (dry run)" } else { "" });
    if anchor.annotations().get(annotation::PAUSED).is_some_and(|value| value == PAUSED_VALUE) {
        println!(
            "trustanchor/{name} is paused: nothing of it begins or goes on before {} is removed",
            annotation::PAUSED
        );
    }
    println!("follow it with: kubectl get trustanchor {name} --watch");
    Ok(Outcome::AsDeclared)
}

/// How far a change is; fails where there is none that this could begin or take back.
fn standing(anchor: &TrustAnchor) -> anyhow::Result<&RotationStatus> {
    let name = anchor.name_any();
    if anchor.spec.source.managed.is_none() {
        bail!(
            "trust anchor {name} has an external authority: it changes by its list of certificates, spec.source.external"
        );
    }
    let rotation = anchor.status.as_ref().and_then(|status| status.rotation.as_ref());
    rotation
        .with_context(|| format!("trust anchor {name} has published no authority yet: see kubectl saatkond status -A"))
}

/// What was asked for and has not begun.
fn pending<'a>(anchor: &'a TrustAnchor, standing: &RotationStatus) -> Option<&'a str> {
    let wish = anchor.spec.rotation.as_ref()?;
    let asked = wish.request_id.as_deref()?;
    (wish.cancel.as_deref() != Some(asked) && !standing.requests.iter().any(|request| request == asked))
        .then_some(asked)
}

fn begin(anchor: &TrustAnchor, request: &str) -> anyhow::Result<Change> {
    let (name, standing) = (anchor.name_any(), standing(anchor)?);
    if let Some(pending) = pending(anchor, standing) {
        bail!(
            "{pending:?} is asked for already and has not begun; --cancel takes it back, status says what it waits for"
        );
    }
    if standing.phase != RotationPhase::Stable {
        let last = standing.requests.last().map_or("", String::as_str);
        let phase = word(standing.phase);
        bail!("one change at a time: {last:?} is {phase} since {}; --cancel takes it back", standing.since.0);
    }
    if standing.requests.iter().any(|earlier| earlier == request) {
        bail!("{request:?} was the name of an earlier change, and a name never begins a second one");
    }
    let (now, next) = (standing.signing_generation, standing.highest_generation + 1);
    let has_windows = anchor.spec.rotation.as_ref().is_some_and(|rotation| !rotation.windows.is_empty());
    let when = if has_windows { "; it begins in a maintenance window, status says when" } else { "" };
    let told =
        format!("trustanchor/{name}: {request:?} is asked for: authority {next} will take the place of {now}{when}");
    let taken_back = anchor.spec.rotation.as_ref().and_then(|rotation| rotation.cancel.as_deref());
    let rotation = match taken_back {
        // It was asked for and taken back before it began; while that stands it does not begin.
        Some(earlier) if earlier == request => json!({"requestID": request, "cancel": null}),
        _ => json!({"requestID": request}),
    };
    Ok(Change { rotation, told })
}

fn take_back(anchor: &TrustAnchor) -> anyhow::Result<Change> {
    let (name, standing) = (anchor.name_any(), standing(anchor)?);
    if let Some(pending) = pending(anchor, standing) {
        let told = format!("trustanchor/{name}: {pending:?} will not begin");
        return Ok(Change { rotation: json!({"cancel": pending}), told });
    }
    let under_way = standing.requests.last().filter(|_| standing.phase != RotationPhase::Stable);
    let Some(request) = under_way else { bail!("trust anchor {name} has no change under way: what is complete stays") };
    if standing.returning || standing.phase == RotationPhase::RollingBack {
        bail!("{request:?} is being taken back already, and a way back has no way back");
    }
    let told = match (standing.phase, standing.other_generation) {
        (RotationPhase::Announcing, Some(next)) => {
            format!(
                "trustanchor/{name}: {request:?} is taken back: authority {next}, which has issued nothing, is withdrawn"
            )
        }
        (_, old) => {
            let old = old.unwrap_or_default();
            format!("trustanchor/{name}: {request:?} is taken back: authority {old} issues every certificate again")
        }
    };
    Ok(Change { rotation: json!({"cancel": request}), told })
}

fn word(phase: RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Stable => "complete",
        RotationPhase::Preparing => "being prepared",
        RotationPhase::Announcing => "being announced",
        RotationPhase::Switching => "switching",
        RotationPhase::Retiring => "retiring the old authority",
        RotationPhase::RollingBack => "being withdrawn",
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]
mod tests {
    use super::*;

    fn anchor(rotation: Value, status: Value) -> TrustAnchor {
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "TrustAnchor", "metadata": {"name": "ee"},
            "spec": {"instance": "EE", "source": {"managed": {}}, "rotation": rotation},
            "status": {"rotation": status},
        }))
        .unwrap()
    }

    fn at(phase: &str, other: Option<u64>, returning: bool, requests: &[&str]) -> Value {
        json!({
            "phase": phase, "since": "2026-01-02T00:00:00Z", "signingGeneration": 2, "otherGeneration": other,
            "returning": returning, "highestGeneration": 3, "requests": requests, "acknowledged": "1/2",
        })
    }

    #[test]
    fn a_change_begins_once_and_alone() {
        let stable = || at("Stable", None, false, &["r1"]);
        let change = begin(&anchor(json!({"requestID": "r1"}), stable()), "r2").unwrap();
        assert_eq!(change.rotation, json!({"requestID": "r2"}));
        assert!(change.told.contains("authority 4 will take the place of 2"), "{}", change.told);
        let windows = json!({"windows": [{"cron": "0 2 * * *", "duration": "1h"}]});
        let told = begin(&anchor(windows, stable()), "r2").unwrap().told;
        assert!(told.ends_with("; it begins in a maintenance window, status says when"), "{told}");
        for (why, rotation, status) in [
            ("an earlier change", json!({"requestID": "r2"}), at("Stable", None, false, &["r1", "r2"])),
            ("\"r3\" is asked for already", json!({"requestID": "r3"}), stable()),
            (
                "\"r1\" is switching since 2026-01-02",
                json!({"requestID": "r1"}),
                at("Switching", Some(1), false, &["r1"]),
            ),
        ] {
            let said = begin(&anchor(rotation, status), "r2").unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
        // What was taken back before it began holds nothing up, and may be asked for again.
        for (request, expected) in
            [("r2", json!({"requestID": "r2"})), ("r3", json!({"requestID": "r3", "cancel": null}))]
        {
            let change = begin(&anchor(json!({"requestID": "r3", "cancel": "r3"}), stable()), request).unwrap();
            assert_eq!(change.rotation, expected);
        }
    }

    #[test]
    fn an_anchor_without_an_authority_of_its_own_has_none_to_replace() {
        let mut external = anchor(Value::Null, Value::Null);
        assert!(begin(&external, "r").unwrap_err().to_string().contains("published no authority yet"));
        external.spec.source.managed = None;
        for said in [begin(&external, "r"), take_back(&external)] {
            assert!(said.unwrap_err().to_string().contains("an external authority"));
        }
    }

    #[test]
    fn what_is_under_way_or_asked_for_is_taken_back() {
        for (rotation, status, request, says) in [
            (json!({"requestID": "r2"}), at("Stable", None, false, &["r1"]), "r2", "\"r2\" will not begin"),
            (Value::Null, at("Announcing", Some(3), false, &["r1"]), "r1", "authority 3, which has issued nothing"),
            (Value::Null, at("Switching", Some(1), false, &["r1"]), "r1", "authority 1 issues every certificate again"),
            (Value::Null, at("Retiring", Some(1), false, &["r1"]), "r1", "authority 1 issues every certificate again"),
        ] {
            let change = take_back(&anchor(rotation, status)).unwrap();
            assert_eq!(change.rotation, json!({"cancel": request}));
            assert!(change.told.contains(says), "{}", change.told);
        }
        for (status, why) in [
            (at("Stable", None, false, &["r1"]), "no change under way"),
            (at("Switching", Some(1), true, &["r1"]), "taken back already"),
            (at("RollingBack", Some(3), false, &["r1"]), "taken back already"),
        ] {
            let said = take_back(&anchor(Value::Null, status)).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
