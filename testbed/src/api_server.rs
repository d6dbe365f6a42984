//! The API-server tier: etcd and kube-apiserver alone, for tests that need no pod to run.
//!
//! A *supervisor* process holds the servers. Users hold a shared lock on a file; the supervisor ends once nobody
//! holds it any more. The kernel gives the lock back however a user ends, so a test that is killed leaves nothing
//! behind, and the servers end with the supervisor for the same reason.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Error, Layout, Result,
    credentials::Authority,
    error::Doing as _,
    image::sha256_hex,
    layout::{lock_file, read_json, remove_folder, tail, write_json},
    process::{ProcessId, start_detached, tied_command},
    wait,
};

/// How long servers may take. Far above the usual three seconds: a build may have both cores.
const READY_BOUND: Duration = Duration::from_secs(90);

/// What to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiServerOptions {
    /// Also start kube-controller-manager with the controllers that make deleting real: namespaces, garbage
    /// collection, default service accounts, the root CA ConfigMap, aggregated roles, admission policy status.
    pub with_controllers: bool,
    /// Further flags of kube-apiserver.
    pub api_server_flags: Vec<String>,
}

impl ApiServerOptions {
    /// With controllers.
    pub fn with_controllers() -> Self {
        Self { with_controllers: true, ..Self::default() }
    }
}

/// A running API server. Dropping it gives it back: one of its own ends, a shared one when its last user is gone.
#[derive(Debug)]
pub struct ApiServer {
    cluster: Cluster,
    folder: PathBuf,
    own: bool,
    /// The lock on this file is what keeps the servers running.
    users: Option<File>,
}

impl ApiServer {
    /// Starts one that nobody else uses.
    pub fn start(options: &ApiServerOptions) -> Result<Self> {
        Self::start_in(&Layout::find(), options)
    }

    /// [`start`](Self::start) for another checkout.
    pub fn start_in(layout: &Layout, options: &ApiServerOptions) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("own-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self::obtain(layout, layout.api().join(name), options, Duration::ZERO, true)
    }

    /// The one that all tests of a run share, also those of other processes. The first to ask starts it; it ends
    /// [`LINGER`](Self::LINGER) after its last user. Tests must keep apart by namespaces and names of their own.
    pub fn shared(options: &ApiServerOptions) -> Result<Self> {
        Self::shared_in(&Layout::find(), options)
    }

    /// [`shared`](Self::shared) for another checkout.
    pub fn shared_in(layout: &Layout, options: &ApiServerOptions) -> Result<Self> {
        let name = format!("shared-{}", &sha256_hex(format!("{options:?}").as_bytes())[..8]);
        Self::obtain(layout, layout.api().join(name), options, Self::LINGER, false)
    }

    /// How long a shared server stays without users: test programs of one run follow each other closely.
    pub const LINGER: Duration = Duration::from_secs(20);

    fn obtain(
        layout: &Layout,
        folder: PathBuf,
        options: &ApiServerOptions,
        linger: Duration,
        own: bool,
    ) -> Result<Self> {
        for tool in ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"] {
            layout.tool(tool)?;
        }
        let started = Instant::now();
        let users = lock_file(&folder.with_extension("users"))?;
        users.lock_shared().doing(|| format!("lock {}", folder.display()))?;
        // One starter at a time; the others then find what it started.
        let starting = lock_file(&folder.with_extension("starting"))?;
        starting.lock().doing(|| format!("lock {}", folder.display()))?;
        let running = read_json::<Running>(&folder.join(RUNNING))?.filter(Running::alive);
        if running.is_none() {
            start_supervisor(layout, &folder, options, linger)?;
        }
        let cluster = Cluster::new(layout, folder.join("admin.kubeconfig"))?;
        let this = Self { cluster, folder, own, users: Some(users) };
        if running.is_none() {
            this.until_ready()?;
            eprintln!("testbed: API server ready in {:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(this)
    }

    fn until_ready(&self) -> Result<()> {
        wait::until(
            "the API server is ready",
            READY_BOUND,
            || self.logs(),
            || {
                let running: Option<Running> = read_json(&self.folder.join(RUNNING))?;
                let Some(running) = running else { return Ok(None) };
                if !running.alive() {
                    return Err(Error::Io {
                        what: format!("the API server ended while it started\n{}", self.logs()),
                        source: std::io::Error::other("see the logs above"),
                    });
                }
                // Cheaper than a whole kubectl, which then is asked only a few times.
                if TcpStream::connect_timeout(&running.address, Duration::from_millis(200)).is_err() {
                    return Ok(None);
                }
                if self.cluster.ready() {
                    return Ok(Some(()));
                }
                wait::long_pause();
                Ok(None)
            },
        )
    }

    /// The API.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        self.cluster.kubeconfig()
    }

