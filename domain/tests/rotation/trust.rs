//! Who trusts whom, asked of the verifier that gateways use, with real certificates.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use saatkond_pki::authority::{Authority, AuthoritySpec};
use saatkond_pki::bundle::Bundle;
use saatkond_pki::key::{Algorithm, KeySource, SystemKeys};
use saatkond_pki::leaf::{self, LeafRequest, Terms, Usage};
use saatkond_pki::serial::Serial;
use saatkond_pki::verify::verify_leaf;

use crate::model::Generations;

/// Generations that a search may use.
const GENERATIONS: u32 = 6;

fn now() -> Timestamp {
    Timestamp::from_second(1_772_366_400).unwrap()
}

static AUTHORITIES: LazyLock<Vec<(Authority, Vec<u8>)>> = LazyLock::new(|| {
    let made = (1..=GENERATIONS).map(|generation| {
        let spec = AuthoritySpec {
            instance: "EE",
            generation,
            algorithm: Algorithm::EcdsaP256,
            not_before: now().checked_sub(SignedDuration::from_hours(1)).unwrap(),
            lifetime: SignedDuration::from_hours(8760),
            serial: Serial::from_random([7; 16]),
        };
        let authority = Authority::create(&spec, &SystemKeys).unwrap();
        let request = LeafRequest {
            usage: Usage::Authentication,
            common_name: "GOV/1/ss1".into(),
            uri: "saatkond://EE/GOV/1/ss1?use=authentication&issue=1".into(),
            dns_names: Vec::new(),
        };
        let terms = Terms {
            now: now(),
            lifetime: SignedDuration::from_hours(360),
            retirement: SignedDuration::from_hours(24),
            serial: Serial::from_random([9; 16]),
        };
        let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
        let leaf = leaf::issue(&authority, &request, key.public(), &terms).unwrap().der;
        (authority, leaf)
    });
    made.collect()
});

/// Whether a leaf of this generation is accepted by whoever trusts these.
pub fn trusts(bundle: Generations, generation: u64) -> bool {
    thread_local! {
        static KNOWN: RefCell<HashMap<(Generations, u64), bool>> = RefCell::default();
    }
    let ask = || {
        let of = |generation: u64| &AUTHORITIES[usize::try_from(generation).unwrap() - 1];
        let anchors = Bundle::new(bundle.iter().map(|generation| of(generation).0.certificate().clone())).unwrap();
        verify_leaf(&of(generation).1, &[], &anchors, Usage::Authentication, now()).is_ok()
    };
    KNOWN.with_borrow_mut(|known| *known.entry((bundle, generation)).or_insert_with(ask))
}
