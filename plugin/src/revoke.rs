//! `kubectl saatkond revoke`: certificates of a server whose keys somebody else may have are refused from now on.

use anyhow::{Context, bail, ensure};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use saatkond_api::SecurityServer;
use saatkond_api::names::manager;
use serde_json::json;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::place::{Place, server};

/// Revokes the certificates of a security server, all of them or the older ones.
///
/// Sets spec.revocation. Every gateway that is connected refuses them within seconds, also in sessions that are open; the operator issues new
/// ones at once. The server itself is cut off until its processes have loaded these, up to some two minutes. It cannot be undone.
#[derive(clap::Args)]
#[command(after_long_help = RIGHTS)]
pub struct Arguments {
    /// The security server, as namespace/name.
    #[arg(value_name = "NAMESPACE/SERVER", value_parser = server)]
    server: Place,
    /// Why, for those who read it later.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The highest issue number that is revoked. Unset: the highest that was given out.
    #[arg(long, value_name = "NUMBER")]
    up_to: Option<u64>,
    /// Let the API server check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
}

const RIGHTS: &str = "\
Rights needed:
  get, patch     securityservers.saatkond.io in the server's namespace";

/// Carries the verb out.
pub async fn run(cluster: &Cluster, arguments: Arguments) -> anyhow::Result<Outcome> {
    let Arguments { server: place, reason, up_to, dry_run } = arguments;
    let servers: Api<SecurityServer> = Api::namespaced(cluster.client.clone(), &place.namespace);
    let server = servers.get(&place.name).await.with_context(|| format!("failed to read SecurityServer {place}"))?;
    let up_to = revoked(&server, &place, up_to)?;
    // The version read is the version written: what was issued in between is another number.
    let body = json!({
        "metadata": {"resourceVersion": server.resource_version()},
        "spec": {"revocation": {"upToIssueNumber": up_to, "reason": reason}},
    });
    let mut parameters = PatchParams { field_manager: Some(manager::PLUGIN.to_owned()), ..PatchParams::default() };
    parameters.dry_run = dry_run;
    let changed = servers.patch(&place.name, &parameters, &Patch::Merge(body)).await;
    changed.with_context(|| format!("failed to change SecurityServer {place}"))?;
    let suffix = if dry_run { " (dry run)" } else { "" };
    println!("securityserver/{place}: its certificates with issue numbers up to {up_to} are revoked{suffix}");
    println!("who has not confirmed that it refuses them stands in status.revocations of its trust anchor");
    Ok(Outcome::AsDeclared)
}

/// Up to which number.
fn revoked(server: &SecurityServer, place: &Place, wanted: Option<u64>) -> anyhow::Result<u64> {
    let issued = server.status.as_ref().and_then(|status| status.issue_number);
    let Some(issued) = issued else {
        bail!("SecurityServer {place} has no certificate yet: there is nothing to revoke")
    };
    let up_to = wanted.unwrap_or(issued);
    ensure!(up_to > 0, "--up-to counts from 1");
    ensure!(
        up_to <= issued,
        "SecurityServer {place} has no certificate with the number {up_to} yet; its highest is {issued}"
    );
    let before = server.spec.lowest_issue_number();
    ensure!(up_to >= before, "those up to {} are revoked already", before.saturating_sub(1));
    Ok(up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(issued: Option<u64>, revoked: Option<u64>) -> SecurityServer {
        let revocation = revoked.map(|up_to| json!({"upToIssueNumber": up_to, "reason": "stolen"}));
        serde_json::from_value(json!({
            "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": "n"},
            "spec": {"memberRef": {"name": "m"}, "serverCode": "ss1", "revocation": revocation},
            "status": {"issueNumber": issued},
        }))
        .unwrap()
    }

    #[test]
    fn all_that_was_issued_is_revoked_or_a_part_of_it_and_nothing_twice() {
        let place = Place { namespace: "n".into(), name: "ss1".into() };
        let judge = |issued, before, wanted| revoked(&server(issued, before), &place, wanted);
        assert_eq!(judge(Some(7), None, None).unwrap(), 7);
        assert_eq!(judge(Some(7), Some(3), Some(4)).unwrap(), 4);
        for (issued, before, wanted, why) in [
            (None, None, None, "no certificate yet"),
            (Some(7), None, Some(8), "no certificate with the number 8 yet; its highest is 7"),
            (Some(7), None, Some(0), "counts from 1"),
            (Some(7), Some(7), None, "those up to 7 are revoked already"),
            (Some(7), Some(3), Some(3), "those up to 3 are revoked already"),
        ] {
            let said = judge(issued, before, wanted).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
