//! Faults between regions: partitions, loss and delay.
//!
//! What is wished for stands in one file; each change is written there and then made true in every region that is
//! up. Partition and loss are nftables rules where packets arrive. Delay is a cable of its own ([`wire`]).

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Layout, Region, Result,
    error::Doing as _,
    layout::{lock_file, read_json, tail, write_json},
    preflight,
    process::{ProcessId, become_program, run, run_with_input, start_detached},
    region::external,
    wait,
};

/// What is refused between clusters that are not ours.
const FAULTS: &str = "partitions, loss and delay";

/// Which packets between `a` and `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From either to the other.
    Both,
    /// From `a` to `b` only: `b` hears nothing from `a`, but `a` hears `b`.
    OneWay,
}

/// What happens to packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Fault {
    /// Percent of packets that do not arrive; 100 is a partition.
    loss: f64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Wanted {
    /// By receiver, then by sender.
    faults: BTreeMap<String, BTreeMap<String, Fault>>,
    /// By pair (`a-b`, in order of name): milliseconds.
    delays: BTreeMap<String, u64>,
}

/// The faults between the regions of this checkout. They hold until [`heal`](Faults::heal) or until a region goes.
#[derive(Debug, Clone)]
pub struct Faults {
    layout: Layout,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(&Layout::find())
    }
}

impl Faults {
    /// The faults between the regions of a checkout.
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone() }
    }

    /// Nothing passes from `a` to `b`, and with [`Direction::Both`] nothing back. Takes established connections too.
    pub fn partition(&self, a: &str, b: &str, direction: Direction) -> Result<()> {
        self.lose(a, b, 100.0, direction)
    }

    /// Each packet is lost with this probability, both ways. Zero ends it.
    pub fn loss(&self, a: &str, b: &str, percent: f64) -> Result<()> {
        self.lose(a, b, percent, Direction::Both)
    }

    /// Each packet takes this much longer, each way, so a round trip takes twice as much. Zero ends it.
    pub fn delay(&self, a: &str, b: &str, one_way: Duration) -> Result<()> {
        external::none_for(FAULTS)?;
        preflight::tun()?;
        for name in [a, b] {
            Region::open(&self.layout, name)?.init()?;
        }
        self.change(|wanted| {
            let milliseconds = u64::try_from(one_way.as_millis()).unwrap_or(u64::MAX);
            wanted.delays.insert(pair(a, b), milliseconds);
            wanted.delays.retain(|_, delay| *delay > 0);
        })
    }

    /// Ends all faults.
    pub fn heal(&self) -> Result<()> {
        self.change(|wanted| *wanted = Wanted::default())
    }

    fn lose(&self, a: &str, b: &str, percent: f64, direction: Direction) -> Result<()> {
        self.change(|wanted| {
            let fault = Fault { loss: percent.clamp(0.0, 100.0) };
            wanted.faults.entry(b.to_owned()).or_default().insert(a.to_owned(), fault);
            if direction == Direction::Both {
                wanted.faults.entry(a.to_owned()).or_default().insert(b.to_owned(), fault);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) -> Result<()> {
        external::none_for(FAULTS)?;
        let lock = lock_file(&self.layout.regions().join(".faults.lock"))?;
        lock.lock().doing(|| "lock the faults".to_owned())?;
        let path = self.layout.regions().join("faults.json");
        let mut wanted: Wanted = read_json(&path)?.unwrap_or_default();
        change(&mut wanted);
        // Refused before it is remembered.
        for name in wanted.faults.iter().flat_map(|(name, senders)| std::iter::once(name).chain(senders.keys())) {
            Region::open(&self.layout, name)?.init()?;
        }
        write_json(&path, &wanted)?;
        apply(&self.layout, &wanted)
    }
}

fn pair(a: &str, b: &str) -> String {
    format!("{}-{}", a.min(b), a.max(b))
}

/// Ends the faults of a region that goes.
pub(crate) fn forget(layout: &Layout, name: &str) -> Result<()> {
    let path = layout.regions().join("faults.json");
    if !path.exists() {
        return Ok(());
    }
    let lock = lock_file(&layout.regions().join(".faults.lock"))?;
    lock.lock().doing(|| "lock the faults".to_owned())?;
    let mut wanted: Wanted = read_json(&path)?.unwrap_or_default();
    let touches = |pair: &str| pair.split('-').any(|end| end == name);
    wanted.faults.remove(name);
    for senders in wanted.faults.values_mut() {
        senders.remove(name);
    }
    wanted.delays.retain(|pair, _| !touches(pair));
    write_json(&path, &wanted)?;
    for wire in wires(layout)?.into_iter().filter(|wire| touches(&wire.pair)) {
        wire.end(layout)?;
    }
    Ok(())
}

fn apply(layout: &Layout, wanted: &Wanted) -> Result<()> {
    for region in Region::list(layout)? {
        let rules = rules(layout, wanted.faults.get(region.name()))?;
        run_with_input(region.command("nft")?.args(["-f", "-"]), &rules)?;
    }
    for wire in wires(layout)? {
        if wanted.delays.get(&wire.pair) != Some(&wire.milliseconds) || !wire.process.alive() {
            wire.end(layout)?;
        }
    }
    for (pair, milliseconds) in &wanted.delays {
        if !wire_path(layout, pair).exists() {
            start_wire(layout, pair, *milliseconds)?;
        }
    }
    Ok(())
}

/// Where packets arrive, before anything else looks at them; the old rules go in the same step.
fn rules(layout: &Layout, senders: Option<&BTreeMap<String, Fault>>) -> Result<String> {
    let mut drops = String::new();
    for (sender, fault) in senders.into_iter().flatten() {
        let address = Region::open(layout, sender)?.address()?;
        // Pods of another region come with its node's address.
        let chance = if fault.loss >= 100.0 {
            String::new()
        } else {
            format!("numgen random mod 10000 < {:.0} ", fault.loss * 100.0)
        };
        drops.extend(["  ip saddr ", &address.to_string(), " ", &chance, "drop\n"]);
    }
    Ok(format!(
        "add table ip saatkond-faults\ndelete table ip saatkond-faults\ntable ip saatkond-faults {{\n chain arriving {{\n  \
         type filter hook prerouting priority -310;\n{drops} }}\n}}\n"
    ))
}

/// A slow cable between two regions.
#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    pair: String,
    milliseconds: u64,
    process: ProcessId,
}

impl Wire {
    fn end(&self, layout: &Layout) -> Result<()> {
        self.process.end()?;
        match fs::remove_file(wire_path(layout, &self.pair)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("forget wire {}", self.pair))
            }
            _ => Ok(()),
        }
    }
}

