//! What is published of a rotation.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use saatkond_wire::configuration::{InstanceConfiguration, RotationEntry, RotationPhase};

/// How far a change of the authority is. Each phase names the generation beside the one that issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// One authority is trusted, and issues.
    Stable,
    /// A next one is trusted, and issues nothing yet.
    Announcing {
        /// Its generation.
        next: u64,
    },
    /// Every leaf is issued anew; those of the old authority are still trusted.
    Switching {
        /// The generation that issues no more.
        old: u64,
        /// Whether this is the way back from a change that was cancelled.
        returning: bool,
    },
    /// The old authority is no longer trusted.
    Retiring {
        /// Its generation.
        old: u64,
        /// Whether this is the way back from a change that was cancelled.
        returning: bool,
    },
    /// The announced authority is no longer trusted. It has issued nothing.
    RollingBack {
        /// Its generation.
        withdrawn: u64,
    },
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stable => "Stable",
            Self::Announcing { .. } => "Announcing",
            Self::Switching { .. } => "Switching",
            Self::Retiring { .. } => "Retiring",
            Self::RollingBack { .. } => "RollingBack",
        })
    }
}

/// The state of an anchor's authorities as it is published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// How far a change is.
    pub phase: Phase,
    /// The generation that issues.
    pub signing: u64,
    /// The highest generation that was ever announced. A number is never used for two authorities.
    pub highest: u64,
    /// The requests that were taken up, oldest first: none runs twice.
    pub requests: Vec<String>,
}

/// The most requests that are remembered. Each is a change of the authority: at one a month that is ten years.
pub const MAX_REQUESTS: usize = 128;

impl Standing {
    /// An anchor with its first authority.
    #[must_use]
    pub fn first(generation: u64) -> Self {
        Self { phase: Phase::Stable, signing: generation, highest: generation, requests: Vec::new() }
    }

    /// What a document says; `None` where it contradicts itself, which nothing of ours writes.
    #[must_use]
    pub fn of(document: &InstanceConfiguration) -> Option<Self> {
        if let Some(entry) = &document.rotation {
            return Self::read(entry, document.signing_generation);
        }
        let trusted = document.bundle.iter().map(|entry| entry.generation);
        let highest = trusted.chain([document.signing_generation]).max()?;
        Some(Self { highest, ..Self::first(document.signing_generation) })
    }

    /// What an entry says of an anchor in which `signing` issues.
    #[must_use]
    pub fn read(entry: &RotationEntry, signing: u64) -> Option<Self> {
        let RotationEntry { phase, other, returning, highest, requests, since: _ } = entry;
        let phase = match (phase, *other) {
            (RotationPhase::Stable, _) => Phase::Stable,
            (RotationPhase::Announcing, Some(next)) => Phase::Announcing { next },
            (RotationPhase::Switching, Some(old)) => Phase::Switching { old, returning: *returning },
            (RotationPhase::Retiring, Some(old)) => Phase::Retiring { old, returning: *returning },
            (RotationPhase::RollingBack, Some(withdrawn)) => Phase::RollingBack { withdrawn },
            (_, None) => return None,
        };
        Some(Self { phase, signing, highest: *highest, requests: requests.clone() })
    }

    /// As it stands in a document that is published at `since`.
    #[must_use]
    pub fn entry(&self, since: Timestamp) -> RotationEntry {
        let (phase, other, returning) = match self.phase {
            Phase::Stable => (RotationPhase::Stable, None, false),
            Phase::Announcing { next } => (RotationPhase::Announcing, Some(next), false),
            Phase::Switching { old, returning } => (RotationPhase::Switching, Some(old), returning),
            Phase::Retiring { old, returning } => (RotationPhase::Retiring, Some(old), returning),
            Phase::RollingBack { withdrawn } => (RotationPhase::RollingBack, Some(withdrawn), false),
        };
        RotationEntry { phase, other, returning, highest: self.highest, requests: self.requests.clone(), since }
    }

    /// The generations that are trusted.
    #[must_use]
    pub fn bundle(&self) -> BTreeSet<u64> {
        let beside = match self.phase {
            Phase::Announcing { next } => Some(next),
            Phase::Switching { old, .. } => Some(old),
            Phase::Stable | Phase::Retiring { .. } | Phase::RollingBack { .. } => None,
        };
        [self.signing].into_iter().chain(beside).collect()
    }

    /// Whether receipts of `before` say nothing about this: the bundle or who issues differs, so the sequence rises.
    #[must_use]
    pub fn is_news(&self, before: &Self) -> bool {
        self.signing != before.signing || self.bundle() != before.bundle()
    }

