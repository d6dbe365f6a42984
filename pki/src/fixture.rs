//! Authorities and leaves for the unit tests of this crate.

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};

use crate::authority::{Authority, AuthoritySpec};
use crate::bundle::Bundle;
use crate::key::{Algorithm, KeyPair, KeySource, SystemKeys};
use crate::leaf::{self, IssuedLeaf, LeafRequest, Terms, Usage};
use crate::serial::Serial;
use crate::test_support::FixedKeys;

/// The time at which the tests play: 2026-03-01T12:00:00Z.
pub(crate) const NOW: i64 = 1_772_366_400;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 24 * HOUR;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

pub(crate) fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// One key for each algorithm that is slow to generate, else a fixed one by number.
pub(crate) fn key(algorithm: Algorithm, number: u64) -> KeyPair {
    static RSA: LazyLock<Vec<zeroize::Zeroizing<String>>> =
        LazyLock::new(|| (0..2).map(|_| SystemKeys.generate(Algorithm::Rsa3072).unwrap().to_pkcs8_pem()).collect());
    match algorithm {
        Algorithm::Rsa3072 => KeyPair::from_pkcs8_pem(&RSA[usize::try_from(number % 2).unwrap()]).unwrap(),
        other => FixedKeys::starting_at(number).generate(other).unwrap(),
    }
}

pub(crate) fn spec(generation: u32, algorithm: Algorithm) -> AuthoritySpec<'static> {
    AuthoritySpec {
        instance: "EE",
        generation,
        algorithm,
        not_before: at(NOW - DAY),
        lifetime: seconds(365 * DAY),
        serial: Serial::from_random([1; 16]),
    }
}

pub(crate) fn authority(generation: u32, algorithm: Algorithm) -> Authority {
    Authority::create_with_key(&spec(generation, algorithm), key(algorithm, u64::from(generation) * 2)).unwrap()
}

pub(crate) fn bundle(authorities: &[&Authority]) -> Bundle {
    Bundle::new(authorities.iter().map(|authority| authority.certificate().clone())).unwrap()
}

pub(crate) fn request(usage: Usage) -> LeafRequest {
    let (uri, dns): (_, &[&str]) = match usage {
        Usage::Authentication => ("saatkond://EE/GOV/70000001/gw1?use=authentication&issue=7", &["gw1", "gw1.gov.svc"]),
        Usage::Signing => ("saatkond://EE/GOV/70000001?use=signing&server=GOV/70000001/gw1&issue=7", &[]),
        Usage::Link => ("saatkond://EE/link?use=link", &["ee.link.saatkond.internal"]),
    };
    LeafRequest {
        usage,
        common_name: "GOV/70000001/gw1".to_owned(),
        uri: uri.to_owned(),
        dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
    }
}

pub(crate) fn terms() -> Terms {
    Terms {
        now: at(NOW),
        lifetime: seconds(360 * HOUR),
        retirement: seconds(7 * DAY),
        serial: Serial::from_random([0x5a; 16]),
    }
}

/// A leaf of the authority with a key of the given algorithm.
pub(crate) fn leaf(authority: &Authority, usage: Usage, algorithm: Algorithm) -> (IssuedLeaf, KeyPair) {
    let key = key(algorithm, 1001);
    let issued = leaf::issue(authority, &request(usage), key.public(), &terms()).unwrap();
    (issued, key)
}
