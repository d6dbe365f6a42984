//! `gateway-pair`: two gateways, signatures on, beside two nginx hops with mutual TLS; the same load, the same
//! information system, alternating.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use saatkond_testbed::{Cluster, Layout, Region, wait};
use serde_json::{Value, json};

use super::calibration::{self, Before};
use super::{Goal, Sheet, median, proc};
use saatkond_e2e::{federation, install};

/// What is measured.
pub const GOALS: &[Goal] = &[
    Goal { metric: "pair_ratio_1k", unit: "", target: Some(">= 0.25") },
    Goal { metric: "pair_ratio_1m", unit: "", target: Some(">= 0.4") },
    Goal { metric: "p50_ms_1k", unit: "ms", target: None },
    Goal { metric: "p99_ms_1k", unit: "ms", target: None },
    Goal { metric: "cpu_us_1k", unit: "us", target: None },
    Goal { metric: "p50_ms_1m", unit: "ms", target: None },
    Goal { metric: "p99_ms_1m", unit: "ms", target: None },
    Goal { metric: "cpu_us_1m", unit: "us", target: None },
    Goal { metric: "pair_ratio_1m_request", unit: "", target: None },
    Goal { metric: "p50_ms_1m_request", unit: "ms", target: None },
    Goal { metric: "p99_ms_1m_request", unit: "ms", target: None },
    Goal { metric: "cpu_us_1m_request", unit: "us", target: None },
];

const RUNS: usize = 5;
const SECONDS: u32 = 10;
const CONNECTIONS: u32 = 32;
const APP_PORT: u16 = 18080;
const FRONT_PORT: u16 = 18081;
const BACK_PORT: u16 = 18082;

/// What is exchanged.
struct Exchange {
    /// Its part of the metrics' names, and its path at the information system.
    name: &'static str,
    /// Bytes of the request's body.
    request: usize,
    /// Bytes of the answer's.
    answer: usize,
}

const EXCHANGES: [Exchange; 3] = [
    Exchange { name: "1k", request: 0, answer: 1 << 10 },
    Exchange { name: "1m", request: 0, answer: 1 << 20 },
    Exchange { name: "1m_request", request: 1 << 20, answer: 0 },
];

/// Runs it.
pub fn run(layout: &Layout, sheet: &mut Sheet) -> anyhow::Result<()> {
    let region = Region::up("home")?;
    // First: a cluster that the testbed cannot reach into has none, and is not to be touched in vain.
    let node = region.address()?.to_string();
    install::install(layout, &region)?;
    let folder = layout.root().join("target/bench/gateway-pair");
    // A run before may have been cut off; what it left is not ours to read.
    fs::remove_dir_all(&folder)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    fs::create_dir_all(&folder)?;

    let app = Nginx::start(&region, &folder, "app", &app_configuration(&folder)?, APP_PORT)?;
    certificates(&folder)?;
    let hops = [
        Nginx::start(&region, &folder, "back", &back_configuration(&folder), BACK_PORT)?,
        Nginx::start(&region, &folder, "front", &front_configuration(&folder), FRONT_PORT)?,
    ];
    federate(layout, &region, &node)?;
    let [consumer, _provider] = [pod(region.cluster(), "bench-consumer")?, pod(region.cluster(), "bench-provider")?];
    let gateways =
        [gateway_process(region.cluster(), "bench-consumer")?, gateway_process(region.cluster(), "bench-provider")?];

    let url = |name: &str| format!("http://{consumer}:8080/r1/EE/GOV/80000002/files/bytes/{name}");
    until_answered(&region, &url(EXCHANGES[0].name))?;
    for exchange in &EXCHANGES {
        let name = exchange.name;
        let ours = Load { url: url(name), script: script(&folder, exchange)? };
        let theirs = Load { url: format!("http://127.0.0.1:{FRONT_PORT}/{name}"), ..ours.clone() };
        let (mut a, mut b, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        // The first of each warms connections and caches up.
        ours.run(&region, 2)?;
        theirs.run(&region, 2)?;
        for run in 1..=RUNS {
            let before = Before::take(&layout.root().join("target/bench"))?;
            let own = measured(&region, &ours, || {
                gateways.iter().map(|pid| proc::cpu(*pid)).sum::<anyhow::Result<Duration>>()
            })?;
            let peer = measured(&region, &theirs, || hops.iter().map(Nginx::cpu).sum::<anyhow::Result<Duration>>())?;
            println!("{name} run {run} of {RUNS}: gateways {:.0}/s, nginx {:.0}/s {before}", own.rate, peer.rate);
            pairs.push(calibration::Run { value: own.rate / peer.rate, before });
            a.push(own);
            b.push(peer);
        }
        hops.iter().try_for_each(Nginx::held_in_memory)?;
        note(sheet, name, &a, &b, &pairs)?;
    }
    drop((app, hops));
    region.cluster().kubectl(&["delete", "namespace", "bench-consumer", "bench-provider", "--wait=false"])?;
    Ok(())
}

/// `pairs` are the ratios of the single runs. All of them are judged, however slow the machine was: both sides had the same one.
fn note(
    sheet: &mut Sheet,
    exchange: &str,
    ours: &[Run],
    theirs: &[Run],
    pairs: &[calibration::Run],
) -> anyhow::Result<()> {
    let middle = |runs: &[Run], of: fn(&Run) -> f64| {
        median(&runs.iter().map(of).collect::<Vec<_>>()).context("there are no runs")
    };
    let all = |runs: &[Run], of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let (rate, peer) = (middle(ours, |run| run.rate)?, middle(theirs, |run| run.rate)?);
    let details = json!({
        "peer": "two nginx hops with mutual TLS", "peer_value": peer, "own_value": rate,
        "runs": all(ours, |run| run.rate), "peer_runs": all(theirs, |run| run.rate), "value_unit": "exchanges/s",
        "pairs": calibration::told(pairs), "connections": CONNECTIONS, "seconds": SECONDS,
    });
    sheet.note(&format!("pair_ratio_{exchange}"), rate / peer, details)?;
    for (metric, of) in
        [("p50_ms", (|run: &Run| run.p50) as fn(&Run) -> f64), ("p99_ms", |run| run.p99), ("cpu_us", |run| run.cpu_us)]
    {
        let details = json!({
            "peer": "two nginx hops with mutual TLS", "peer_value": middle(theirs, of)?,
            "runs": all(ours, of), "peer_runs": all(theirs, of),
        });
        sheet.note(&format!("{metric}_{exchange}"), middle(ours, of)?, details)?;
    }
    Ok(())
}

/// One run of the load.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    rate: f64,
    p50: f64,
    p99: f64,
    requests: f64,
    cpu_us: f64,
}

