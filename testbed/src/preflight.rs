//! What regions need of a machine, asked before anything is started.

use std::{env, fs, path::Path, process::Command};

use crate::{
    Error, Layout, Result,
    process::{run, run_with_input},
    region::{REGION_TOOLS, cgroup},
};

/// What to do on a machine that cannot.
pub const ALTERNATIVE: &str = "or use clusters that exist already: SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path";

/// Checks that regions can run here; the error names everything that is missing at once.
pub fn preflight(layout: &Layout) -> Result<()> {
    verdict(&look(layout))
}

/// What a machine was found to have.
#[derive(Debug, Clone)]
struct Found {
    /// The operating system, as [`env::consts::OS`] names it.
    system: &'static str,
    root: bool,
    /// Those of [`REGION_TOOLS`] that are not installed.
    tools_missing: Vec<&'static str>,
    /// Programs that do not run, each with the Debian package that brings it.
    programs_missing: Vec<(&'static str, &'static str)>,
    ptp: bool,
    overlay: bool,
    /// The error says what kubelet lacks.
    cgroups: Result<(), String>,
    /// What came of making devices in a network namespace, and nftables rules; the error is the program's. Not tried,
    /// and so not at fault, on a machine that lacks anything of the above.
    devices: Result<(), String>,
    rules: Result<(), String>,
}

fn look(layout: &Layout) -> Found {
    let programs = [("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux"), ("setsid", "util-linux")];
    let runs = |program: &str| {
        run(Command::new(program).arg("--version")).is_ok() || run(Command::new(program).arg("-V")).is_ok()
    };
    let mut found = Found {
        system: env::consts::OS,
        root: nix::unistd::geteuid().is_root(),
        tools_missing: REGION_TOOLS.into_iter().filter(|tool| layout.tool(tool).is_err()).collect(),
        programs_missing: programs.into_iter().filter(|(program, _)| !runs(program)).collect(),
        ptp: Path::new("/usr/lib/cni/ptp").exists(),
        overlay: fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay"),
        cgroups: cgroup::usable(),
        devices: Ok(()),
        rules: Ok(()),
    };
    // What follows would fail for its reason alone.
    if !missing(&found).is_empty() {
        return found;
    }
    // Everything in a namespace of its own, which ends with the command.
    let links = "ip link add type veth && ip link add name probe type bridge";
    let made = run(Command::new("unshare").args(["--net", "sh", "-c", links]));
    found.devices = made.map(|_| ()).map_err(|error| error.to_string());
    let rules = "table ip probe {\n chain a {\n type nat hook postrouting priority srcnat;\n ip saddr 10.0.0.0/8 snat to 10.0.0.1\n }\n \
                 chain b {\n type filter hook prerouting priority -310;\n numgen random mod 100 < 5 drop\n ct state established accept\n }\n}\n";
    let made = run_with_input(Command::new("unshare").args(["--net", "nft", "-f", "-"]), rules);
    found.rules = made.map(|_| ()).map_err(|error| error.to_string());
    found
}

fn verdict(found: &Found) -> Result<()> {
    let missing = missing(found);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join("\n  - ");
    Err(Error::Preflight(format!("regions cannot run on this machine. Missing:\n  - {list}\nMend that, {ALTERNATIVE}")))
}

fn missing(found: &Found) -> Vec<String> {
    if found.system != "linux" {
        // Nothing else is worth looking at there.
        return vec![format!(
            "Linux, and this is {}: regions are made of network namespaces and cgroups. A virtual machine will do, \
             also to use other clusters from, as images are made of Linux programs",
            found.system
        )];
    }
    let mut missing = Vec::new();
    if !found.root {
        missing.push(
            "root: regions make network namespaces, mounts and cgroups (run as root, for instance with sudo -E)"
                .to_owned(),
        );
    }
    missing.extend(found.tools_missing.iter().map(|tool| format!("{tool}: run testbed/install.sh regions")));
    missing.extend(found.programs_missing.iter().map(|(program, package)| format!("{program}: install {package}")));
    if !found.ptp {
        missing.push("/usr/lib/cni/ptp: install containernetworking-plugins".to_owned());
    }
    if !found.overlay {
        missing.push("overlayfs in the kernel (CONFIG_OVERLAY_FS)".to_owned());
    }
    missing.extend(found.cgroups.clone().err());
    if let Err(error) = &found.devices {
        missing.push(format!("network namespaces, veth and bridge in the kernel ({error})"));
    }
    if let Err(error) = &found.rules {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Found {
        Found {
            system: "linux",
            root: true,
            tools_missing: Vec::new(),
            programs_missing: Vec::new(),
            ptp: true,
            overlay: true,
            cgroups: Ok(()),
            devices: Ok(()),
            rules: Ok(()),
        }
    }

    fn refused(found: &Found) -> String {
        verdict(found).unwrap_err().to_string()
    }

    #[test]
    fn a_machine_that_lacks_nothing_is_not_refused() {
        verdict(&complete()).unwrap();
    }

    #[test]
    fn whatever_is_missing_is_named_with_what_to_do_and_the_alternative() {
        let failed = |why: &str| Err(why.to_owned());
        for (found, expected) in [
            (Found { system: "macos", ..complete() }, "Linux, and this is macos: regions are made of"),
            (
                Found { root: false, ..complete() },
                "root: regions make network namespaces, mounts and cgroups (run as root",
            ),
            (Found { tools_missing: vec!["kubelet"], ..complete() }, "kubelet: run testbed/install.sh regions\n"),
            (Found { programs_missing: vec![("nft", "nftables")], ..complete() }, "nft: install nftables\n"),
            (Found { ptp: false, ..complete() }, "/usr/lib/cni/ptp: install containernetworking-plugins\n"),
            (Found { overlay: false, ..complete() }, "overlayfs in the kernel (CONFIG_OVERLAY_FS)\n"),
            (Found { cgroups: failed("cgroup controllers: memory"), ..complete() }, "cgroup controllers: memory\n"),
            (
                Found { devices: failed("Operation not supported"), ..complete() },
                "network namespaces, veth and bridge in the kernel (Operation not supported)\n",
            ),
            (
                Found { rules: failed("No such file"), ..complete() },
                "nftables with nat, numgen and conntrack in the kernel (No such file)\n",
            ),
        ] {
            let said = refused(&found);
            assert!(
                said.contains(&format!("Missing:\n  - {expected}")),
                "{expected:?} is not what is missing in {said}"
            );
            assert_eq!(said.matches("\n  - ").count(), 1, "nothing else is: {said}");
            let alternative = "or use clusters that exist already: SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path";
            assert!(said.ends_with(alternative), "{said}");
        }
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let found = Found { root: false, ptp: false, tools_missing: vec!["runc", "ctr"], overlay: false, ..complete() };
        let said = refused(&found);
        for expected in ["- root: ", "- runc: ", "- ctr: ", "- /usr/lib/cni/ptp: ", "- overlayfs "] {
            assert!(said.contains(expected), "{expected:?} is not in {said}");
        }
        let elsewhere = Found { system: "macos", ..found };
        assert_eq!(refused(&elsewhere).matches("\n  - ").count(), 1, "what only Linux could have is not asked for");
    }
}
