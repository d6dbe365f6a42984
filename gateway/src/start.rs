//! When a starting gateway may open its listeners (design §6.2).
//!
//! It must not serve with documents or a leaf that the federation has left behind: with a leaf of a retired authority every
//! peer would refuse it, with an old document it would trust who is no longer trusted. Each row of the rule was found by a
//! search over three processes; without any one of them there is an outage.

use std::time::Duration;

/// What a starting process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it holds, if it holds a valid pair of documents and an identity.
    pub held: Option<Held>,
    /// What the link answered.
    pub link: Link,
    /// What other gateways answered.
    pub peers: Peers,
    /// Since the start.
    pub waited: Duration,
    /// How long to wait for peers before serving without having met any.
    pub alone_after: Duration,
    /// For how long the link has named what is not held.
    pub behind: Duration,
    /// How long to wait for that before asking peers.
    pub behind_after: Duration,
}

/// Documents and identity at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// `version` of the instance configuration.
    pub instance_version: u64,
    /// `version` of the server configuration.
    pub server_version: u64,
    /// The highest issue number of the identity.
    pub issue_number: u64,
    /// The generation that issued the authentication leaf.
    pub leaf_generation: u64,
    /// The signing generation that the newest document names.
    pub signing_generation: u64,
}

/// The link, as seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// No attempt has ended yet.
    Unknown,
    /// The last attempt failed.
    Silent,
    /// It has answered, from a quorum read, with the published numbers.
    Answered {
        /// Of the instance configuration.
        instance_version: u64,
        /// Of the server configuration.
        server_version: u64,
        /// Of the identity.
        issue_number: u64,
    },
}

/// The other gateways, as seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Not all have been asked.
    Unknown,
    /// All were asked, none answered.
    Silent,
    /// At least one has answered with its document, which has been taken up if it was newer.
    Answered,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Open the listeners.
    Open(Basis),
    /// Not yet.
    Wait(Reason),
}

/// On what grounds the listeners opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The link: what is held is what is published.
    Published,
    /// At least one peer, the link being silent or naming what does not come.
    Peer,
    /// Nobody, after the time for it. Worth a condition.
    Alone,
}

/// For what a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// For a valid pair of documents and an identity.
    NothingHeld,
    /// For the first attempt at the link to end.
    LinkNotAsked,
    /// For documents that are published and not here.
    DocumentsBehind,
    /// For an identity that is stored and not here: the mount is late.
    IdentityBehind,
    /// For a leaf of the generation that signs now.
    LeafOfAnotherGeneration,
    /// For a peer.
    NoPeer,
}

impl Reason {
    /// The word in logs and probes.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NothingHeld => "NothingHeld",
            Self::LinkNotAsked => "LinkNotAsked",
            Self::DocumentsBehind => "DocumentsBehind",
            Self::IdentityBehind => "IdentityBehind",
            Self::LeafOfAnotherGeneration => "LeafOfAnotherGeneration",
            Self::NoPeer => "NoPeer",
        }
    }
}

/// The rule.
#[must_use]
pub fn decide(seen: &Seen) -> Decision {
    let Some(held) = seen.held else { return Decision::Wait(Reason::NothingHeld) };
    match seen.link {
        Link::Unknown => Decision::Wait(Reason::LinkNotAsked),
        Link::Answered { instance_version, server_version, issue_number } => {
            let missing = if held.instance_version < instance_version || held.server_version < server_version {
                Reason::DocumentsBehind
            } else if held.issue_number < issue_number {
                Reason::IdentityBehind
            } else {
                return Decision::Open(Basis::Published);
            };
            match seen.behind.checked_sub(seen.behind_after) {
                None => Decision::Wait(missing),
                Some(waited) => by_peers(&held, seen, waited),
            }
        }
        Link::Silent => by_peers(&held, seen, seen.waited),
    }
}

/// The rule without the link, and where it names what does not come: a document that this process must refuse, or a leaf whose mount
/// does not follow. No start may depend for ever on what the operator has published.
fn by_peers(held: &Held, seen: &Seen, waited: Duration) -> Decision {
    if held.leaf_generation != held.signing_generation {
        return Decision::Wait(Reason::LeafOfAnotherGeneration);
    }
    match seen.peers {
        Peers::Answered => Decision::Open(Basis::Peer),
        Peers::Silent if waited >= seen.alone_after => Decision::Open(Basis::Alone),
        Peers::Silent | Peers::Unknown => Decision::Wait(Reason::NoPeer),
    }
}

impl Seen {
    /// Whether peers are worth asking.
    #[must_use]
    pub fn needs_peers(&self) -> bool {
        self.link == Link::Silent || self.behind >= self.behind_after
    }
}