fn measured(region: &Region, load: &Load, cpu: impl Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Run> {
    let before = cpu()?;
    let mut run = load.run(region, SECONDS)?;
    let used = cpu()?.saturating_sub(before);
    run.cpu_us = used.as_secs_f64() * 1e6 / run.requests;
    Ok(run)
}

/// What is called, and how.
#[derive(Debug, Clone)]
struct Load {
    url: String,
    /// What wrk sends, where it is more than a GET.
    script: Option<PathBuf>,
}

impl Load {
    fn run(&self, region: &Region, seconds: u32) -> anyhow::Result<Run> {
        let mut command = Command::new("wrk");
        command.args(["-t2", "--latency", "-HX-Road-Client: EE/GOV/80000001/load"]);
        command.args([format!("-c{CONNECTIONS}"), format!("-d{seconds}s")]);
        if let Some(script) = &self.script {
            command.arg("-s").arg(script);
        }
        let output = region.inside_network(|| command.arg(&self.url).output())?.context("failed to start wrk")?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("wrk failed: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        parse_wrk(&said).with_context(|| {
            let logs = said_by_gateways(region);
            format!("calls of {} failed, or wrk said something unknown:\n{said}{logs}", self.url)
        })
    }
}

/// That a server is Ready says that its processes are; that its Service leads to them is for the nodes, a moment later.
fn until_answered(region: &Region, url: &str) -> anyhow::Result<()> {
    let state = || said_by_gateways(region);
    wait::until("a call is answered", Duration::from_mins(1), state, || {
        let mut call = Command::new("curl");
        call.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "10"]);
        call.args(["--header", "X-Road-Client: EE/GOV/80000001/load", url]);
        let output = region.inside_network(|| call.output())?;
        Ok(output.is_ok_and(|output| output.stdout == b"200").then_some(()))
    })?;
    Ok(())
}

/// Has wrk send the exchange's request body, if it has one.
fn script(folder: &Path, exchange: &Exchange) -> anyhow::Result<Option<PathBuf>> {
    if exchange.request == 0 {
        return Ok(None);
    }
    let (script, body) =
        (folder.join(format!("{}.lua", exchange.name)), folder.join(format!("{}.body", exchange.name)));
    fs::write(&body, bytes(exchange.request))?;
    let text = format!(
        "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/octet-stream'\n\
         local file = assert(io.open('{}', 'rb'))\nwrk.body = file:read('*a')\nfile:close()\n",
        body.display()
    );
    fs::write(&script, text)?;
    Ok(Some(script))
}

