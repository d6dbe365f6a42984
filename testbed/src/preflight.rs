//! What regions need of a machine, asked before anything is started.

use std::{fs, path::Path, process::Command};

use crate::{
    Error, Layout, Result,
    process::{run, run_with_input},
    region::{REGION_TOOLS, cgroup},
};

/// What to do on a machine that cannot.
pub const ALTERNATIVE: &str = "or use clusters that exist already: SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path";

/// Checks that regions can run here; the error names everything that is missing at once.
pub fn preflight(layout: &Layout) -> Result<()> {
    let missing = missing(layout);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join("\n  - ");
    Err(Error::Preflight(format!("regions cannot run on this machine. Missing:\n  - {list}\nMend that, {ALTERNATIVE}")))
}

fn missing(layout: &Layout) -> Vec<String> {
    if !cfg!(target_os = "linux") {
        return vec!["Linux: regions are made of network namespaces and cgroups".to_owned()];
    }
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push(
            "root: regions make network namespaces, mounts and cgroups (run as root, for instance with sudo -E)"
                .to_owned(),
        );
    }
    for tool in REGION_TOOLS {
        if layout.tool(tool).is_err() {
            missing.push(format!("{tool}: run testbed/install.sh regions"));
        }
    }
    for (program, package) in
        [("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux"), ("setsid", "util-linux")]
    {
        if run(Command::new(program).arg("--version")).is_err() && run(Command::new(program).arg("-V")).is_err() {
            missing.push(format!("{program}: install {package}"));
        }
    }
    if !Path::new("/usr/lib/cni/ptp").exists() {
        missing.push("/usr/lib/cni/ptp: install containernetworking-plugins".to_owned());
    }
    if !fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay") {
        missing.push("overlayfs in the kernel (CONFIG_OVERLAY_FS)".to_owned());
    }
    if let Err(why) = cgroup::usable() {
        missing.push(why);
    }
    // What follows would fail for its reason alone.
    if !missing.is_empty() {
        return missing;
    }
    // Everything in a namespace of its own, which ends with the command.
    let links = "ip link add type veth && ip link add name probe type bridge";
    if let Err(error) = run(Command::new("unshare").args(["--net", "sh", "-c", links])) {
        missing.push(format!("network namespaces, veth and bridge in the kernel ({error})"));
    }
    let rules = "table ip probe {\n chain a {\n type nat hook postrouting priority srcnat;\n ip saddr 10.0.0.0/8 snat to 10.0.0.1\n }\n \
                 chain b {\n type filter hook prerouting priority -310;\n numgen random mod 100 < 5 drop\n ct state established accept\n }\n}\n";
    if let Err(error) = run_with_input(Command::new("unshare").args(["--net", "nft", "-f", "-"]), rules) {
        missing.push(format!("nftables with nat, numgen and conntrack in the kernel ({error})"));
    }
    missing
}

/// Whether delays can be made: they need a TUN device.
pub(crate) fn tun() -> Result<()> {
    if Path::new("/dev/net/tun").exists() {
        return Ok(());
    }
    Err(Error::Preflight("delay between regions needs /dev/net/tun (CONFIG_TUN)".to_owned()))
}
