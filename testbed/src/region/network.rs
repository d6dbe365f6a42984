//! The network between regions: one bridge on the host, a cable (veth) to each region.

use std::{fs, net::Ipv4Addr, process::Command};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Layout, Result,
    error::Doing as _,
    layout::{lock_file, read_json, write_json},
    process::run,
};

/// Addresses of one checkout's regions: a /24 that nothing else on the host used when it was chosen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) bridge: String,
    prefix: [u8; 3],
}

impl Network {
    pub(crate) fn host(&self) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, 1)
    }

    pub(crate) fn node(&self, index: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, 10 + index)
    }
}

fn ip(arguments: &str) -> Result<String> {
    run(Command::new("ip").args(arguments.split(' ')))
}

/// The network, made if it is not there. The caller holds the lock of the regions.
pub(crate) fn ensure(layout: &Layout) -> Result<Network> {
    let path = layout.regions().join("network.json");
    let network = if let Some(network) = read_json(&path)? {
        network
    } else {
        // Left by a checkout at this path that was removed with its regions up: its address is another than the one chosen
        // now, and all that is sent to the region would leave the machine.
        remove_bridge(layout)?;
        let network = choose(layout)?;
        write_json(&path, &network)?;
        network
    };
    let bridge = &network.bridge;
    if !exists(bridge) {
        ip(&format!("link add name {bridge} type bridge"))?;
        ip(&format!("address add {}/24 dev {bridge}", network.host()))?;
        ip(&format!("link set dev {bridge} up"))?;
    }
    Ok(network)
}

pub(crate) fn exists(device: &str) -> bool {
    fs::exists(format!("/sys/class/net/{device}")).unwrap_or(false)
}

fn bridge_name(layout: &Layout) -> String {
    format!("sk{}", layout.id())
}

fn choose(layout: &Layout) -> Result<Network> {
    // One line, so that every address has a blank before it.
    let taken = format!(" {} {}", ip("-4 -oneline address show")?, ip("-4 route show table all")?).replace('\n', " ");
    let seed = usize::from_str_radix(&layout.id()[..4], 16).unwrap_or(0);
    // Pods and services have 10.101 to 10.199 inside each region; the bridge takes from 10.200 to 10.249.
    let all: Vec<[u8; 3]> = (200..250).flat_map(|second| (0..=255).map(move |third| [10, second, third])).collect();
    for step in 0..all.len() {
        let prefix = all[(seed + step) % all.len()];
        if !taken.contains(&format!(" {}.{}.{}.", prefix[0], prefix[1], prefix[2])) {
            return Ok(Network { bridge: bridge_name(layout), prefix });
        }
    }
    Err(Error::Preflight("no free /24 between 10.200.0.0 and 10.249.255.0 for the regions' bridge".to_owned()))
}

/// Removes the bridge when no region is left.
pub(crate) fn remove_unused(layout: &Layout) -> Result<()> {
    if !layout.regions().exists() {
        return remove_bridge(layout);
    }
    let lock = lock_file(&layout.regions().join(".lock"))?;
    lock.lock().doing(|| "lock the regions".to_owned())?;
    if !super::names(layout).is_empty() {
        return Ok(());
    }
    remove_bridge(layout)?;
    let _ = fs::remove_file(layout.regions().join("network.json"));
    Ok(())
}

fn remove_bridge(layout: &Layout) -> Result<()> {
    let bridge = bridge_name(layout);
    if !exists(&bridge) {
        return Ok(());
    }
    // Of two who end the last regions at one time, one finds it gone between the look and the deletion.
    match ip(&format!("link delete dev {bridge}")) {
        Err(error) if exists(&bridge) => Err(error),
        Err(_) | Ok(_) => Ok(()),
    }
}