/// No pattern that a compressor on the way could profit from.
fn bytes(size: usize) -> Vec<u8> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(state.to_be_bytes()[0])
    };
    (0..size).scan(0x5AA7_u32, |state, _| next(state)).collect()
}

/// The ends of both gateways' logs: why calls failed.
fn said_by_gateways(region: &Region) -> String {
    let mut all = String::new();
    for namespace in ["bench-consumer", "bench-provider"] {
        let logs = [
            "-n",
            namespace,
            "logs",
            "--tail=20",
            "--prefix",
            "--selector",
            saatkond_api::names::label::SECURITY_SERVER,
        ];
        let logs = region.cluster().kubectl(&logs);
        let _ = write!(all, "{}", logs.unwrap_or_else(|error| format!("no logs of {namespace}: {error}\n")));
    }
    all
}

/// `None` for a report that is not understood, or tells of failed requests: a benchmark of errors is none.
fn parse_wrk(said: &str) -> Option<Run> {
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return None;
    }
    let after = |label: &str| said.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    Some(Run {
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
        requests: said.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?,
        cpu_us: 0.0,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = match text {
        text if text.ends_with("us") => (&text[..text.len() - 2], 0.001),
        text if text.ends_with("ms") => (&text[..text.len() - 2], 1.0),
        text if text.ends_with('s') => (&text[..text.len() - 1], 1000.0),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Two members with a server each; the provider's service is the nginx on the node.
fn federate(layout: &Layout, region: &Region, node: &str) -> anyhow::Result<()> {
    let cluster = region.cluster();
    let anchor = layout.root().join("examples/federation/trust-anchor.yaml");
    cluster.apply(&fs::read_to_string(&anchor).with_context(|| format!("failed to read {}", anchor.display()))?)?;
    let mut yaml = String::new();
    for (namespace, code, subsystem, services) in [
        ("bench-consumer", "80000001", "load", String::new()),
        (
            "bench-provider",
            "80000002",
            "files",
            format!(
                ", services: [{{code: bytes, rest: {{url: 'http://{node}:{APP_PORT}'}}, access: [{{subject: \
                 {{memberClass: GOV, memberCode: '80000001', subsystem: load}}}}]}}]"
            ),
        ),
    ] {
        // Writing to a String cannot fail.
        let _ = write!(
            yaml,
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, annotations: {{saatkond.io/member-identities: EE/GOV/{code}}}}}\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: saatkond-member-namespace, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: saatkond-member-namespace}}\n\
             subjects: [{{kind: ServiceAccount, name: saatkond-controller, namespace: {}}}]\n\
             ---\napiVersion: saatkond.io/v1alpha1\nkind: Member\nmetadata: {{name: m, namespace: {namespace}}}\n\
             spec: {{trustAnchorRef: {{name: ee}}, memberClass: GOV, memberCode: '{code}', subsystems: [{{code: {subsystem}, connectionType: HTTP{services}}}]}}\n\
             ---\napiVersion: saatkond.io/v1alpha1\nkind: SecurityServer\nmetadata: {{name: ss1, namespace: {namespace}}}\n\
             spec: {{memberRef: {{name: m}}, serverCode: ss1, replicas: 1}}\n",
            install::NAMESPACE
        );
    }
    cluster.apply(&yaml)?;
    federation::until_ready(cluster, |_, _, _| {})?;
    Ok(())
}

fn pods(cluster: &Cluster, namespace: &str) -> anyhow::Result<Value> {
    let said =
        cluster.kubectl(&["-n", namespace, "get", "pods", "-l", "saatkond.io/security-server=ss1", "-o", "json"])?;
    let list: Value = serde_json::from_str(&said)?;
    let items = list["items"].as_array().context("no list of pods")?;
    match &items[..] {
        [pod] => Ok(pod.clone()),
        other => bail!("{} gateway pods run in {namespace}, not one", other.len()),
    }
}

fn pod(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let pod = pods(cluster, namespace)?;
    pod["status"]["podIP"].as_str().map(str::to_owned).with_context(|| format!("the pod in {namespace} has no address"))
}

