//! The operator gone and back.

use std::time::Duration;

use saatkond_testbed::Cluster;

use crate::install::NAMESPACE;

const DEPLOYMENTS: [&str; 2] = ["saatkond-controller", "saatkond-link"];

/// Scales controller and link to zero and waits until no pod of either is left.
pub fn stop(cluster: &Cluster) -> anyhow::Result<()> {
    for deployment in DEPLOYMENTS {
        cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment", deployment, "--replicas=0"])?;
    }
    cluster.wait_for(
        &["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=saatkond", "-o", "name"],
        "",
        Duration::from_mins(2),
    )?;
    Ok(())
}

/// Scales them back and waits until they are ready.
pub fn start(cluster: &Cluster) -> anyhow::Result<()> {
    for deployment in DEPLOYMENTS {
        cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment", deployment, "--replicas=2"])?;
    }
    until_rolled_out(cluster)
}

fn until_rolled_out(cluster: &Cluster) -> anyhow::Result<()> {
    for deployment in DEPLOYMENTS {
        let name = format!("deployment/{deployment}");
        cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", &name, "--timeout=120s"])?;
    }
    Ok(())
}

/// Has their pods replaced one after the other and waits until the new ones are ready.
pub fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    let names = DEPLOYMENTS.map(|name| format!("deployment/{name}"));
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", &names[0], &names[1]])?;
    until_rolled_out(cluster)
}

/// Until when the federation says it would serve without an operator.
pub fn serves_until(cluster: &Cluster, anchor: &str) -> anyhow::Result<String> {
    let field = "jsonpath={.status.servesWithoutOperatorUntil}";
    Ok(cluster.kubectl(&["get", "trustanchor", anchor, "-o", field])?)
}