    fn to(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// A next authority is announced. It is for the caller to know that it may be.
    pub(super) fn announce(&self, next: u64, request: String) -> Self {
        let mut standing = self.to(Phase::Announcing { next });
        standing.highest = self.highest.max(next);
        standing.requests.push(request);
        let forgotten = standing.requests.len().saturating_sub(MAX_REQUESTS);
        standing.requests.drain(..forgotten);
        standing
    }

    /// What follows when everyone has stated what this phase waits for; nothing follows `Stable`.
    pub(super) fn advance(&self) -> Option<Self> {
        match self.phase {
            Phase::Stable => None,
            Phase::Announcing { next } => {
                Some(Self { signing: next, ..self.to(Phase::Switching { old: self.signing, returning: false }) })
            }
            Phase::Switching { old, returning } => Some(self.to(Phase::Retiring { old, returning })),
            Phase::Retiring { .. } | Phase::RollingBack { .. } => Some(self.to(Phase::Stable)),
        }
    }

    /// The way back, where there is one: an announced authority is withdrawn, of two that are trusted the old one issues again, one
    /// that is being retired is trusted again. A way back has none itself.
    pub(super) fn cancel(&self) -> Option<Self> {
        match self.phase {
            Phase::Announcing { next } => Some(self.to(Phase::RollingBack { withdrawn: next })),
            Phase::Switching { old, returning: false } => {
                Some(Self { signing: old, ..self.to(Phase::Switching { old: self.signing, returning: true }) })
            }
            Phase::Retiring { old, returning: false } => Some(self.to(Phase::Switching { old, returning: false })),
            Phase::Stable
            | Phase::Switching { returning: true, .. }
            | Phase::Retiring { returning: true, .. }
            | Phase::RollingBack { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(standing: &Standing) -> Vec<Standing> {
        std::iter::successors(Some(standing.clone()), Standing::advance).collect()
    }

    #[test]
    fn a_change_goes_through_its_phases_once_and_ends_stable() {
        let announced = Standing::first(1).announce(2, "r".into());
        let bundles: Vec<_> = walk(&announced)
            .iter()
            .map(|it| (it.phase, it.signing, it.bundle().into_iter().collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            bundles,
            [
                (Phase::Announcing { next: 2 }, 1, vec![1, 2]),
                (Phase::Switching { old: 1, returning: false }, 2, vec![1, 2]),
                (Phase::Retiring { old: 1, returning: false }, 2, vec![2]),
                (Phase::Stable, 2, vec![2]),
            ]
        );
    }

    #[test]
    fn a_cancelled_change_ends_with_the_authority_that_was_and_its_number_is_used_up() {
        let announced = Standing::first(1).announce(2, "r".into());
        let switching = announced.advance().unwrap();
        let retiring = switching.advance().unwrap();
        for (name, from) in [("announced", announced), ("switching", switching), ("retiring", retiring)] {
            let back = from.cancel().unwrap();
            // One that is being retired is trusted again first; only then may it issue.
            let back = if name == "retiring" { back.cancel().unwrap() } else { back };
            let end = walk(&back).pop().unwrap();
            assert_eq!((end.phase, end.signing, end.highest), (Phase::Stable, 1, 2), "{name}");
            assert_eq!(end.requests, ["r"], "{name}");
            assert!(
                walk(&back).iter().skip(1).all(|later| later.cancel().is_none()),
                "{name}: no way back from the way back"
            );
        }
    }

    #[test]
    fn requests_are_remembered_within_a_bound_and_through_the_document() {
        let mut standing = Standing::first(1);
        for number in 0..200 {
            standing = standing.announce(2, number.to_string());
        }
        assert_eq!((standing.requests.len(), &*standing.requests[MAX_REQUESTS - 1]), (MAX_REQUESTS, "199"));
    }

    /// The arrows between phases in the picture of docs/rotation.md.
    fn drawn() -> BTreeSet<(String, String)> {
        let text = include_str!("../../../docs/rotation.md");
        let picture = text.split("stateDiagram-v2").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let arrows = picture.lines().filter_map(|line| line.trim().split_once(" --> "));
        let name = |part: &str| part.split(':').next().unwrap_or_default().trim().to_owned();
        arrows.map(|(from, to)| (name(from), name(to))).filter(|(from, _)| from != "[*]").collect()
    }

    #[test]
    fn the_picture_shows_the_phases_that_there_are_and_every_way_between_them() {
        // Everything that can be published, from the first authority on.
        let (mut found, mut ways) = (BTreeSet::from([Standing::first(1)]), BTreeSet::new());
        let mut open: Vec<_> = found.iter().cloned().collect();
        while let Some(standing) = open.pop() {
            let announced = (standing.phase == Phase::Stable).then(|| standing.announce(2, "r".into()));
            for next in [announced, standing.advance(), standing.cancel()].into_iter().flatten() {
                // What is being prepared is not published yet.
                let from =
                    if standing.phase == Phase::Stable { "Preparing".into() } else { standing.phase.to_string() };
                ways.insert((from, next.phase.to_string()));
                // Which requests there were is no matter of the picture.
                let next = Standing { requests: Vec::new(), ..next };
                if next.phase != Phase::Stable && found.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        let way = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        ways.extend([way("Stable", "Preparing"), way("Preparing", "Stable")]);
        assert_eq!(drawn(), ways);
        // By the names that the status shows.
        for (from, to) in ways {
            for name in [from, to] {
                serde_json::from_value::<saatkond_api::v1alpha1::trust_anchor::RotationPhase>(name.into()).unwrap();
            }
        }
    }

    #[test]
    fn every_phase_survives_the_document() {
        let announced = Standing::first(1).announce(2, "r".into());
        let back = announced.advance().and_then(|switching| switching.cancel()).unwrap();
        let withdrawn = announced.cancel().unwrap();
        let since = Timestamp::from_second(7).unwrap();
        for standing in [walk(&announced), walk(&back), walk(&withdrawn)].concat() {
            let entry = standing.entry(since);
            assert_eq!(Standing::read(&entry, standing.signing).as_ref(), Some(&standing));
            assert_eq!(entry.since, since);
        }
        let torn = RotationEntry { other: None, ..announced.entry(since) };
        assert_eq!(Standing::read(&torn, 1), None, "a phase without the generation that it is about");
    }

    #[test]
    fn who_trusts_or_issues_differently_is_news_and_the_phase_alone_is_not() {
        let announced = Standing::first(1).announce(2, "r".into());
        let phases = [vec![Standing::first(1)], walk(&announced)].concat();
        let news: Vec<_> = phases.windows(2).map(|pair| pair[1].is_news(&pair[0])).collect();
        assert_eq!(news, [true, true, true, false]);
    }
}
