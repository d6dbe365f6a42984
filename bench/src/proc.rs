//! What the kernel says of processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

/// Clock ticks a second: USER_HZ, 100 on every Linux that Rust runs on.
const TICKS: u64 = 100;

/// CPU time that a process has used, user and system, its ended threads included.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    parse_cpu(&stat).with_context(|| format!("/proc/{pid}/stat is malformed"))
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The name may hold blanks and brackets: fields are counted from the last bracket on.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// Resident memory in MiB: now (`VmRSS`) or the most there ever was (`VmHWM`).
pub fn memory_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    parse_memory(&status, field).with_context(|| format!("/proc/{pid}/status has no {field}"))
}

fn parse_memory(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u32 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(f64::from(kilobytes) / 1024.0)
}

/// Processes whose first arguments are these, found in all PID namespaces below ours.
pub fn find(arguments: &[&str]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").map(Iterator::flatten).into_iter().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
            let mut found = line.split(|byte| *byte == 0);
            arguments.iter().all(|argument| found.next() == Some(argument.as_bytes()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 1 1 1";
        assert_eq!(parse_cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_cpu("7 (a) S 1"), None);
        assert_eq!(parse_memory("VmHWM:\t 2048 kB\nVmRSS:\t 1024 kB\n", "VmRSS"), Some(1.0));
        assert_eq!(parse_memory("VmRSS:\t x kB\n", "VmRSS"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = std::process::id();
        assert!(memory_mib(me, "VmRSS").unwrap() > 0.1);
        assert!(memory_mib(me, "VmHWM").unwrap() >= memory_mib(me, "VmRSS").unwrap() - 1.0);
        let name = std::env::args().next().unwrap();
        assert!(find(&[&name]).contains(&me));
        assert!(!find(&["no such program"]).contains(&me));
        assert!(cpu(me).is_ok());
    }
}
