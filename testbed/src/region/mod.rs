//! Regions: each a one-node Kubernetes in namespaces of its own, on one bridge with the others.
//!
//! Three processes are worth knowing. The *caller* writes the configuration and waits. The *keeper* (a `testbed`
//! process of its own session) outlives the caller, connects the region to the bridge and starts the *init*, which
//! is process 1 of a new PID namespace with its own mounts and network, and starts all components in there. When
//! init ends, however it ends, the kernel ends everything in its PID namespace, and with the last process go mounts
//! and network. So a region is down when two recorded processes, its cgroups and its folder are gone.

pub(crate) mod cgroup;
mod config;
pub(crate) mod external;
mod init;
mod keeper;
mod network;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

pub use external::{KUBECONFIGS, LOADING};
pub use init::run as run_init;
pub use keeper::run as run_keeper;

use crate::{
    Cluster, Error, Layout, Result,
    error::Doing as _,
    faults,
    layout::{lock_file, read_json, remove_folder, tail, write_json},
    preflight::preflight,
    process::{ProcessId, run, start_detached},
    wait,
};

/// The regions of `make regions`.
pub const DEFAULT_REGIONS: [&str; 3] = ["home", "lux", "fin"];

/// Programs of `target/tools/bin` that run inside a region.
pub(crate) const REGION_TOOLS: [&str; 13] = [
    "containerd",
    "containerd-shim-runc-v2",
    "coredns",
    "ctr",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "region-controller",
    "runc",
];

/// How long a region may take. Far above the usual ten seconds: a build may have all cores.
const READY_BOUND: Duration = Duration::from_mins(4);

/// What a region is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RegionConfig {
    pub(crate) name: String,
    /// Distinguishes it from the others of this checkout.
    pub(crate) index: u8,
    pub(crate) network: network::Network,
    pub(crate) cgroup: String,
}

impl RegionConfig {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.network.node(self.index)
    }

    pub(crate) fn pods(&self) -> String {
        format!("10.{}.0.0/16", 100 + self.index)
    }

    pub(crate) fn services(&self) -> String {
        format!("10.{}.0.0/16", 150 + self.index)
    }

    pub(crate) fn service(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 150 + self.index, 0, number)
    }

    /// The host's end of the cable.
    pub(crate) fn cable(&self) -> String {
        format!("{}v{}", self.network.bridge, self.index)
    }
}

/// What the keeper says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) keeper: ProcessId,
    pub(crate) init: Option<ProcessId>,
}

/// A region that is up.
#[derive(Debug, Clone)]
pub struct Region {
    layout: Layout,
    name: String,
    cluster: Cluster,
    /// None for a cluster that existed already.
    config: Option<RegionConfig>,
}

impl Region {
    /// Starts the region, or finds it running, and waits until pods, DNS and volumes work in it. It stays up when
    /// this process ends; [`Region::down`] ends it. Where [`KUBECONFIGS`] is set, the cluster that it names is taken as
    /// it is, once it answers.
    pub fn up(name: &str) -> Result<Self> {
        Self::up_in(&Layout::find(), name)
    }