    /// The ends of the logs, for a failing test to print.
    pub fn logs(&self) -> String {
        ["supervisor", "etcd", "kube-apiserver", "kube-controller-manager"]
            .map(|name| self.folder.join(format!("{name}.log")))
            .iter()
            .filter(|path| path.exists())
            .map(|path| tail(path, 15))
            .collect()
    }

    /// The processes behind it, for tests that count or kill them.
    pub fn processes(&self) -> Result<Vec<ProcessId>> {
        let running: Option<Running> = read_json(&self.folder.join(RUNNING))?;
        Ok(running.map(|running| running.all().collect()).unwrap_or_default())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.users = None;
        if self.own {
            let _ = end(&self.folder); // the supervisor would notice by itself, a moment later
        }
    }
}

/// Ends every API server of this checkout, in use or not, and removes what they left.
pub fn api_down(layout: &Layout) -> Result<()> {
    let Ok(entries) = fs::read_dir(layout.api()) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        end(&entry.path())?;
    }
    remove_folder(&layout.api())
}

fn end(folder: &Path) -> Result<()> {
    if let Some(running) = read_json::<Running>(&folder.join(RUNNING))? {
        // The supervisor first, or it would report the others' end as a failure.
        for process in running.all() {
            process.end()?;
        }
    }
    remove_folder(folder)?;
    for extension in ["users", "starting"] {
        let _ = fs::remove_file(folder.with_extension(extension));
    }
    Ok(())
}

const RUNNING: &str = "running.json";

/// What the supervisor says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Running {
    supervisor: ProcessId,
    servers: Vec<ProcessId>,
    address: SocketAddr,
}

impl Running {
    fn alive(&self) -> bool {
        self.supervisor.alive()
    }

    fn all(&self) -> impl Iterator<Item = ProcessId> + '_ {
        std::iter::once(self.supervisor).chain(self.servers.iter().copied())
    }
}

fn start_supervisor(layout: &Layout, folder: &Path, options: &ApiServerOptions, linger: Duration) -> Result<()> {
    // What an earlier one left when it was killed.
    if let Some(running) = read_json::<Running>(&folder.join(RUNNING))? {
        for process in running.all() {
            process.end()?;
        }
    }
    remove_folder(folder)?;
    write_json(&folder.join("options.json"), options)?;
    let folder_text = folder.display().to_string();
    let linger = linger.as_secs().to_string();
    start_detached(layout, &["api-supervisor", &folder_text, "--linger", &linger], &folder.join("supervisor.log"))
}

/// The supervisor: starts the servers and ends when they do or when nobody has used them for `linger`.
pub fn supervise(folder: &Path, linger: Duration) -> Result<()> {
    let layout = Layout::find();
    let me = ProcessId::me().ok_or_else(|| Error::Preflight("there is no /proc".to_owned()))?;
    let options: ApiServerOptions = read_json(&folder.join("options.json"))?.unwrap_or_default();
    // Ports are free when they are asked for and may be taken a moment later; then a server ends, and so do we.
    let [etcd, etcd_peer, api] = free_ports()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, api));
    let mut running = Running { supervisor: me, servers: Vec::new(), address };
    write_json(&folder.join(RUNNING), &running)?;

    let authority = Authority::create(folder)?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    authority.server("api-server", &names, &[address.ip(), Ipv4Addr::new(10, 96, 0, 1).into()])?;
    let url = format!("https://{address}");
    authority.kubeconfig(&folder.join("admin.kubeconfig"), &url, "admin", &["system:masters"])?;

    let mut servers = Vec::new();
    let mut start = |name: &str, flags: Vec<String>| -> Result<()> {
        let log = File::create(folder.join(format!("{name}.log"))).doing(|| format!("create the log of {name}"))?;
        let err = log.try_clone().doing(|| format!("open the log of {name}"))?;
        let mut command: Command = tied_command(&layout, &layout.tool(name)?)?;
        // Memory for time: at Go's default an eighth of the API server's time goes into collecting garbage.
        command.env("GOGC", "300");
        let child = command.args(flags).stdout(log).stderr(err).stdin(Stdio::null()).spawn();
        let child = child.doing(|| format!("start {name}"))?;
        running.servers.extend(ProcessId::of(child.id()));
        write_json(&folder.join(RUNNING), &running)?;
        servers.push((name.to_owned(), child));
        Ok(())
    };
    start("etcd", etcd_flags(&folder.join("etcd"), etcd, etcd_peer))?;
    start("kube-apiserver", api_server_flags(folder, etcd, api, &options))?;
    if options.with_controllers {
        authority.kubeconfig(&folder.join("controllers.kubeconfig"), &url, "system:kube-controller-manager", &[])?;
        // It gives up when the API server takes longer than ten seconds, so it is not started before that listens.
        wait::until(
            "the API server listens",
            READY_BOUND,
            || tail(&folder.join("kube-apiserver.log"), 20),
            || Ok(TcpStream::connect(address).ok()),
        )?;
        start("kube-controller-manager", controller_flags(folder))?;
    }
    until_unused(folder, linger, &mut servers)
}

