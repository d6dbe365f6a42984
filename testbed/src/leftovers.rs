//! Counting what is there, to show that nothing is left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{Layout, region};

/// What the testbed can leave behind on a machine. Equal before and after, or something was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers {
    /// Network namespaces that these processes are in.
    pub network_namespaces: usize,
    /// Named network namespaces.
    pub named_namespaces: usize,
    /// Mounts of the host that look like ours: below the checkout, or of containers.
    pub mounts: Vec<String>,
    /// cgroups of this checkout's regions.
    pub cgroups: Vec<PathBuf>,
    /// Network devices of the host that belong to this checkout.
    pub devices: Vec<String>,
    /// Loop devices in use.
    pub loop_devices: usize,
    /// Processes that were started for this checkout, or run in its pods.
    pub processes: Vec<String>,
}

impl Leftovers {
    /// Looks now.
    pub fn count(layout: &Layout) -> Self {
        let marker = format!("SAATKOND_ROOT={}", layout.root().display());
        let cgroup = format!("/{}", region::cgroup_name(layout, ""));
        let mut namespaces = BTreeSet::new();
        let mut processes = Vec::new();
        for process in entries(Path::new("/proc")).into_iter().filter(|path| is_number(path)) {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            let started_here = environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes());
            // What pods run has an environment of its own, but is in our cgroups.
            let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            if started_here || cgroups.contains(&cgroup) {
                namespaces.extend(fs::read_link(process.join("ns/net")).ok());
                let line = fs::read(process.join("cmdline")).unwrap_or_default();
                processes.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        let bridge = format!("sk{}", layout.id());
        let devices = entries(Path::new("/sys/class/net"))
            .into_iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let loops = entries(Path::new("/sys/block")).into_iter().filter(|path| path.join("loop/backing_file").exists());
        Self {
            network_namespaces: namespaces.len(),
            named_namespaces: entries(Path::new("/run/netns")).len(),
            mounts: mounts(layout),
            cgroups: region::cgroup::find(&region::cgroup_name(layout, "")),
            devices: devices.filter(|name| name.starts_with(&bridge)).collect(),
            loop_devices: loops.count(),
            processes,
        }
    }
}

fn mounts(layout: &Layout) -> Vec<String> {
    let marks = [&layout.root().to_string_lossy(), "kubelet", "containerd", "netns", "saatkond"];
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
}
