//! Process 1 of a region: makes its mounts and its network, starts the components and keeps them running.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::symlink, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::Signal,
        stat::Mode,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{REGION_TOOLS, RegionConfig, no_region};
use crate::{
    Layout, Result,
    error::Doing as _,
    layout::{read_json, tail},
    process::{run as run_command, run_with_input},
    wait,
};

/// Inside, everything has the same short path in every region, wherever the checkout is.
pub(super) const BIN: &str = "/run/saatkond/bin";
pub(super) const REGION: &str = "/run/saatkond/region";
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";
pub(super) const PATH: &str = "/run/saatkond/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const IMAGES: &str = "/run/saatkond/images";
const VOLUMES: &str = "/var/lib/saatkond/volumes";
const BOUND: Duration = Duration::from_mins(2);

/// Runs until it is killed. Started by the keeper.
pub fn run(name: &str) -> Result<()> {
    // The keeper's death is ours. If it died before this line, the pipe below has an end.
    prctl::set_pdeathsig(Signal::SIGKILL).doing(|| "set the parent death signal".to_owned())?;
    let layout = Layout::find();
    let folder = layout.regions().join(name);
    let config: RegionConfig =
        read_json(&folder.join("region.json"))?.ok_or_else(|| no_region(name, "is not configured"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).doing(|| "make namespaces".to_owned())?;
    make_mounts(&layout, &folder)?;

    println!("ready");
    std::io::stdout().flush().doing(|| "tell the keeper".to_owned())?;
    let mut answer = [0; 3];
    std::io::stdin().read_exact(&mut answer).doing(|| "hear from the keeper".to_owned())?;

    make_network(&config)?;
    let mut components = Components::default();
    components.start("etcd", etcd_flags())?;
    components.start("containerd", vec!["--config".into(), format!("{REGION}/config/containerd.toml")])?;
    components.start("kube-apiserver", api_server_flags(&config))?;
    wait::until("containerd listens", BOUND, || log("containerd"), || Ok(UnixStream::connect(CONTAINERD).ok()))?;
    for image in ["pause", "coredns"] {
        let archive = format!("{IMAGES}/{image}.tar");
        let mut import = Command::new(format!("{BIN}/ctr"));
        run_command(import.env("PATH", PATH).args([
            "--address",
            CONTAINERD,
            "--namespace",
            "k8s.io",
            "images",
            "import",
            &archive,
        ]))?;
    }
    components.start("kubelet", kubelet_flags(&config))?;
    let address = (config.address(), 6443);
    wait::until(
        "the API server listens",
        BOUND,
        || log("kube-apiserver"),
        || {
            components.look_after()?;
            Ok(TcpStream::connect(address).ok())
        },
    )?;
    components.start("kube-controller-manager", controller_flags(&config))?;
    components.start("kube-scheduler", vec![flag("kubeconfig", &conf("scheduler")), flag("leader-elect", "false")])?;
    components.start("kube-proxy", vec![flag("config", &format!("{REGION}/config/kube-proxy.yaml"))])?;
    components.start(
        "region-controller",
        vec![
            flag("kubeconfig", &conf("region-controller")),
            flag("node-address", &config.address().to_string()),
            flag("volumes", VOLUMES),
        ],
    )?;
    loop {
        components.look_after()?;
        wait::long_pause();
    }
}

/// What runs in the region. A component that ends is started again: some give up when another is slow.
#[derive(Default)]
struct Components(Vec<Component>);

struct Component {
    name: &'static str,
    flags: Vec<String>,
    pid: Option<Pid>,
    started: Instant,
}

impl Components {
    fn start(&mut self, name: &'static str, flags: Vec<String>) -> Result<()> {
        let mut component = Component { name, flags, pid: None, started: Instant::now() };
        component.start()?;
        self.0.push(component);
        Ok(())
    }

    /// Collects every process that ended, ours and orphans alike, and starts components again.
    fn look_after(&mut self) -> Result<()> {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(status) => {
                    for component in self.0.iter_mut().filter(|component| component.pid == status.pid()) {
                        eprintln!("{} ended: {status:?}", component.name);
                        component.pid = None;
                    }
                }
                Err(errno) => return Err(errno).doing(|| "wait for processes".to_owned()),
            }
        }
        for component in &mut self.0 {
            if component.pid.is_none() && component.started.elapsed() > Duration::from_secs(1) {
                component.start()?;
            }
        }
        Ok(())
    }
}

