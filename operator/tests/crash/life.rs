//! What befalls one process of the operator: the fault that cuts its writes, and what it counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use saatkond_operator::client::{Call, Fault, Verdict};
use tokio::sync::Notify;

/// What befalls one process.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Nothing.
    Well,
    /// Its n-th write, counted from 0, is cut.
    Cut(usize, Verdict),
    /// So many requests, drawn at random, are refused or lose their answer.
    Refused { seed: u64, left: usize },
}

/// Carries out the fate of one process, and counts its writes.
pub struct Life {
    pub fate: Mutex<Fate>,
    pub writes: AtomicUsize,
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
            writes: AtomicUsize::new(0),
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

impl Fault for Life {
    fn judge(&self, call: &Call) -> Verdict {
        if call.resource == "leases" || call.verb == "watch" {
            return Verdict::Pass;
        }
        let now = Instant::now();
        let mut last = self.last.lock().unwrap();
        last.0 = now;
        let mut number = None;
        if call.is_write() {
            last.1 = now;
            number = Some(self.writes.fetch_add(1, Ordering::SeqCst));
            self.sites.lock().unwrap().push(call.to_string());
        }
        let verdict = match &mut *self.fate.lock().unwrap() {
            Fate::Cut(at, verdict) if number == Some(*at) => *verdict,
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
            Fate::Well | Fate::Cut(..) | Fate::Refused { .. } => Verdict::Pass,
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
