//! What befalls one process of the operator: the fault that cuts its writes, and what it counts.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use saatkond_operator::client::{Call, Fault, Verdict};
use tokio::sync::Notify;

/// One write of a run: what is asked for, `STEM` in place of the federation's name, and how often the process asked for the
/// same before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub what: String,
    pub before: usize,
}

impl Site {
    /// The sites of a run, in its order.
    pub fn all(calls: &[String], stem: &str) -> Vec<Self> {
        let what = |call: &String| call.replace(stem, "STEM");
        let before = |number: usize| calls[..number].iter().filter(|call| **call == calls[number]).count();
        calls.iter().enumerate().map(|(number, call)| Self { what: what(call), before: before(number) }).collect()
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if self.before == 0 { Ok(()) } else { write!(f, " (after {} such)", self.before) }
    }
}

/// What befalls one process.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Nothing.
    Well,
    /// Its n-th write, counted from 0, is cut, whatever it is.
    CutNumber(usize, Verdict),
    /// This write is cut. Which of two objects is looked at first is a matter of moments: by its number alone, a plan would cut
    /// another write than the one it speaks of.
    CutSite(Site, Verdict),
    /// So many requests, drawn at random, are refused or lose their answer.
    Refused { seed: u64, left: usize },
}

/// Carries out the fate of one process, and counts its writes.
pub struct Life {
    pub fate: Mutex<Fate>,
    pub struck: AtomicUsize,
    pub sites: Mutex<Vec<String>>,
    /// The last request and the last write.
    pub last: Mutex<(Instant, Instant)>,
    pub died: Notify,
}

impl Life {
    pub fn new(fate: Fate) -> Arc<Self> {
        Arc::new(Self {
            fate: Mutex::new(fate),
            struck: AtomicUsize::new(0),
            sites: Mutex::default(),
            last: Mutex::new((Instant::now(), Instant::now())),
            died: Notify::new(),
        })
    }

    pub fn struck(&self) -> usize {
        self.struck.load(Ordering::SeqCst)
    }

    /// Since when it has asked for nothing, and since when it has written nothing.
    pub fn quiet(&self) -> (Duration, Duration) {
        let last = self.last.lock().unwrap();
        (last.0.elapsed(), last.1.elapsed())
    }
}

impl Fate {
    /// The same for a federation of this name.
    pub fn of(self, stem: &str) -> Self {
        match self {
            Self::CutSite(site, verdict) => {
                Self::CutSite(Site { what: site.what.replace("STEM", stem), ..site }, verdict)
            }
            other => other,
        }
    }
}

impl Fault for Life {
    fn judge(&self, call: &Call) -> Verdict {
        if call.resource == "leases" || call.verb == "watch" {
            return Verdict::Pass;
        }
        let now = Instant::now();
        let mut last = self.last.lock().unwrap();
        last.0 = now;
        // Of a write: its number, what it is, and how many such came before.
        let mut write = None;
        if call.is_write() {
            last.1 = now;
            let (mut sites, what) = (self.sites.lock().unwrap(), call.to_string());
            write = Some((sites.len(), what.clone(), sites.iter().filter(|site| **site == what).count()));
            sites.push(what);
        }
        let verdict = match &mut *self.fate.lock().unwrap() {
            Fate::CutNumber(at, verdict) if write.as_ref().is_some_and(|write| write.0 == *at) => *verdict,
            Fate::CutSite(site, verdict)
                if write.is_some_and(|(_, what, before)| what == site.what && before == site.before) =>
            {
                *verdict
            }
            Fate::Refused { seed, left } if *left > 0 => {
                let verdict = match draw(seed) % 24 {
                    0 | 1 => Verdict::Answer(500),
                    2 | 3 => Verdict::Answer(409),
                    4 => Verdict::Answer(429),
                    5 if call.is_write() => Verdict::LoseAnswer,
                    _ => Verdict::Pass,
                };
                *left -= usize::from(verdict != Verdict::Pass);
                verdict
            }
            Fate::Well | Fate::CutNumber(..) | Fate::CutSite(..) | Fate::Refused { .. } => Verdict::Pass,
        };
        self.struck.fetch_add(usize::from(verdict != Verdict::Pass), Ordering::SeqCst);
        verdict
    }

    fn died(&self) {
        self.died.notify_one();
    }
}

/// The next number of a sequence that the seed alone decides (xorshift64*).
pub fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}