impl Component {
    fn start(&mut self) -> Result<()> {
        let path = log_path(self.name);
        let log = File::options().create(true).append(true).open(&path).doing(|| format!("open {}", path.display()))?;
        let err = log.try_clone().doing(|| format!("open {}", path.display()))?;
        let mut command = Command::new(format!("{BIN}/{}", self.name));
        command.args(&self.flags).env_clear().env("PATH", PATH).env("HOME", "/run").current_dir("/");
        // Says whose it is, for who counts what is left.
        command.envs(std::env::var_os("SAATKOND_ROOT").map(|root| ("SAATKOND_ROOT", root)));
        command.stdin(Stdio::null()).stdout(log).stderr(err);
        let child = command.spawn().doing(|| format!("start {}", self.name))?;
        self.started = Instant::now();
        self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        Ok(())
    }
}

fn log(name: &str) -> String {
    tail(&log_path(name), 20)
}

fn log_path(name: &str) -> PathBuf {
    Path::new(REGION).join("logs").join(format!("{name}.log"))
}

/// Gives the region a /run and a /var of its own, so that nothing on the host is written or left behind, with the
/// region's folder and the tools in fixed places.
fn make_mounts(layout: &Layout, folder: &Path) -> Result<()> {
    // Nothing of ours reaches the host; what pods ask to share is shared among us.
    remount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    remount("/", MsFlags::MS_REC | MsFlags::MS_SHARED)?;
    mount_new("proc", "/proc", "")?;

    // Opened before /run and /var are covered, as any of these may lie below them.
    let mut binds: Vec<(OwnedFd, String)> = Vec::new();
    for tool in REGION_TOOLS {
        binds.push((open_path(&layout.tool(tool)?)?, format!("{BIN}/{tool}")));
    }
    for image in ["pause.tar", "coredns.tar"] {
        binds.push((open_path(&layout.image(image)?)?, format!("{IMAGES}/{image}")));
    }
    let mut folders = vec![(open_path(folder)?, REGION.to_owned())];
    for (inside, outside) in [
        ("/var/lib/kubelet", "kubelet"),
        ("/var/lib/containerd", "containerd"),
        ("/var/lib/etcd", "etcd"),
        (VOLUMES, "volumes"),
    ] {
        let path = folder.join(outside);
        fs::create_dir_all(&path).doing(|| format!("create {}", path.display()))?;
        folders.push((open_path(&path)?, inside.to_owned()));
    }

    for covered in ["/run", "/var"] {
        mount_new("tmpfs", covered, "mode=0755")?;
    }
    for path in ["/var/tmp", "/var/log", "/run/lock"] {
        fs::create_dir_all(path).doing(|| format!("create {path}"))?;
    }
    symlink("/run", "/var/run").doing(|| "link /var/run".to_owned())?;
    for (fd, inside) in folders {
        fs::create_dir_all(&inside).doing(|| format!("create {inside}"))?;
        bind(&fd, &inside)?;
    }
    for (fd, inside) in binds {
        let path = Path::new(&inside);
        fs::create_dir_all(path.parent().unwrap_or(path)).doing(|| format!("create the folder of {inside}"))?;
        if path.ends_with("runc") {
            // runc seals itself by an overlay of the folder it is in, which shows what is below a bind.
            fs::copy(format!("/proc/self/fd/{}", fd.as_raw_fd()), path).doing(|| format!("copy {inside}"))?;
            continue;
        }
        File::create(path).doing(|| format!("create {inside}"))?;
        bind(&fd, &inside)?;
    }
    fs::write("/run/saatkond/resolv.conf", "").doing(|| "write resolv.conf".to_owned())?;

    // Kubelet insists on setting these, and they are the whole machine's: it gets files to write to instead.
    for (name, value) in [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ] {
        let real = format!("/proc/sys/{name}");
        let ours = format!("/run/saatkond/{}", name.replace('/', "."));
        fs::write(&ours, value).doing(|| format!("write {ours}"))?;
        if Path::new(&real).exists() {
            bind(&open_path(Path::new(&ours))?, &real)?;
        }
    }
    Ok(())
}

