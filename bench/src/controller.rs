//! The release binary's controller as a process against the API server of the testbed, with the chart's own roles.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use saatkond_testbed::{ApiServer, ApiServerOptions, Cluster, Layout, wait};

use saatkond_e2e::install::NAMESPACE;

/// An API server of its own, with all that the chart installs; nothing runs the Deployments.
pub fn api_server(layout: &Layout) -> anyhow::Result<ApiServer> {
    let server = ApiServer::start(&ApiServerOptions::with_controllers())?;
    let output = Command::new(layout.tool("helm")?)
        .args(["template", "saatkond", "charts/saatkond", "--namespace", NAMESPACE])
        .current_dir(layout.root())
        .output()
        .context("failed to start helm")?;
    if !output.status.success() {
        bail!("helm template failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n");
    server.cluster().apply(&format!("{namespace}{}", String::from_utf8_lossy(&output.stdout)))?;
    for kind in ["trustanchors", "members", "securityservers"] {
        let name = format!("crd/{kind}.saatkond.io");
        server.cluster().kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"])?;
    }
    Ok(server)
}

/// The variable with the allocator's settings.
const ALLOCATOR: &str = "_RJEM_MALLOC_CONF";

/// Its value in the chart: what is measured is what is installed.
fn allocator(cluster: &Cluster) -> anyhow::Result<String> {
    let field = format!("--output=jsonpath={{.spec.template.spec.containers[0].env[?(@.name=='{ALLOCATOR}')].value}}");
    let question = ["get", "deployment", "saatkond-controller", "--namespace", NAMESPACE, &field];
    let value = cluster.kubectl(&question)?;
    if value.trim().is_empty() {
        bail!("the chart's controller does not set {ALLOCATOR}");
    }
    Ok(value.trim().to_owned())
}

/// A running controller. Dropping it kills it.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    admin: SocketAddr,
    log: PathBuf,
}

impl Controller {
    /// Starts `target/<triple>/release/saatkond`, which stands beside the benchmark itself, and waits until it is ready.
    pub fn start(layout: &Layout, cluster: &Cluster) -> anyhow::Result<Self> {
        let folder = layout.root().join("target/bench");
        std::fs::create_dir_all(&folder).context("failed to make target/bench")?;
        let kubeconfig = folder.join("controller.kubeconfig");
        cluster.service_account_kubeconfig(NAMESPACE, "saatkond-controller", &kubeconfig)?;
        let program = std::env::current_exe()?.with_file_name("saatkond");
        if !program.exists() {
            bail!("{} is not built: cargo build --release -p saatkond", program.display());
        }
        let log = folder.join("controller.log");
        let file = std::fs::File::create(&log).context("failed to make the controller's log")?;
        // A port that was free a moment ago; nobody else starts servers during a benchmark.
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(program)
            .args(["operator", "--role=controller", "--health-address", &admin.to_string()])
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", "bench")
            .env("SAATKOND_IMAGE", "saatkond:dev")
            .env("RUST_LOG", "warn")
            .env(ALLOCATOR, allocator(cluster)?)
            .stdout(Stdio::from(file.try_clone()?))
            .stderr(Stdio::from(file))
            .spawn()
            .context("failed to start the controller")?;
        let mut controller = Self { child, admin, log };
        controller.until_ready()?;
        Ok(controller)
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let (admin, log) = (self.admin, self.log.clone());
        let child = &mut self.child;
        wait::until(
            "the controller is ready",
            Duration::from_mins(1),
            || std::fs::read_to_string(&log).unwrap_or_default(),
            || {
                let ended = child.try_wait().ok().flatten();
                if ended.is_some() {
                    // Nothing to wait for any more; the bound's message would hide why.
                    return Err(saatkond_testbed::Error::Timeout {
                        what: "the controller ended while it started".to_owned(),
                        bound: Duration::ZERO,
                        state: std::fs::read_to_string(&log).unwrap_or_default(),
                    });
                }
                Ok(get(admin, "/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 200")).map(|_| ()))
            },
        )?;
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Requests to the API server so far, by verb and resource.
    pub fn requests(&self) -> anyhow::Result<BTreeMap<(String, String), u64>> {
        Ok(self.counts()?.requests)
    }

    /// What it has counted so far.
    pub fn counts(&self) -> anyhow::Result<Counts> {
        Ok(Counts::parse(&get(self.admin, "/metrics")?))
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a controller says of itself in its metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to the API server, by verb and resource.
    pub requests: BTreeMap<(String, String), u64>,
    /// Reconciles, by kind and result.
    pub reconciles: BTreeMap<(String, String), u64>,
    /// Whether it holds the lease.
    pub leads: bool,
}

impl Counts {
    fn parse(metrics: &str) -> Self {
        Self {
            requests: counters(metrics, "saatkond_api_requests_total", ["verb", "resource"]),
            reconciles: counters(metrics, "saatkond_reconciles_total", ["kind", "result"]),
            leads: metrics.lines().any(|line| line.trim() == "saatkond_leading 1"),
        }
    }
}

/// The counters of one name, by two of their labels.
fn counters(metrics: &str, name: &str, [one, other]: [&str; 2]) -> BTreeMap<(String, String), u64> {
    let label = |labels: &str, name: &str| {
        let rest = labels.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "))
        .filter_map(|(labels, value)| Some(((label(labels, one)?, label(labels, other)?), value.trim().parse().ok()?)))
        .collect()
}

/// Requests of all kinds, the Lease's aside: it is renewed whether or not there is anything to do.
pub fn asked(requests: &BTreeMap<(String, String), u64>) -> u64 {
    requests.iter().filter(|((_, resource), _)| !resource.contains("lease")).map(|(_, count)| count).sum()
}

/// Those of them that change something.
pub fn writes(requests: &BTreeMap<(String, String), u64>) -> u64 {
    let reads = ["get", "list", "watch"];
    requests
        .iter()
        .filter(|((verb, resource), _)| !reads.contains(&verb.as_str()) && !resource.contains("lease"))
        .map(|(_, count)| count)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_from_reads_and_leases_and_looks_by_their_result() {
        let metrics = "# TYPE saatkond_api_requests counter\n\
            saatkond_api_requests_total{verb=\"list\",resource=\"members\"} 3\n\
            saatkond_api_requests_total{verb=\"patch\",resource=\"members/status\"} 5\n\
            saatkond_api_requests_total{verb=\"update\",resource=\"leases\"} 7\n\
            saatkond_api_requests_total{verb=\"create\",resource=\"secrets\"} 2\n\
            other_total{verb=\"patch\",resource=\"x\"} 11\n\
            saatkond_reconciles_total{kind=\"Member\",result=\"ok\"} 4\n\
            saatkond_reconciles_total{kind=\"Member\",result=\"conflict\"} 1\n\
            saatkond_leading 1\n";
        let Counts { requests, reconciles, leads } = Counts::parse(metrics);
        assert_eq!(requests.values().sum::<u64>(), 17);
        assert_eq!((asked(&requests), writes(&requests)), (10, 7));
        let member = |result: &str| reconciles.get(&("Member".to_owned(), result.to_owned())).copied();
        assert_eq!((member("ok"), member("conflict"), reconciles.len()), (Some(4), Some(1), 2));
        assert!(leads && !Counts::parse("saatkond_leading 0\n").leads);
    }
}
