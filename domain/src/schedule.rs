//! When things fall due. Every answer is a function of stored times and the object's UID, so replicas agree, a restart
//! changes nothing, and what was made together does not fall due together.

use jiff::{SignedDuration, Timestamp};
use saatkond_pki::digest::sha256;
use saatkond_pki::renewal;

use crate::observed::{InstanceCopy, LeafFacts};

/// How much longer than `autonomy` a document lives.
pub const DOCUMENT_MARGIN: SignedDuration = SignedDuration::from_hours(24);
/// A document is signed again this long after it was signed, at the earliest.
pub const RESIGN_AFTER: SignedDuration = SignedDuration::from_hours(22);
/// Re-signing of many documents is spread over this. An hour of [`DOCUMENT_MARGIN`] is left then for what goes wrong.
pub const RESIGN_SPREAD: SignedDuration = SignedDuration::from_hours(1);
/// A start copy takes a newer instance configuration at most this often, unless the bundle sequence has changed.
pub const COPY_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// Everything is looked at again after this and up to half as long again, also when nothing has happened.
pub const RECHECK_AFTER: SignedDuration = SignedDuration::from_mins(40);
/// See [`RECHECK_AFTER`].
pub const RECHECK_SPREAD: SignedDuration = SignedDuration::from_mins(20);

/// `from` and a duration later; the end of time where that overflows.
#[must_use]
pub fn later(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `from` cut to whole seconds, as certificates and Kubernetes times carry.
#[must_use]
pub fn whole_seconds(from: Timestamp) -> Timestamp {
    Timestamp::from_second(from.as_second()).unwrap_or(from)
}

/// A share of `spread` that depends on the seed alone.
fn share(spread: SignedDuration, seed: &[u8]) -> SignedDuration {
    let hash = sha256(seed);
    let draw = i64::from(u16::from_be_bytes([hash[0], hash[1]]));
    // Spreads are hours: seconds times 65536 is far from overflowing.
    SignedDuration::from_secs(spread.as_secs().saturating_mul(draw) >> 16)
}

/// Until when a document that is signed now is accepted.
#[must_use]
pub fn document_expiry(now: Timestamp, autonomy: SignedDuration) -> Timestamp {
    later(later(now, autonomy), DOCUMENT_MARGIN)
}

/// When a document is signed again: daily, a little before its day is over, so that what is left of its life never
/// falls below `autonomy`.
#[must_use]
pub fn resign_at(signed_at: Timestamp, uid: &str) -> Timestamp {
    later(later(signed_at, RESIGN_AFTER), share(RESIGN_SPREAD, uid.as_bytes()))
}

/// When a leaf is renewed: the time persisted at its issue, else the one that its dates and serial number give.
#[must_use]
pub fn renew_at(leaf: &LeafFacts, uid: &str, persisted: Option<Timestamp>) -> Timestamp {
    persisted.unwrap_or_else(|| renewal::renew_at(leaf.not_before, leaf.not_after, &renewal_seed(uid, &leaf.serial)))
}

/// What the jitter of a renewal is drawn from.
#[must_use]
pub fn renewal_seed(uid: &str, serial: &str) -> Vec<u8> {
    format!("{uid}/{serial}").into_bytes()
}

/// From when a leaf may be renewed together with another one of the same Secret that is due: one write instead of two.
#[must_use]
pub fn may_renew_at(leaf: &LeafFacts) -> Timestamp {
    let life = leaf.not_after.duration_since(leaf.not_before).max(SignedDuration::ZERO);
    later(leaf.not_before, SignedDuration::from_secs(life.as_secs() / 100 * 55))
}

/// When an instance configuration that is newer than the one in a start copy is written there; `published` is how the
/// copy would read.
#[must_use]
pub fn copy_at(copy: Option<&InstanceCopy>, published: &InstanceCopy, now: Timestamp) -> Option<Timestamp> {
    match copy {
        None => Some(now),
        Some(copy) if copy.version == published.version => None,
        Some(copy) if copy.bundle_sequence != published.bundle_sequence => Some(now),
        // The copy is from when the federation was set up, and names nobody but this server itself at the most: a gateway
        // that starts from it without the link would find nobody to ask for a newer one.
        Some(copy) if copy.servers < 2 && published.servers > copy.servers => Some(now),
        Some(copy) => Some(later(copy.written_at, COPY_INTERVAL).max(now)),
    }
}

/// The earliest of the deadlines and the regular look, and never a time that has passed.
#[must_use]
pub fn next_check(now: Timestamp, uid: &str, deadlines: impl IntoIterator<Item = Timestamp>) -> Timestamp {
    let regular = later(later(now, RECHECK_AFTER), share(RECHECK_SPREAD, uid.as_bytes()));
    deadlines.into_iter().fold(regular, Timestamp::min).max(now)
}

/// Whether an authority that is valid from `begins` until `ends` can issue a leaf of `lifetime` now, and if not, why.
///
/// The same bounds as `pki::leaf::issue` has, so that a plan never asks for what would be refused: a leaf ends
/// `retirement` before its authority, and one that would live less than a third of its life is not worth issuing.
pub fn can_issue(
    begins: Timestamp,
    ends: Timestamp,
    lifetime: SignedDuration,
    retirement: SignedDuration,
    now: Timestamp,
) -> Result<(), CannotIssue> {
    if now.as_second() < begins.as_second() {
        return Err(CannotIssue::NotYetValid);
    }
    if now.as_second() > ends.as_second() {
        return Err(CannotIssue::Expired);
    }
    let until = ends.as_second().saturating_sub(retirement.as_secs().max(0));
    if until.saturating_sub(now.as_second()) < lifetime.as_secs() / 3 {
        return Err(CannotIssue::Expiring);
    }
    Ok(())
}

/// Why an authority cannot issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotIssue {
    /// It begins only later.
    NotYetValid,
    /// What is left of it is too short for a leaf.
    Expiring,
    /// It has ended.
    Expired,
}