/// The gateway's process of a namespace, among all of the machine: its cgroup names the pod.
fn gateway_process(cluster: &Cluster, namespace: &str) -> anyhow::Result<u32> {
    let pod = pods(cluster, namespace)?;
    let uid = pod["metadata"]["uid"].as_str().context("a pod without a UID")?;
    let found = proc::find(&["/saatkond", "gateway"])
        .into_iter()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup.contains(uid)));
    found.with_context(|| format!("no process of the gateway in {namespace} is found"))
}

/// An nginx in the region's network. Dropping it ends it.
#[derive(Debug)]
struct Nginx {
    child: Child,
    log: PathBuf,
}

impl Nginx {
    fn start(region: &Region, folder: &Path, name: &str, configuration: &str, port: u16) -> anyhow::Result<Self> {
        let place = folder.join(name);
        fs::create_dir_all(&place)?;
        let file = place.join("nginx.conf");
        fs::write(&file, configuration)?;
        let log = place.join("error.log");
        let spawned = region.inside_network(|| {
            Command::new("nginx")
                .arg("-p")
                .arg(&place)
                .arg("-c")
                .arg(&file)
                .arg("-e")
                .arg(&log)
                .stdin(Stdio::null())
                .spawn()
        })?;
        let mut nginx = Self { child: spawned.context("failed to start nginx")?, log };
        wait::until(
            &format!("nginx {name} listens"),
            Duration::from_secs(10),
            || fs::read_to_string(&nginx.log).unwrap_or_default(),
            || Ok(region.inside_network(|| TcpStream::connect(("127.0.0.1", port)).is_ok())?.then_some(())),
        )?;
        // One that an earlier run has left would answer on that port in its place, and nobody would see what it does.
        if let Some(status) = nginx.child.try_wait()? {
            let said = fs::read_to_string(&nginx.log).unwrap_or_default();
            bail!("nginx {name} has ended ({status}), and something else answers on port {port}:\n{said}");
        }
        Ok(nginx)
    }

    /// CPU time of the master and its workers.
    fn cpu(&self) -> anyhow::Result<Duration> {
        let master = self.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).context("nginx is gone")?;
        let workers = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        workers.chain([master]).map(proc::cpu).sum()
    }

    /// Fails if a message went by way of a file: the gateways would be compared with a disk.
    fn held_in_memory(&self) -> anyhow::Result<()> {
        let said = fs::read_to_string(&self.log).with_context(|| format!("failed to read {}", self.log.display()))?;
        match spilled(&said) {
            None => Ok(()),
            Some(line) => bail!("nginx wrote a message to a file: {line}"),
        }
    }
}

/// The first line of nginx's log that tells of a message in a file.
fn spilled(log: &str) -> Option<&str> {
    log.lines().find(|line| line.contains("buffered to a temporary file"))
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // QUIT would wait for connections; TERM lets the master end its workers, a kill of the master would not.
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// What all three have in common: no files outside of their folder, no log of requests, connections that stay. `-e` alone would log
/// errors and no warnings.
fn base(folder: &Path, name: &str, http: &str) -> String {
    let place = folder.join(name);
    let place = place.display();
    format!(
        "daemon off;\nworker_processes auto;\npid {place}/pid;\nuser root;\nerror_log {place}/error.log warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000;\n\
         client_body_temp_path {place}/b;\n  proxy_temp_path {place}/p;\n  fastcgi_temp_path {place}/f;\n\
         uwsgi_temp_path {place}/u;\n  scgi_temp_path {place}/s;\n{http}\n}}\n"
    )
}

fn app_configuration(folder: &Path) -> anyhow::Result<String> {
    let files = folder.join("files");
    fs::create_dir_all(&files)?;
    for Exchange { name, answer, .. } in &EXCHANGES {
        fs::write(files.join(name), bytes(*answer))?;
    }
    // nginx answers a POST of a file with 405, and `return` without having read the body: so it passes on the head alone, having
    // taken the body in.
    let server = format!(
        "  server {{ listen 0.0.0.0:{APP_PORT}; root {files}; default_type application/octet-stream; {BODY}\n\
         if ($request_method = POST) {{ rewrite ^ /taken; }}\n\
         location = /taken {{ internal; proxy_method GET; proxy_pass_request_body off; proxy_set_header Content-Length ''; \
         proxy_pass http://unix:{place}/empty.sock:/; }} }}\n\
         server {{ listen unix:{place}/empty.sock; return 200; }}",
        files = files.display(),
        place = folder.join("app").display(),
    );
    Ok(base(folder, "app", &server))
}

fn tls_paths(folder: &Path) -> BTreeMap<&'static str, PathBuf> {
    ["ca.crt", "ca.key", "leaf.crt", "leaf.key"].into_iter().map(|name| (name, folder.join(name))).collect()
}

