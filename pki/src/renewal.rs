//! When a leaf is renewed. Pure: the caller stores what [`renew_at`] answered and compares it with its clock.

use jiff::{SignedDuration, Timestamp};

use crate::digest::sha256;

/// Earliest share of life after which a leaf is renewed, in hundredths (design §6.1).
const EARLIEST_PERCENT: i64 = 55;
/// Width of the window over which renewals are spread, in hundredths.
const SPREAD_PERCENT: i64 = 10;

/// The time of renewal: `not_before + life * (0.55 + 0.10 * h)`, where `h` in [0, 1) is drawn from the seed.
///
/// The seed is the server's UID and the serial number. A draw at every check would favour early times and differ between
/// replicas; one draw per leaf spreads leaves that were issued together, as after a re-key, over a tenth of their life.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, jitter_seed: &[u8]) -> Timestamp {
    let hash = sha256(jitter_seed);
    // 16 bits of the hash spread 15 days into steps of 2 s: finer than anything that acts on it.
    let draw = i64::from(u16::from_be_bytes([hash[0], hash[1]]));
    let life = life(not_before, not_after).as_secs();
    let earliest = scaled(life, EARLIEST_PERCENT, 100);
    let spread = scaled(life, SPREAD_PERCENT * draw, 100 << 16);
    later(not_before, earliest.saturating_add(spread))
}

/// The time from which a leaf counts as overdue: only one third of its life is left.
pub fn floor(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    later(not_before, scaled(life(not_before, not_after).as_secs(), 2, 3))
}

/// A validity that ends before it begins counts as no life at all, so it is due at once.
fn life(not_before: Timestamp, not_after: Timestamp) -> SignedDuration {
    not_after.duration_since(not_before).max(SignedDuration::ZERO)
}

fn scaled(seconds: i64, numerator: i64, denominator: i64) -> i64 {
    let product = i128::from(seconds) * i128::from(numerator) / i128::from(denominator);
    // The factor is below 1, so the product fits whatever the validity was.
    i64::try_from(product).unwrap_or(seconds)
}

fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn known_values() {
        let (begin, end) = (at(1_700_000_000), at(1_700_000_000 + 360 * 3600));
        assert_eq!(floor(begin, end), at(1_700_000_000 + 240 * 3600));
        // SHA-256("abc") begins with ba78: 0.55 + 0.10 * 0xba78 / 65536 of 360 h.
        assert_eq!(renew_at(begin, end, b"abc"), at(1_700_000_000 + 712_800 + 94_399));
        assert_eq!(renew_at(end, begin, b"abc"), end, "no life: due at once");
    }

    #[test]
    fn leaves_issued_together_are_spread() {
        let end = at(360 * 3600);
        let mut tenths = [0_u32; 10];
        for server in 0..1000_u32 {
            let share = renew_at(at(0), end, &server.to_be_bytes()).as_second() * 1000 / (360 * 3600);
            tenths[usize::try_from((share - 550) / 10).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn within_the_window_and_before_the_floor(begin in 0_i64..4_000_000_000, life in 60_i64..400_000_000, seed: [u8; 16]) {
            let due = renew_at(at(begin), at(begin + life), &seed);
            prop_assert!(due >= at(begin + life * 55 / 100));
            prop_assert!(due < at(begin + life * 65 / 100 + 2));
            prop_assert!(due < floor(at(begin), at(begin + life)));
            prop_assert_eq!(due, renew_at(at(begin), at(begin + life), &seed));
        }
    }
}