fn wire_path(layout: &Layout, pair: &str) -> std::path::PathBuf {
    layout.regions().join(".wires").join(format!("{pair}.json"))
}

fn wires(layout: &Layout) -> Result<Vec<Wire>> {
    let files = fs::read_dir(layout.regions().join(".wires")).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    Ok(files.map(|path| read_json(&path)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The device that leads to a peer.
fn device(peer: &Region) -> Result<String> {
    Ok(format!("wire{}", peer.config()?.index))
}

fn ends(layout: &Layout, pair: &str) -> Result<[Region; 2]> {
    let (a, b) = pair.split_once('-').unwrap_or((pair, ""));
    Ok([Region::open(layout, a)?, Region::open(layout, b)?])
}

fn start_wire(layout: &Layout, pair: &str, milliseconds: u64) -> Result<()> {
    let log = layout.regions().join(".wires").join(format!("{pair}.log"));
    start_detached(layout, &["wire", pair, &milliseconds.to_string()], &log)?;
    let regions = ends(layout, pair)?;
    for (here, there) in [(0, 1), (1, 0)].map(|(here, there)| (&regions[here], &regions[there])) {
        let device = device(there)?;
        let ip = |arguments: &str| run(here.command("ip")?.args(arguments.split(' ')));
        wait::until(
            "the wire's device is there",
            Duration::from_secs(10),
            || tail(&log, 20),
            || Ok(ip(&format!("link set dev {device} up")).ok()),
        )?;
        // Last, so that a packet is sent there only when it can be carried. Both go with the device.
        ip(&format!("route replace {}/32 dev {device} src {}", there.address()?, here.address()?))?;
    }
    Ok(())
}

/// Records itself and becomes the wire's process. Started by a delay.
pub fn wire(pair: &str, milliseconds: u64) -> Result<()> {
    let layout = Layout::find();
    let [a, b] = ends(&layout, pair)?;
    let process = ProcessId::me().ok_or_else(|| crate::Error::Preflight("there is no /proc".to_owned()))?;
    write_json(&wire_path(&layout, pair), &Wire { pair: pair.to_owned(), milliseconds, process })?;
    let namespace = |region: &Region| Ok::<_, crate::Error>(format!("/proc/{}/ns/net", region.init()?.pid()));
    let mut command = Command::new(layout.tool("region-wire")?);
    command.args(["--from-netns", &namespace(&a)?, "--to-netns", &namespace(&b)?]);
    command.args(["--from-device", &device(&b)?, "--to-device", &device(&a)?]);
    command.args(["--delay", &format!("{milliseconds}ms")]);
    become_program(&mut command)
}