/// The largest request body is held in memory: nginx writes what does not fit to a file.
const BODY: &str = "client_max_body_size 2m; client_body_buffer_size 1100k;";

/// What both hops have in common: connections that stay, and memory for the largest answer beside its head, with no file to fall back
/// on. What is on its way to the client may be all of it.
const HOP: &str = "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0; \
                   proxy_buffer_size 16k; proxy_buffers 80 16k; proxy_busy_buffers_size 1m;";

fn back_configuration(folder: &Path) -> String {
    let tls = tls_paths(folder);
    let server = format!(
        "  upstream app {{ server 127.0.0.1:{APP_PORT}; keepalive 64; }}\n\
         server {{ listen 127.0.0.1:{BACK_PORT} ssl; ssl_protocols TLSv1.3; ssl_certificate {leaf}; ssl_certificate_key {key}; \
         ssl_client_certificate {ca}; ssl_verify_client on; {HOP} {BODY} \
         location / {{ proxy_pass http://app; }} }}",
        leaf = tls["leaf.crt"].display(),
        key = tls["leaf.key"].display(),
        ca = tls["ca.crt"].display(),
    );
    base(folder, "back", &server)
}

fn front_configuration(folder: &Path) -> String {
    let tls = tls_paths(folder);
    let server = format!(
        "  upstream back {{ server 127.0.0.1:{BACK_PORT}; keepalive 64; }}\n\
         server {{ listen 127.0.0.1:{FRONT_PORT}; {HOP} {BODY} \
         proxy_ssl_protocols TLSv1.3; proxy_ssl_certificate {leaf}; proxy_ssl_certificate_key {key}; \
         proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name hop; \
         location / {{ proxy_pass https://back; }} }}",
        leaf = tls["leaf.crt"].display(),
        key = tls["leaf.key"].display(),
        ca = tls["ca.crt"].display(),
    );
    base(folder, "front", &server)
}

/// A CA and one leaf for both ends, ECDSA P-256 as the gateways' own.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    let openssl = |arguments: &[&str]| -> anyhow::Result<()> {
        let output =
            Command::new("openssl").args(arguments).current_dir(folder).output().context("failed to start openssl")?;
        if !output.status.success() {
            bail!("openssl {} failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    };
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    openssl(
        &[&new[..], &["-x509", "-days", "2", "-subj", "/CN=bench", "-keyout", "ca.key", "-out", "ca.crt"]].concat(),
    )?;
    openssl(
        &[
            &new[..],
            &["-subj", "/CN=hop", "-addext", "subjectAltName=DNS:hop", "-keyout", "leaf.key", "-out", "leaf.csr"],
        ]
        .concat(),
    )?;
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "leaf.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-copy_extensions",
        "copy",
        "-out",
        "leaf.crt",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 10s test @ http://x\n  2 threads and 32 connections\n  Thread Stats   Avg  Stdev  Max  +/- Stdev\n    \
        Latency  1.00ms  2.00ms 50.00ms 90.00%\n  Latency Distribution\n     50%  850.00us\n     75%    1.20ms\n     90%    2.00ms\n     \
        99%    1.50s\n  12345 requests in 10.00s, 1.00MB read\nRequests/sec:   1234.50\nTransfer/sec:      1.00MB\n";

    #[test]
    fn a_report_is_read() {
        let run = parse_wrk(REPORT).unwrap();
        assert_eq!((run.rate, run.p50, run.p99, run.requests), (1234.5, 0.85, 1500.0, 12345.0));
    }

    #[test]
    fn a_message_in_a_file_is_seen() {
        let line = "2026/11/22 10:00:00 [warn] 7#7: *3 an upstream response is buffered to a temporary file /p/1/00/0000000001 while \
                    reading upstream, client: 127.0.0.1, server: , request: \"GET /1m HTTP/1.1\"";
        let start = "2026/11/22 10:00:00 [warn] 7#7: something else\n";
        assert_eq!(spilled(&format!("{start}{line}\n")), Some(line));
        assert_eq!(spilled(start), None);
    }

    #[test]
    fn failed_requests_are_no_result() {
        assert_eq!(parse_wrk(&format!("{REPORT}  Non-2xx or 3xx responses: 1\n")), None);
        assert_eq!(parse_wrk(&format!("{REPORT}  Socket errors: connect 0, read 1, write 0, timeout 0\n")), None);
        assert_eq!(parse_wrk(""), None);
    }
}
