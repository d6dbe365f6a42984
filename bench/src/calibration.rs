//! How fast the machine is right now, so that an absolute time is judged only where it means something: a fixed loop of
//! arithmetic, and writes of 4 KiB that reach the disk.

use std::fmt;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Bound, median};

/// Rounds of the loop: some tenths of a second.
const ROUNDS: u64 = 200_000_000;
const WRITES: usize = 50;
/// A run counts while the machine is at most this much slower than the best that was ever seen of it.
pub const TOLERANCE: f64 = 1.3;

/// One measurement of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The loop, in milliseconds.
    pub cpu_ms: f64,
    /// The median write, in milliseconds.
    pub fsync_ms: f64,
}

impl Calibration {
    /// Measures, and remembers the best of each in `folder`. The second is by how much this one is slower than the best.
    pub fn take(folder: &Path) -> anyhow::Result<(Self, f64)> {
        fs::create_dir_all(folder).context("failed to make a folder for the calibration")?;
        let now = Self { cpu_ms: arithmetic(), fsync_ms: writes(folder)? };
        let path = folder.join("calibration.json");
        let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        let best = known.map_or(now, |known| known.better_of(now));
        fs::write(&path, serde_json::to_vec(&best)?).with_context(|| format!("failed to write {}", path.display()))?;
        Ok((now, now.slower_than(best)))
    }

    fn better_of(self, other: Self) -> Self {
        Self { cpu_ms: self.cpu_ms.min(other.cpu_ms), fsync_ms: self.fsync_ms.min(other.fsync_ms) }
    }

    fn slower_than(self, best: Self) -> f64 {
        (self.cpu_ms / best.cpu_ms).max(self.fsync_ms / best.fsync_ms)
    }
}

fn arithmetic() -> f64 {
    let began = Instant::now();
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..ROUNDS {
        // xorshift64: each round needs the one before, so neither compiler nor processor can shorten it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
    began.elapsed().as_secs_f64() * 1e3
}

fn writes(folder: &Path) -> anyhow::Result<f64> {
    let path = folder.join("calibration.tmp");
    let mut file = File::create(&path).context("failed to make a file for the calibration")?;
    let mut took = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let began = Instant::now();
        file.rewind()?;
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(&path).context("failed to remove the calibration's file")?;
    median(&took).context("no write was measured")
}

/// The machine's state before a run.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// The machine.
    pub machine: Calibration,
    /// By how much it was slower than the best that was seen of it.
    pub slower: f64,
    /// The load average of the last minute.
    pub load: f64,
}

impl Before {
    /// Measures; `folder` is that of [`Calibration::take`].
    pub fn take(folder: &Path) -> anyhow::Result<Self> {
        // First: what is measured next is load too.
        let load = load()?;
        let (machine, slower) = Calibration::take(folder)?;
        Ok(Self { machine, slower, load })
    }

    /// Whether an absolute value that is measured now means something.
    pub fn is_quiet(&self) -> bool {
        self.slower <= TOLERANCE
    }
}

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on a machine {:.2} times slower than at its best, load {}", self.slower, self.load)
    }
}

/// One run of a benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// What was measured.
    pub value: f64,
    /// The machine before it.
    pub before: Before,
}

/// What is to be written down of runs.
pub fn told(runs: &[Run]) -> Value {
    let each = runs.iter().map(|Run { value, before: Before { machine, slower, load } }| {
        json!({
            "value": value, "cpu_ms": machine.cpu_ms, "fsync_ms": machine.fsync_ms, "slower": slower, "load": load,
        })
    });
    each.collect()
}

/// The median of the runs for which the machine was quiet, and what is to be written down of all of them. Where too few can be judged,
/// the median of all: a time that is short enough on a slow machine would be so on a faster one. It is one or the other for
/// all runs: to take only those of the slow ones that turned out well would flatter.
///
/// # Errors
/// Fewer than half of the runs can be judged, and their median misses the target.
pub fn judged(runs: &[Run], target: &str) -> anyhow::Result<(f64, Value)> {
    let quiet: Vec<f64> = runs.iter().filter(|run| run.before.is_quiet()).map(|run| run.value).collect();
    let every: Vec<f64> = runs.iter().map(|run| run.value).collect();
    let all = json!({"runs": told(runs), "quiet": quiet.len()});
    let quiet_enough = quiet.len() * 2 > runs.len();
    let value = median(if quiet_enough { &quiet } else { &every }).context("there was no run")?;
    anyhow::ensure!(
        quiet_enough || matches!(Bound::parse(target)?, bound @ Bound::AtMost(_) if bound.holds(value)),
        "only {} of {} runs can be judged: for the others the machine was more than {TOLERANCE} times slower than at its \
         best, and the median of all, {value:.1}, is not {target}; the runs were {all}",
        quiet.len(),
        runs.len()
    );
    Ok((value, all))
}

fn load() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("failed to read the load average")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/loadavg is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, slower: f64) -> Run {
        let machine = Calibration { cpu_ms: 1.0, fsync_ms: 1.0 };
        Run { value, before: Before { machine, slower, load: 0.0 } }
    }

    #[test]
    fn runs_on_a_busy_machine_do_not_count() {
        let runs = [run(60.0, 1.0), run(90.0, 2.0), run(62.0, 1.3), run(61.0, 1.1), run(99.0, 1.31)];
        let (value, details) = judged(&runs, "<= 10").unwrap();
        assert!((value - 61.0).abs() < f64::EPSILON && details["quiet"] == 3, "{value} {details}");
        let error = judged(&runs[1..], "<= 75").unwrap_err().to_string();
        assert!(error.contains("only 2 of 4") && error.contains("76.0, is not <= 75;"), "{error}");
        assert!(judged(&[], "<= 10").is_err());
    }

    #[test]
    fn a_bound_that_a_slow_machine_keeps_is_kept() {
        let runs = [run(50.0, 1.0), run(59.0, 2.0), run(70.0, 2.0), run(55.0, 1.31), run(58.0, 1.4)];
        let (value, details) = judged(&runs, "<= 58").unwrap();
        assert!((value - 58.0).abs() < f64::EPSILON && details["quiet"] == 1, "{value} {details}");
        assert!(judged(&runs, "<= 57.9").is_err(), "whether a faster machine would keep that, nobody knows");
    }

    #[test]
    fn the_best_is_remembered_part_by_part() {
        let (one, other) = (Calibration { cpu_ms: 100.0, fsync_ms: 4.0 }, Calibration { cpu_ms: 120.0, fsync_ms: 2.0 });
        let best = one.better_of(other);
        assert_eq!(best, Calibration { cpu_ms: 100.0, fsync_ms: 2.0 });
        assert!((one.slower_than(best) - 2.0).abs() < f64::EPSILON);
        assert!((other.slower_than(best) - 1.2).abs() < f64::EPSILON);
    }

    #[test]
    fn the_first_measurement_is_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let (now, slower) = Calibration::take(folder.path()).unwrap();
        assert!(now.cpu_ms > 0.0 && now.fsync_ms > 0.0 && (slower - 1.0).abs() < f64::EPSILON);
        assert!(folder.path().join("calibration.json").exists());
    }
}