#[cfg(test)]
mod tests {
    use saatkond_pki::key::Algorithm;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn leaf(begin: i64, end: i64) -> LeafFacts {
        LeafFacts {
            uri: String::new(),
            dns_names: vec![],
            issue_number: 1,
            generation: 1,
            serial: "ab".into(),
            spki_sha256: String::new(),
            algorithm: Algorithm::EcdsaP256,
            not_before: at(begin),
            not_after: at(end),
        }
    }

    #[test]
    fn a_document_outlives_autonomy_whenever_it_is_signed_again() {
        let autonomy = SignedDuration::from_hours(72);
        for uid in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let due = resign_at(at(0), uid);
            assert!((22 * 3600..23 * 3600).contains(&due.as_second()), "{uid}: {due}");
            assert!(document_expiry(at(0), autonomy).duration_since(due) >= autonomy, "{uid}");
        }
        assert_ne!(resign_at(at(0), "a"), resign_at(at(0), "b"), "spread");
    }

    #[test]
    fn a_copy_waits_ten_minutes_unless_the_sequence_changed_or_it_names_nobody_to_ask() {
        let copy = |version, bundle_sequence, servers| InstanceCopy {
            version,
            bundle_sequence,
            servers,
            written_at: at(1000),
        };
        for (name, standing, published, now, expected) in [
            ("none yet", None, copy(5, 2, 9), 1001, Some(1001)),
            ("the same", Some(copy(5, 2, 9)), copy(5, 2, 9), 9999, None),
            ("newer, one second before", Some(copy(5, 2, 9)), copy(6, 2, 9), 1599, Some(1600)),
            ("newer, exactly at", Some(copy(5, 2, 9)), copy(6, 2, 9), 1600, Some(1600)),
            ("newer, long after", Some(copy(5, 2, 9)), copy(6, 2, 9), 5000, Some(5000)),
            ("sequence changed", Some(copy(5, 2, 9)), copy(6, 3, 9), 1001, Some(1001)),
            ("an older one was put back by hand", Some(copy(5, 2, 9)), copy(4, 2, 9), 1600, Some(1600)),
            ("the first server", Some(copy(5, 2, 0)), copy(6, 2, 1), 1001, Some(1001)),
            ("the first other server", Some(copy(5, 2, 1)), copy(6, 2, 2), 1001, Some(1001)),
            ("one more to ask", Some(copy(5, 2, 2)), copy(6, 2, 3), 1001, Some(1600)),
            ("as lonely as before", Some(copy(5, 2, 1)), copy(6, 2, 1), 1001, Some(1600)),
        ] {
            assert_eq!(copy_at(standing.as_ref(), &published, at(now)), expected.map(at), "{name}");
        }
    }

    #[test]
    fn what_was_persisted_at_issue_wins() {
        let leaf = leaf(0, 1_000_000);
        let computed = renew_at(&leaf, "uid", None);
        assert!((550_000..650_000).contains(&computed.as_second()));
        assert_eq!(renew_at(&leaf, "uid", Some(at(7))), at(7));
        assert_ne!(renew_at(&leaf, "other", None), computed, "spread");
        assert_eq!(may_renew_at(&leaf), at(550_000));
    }

    #[test]
    fn the_next_check_is_the_earliest_and_never_past() {
        let (now, uid) = (at(10_000), "uid");
        let regular = next_check(now, uid, []);
        assert!((10_000 + 2400..10_000 + 3600).contains(&regular.as_second()));
        assert_eq!(next_check(now, uid, [at(10_500), at(10_400)]), at(10_400));
        assert_eq!(next_check(now, uid, [at(9_000)]), now);
        assert_eq!(next_check(now, uid, [at(99_999)]), regular);
    }

    #[test]
    fn an_authority_issues_between_its_beginning_and_a_third_of_a_leaf_before_its_retirement() {
        let (life, retirement) = (SignedDuration::from_secs(300), SignedDuration::from_secs(50));
        for (name, now, expected) in [
            ("one second before it begins", 999, Err(CannotIssue::NotYetValid)),
            ("as it begins", 1000, Ok(())),
            ("the last second with a third of a life", 1850, Ok(())),
            ("one second later", 1851, Err(CannotIssue::Expiring)),
            ("its last second", 2000, Err(CannotIssue::Expiring)),
            ("one second after", 2001, Err(CannotIssue::Expired)),
        ] {
            assert_eq!(can_issue(at(1000), at(2000), life, retirement, at(now)), expected, "{name}");
        }
    }
}
