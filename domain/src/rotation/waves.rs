//! In which order servers get certificates of the next authority: one first, then a tenth, then all. A wave begins when every process of those
//! before it presents its new leaf: what goes wrong with leaves of that authority goes wrong at one server.

use std::collections::BTreeMap;

use saatkond_wire::identifier::ServerId;

use crate::names::hash_hex;

/// Who has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wave {
    /// One server.
    Canary,
    /// A tenth of all, that one among them.
    Tenth,
    /// Every server.
    All,
}

impl Wave {
    /// How many of so many servers have their turn.
    #[must_use]
    pub fn size(self, servers: usize) -> usize {
        match self {
            Self::Canary => servers.min(1),
            Self::Tenth => servers.div_ceil(10),
            Self::All => servers,
        }
    }
}

/// The place of a server in the order in which the authority of this generation issues. It differs from change to change: not always the same
/// server is the first.
#[must_use]
pub fn rank(generation: u64, server: &ServerId) -> String {
    let mut rank = hash_hex(format!("{generation}\n{server}").as_bytes());
    rank.truncate(16);
    rank
}

/// The wave that has begun, given by rank who is done. One that has begun is not taken back because a process of an earlier one is
/// started anew.
#[must_use]
pub fn wave(done: &BTreeMap<String, bool>, begun: Wave) -> Wave {
    let is_open = |wave: &Wave| done.values().take(wave.size(done.len())).any(|done| !done);
    [Wave::Canary, Wave::Tenth].into_iter().filter(|wave| *wave >= begun).find(is_open).unwrap_or(Wave::All)
}

/// The last rank that has its turn; `None`: all have.
#[must_use]
pub fn last_rank(done: &BTreeMap<String, bool>, wave: Wave) -> Option<String> {
    let size = wave.size(done.len());
    if wave == Wave::All { None } else { done.keys().take(size).next_back().cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many servers, of which the first in the order are done.
    fn servers(count: usize, done: usize) -> BTreeMap<String, bool> {
        (0..count).map(|number| (format!("{number:04}"), number < done)).collect()
    }

    #[test]
    fn each_wave_waits_for_all_of_those_before_it() {
        for (count, done, expected, turns) in [
            (0, 0, Wave::All, 0),
            (1, 0, Wave::Canary, 1),
            (1, 1, Wave::All, 1),
            (10, 0, Wave::Canary, 1),
            // A tenth of ten is the one that was first.
            (10, 1, Wave::All, 10),
            (11, 1, Wave::Tenth, 2),
            (11, 2, Wave::All, 11),
            (258, 1, Wave::Tenth, 26),
            (258, 25, Wave::Tenth, 26),
            (258, 26, Wave::All, 258),
        ] {
            let all = servers(count, done);
            let wave = wave(&all, Wave::Canary);
            assert_eq!((wave, wave.size(count)), (expected, turns), "{done} of {count}");
            let last = last_rank(&all, wave);
            assert_eq!(last.is_none(), expected == Wave::All, "{done} of {count}");
            let have = all.keys().filter(|rank| last.as_ref().is_none_or(|last| *rank <= last)).count();
            assert_eq!(have, turns, "{done} of {count}");
        }
    }

    #[test]
    fn what_has_begun_is_not_taken_back() {
        for begun in [Wave::Canary, Wave::Tenth, Wave::All] {
            assert_eq!(wave(&servers(100, 0), begun), begun);
        }
    }

    #[test]
    fn the_order_is_another_for_each_authority() {
        let ids: Vec<ServerId> = (0..20).map(|number| format!("EE/GOV/{number}/ss1").parse().unwrap()).collect();
        let order = |generation| {
            let mut ids = ids.clone();
            ids.sort_by_key(|id| rank(generation, id));
            ids
        };
        assert_eq!(order(2), order(2));
        assert_ne!(order(2)[0], order(3)[0]);
    }
}
