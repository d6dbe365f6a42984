//! Breaking what the operator keeps, and timing the repair.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use saatkond_testbed::{Cluster, wait};
use serde_json::Value;

/// A gateway by its SecurityServer.
#[derive(Debug, Clone, Copy)]
pub struct Gateway {
    /// Its namespace.
    pub namespace: &'static str,
    /// Name of the SecurityServer, and of its Service and Deployment.
    pub name: &'static str,
}

/// The benefits agency's, which serves the clinic too.
pub const BENEFITS: Gateway = Gateway { namespace: "benefits-agency", name: "ss1" };
/// The population register's.
pub const POPULATION: Gateway = Gateway { namespace: "population-register", name: "ss1" };

impl Gateway {
    fn selector(self) -> String {
        format!("saatkond.io/security-server={}", self.name)
    }

    /// Where other servers reach each of its pods.
    pub fn addresses(self, cluster: &Cluster) -> anyhow::Result<Vec<String>> {
        let field = "jsonpath={.items[*].status.podIP}";
        let said = cluster.kubectl(&["-n", self.namespace, "get", "pods", "-l", &self.selector(), "-o", field])?;
        Ok(said.split_whitespace().map(|address| format!("{address}:5500")).collect())
    }

    /// Its pods: name, UID and whether it is ready; not those that are going.
    pub fn pods(self, cluster: &Cluster) -> anyhow::Result<Vec<(String, String, bool)>> {
        let said = cluster.kubectl(&["-n", self.namespace, "get", "pods", "-l", &self.selector(), "-o", "json"])?;
        let list: Value = serde_json::from_str(&said)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| {
                let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                let ready = conditions.clone().any(|c| c["type"] == "Ready" && c["status"] == "True");
                (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]), ready)
            })
            .collect())
    }

    /// Has all its pods replaced one after the other, as a person would, and waits until the new ones are ready.
    pub fn restart(self, cluster: &Cluster) -> anyhow::Result<()> {
        let deployment = format!("deployment/{}", self.name);
        cluster.kubectl(&["-n", self.namespace, "rollout", "restart", &deployment])?;
        cluster.kubectl(&["-n", self.namespace, "rollout", "status", &deployment, "--timeout=180s"])?;
        Ok(())
    }

    /// Kills one pod at once, without its drain, and waits until another one in its place is ready. Not by force: the kubelet is to say
    /// that it has ended.
    pub fn kill_one(self, cluster: &Cluster, bound: Duration) -> anyhow::Result<Killed> {
        let before = self.pods(cluster)?;
        let Some((pod, uid, _)) = before.first().cloned() else {
            bail!("no pod of {}/{} runs", self.namespace, self.name)
        };
        let began = Instant::now();
        cluster.kubectl(&["-n", self.namespace, "delete", "pod", &pod, "--grace-period=1", "--wait=false"])?;
        let successor = wait::until(
            &format!("a pod takes the place of {pod}"),
            bound,
            || format!("{:?}", self.pods(cluster)),
            || {
                let Ok(now) = self.pods(cluster) else { return Ok(None) };
                let ready = now.iter().filter(|(_, other, ready)| *ready && *other != uid).count();
                let new = now.iter().find(|(_, other, ready)| *ready && before.iter().all(|(_, old, _)| old != other));
                Ok((ready >= before.len()).then(|| new.map(|(name, ..)| name.clone())).flatten())
            },
        )?;
        Ok(Killed { pod, successor, took: began.elapsed() })
    }

    /// Deletes one pod by force, as a person whose node does not answer would; the kubelet has nothing to report on any more.
    pub fn delete_one_by_force(self, cluster: &Cluster) -> anyhow::Result<()> {
        let Some((pod, ..)) = self.pods(cluster)?.first().cloned() else {
            bail!("no pod of {}/{} runs", self.namespace, self.name)
        };
        cluster.kubectl(&["-n", self.namespace, "delete", "pod", &pod, "--grace-period=0", "--force"])?;
        Ok(())
    }

    /// Edits the Service as a person with `kubectl edit` would, and waits until the operator has put it right.
    pub fn edit_service(self, cluster: &Cluster, bound: Duration) -> anyhow::Result<Edited> {
        let port = "jsonpath={.spec.ports[?(@.name==\"client\")].port}";
        let get = ["-n", self.namespace, "get", "service", self.name, "-o", port];
        let declared = cluster.kubectl(&get)?.trim().to_owned();
        let service: Value = serde_json::from_str(&cluster.kubectl(&[
            "-n",
            self.namespace,
            "get",
            "service",
            self.name,
            "-o",
            "json",
        ])?)?;
        let ports = service["spec"]["ports"].as_array().context("the Service has no ports")?;
        let at = ports.iter().position(|port| port["name"] == "client").context("the Service has no client port")?;
        let patch = format!(r#"[{{"op":"replace","path":"/spec/ports/{at}/port","value":81}}]"#);
        let began = Instant::now();
        cluster.kubectl(&["-n", self.namespace, "patch", "service", self.name, "--type=json", "--patch", &patch])?;
        cluster.wait_for(&get, &declared, bound)?;
        Ok(Edited { what: format!("service/{} client port {declared} -> 81", self.name), took: began.elapsed() })
    }

    /// Deletes a child, and waits until another one is there in its place.
    pub fn delete_child(self, cluster: &Cluster, kind: &str, bound: Duration) -> anyhow::Result<Edited> {
        let get =
            ["-n", self.namespace, "get", kind, self.name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
        let before = cluster.kubectl(&get)?;
        if before.is_empty() {
            bail!("there is no {kind} {} to delete", self.name);
        }
        let began = Instant::now();
        cluster.kubectl(&["-n", self.namespace, "delete", kind, self.name, "--wait=false"])?;
        wait::until(
            &format!("{kind} {} is there again", self.name),
            bound,
            || cluster.kubectl(&["-n", self.namespace, "get", kind]).unwrap_or_default(),
            || Ok(cluster.kubectl(&get).ok().filter(|uid| !uid.is_empty() && *uid != before).map(|_| ())),
        )?;
        Ok(Edited { what: format!("{kind}/{} deleted", self.name), took: began.elapsed() })
    }
}

/// A pod that was killed.
#[derive(Debug)]
pub struct Killed {
    /// The pod.
    pub pod: String,
    /// The pod in its place.
    pub successor: String,
    /// From the kill until the successor was ready.
    pub took: Duration,
}

/// A child that was changed by hand.
#[derive(Debug)]
pub struct Edited {
    /// What was done.
    pub what: String,
    /// From the change until it was put right.
    pub took: Duration,
}
