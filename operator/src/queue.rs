//! Which object's turn it is: each at most once at a time, many side by side, failures further and further apart.
//!
//! The order of things is a plain state machine over a monotonic time; [`crate::driver`] runs it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// How long a failing object waits.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first failure; doubles with each further one. Jitter adds up to as much again.
    pub first: Duration,
    /// Never longer than this.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_mins(5) }
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well; look again after this time, or only when something changes.
    Done(Option<Duration>),
    /// It failed: the next turn waits longer each time.
    Failed,
    /// Something else changed what was written. Each write wakes the object again, so wakes do not count for a while: else
    /// the two would fight as fast as the API server answers.
    Contested,
    /// The API server did not answer. That is not the object's fault, so its waits do not grow: else all objects would
    /// stay behind for minutes when it is back.
    Unreachable,
}

/// How long wakes of a contested object do not count at most: a change of its spec waits as long.
const HELD: Duration = Duration::from_secs(10);

/// The queue. Times are [`crate::clock::Clock::elapsed`].
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeSet<(Duration, K)>,
    when: HashMap<K, Duration>,
    running: HashSet<K>,
    failing: HashMap<K, ExponentialBackoff>,
    /// No turn before this.
    held: HashMap<K, Duration>,
    backoff: Backoff,
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(backoff: Backoff) -> Self {
        Self {
            due: BTreeSet::new(),
            when: HashMap::new(),
            running: HashSet::new(),
            failing: HashMap::new(),
            held: HashMap::new(),
            backoff,
        }
    }

    /// The object's turn is at `at`, or earlier where an earlier one is planned. While it runs, it gets another turn
    /// afterwards: what changed meanwhile may have been read too early.
    pub fn plan(&mut self, key: K, at: Duration) {
        let at = self.held.get(&key).map_or(at, |held| at.max(*held));
        if let Some(planned) = self.when.get(&key) {
            if *planned <= at {
                return;
            }
            self.due.remove(&(*planned, key.clone()));
        }
        self.when.insert(key.clone(), at);
        self.due.insert((at, key));
    }

    /// Takes the next object whose turn has come.
    pub fn take(&mut self, now: Duration) -> Option<K> {
        let entry =
            self.due.iter().take_while(|(at, _)| *at <= now).find(|(_, key)| !self.running.contains(key)).cloned()?;
        self.due.remove(&entry);
        self.when.remove(&entry.1);
        self.held.remove(&entry.1);
        self.running.insert(entry.1.clone());
        Some(entry.1)
    }

    /// The turn has ended. `jitter` is a random number.
    pub fn done(&mut self, key: &K, outcome: Outcome, now: Duration, jitter: u64) {
        self.running.remove(key);
        match outcome {
            Outcome::Done(next) => {
                self.failing.remove(key);
                if let Some(next) = next {
                    self.plan(key.clone(), now + next);
                }
            }
            Outcome::Failed => {
                let wait = self.wait(key, jitter);
                self.plan(key.clone(), now + wait);
            }
            Outcome::Contested => {
                let wait = self.wait(key, jitter);
                self.held.insert(key.clone(), now + wait.min(HELD));
                // What its own writes have planned already is put off as well.
                if let Some(planned) = self.when.remove(key) {
                    self.due.remove(&(planned, key.clone()));
                    self.plan(key.clone(), planned);
                }
                self.plan(key.clone(), now + wait);
            }
            Outcome::Unreachable => {
                let spread = u32::try_from(jitter % 1000).unwrap_or(0);
                self.plan(key.clone(), now + self.backoff.first + self.backoff.first * spread / 1000);
            }
        }
    }

    /// The wait after one more failure.
    fn wait(&mut self, key: &K, jitter: u64) -> Duration {
        let Backoff { first, longest } = self.backoff;
        let waits = self.failing.entry(key.clone()).or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(first)
                .with_max_delay(longest)
                .without_max_times()
                .with_jitter()
                .with_jitter_seed(jitter)
                .build()
        });
        waits.next().unwrap_or(longest).min(longest)
    }

    /// When the next turn is due that may be taken, running ones aside.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.due.iter().find(|(_, key)| !self.running.contains(key)).map(|(at, _)| *at)
    }

    /// When another one's turn comes, after those whose turn has come.
    #[must_use]
    pub fn next_after(&self, now: Duration) -> Option<Duration> {
        self.due.iter().map(|(at, _)| *at).find(|at| *at > now)
    }

    /// How many objects wait whose turn has come.
    #[must_use]
    pub fn depth(&self, now: Duration) -> usize {
        self.due.iter().take_while(|(at, _)| *at <= now).count()
    }

    /// How many turns are under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queue() -> Queue<&'static str> {
        Queue::new(Backoff::default())
    }

    #[test]
    fn an_object_gets_one_turn_for_many_wakes_and_the_earliest_counts() {
        let mut queue = queue();
        queue.plan("a", s(5));
        queue.plan("a", s(2));
        queue.plan("a", s(9));
        assert_eq!(queue.take(s(1)), None);
        assert_eq!(queue.next_due(), Some(s(2)));
        assert_eq!((queue.next_after(s(1)), queue.next_after(s(2))), (Some(s(2)), None));
        assert_eq!((queue.depth(s(1)), queue.depth(s(2))), (0, 1));
        assert_eq!(queue.take(s(2)), Some("a"));
        assert_eq!(queue.take(s(100)), None);
    }

    #[test]
    fn an_object_never_has_two_turns_at_once_but_another_one_after() {
        let mut queue = queue();
        queue.plan("a", s(0));
        assert_eq!(queue.take(s(0)), Some("a"));
        queue.plan("a", s(0));
        queue.plan("b", s(1));
        assert_eq!(queue.take(s(1)), Some("b"), "others go on");
        assert_eq!(queue.take(s(1)), None);
        assert_eq!(queue.next_due(), None);
        queue.done(&"a", Outcome::Done(None), s(1), 0);
        assert_eq!(queue.take(s(1)), Some("a"));
    }

    #[test]
    fn failures_wait_longer_up_to_the_bound_and_success_forgets_them() {
        let mut queue = queue();
        let mut waits = Vec::new();
        for turn in 0..12 {
            queue.plan("a", s(0));
            queue.take(s(0)).unwrap();
            queue.done(&"a", Outcome::Failed, s(0), 7);
            waits.push(queue.next_due().unwrap());
            let floor = s(1 << turn.min(8));
            let wait = waits[waits.len() - 1];
            assert!(wait >= floor.min(s(300)) && wait <= s(300), "{turn}: {wait:?}");
        }
        assert_eq!(waits.last(), Some(&s(300)));
        queue.plan("a", s(0));
        queue.take(s(0)).unwrap();
        queue.done(&"a", Outcome::Done(Some(s(50))), s(0), 7);
        assert_eq!(queue.next_due(), Some(s(50)));
        queue.take(s(50)).unwrap();
        queue.done(&"a", Outcome::Failed, s(50), 7);
        assert!(queue.next_due().unwrap() <= s(52), "the first failure after a success is a first failure");
    }

    #[test]
    fn an_unreachable_server_is_not_the_objects_fault() {
        let mut queue = queue();
        for jitter in [0, 999, 5] {
            for _ in 0..30 {
                queue.plan("a", s(0));
                queue.take(s(0)).unwrap();
                queue.done(&"a", Outcome::Unreachable, s(0), jitter);
                let wait = queue.next_due().unwrap();
                assert!(wait >= s(1) && wait < s(2), "{wait:?}");
            }
        }
    }

    #[test]
    fn wakes_of_a_contested_object_wait() {
        let mut queue = queue();
        queue.plan("a", s(0));
        let (mut now, mut rounds) = (s(0), 0);
        while now < s(300) {
            if queue.take(now).is_some() {
                rounds += 1;
                // Its writes wake it while its turn is under way, and after it.
                queue.plan("a", now);
                queue.done(&"a", Outcome::Contested, now, 7);
                queue.plan("a", now);
            }
            now += Duration::from_millis(20);
        }
        assert!((30..40).contains(&rounds), "one each ten seconds, after the first few: {rounds}");
        queue.take(s(320)).unwrap();
        queue.done(&"a", Outcome::Done(None), s(320), 7);
        queue.plan("a", s(320));
        assert_eq!(queue.next_due(), Some(s(320)), "nothing is held when it went well");
    }

    #[test]
    fn spread_of_two_objects_that_fail_together() {
        let mut queue = queue();
        for (key, seed) in [("a", 1), ("b", 2)] {
            queue.plan(key, s(0));
            queue.take(s(0)).unwrap();
            queue.done(&key, Outcome::Failed, s(0), seed);
        }
        let times: Vec<_> = queue.due.iter().map(|(at, _)| *at).collect();
        assert_ne!(times[0], times[1]);
    }
}
