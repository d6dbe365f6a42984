//! The keeper: starts a region's init and connects its network, and ends with it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use nix::sched::{CloneFlags, unshare};

use super::{Kept, RegionConfig, cgroup, no_region};
use crate::{
    Layout, Result,
    error::Doing as _,
    layout::{read_json, write_json},
    process::{ProcessId, run as run_command},
    wait,
};

/// Runs until the region ends. Started by [`super::Region::up`].
pub fn run(name: &str) -> Result<()> {
    let layout = Layout::find();
    let folder = layout.regions().join(name);
    let config: RegionConfig =
        read_json(&folder.join("region.json"))?.ok_or_else(|| no_region(name, "is not configured"))?;
    // Before anything is made: whoever takes the region down must find us.
    let keeper = ProcessId::me().ok_or_else(|| no_region(name, "cannot run without /proc"))?;
    write_json(&folder.join("kept.json"), &Kept { keeper, init: None })?;
    cgroup::create(&config.cgroup)?;

    // Holds for our children: the first of them becomes process 1 of the new namespace.
    unshare(CloneFlags::CLONE_NEWPID).doing(|| "make a PID namespace".to_owned())?;
    let mut init = Command::new(layout.testbed_program()?)
        .args(["region-init", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| "start the region's init".to_owned())?;
    write_json(&folder.join("kept.json"), &Kept { keeper, init: ProcessId::of(init.id()) })?;

    // Init says a line when it has a network namespace of its own, and goes on when it gets one back.
    let (Some(mut to_init), Some(from_init)) = (init.stdin.take(), init.stdout.take()) else {
        return Err(no_region(name, "has no pipe to its init"));
    };
    let mut line = String::new();
    BufReader::new(from_init).read_line(&mut line).doing(|| "hear from the region's init".to_owned())?;
    if line.trim() != "ready" {
        return Err(no_region(name, "its init ended at once; see above"));
    }
    let (cable, bridge) = (config.cable(), &config.network.bridge);
    let inside = format!("/proc/{}/ns/net", init.id());
    let ip = |arguments: &[&str]| run_command(Command::new("ip").args(arguments));
    ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &inside])?;
    ip(&["link", "set", "dev", &cable, "master", bridge, "up"])?;
    to_init.write_all(b"go\n").doing(|| "tell the region's init to go on".to_owned())?;

    loop {
        if let Some(status) = init.try_wait().doing(|| "look at the region's init".to_owned())? {
            return Err(no_region(name, &format!("its init ended: {status}")));
        }
        if !folder.join("region.json").exists() {
            return Ok(()); // removed under us; init ends with this process
        }
        wait::long_pause();
    }
}