    /// [`up`](Self::up) for another checkout.
    pub fn up_in(layout: &Layout, name: &str) -> Result<Self> {
        check_name(name)?;
        if let Some(clusters) = external::named()? {
            return Self::of_external(layout, name, &clusters);
        }
        preflight(layout)?;
        let started = Instant::now();
        let folder = layout.regions().join(name);
        // One at a time per region; different regions start side by side.
        let lock = lock_file(&layout.regions().join(format!(".{name}.lock")))?;
        lock.lock().doing(|| format!("lock region {name}"))?;
        let running = kept(&folder)?.is_some_and(|kept| kept.keeper.alive() && kept.init.is_some_and(ProcessId::alive));
        if !running {
            down_locked(layout, name)?; // what a crash left
            let config = configure(layout, name)?;
            config::write(&folder, &config)?;
            start_detached(layout, &["region-keeper", name], &folder.join("logs/keeper.log"))?;
        }
        let region = Self::open(layout, name)?;
        region.until_ready()?;
        if !running {
            eprintln!("testbed: region {name} ready in {:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(region)
    }

    /// Starts several side by side.
    pub fn up_all(names: &[&str]) -> Result<Vec<Self>> {
        Self::up_all_in(&Layout::find(), names)
    }

    /// [`up_all`](Self::up_all) for another checkout.
    pub fn up_all_in(layout: &Layout, names: &[&str]) -> Result<Vec<Self>> {
        thread::scope(|scope| {
            let starting: Vec<_> = names.iter().map(|name| scope.spawn(|| Self::up_in(layout, name))).collect();
            starting
                .into_iter()
                .zip(names)
                .map(|(thread, name)| thread.join().unwrap_or_else(|_| Err(no_region(name, "starting it panicked"))))
                .collect()
        })
    }

    /// The region of that name, which must be up.
    pub fn open(layout: &Layout, name: &str) -> Result<Self> {
        if let Some(clusters) = external::named()? {
            return Self::of_external(layout, name, &clusters);
        }
        let folder = layout.regions().join(name);
        let config: RegionConfig = read_json(&folder.join("region.json"))?
            .ok_or_else(|| no_region(name, "is not up; `testbed up` starts it"))?;
        let cluster = Cluster::new(layout, folder.join("kubeconfig"))?;
        Ok(Self { layout: layout.clone(), name: name.to_owned(), cluster, config: Some(config) })
    }

    fn of_external(layout: &Layout, name: &str, clusters: &[(String, PathBuf)]) -> Result<Self> {
        let kubeconfig = external::find(clusters, name)?;
        let refused = |why: &str| no_region(name, &format!("{KUBECONFIGS} names {}: {why}", kubeconfig.display()));
        // kubectl takes a file that is not there for an empty one, and asks localhost.
        fs::File::open(kubeconfig).map_err(|error| refused(&error.to_string()))?;
        let folder = layout.regions().join(name);
        let copy = folder.join("kubeconfig");
        let is_copy = !external::same_file(kubeconfig, &copy);
        if is_copy && external::is_ours(&folder) {
            return Err(refused(
                "this checkout has a region of that name; `testbed down` without the variable ends it",
            ));
        }
        let cluster = Cluster::new(layout, kubeconfig)?;
        let ask = |question: &[&str]| cluster.kubectl(question).map_err(|error| refused(&error.to_string()));
        // Of one cluster, with what its files hold: in another folder, relative paths would lead nowhere.
        let text = ask(&["config", "view", "--raw", "--minify", "--flatten"])?;
        ask(&["get", "--raw=/readyz", "--request-timeout=10s"])?;
        // The contract: this path is the region's kubeconfig, whoever made the region.
        if is_copy {
            crate::credentials::write_secret(&copy, &text)?;
        }
        Ok(Self { layout: layout.clone(), name: name.to_owned(), cluster, config: None })
    }

    /// The names of the clusters that [`KUBECONFIGS`] puts in the place of regions; None where it is not set.
    pub fn external() -> Result<Option<Vec<String>>> {
        Ok(external::named()?.map(|clusters| clusters.into_iter().map(|(name, _)| name).collect()))
    }

    /// Whether it is a cluster that existed already.
    pub fn is_external(&self) -> bool {
        self.config.is_none()
    }

    /// The regions that are up, by name.
    pub fn list(layout: &Layout) -> Result<Vec<Self>> {
        if let Some(clusters) = external::named()? {
            return clusters.iter().map(|(name, _)| Self::of_external(layout, name, &clusters)).collect();
        }
        names(layout).iter().filter(|name| is_up(layout, name)).map(|name| Self::open(layout, name)).collect()
    }

    /// Ends the region and removes everything it made. Harmless when there is none. While [`KUBECONFIGS`] is set, no
    /// cluster and no region is ended; only the copy of the cluster's kubeconfig goes.
    pub fn down(name: &str) -> Result<()> {
        Self::down_in(&Layout::find(), name)
    }

    /// [`down`](Self::down) for another checkout.
    pub fn down_in(layout: &Layout, name: &str) -> Result<()> {
        check_name(name)?;
        if let Some(clusters) = external::named()? {
            return external::forget(layout, name, external::find(&clusters, name)?);
        }
        let lock = lock_file(&layout.regions().join(format!(".{name}.lock")))?;
        // A start that hangs would hold the lock; it is ended first, as that is what the caller wants to be gone.
        if let Some(kept) = kept(&layout.regions().join(name))? {
            kept.keeper.end()?;
        }
        lock.lock().doing(|| format!("lock region {name}"))?;
        down_locked(layout, name)?;
        network::remove_unused(layout)?;
        let _ = fs::remove_file(layout.regions().join(format!(".{name}.lock")));
        Ok(())
    }

    /// Ends all regions of this checkout, also what crashed ones left; none while [`KUBECONFIGS`] is set.
    pub fn down_all(layout: &Layout) -> Result<()> {
        if let Some(clusters) = external::named()? {
            return clusters.iter().try_for_each(|(name, kubeconfig)| external::forget(layout, name, kubeconfig));
        }
        let names = names(layout);
        thread::scope(|scope| {
            let ending: Vec<_> = names.iter().map(|name| scope.spawn(|| Self::down_in(layout, name))).collect();
            ending.into_iter().zip(&names).try_for_each(|(thread, name)| {
                thread.join().unwrap_or_else(|_| Err(no_region(name, "ending it panicked")))
            })
        })?;
        network::remove_unused(layout)?;
        remove_folder(&layout.regions())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its API.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        self.cluster.kubeconfig()
    }

    /// The address of its node, where NodePorts and load balancers of this region answer in all regions and on
    /// the host.
    pub fn address(&self) -> Result<Ipv4Addr> {
        Ok(self.config()?.address())
    }

    /// Its folder, with `logs/` for every component.
    pub fn folder(&self) -> PathBuf {
        self.layout.regions().join(&self.name)
    }

    /// What a region of ours is made from. All that reaches into a node asks here first.
    pub(crate) fn config(&self) -> Result<&RegionConfig> {
        self.config.as_ref().ok_or_else(|| {
            let only = "the testbed reaches into the nodes and the network of its own regions only";
            no_region(&self.name, &format!("is a cluster that {KUBECONFIGS} names: {only}"))
        })
    }

    pub(crate) fn init(&self) -> Result<ProcessId> {
        self.config()?;
        let init = kept(&self.folder())?.and_then(|kept| kept.init).filter(|init| init.alive());
        init.ok_or_else(|| no_region(&self.name, "is not running"))
    }

    /// A command that runs inside: the region's network, mounts and processes.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("nsenter");
        // Not `ip netns exec`, which mounts /sys anew and so hides the cgroups.
        command.args(["--target", &self.init()?.pid().to_string(), "--net", "--mount", "--pid", "--", program]);
        command.env("PATH", init::PATH);
        Ok(command)
    }

    /// Runs `task` in the region's network, as its node would.
    pub fn inside_network<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.init()?.pid());
        let namespace = fs::File::open(&path).doing(|| format!("open {path}"))?;
        thread::scope(|scope| {
            // A thread of its own, which is never used for anything else.
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).doing(|| format!("enter {path}"))?;
                Ok(task())
            });
            thread.join().unwrap_or_else(|_| Err(no_region(&self.name, "a task in its network panicked")))
        })
    }

    /// Makes the image of a docker-archive known to the region's node.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        if self.is_external() {
            let why = format!(
                "is a cluster that {KUBECONFIGS} names: the testbed loads images into its own regions only. Load this \
                 one by {LOADING}, FILE being {}",
                archive.display()
            );
            return Err(no_region(&self.name, &why));
        }
        let file = fs::File::open(archive).doing(|| format!("open {}", archive.display()))?;
        let mut command = self.command("ctr")?;
        command.args(["--address", init::CONTAINERD, "--namespace", "k8s.io", "images", "import", "-"]);
        let output = command.stdin(file).output().doing(|| format!("run {command:?}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Command {
            command: format!("{command:?}"),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn until_ready(&self) -> Result<()> {
        let folder = self.folder();
        let running = || match kept(&folder)? {
            Some(kept) if !kept.keeper.alive() => {
                Err(no_region(&self.name, &format!("ended while it started\n{}", self.dump())))
            }
            _ => Ok(()),
        };
        wait::until(
            "the API server is ready",
            READY_BOUND,
            || self.dump(),
            || {
                running()?;
                let listens =
                    std::net::TcpStream::connect_timeout(&(self.address()?, 6443).into(), Duration::from_millis(200));
                if listens.is_ok() && self.cluster.ready() {
                    return Ok(Some(()));
                }
                wait::long_pause();
                Ok(None)
            },
        )?;
        // Applying may come before the controllers that its objects need; it is idempotent, so it is done each time.
        self.cluster.apply(&config::objects(self.config()?))?;
        let node = format!("node/{}", self.name);
        let timeout = format!("--timeout={}s", READY_BOUND.as_secs());
        for question in [
            &["wait", "--for=create", &node, &timeout][..],
            &["wait", "--for=condition=Ready", &node, &timeout][..],
            &["wait", "--for=condition=Available", "deployment/coredns", "--namespace=kube-system", &timeout][..],
        ] {
            self.cluster
                .kubectl(question)
                .map_err(|error| no_region(&self.name, &format!("{error}\n{}", self.dump())))?;
        }
        Ok(())
    }

    /// What there is to see when something does not come: objects, events and the ends of all logs.
    pub fn dump(&self) -> String {
        let mut text = format!("=== region {}\n", self.name);
        if self.is_external() {
            text.extend([
                "a cluster that ",
                KUBECONFIGS,
                " names: the logs of its nodes are not to be seen from here\n",
            ]);
        } else {
            // A disk that is full and a machine that is busy look like anything but that in what follows.
            text += &run(Command::new("df").arg("-h").arg(self.folder())).unwrap_or_else(|error| format!("{error}\n"));
            for file in ["/proc/loadavg", "/proc/pressure/io"] {
                text += &fs::read_to_string(file).map_or_else(|_| String::new(), |line| format!("{file}: {line}"));
            }
        }
        for question in [
            &["get", "nodes,pods,pvc,services", "--all-namespaces", "--output=wide", "--request-timeout=5s"][..],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--request-timeout=5s"][..],
        ] {
            text += &self.cluster.kubectl(question).unwrap_or_else(|error| format!("{error}\n"));
        }
        if self.is_external() {
            return text;
        }
        let mut logs: Vec<_> = fs::read_dir(self.folder().join("logs")).into_iter().flatten().flatten().collect();
        logs.sort_by_key(fs::DirEntry::path);
        for log in logs.iter().filter(|log| log.path().is_file()) {
            text += &tail(&log.path(), 15);
        }
        text
    }
}

fn no_region(name: &str, why: &str) -> Error {
    Error::Region { name: name.to_owned(), why: why.to_owned() }
}

/// Names go into host names, cgroups and file names.
fn check_name(name: &str) -> Result<()> {
    let fits = (1..=20).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if fits { Ok(()) } else { Err(no_region(name, "a name is 1 to 20 lower-case letters and digits, a letter first")) }
}

/// Every region of which something is there: its folder, or cgroups that a crash left.
fn names(layout: &Layout) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(layout.regions())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| check_name(name).is_ok())
        .collect();
    let prefix = cgroup_name(layout, "");
    for folder in cgroup::find(&prefix) {
        let name = folder.file_name().map(|name| name.to_string_lossy()[prefix.len()..].to_owned());
        names.extend(name.filter(|name| check_name(name).is_ok()));
    }
    names.sort();
    names.dedup();
    names
}