fn open_path(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).doing(|| format!("open {}", path.display()))
}

fn remount(target: &str, how: MsFlags) -> Result<()> {
    mount(None::<&str>, target, None::<&str>, how, None::<&str>).doing(|| format!("change the mount of {target}"))
}

fn mount_new(kind: &str, target: &str, options: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options)).doing(|| format!("mount {kind} on {target}"))
}

fn bind(source: &OwnedFd, target: &str) -> Result<()> {
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing(|| format!("bind {target}"))
}

fn make_network(config: &RegionConfig) -> Result<()> {
    let address = config.address();
    for line in [
        "link set dev lo up".to_owned(),
        format!("address add {address}/24 dev eth0"),
        "link set dev eth0 up".to_owned(),
        // Nothing answers there. But an address needs a route before it can be translated, and Service addresses
        // have no other.
        format!("route add default via {}", config.network.host()),
    ] {
        run_command(Command::new("ip").args(line.split(' ')))?;
    }
    for (name, value) in [
        ("ip_forward", "1"),
        ("conf/all/rp_filter", "0"),
        ("conf/default/rp_filter", "0"),
        ("ping_group_range", "0 2147483647"),
    ] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value).doing(|| format!("write {path}"))?;
    }
    // Other regions know nodes, not pods. `snat`, not `masquerade`: the latter forgets its connections when a device
    // goes, and delays between regions come and go with devices.
    let rules = format!(
        "table ip saatkond-region {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat;\n  \
         ip saddr {pods} ip daddr != {pods} snat to {address}\n }}\n}}\n",
        pods = config.pods()
    );
    run_with_input(Command::new("nft").args(["-f", "-"]), &rules)?;
    Ok(())
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={value}")
}

fn conf(name: &str) -> String {
    format!("{REGION}/pki/{name}.kubeconfig")
}

fn pki(name: &str) -> String {
    format!("{REGION}/pki/{name}")
}

fn etcd_flags() -> Vec<String> {
    ["--data-dir=/var/lib/etcd/data", "--unsafe-no-fsync=true", "--log-level=warn"].map(str::to_owned).to_vec()
}

fn api_server_flags(config: &RegionConfig) -> Vec<String> {
    vec![
        flag("etcd-servers", "http://127.0.0.1:2379"),
        flag("secure-port", "6443"),
        flag("advertise-address", &config.address().to_string()),
        flag("tls-cert-file", &pki("api-server.crt")),
        flag("tls-private-key-file", &pki("api-server.key")),
        flag("client-ca-file", &pki("ca.crt")),
        flag("kubelet-certificate-authority", &pki("ca.crt")),
        flag("kubelet-client-certificate", &pki("kubelet-client.crt")),
        flag("kubelet-client-key", &pki("kubelet-client.key")),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-account-key-file", &pki("service-accounts.pub")),
        flag("service-account-signing-key-file", &pki("service-accounts.key")),
        flag("service-cluster-ip-range", &config.services()),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("allow-privileged", "true"),
    ]
}

fn controller_flags(config: &RegionConfig) -> Vec<String> {
    vec![
        flag("kubeconfig", &conf("controller-manager")),
        flag("service-account-private-key-file", &pki("service-accounts.key")),
        flag("root-ca-file", &pki("ca.crt")),
        flag("cluster-signing-cert-file", &pki("ca.crt")),
        flag("cluster-signing-key-file", &pki("ca.key")),
        flag("service-cluster-ip-range", &config.services()),
        flag("use-service-account-credentials", "true"),
        flag("leader-elect", "false"),
    ]
}

fn kubelet_flags(config: &RegionConfig) -> Vec<String> {
    vec![
        flag("config", &format!("{REGION}/config/kubelet.yaml")),
        flag("kubeconfig", &conf("kubelet")),
        flag("hostname-override", &config.name),
        flag("node-ip", &config.address().to_string()),
        flag("root-dir", "/var/lib/kubelet"),
    ]
}