impl Decision {
    /// Whether the link has named what is not held.
    #[must_use]
    pub fn is_behind(self) -> bool {
        matches!(self, Self::Wait(Reason::DocumentsBehind | Reason::IdentityBehind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Held =
        Held { instance_version: 5, server_version: 3, issue_number: 7, leaf_generation: 2, signing_generation: 2 };
    const PUBLISHED: Link = Link::Answered { instance_version: 5, server_version: 3, issue_number: 7 };

    fn seen(held: Option<Held>, link: Link, peers: Peers, waited: u64) -> Seen {
        Seen {
            held,
            link,
            peers,
            waited: Duration::from_secs(waited),
            alone_after: Duration::from_mins(1),
            behind: Duration::ZERO,
            behind_after: Duration::from_mins(2),
        }
    }

    #[test]
    fn what_the_link_names_and_does_not_come_is_waited_for_with_a_bound() {
        let decide_after = |seconds, link, held, peers| {
            let seen = Seen { behind: Duration::from_secs(seconds), ..seen(Some(held), link, peers, 999) };
            (seen.needs_peers(), decide(&seen))
        };
        let (document, leaf) = (
            Link::Answered { instance_version: 6, server_version: 3, issue_number: 7 },
            Link::Answered { instance_version: 5, server_version: 3, issue_number: 8 },
        );
        let old_leaf = Held { leaf_generation: 1, ..HELD };
        for (link, reason) in [(document, Reason::DocumentsBehind), (leaf, Reason::IdentityBehind)] {
            let wait = Decision::Wait(reason);
            assert_eq!(decide_after(119, link, HELD, Peers::Answered), (false, wait), "a moment too early");
            assert_eq!(decide_after(120, link, HELD, Peers::Unknown), (true, Decision::Wait(Reason::NoPeer)));
            assert_eq!(decide_after(120, link, HELD, Peers::Answered), (true, Decision::Open(Basis::Peer)));
            assert_eq!(decide_after(179, link, HELD, Peers::Silent), (true, Decision::Wait(Reason::NoPeer)));
            assert_eq!(decide_after(180, link, HELD, Peers::Silent), (true, Decision::Open(Basis::Alone)));
            let wait = Decision::Wait(Reason::LeafOfAnotherGeneration);
            assert_eq!(decide_after(999, link, old_leaf, Peers::Answered), (true, wait));
        }
    }

    #[test]
    fn the_rule_by_its_rows() {
        let held = Some(HELD);
        let old_leaf = Some(Held { leaf_generation: 1, ..HELD });
        let answered = |instance_version, server_version, issue_number| Link::Answered {
            instance_version,
            server_version,
            issue_number,
        };
        for (name, seen, expected) in [
            ("nothing", seen(None, PUBLISHED, Peers::Answered, 999), Decision::Wait(Reason::NothingHeld)),
            ("link not asked", seen(held, Link::Unknown, Peers::Answered, 999), Decision::Wait(Reason::LinkNotAsked)),
            ("published", seen(held, PUBLISHED, Peers::Unknown, 0), Decision::Open(Basis::Published)),
            ("newer than the link", seen(held, answered(4, 2, 6), Peers::Unknown, 0), Decision::Open(Basis::Published)),
            (
                "instance behind",
                seen(held, answered(6, 3, 7), Peers::Answered, 999),
                Decision::Wait(Reason::DocumentsBehind),
            ),
            (
                "server behind",
                seen(held, answered(5, 4, 7), Peers::Answered, 999),
                Decision::Wait(Reason::DocumentsBehind),
            ),
            (
                "identity behind",
                seen(held, answered(5, 3, 8), Peers::Answered, 999),
                Decision::Wait(Reason::IdentityBehind),
            ),
            ("old leaf, link", seen(old_leaf, PUBLISHED, Peers::Silent, 0), Decision::Open(Basis::Published)),
            ("peer", seen(held, Link::Silent, Peers::Answered, 0), Decision::Open(Basis::Peer)),
            (
                "old leaf, peer",
                seen(old_leaf, Link::Silent, Peers::Answered, 999),
                Decision::Wait(Reason::LeafOfAnotherGeneration),
            ),
            ("alone, a moment too early", seen(held, Link::Silent, Peers::Silent, 59), Decision::Wait(Reason::NoPeer)),
            ("alone", seen(held, Link::Silent, Peers::Silent, 60), Decision::Open(Basis::Alone)),
            ("peers not asked", seen(held, Link::Silent, Peers::Unknown, 999), Decision::Wait(Reason::NoPeer)),
            (
                "old leaf, alone",
                seen(old_leaf, Link::Silent, Peers::Silent, 60),
                Decision::Wait(Reason::LeafOfAnotherGeneration),
            ),
        ] {
            assert_eq!(decide(&seen), expected, "{name}");
        }
    }
}