fn is_up(layout: &Layout, name: &str) -> bool {
    kept(&layout.regions().join(name)).ok().flatten().and_then(|kept| kept.init).is_some_and(ProcessId::alive)
}

pub(crate) fn cgroup_name(layout: &Layout, name: &str) -> String {
    format!("saatkond-{}-{name}", layout.id())
}

fn kept(folder: &Path) -> Result<Option<Kept>> {
    read_json(&folder.join("kept.json"))
}

/// Chooses number and addresses, under a lock, as several regions start at once.
fn configure(layout: &Layout, name: &str) -> Result<RegionConfig> {
    let lock = lock_file(&layout.regions().join(".lock"))?;
    lock.lock().doing(|| "lock the regions".to_owned())?;
    let mut taken = Vec::new();
    for other in names(layout) {
        let config: Option<RegionConfig> = read_json(&layout.regions().join(&other).join("region.json"))?;
        taken.extend(config.map(|config| config.index));
    }
    let preferred = DEFAULT_REGIONS.iter().zip(1..).find(|(default, _)| **default == name).map(|(_, index)| index);
    let others = 4..=49;
    let index = preferred.into_iter().chain(others).find(|index| !taken.contains(index));
    let index = index.ok_or_else(|| no_region(name, "there are too many regions"))?;
    let network = network::ensure(layout)?;
    let config = RegionConfig { name: name.to_owned(), index, network, cgroup: cgroup_name(layout, name) };
    write_json(&layout.regions().join(name).join("region.json"), &config)?;
    Ok(config)
}