fn until_unused(folder: &Path, linger: Duration, servers: &mut [(String, Child)]) -> Result<()> {
    let users = lock_file(&folder.with_extension("users"))?;
    let mut idle_since: Option<Instant> = None;
    loop {
        for (name, child) in servers.iter_mut() {
            if let Some(status) = child.try_wait().doing(|| format!("look at {name}"))? {
                eprintln!("{name} ended: {status}");
                // Ending here ends the others; the folder stays for who looks for the reason.
                return Ok(());
            }
        }
        if !folder.exists() {
            return Ok(()); // removed under us: nobody can find these servers any more
        }
        if users.try_lock().is_ok() {
            if idle_since.get_or_insert_with(Instant::now).elapsed() >= linger {
                // With the lock held, a new user waits until all is gone, and then starts anew.
                for (name, child) in servers.iter_mut().rev() {
                    child.kill().and_then(|()| child.wait()).doing(|| format!("end {name}"))?;
                }
                return remove_folder(folder);
            }
            users.unlock().doing(|| "unlock".to_owned())?;
        } else {
            idle_since = None;
        }
        wait::long_pause();
    }
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let what = || "find a free port".to_owned();
    // All are held until all are known, so that no two are the same.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(what)?;
        *port = listener.local_addr().doing(what)?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn flags(list: &[(&str, String)]) -> Vec<String> {
    list.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn etcd_flags(data: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    flags(&[
        ("data-dir", data.display().to_string()),
        ("listen-client-urls", client.clone()),
        ("advertise-client-urls", client),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("default={peer}")),
        ("unsafe-no-fsync", "true".to_owned()), // nothing here has to survive a power cut
        ("log-level", "warn".to_owned()),
    ])
}

fn api_server_flags(folder: &Path, etcd: u16, port: u16, options: &ApiServerOptions) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut list = flags(&[
        ("etcd-servers", format!("http://127.0.0.1:{etcd}")),
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()), // a loopback address may not be an endpoint
        ("secure-port", port.to_string()),
        ("tls-cert-file", file("api-server.crt")),
        ("tls-private-key-file", file("api-server.key")),
        ("client-ca-file", file("ca.crt")),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", file("service-accounts.pub")),
        ("service-account-signing-key-file", file("service-accounts.key")),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        ("allow-privileged", "true".to_owned()),
    ]);
    if !options.with_controllers {
        // Without the controller that makes each namespace's default account, no pod could be created.
        list.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    list.extend(options.api_server_flags.iter().cloned());
    list
}

fn controller_flags(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let controllers = [
        "namespace-controller",
        "garbage-collector-controller",
        "serviceaccount-controller",
        "root-ca-certificate-publisher-controller",
        "clusterrole-aggregation-controller",
        "validatingadmissionpolicy-status-controller",
    ];
    flags(&[
        ("kubeconfig", file("controllers.kubeconfig")),
        ("controllers", controllers.join(",")),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", file("service-accounts.key")),
        ("root-ca-file", file("ca.crt")),
        ("leader-elect", "false".to_owned()),
        ("secure-port", "0".to_owned()),
        // New kinds are found within this time at most; the default of 30 s would be a test's whole time.
        ("concurrent-gc-syncs", "5".to_owned()),
    ])
}
