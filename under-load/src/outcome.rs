//! What came of a run, and whether that is what it had to show.

use std::fmt;

use crate::mortal::Deaths;
use crate::scrape::PeerCounts;
use crate::tally::Counts;

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Of the calls.
    pub counts: Counts,
    /// The first of those that failed.
    pub failures: Vec<String>,
    /// What gateways sent to each other for them.
    pub peers: PeerCounts,
    /// Changes of the authority, from the first request to the end.
    pub rotations: u64,
    /// Of the controller.
    pub deaths: Deaths,
    /// Of the order of faults.
    pub seed: u64,
}

/// What a run must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Calls.
    pub requests: u64,
    /// Changes of the authority.
    pub rotations: u64,
    /// Ends of the controller.
    pub kills: u64,
}

impl Outcome {
    /// What it did not come to; empty where it has shown what it had to.
    #[must_use]
    pub fn short_of(&self, demands: Demands) -> Vec<String> {
        let Self { counts, peers, deaths, .. } = self;
        let mut short = Vec::new();
        let mut demand = |met: bool, what: String| {
            if !met {
                short.push(what);
            }
        };
        demand(counts.failures == 0, format!("{} of {} calls failed", counts.failures, counts.requests));
        let at_least = |count: u64, least: u64| count > 0 && count >= least;
        for (what, count, least) in [
            ("calls", counts.requests, demands.requests),
            ("changes of the authority", self.rotations, demands.rotations),
            ("ends of the controller", deaths.kills, demands.kills),
            ("calls during a change, of which half must be", counts.in_rotation, counts.requests / 2),
            ("calls over new connections, of which a fifth must be", counts.new, counts.requests / 5),
            ("calls over connections older than a phase, of which a fifth must be", counts.old, counts.requests / 5),
            ("calls of one ordered pair, of which a hundredth must be", counts.fewest_of_a_pair, counts.requests / 100),
            // A gateway that ends takes along what it counted since it was read last.
            ("requests between gateways", peers.full, counts.requests / 2),
        ] {
            demand(at_least(count, least), format!("{count} {what}, and not at least {least}"));
        }
        // ADR 4: it would carry a peer past a bundle that no longer holds its authority.
        demand(peers.resumed == 0, format!("{} requests between gateways in resumed sessions", peers.resumed));
        demand(deaths.hit == deaths.all && deaths.all > 0, format!("writes that were not cut: {:?}", deaths.missed));
        short
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counts, peers, rotations, deaths, seed, failures: _ } = self;
        write!(
            f,
            "RESULT requests={} failures={} in_rotation={} new={} resumed={} old={} rotations={rotations} kills={} killpoints={}/{} \
             refused={} retries={} seed={seed}",
            counts.requests,
            counts.failures,
            counts.in_rotation,
            counts.new,
            peers.resumed,
            counts.old,
            deaths.kills,
            deaths.hit,
            deaths.all,
            deaths.refused,
            peers.retries,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        Outcome {
            counts: Counts { requests: 1000, in_rotation: 500, new: 200, old: 200, failures: 0, fewest_of_a_pair: 10 },
            peers: PeerCounts { full: 1003, resumed: 0, retries: 3 },
            rotations: 3,
            deaths: Deaths { kills: 10, refused: 4, hit: 12, all: 12, missed: vec![] },
            ..Outcome::default()
        }
    }

    #[test]
    fn each_demand_can_be_missed() {
        let demands = Demands { requests: 1000, rotations: 3, kills: 10 };
        assert_eq!(good().short_of(demands), Vec::<String>::new());
        let edits: [fn(&mut Outcome); 11] = [
            |it| it.counts.failures = 1,
            |it| it.counts.requests = 999,
            |it| it.counts.in_rotation = 499,
            |it| it.counts.new = 199,
            |it| it.counts.old = 199,
            |it| it.counts.fewest_of_a_pair = 9,
            |it| it.peers.resumed = 1,
            |it| it.peers.full = 499,
            |it| it.rotations = 2,
            |it| it.deaths.kills = 9,
            |it| it.deaths.hit = 11,
        ];
        for (number, edit) in edits.into_iter().enumerate() {
            let mut outcome = good();
            edit(&mut outcome);
            assert_eq!(outcome.short_of(demands).len(), 1, "edit {number}: {:?}", outcome.short_of(demands));
        }
        // Where nothing was done nothing is shown.
        assert_eq!(Outcome::default().short_of(Demands { requests: 0, rotations: 0, kills: 0 }).len(), 9);
    }

    #[test]
    fn the_last_line_has_numbers_alone() {
        let expected = "RESULT requests=1000 failures=0 in_rotation=500 new=200 resumed=0 old=200 rotations=3 kills=10 killpoints=12/12 \
                        refused=4 retries=3 seed=0";
        assert_eq!(good().to_string(), expected);
    }
}