fn down_locked(layout: &Layout, name: &str) -> Result<()> {
    let folder = layout.regions().join(name);
    // Its cables to others first: their devices would keep its network alive.
    faults::forget(layout, name)?;
    if let Some(kept) = kept(&folder)? {
        kept.keeper.end()?; // it would report init's end as a failure, and init ends with it
        if let Some(init) = kept.init {
            init.end()?;
        }
    }
    if let Some(config) = read_json::<RegionConfig>(&folder.join("region.json"))? {
        // The kernel takes its time to remove a network without processes.
        let _ = run(Command::new("ip").args(["link", "delete", &config.cable()]));
    }
    cgroup::remove(&cgroup_name(layout, name))?;
    remove_folder(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_region_of_ours_is_refused_for_another_cluster() {
        let checkout = tempfile::tempdir().unwrap();
        let layout = Layout::at(checkout.path());
        fs::create_dir_all(layout.root().join("target/tools/bin")).unwrap();
        fs::write(layout.root().join("target/tools/bin/kubectl"), "").unwrap();
        let cluster = Cluster::new(&layout, "/nowhere").unwrap();
        let region = Region { layout, name: "home".to_owned(), cluster, config: None };
        assert!(region.is_external());
        for said in [
            region.address().map(|_| ()),
            region.command("ip").map(|_| ()),
            region.inside_network(|| ()),
            region.load_image(Path::new("/image.tar")),
        ] {
            let said = said.unwrap_err().to_string();
            assert!(said.starts_with("region \"home\": is a cluster that SAATKOND_REGION_KUBECONFIGS names"), "{said}");
        }
        let said = region.load_image(Path::new("/image.tar")).unwrap_err().to_string();
        assert!(said.contains("kind load image-archive FILE") && said.ends_with("FILE being /image.tar"), "{said}");
    }
}
