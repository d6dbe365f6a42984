//! Benchmarks: `make bench NAME=...`, results as JSON lines in `target/bench/NAME.jsonl`.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

pub mod calibration;
pub mod controller;
pub mod faker;
pub mod federation_size;
pub mod footprint;
pub mod gateway_pair;
pub mod proc;
pub mod view;

/// What a benchmark has to measure.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// The metric's name.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The bound that was set, as a comparison such as `<= 60`.
    pub target: Option<&'static str>,
}

/// A bound on a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Exactly(f64),
}

impl Bound {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (comparison, number) = text.split_once(' ').with_context(|| format!("{text:?} is no comparison"))?;
        let number = number.parse().with_context(|| format!("{text:?} names no number"))?;
        Ok(match comparison {
            "<=" => Self::AtMost(number),
            ">=" => Self::AtLeast(number),
            "==" => Self::Exactly(number),
            _ => bail!("{text:?} is no comparison"),
        })
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            // Counts: whole numbers are exact in an f64.
            Self::Exactly(bound) => (value - bound).abs() < f64::EPSILON,
        }
    }
}

/// The results of one benchmark.
#[derive(Debug)]
pub struct Sheet {
    goals: &'static [Goal],
    lines: Vec<(Goal, f64, Map<String, Value>)>,
}

/// What became of a benchmark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// One line a metric, in words.
    pub lines: Vec<String>,
    /// Metrics that missed their target or were not measured.
    pub missed: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        if self.missed.is_empty() { Ok(()) } else { writeln!(f, "missed: {}", self.missed.join(", ")) }
    }
}

impl Sheet {
    /// An empty sheet for these goals.
    pub fn new(goals: &'static [Goal]) -> Self {
        Self { goals, lines: Vec::new() }
    }

    /// Notes a metric's value; `details` are the single runs, the peer, and what else led to it.
    pub fn note(&mut self, metric: &str, value: f64, details: Value) -> anyhow::Result<()> {
        let goal = self.goals.iter().find(|goal| goal.metric == metric);
        let goal = *goal.with_context(|| format!("{metric} is not a metric of this benchmark"))?;
        if !value.is_finite() {
            bail!("{metric} is {value}");
        }
        if self.lines.iter().any(|(other, ..)| other.metric == metric) {
            bail!("{metric} is noted twice");
        }
        let details = match details {
            Value::Object(details) => details,
            _ => Map::new(),
        };
        self.lines.push((goal, value, details));
        Ok(())
    }

    /// The JSON lines.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (goal, value, details) in &self.lines {
            let mut line = json!({"metric": goal.metric, "value": rounded(*value), "unit": goal.unit});
            if let (Some(map), Some(target)) = (line.as_object_mut(), goal.target) {
                map.insert("target".to_owned(), target.into());
            }
            if let Some(map) = line.as_object_mut() {
                map.extend(details.clone());
            }
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text
    }

    /// Writes the lines to `target/bench/NAME.jsonl` and says what was missed.
    pub fn finish(&self, root: &Path, name: &str) -> anyhow::Result<Verdict> {
        let path: PathBuf = root.join("target/bench").join(format!("{name}.jsonl"));
        std::fs::create_dir_all(path.parent().unwrap_or(root)).context("failed to make target/bench")?;
        std::fs::write(&path, self.text()).with_context(|| format!("failed to write {}", path.display()))?;
        self.verdict()
    }

    fn verdict(&self) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict { lines: Vec::new(), missed: Vec::new() };
        for goal in self.goals {
            let measured = self.lines.iter().find(|(other, ..)| other.metric == goal.metric);
            let Some((_, value, _)) = measured else {
                verdict.missed.push(format!("{} was not measured", goal.metric));
                continue;
            };
            let target = goal.target.unwrap_or("no target");
            verdict.lines.push(format!("{:<20} {:>10} {:<8} ({target})", goal.metric, rounded(*value), goal.unit));
            if let Some(text) = goal.target
                && !Bound::parse(text)?.holds(*value)
            {
                verdict.missed.push(format!("{} = {} is not {text}", goal.metric, rounded(*value)));
            }
        }
        Ok(verdict)
    }
}

/// Three decimals; more is noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The middle of the values; of two middles the mean.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len() % 2) {
        (0, _) => None,
        (_, 1) => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOALS: &[Goal] = &[
        Goal { metric: "a", unit: "s", target: Some("<= 60") },
        Goal { metric: "b", unit: "", target: Some("== 0") },
        Goal { metric: "c", unit: "", target: Some(">= 0.25") },
        Goal { metric: "d", unit: "ms", target: None },
    ];

    fn sheet(values: &[(&str, f64)]) -> Sheet {
        let mut sheet = Sheet::new(GOALS);
        for (metric, value) in values {
            sheet.note(metric, *value, json!({"runs": [1, 2]})).unwrap();
        }
        sheet
    }

    #[test]
    fn bounds_in_pairs() {
        for (a, b, c, missed) in [
            (60.0, 0.0, 0.25, 0),
            (60.1, 0.0, 0.25, 1),
            (60.0, 1.0, 0.25, 1),
            (60.0, 0.0, 0.249, 1),
            (61.0, 2.0, 0.1, 3),
        ] {
            let verdict = sheet(&[("a", a), ("b", b), ("c", c), ("d", 1.0)]).verdict().unwrap();
            assert_eq!(verdict.missed.len(), missed, "{a} {b} {c}: {verdict}");
        }
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        let verdict = sheet(&[("a", 1.0), ("b", 0.0), ("c", 1.0)]).verdict().unwrap();
        assert_eq!(verdict.missed, ["d was not measured"]);
        let mut sheet = sheet(&[("a", 1.0)]);
        assert!(sheet.note("a", 1.0, Value::Null).is_err(), "twice");
        assert!(sheet.note("e", 1.0, Value::Null).is_err(), "not a metric");
        assert!(sheet.note("b", f64::NAN, Value::Null).is_err(), "not a number");
    }

    #[test]
    fn a_line_a_metric() {
        let text = sheet(&[("a", 1.23456), ("d", 2.0)]).text();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0], json!({"metric": "a", "value": 1.235, "unit": "s", "target": "<= 60", "runs": [1, 2]}));
        assert_eq!(lines[1].get("target"), None);
    }

    #[test]
    fn the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
